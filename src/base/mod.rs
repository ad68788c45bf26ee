//! Identifiers, names, PEM, redacted secrets: what every floor may use and nothing else depends on.

pub mod bounded;
pub mod certificate;
pub mod certificate_pair;
pub mod diagnostic;
pub mod jose;
pub mod path;
pub mod pem;
pub mod seal;
pub mod secret;
pub mod self_signed;
pub mod source_ref;
pub mod token;
pub mod xxhash;
