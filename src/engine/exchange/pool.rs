//! Idle upstream connections.
//!
//! Pingora's own pool keeps a task and a channel for every idle connection and has no limit per upstream; here a
//! connection is an entry in a list. Connections are taken from the end (the warmest first), expired ones are swept from
//! the front. A connection that the upstream closed meanwhile is noticed when it is taken.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::engine::exchange::codec::UpstreamConnection;
use crate::model::serving::UpstreamPoolPlan;

/// Locks, so that workers seldom meet.
const SHARDS: usize = 16;
/// Idle connections in all; beyond it connections are closed instead of kept.
const IDLE_MAX: usize = 65_536;
/// How often expired connections are swept.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What two connections must have in common to stand in for each other: the address, and everything about identity,
/// trust and protocol folded into the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolKey {
    pub(crate) address: SocketAddr,
    pub(crate) group: u64,
}

impl PoolKey {
    /// What tells keys apart, in one number: they are looked for twice for each request.
    fn folded(&self) -> u64 {
        let address = match self.address.ip() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                bits as u64 ^ (bits >> 64) as u64
            }
        };
        address.rotate_left(16) ^ u64::from(self.address.port()) ^ self.group
    }
}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.folded());
    }
}

/// The idle connections of this process.
pub(crate) struct Pool {
    shards: [Mutex<AHashMap<PoolKey, Vec<Idle>>>; SHARDS],
    idle: AtomicUsize,
}

struct Idle {
    connection: UpstreamConnection,
    /// `None` is never.
    expires: Option<Instant>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            idle: AtomicUsize::new(0),
        }
    }

    /// A connection that was open and silent a moment ago.
    pub(crate) fn take(&self, key: &PoolKey, now: Instant) -> Option<UpstreamConnection> {
        loop {
            let idle = {
                let mut shard = self.shard(key).lock();
                // An empty list stays for the next one: the sweep takes it away.
                shard.get_mut(key)?.pop()?
            };
            self.idle.fetch_sub(1, Ordering::Relaxed);
            let expired = idle.expires.is_some_and(|expires| expires <= now);
            if !expired && idle.connection.is_fresh() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection that has answered completely, if the limits allow; for as long as `idle` says, else they.
    pub(crate) fn keep(
        &self,
        key: PoolKey,
        mut connection: UpstreamConnection,
        limits: &UpstreamPoolPlan,
        idle: Option<Duration>,
        now: Instant,
    ) {
        let worn_out = limits.requests_max > 0 && connection.requests >= limits.requests_max;
        if worn_out || !connection.is_reusable() || self.idle.load(Ordering::Relaxed) >= IDLE_MAX {
            return;
        }
        connection.park();
        let usual = (limits.idle_seconds > 0).then(|| Duration::from_secs(limits.idle_seconds));
        let expires = idle.or(usual).and_then(|idle| now.checked_add(idle));
        let mut shard = self.shard(&key).lock();
        let list = shard.entry(key).or_default();
        if list.len() < limits.idle_per_peer_max {
            list.push(Idle {
                connection,
                expires,
            });
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes expired connections and those that their upstream has closed.
    pub(crate) fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut closed = Vec::new();
            shard.lock().retain(|_, list| {
                let stale = |idle: &mut Idle| {
                    idle.expires.is_some_and(|expires| expires <= now)
                        || !idle.connection.is_fresh()
                };
                closed.extend(list.extract_if(.., stale));
                !list.is_empty()
            });
            self.idle.fetch_sub(closed.len(), Ordering::Relaxed);
            // Closing happens here, outside the lock.
        }
    }

    fn shard(&self, key: &PoolKey) -> &Mutex<AHashMap<PoolKey, Vec<Idle>>> {
        // The upper bits of a product depend on all bits below them (Knuth, 6.4).
        let spread = key.folded().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(spread >> 48) as usize % SHARDS]
    }
}

/// Sweeps until nobody else holds the pool.
pub(crate) async fn sweep_regularly(pool: Arc<Pool>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    while Arc::strong_count(&pool) > 1 {
        ticks.tick().await;
        pool.sweep(Instant::now());
    }
}
