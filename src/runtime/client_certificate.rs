//! The certificate that a client has shown on its connection, and what steps found out about it.

use std::fmt;
use std::time::{Duration, Instant};

use boring::ssl::SslRef;
use boring::x509::X509;
use parking_lot::Mutex;

use crate::base::certificate::{self, AlternativeNames};
use crate::runtime::authorities::{TrustSet, VerifiedChain};

/// How long a verdict on a certificate holds for further requests of its connection: it may expire meanwhile.
const VERDICT_LIFE: Duration = Duration::from_secs(60);
/// Verdicts kept for one connection; routes with other trust take turns beyond.
const VERDICTS_MAX: usize = 8;
/// Certificates of a client that are looked at.
const CHAIN_MAX: usize = 16;

/// A client's certificate. The handshake has proved that the client holds its key, and nothing else.
pub struct ClientCertificate {
    pub leaf: X509,
    /// What the client sent along, in its order.
    pub chain: Vec<X509>,
    verdicts: Mutex<Vec<Verdict>>,
}

struct Verdict {
    trust: u64,
    at: Instant,
    outcome: Result<VerifiedChain, String>,
}

impl ClientCertificate {
    /// A certificate with those that lead to its authority.
    pub fn new(leaf: X509, chain: Vec<X509>) -> Self {
        Self {
            leaf,
            chain,
            verdicts: Mutex::default(),
        }
    }

    /// What the client of this connection has shown, in this handshake or in the one that it resumes.
    pub fn of(ssl: &SslRef) -> Option<Self> {
        let leaf = ssl.peer_certificate()?;
        let sent = ssl.peer_cert_chain();
        // On this side of a connection the library leaves the leaf out.
        let chain = sent.into_iter().flatten().take(CHAIN_MAX);
        Some(Self::new(leaf, chain.map(ToOwned::to_owned).collect()))
    }

    /// The verdict of a trust set, which `trust` tells from all others. Found once for many requests.
    pub fn verify(
        &self,
        trust: u64,
        set: &TrustSet,
        now: Instant,
    ) -> Result<VerifiedChain, String> {
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|known| now.saturating_duration_since(known.at) < VERDICT_LIFE);
        if let Some(known) = verdicts.iter().find(|known| known.trust == trust) {
            return known.outcome.clone();
        }
        let outcome = set.verify(&self.leaf, &self.chain);
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.remove(0);
        }
        verdicts.push(Verdict {
            trust,
            at: now,
            outcome: outcome.clone(),
        });
        outcome
    }

    /// The first URI among its alternative names (SPIFFE ids are such).
    pub fn uri(&self) -> Option<String> {
        AlternativeNames::of(&self.leaf).uri.into_iter().next()
    }

    /// The serial number as upper-case hexadecimal.
    pub fn serial_number(&self) -> Option<String> {
        certificate::serial_number(&self.leaf)
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.leaf.to_der().ok() == other.leaf.to_der().ok()
    }
}

impl Eq for ClientCertificate {}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("serial", &self.serial_number())
            .finish_non_exhaustive()
    }
}
