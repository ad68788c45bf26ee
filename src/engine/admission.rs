//! How many connections a listener and a client's address may have open at a time.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

/// Shards of the table of addresses.
const SHARDS: usize = 16;
/// Refusals are told at most this often: a flood must not flood the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The connections of all listeners by address. An entry lives as long as a connection, so their number is bounded by
/// that of descriptors.
pub(crate) struct Admission {
    addresses: [Mutex<AHashMap<IpAddr, usize>>; SHARDS],
    hasher: RandomState,
    refused: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            addresses: Default::default(),
            hasher: RandomState::new(),
            refused: AtomicU64::new(0),
            told: Mutex::new(None),
        }
    }
}

/// A connection that was let in; counted until this is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    /// Present when its address is counted.
    address: Option<IpAddr>,
}

/// A connection of a listener; counted until this is dropped.
pub(crate) struct OnListener(Arc<AtomicUsize>);

impl OnListener {
    /// Counts one more, unless there are `max` already; 0 is no limit.
    pub(crate) fn admit(open: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        let counted = Self(Arc::clone(open));
        (max == 0 || before < max).then_some(counted)
    }
}

impl Drop for OnListener {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Counts one more of this address, unless there are `max` already; 0 is no limit, and counts nothing.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Admitted> {
        let mut admitted = Admitted {
            admission: Arc::clone(self),
            address: None,
        };
        if max == 0 {
            return Some(admitted);
        }
        let client = one_client(address);
        let mut shard = self.shard(&client)?.lock();
        let open = shard.entry(client).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        drop(shard);
        admitted.address = Some(client);
        Some(admitted)
    }

    /// Tells the operator of a refusal, now and then.
    pub(crate) fn refused(&self, client: IpAddr, limit: &str) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(%client, refused_so_far = count, "too many connections: {limit}");
        }
    }

    fn shard(&self, client: &IpAddr) -> Option<&Mutex<AHashMap<IpAddr, usize>>> {
        let hash = usize::try_from(self.hasher.hash_one(client) >> 32).unwrap_or(0);
        self.addresses.get(hash % SHARDS)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(client) = self.address else { return };
        let Some(shard) = self.admission.shard(&client) else {
            return;
        };
        let mut shard = shard.lock();
        if let Some(open) = shard.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                shard.remove(&client);
            }
        }
    }
}

/// What one client has: an IPv4 address, or a whole /64 of IPv6.
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn counts_each_client() {
        let admission = Arc::new(Admission::default());
        let admit = |address: &str, max| admission.admit(address.parse().unwrap(), max);
        let first = admit("192.0.2.1", 2).unwrap();
        let _second = admit("::ffff:192.0.2.1", 2).unwrap();
        assert!(admit("192.0.2.1", 2).is_none());
        assert!(admit("192.0.2.2", 2).is_some());
        assert!(admit("192.0.2.1", 0).is_some());
        drop(first);
        let _third = admit("192.0.2.1", 2).unwrap();
        // One client has all of a /64.
        let _one = admit("2001:db8::1", 1).unwrap();
        assert!(admit("2001:db8::2", 1).is_none());
        assert!(admit("2001:db8:0:1::1", 1).is_some());
        let left: usize = admission
            .addresses
            .iter()
            .map(|shard| shard.lock().len())
            .sum();
        assert_eq!(left, 2);
    }

    #[test]
    fn counts_each_listener() {
        let open = Arc::new(AtomicUsize::new(0));
        let first = OnListener::admit(&open, 1).unwrap();
        assert!(OnListener::admit(&open, 1).is_none());
        drop(first);
        assert!(OnListener::admit(&open, 1).is_some());
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
