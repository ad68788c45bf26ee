//! A transaction made by hand, for tests of policies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Place;
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::policies::test_support::read;
use crate::dialects::apigee::variables::VariableName;
use crate::plugins::apigee::flow::scope::{Entry, Inbound, Scope};
use crate::plugins::test_support;

/// A policy's configuration, read from its file.
pub(super) fn config<C: DeserializeOwned>(xml: &str) -> C {
    let (config, findings, _) = read(xml);
    assert!(
        !findings.iter().any(|finding| finding.is_error()),
        "{findings:#?}"
    );
    config.expect("a configuration")
}

/// In the request flow of `GET /shop/items/4?w=1&w=2` with the body `body`.
pub(crate) fn scope() -> Scope {
    let mut request = Message::request();
    request.path = "/shop/items/4".to_owned();
    request.query = Some("w=1&w=2".to_owned());
    request.add_header("Accept", "text/html, text/xml").unwrap();
    request.content = "body".into();
    scope_of(request)
}

/// In the request flow of a request under the base path `/shop`.
pub(super) fn scope_of(request: Message) -> Scope {
    scope_in(&test_support::World::new(), request)
}

/// The same among the principals of a world.
pub(super) fn scope_in(world: &test_support::World, request: Message) -> Scope {
    let exchange = world.exchange(test_support::Message::get("/shop"));
    let inbound = Inbound {
        snapshot: Arc::clone(&exchange.snapshot),
        connection: Arc::clone(&exchange.connection),
        client_certificate: None,
        client_address: exchange.client_address,
        secure: false,
        request_id: exchange.request_id.clone(),
        started: exchange.started,
        host: "gateway.test".into(),
    };
    let place = Place {
        organization: "o".to_owned(),
        environment: "e".to_owned(),
        proxy: "p".to_owned(),
        revision: 1,
        shared_flow: None,
    };
    let entry = Entry {
        endpoint: Arc::from("default"),
        base_path: "/shop".to_owned(),
        suffix: request
            .path
            .strip_prefix("/shop")
            .unwrap_or(&request.path)
            .to_owned(),
        configured_base_path: Arc::from("/shop"),
        virtual_host: Arc::from("default"),
        virtual_host_aliases: Arc::from(Vec::new()),
        virtual_host_tls: false,
    };
    Scope::new(Arc::new(place), Arc::new(inbound), entry, request)
}

/// A variable as text.
pub(crate) fn text(scope: &Scope, name: &str) -> Option<String> {
    scope
        .text(&VariableName::new(name))
        .map(|text| text.into_owned())
}
