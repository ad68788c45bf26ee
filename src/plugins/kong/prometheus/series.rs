//! The counters and histograms of requests and streams, found by route.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, proto::MetricFamily,
};
use uuid::Uuid;

use crate::model::plan::{ForwardPlan, RoutePlan};
use crate::runtime::snapshot::{Principal, Route};

/// Combinations of labels over all metrics; requests beyond are counted as errors instead.
const SERIES_MAX: usize = 500_000;
/// Shards of the map from routes to their counters.
const SHARDS: usize = 32;
/// The name of the one workspace.
const WORKSPACE: &str = "default";

const LATENCY_BUCKETS_MS: &[f64] = &[
    25.0, 50.0, 80.0, 100.0, 250.0, 400.0, 700.0, 1000.0, 2000.0, 5000.0, 10_000.0, 30_000.0,
    60_000.0,
];
const KONG_LATENCY_BUCKETS_MS: &[f64] = &[
    1.0, 2.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0, 500.0, 750.0, 1000.0,
    3000.0, 6000.0,
];

/// All metrics of requests.
pub(super) struct Metrics {
    families: Option<Families>,
    routes: [RwLock<AHashMap<Uuid, Arc<RouteSeries>>>; SHARDS],
    series: AtomicUsize,
    errors: AtomicUsize,
    /// Instances that ask for the health of targets.
    health_asked: AtomicUsize,
}

struct Families {
    requests: IntCounterVec,
    sessions: IntCounterVec,
    bandwidth: IntCounterVec,
    request_latency: HistogramVec,
    kong_latency: HistogramVec,
    upstream_latency: HistogramVec,
    session_duration: HistogramVec,
}

/// The metrics of one route.
pub(super) struct RouteSeries {
    /// What the labels were made of. Held, so that equal addresses mean the same plan.
    route: Arc<RoutePlan>,
    forward: Option<Arc<ForwardPlan>>,
    requests: RwLock<AHashMap<RequestKey, IntCounter>>,
    sessions: RwLock<AHashMap<SessionKey, IntCounter>>,
    bandwidth: RwLock<AHashMap<Option<Uuid>, Bandwidth>>,
    latencies: OnceLock<Option<Latencies>>,
    duration: OnceLock<Option<Histogram>>,
}

/// Status, and whether the service was reached.
type SessionKey = (u16, bool);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RequestKey {
    status: u16,
    by_service: bool,
    consumer: Option<Uuid>,
}

/// Bytes from and to the client.
#[derive(Clone)]
pub(super) struct Bandwidth {
    pub(super) ingress: IntCounter,
    pub(super) egress: IntCounter,
}

/// Times in milliseconds.
pub(super) struct Latencies {
    pub(super) request: Histogram,
    pub(super) kong: Histogram,
    pub(super) upstream: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let families = Families::new()
            .inspect_err(|error| tracing::error!(%error, "prometheus: cannot describe metrics"));
        Self {
            families: families.ok(),
            routes: Default::default(),
            series: AtomicUsize::new(0),
            errors: AtomicUsize::new(0),
            health_asked: AtomicUsize::new(0),
        }
    }
}

impl Metrics {
    /// The metrics of a route, made when it is seen for the first time or under another name.
    pub(super) fn of_route(&self, route: &Route) -> Option<Arc<RouteSeries>> {
        let id = &route.plan.id;
        let [.., last] = id.as_bytes();
        let shard = self.routes.get(usize::from(*last) % SHARDS)?;
        if let Some(known) = shard.read().get(id)
            && known.is_of(route)
        {
            return Some(known.clone());
        }
        let series = Arc::new(RouteSeries {
            route: route.plan.clone(),
            forward: route.forward.as_ref().map(|forward| forward.plan.clone()),
            requests: RwLock::default(),
            sessions: RwLock::default(),
            bandwidth: RwLock::default(),
            latencies: OnceLock::new(),
            duration: OnceLock::new(),
        });
        let mut shard = shard.write();
        if !shard.contains_key(id) {
            self.admit(1)?;
        }
        shard.insert(*id, series.clone());
        Some(series)
    }

    /// Room for so many further series; a refusal is an error that is counted.
    fn admit(&self, count: usize) -> Option<()> {
        if self.series.fetch_add(count, Relaxed) + count > SERIES_MAX {
            self.series.fetch_sub(count, Relaxed);
            self.errors.fetch_add(1, Relaxed);
            return None;
        }
        Some(())
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Relaxed) as u64
    }

    pub(super) fn ask_health(&self) {
        self.health_asked.fetch_add(1, Relaxed);
    }

    pub(super) fn waive_health(&self) {
        self.health_asked.fetch_sub(1, Relaxed);
    }

    pub(super) fn is_health_asked(&self) -> bool {
        self.health_asked.load(Relaxed) > 0
    }

    /// What was counted so far; families without series are left out.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        let Some(families) = &self.families else {
            return Vec::new();
        };
        let Families {
            requests,
            sessions,
            bandwidth,
            request_latency,
            kong_latency,
            upstream_latency,
            session_duration,
        } = families;
        let collectors: [&dyn Collector; 7] = [
            bandwidth,
            requests,
            sessions,
            kong_latency,
            request_latency,
            upstream_latency,
            session_duration,
        ];
        collectors
            .iter()
            .flat_map(|collector| collector.collect())
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            HistogramVec::new(options, &["service", "route", "workspace"])
        };
        Ok(Self {
            requests: counter(
                "kong_http_requests_total",
                "Requests by service, route, status and who answered",
                &[
                    "service",
                    "route",
                    "code",
                    "source",
                    "workspace",
                    "consumer",
                ],
            )?,
            sessions: counter(
                "kong_stream_sessions_total",
                "Streams by service, route, status and whether the service was reached",
                &["service", "route", "code", "source", "workspace"],
            )?,
            bandwidth: counter(
                "kong_bandwidth_bytes",
                "Bytes from and to clients by service and route",
                &["service", "route", "direction", "workspace", "consumer"],
            )?,
            request_latency: histogram(
                "kong_request_latency_ms",
                "Milliseconds from the request's first to the response's last byte",
                LATENCY_BUCKETS_MS,
            )?,
            upstream_latency: histogram(
                "kong_upstream_latency_ms",
                "Milliseconds until the upstream's response began",
                LATENCY_BUCKETS_MS,
            )?,
            session_duration: histogram(
                "kong_session_duration_ms",
                "Milliseconds from a stream's start to its end",
                LATENCY_BUCKETS_MS,
            )?,
            kong_latency: histogram(
                "kong_kong_latency_ms",
                "Milliseconds in the gateway itself",
                KONG_LATENCY_BUCKETS_MS,
            )?,
        })
    }
}

