//! The running process as the Admin interface sees it: the runtime's own counters, clusters and metrics.
//!
//! Nothing here starts or stops anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::admin::node::{
    AddressHealth, BoundListener, ClusterHealth, EndpointHealth, Identity, Node, Traffic,
};
use crate::admin::state::VERSION;
use crate::plugins::kong::prometheus::{self, HealthChanges, HealthState, NodeFacts, TargetHealth};
use crate::runtime::cluster::{Cluster, EndpointView};
use crate::runtime::live::Live;
use crate::runtime::node::NodePart;
use crate::runtime::snapshot::Snapshot;

/// Sees and changes the level of the program's own log.
pub(crate) trait LogLevels: Send + Sync + 'static {
    /// The level in force, in Kong's words.
    fn level(&self) -> String;

    /// Sets the level. Errors: why it cannot be done.
    fn set(&self, level: &str) -> Result<(), String>;
}

/// The running process.
pub(crate) struct Process {
    identity: Identity,
    live: Arc<Live>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    served: watch::Receiver<Option<u64>>,
    listeners: Mutex<Vec<BoundListener>>,
    draining: AtomicBool,
    levels: Arc<Levels>,
}

/// The log level with the change that is to be taken back.
struct Levels {
    log: Box<dyn LogLevels>,
    /// Counts changes, so that only the newest is taken back.
    changes: AtomicU64,
    /// The level to go back to, while a change for some time is in force.
    before: Mutex<Option<String>>,
}

impl Process {
    /// A process with the given parts. `served` tells the revision that serves, none before the first.
    pub(crate) fn new(
        live: Arc<Live>,
        snapshots: Arc<ArcSwap<Snapshot>>,
        served: watch::Receiver<Option<u64>>,
        log: Box<dyn LogLevels>,
    ) -> Self {
        let node = live.node();
        Self {
            identity: Identity {
                node_id: node.id(),
                hostname: node.hostname().to_owned(),
                pid: std::process::id(),
            },
            live,
            snapshots,
            served,
            listeners: Mutex::default(),
            draining: AtomicBool::new(false),
            levels: Arc::new(Levels {
                log,
                changes: AtomicU64::new(0),
                before: Mutex::new(None),
            }),
        }
    }

    /// Says which listeners were bound.
    pub(crate) fn listens_on(&self, listeners: Vec<BoundListener>) {
        *self.listeners.lock() = listeners;
    }

    fn cluster(&self, id: Uuid) -> Option<Arc<Cluster>> {
        self.snapshots.load().clusters.get(&id).cloned()
    }
}

impl Node for Process {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn listeners(&self) -> Vec<BoundListener> {
        self.listeners.lock().clone()
    }

    fn traffic(&self) -> Traffic {
        let counts = self.live.node().traffic.counts();
        // A request in flight is being answered; its connection is neither idle nor reading a head.
        let writing = counts.in_flight.min(counts.active);
        Traffic {
            connections_accepted: counts.accepted,
            connections_handled: counts.accepted,
            connections_active: counts.active,
            connections_reading: 0,
            connections_writing: writing,
            connections_waiting: counts.active - writing,
            total_requests: counts.requests,
        }
    }

    fn serving_revision(&self) -> Option<u64> {
        *self.served.borrow()
    }

    fn serving(&self) -> watch::Receiver<Option<u64>> {
        self.served.clone()
    }

    fn readiness(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining");
        }
        let troubled = |part: &Arc<dyn NodePart>| part.trouble().is_some();
        match self.serving_revision() {
            Some(_) if self.live.node().parts().iter().any(troubled) => {
                Err("the identity in the mesh cannot be used yet")
            }
            Some(_) => Ok(()),
            None => Err("router builds not yet complete"),
        }
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn metrics(&self) -> String {
        let facts = NodeFacts {
            version: VERSION,
            datastore_reachable: true,
            timers: self.timers(),
            health_changes: self.health_changes(),
        };
        let mut page = prometheus::expose(&self.live, &facts, || self.target_health());
        for part in self.live.node().parts() {
            part.metrics(&mut page);
        }
        page
    }

    fn parts(&self) -> Vec<(&'static str, serde_json::Value)> {
        let parts = self.live.node().parts();
        parts
            .iter()
            .map(|part| (part.name(), part.status()))
            .collect()
    }

    fn cluster_health(&self, id: Uuid) -> Option<ClusterHealth> {
        let cluster = self.cluster(id)?;
        let endpoints: Vec<EndpointHealth> =
            cluster.view().into_iter().map(endpoint_health).collect();
        Some(ClusterHealth {
            checked: cluster.plan.health.is_checked(),
            healthy: cluster.weight_view().healthy,
            endpoints,
        })
    }

