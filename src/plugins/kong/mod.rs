//! Plugins configured as Kong configures them, with Kong's error texts and log entries.

pub mod acl;
pub mod basic_auth;
pub mod correlation_id;
pub mod cors;
pub mod file_log;
pub mod grpc_gateway;
pub mod grpc_web;
pub mod header_cert_auth;
pub mod ip_restriction;
pub mod key_auth;
pub mod log_entry;
pub mod mtls_auth;
pub mod prometheus;
pub mod rate_limiting;
pub mod renderer;
pub mod request_termination;
pub mod request_transformer;
pub mod response_transformer;
pub mod session_entry;
pub mod tcp_log;
pub mod websocket_size_limit;
pub mod websocket_validator;
