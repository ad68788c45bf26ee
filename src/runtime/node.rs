//! This node: who it is, and how many connections and requests it has seen.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use uuid::Uuid;

/// The node, one for each process; found through [`crate::runtime::live::Live::node`].
#[derive(Default)]
pub struct Node {
    identity: OnceLock<Identity>,
    parts: RwLock<Vec<Arc<dyn NodePart>>>,
    pub traffic: Traffic,
}

/// A part of the process that has something to say on the metrics and status pages.
pub trait NodePart: Send + Sync {
    /// Its name on the status page.
    fn name(&self) -> &'static str;

    /// Why traffic may not come because of it; none when it may.
    fn trouble(&self) -> Option<String>;

    /// Adds lines in Prometheus' text format.
    fn metrics(&self, page: &mut String);

    /// What the status page shows under its name.
    fn status(&self) -> serde_json::Value;
}

struct Identity {
    id: Uuid,
    hostname: String,
}

impl Node {
    /// Says who the node is, once, before the first configuration is linked; later calls change nothing.
    pub fn identify(&self, id: Uuid, hostname: impl Into<String>) {
        // A second identity would be a mistake of the start-up code, and the first one may be in use.
        let _ = self.identity.set(Identity {
            id,
            hostname: hostname.into(),
        });
    }

    /// Adds a part for as long as the process lives.
    pub fn add(&self, part: Arc<dyn NodePart>) {
        self.parts.write().push(part);
    }

    /// The parts, in the order in which they were added.
    pub fn parts(&self) -> Vec<Arc<dyn NodePart>> {
        self.parts.read().clone()
    }

    /// The id that stays with the node's store; nil before [`Self::identify`].
    pub fn id(&self) -> Uuid {
        self.identity.get().map_or(Uuid::nil(), |known| known.id)
    }

    /// The machine's name; empty before [`Self::identify`].
    pub fn hostname(&self) -> &str {
        self.identity.get().map_or("", |known| &known.hostname)
    }
}

/// Connections and requests of all proxy listeners. Counting costs one addition on a line of its own thread.
#[derive(Default)]
pub struct Traffic {
    opened: ShardedCounter,
    closed: ShardedCounter,
    began: ShardedCounter,
    ended: ShardedCounter,
    sessions_began: ShardedCounter,
    sessions_ended: ShardedCounter,
}

/// Sums at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections open.
    pub active: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Requests whose answer has not ended.
    pub in_flight: u64,
    /// Streams since the start.
    pub sessions: u64,
    /// Streams that have not ended.
    pub sessions_open: u64,
}

impl Traffic {
    pub fn connection_opened(&self) {
        self.opened.increment();
    }

    pub fn connection_closed(&self) {
        self.closed.increment();
    }

    /// A request's head was read.
    pub fn request_began(&self) {
        self.began.increment();
    }

    /// Its answer has ended, however.
    pub fn request_ended(&self) {
        self.ended.increment();
    }

    /// A stream was accepted.
    pub fn session_began(&self) {
        self.sessions_began.increment();
    }

    /// It has ended, however.
    pub fn session_ended(&self) {
        self.sessions_ended.increment();
    }

    pub fn counts(&self) -> TrafficCounts {
        // Ends first: what ends in between is counted as open rather than as less than none.
        let (closed, ended) = (self.closed.sum(), self.ended.sum());
        let sessions_ended = self.sessions_ended.sum();
        let (accepted, requests) = (self.opened.sum(), self.began.sum());
        let sessions = self.sessions_began.sum();
        TrafficCounts {
            accepted,
            active: accepted.saturating_sub(closed),
            requests,
            in_flight: requests.saturating_sub(ended),
            sessions,
            sessions_open: sessions.saturating_sub(sessions_ended),
        }
    }
}

/// Shards of a counter; threads beyond this number share.
const SHARDS: usize = 16;

/// A counter that threads increment without meeting. Reading it costs more than incrementing.
#[derive(Default)]
pub struct ShardedCounter {
    shards: [Shard; SHARDS],
}

/// Alone on its cache lines (two: neighbours are fetched together).
#[derive(Default)]
#[repr(align(128))]
struct Shard(AtomicI64);

impl ShardedCounter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: i64) {
        thread_local! {
            static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let index = SHARD.with(|shard| {
            if shard.get() == usize::MAX {
                shard.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
            }
            shard.get()
        });
        if let Some(Shard(count)) = self.shards.get(index) {
            count.fetch_add(amount, Relaxed);
        }
    }

    /// The sum over all threads; never less than zero.
    pub fn sum(&self) -> u64 {
        let sum = self.shards.iter().fold(0_i64, |sum, Shard(count)| {
            sum.wrapping_add(count.load(Relaxed))
        });
        u64::try_from(sum).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_threads() {
        let node = Node::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        node.traffic.connection_opened();
                        node.traffic.request_began();
                        node.traffic.request_ended();
                    }
                });
            }
        });
        node.traffic.connection_closed();
        let expected = TrafficCounts {
            accepted: 4000,
            active: 3999,
            requests: 4000,
            in_flight: 0,
            sessions: 0,
            sessions_open: 0,
        };
        assert_eq!(node.traffic.counts(), expected);
    }
}
