#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::plugins::test_support::{Message, World};

const FACTS: NodeFacts<'static> = NodeFacts {
    version: "3.10.0",
    datastore_reachable: true,
    timers: (1, 2),
    health_changes: Vec::new(),
};

fn page(world: &World) -> Vec<String> {
    expose(&world.live, &FACTS, || {
        vec![TargetHealth {
            upstream: "u".into(),
            target: "t:80".to_owned(),
            address: "192.0.2.1:80".to_owned(),
            state: HealthState::Healthy,
        }]
    })
    .lines()
    .filter(|line| !line.starts_with('#'))
    .map(str::to_owned)
    .collect()
}

fn has(page: &[String], line: &str) {
    assert!(page.iter().any(|seen| seen == line), "{line}\n{page:#?}");
}

fn served(world: &World) -> Exchange {
    let mut exchange = world.exchange(Message::get("/"));
    let at = |ms| Some(exchange.started + Duration::from_millis(ms));
    let (forwarded, answered, ended) = (at(3), at(63), at(70));
    exchange.timing.forwarded = forwarded;
    exchange.timing.answered = answered;
    exchange.timing.ended = ended;
    exchange.status = 200;
    exchange.request_bytes = 100;
    exchange.response_bytes = 1000;
    exchange.response_source = ResponseSource::Upstream;
    exchange
}

#[test]
fn counts_and_times() {
    let world = World::new().principal("alice", &[]);
    let plugin = world.link(
        entry(),
        json!({"per_consumer": true, "status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true}),
    );
    let mut exchange = served(&world);
    plugin.log(&exchange);
    world.authenticate(&mut exchange, "alice");
    plugin.log(&exchange);
    plugin.log(&exchange);
    exchange.route = None;
    plugin.log(&exchange);
    let page = page(&world);
    for line in [
        r#"kong_http_requests_total{code="200",consumer="",route="basket",service="shop",source="service",workspace="default"} 1"#,
        r#"kong_http_requests_total{code="200",consumer="alice",route="basket",service="shop",source="service",workspace="default"} 2"#,
        r#"kong_bandwidth_bytes{consumer="alice",direction="egress",route="basket",service="shop",workspace="default"} 2000"#,
        r#"kong_bandwidth_bytes{consumer="",direction="ingress",route="basket",service="shop",workspace="default"} 100"#,
        r#"kong_request_latency_ms_bucket{route="basket",service="shop",workspace="default",le="80"} 3"#,
        r#"kong_upstream_latency_ms_sum{route="basket",service="shop",workspace="default"} 180"#,
        r#"kong_kong_latency_ms_bucket{route="basket",service="shop",workspace="default",le="2"} 0"#,
        "kong_nginx_metric_errors_total 0",
    ] {
        has(&page, line);
    }
    // Not asked for.
    assert!(!page.iter().any(|line| line.contains("target_health")));
}

#[test]
fn tells_about_the_node_without_any_instance() {
    let world = World::new();
    let id = Uuid::nil();
    let node = world.live.node();
    node.traffic.connection_opened();
    node.traffic.connection_opened();
    node.traffic.request_began();
    let page = page(&world);
    for line in [
        "kong_datastore_reachable 1".to_owned(),
        format!(r#"kong_node_info{{node_id="{id}",version="3.10.0"}} 1"#),
        format!(
            r#"kong_nginx_connections_total{{node_id="{id}",state="active",subsystem="http"}} 2"#
        ),
        format!(
            r#"kong_nginx_connections_total{{node_id="{id}",state="waiting",subsystem="http"}} 1"#
        ),
        format!(r#"kong_nginx_requests_total{{node_id="{id}",subsystem="http"}} 1"#),
        r#"kong_nginx_timers{state="pending"} 2"#.to_owned(),
    ] {
        has(&page, &line);
    }
    assert!(!page.iter().any(|line| line.contains("requests_total{code")));
}

#[test]
fn shows_health_as_long_as_somebody_asks() {
    let world = World::new();
    let plugin = world.link(entry(), json!({"upstream_health_metrics": true}));
    assert_eq!(plugin.phases(), Phases::NONE);
    let line = |state: &str, value: u8| {
        format!(
            r#"kong_upstream_target_health{{address="192.0.2.1:80",state="{state}",subsystem="http",target="t:80",upstream="u"}} {value}"#
        )
    };
    let asked = page(&world);
    has(&asked, &line("healthy", 1));
    has(&asked, &line("dns_error", 0));
    drop(plugin);
    assert!(
        !page(&world)
            .iter()
            .any(|line| line.contains("target_health"))
    );
}

#[test]
fn refuses_what_it_does_not_have() {
    let world = World::new();
    for field in ["ai_metrics", "wasm_metrics"] {
        assert_eq!(
            world.refused(entry(), json!({field: true})),
            json!({"config": {field: "not supported by this version"}})
        );
    }
}
