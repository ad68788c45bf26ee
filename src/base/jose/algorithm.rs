//! The algorithms of signatures.

use boring::hash::MessageDigest;
use boring::nid::Nid;
use serde::{Deserialize, Serialize};

/// Which kind of key an algorithm takes, and how it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A shared secret.
    Hmac,
    /// RSA with PKCS #1 padding.
    Rsa,
    /// RSA with PSS padding.
    RsaPss,
    /// ECDSA on the algorithm's own curve.
    Ec,
}

/// An algorithm of RFC 7518, section 3.1. `none` is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::upper_case_acronyms, reason = "the names of RFC 7518")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
    ];

    /// The algorithm of a name; case counts.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
        }
    }

    /// The kind of key.
    pub fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::RS256 | Self::RS384 | Self::RS512 => Family::Rsa,
            Self::PS256 | Self::PS384 | Self::PS512 => Family::RsaPss,
            Self::ES256 | Self::ES384 | Self::ES512 => Family::Ec,
        }
    }

    /// Bits of the digest.
    pub(super) fn bits(self) -> u16 {
        match self {
            Self::HS256 | Self::RS256 | Self::PS256 | Self::ES256 => 256,
            Self::HS384 | Self::RS384 | Self::PS384 | Self::ES384 => 384,
            Self::HS512 | Self::RS512 | Self::PS512 | Self::ES512 => 512,
        }
    }

    pub(super) fn digest(self) -> MessageDigest {
        match self.bits() {
            256 => MessageDigest::sha256(),
            384 => MessageDigest::sha384(),
            _ => MessageDigest::sha512(),
        }
    }

    /// The curve, and the bytes of each half of a signature.
    pub(super) fn curve(self) -> Option<(Nid, usize)> {
        match self {
            Self::ES256 => Some((Nid::X9_62_PRIME256V1, 32)),
            Self::ES384 => Some((Nid::SECP384R1, 48)),
            Self::ES512 => Some((Nid::SECP521R1, 66)),
            _ => None,
        }
    }
}
