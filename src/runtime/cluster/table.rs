//! The addresses of a cluster at one moment, laid out for picking. Immutable: a change makes a new table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::model::plan::{BalancePlan, ClusterPlan, EndpointPlan};
use crate::runtime::cluster::consistent_hashing::{Member, Ring};
use crate::runtime::cluster::endpoint::Endpoint;
use crate::runtime::cluster::round_robin::Wheel;
use crate::runtime::cluster::sticky::{self, Sticky};
use crate::runtime::cluster::vitals::{Changes, Known, Vitals};
use crate::runtime::cluster::{latency, least_connections};
use crate::runtime::mutual::Secured;
use crate::runtime::resolver::{Answer, ServiceRecord};

/// Most addresses of one cluster; further ones are not used.
pub(super) const ADDRESSES_MAX: usize = 65_536;

/// One address that can be picked.
#[derive(Debug, Clone)]
pub struct Address {
    pub socket: SocketAddr,
    /// Share of traffic; above 0, but for addresses that are being drained.
    pub weight: u32,
    pub endpoint: Arc<Endpoint>,
    pub vitals: Arc<Vitals>,
    /// Names it to sticky clients; 0 where nobody is sticky.
    pub(super) token: u64,
    /// TLS in which both sides show certificates.
    pub(super) secured: Option<Arc<Secured>>,
}

/// An endpoint of the plan, or a member of the roster behind one, with what is known of its name.
pub(super) struct Seat<'a> {
    pub(super) plan: Cow<'a, EndpointPlan>,
    pub(super) answer: Arc<Answer>,
    pub(super) secured: Option<Arc<Secured>>,
}

pub(super) struct Table {
    /// By rank: a later one is for when the earlier ones have nothing to offer.
    tiers: Box<[Tier]>,
    /// Whether enough is available, as of a generation of changes: `generation × 2 + answer`.
    enough: AtomicU64,
}

struct Tier {
    addresses: Box<[Address]>,
    order: Order,
}

/// How an address is chosen: one variant for each balancing algorithm.
enum Order {
    RoundRobin(Wheel),
    ConsistentHashing(Ring),
    LeastConnections,
    Latency,
    Sticky(Sticky),
}

impl Table {
    pub(super) fn empty() -> Self {
        Self {
            tiers: Box::default(),
            enough: AtomicU64::new(u64::MAX),
        }
    }

