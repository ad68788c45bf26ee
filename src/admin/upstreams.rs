//! `/upstreams/U/…` beyond the stored rows: the health of targets as this node sees it now.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud::{self, Parent};
use super::node::{ClusterHealth, EndpointHealth};
use super::state::Admin;
use super::table::{Endpoint, Handler};
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{EntitySet, Row};

/// The link from a target to its upstream.
const TARGETS: Parent = Parent {
    kind: EntityKind::Upstream,
    field: "upstream",
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = reading_endpoints();
    for (word, handler) in [
        ("healthy", set_healthy as fn(&Admin, &Call) -> Outcome),
        ("unhealthy", set_unhealthy),
    ] {
        let target = "/upstreams/{upstreams}/targets/{targets}";
        for path in [
            format!("{target}/{word}"),
            format!("{target}/{{address}}/{word}"),
        ] {
            endpoints.push(Endpoint::at(&path).on(
                Method::PUT,
                format!("Take a target's addresses for {word}, on this node"),
                Handler::Plain(handler),
            ));
        }
    }
    endpoints
}

/// What only reads, which a status listener offers too when there is no database.
pub(super) fn reading_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/upstreams/{upstreams}/health").shows(
            "Show the health of an upstream's targets on this node",
            health,
        ),
        Endpoint::at("/upstreams/{upstreams}/targets/all")
            .shows("List all targets of an upstream", |admin, call| {
                crud::list(admin, EntityKind::Target, Some(TARGETS), call)
            }),
    ]
}

/// The stored targets, for a status listener.
pub(super) fn target_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/upstreams/{upstreams}/targets")
            .shows("List the targets of an upstream", |admin, call| {
                crud::list(admin, EntityKind::Target, Some(TARGETS), call)
            }),
        Endpoint::at("/upstreams/{upstreams}/targets/{targets}").shows(
            "Show a target of an upstream",
            |admin, call| {
                let set = admin.control.kong();
                let (_, target) = find_target(&set, admin, call)?;
                Ok(Answer::json_text(
                    StatusCode::OK,
                    crud::render(&set, admin, target),
                ))
            },
        ),
    ]
}

fn find_target<'s>(
    set: &'s EntitySet,
    admin: &Admin,
    call: &Call,
) -> Result<(Uuid, &'s Row), Answer> {
    let upstream = crud::find_parent(set, admin, EntityKind::Upstream, call.key(0))?;
    let target = crud::find_child(
        set,
        admin,
        EntityKind::Target,
        call.key(1),
        TARGETS.field,
        upstream,
    )?;
    Ok((upstream, target.ok_or_else(Answer::not_found)?))
}

fn health(admin: &Admin, call: &Call) -> Outcome {
    let set = admin.control.kong();
    let upstream = crud::find_parent(&set, admin, EntityKind::Upstream, call.key(0))?;
    let health = admin.node.cluster_health(upstream).unwrap_or_default();
    let node_id = admin.node.identity().node_id;
    if call.switch("balancer_health") {
        return Ok(Answer::ok(&json!({
            "data": balancer_health(upstream, &health),
            "next": null,
            "node_id": node_id,
        })));
    }
    let data: Vec<Value> = set
        .children(EntityKind::Target, TARGETS.field, upstream)
        .map(|target| target_health(target, &health))
        .collect();
    Ok(Answer::ok(
        &json!({ "data": data, "next": null, "node_id": node_id }),
    ))
}

fn target_health(target: &Row, health: &ClusterHealth) -> Value {
    let mut fields = target.fields();
    let endpoint = health
        .endpoints
        .iter()
        .find(|endpoint| endpoint.id == target.id);
    fields.insert("health".into(), state(health, endpoint).into());
    fields.insert(
        "data".into(),
        match endpoint {
            Some(endpoint) => details(health, endpoint),
            // Written, but not yet serving on this node.
            None => json!({ "addresses": [] }),
        },
    );
    Value::Object(fields)
}

fn state(health: &ClusterHealth, endpoint: Option<&EndpointHealth>) -> &'static str {
    match endpoint {
        Some(endpoint) if endpoint.addresses.is_empty() => "DNS_ERROR",
        Some(endpoint) => {
            let mut addresses = endpoint.addresses.iter();
            word(health, addresses.any(|address| address.healthy))
        }
        None => "HEALTHCHECKS_OFF",
    }
}

/// Without checks an address can still be taken out by hand; then it says so.
fn word(health: &ClusterHealth, healthy: bool) -> &'static str {
    match (healthy, health.checked) {
        (false, _) => "UNHEALTHY",
        (true, true) => "HEALTHY",
        (true, false) => "HEALTHCHECKS_OFF",
    }
}

fn details(health: &ClusterHealth, endpoint: &EndpointHealth) -> Value {
    let total: u64 = endpoint
        .addresses
        .iter()
        .map(|address| u64::from(address.weight))
        .sum();
    let available: u64 = endpoint
        .addresses
        .iter()
        .filter(|address| address.healthy)
        .map(|address| u64::from(address.weight))
        .sum();
    let addresses: Vec<Value> = endpoint
        .addresses
        .iter()
        .map(|address| {
            json!({
                "ip": address.address.ip().to_string(),
                "port": address.address.port(),
                "weight": address.weight,
                "health": word(health, address.healthy),
            })
        })
        .collect();
    json!({
        "host": endpoint.host,
        "port": endpoint.port,
        "dns": endpoint.dns,
        "nodeWeight": endpoint.weight,
        "weight": { "total": total, "available": available, "unavailable": total - available },
        "addresses": addresses,
    })
}

fn balancer_health(upstream: Uuid, health: &ClusterHealth) -> Value {
    let mut totals = Map::new();
    let hosts: Vec<Value> = health
        .endpoints
        .iter()
        .map(|endpoint| details(health, endpoint))
        .collect();
    for field in ["total", "available", "unavailable"] {
        let sum: u64 = hosts
            .iter()
            .filter_map(|host| host.get("weight")?.get(field)?.as_u64())
            .sum();
        totals.insert(field.into(), sum.into());
    }
    json!({
        "id": upstream,
        "health": word(health, health.healthy),
        "balancer_health": if health.healthy { "HEALTHY" } else { "UNHEALTHY" },
        "details": { "healthy": health.healthy, "weight": totals, "hosts": hosts },
    })
}

fn set_healthy(admin: &Admin, call: &Call) -> Outcome {
    set_health(admin, call, true)
}

fn set_unhealthy(admin: &Admin, call: &Call) -> Outcome {
    set_health(admin, call, false)
}

fn set_health(admin: &Admin, call: &Call, healthy: bool) -> Outcome {
    let set = admin.control.kong();
    let (upstream, target) = find_target(&set, admin, call)?;
    let address: Option<SocketAddr> = match call.keys.get(2) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Answer::bad_request(&format!("'{text}' is not an address and port (IP:PORT)"))
        })?),
    };
    match admin.node.set_health(upstream, target.id, address, healthy) {
        Ok(()) => Ok(Answer::no_content()),
        Err(reason) => Err(Answer::bad_request(&reason)),
    }
}
