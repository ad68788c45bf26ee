//! What a pick gives, and how the one who picked tells what came of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::model::plan::{BalancePlan, ClusterPlan, Thresholds};
use crate::runtime::cluster::endpoint::Endpoint;
use crate::runtime::cluster::health::{Outcome, Sign, Statuses};
use crate::runtime::cluster::table::Address;
use crate::runtime::cluster::vitals::Vitals;
use crate::runtime::mutual::Secured;

/// What a failed try counts as at least in the average of answering times: an address that refuses at once must not
/// look fast.
const FAILURE_COSTS: Duration = Duration::from_secs(1);

/// An address chosen for one try. Held until the exchange has ended: it counts as in progress until dropped.
#[derive(Debug)]
pub struct Picked {
    pub address: SocketAddr,
    pub endpoint: Arc<Endpoint>,
    /// Names the address to a sticky client; only of clusters with a sticky cookie.
    pub token: Option<u64>,
    /// TLS in which both sides show certificates; none speaks as the forward says.
    pub secured: Option<Arc<Secured>>,
    tracked: Option<Tracked>,
    /// Counts as an exchange of the cluster, where their number is limited.
    _place: Option<Place>,
}

/// A place among the exchanges that a cluster takes at once.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicU32>);

impl Place {
    /// None when all are taken.
    pub(super) fn take(taken: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        // Given back when the place is dropped, also where it turns out to be one too many.
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Present where somebody wants to know what came of the try.
#[derive(Debug)]
struct Tracked {
    vitals: Arc<Vitals>,
    rules: Arc<Rules>,
}

/// What a cluster's plan makes of outcomes.
#[derive(Debug)]
pub(super) struct Rules {
    /// The cluster, for messages.
    name: Arc<str>,
    traffic: Option<(Statuses, Thresholds)>,
    eject_for: Option<Duration>,
    counts_exchanges: bool,
    measures_latency: bool,
    pub(super) sticky: bool,
}

impl Rules {
    pub(super) fn of(plan: &ClusterPlan) -> Self {
        let traffic = plan.health.traffic.as_ref();
        Self {
            name: Arc::clone(&plan.name),
            traffic: traffic.map(|traffic| (Statuses::of(&traffic.statuses), traffic.thresholds)),
            eject_for: plan.health.eject_for_ms.map(Duration::from_millis),
            counts_exchanges: matches!(
                plan.balance,
                BalancePlan::LeastConnections | BalancePlan::Latency
            ),
            measures_latency: matches!(plan.balance, BalancePlan::Latency),
            sticky: matches!(plan.balance, BalancePlan::Sticky { .. }),
        }
    }

    fn wants_to_know(&self) -> bool {
        self.traffic.is_some() || self.counts_exchanges || self.measures_latency
    }

    /// Counts a sign and tells the operator if it changes anything.
    pub(super) fn take(
        &self,
        vitals: &Vitals,
        sign: Sign,
        limits: &Thresholds,
        found_by: FoundBy,
        outcome: Outcome,
    ) -> bool {
        match vitals.take(sign, limits, self.eject_for) {
            Some(healthy) => {
                self.announce(vitals, healthy, found_by, Some(outcome));
                true
            }
            None => false,
        }
    }

    /// Tells the operator of a change, once.
    pub(super) fn announce(
        &self,
        vitals: &Vitals,
        healthy: bool,
        found_by: FoundBy,
        outcome: Option<Outcome>,
    ) {
        let (upstream, address) = (&*self.name, vitals.address);
        let found_by = found_by.word();
        let endpoint = vitals.endpoint();
        let target = endpoint.as_ref().map_or("", |endpoint| &endpoint.host);
        match healthy {
            true => {
                tracing::info!(upstream, target, %address, found_by, "upstream address is healthy");
            }
            false => tracing::warn!(
                upstream, target, %address, found_by, last = outcome.map(tracing::field::debug),
                "upstream address is unhealthy"
            ),
        }
    }
}

/// Who has found out that health changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundBy {
    Traffic,
    Probe,
    Administrator,
}

impl FoundBy {
    fn word(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Probe => "probe",
            Self::Administrator => "administrator",
        }
    }
}

impl Picked {
    pub(super) fn of(address: &Address, rules: &Arc<Rules>, place: Option<Place>) -> Self {
        let tracked = rules.wants_to_know().then(|| Tracked {
            vitals: Arc::clone(&address.vitals),
            rules: Arc::clone(rules),
        });
        if let Some(tracked) = &tracked
            && rules.counts_exchanges
        {
            tracked.vitals.began();
        }
        Self {
            address: address.socket,
            endpoint: Arc::clone(&address.endpoint),
            token: rules.sticky.then_some(address.token),
            secured: address.secured.clone(),
            tracked,
            _place: place,
        }
    }

    /// Does anybody want to know what came of the try?
    pub fn is_tracked(&self) -> bool {
        self.tracked.is_some()
    }

    /// Tells what came of the try, `after` it began. Once for each try, as soon as it is known; a client that left
    /// says nothing of the upstream.
    pub fn report(&self, outcome: Outcome, after: Duration) {
        let Some(Tracked { vitals, rules }) = &self.tracked else {
            return;
        };
        if let Some((statuses, limits)) = &rules.traffic
            && let Some(sign) = statuses.sign_of_traffic(outcome)
        {
            rules.take(vitals, sign, limits, FoundBy::Traffic, outcome);
        }
        if rules.measures_latency {
            let sample = match outcome {
                Outcome::Answered(_) | Outcome::Connected => after,
                Outcome::Broken | Outcome::TimedOut => after.max(FAILURE_COSTS),
            };
            vitals.observe(sample, Instant::now());
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.rules.counts_exchanges {
            self.vitals.ended();
        }
    }
}
