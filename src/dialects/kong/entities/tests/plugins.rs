//! Plugins.

use serde_json::{Value, json};

use super::refused;
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::World;

#[test]
fn plugin_rules() {
    let mut world = World::new();
    let service = world.id_of(EntityKind::Service, json!({"host": "h", "name": "s"}));
    let consumer = world.id_of(EntityKind::Consumer, json!({"username": "ann"}));
    for (given, expected) in [
        (
            json!({"name": "nope"}),
            json!({"name": "plugin 'nope' not enabled; add it to the 'plugins' configuration property"}),
        ),
        (
            json!({"name": "key-auth", "consumer": {"id": consumer}}),
            json!({"consumer": "value must be null"}),
        ),
        (
            json!({"name": "key-auth", "config": {"key_names": ["a:b"]}}),
            json!({"config": {"key_names": ["bad header name 'a:b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"]}}),
        ),
        (
            json!({"name": "key-auth", "config": {"nope": 1}}),
            json!({"config": {"nope": "unknown field"}}),
        ),
        (
            json!({"name": "rate-limiting"}),
            json!({"@entity": ["at least one of these fields must be non-empty: 'config.second', 'config.minute'"]}),
        ),
        (
            json!({"name": "key-auth", "protocols": ["http", "tcp"]}),
            json!({"protocols": [null, "expected one of: grpc, grpcs, http, https"]}),
        ),
    ] {
        refused(&mut world, EntityKind::Plugin, given, expected);
    }
    let row = world
        .create(
            EntityKind::Plugin,
            json!({"name": "rate-limiting", "config": {"minute": 5}, "service": {"name": "s"}}),
        )
        .unwrap();
    let plugin: Plugin = row.parse().unwrap();
    assert_eq!(
        Value::Object(plugin.config),
        json!({"second": null, "minute": 5, "policy": "local"})
    );
    assert_eq!(plugin.service.unwrap().id.to_string(), service);
    let error = world
        .create(
            EntityKind::Plugin,
            json!({"name": "rate-limiting", "config": {"minute": 6}, "service": {"id": service}}),
        )
        .unwrap_err();
    assert_eq!(error.status(), 409);
    assert_eq!(
        error.message,
        format!(
            "UNIQUE violation detected on '{{consumer=null,name=\"rate-limiting\",route=null,service={{id=\"{service}\"}}}}'"
        )
    );
    // A partial update keeps the rest of the configuration, and the protocols.
    let id = row.id.to_string();
    world
        .patch(EntityKind::Plugin, &id, json!({"protocols": ["http"]}))
        .unwrap();
    let patched = world
        .patch(EntityKind::Plugin, &id, json!({"config": {"second": 1}}))
        .unwrap();
    assert_eq!(
        patched.fields()["config"],
        json!({"second": 1, "minute": 5, "policy": "local"})
    );
    assert_eq!(patched.fields()["protocols"], json!(["http"]));
}

#[test]
fn plugins_share_a_protocol_with_what_they_run_on() {
    let mut world = World::new();
    let service = world.id_of(EntityKind::Service, json!({"host": "h"}));
    let route = world.id_of(
        EntityKind::Route,
        json!({"protocols": ["grpc"], "paths": ["/"], "service": {"id": service}}),
    );
    refused(
        &mut world,
        EntityKind::Plugin,
        json!({"name": "key-auth", "protocols": ["http"], "route": {"id": route}}),
        json!({"protocols": "must match the associated route's protocols"}),
    );
    refused(
        &mut world,
        EntityKind::Plugin,
        json!({"name": "key-auth", "protocols": ["http"], "service": {"id": service}}),
        json!({"protocols": "must match the protocols of at least one route pointing to this Plugin's service"}),
    );
    world
        .create(
            EntityKind::Plugin,
            json!({"name": "key-auth", "route": {"id": route}}),
        )
        .unwrap();
}
