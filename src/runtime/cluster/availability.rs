//! Whether an address may be picked: the seam between balancing and health checks.
//!
//! Every address has one [`Availability`], set by whoever judges addresses and read by every pick. It belongs to the
//! address *and* the endpoint's name, and outlives tables, so that a change of targets or a new answer of the resolver
//! forgets nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::Mutex;

/// May this address be picked? New ones may.
#[derive(Debug)]
pub struct Availability(AtomicBool);

impl Availability {
    pub fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the address out of every pick from now on, or puts it back.
    pub fn set(&self, available: bool) {
        self.0.store(available, Ordering::Relaxed);
    }
}

impl Default for Availability {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

type Identity = (SocketAddr, Arc<str>);

/// The availabilities of one cluster's addresses, for as long as some table holds them.
#[derive(Default)]
pub(super) struct Known(Mutex<AHashMap<Identity, Weak<Availability>>>);

impl Known {
    /// The availability of this address under this endpoint name.
    pub(super) fn keep(&self, address: SocketAddr, host: &Arc<str>) -> Arc<Availability> {
        let mut known = self.0.lock();
        let slot = known.entry((address, Arc::clone(host))).or_default();
        if let Some(availability) = slot.upgrade() {
            return availability;
        }
        let availability = Arc::new(Availability::default());
        *slot = Arc::downgrade(&availability);
        availability
    }

    /// What is known of an address; unknown ones are available.
    pub(super) fn is_available(&self, address: SocketAddr, host: &Arc<str>) -> bool {
        self.0
            .lock()
            .get(&(address, Arc::clone(host)))
            .and_then(Weak::upgrade)
            .is_none_or(|availability| availability.is_available())
    }

    /// Forgets addresses that no table holds any more.
    pub(super) fn sweep(&self) {
        self.0
            .lock()
            .retain(|_, availability| availability.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belongs_to_address_and_name_while_held() {
        let known = Known::default();
        let address: SocketAddr = ([192, 0, 2, 1], 80).into();
        let (here, there): (Arc<str>, Arc<str>) = ("a.test".into(), "b.test".into());
        let held = known.keep(address, &here);
        held.set(false);
        known.sweep();
        assert!(!known.keep(address, &here).is_available());
        assert!(!known.is_available(address, &here));
        assert!(known.is_available(address, &there));
        drop(held);
        known.sweep();
        assert!(known.is_available(address, &here));
    }
}
