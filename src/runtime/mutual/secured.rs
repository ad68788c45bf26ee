//! How one address of an upstream is spoken to where both sides show certificates.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{MutualCell, PeerJudge, RefusalCounts};

/// Our identity, and whom to expect at an address.
pub struct Secured {
    /// Our certificate and the roots, as of each handshake.
    pub cell: Arc<MutualCell>,
    pub judge: Arc<dyn PeerJudge>,
    /// Whom the judge accepts, as text: connections of two with equal texts may stand in for each other.
    pub expected: Arc<str>,
    /// Sent, not compared.
    pub server_name: Option<Arc<str>>,
    pub counts: Arc<SecuredCounts>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// What became of connections of one upstream.
#[derive(Debug, Default)]
pub struct SecuredCounts {
    /// Those that reached the peer they were meant for.
    pub connected: AtomicU64,
    pub failures: RefusalCounts,
}
