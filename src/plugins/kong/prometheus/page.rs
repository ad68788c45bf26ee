//! The metrics page: what requests counted, and what the node itself can tell.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use super::metrics;
use crate::runtime::live::Live;

/// The media type of the page.
pub const CONTENT_TYPE: &str = "text/plain; charset=UTF-8";

/// What the process knows about itself.
#[derive(Debug, Clone)]
pub struct NodeFacts<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// Can the store be reached?
    pub datastore_reachable: bool,
    /// Tasks that wait for a moment: running now, waiting.
    pub timers: (u64, u64),
    /// How often targets changed their health.
    pub health_changes: Vec<HealthChanges>,
}

/// How often the targets of an upstream changed their health since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChanges {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    pub to_healthy: u64,
    pub to_unhealthy: u64,
}

/// The health of one address of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// The target as configured, `host:port`.
    pub target: String,
    /// One of its addresses, `ip:port`; empty when its name did not resolve.
    pub address: String,
    pub state: HealthState,
}

/// States of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    HealthchecksOff,
    Healthy,
    Unhealthy,
    DnsError,
}

impl HealthState {
    const ALL: [Self; 4] = [
        Self::HealthchecksOff,
        Self::Healthy,
        Self::Unhealthy,
        Self::DnsError,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HealthchecksOff => "healthchecks_off",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::DnsError => "dns_error",
        }
    }
}

/// The page, in Prometheus' text format. `targets` is asked only when an instance wants the health of targets shown.
///
/// Metrics of requests are there as far as instances of the plugin counted some; those of the node always.
pub fn expose(
    live: &Live,
    facts: &NodeFacts<'_>,
    targets: impl FnOnce() -> Vec<TargetHealth>,
) -> String {
    let metrics = metrics(live);
    let mut families = metrics.gather();
    let targets = metrics.is_health_asked().then(targets);
    match node_families(live, facts, metrics.errors(), targets) {
        Ok(of_node) => families.extend(of_node),
        Err(error) => tracing::error!(%error, "prometheus: cannot describe metrics"),
    }
    families.sort_by(|a, b| a.name().cmp(b.name()));
    TextEncoder::new()
        .encode_to_string(&families)
        .inspect_err(|error| tracing::error!(%error, "prometheus: cannot write metrics"))
        .unwrap_or_default()
}

fn node_families(
    live: &Live,
    facts: &NodeFacts<'_>,
    errors: u64,
    targets: Option<Vec<TargetHealth>>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let node = live.node();
    let node_id = node.id().to_string();
    let node_id = node_id.as_str();
    let counts = node.traffic.counts();
    let mut families = Vec::new();
    let mut gauge = |name: &str,
                     help: &str,
                     labels: &[&str],
                     values: &[(&[&str], u64)]|
     -> prometheus::Result<()> {
        let vector = IntGaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            vector
                .get_metric_with_label_values(labels)?
                .set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        families.extend(vector.collect());
        Ok(())
    };
    gauge(
        "kong_nginx_connections_total",
        "Client connections by state",
        &["node_id", "subsystem", "state"],
        &[
            (&[node_id, "http", "accepted"], counts.accepted),
            (&[node_id, "http", "handled"], counts.accepted),
            (&[node_id, "http", "total"], counts.requests),
            (&[node_id, "http", "active"], counts.active),
            (&[node_id, "http", "reading"], 0),
            (&[node_id, "http", "writing"], counts.in_flight),
            (
                &[node_id, "http", "waiting"],
                counts.active.saturating_sub(counts.in_flight),
            ),
            (&[node_id, "stream", "total"], counts.sessions),
            (&[node_id, "stream", "active"], counts.sessions_open),
        ],
    )?;
    gauge(
        "kong_nginx_requests_total",
        "Requests since the start",
        &["node_id", "subsystem"],
        &[
            (&[node_id, "http"], counts.requests),
            (&[node_id, "stream"], counts.sessions),
        ],
    )?;
    gauge(
        "kong_nginx_timers",
        "Tasks that wait for a moment",
        &["state"],
        &[
            (&["running"], facts.timers.0),
            (&["pending"], facts.timers.1),
        ],
    )?;
    gauge(
        "kong_datastore_reachable",
        "1 while the store can be reached",
        &[],
        &[(&[], u64::from(facts.datastore_reachable))],
    )?;
    gauge(
        "kong_node_info",
        "The node and its version",
        &["node_id", "version"],
        &[(&[node_id, facts.version], 1)],
    )?;
    if let Some(bytes) = resident_bytes() {
        let pid = std::process::id().to_string();
        gauge(
            "kong_memory_workers_lua_vms_bytes",
            "Resident memory of the process; there is no Lua",
            &["node_id", "pid", "kong_subsystem"],
            &[(&[node_id, &pid, "http"], bytes)],
        )?;
    }
    if !facts.health_changes.is_empty() {
        families.extend(health_changes(&facts.health_changes)?);
    }
    if let Some(targets) = targets {
        families.extend(target_health(&targets)?);
    }
    let count = IntCounter::new(
        "kong_nginx_metric_errors_total",
        "Measurements that could not be kept",
    )?;
    count.inc_by(errors);
    families.extend(count.collect());
    Ok(families)
}

fn health_changes(changes: &[HealthChanges]) -> prometheus::Result<Vec<MetricFamily>> {
    let vector = IntCounterVec::new(
        Opts::new(
            "sallyport_upstream_health_changes_total",
            "How often targets' addresses became healthy or unhealthy",
        ),
        &["upstream", "state"],
    )?;
    for of_one in changes {
        for (state, count) in [
            (HealthState::Healthy, of_one.to_healthy),
            (HealthState::Unhealthy, of_one.to_unhealthy),
        ] {
            vector
                .get_metric_with_label_values(&[&*of_one.upstream, state.name()])?
                .inc_by(count);
        }
    }
    Ok(vector.collect())
}

/// For each address all four states: 1 for the present one.
fn target_health(targets: &[TargetHealth]) -> prometheus::Result<Vec<MetricFamily>> {
    let vector = IntGaugeVec::new(
        Opts::new(
            "kong_upstream_target_health",
            "Health of targets' addresses: 1 for the present state",
        ),
        &["upstream", "target", "address", "state", "subsystem"],
    )?;
    for target in targets {
        for state in HealthState::ALL {
            let labels = [
                &target.upstream,
                target.target.as_str(),
                &target.address,
                state.name(),
                "http",
            ];
            vector
                .get_metric_with_label_values(&labels)?
                .set(i64::from(state == target.state));
        }
    }
    Ok(vector
        .collect()
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect())
}

/// What the kernel counts for this process; none where it does not tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
