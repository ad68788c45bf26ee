//! Why a caller was turned away, each reason with a counter of its own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use boring::x509::X509VerifyError;

/// Why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not TLS.
    NotTls,
    /// The client speaks only older versions, or no cipher in common.
    Version(String),
    /// The handshake was not finished in time.
    HandshakeTimeout,
    /// The client broke the handshake off, or broke its rules.
    Handshake(String),
    NoCertificate,
    Expired,
    NotYetValid,
    /// The chain does not end at a root that counts now.
    UnknownAuthority(String),
    /// The certificate is not for this side of a connection.
    WrongPurpose,
    /// The chain breaks a rule, for instance a constraint on names.
    Chain(String),
    /// The certificate has no URI among its names.
    NoIdentity,
    /// It has several, so that it says nothing.
    SeveralIdentities,
    /// Its URI is no identity, or not one of a service.
    ForeignIdentity(String),
    /// It is for somebody else than the one that was expected.
    WrongPeer {
        shown: String,
        expected: String,
    },
    /// Somebody who knows said no.
    Denied(String),
    /// Nobody could be asked.
    Unanswered(String),
    /// More connections than allowed.
    TooMany,
    /// There is no usable certificate of our own.
    NotReady,
    /// The application cannot be reached.
    ApplicationUnreachable(String),
}

/// The number of kinds.
const KINDS: usize = 19;

impl Refusal {
    /// Every label, in the order of the counters.
    pub const LABELS: [&'static str; KINDS] = [
        "not_tls",
        "tls_version",
        "handshake_timeout",
        "handshake",
        "no_certificate",
        "certificate_expired",
        "certificate_not_yet_valid",
        "unknown_authority",
        "wrong_purpose",
        "chain",
        "no_identity",
        "several_identities",
        "foreign_identity",
        "wrong_service",
        "denied_by_intention",
        "authorize_failed",
        "too_many_connections",
        "not_ready",
        "application_unreachable",
    ];

    /// What the verification of a chain found.
    pub fn of_chain(error: X509VerifyError) -> Self {
        match error {
            X509VerifyError::CERT_HAS_EXPIRED => Self::Expired,
            X509VerifyError::CERT_NOT_YET_VALID => Self::NotYetValid,
            X509VerifyError::INVALID_PURPOSE => Self::WrongPurpose,
            X509VerifyError::UNABLE_TO_GET_ISSUER_CERT
            | X509VerifyError::UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | X509VerifyError::UNABLE_TO_VERIFY_LEAF_SIGNATURE
            | X509VerifyError::DEPTH_ZERO_SELF_SIGNED_CERT
            | X509VerifyError::SELF_SIGNED_CERT_IN_CHAIN
            | X509VerifyError::CERT_SIGNATURE_FAILURE
            | X509VerifyError::CERT_UNTRUSTED => {
                Self::UnknownAuthority(error.error_string().to_owned())
            }
            other => Self::Chain(other.error_string().to_owned()),
        }
    }

    fn index(&self) -> usize {
        match self {
            Self::NotTls => 0,
            Self::Version(_) => 1,
            Self::HandshakeTimeout => 2,
            Self::Handshake(_) => 3,
            Self::NoCertificate => 4,
            Self::Expired => 5,
            Self::NotYetValid => 6,
            Self::UnknownAuthority(_) => 7,
            Self::WrongPurpose => 8,
            Self::Chain(_) => 9,
            Self::NoIdentity => 10,
            Self::SeveralIdentities => 11,
            Self::ForeignIdentity(_) => 12,
            Self::WrongPeer { .. } => 13,
            Self::Denied(_) => 14,
            Self::Unanswered(_) => 15,
            Self::TooMany => 16,
            Self::NotReady => 17,
            Self::ApplicationUnreachable(_) => 18,
        }
    }

    /// A word for metrics and logs.
    pub fn label(&self) -> &'static str {
        Self::LABELS.get(self.index()).copied().unwrap_or_default()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("the bytes are not TLS"),
            Self::Version(what) => write!(f, "no TLS version or cipher in common: {what}"),
            Self::HandshakeTimeout => f.write_str("the TLS handshake timed out"),
            Self::Handshake(what) => write!(f, "the TLS handshake failed: {what}"),
            Self::NoCertificate => f.write_str("no certificate was shown"),
            Self::Expired => f.write_str("the certificate has expired"),
            Self::NotYetValid => f.write_str("the certificate is not valid yet"),
            Self::UnknownAuthority(what) => {
                write!(f, "the certificate is from an unknown authority: {what}")
            }
            Self::WrongPurpose => {
                f.write_str("the certificate is not for this side of a connection")
            }
            Self::Chain(what) => write!(f, "the certificate's chain is not accepted: {what}"),
            Self::NoIdentity => f.write_str("the certificate has no URI among its names"),
            Self::SeveralIdentities => {
                f.write_str("the certificate has several URIs among its names")
            }
            Self::ForeignIdentity(what) => {
                write!(
                    f,
                    "the certificate's URI is not the identity of a service: {what}"
                )
            }
            Self::WrongPeer { shown, expected } => {
                write!(f, "the certificate is for '{shown}', not for '{expected}'")
            }
            Self::Denied(what) => write!(f, "denied: {what}"),
            Self::Unanswered(what) => {
                write!(f, "denied because nobody could be asked: {what}")
            }
            Self::TooMany => f.write_str("too many connections"),
            Self::NotReady => f.write_str("there is no usable certificate of our own"),
            Self::ApplicationUnreachable(what) => {
                write!(f, "the application cannot be reached: {what}")
            }
        }
    }
}

/// How often each reason came.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; KINDS]);

impl RefusalCounts {
    pub fn count(&self, refusal: &Refusal) {
        if let Some(counter) = self.0.get(refusal.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every label with its count.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Refusal::LABELS.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_counts_for_itself() {
        let counts = RefusalCounts::default();
        counts.count(&Refusal::Expired);
        counts.count(&Refusal::ApplicationUnreachable(String::new()));
        let counted: Vec<_> = counts.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [("certificate_expired", 1), ("application_unreachable", 1)]
        );
    }
}
