//! `prometheus`: counts and times requests and streams for the metrics page.
//!
//! Counters are found once for a route and then kept with it: a request formats and hashes no label. They outlive
//! configurations, and are forgotten when the last instance goes.

mod page;
mod series;

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

pub use page::{CONTENT_TYPE, HealthChanges, HealthState, NodeFacts, TargetHealth, expose};
use series::Metrics;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::runtime::contract::{LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, ResponseSource};
use crate::runtime::live::Live;
use crate::runtime::session::Session;

config_record! {
    /// Counts and times requests and streams, for `GET /metrics` of the Admin and status listeners.
    pub struct Config {
        /// Tell consumers apart in `kong_http_requests_total` and `kong_bandwidth_bytes`.
        per_consumer: Option<bool> = boolean().default(false),
        /// Count requests by status, and streams: `kong_http_requests_total`, `kong_stream_sessions_total`.
        status_code_metrics: Option<bool> = boolean().default(false),
        /// Metrics of AI plugins, which this version does not have.
        ai_metrics: Option<bool> = boolean().validated_by(check_absent).default(false),
        /// Time requests and streams: `kong_request_latency_ms`, `kong_upstream_latency_ms`, `kong_kong_latency_ms`,
        /// `kong_session_duration_ms`.
        latency_metrics: Option<bool> = boolean().default(false),
        /// Count bytes: `kong_bandwidth_bytes`.
        bandwidth_metrics: Option<bool> = boolean().default(false),
        /// Show the health of targets: `kong_upstream_target_health`.
        upstream_health_metrics: Option<bool> = boolean().default(false),
        /// Metrics of WebAssembly filters, which this version does not have.
        wasm_metrics: Option<bool> = boolean().validated_by(check_absent).default(false),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("prometheus", 13, Config::schema()).with_streams(),
        link,
    }
}

fn check_absent(value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(true) => Err("not supported by this version".to_owned()),
        _ => Ok(()),
    }
}

/// The metrics of this process.
fn metrics(live: &Live) -> Arc<Metrics> {
    live.keep("prometheus", Metrics::default)
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let metrics = metrics(context.live);
    let shows_health = config.upstream_health_metrics == Some(true);
    if shows_health {
        metrics.ask_health();
    }
    Ok(Arc::new(Prometheus {
        metrics,
        per_consumer: config.per_consumer == Some(true),
        counts_statuses: config.status_code_metrics == Some(true),
        counts_bytes: config.bandwidth_metrics == Some(true),
        times: config.latency_metrics == Some(true),
        shows_health,
    }))
}

struct Prometheus {
    metrics: Arc<Metrics>,
    per_consumer: bool,
    counts_statuses: bool,
    counts_bytes: bool,
    times: bool,
    shows_health: bool,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if self.shows_health {
            self.metrics.waive_health();
        }
    }
}

impl Plugin for Prometheus {
    fn phases(&self) -> Phases {
        match self.counts_statuses || self.counts_bytes || self.times {
            true => Phases::LOG.with(Phases::LOG_SESSION),
            // Only the health of targets is asked for, which no request changes.
            false => Phases::NONE,
        }
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn log(&self, exchange: &Exchange) {
        let Some(route) = &exchange.route else {
            return;
        };
        let Some(series) = self.metrics.of_route(route) else {
            return;
        };
        let consumer = match self.per_consumer {
            true => exchange.identity.principal.as_ref(),
            false => None,
        };
        if self.counts_statuses {
            let by_service = exchange.response_source == ResponseSource::Upstream;
            if let Some(counter) =
                series.requests(&self.metrics, exchange.status, by_service, consumer)
            {
                counter.inc();
            }
        }
        if self.counts_bytes
            && let Some(bytes) = series.bandwidth(&self.metrics, consumer)
        {
            bytes.ingress.inc_by(exchange.request_bytes);
            bytes.egress.inc_by(exchange.response_bytes);
        }
        if self.times
            && let Some(latencies) = series.latencies(&self.metrics)
        {
            let timing = &exchange.timing;
            let ended = timing.ended.unwrap_or_else(Instant::now);
            let ours = timing.forwarded.or(timing.answered).unwrap_or(ended);
            let milliseconds = |from: Instant, to: Instant| {
                // Whole ones, as in the log entry.
                to.saturating_duration_since(from).as_millis() as f64
            };
            latencies
                .request
                .observe(milliseconds(exchange.started, ended));
            latencies.kong.observe(milliseconds(exchange.started, ours));
            if let (Some(forwarded), Some(answered)) = (timing.forwarded, timing.answered) {
                latencies
                    .upstream
                    .observe(milliseconds(forwarded, answered));
            }
        }
    }
    fn log_session(&self, session: &Session) {
        let Some(route) = &session.route else {
            return;
        };
        let Some(series) = self.metrics.of_route(route) else {
            return;
        };
        if self.counts_statuses {
            let by_service = session.connected.is_some();
            let status = session.status.as_u16();
            if let Some(counter) = series.sessions(&self.metrics, status, by_service) {
                counter.inc();
            }
        }
        let consumer = match self.per_consumer {
            true => session.identity.principal.as_ref(),
            false => None,
        };
        if self.counts_bytes
            && let Some(bytes) = series.bandwidth(&self.metrics, consumer)
        {
            bytes.ingress.inc_by(session.received);
            bytes.egress.inc_by(session.sent);
        }
        if self.times
            && let Some(duration) = series.duration(&self.metrics)
        {
            let ended = session.ended.unwrap_or_else(Instant::now);
            duration.observe(session.milliseconds_until(ended) as f64);
        }
    }
}

#[cfg(test)]
mod tests;
