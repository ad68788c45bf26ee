//! Where configuration and identities come from besides files and the Admin API.

pub mod consul;
