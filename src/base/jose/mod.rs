//! Signed tokens: JWS in its compact form (RFC 7515), keys (RFC 7517) and algorithms (RFC 7518).
//!
//! Owns signatures, the reading of keys, and taking tokens apart. Refuses to know claims and what they mean, where keys
//! come from, and the algorithm `none`. Start at [`Compact::parse`] and [`VerifyingKey`].

mod algorithm;
mod compact;
mod key;
mod key_set;

pub use algorithm::{Algorithm, Family};
pub use compact::{Compact, TOKEN_BYTES_MAX, encode_part, signing_input};
pub use key::{KeyError, SigningKey, VerifyingKey};
pub use key_set::{KEYS_MAX, KeySet};
