//! Identifiers, names, PEM, redacted secrets: what every floor may use and nothing else depends on.

pub mod path;
pub mod secret;