impl RouteSeries {
    fn is_of(&self, route: &Route) -> bool {
        let same_forward = match (&self.forward, &route.forward) {
            (Some(known), Some(forward)) => Arc::ptr_eq(known, &forward.plan),
            (None, None) => true,
            _ => false,
        };
        same_forward && Arc::ptr_eq(&self.route, &route.plan)
    }

    /// Name or host; name or id.
    fn labels(&self) -> (&str, String) {
        let service = match &self.forward {
            Some(forward) => forward.name.as_deref().unwrap_or(&forward.host),
            None => "",
        };
        let route = match &self.route.name {
            Some(name) => name.to_string(),
            None => self.route.id.to_string(),
        };
        (service, route)
    }

    pub(super) fn requests(
        &self,
        metrics: &Metrics,
        status: u16,
        by_service: bool,
        consumer: Option<&Arc<Principal>>,
    ) -> Option<IntCounter> {
        let key = RequestKey {
            status,
            by_service,
            consumer: consumer.map(|principal| principal.plan.id),
        };
        if let Some(counter) = self.requests.read().get(&key) {
            return Some(counter.clone());
        }
        let mut requests = self.requests.write();
        metrics.admit(1)?;
        let (service, route) = self.labels();
        let labels = [
            service,
            &route,
            itoa::Buffer::new().format(status),
            if by_service { "service" } else { "kong" },
            WORKSPACE,
            &consumer_label(consumer),
        ]
        .map(str::to_owned);
        let family = &metrics.families.as_ref()?.requests;
        let counter = family.get_metric_with_label_values(&labels).ok()?;
        requests.insert(key, counter.clone());
        Some(counter)
    }

    pub(super) fn sessions(
        &self,
        metrics: &Metrics,
        status: u16,
        by_service: bool,
    ) -> Option<IntCounter> {
        let key = (status, by_service);
        if let Some(counter) = self.sessions.read().get(&key) {
            return Some(counter.clone());
        }
        let mut sessions = self.sessions.write();
        metrics.admit(1)?;
        let (service, route) = self.labels();
        let labels = [
            service,
            &route,
            itoa::Buffer::new().format(status),
            if by_service { "service" } else { "kong" },
            WORKSPACE,
        ]
        .map(str::to_owned);
        let family = &metrics.families.as_ref()?.sessions;
        let counter = family.get_metric_with_label_values(&labels).ok()?;
        sessions.insert(key, counter.clone());
        Some(counter)
    }

    pub(super) fn duration(&self, metrics: &Metrics) -> Option<&Histogram> {
        self.duration
            .get_or_init(|| {
                metrics.admit(1)?;
                let (service, route) = self.labels();
                let family = &metrics.families.as_ref()?.session_duration;
                family
                    .get_metric_with_label_values(&[service, &route, WORKSPACE])
                    .ok()
            })
            .as_ref()
    }

    pub(super) fn bandwidth(
        &self,
        metrics: &Metrics,
        consumer: Option<&Arc<Principal>>,
    ) -> Option<Bandwidth> {
        let key = consumer.map(|principal| principal.plan.id);
        if let Some(counters) = self.bandwidth.read().get(&key) {
            return Some(counters.clone());
        }
        let mut bandwidth = self.bandwidth.write();
        metrics.admit(2)?;
        let (service, route) = self.labels();
        let consumer = consumer_label(consumer);
        let family = &metrics.families.as_ref()?.bandwidth;
        let counter = |direction: &str| {
            let labels = [service, &route, direction, WORKSPACE, &consumer];
            family.get_metric_with_label_values(&labels).ok()
        };
        let counters = Bandwidth {
            ingress: counter("ingress")?,
            egress: counter("egress")?,
        };
        bandwidth.insert(key, counters.clone());
        Some(counters)
    }

    pub(super) fn latencies(&self, metrics: &Metrics) -> Option<&Latencies> {
        self.latencies
            .get_or_init(|| {
                metrics.admit(3)?;
                let (service, route) = self.labels();
                let labels = [service, &route, WORKSPACE];
                let families = metrics.families.as_ref()?;
                let find =
                    |family: &HistogramVec| family.get_metric_with_label_values(&labels).ok();
                Some(Latencies {
                    request: find(&families.request_latency)?,
                    kong: find(&families.kong_latency)?,
                    upstream: find(&families.upstream_latency)?,
                })
            })
            .as_ref()
    }
}

fn consumer_label(consumer: Option<&Arc<Principal>>) -> String {
    consumer.map_or_else(String::new, |principal| {
        let plan = &principal.plan;
        match plan.username.as_ref().or(plan.custom_id.as_ref()) {
            Some(name) => name.to_string(),
            None => plan.id.to_string(),
        }
    })
}
