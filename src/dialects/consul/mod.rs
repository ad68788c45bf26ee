//! The Consul Connect dialect: identities, what the agent answers, intentions and proxy registrations.
//!
//! Pure: the agent is asked by `sources::consul`, which hands in what it answered. Start at [`registration`] for what a
//! proxy is configured with, and at [`intention`] for who may call whom.

pub mod answers;
mod application;
pub mod chain;
pub mod compile;
pub mod duration;
pub mod expose;
pub mod flags;
pub mod gateway;
pub mod header_edits;
pub mod instance;
pub mod intention;
pub mod matching;
pub mod mesh_name;
pub mod normalise;
pub mod outbound;
pub mod parts;
pub mod permission;
pub mod registration;
pub mod spiffe;
pub mod timeouts;
pub mod walk;