    fn set_health(
        &self,
        id: Uuid,
        endpoint: Uuid,
        address: Option<SocketAddr>,
        healthy: bool,
    ) -> Result<(), String> {
        let cluster = self
            .cluster(id)
            .ok_or("the upstream does not serve on this node yet, try again")?;
        let found = cluster.set_health(endpoint, address, healthy);
        match (found, address) {
            (true, _) => Ok(()),
            (false, Some(address)) => Err(format!("the target has no address {address} in use")),
            (false, None) => Err("the target has no address in use".to_owned()),
        }
    }

    fn log_level(&self) -> String {
        self.levels.log.level()
    }

    fn set_log_level(&self, level: &str, seconds: Option<u64>) -> Result<(), String> {
        let change = self.levels.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let old = self.levels.log.level();
        self.levels.log.set(level)?;
        let mut before = self.levels.before.lock();
        let Some(seconds) = seconds else {
            *before = None;
            return Ok(());
        };
        // A second change goes back to what was there before the first.
        before.get_or_insert(old);
        drop(before);
        let levels = self.levels.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            levels.take_back(change);
        });
        Ok(())
    }

    fn traces(&self) -> Vec<serde_json::Value> {
        let traces = crate::plugins::apigee::flow::trace::Traces::of(&self.live).list();
        let shown = traces.iter().map(|trace| serde_json::to_value(&**trace));
        shown.filter_map(Result::ok).collect()
    }

    fn timers(&self) -> (u64, u64) {
        let tasks = tokio::runtime::Handle::try_current()
            .map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        (0, u64::try_from(tasks).unwrap_or(u64::MAX))
    }
}

impl Levels {
    fn take_back(&self, change: u64) {
        if self.changes.load(Ordering::SeqCst) != change {
            return;
        }
        let Some(level) = self.before.lock().take() else {
            return;
        };
        if let Err(error) = self.log.set(&level) {
            tracing::warn!(error, level, "the log level cannot be set back");
        }
    }
}

impl Process {
    /// What happened to the clusters that something checks.
    fn health_changes(&self) -> Vec<HealthChanges> {
        let snapshot = self.snapshots.load();
        let changes = |cluster: &Arc<Cluster>| {
            let (to_healthy, to_unhealthy) = cluster.changes().counts();
            HealthChanges {
                upstream: cluster.plan.name.clone(),
                to_healthy,
                to_unhealthy,
            }
        };
        let checked = snapshot.clusters.values();
        checked
            .filter(|cluster| cluster.plan.health.is_checked())
            .map(changes)
            .collect()
    }

    /// Every address of every named cluster, for the metrics page.
    fn target_health(&self) -> Vec<TargetHealth> {
        let snapshot = self.snapshots.load();
        let mut targets = Vec::new();
        for cluster in snapshot
            .clusters
            .values()
            .filter(|cluster| cluster.plan.named)
        {
            for view in cluster.view() {
                let target = format!("{}:{}", view.plan.host, view.plan.port);
                let health = |address: String, state| TargetHealth {
                    upstream: cluster.plan.name.clone(),
                    target: target.clone(),
                    address,
                    state,
                };
                if view.addresses.is_empty() {
                    targets.push(health(String::new(), HealthState::DnsError));
                }
                for known in &view.addresses {
                    let state = match (known.available, cluster.plan.health.is_checked()) {
                        (false, _) => HealthState::Unhealthy,
                        (true, true) => HealthState::Healthy,
                        (true, false) => HealthState::HealthchecksOff,
                    };
                    targets.push(health(known.address.to_string(), state));
                }
            }
        }
        targets
    }
}

fn endpoint_health(view: EndpointView) -> EndpointHealth {
    let dns = match view.plan.host.parse::<std::net::IpAddr>() {
        Ok(_) => "ip",
        Err(_) => match view.addresses.first() {
            Some(known) if known.address.is_ipv6() => "AAAA",
            _ => "A",
        },
    };
    EndpointHealth {
        id: view.plan.id,
        host: view.plan.host.to_string(),
        port: view.plan.port,
        weight: view.plan.weight,
        dns: dns.to_owned(),
        addresses: view
            .addresses
            .iter()
            .map(|known| AddressHealth {
                address: known.address,
                weight: known.weight,
                healthy: known.available,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    struct Log(Arc<Mutex<String>>);

    impl LogLevels for Log {
        fn level(&self) -> String {
            self.0.lock().clone()
        }
        fn set(&self, level: &str) -> Result<(), String> {
            level.clone_into(&mut self.0.lock());
            Ok(())
        }
    }

    #[test]
    fn only_the_newest_change_of_level_is_taken_back() {
        let level = Arc::new(Mutex::new("debug".to_owned()));
        let levels = Levels {
            log: Box::new(Log(level.clone())),
            changes: AtomicU64::new(2),
            before: Mutex::new(Some("notice".to_owned())),
        };
        levels.take_back(1);
        assert_eq!(*level.lock(), "debug");
        levels.take_back(2);
        assert_eq!(*level.lock(), "notice");
        level.lock().clear();
        levels.take_back(2);
        assert_eq!(*level.lock(), "");
    }
}
