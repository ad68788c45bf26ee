//! What is known of one address: may it be picked, how much does it do, how fast does it answer.
//!
//! Vitals belong to an address *and* the endpoint's name, and outlive tables: a change of targets, of the plan, or a new
//! answer of the resolver forgets nothing. Those of an address that is gone are kept for a while, because it may return.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::model::plan::Thresholds;
use crate::runtime::cluster::attention::Attention;
use crate::runtime::cluster::average::Average;
use crate::runtime::cluster::endpoint::Endpoint;
use crate::runtime::cluster::health::{Counters, Sign};

/// How long the vitals of an address that is gone are kept.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// Most vitals of addresses that are gone, in one cluster; when there are more, all of those are forgotten.
const GONE_MAX: usize = 4096;

/// What is known of one address of a cluster.
pub struct Vitals {
    pub address: SocketAddr,
    /// Healthy, as far as anybody has found out.
    healthy: AtomicBool,
    /// Is anything counted? Lets the usual success pass without the lock.
    counting: AtomicBool,
    counters: Mutex<Counters>,
    /// When an unhealthy address is tried again, in milliseconds of [`since_start`]; 0 is never.
    back_at: AtomicU64,
    /// Exchanges in progress, where the balancing rule asks for it.
    in_flight: AtomicU32,
    /// Where the balancing rule asks for it.
    latency: Mutex<Average>,
    /// What the address is called, as of the newest table.
    endpoint: Mutex<Option<Arc<Endpoint>>>,
    /// Is it in the newest table?
    present: AtomicBool,
    /// Does a prober look after it?
    probed: AtomicBool,
    /// The number of the newest appointment for a probe.
    appointment: AtomicU32,
    changes: Arc<Changes>,
    me: Weak<Self>,
}

/// Changes of health of a cluster's addresses since the start.
#[derive(Default)]
pub struct Changes {
    to_healthy: AtomicU64,
    to_unhealthy: AtomicU64,
    /// The cluster, and whom to tell of its changes, where it is probed.
    listener: OnceLock<(Uuid, Arc<Attention>)>,
}

impl Changes {
    /// Number of changes to healthy, and to unhealthy.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.to_healthy.load(Relaxed),
            self.to_unhealthy.load(Relaxed),
        )
    }

    /// Tells of changes from now on.
    pub(super) fn tell(&self, cluster: Uuid, attention: &Arc<Attention>) {
        // The same for the whole life of the cluster.
        let _ = self.listener.set((cluster, Arc::clone(attention)));
    }

    /// Grows with each change.
    pub(super) fn generation(&self) -> u64 {
        let (up, down) = self.counts();
        up.wrapping_add(down)
    }
}

impl Vitals {
    pub(super) fn new(address: SocketAddr, changes: &Arc<Changes>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            address,
            healthy: AtomicBool::new(true),
            counting: AtomicBool::new(false),
            counters: Mutex::default(),
            back_at: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            latency: Mutex::default(),
            endpoint: Mutex::default(),
            present: AtomicBool::new(true),
            probed: AtomicBool::new(false),
            appointment: AtomicU32::new(0),
            changes: Arc::clone(changes),
        })
    }

    /// May the address be picked?
    pub fn is_available(&self) -> bool {
        self.healthy.load(Relaxed) || self.is_back()
    }

    #[cold]
    fn is_back(&self) -> bool {
        let back_at = self.back_at.load(Relaxed);
        back_at != 0 && since_start() >= back_at
    }

    /// Is the address thought healthy, whether or not it may be tried again by now?
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Counts a sign. `Some` is the new state if it changed; whoever hears it tells the operator.
    pub(super) fn take(
        &self,
        sign: Sign,
        limits: &Thresholds,
        eject_for: Option<Duration>,
    ) -> Option<bool> {
        let healthy = self.healthy.load(Relaxed);
        if sign == Sign::Success && healthy && !self.counting.load(Relaxed) {
            return None;
        }
        let mut counters = self.counters.lock();
        // Another thread may have come first.
        let healthy = self.healthy.load(Relaxed);
        let change = counters.count(healthy, sign, limits);
        self.counting.store(!counters.are_clear(), Relaxed);
        if let Some(pause) = eject_for
            && sign != Sign::Success
            && (change == Some(false) || !healthy)
        {
            self.back_at
                .store(since_start() + milliseconds(pause), Relaxed);
        }
        if let Some(healthy) = change {
            self.change(healthy);
        }
        change
    }

    /// Sets the state by hand; everything counted is forgotten. Tells whether it changed.
    pub(super) fn set(&self, healthy: bool) -> bool {
        let mut counters = self.counters.lock();
        *counters = Counters::default();
        self.counting.store(false, Relaxed);
        self.back_at.store(0, Relaxed);
        let changed = self.healthy.load(Relaxed) != healthy;
        if changed {
            self.change(healthy);
        }
        changed
    }

    fn change(&self, healthy: bool) {
        self.healthy.store(healthy, Relaxed);
        let count = match healthy {
            true => &self.changes.to_healthy,
            false => &self.changes.to_unhealthy,
        };
        count.fetch_add(1, Relaxed);
        if let Some((_, attention)) = self.changes.listener.get()
            && let Some(me) = self.me.upgrade()
        {
            attention.changed(me);
        }
    }

    /// The cluster it belongs to, if that is probed; nil otherwise.
    pub fn cluster(&self) -> Uuid {
        let listener = self.changes.listener.get();
        listener.map_or(Uuid::nil(), |(cluster, _)| *cluster)
    }

    pub(super) fn began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Exchanges in progress.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn observe(&self, sample: Duration, now: Instant) {
        self.latency.lock().observe(sample, now);
    }

    pub(super) fn latency(&self) -> Average {
        *self.latency.lock()
    }

    /// A new address begins with the mean of the others, so that it is neither flooded nor shunned.
    pub(super) fn start_latency(&self, seconds: f64, now: Instant) {
        let mut latency = self.latency.lock();
        if !latency.is_known() {
            *latency = Average::starting(seconds, now);
        }
    }

    /// What the address is called at present.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.lock().clone()
    }

    pub(super) fn set_endpoint(&self, endpoint: &Arc<Endpoint>) {
        *self.endpoint.lock() = Some(Arc::clone(endpoint));
    }

    /// Is it one of the cluster's addresses at present?
    pub fn is_present(&self) -> bool {
        self.present.load(Relaxed)
    }

    /// Makes the caller the one who probes it; false if somebody does already.
    pub fn claim_probing(&self) -> bool {
        !self.probed.swap(true, Relaxed)
    }

    /// Does somebody probe it?
    pub fn is_probed(&self) -> bool {
        self.probed.load(Relaxed)
    }

    /// The number of a new appointment; earlier ones lapse.
    pub fn next_appointment(&self) -> u32 {
        self.appointment.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// Is this the number of the newest appointment?
    pub fn is_appointment(&self, number: u32) -> bool {
        self.appointment.load(Relaxed) == number
    }

    /// The one who probes it stops.
    pub fn release_probing(&self) {
        self.probed.store(false, Relaxed);
    }
}

