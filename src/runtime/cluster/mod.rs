//! Clusters at work: sets of endpoints with a rule that picks one of their addresses for each try.
//!
//! ```text
//! ClusterPlan ──link──▶ Cluster ── pick ──▶ address, endpoint
//!                          ▲  one immutable table, replaced when
//!                          │  a name's addresses change
//!  resolver::Name ─────────┘
//! ```
//!
//! Owns the table of addresses, the choice among them, and what is known of each address ([`Vitals`]); a balancing
//! algorithm is one file with a `pick`. Refuses to know how names are resolved ([`crate::runtime::resolver`]), what a
//! request is (the caller brings the hash of the hash input, and tells with [`Picked::report`] what came of a try) and
//! how addresses are probed ([`crate::runtime::probing`]). Start at [`Cluster::link`] and [`Cluster::pick`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ahash::{AHashMap, AHashSet};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::base::xxhash::xxhash32;
use crate::model::plan::{BalancePlan, ClusterPlan, EndpointPlan, HashInput, ProbeKind};
use crate::runtime::fault::NoEndpoint;
use crate::runtime::live::Live;
use crate::runtime::resolver::{Answer, Name, Resolver, Watcher};
use crate::runtime::roster::{Member, Roster, Rosters};
use crate::runtime::serving::Serving;
use crate::runtime::upstream_tls::UpstreamTls;

mod attention;
mod average;
mod consistent_hashing;
mod endpoint;
mod health;
mod latency;
mod least_connections;
mod picked;
mod round_robin;
mod sticky;
mod table;
mod vitals;

pub use attention::{Attention, Calls};
pub use endpoint::Endpoint;
pub use health::Outcome;
pub use picked::Picked;
pub use table::Address;
pub use vitals::{Changes, Vitals};

use health::{Sign, Statuses};
use picked::{FoundBy, Place, Rules};
use table::{Seat, Table};
use vitals::Known;

/// Most endpoints of one cluster.
pub const ENDPOINTS_MAX: usize = 65_536;

/// A cluster linked. Shared by snapshots for as long as its plan does not change.
pub struct Cluster {
    pub plan: Arc<ClusterPlan>,
    me: Weak<Self>,
    rules: Arc<Rules>,
    /// Statuses of probes' answers, where they have some.
    probe_statuses: Option<Statuses>,
    /// What TLS of probes is made with; set by [`Cluster::link_probes`].
    probe_tls: ArcSwapOption<UpstreamTls>,
    /// Whom to tell of new addresses; only for clusters that probes look after, or did.
    attention: Option<Arc<Attention>>,
    /// Where the addresses of the plan's endpoints come from, in the plan's order.
    sources: Box<[Source]>,
    /// What members of rosters need; none without a roster.
    rostered: Option<Rostered>,
    state: Arc<State>,
    table: ArcSwap<Table>,
    /// Set for good when the first resolution has ended.
    resolved: AtomicBool,
    settled: Notify,
    /// Names change on several threads; tables are built one after the other.
    building: Mutex<()>,
}

/// Where an endpoint's addresses come from.
enum Source {
    Literal(IpAddr),
    Name(Arc<Name>),
    Roster(Arc<Roster>),
}

/// What outlives the plan, kept in [`Live`] under the cluster's id.
#[derive(Default)]
struct State {
    turn: AtomicU64,
    /// Exchanges in progress, where their number is limited.
    exchanges: Arc<AtomicU32>,
    known: Known,
    /// Did probes ever look after it?
    probed: AtomicBool,
}

/// An endpoint as administrators see it.
#[derive(Debug, Clone)]
pub struct EndpointView {
    pub plan: EndpointPlan,
    /// Why there are no addresses, if its name did not resolve.
    pub failure: Option<NoEndpoint>,
    /// The addresses it stands for at present, also those without weight.
    pub addresses: Vec<AddressView>,
}

/// An address as administrators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressView {
    pub address: SocketAddr,
    pub weight: u32,
    pub available: bool,
}

/// How much of a cluster's weight may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterView {
    pub available_weight: u64,
    pub total_weight: u64,
    /// Is that enough to serve?
    pub healthy: bool,
}

