//! What the Admin and status listeners ask of the running process.
//!
//! The process is put together on a higher floor; it hands in an implementation of [`Node`]. Everything here is asked at
//! the time of a request, so it may be slow like a metrics page, but must not block.

use std::net::SocketAddr;

use serde_json::Value;
use uuid::Uuid;

/// The running process.
pub trait Node: Send + Sync + 'static {
    /// What makes it this node and no other.
    fn identity(&self) -> &Identity;

    /// Every listener with the address really bound.
    fn listeners(&self) -> Vec<BoundListener>;

    /// How many connections and requests there were.
    fn traffic(&self) -> Traffic;

    /// The newest revision that serves; none before the first snapshot.
    fn serving_revision(&self) -> Option<u64>;

    /// The newest revision that serves, as it changes.
    fn serving(&self) -> tokio::sync::watch::Receiver<Option<u64>>;

    /// Whether traffic may come: `Err` says why not, in the words of Kong's `/status/ready`.
    fn readiness(&self) -> Result<(), &'static str>;

    /// Stops being ready, so that load balancers turn away, while requests are still served.
    fn drain(&self);

    /// The metrics page in Prometheus' text format. Metrics of requests are there as far as an instance of the plugin
    /// counted some.
    fn metrics(&self) -> String;

    /// What further parts of the process say on the status page, with their names.
    fn parts(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    /// The health of a named cluster's endpoints; none while it does not serve.
    fn cluster_health(&self, cluster: Uuid) -> Option<ClusterHealth>;

    /// Sets the health of an address of an endpoint by hand; `address` none means all addresses. `Err` says why it
    /// cannot be done.
    fn set_health(
        &self,
        cluster: Uuid,
        endpoint: Uuid,
        address: Option<SocketAddr>,
        healthy: bool,
    ) -> Result<(), String>;

    /// The log level in force.
    fn log_level(&self) -> String;

    /// Sets the log level until `seconds` have passed; none for good. `Err` says why it cannot be done.
    fn set_log_level(&self, level: &str, seconds: Option<u64>) -> Result<(), String>;

    /// What traced requests did, the newest first.
    fn traces(&self) -> Vec<Value> {
        Vec::new()
    }

    /// Counts of tasks that wait for a moment: running now, waiting.
    fn timers(&self) -> (u64, u64);
}

/// What makes a node this node.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Stays with the node's store.
    pub node_id: Uuid,
    /// The machine's name.
    pub hostname: String,
    /// The process.
    pub pid: u32,
}

/// Which setting a listener belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    Proxy,
    Stream,
    Admin,
    Status,
    Page,
}

/// A listener as it was really bound.
#[derive(Debug, Clone)]
pub struct BoundListener {
    pub role: ListenerRole,
    /// With the port that the system chose where the setting said 0.
    pub address: SocketAddr,
    /// The setting's flags in parts, as `GET /` shows them (`ssl`, `http2`, …); `ip`, `port` and `listener` come from
    /// `address`.
    pub flags: serde_json::Map<String, Value>,
}

/// Counters since the start, and what is open now. Kong: `server` in `/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub connections_accepted: u64,
    pub connections_handled: u64,
    pub connections_active: u64,
    pub connections_reading: u64,
    pub connections_writing: u64,
    pub connections_waiting: u64,
    pub total_requests: u64,
}

/// The health of a cluster, as of now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterHealth {
    /// Whether anything checks health; without checks every resolved address counts as usable.
    pub checked: bool,
    /// Whether enough weight is healthy to serve at all.
    pub healthy: bool,
    pub endpoints: Vec<EndpointHealth>,
}

/// The health of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointHealth {
    /// The id of the target.
    pub id: Uuid,
    pub host: String,
    pub port: u16,
    pub weight: u32,
    /// Which kind of DNS record gave the addresses, for example `A`.
    pub dns: String,
    /// Empty while the name does not resolve.
    pub addresses: Vec<AddressHealth>,
}

/// The health of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressHealth {
    pub address: SocketAddr,
    pub weight: u32,
    pub healthy: bool,
}
