//! How a cluster's endpoints are chosen among, and how their health is found out: plain data.
//!
//! Written by every dialect that balances (Kong's upstreams, Apigee's load balancers, Consul's resolvers), linked by
//! `runtime::cluster`. A field that a dialect does not know keeps its default, which always means "off".

use std::sync::Arc;

use serde::Serialize;

use crate::model::plan::UpstreamTlsPlan;

/// The balancing rule of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "algorithm")]
pub enum BalancePlan {
    /// By turns, in proportion to the weights.
    RoundRobin,
    /// The same input leads to the same address.
    ConsistentHashing {
        /// Places on the ring, at least; more are taken when there are many endpoints.
        slots: u32,
        on: HashInput,
        /// What is hashed when the request has none of `on`.
        fallback: HashInput,
    },
    /// The fewest exchanges in progress, in proportion to the weights.
    LeastConnections,
    /// The shortest time to answer of late, in proportion to the weights.
    Latency,
    /// The address that a cookie names; without one by turns, and the cookie is set.
    Sticky {
        /// Name of the cookie.
        cookie: Arc<str>,
        /// The cookie's `Path`.
        path: Arc<str>,
    },
}

/// What a hash balancer hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashInput {
    None,
    Principal,
    Address,
    Header(Arc<str>),
    /// The cookie's value; made and set when absent.
    Cookie {
        name: Arc<str>,
        path: Arc<str>,
    },
    Path,
    QueryArgument(Arc<str>),
    Capture(Arc<str>),
}

/// How the health of a cluster's addresses is found out. The default finds nothing out: every address is available.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HealthPlan {
    /// Probes that the gateway sends.
    pub probe: Option<ProbePlan>,
    /// What proxied traffic tells.
    pub traffic: Option<TrafficPlan>,
    /// After how long an unhealthy address is tried with traffic again, in milliseconds; none leaves it out until a
    /// probe or an administrator brings it back.
    pub eject_for_ms: Option<u64>,
    /// The cluster serves only while the available share of its weight, in per cent, is above this; 0 is "while there
    /// is any".
    pub available_percent_above: f64,
}

impl HealthPlan {
    /// Does anything find out about health?
    pub fn is_checked(&self) -> bool {
        self.probe.is_some() || self.traffic.is_some()
    }
}

/// How many outcomes of one kind change what is thought of an address; 0 is never, and such outcomes are not counted.
///
/// A success forgets the failures counted, a failure the successes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Thresholds {
    /// Makes an address healthy.
    pub successes: u16,
    /// No connection, or one that broke before an answer. Makes an address unhealthy, as do the following.
    pub connection_failures: u16,
    pub timeouts: u16,
    /// Answers with a bad status.
    pub bad_statuses: u16,
    /// Failures of any kind, counted together beside their own kind.
    pub failures: u16,
}

/// Health from proxied traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrafficPlan {
    pub statuses: StatusPlan,
    pub thresholds: Thresholds,
}

/// Which statuses of answers are good and which are bad. Others say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StatusPlan {
    pub good: Vec<u16>,
    pub bad: Vec<u16>,
    /// Every status that is not `bad` is good; `good` is empty then.
    pub others_are_good: bool,
}

/// Probes of every address of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbePlan {
    pub kind: ProbeKind,
    /// Longest time that a probe may take, in milliseconds.
    pub timeout_ms: u32,
    /// Probes of this cluster under way at once, at least 1.
    pub concurrency: u32,
    /// Time between probes of a healthy address, in milliseconds; none does not probe it.
    pub healthy_every_ms: Option<u32>,
    /// Time between probes of an unhealthy address, in milliseconds; none does not probe it.
    pub unhealthy_every_ms: Option<u32>,
    /// A port to probe instead of the endpoint's own.
    pub port: Option<u16>,
    /// TLS on the connection, if any.
    pub tls: Option<ProbeTlsPlan>,
    pub thresholds: Thresholds,
}

/// What a probe does with its connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Nothing: that it could be made is the success.
    Connect,
    Http(HttpProbePlan),
    /// Asks `grpc.health.v1.Health/Check` for a service; the empty name is the server as a whole. A server without
    /// this method counts as healthy because it answers.
    Grpc {
        service: Arc<str>,
    },
}

/// A probe's HTTP/1.1 request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpProbePlan {
    pub method: Arc<str>,
    /// Path and query.
    pub path: Arc<str>,
    /// Sent beside `Host` (the endpoint's name) and `Connection`; a `Host` here is sent instead.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    pub body: Arc<str>,
    pub statuses: StatusPlan,
    /// Header fields that a good answer must have, with these values; its status counts as bad otherwise.
    pub expected_headers: Vec<(Arc<str>, Arc<str>)>,
}

/// TLS of a probe. The cluster's client certificate is shown unless the plan has its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeTlsPlan {
    pub tls: UpstreamTlsPlan,
    /// Name for the handshake and for verification; none is the endpoint's host.
    pub server_name: Option<Arc<str>>,
}