    /// Lays out the addresses of these seats, in their order.
    pub(super) fn build(plan: &ClusterPlan, seats: &[Seat<'_>], known: &Known) -> Self {
        let mut by_rank: BTreeMap<u8, Vec<&Seat<'_>>> = BTreeMap::new();
        for seat in seats {
            by_rank.entry(seat.plan.rank).or_default().push(seat);
        }
        let mut room = ADDRESSES_MAX;
        let mut tiers = Vec::with_capacity(by_rank.len());
        for seats in by_rank.into_values() {
            let tier = Tier::build(plan, seats, known, room);
            room -= tier.addresses.len();
            if !tier.addresses.is_empty() {
                tiers.push(tier);
            }
        }
        let table = Self {
            tiers: tiers.into_boxed_slice(),
            enough: AtomicU64::new(u64::MAX),
        };
        known.settle(table.addresses().map(|it| &it.vitals), Instant::now());
        table
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.tiers.iter().flat_map(|tier| &tier.addresses)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    pub(super) fn pick(
        &self,
        turn: &AtomicU64,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Option<&Address> {
        let sticks = key.and_then(|token| {
            let mut tiers = self.tiers.iter();
            tiers.find_map(|tier| match &tier.order {
                Order::Sticky(sticky) => sticky.follow(&tier.addresses, token, tried),
                _ => None,
            })
        });
        if sticks.is_some() {
            return sticks;
        }
        let mut last_resort = None;
        for tier in &self.tiers {
            match tier.pick(turn, key, tried) {
                // One that has failed this request, when a later tier may have another.
                Some(address) if self.tiers.len() > 1 && tried.contains(&address.socket) => {
                    last_resort = last_resort.or(Some(address));
                }
                Some(address) => return Some(address),
                None => {}
            }
        }
        last_resort
    }

    /// Is more than this share of the weight available, in per cent? Looked at anew after each change of health only.
    pub(super) fn has_enough(&self, percent_above: f64, changes: &Changes) -> bool {
        let generation = changes.generation() << 1;
        let seen = self.enough.load(Ordering::Relaxed);
        if seen & !1 == generation {
            return seen & 1 == 1;
        }
        let (mut available, mut total) = (0_u64, 0_u64);
        for address in self.addresses() {
            let weight = u64::from(address.weight);
            total += weight;
            if address.vitals.is_available() {
                available += weight;
            }
        }
        let enough = is_enough(available, total, percent_above);
        let answer = generation | u64::from(enough);
        self.enough.store(answer, Ordering::Relaxed);
        enough
    }
}

/// Is more than this share available, in per cent? Nothing of nothing is not.
pub(super) fn is_enough(available: u64, total: u64, percent_above: f64) -> bool {
    total > 0 && available as f64 / total as f64 * 100.0 > percent_above
}

impl Tier {
    fn build(
        plan: &ClusterPlan,
        mut seats: Vec<&Seat<'_>>,
        known: &Known,
        addresses_max: usize,
    ) -> Self {
        // Hashing must not depend on the order in which endpoints were written.
        if matches!(plan.balance, BalancePlan::ConsistentHashing { .. }) {
            seats.sort_by(|a, b| (&a.plan.host, a.plan.port).cmp(&(&b.plan.host, b.plan.port)));
        }
        let mut addresses = Vec::new();
        for seat in seats {
            append(&mut addresses, plan, seat, known);
        }
        if matches!(plan.balance, BalancePlan::Sticky { .. }) {
            addresses.sort_by_key(|address| address.weight == 0);
        }
        addresses.truncate(addresses_max);
        let order = match &plan.balance {
            BalancePlan::RoundRobin => {
                let weights: Vec<u32> = addresses.iter().map(|address| address.weight).collect();
                Order::RoundRobin(Wheel::new(&weights))
            }
            BalancePlan::ConsistentHashing { slots, .. } => {
                let members = addresses.iter().map(|address| Member {
                    address: address.socket,
                    weight: address.weight,
                });
                let members: Vec<Member> = members.collect();
                Order::ConsistentHashing(Ring::new(*slots, &members))
            }
            BalancePlan::LeastConnections => Order::LeastConnections,
            BalancePlan::Latency => {
                start_with_the_mean(&addresses);
                Order::Latency
            }
            BalancePlan::Sticky { .. } => Order::Sticky(Sticky::new(&addresses)),
        };
        Self {
            addresses: addresses.into_boxed_slice(),
            order,
        }
    }

    fn pick(&self, turn: &AtomicU64, key: Option<u64>, tried: &[SocketAddr]) -> Option<&Address> {
        match &self.order {
            Order::RoundRobin(wheel) => wheel.pick(&self.addresses, turn, tried),
            Order::ConsistentHashing(ring) => ring.pick(&self.addresses, key),
            Order::LeastConnections => least_connections::pick(&self.addresses, turn, tried),
            Order::Latency => latency::pick(&self.addresses, tried),
            Order::Sticky(sticky) => sticky.pick(&self.addresses, turn, tried),
        }
    }
}

fn start_with_the_mean(addresses: &[Address]) {
    let now = Instant::now();
    let known: Vec<f64> = addresses
        .iter()
        .map(|address| address.vitals.latency())
        .filter(|latency| latency.is_known())
        .map(|latency| latency.seconds(now))
        .collect();
    if known.is_empty() {
        return;
    }
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    for address in addresses {
        address.vitals.start_latency(mean, now);
    }
}

fn append(addresses: &mut Vec<Address>, plan: &ClusterPlan, seat: &Seat<'_>, known: &Known) {
    let (endpoint, answer) = (&*seat.plan, &*seat.answer);
    let sticky = matches!(plan.balance, BalancePlan::Sticky { .. });
    let mut made: Vec<Arc<Endpoint>> = Vec::new();
    let mut of_this_endpoint: Vec<Address> = addresses_of(endpoint, answer)
        .filter(|(_, weight, _)| *weight > 0 || sticky)
        .filter_map(|(socket, weight, service)| {
            let name = service
                .filter(|_| plan.use_srv_name)
                .map(|service| &service.target);
            let same = |made: &Arc<Endpoint>| {
                made.port == socket.port() && name.is_none_or(|name| *name == made.host)
            };
            let endpoint_here = match made.iter().find(|made| same(made)) {
                Some(endpoint) => Arc::clone(endpoint),
                None => {
                    // A service name that cannot be sent as a host name comes from the network: leave it out.
                    let fresh = Endpoint::new(plan, endpoint, socket.port(), name).ok()?;
                    let fresh = Arc::new(fresh);
                    made.push(Arc::clone(&fresh));
                    fresh
                }
            };
            let vitals = if plan.named || endpoint.roster.is_some() {
                known.keep(socket, &endpoint.host)
            } else {
                Vitals::new(socket, known.changes())
            };
            vitals.set_endpoint(&endpoint_here);
            Some(Address {
                socket,
                weight,
                endpoint: endpoint_here,
                vitals,
                token: match sticky {
                    true => sticky::token(socket, &endpoint.host),
                    false => 0,
                },
                secured: seat.secured.clone(),
            })
        })
        .collect();
    if matches!(plan.balance, BalancePlan::ConsistentHashing { .. }) {
        of_this_endpoint.sort_by_key(|address| address.socket);
    }
    addresses.append(&mut of_this_endpoint);
}

/// Addresses and weights that an endpoint stands for, with the service record that says so. An endpoint without weight
/// has none whatever its records say.
pub(super) fn addresses_of<'a>(
    endpoint: &'a EndpointPlan,
    answer: &'a Answer,
) -> impl Iterator<Item = (SocketAddr, u32, Option<&'a ServiceRecord>)> {
    answer.records().iter().map(|record| {
        let (port, weight) = match &record.service {
            Some(service) if endpoint.weight > 0 => (service.port, u32::from(service.weight)),
            Some(service) => (service.port, 0),
            None => (endpoint.port, endpoint.weight),
        };
        let socket = SocketAddr::new(record.address, port);
        (socket, weight, record.service.as_ref())
    })
}