impl Cluster {
    /// Builds the cluster, asks the resolver for the names of its endpoints and takes over what is known about its
    /// addresses. Does not wait for the resolver. The error names the endpoint and what is allowed.
    pub fn link(
        plan: Arc<ClusterPlan>,
        live: &Live,
        resolver: &Arc<Resolver>,
    ) -> Result<Arc<Self>, String> {
        if plan.endpoints.len() > ENDPOINTS_MAX {
            return Err(format!(
                "cluster '{}' has {} endpoints, at most {ENDPOINTS_MAX} are allowed",
                plan.name,
                plan.endpoints.len()
            ));
        }
        for endpoint in &plan.endpoints {
            endpoint::check(&plan, endpoint)?;
        }
        // Held from before the first roster is asked for: cluster and keeper meet in it.
        let has_roster = plan.endpoints.iter().any(|it| it.roster.is_some());
        let rosters = has_roster.then(|| Rosters::of(live));
        let sources: Box<[Source]> = plan
            .endpoints
            .iter()
            .map(|endpoint| {
                let roster = rosters.as_ref().zip(endpoint.roster.as_ref());
                match (roster, endpoint.host.parse()) {
                    (Some((rosters, name)), _) => Source::Roster(rosters.roster(name)),
                    (None, Ok(address)) => Source::Literal(address),
                    (None, Err(_)) => Source::Name(resolver.name(&endpoint.host)),
                }
            })
            .collect();
        let rostered = rosters.map(|rosters| Rostered {
            _rosters: rosters,
            resolver: Arc::clone(resolver),
            names: Mutex::default(),
        });
        let state = if plan.named || rostered.is_some() || plan.exchanges_max.is_some() {
            live.keep(plan.id.to_string(), State::start)
        } else {
            // Nobody judges the addresses of a plain host: nothing to hand over.
            Arc::new(State::start())
        };
        let is_probed = plan.health.probe.is_some();
        // Those who looked after it must hear that nobody should any more.
        let was_probed = state.probed.fetch_or(is_probed, Ordering::Relaxed);
        let attention = (is_probed || was_probed).then(|| Attention::of(live));
        if let Some(attention) = &attention {
            state.known.changes().tell(plan.id, attention);
        }
        let probe_statuses = plan
            .health
            .probe
            .as_ref()
            .and_then(|probe| match &probe.kind {
                ProbeKind::Http(http) => Some(Statuses::of(&http.statuses)),
                ProbeKind::Connect | ProbeKind::Grpc { .. } => None,
            });
        let cluster = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: Weak::clone(me),
            rules: Arc::new(Rules::of(&plan)),
            probe_statuses,
            probe_tls: ArcSwapOption::empty(),
            attention,
            sources,
            rostered,
            state,
            table: ArcSwap::from_pointee(Table::empty()),
            resolved: AtomicBool::new(false),
            settled: Notify::new(),
            building: Mutex::new(()),
            plan,
        });
        for source in &cluster.sources {
            let watcher: Weak<Self> = Arc::downgrade(&cluster);
            match source {
                Source::Literal(_) => {}
                Source::Name(name) => name.watch(watcher),
                Source::Roster(roster) => roster.watch(watcher),
            }
        }
        // After watching, so that no change falls between.
        cluster.build_table();
        Ok(cluster)
    }

    /// Has the first resolution of its names ended, or is there an address already? True at once for IP literals.
    pub fn is_resolved(&self) -> bool {
        self.resolved.load(Ordering::Acquire)
    }

    /// Waits until [`Cluster::is_resolved`]. The caller bounds the time.
    pub async fn resolved(&self) {
        let settled = self.settled.notified();
        tokio::pin!(settled);
        // Registered before the check, so that no wake-up falls between.
        settled.as_mut().enable();
        if !self.is_resolved() {
            settled.await;
        }
    }

    /// Chooses an address for one try.
    ///
    /// `key` is [`Cluster::hash`] of the request's hash input, for clusters that have one (without it the empty value
    /// counts), and the token of the client's cookie for sticky ones. `tried` are the addresses that failed this request:
    /// they are avoided while there is another, but hashing stays with its choice for as long as that is available.
    pub fn pick(&self, key: Option<u64>, tried: &[SocketAddr]) -> Result<Picked, NoEndpoint> {
        let table = self.table.load();
        let threshold = self.plan.health.available_percent_above;
        if threshold > 0.0 && !table.has_enough(threshold, self.state.known.changes()) {
            return Err(self.nothing_to_pick());
        }
        let place = match self.plan.exchanges_max {
            None => None,
            Some(most) => match Place::take(&self.state.exchanges, most) {
                Some(place) => Some(place),
                None => return Err(NoEndpoint::TooMany(most)),
            },
        };
        match table.pick(&self.state.turn, key, tried) {
            Some(address) => Ok(Picked::of(address, &self.rules, place)),
            None => Err(self.nothing_to_pick()),
        }
    }

    /// Name and path of the cookie that keeps a client at one address; only for sticky clusters. Its value is the hex
    /// text of [`Picked::token`].
    pub fn sticky_cookie(&self) -> Option<(&str, &str)> {
        match &self.plan.balance {
            BalancePlan::Sticky { cookie, path } => Some((cookie, path)),
            _ => None,
        }
    }

    /// What to hash, and what instead when the request has none of it; only for clusters that hash.
    pub fn hash_input(&self) -> Option<(&HashInput, &HashInput)> {
        match &self.plan.balance {
            BalancePlan::ConsistentHashing { on, fallback, .. } => Some((on, fallback)),
            _ => None,
        }
    }

    /// The key for [`Cluster::pick`]; the same on every node.
    pub fn hash(value: &[u8]) -> u64 {
        u64::from(xxhash32(value))
    }

    /// The addresses that can be picked at present.
    pub fn addresses(&self) -> Vec<Address> {
        self.table.load().addresses().cloned().collect()
    }

    /// The endpoint that an address stands for at present; the first one where several share it.
    pub fn endpoint_at(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let table = self.table.load();
        let found = table.addresses().find(|known| known.socket == address);
        found.map(|known| Arc::clone(&known.endpoint))
    }

    /// All endpoints with what is known of them, in the plan's order.
    pub fn view(&self) -> Vec<EndpointView> {
        let known = |address: SocketAddr, host: &Arc<str>| {
            let vitals = self.state.known.find(address, host);
            vitals.is_none_or(|vitals| vitals.is_available())
        };
        self.endpoints()
            .map(|(plan, source)| {
                let mut addresses = Vec::new();
                for seat in self.seats_of(plan, source) {
                    let found = table::addresses_of(&seat.plan, &seat.answer);
                    addresses.extend(found.map(|(address, weight, _)| AddressView {
                        address,
                        weight,
                        available: known(address, &plan.host),
                    }));
                }
                EndpointView {
                    plan: plan.clone(),
                    failure: source.failure(plan),
                    addresses,
                }
            })
            .collect()
    }

    /// How much of its weight may be used now.
    pub fn weight_view(&self) -> ClusterView {
        let table = self.table.load();
        let (mut available_weight, mut total_weight) = (0, 0);
        for address in table.addresses() {
            total_weight += u64::from(address.weight);
            if address.vitals.is_available() {
                available_weight += u64::from(address.weight);
            }
        }
        let threshold = self.plan.health.available_percent_above;
        ClusterView {
            available_weight,
            total_weight,
            healthy: table::is_enough(available_weight, total_weight, threshold),
        }
    }

    /// How often its addresses changed their health.
    pub fn changes(&self) -> &Changes {
        self.state.known.changes()
    }

    /// Takes an endpoint's addresses for healthy or not, by hand; `address` none means all of them. False if the
    /// endpoint has no such address.
    pub fn set_health(&self, endpoint: Uuid, address: Option<SocketAddr>, healthy: bool) -> bool {
        let mut found = false;
        for (plan, source) in self.endpoints().filter(|(plan, _)| plan.id == endpoint) {
            for seat in self.seats_of(plan, source) {
                for (socket, ..) in table::addresses_of(&seat.plan, &seat.answer) {
                    if address.is_none_or(|address| address == socket) {
                        let vitals = self.state.known.keep(socket, &plan.host);
                        if vitals.set(healthy) {
                            self.rules
                                .announce(&vitals, healthy, FoundBy::Administrator, None);
                        }
                        found = true;
                    }
                }
            }
        }
        found
    }

    /// Makes what probes over TLS need; to be called after linking, and when trust or the certificate that stands in
    /// for a missing one changed. The error says what is wrong with the TLS settings.
    pub fn link_probes(&self, serving: &Serving, live: &Live) -> Result<(), String> {
        let probe = self.plan.health.probe.as_ref();
        let Some(plan) = probe.and_then(|probe| probe.tls.as_ref()) else {
            return Ok(());
        };
        let inherited = self.plan.client_certificate.as_ref();
        let inherited = inherited.or(serving.plan.client_certificate.as_ref());
        let tls = UpstreamTls::link(&plan.tls, inherited, &serving.trust, live)?;
        self.probe_tls.store(Some(tls));
        Ok(())
    }

    /// TLS of probes, once it was linked.
    pub fn probe_tls(&self) -> Option<Arc<UpstreamTls>> {
        self.probe_tls.load_full()
    }

    /// A probe of one of its addresses has ended so.
    pub fn probed(&self, vitals: &Vitals, outcome: Outcome) {
        let Some(probe) = &self.plan.health.probe else {
            return;
        };
        let sign = match (&self.probe_statuses, outcome) {
            (Some(statuses), _) => statuses.sign(outcome),
            (None, Outcome::Answered(200) | Outcome::Connected) => Some(Sign::Success),
            (None, Outcome::Answered(_)) => Some(Sign::BadStatus),
            (None, Outcome::Broken) => Some(Sign::ConnectionFailure),
            (None, Outcome::TimedOut) => Some(Sign::Timeout),
        };
        if let Some(sign) = sign {
            self.rules
                .take(vitals, sign, &probe.thresholds, FoundBy::Probe, outcome);
        }
    }

    fn endpoints(&self) -> impl Iterator<Item = (&EndpointPlan, &Source)> {
        self.plan.endpoints.iter().zip(&self.sources)
    }

    /// Builds the table from what the resolver knows now.
    fn build_table(&self) {
        let _one_at_a_time = self.building.lock();
        let seats: Vec<Seat<'_>> = self
            .endpoints()
            .flat_map(|(plan, source)| self.seats_of(plan, source))
            .collect();
        let table = Table::build(&self.plan, &seats, &self.state.known);
        let pending = |seat: &Seat<'_>| matches!(*seat.answer, Answer::Pending);
        let settled = !table.is_empty()
            || !(seats.iter().any(pending) || self.sources.iter().any(Source::is_unheard));
        self.forget_names();
        self.table.store(Arc::new(table));
        if let Some(attention) = &self.attention {
            attention.call(self.plan.id, &self.me);
        }
        if settled && !self.resolved.swap(true, Ordering::AcqRel) {
            self.settled.notify_waiters();
        }
    }

    /// The seats that an endpoint stands for at present.
    fn seats_of<'a>(&'a self, plan: &'a EndpointPlan, source: &Source) -> Vec<Seat<'a>> {
        let roster = match source {
            Source::Roster(roster) => roster,
            Source::Literal(address) => {
                return vec![Seat::of(plan, Arc::new(Answer::literal(*address)))];
            }
            Source::Name(name) => return vec![Seat::of(plan, name.answer())],
        };
        let members = roster.members();
        let mut totals: BTreeMap<u8, u64> = BTreeMap::new();
        for member in &members.all {
            *totals.entry(member.rank).or_default() += u64::from(member.weight);
        }
        let alone = self.plan.endpoints.len() == 1;
        let seat = |member: &Member| {
            let total = totals.get(&member.rank).copied().unwrap_or(1).max(1);
            let weight = match (plan.weight, alone) {
                (0, _) => 0,
                (_, true) => u64::from(member.weight),
                // The members share what the endpoint has among others.
                (share, false) => (u64::from(share) * u64::from(member.weight) / total).max(1),
            };
            let most = u64::from(endpoint::WEIGHT_MAX);
            let place = EndpointPlan {
                port: member.port,
                weight: u32::try_from(weight.min(most)).unwrap_or(endpoint::WEIGHT_MAX),
                rank: plan.rank.saturating_add(member.rank),
                ..plan.clone()
            };
            Seat {
                plan: Cow::Owned(place),
                answer: match member.host.parse() {
                    Ok(address) => Arc::new(Answer::literal(address)),
                    Err(_) => self.answer_of_member(&member.host),
                },
                secured: member.secured.clone(),
            }
        };
        members.all.iter().map(seat).collect()
    }

    /// What is known of the name of a member, asked for from now on.
    fn answer_of_member(&self, host: &Arc<str>) -> Arc<Answer> {
        let Some(rostered) = &self.rostered else {
            return Arc::new(Answer::NotFound);
        };
        let mut names = rostered.names.lock();
        let name = names.entry(Arc::clone(host)).or_insert_with(|| {
            let name = rostered.resolver.name(host);
            let me: Weak<Self> = Weak::clone(&self.me);
            name.watch(me);
            name
        });
        name.answer()
    }

    /// Lets go of names that no member has any more.
    fn forget_names(&self) {
        let Some(rostered) = &self.rostered else {
            return;
        };
        let mut names = rostered.names.lock();
        if names.is_empty() {
            return;
        }
        let mut used: AHashSet<Arc<str>> = AHashSet::new();
        for source in &self.sources {
            if let Source::Roster(roster) = source {
                used.extend(roster.members().all.iter().map(|it| Arc::clone(&it.host)));
            }
        }
        names.retain(|host, _| used.contains(host));
    }

    #[cold]
    fn nothing_to_pick(&self) -> NoEndpoint {
        // Of a plain host the client is told what is wrong with its name; of several targets, only that none is left.
        if !self.plan.named
            && let Some((plan, source)) = self.endpoints().next()
            && let Some(failure) = source.failure(plan)
        {
            return failure;
        }
        NoEndpoint::NoneUsable
    }
}

