//! The status listener: what load balancers and Prometheus ask, and nothing that changes the configuration.

use std::sync::Arc;

use axum::Router;
use http::{Method, StatusCode};
use serde_json::Value;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::dispatch::{self, Front};
use super::guard::Guard;
use super::state::Admin;
use super::table::{Endpoint, Pending, Table};
use super::{status, upstreams};

/// The router of a status listener.
pub fn router(admin: Arc<Admin>, hostname: &str) -> Router {
    let mut endpoints = vec![
        Endpoint::at("/status").shows(
            "Show counters, memory and the serving revision",
            status::show,
        ),
        ready_endpoint().waits(Method::POST, "Stop being ready", drain),
    ];
    endpoints.extend(status::metrics_endpoints());
    endpoints.extend(status::dns_endpoints());
    if admin.is_db_less() {
        endpoints.extend(upstreams::reading_endpoints());
        endpoints.extend(upstreams::target_endpoints());
    }
    let guard = Guard {
        // Monitoring scrapes under names that nobody told us, and only reads.
        any_host: true,
        ..Guard::new(hostname)
    };
    let front = Front {
        admin,
        table: Table::new(endpoints),
        guard,
    };
    dispatch::router(front, Router::new())
}

/// `GET /status/ready`.
pub(super) fn ready_endpoint() -> Endpoint {
    Endpoint::at("/status/ready").shows("Tell whether traffic may come", ready)
}

fn ready(admin: &Admin, _: &Call) -> Outcome {
    // Kong: a node that was given nothing to serve must not get traffic.
    let readiness = match admin.node.readiness() {
        Ok(()) if admin.is_db_less() && !admin.loaded.is_any() => {
            Err("no configuration available (empty configuration present)")
        }
        readiness => readiness,
    };
    match readiness {
        Ok(()) => Ok(Answer::message(StatusCode::OK, "ready")),
        Err(reason) => Err(Answer::message(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

fn drain(admin: Arc<Admin>, call: Call) -> Pending {
    Box::pin(async move {
        let fields = call.fields().await?;
        match fields.values.get("status").and_then(Value::as_str) {
            Some("draining") => {
                admin.node.drain();
                Ok(Answer::no_content())
            }
            _ => Err(Answer::bad_request("expected 'status' to be 'draining'")),
        }
    })
}
