//! Upstreams and their targets.

use serde_json::json;

use super::refused;
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::World;

#[test]
fn upstream_rules() {
    let mut world = World::new();
    let on = "failed conditional validation given value of field 'hash_on'";
    for (given, expected) in [
        (
            json!({"name": "1.2.3.4"}),
            json!({"name": "Invalid name ('1.2.3.4'); no ip addresses allowed"}),
        ),
        (
            json!({"name": "u:80"}),
            json!({"name": "Invalid name ('u:80'); no port allowed"}),
        ),
        (
            json!({"name": "a b"}),
            json!({"name": "Invalid name ('a b'); must be a valid hostname"}),
        ),
        (
            json!({"name": "u", "slots": 9}),
            json!({"slots": "value should be between 10 and 65536"}),
        ),
        (
            json!({"name": "u", "hash_on": "header"}),
            json!({"hash_on_header": "required field missing", "@entity": [on]}),
        ),
        (
            json!({"name": "u", "hash_on": "none", "hash_fallback": "ip"}),
            json!({"hash_fallback": "expected one of: none", "@entity": [on]}),
        ),
        (
            json!({"name": "u", "hash_on": "ip", "hash_fallback": "ip"}),
            json!({
                "hash_fallback": "expected one of: none, consumer, header, cookie, path, query_arg, uri_capture",
                "@entity": [on],
            }),
        ),
        (
            json!({"name": "u", "hash_on": "header", "hash_fallback": "header", "hash_on_header": "A", "hash_fallback_header": "A"}),
            json!({"@entity": ["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"]}),
        ),
        (
            json!({"name": "u", "healthchecks": {"active": {"healthy": {"successes": 256}}}}),
            json!({"healthchecks": {"active": {"healthy": {"successes": "value should be between 0 and 255"}}}}),
        ),
    ] {
        refused(&mut world, EntityKind::Upstream, given, expected);
    }
    let row = world
        .create(EntityKind::Upstream, json!({"name": "u"}))
        .unwrap();
    assert_eq!(
        row.fields()["healthchecks"],
        json!({
            "active": {
                "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/", "https_sni": null,
                "https_verify_certificate": true, "headers": null,
                "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
                "unhealthy": {
                    "interval": 0, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                    "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
                },
            },
            "passive": {
                "type": "http",
                "healthy": {
                    "http_statuses": [
                        200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308,
                    ],
                    "successes": 0,
                },
                "unhealthy": {"http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
            },
            "threshold": 0,
        })
    );
    row.parse::<Upstream>().unwrap();
}

#[test]
fn algorithm_and_hash_follow_each_other() {
    let mut world = World::new();
    world
        .create(EntityKind::Upstream, json!({"name": "u", "hash_on": "ip"}))
        .unwrap();
    for (patch, algorithm, hash_on) in [
        (json!({"slots": 100}), "consistent-hashing", "ip"),
        (json!({"hash_on": "none"}), "round-robin", "none"),
        (json!({"hash_on": "path"}), "consistent-hashing", "path"),
    ] {
        let row = world
            .patch(EntityKind::Upstream, "u", patch.clone())
            .unwrap();
        let upstream: Upstream = row.parse().unwrap();
        assert_eq!(
            (upstream.algorithm.as_str(), upstream.hash_on.as_str()),
            (algorithm, hash_on),
            "{patch}"
        );
    }
}

#[test]
fn upstreams_take_every_algorithm_and_check() {
    let mut world = World::new();
    for algorithm in ["least-connections", "latency", "sticky-sessions"] {
        let given = json!({
            "name": algorithm, "algorithm": algorithm, "sticky_sessions_cookie": "c",
            "healthchecks": {
                "active": {"type": "grpcs", "healthy": {"interval": 5.5}},
                "passive": {"type": "tcp", "unhealthy": {"timeouts": 1}},
                "threshold": 50.5,
            },
        });
        let row = world.create(EntityKind::Upstream, given).unwrap();
        let upstream: Upstream = row.parse().unwrap();
        assert_eq!(upstream.algorithm, algorithm);
        assert_eq!(upstream.sticky_sessions_cookie_path.as_deref(), Some("/"));
    }
    refused(
        &mut world,
        EntityKind::Upstream,
        json!({"name": "u", "algorithm": "sticky-sessions"}),
        json!({
            "@entity": ["failed conditional validation given value of field 'algorithm'"],
            "sticky_sessions_cookie": "required field missing",
        }),
    );
}

#[test]
fn targets_are_stored_in_normal_form() {
    let mut world = World::new();
    let upstream = world.id_of(EntityKind::Upstream, json!({"name": "u"}));
    let link = json!({ "id": upstream });
    for (given, stored) in [
        ("A.Test", "a.test:8000"),
        ("1.2.3.4:80", "1.2.3.4:80"),
        ("::1", "[::1]:8000"),
        ("[2001:db8:0::1]:9", "[2001:db8::1]:9"),
    ] {
        let row = world
            .create(
                EntityKind::Target,
                json!({"target": given, "upstream": link}),
            )
            .unwrap();
        let target: Target = row.parse().unwrap();
        assert_eq!(target.target, stored);
        assert!((target.created_at - 1_700_000_000.25).abs() < 0.001);
    }
    refused(
        &mut world,
        EntityKind::Target,
        json!({"target": "a b", "upstream": link}),
        json!({"target": "Invalid target ('a b'); not a valid hostname or ip address"}),
    );
    let error = world
        .create(
            EntityKind::Target,
            json!({"target": "a.test:8000", "upstream": link}),
        )
        .unwrap_err();
    assert_eq!(error.status(), 409);
}