impl Watcher for Cluster {
    fn changed(&self) {
        self.build_table();
    }
}

/// What members of rosters need.
struct Rostered {
    /// Held so that cluster and keeper meet.
    _rosters: Arc<Rosters>,
    resolver: Arc<Resolver>,
    /// Names of members that are no addresses.
    names: Mutex<AHashMap<Arc<str>, Arc<Name>>>,
}

impl Source {
    /// Has nobody said anything about it yet?
    fn is_unheard(&self) -> bool {
        matches!(self, Self::Roster(roster) if !roster.members().known)
    }

    /// Why there are no addresses.
    fn failure(&self, plan: &EndpointPlan) -> Option<NoEndpoint> {
        match self {
            Self::Literal(_) => None,
            Self::Name(name) => failure(plan, &name.answer()),
            Self::Roster(roster) => {
                let members = roster.members();
                let trouble = match (&members.trouble, members.known) {
                    _ if !members.all.is_empty() => return None,
                    (Some(trouble), _) => trouble,
                    (None, true) => return Some(NoEndpoint::NoneUsable),
                    (None, false) => "nothing is known of it yet",
                };
                Some(NoEndpoint::Unlisted(format!("'{}': {trouble}", plan.host)))
            }
        }
    }
}

impl<'a> Seat<'a> {
    fn of(plan: &'a EndpointPlan, answer: Arc<Answer>) -> Self {
        Self {
            plan: Cow::Borrowed(plan),
            answer,
            secured: None,
        }
    }
}

impl State {
    /// Begins anywhere: nodes that start together, and clusters with the same endpoints, do not all begin with the
    /// first one.
    fn start() -> Self {
        Self {
            turn: AtomicU64::new(u64::from(rand::random::<u32>())),
            exchanges: Arc::default(),
            known: Known::default(),
            probed: AtomicBool::new(false),
        }
    }
}

fn failure(plan: &EndpointPlan, answer: &Answer) -> Option<NoEndpoint> {
    match answer {
        Answer::Addresses(_) => None,
        Answer::NotFound => Some(NoEndpoint::NameNotFound),
        Answer::Failed(cause) => Some(NoEndpoint::Resolver(format!(
            "cannot resolve '{}': {cause}",
            plan.host
        ))),
        Answer::Pending => Some(NoEndpoint::Resolver(format!(
            "cannot resolve '{}': no answer yet",
            plan.host
        ))),
    }
}

#[cfg(test)]
mod tests;
