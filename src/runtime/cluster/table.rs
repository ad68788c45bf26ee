//! The addresses of a cluster at one moment, laid out for picking. Immutable: a change makes a new table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::model::plan::{BalancePlan, ClusterPlan, EndpointPlan};
use crate::runtime::cluster::availability::{Availability, Known};
use crate::runtime::cluster::consistent_hashing::{Member, Ring};
use crate::runtime::cluster::endpoint::Endpoint;
use crate::runtime::cluster::round_robin::Wheel;
use crate::runtime::resolver::{Answer, ServiceRecord};

/// Most addresses of one cluster; further ones are not used.
pub(super) const ADDRESSES_MAX: usize = 65_536;

/// One address that can be picked.
#[derive(Debug, Clone)]
pub struct Address {
    pub socket: SocketAddr,
    /// Share of traffic, above 0.
    pub weight: u32,
    pub endpoint: Arc<Endpoint>,
    pub availability: Arc<Availability>,
}

pub(super) struct Table {
    addresses: Box<[Address]>,
    order: Order,
}

/// How an address is chosen: one variant for each balancing algorithm.
enum Order {
    RoundRobin(Wheel),
    ConsistentHashing(Ring),
}

impl Table {
    pub(super) fn empty() -> Self {
        Self {
            addresses: Box::default(),
            order: Order::RoundRobin(Wheel::new(&[])),
        }
    }

    /// Lays out the addresses that `answers` give for the plan's endpoints, in their order.
    pub(super) fn build(plan: &ClusterPlan, answers: &[Arc<Answer>], known: &Known) -> Self {
        let mut endpoints: Vec<(&EndpointPlan, &Arc<Answer>)> =
            plan.endpoints.iter().zip(answers).collect();
        // Hashing must not depend on the order in which endpoints were written.
        if matches!(plan.balance, BalancePlan::ConsistentHashing { .. }) {
            endpoints.sort_by(|(a, _), (b, _)| (&a.host, a.port).cmp(&(&b.host, b.port)));
        }
        let mut addresses = Vec::new();
        for (endpoint, answer) in endpoints {
            append(&mut addresses, plan, endpoint, answer, known);
        }
        addresses.truncate(ADDRESSES_MAX);
        known.sweep();
        let order = match &plan.balance {
            BalancePlan::ConsistentHashing { slots, .. } => {
                let members = addresses.iter().map(|address| Member {
                    address: address.socket,
                    weight: address.weight,
                });
                Order::ConsistentHashing(Ring::new(*slots, plan.endpoints.len(), members.collect()))
            }
            _ => {
                let weights: Vec<u32> = addresses.iter().map(|address| address.weight).collect();
                Order::RoundRobin(Wheel::new(&weights))
            }
        };
        Self {
            addresses: addresses.into_boxed_slice(),
            order,
        }
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(super) fn pick(
        &self,
        turn: &AtomicU64,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Option<&Address> {
        match &self.order {
            Order::RoundRobin(wheel) => wheel.pick(&self.addresses, turn, tried),
            Order::ConsistentHashing(ring) => ring.pick(&self.addresses, key),
        }
    }
}

fn append(
    addresses: &mut Vec<Address>,
    plan: &ClusterPlan,
    endpoint: &EndpointPlan,
    answer: &Answer,
    known: &Known,
) {
    let mut made: Vec<Arc<Endpoint>> = Vec::new();
    let mut of_this_endpoint: Vec<Address> = addresses_of(endpoint, answer)
        .filter(|(_, weight, _)| *weight > 0)
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
            let availability = if plan.named {
                known.keep(socket, &endpoint.host)
            } else {
                Arc::default()
            };
            Some(Address {
                socket,
                weight,
                endpoint: endpoint_here,
                availability,
            })
        })
        .collect();
    if matches!(plan.balance, BalancePlan::ConsistentHashing { .. }) {
        // As text, because that is the order that other gateways with this ring use.
        of_this_endpoint.sort_by_cached_key(|address| address.socket.to_string());
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