impl std::fmt::Debug for Vitals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vitals")
            .field("address", &self.address)
            .field("healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}

type Identity = (SocketAddr, Arc<str>);

/// The vitals of one cluster's addresses.
#[derive(Default)]
pub(super) struct Known {
    entries: Mutex<AHashMap<Identity, Entry>>,
    changes: Arc<Changes>,
}

struct Entry {
    vitals: Arc<Vitals>,
    gone_since: Option<Instant>,
}

impl Known {
    /// The vitals of this address under this endpoint name.
    pub(super) fn keep(&self, address: SocketAddr, host: &Arc<str>) -> Arc<Vitals> {
        let mut entries = self.entries.lock();
        let entry = entries
            .entry((address, Arc::clone(host)))
            .or_insert_with(|| Entry {
                vitals: Vitals::new(address, &self.changes),
                gone_since: None,
            });
        Arc::clone(&entry.vitals)
    }

    /// What is known of an address, if anything.
    pub(super) fn find(&self, address: SocketAddr, host: &Arc<str>) -> Option<Arc<Vitals>> {
        let entries = self.entries.lock();
        let entry = entries.get(&(address, Arc::clone(host)))?;
        Some(Arc::clone(&entry.vitals))
    }

    /// Says which addresses there are from now on; others are forgotten after a while.
    pub(super) fn settle<'a>(&self, present: impl Iterator<Item = &'a Arc<Vitals>>, now: Instant) {
        let mut entries = self.entries.lock();
        for entry in entries.values() {
            entry.vitals.present.store(false, Relaxed);
        }
        for vitals in present {
            vitals.present.store(true, Relaxed);
        }
        let mut gone = 0;
        entries.retain(|_, entry| {
            if entry.vitals.is_present() {
                entry.gone_since = None;
                return true;
            }
            let since = *entry.gone_since.get_or_insert(now);
            gone += 1;
            now.saturating_duration_since(since) < KEPT_FOR
        });
        if gone > GONE_MAX {
            entries.retain(|_, entry| entry.gone_since.is_none());
        }
    }

    pub(super) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }
}

/// Milliseconds since the program first asked, at least 1.
fn since_start() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    milliseconds(START.elapsed()) + 1
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Thresholds = Thresholds {
        successes: 1,
        connection_failures: 1,
        timeouts: 1,
        bad_statuses: 1,
        failures: 0,
    };

    #[test]
    fn belong_to_address_and_name_and_outlive_an_absence() {
        let known = Known::default();
        let address: SocketAddr = ([192, 0, 2, 1], 80).into();
        let (here, there): (Arc<str>, Arc<str>) = ("a.test".into(), "b.test".into());
        let start = Instant::now();
        let held = known.keep(address, &here);
        assert!(held.set(false) && !held.set(false));
        assert!(known.keep(address, &there).is_available());
        known.settle([&held].into_iter(), start);
        assert!(held.is_present());
        known.settle(std::iter::empty(), start);
        assert!(!held.is_present());
        known.settle(std::iter::empty(), start + KEPT_FOR / 2);
        assert!(!known.keep(address, &here).is_available());
        known.settle(std::iter::empty(), start + KEPT_FOR);
        assert!(known.find(address, &here).is_none());
        assert_eq!(known.changes().counts(), (0, 1));
    }

    #[test]
    fn an_ejected_address_is_tried_again() {
        let vitals = Vitals::new(([192, 0, 2, 1], 80).into(), &Arc::default());
        let fails = |pause| vitals.take(Sign::ConnectionFailure, &ONCE, Some(pause));
        let long = Duration::from_secs(3600);
        assert_eq!(fails(Duration::ZERO), Some(false));
        assert!(vitals.is_available() && !vitals.is_healthy());
        // It fails again: out for longer, but that is no news.
        assert_eq!(fails(long), None);
        assert!(!vitals.is_available());
        assert_eq!(vitals.take(Sign::Success, &ONCE, Some(long)), Some(true));
        assert!(vitals.is_available());
        assert_eq!(vitals.changes.counts(), (1, 1));
    }
}
