//! Mechanisms that several plugins use. They know exchanges, never a dialect's configuration.

pub(crate) mod body;
pub(crate) mod certificate_auth;
pub(crate) mod configuration;
pub(crate) mod datagram_sender;
pub(crate) mod grpc_messages;
pub(crate) mod headers;
pub(crate) mod identity;
pub(crate) mod line_sender;
pub(crate) mod log_rotation;
pub(crate) mod log_writer;
pub(crate) mod lost_lines;
pub(crate) mod proto_files;
pub(crate) mod query;
pub(crate) mod remote_keys;
pub(crate) mod template;
pub(crate) mod windows;
