#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value, json};

use super::*;
use crate::base::self_signed::{Algorithm, PemPair, SelfSigned};
use crate::dialects::kong::entity_set::testing::{NOW_SECONDS, World};

/// Creates, and expects these `fields` of a schema violation.
fn refused(world: &mut World, kind: EntityKind, given: Value, expected: Value) {
    let error = world.create(kind, given.clone()).unwrap_err();
    assert_eq!(
        error.fields.clone().map(Value::Object),
        Some(expected),
        "{kind} {given}: {error}"
    );
}

#[test]
fn a_service_is_shown_with_all_fields() {
    let mut world = World::new();
    let row = world
        .create(EntityKind::Service, json!({"host": "h.test"}))
        .unwrap();
    assert_eq!(
        &*row.json,
        r#"{"id":"00000000-0000-4000-8000-000000000001","created_at":1700000000,"updated_at":1700000000,"name":null,"retries":5,"protocol":"http","host":"h.test","port":80,"path":null,"connect_timeout":60000,"write_timeout":60000,"read_timeout":60000,"tags":null,"client_certificate":null,"tls_verify":null,"tls_verify_depth":null,"ca_certificates":null,"enabled":true}"#
    );
    row.parse::<Service>().unwrap();
}

#[test]
fn url_sets_protocol_host_port_and_path() {
    let mut world = World::new();
    for (url, expected) in [
        ("http://h.test", json!(["http", "h.test", 80, null])),
        (
            "https://h.test/a/b",
            json!(["https", "h.test", 443, "/a/b"]),
        ),
        ("http://h.test:9000/", json!(["http", "h.test", 9000, "/"])),
        ("tcp://h.test:443", json!(["tcp", "h.test", 443, null])),
        ("//h.test:443", json!(["https", "h.test", 443, null])),
        ("http://[::1]:8080/x?y", json!(["http", "::1", 8080, "/x"])),
        ("grpc://h.test", json!(["grpc", "h.test", 80, null])),
        ("ws://h.test/a", json!(["ws", "h.test", 80, "/a"])),
        ("wss://h.test", json!(["wss", "h.test", 443, null])),
    ] {
        let row = world
            .create(EntityKind::Service, json!({ "url": url }))
            .unwrap();
        let fields = row.fields();
        let shown = json!([
            fields["protocol"],
            fields["host"],
            fields["port"],
            fields["path"]
        ]);
        assert_eq!(shown, expected, "{url}");
    }
    for (url, expected) in [
        (
            json!("http://"),
            json!({"host": "required field missing", "url": "missing host in url"}),
        ),
        (
            json!("ftp://h"),
            json!({"protocol": "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp, ws, wss"}),
        ),
        (json!("http://a b"), json!({"host": "invalid value: a b"})),
    ] {
        refused(
            &mut world,
            EntityKind::Service,
            json!({ "url": url }),
            expected,
        );
    }
}

#[test]
fn service_rules() {
    let mut world = World::new();
    let conditional = "failed conditional validation given value of field 'protocol'";
    for (given, expected) in [
        (json!({}), json!({"host": "required field missing"})),
        (
            json!({"host": "h:80"}),
            json!({"host": "must not have a port"}),
        ),
        (
            json!({"host": "h", "port": 65536}),
            json!({"port": "value should be between 0 and 65535"}),
        ),
        (
            json!({"host": "h", "connect_timeout": 0}),
            json!({"connect_timeout": "value should be between 1 and 2147483646"}),
        ),
        (
            json!({"host": "h", "path": "x"}),
            json!({"path": "should start with: /"}),
        ),
        (
            json!({"host": "h", "protocol": "tcp", "path": "/"}),
            json!({"path": "value must be null", "@entity": [conditional]}),
        ),
        (
            json!({"host": "h", "tls_verify": true}),
            json!({"tls_verify": "value must be null", "@entity": [conditional]}),
        ),
        (
            json!({"host": "h", "name": "a/b"}),
            json!({"name": "invalid value 'a/b': the only accepted ascii characters are alphanumerics or ., -, _, and ~"}),
        ),
        (
            json!({"host": "h", "tags": ["a,b"]}),
            json!({"tags": ["invalid tag 'a,b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"]}),
        ),
        (
            json!({"host": "h", "nope": 1}),
            json!({"nope": "unknown field"}),
        ),
        (
            json!({"host": "h", "id": "x"}),
            json!({"id": "expected a valid UUID"}),
        ),
    ] {
        refused(&mut world, EntityKind::Service, given, expected);
    }
}

#[test]
fn route_rules() {
    let mut world = World::new();
    for (given, expected) in [
        (
            json!({"hosts": ["h"], "sources": [{"ip": "127.0.0.1"}]}),
            json!({"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"}),
        ),
        (
            json!({}),
            json!({"@entity": ["must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'"]}),
        ),
        (
            json!({"protocols": ["http"]}),
            json!({"@entity": ["must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'"]}),
        ),
        (
            json!({"protocols": ["grpc"]}),
            json!({"@entity": ["must set one of 'hosts', 'headers', 'paths' when 'protocols' is 'grpc'"]}),
        ),
        (
            json!({"protocols": ["grpcs"]}),
            json!({"@entity": ["must set one of 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'grpcs'"]}),
        ),
        (
            json!({"protocols": ["tcp"]}),
            json!({"@entity": ["must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp', 'tls' or 'udp'"]}),
        ),
        (
            json!({"protocols": ["tls_passthrough"]}),
            json!({"@entity": ["must set snis when 'protocols' is 'tls_passthrough'"]}),
        ),
        (
            json!({"protocols": ["grpc"], "paths": ["/"], "strip_path": true}),
            json!({"strip_path": "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"}),
        ),
        (
            json!({"protocols": ["grpc"], "paths": ["/"], "methods": ["GET"]}),
            json!({"methods": "cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'"}),
        ),
        (
            json!({"protocols": ["ws"]}),
            json!({"@entity": ["must set one of 'hosts', 'headers', 'paths' when 'protocols' is 'ws'"]}),
        ),
        (
            json!({"protocols": ["ws", "wss"], "paths": ["/"], "methods": ["GET"]}),
            json!({"methods": "cannot set 'methods' when 'protocols' is 'ws' or 'wss'"}),
        ),
        (
            json!({"protocols": ["tcp"], "sources": [{"port": 1}], "paths": ["/"]}),
            json!({"paths": "cannot set 'paths' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"}),
        ),
        (
            json!({"protocols": ["http", "tcp"], "hosts": ["h"]}),
            json!({"protocols": "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp'), ('tls_passthrough'), ('grpc', 'grpcs'), ('ws', 'wss')"}),
        ),
        (
            json!({"protocols": ["http"], "hosts": ["h"], "snis": ["h.test"]}),
            json!({
                "snis": "length must be 0",
                "@entity": ["'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"],
            }),
        ),
        (
            json!({"paths": ["x"]}),
            json!({"paths": ["should start with: / (fixed path) or ~/ (regex path)"]}),
        ),
        (
            json!({"paths": ["/a", "/a//b"]}),
            json!({"paths": [null, "must not have empty segments"]}),
        ),
        (
            json!({"paths": ["/a/../b"]}),
            json!({"paths": ["non-normalized path, consider use '/b' instead"]}),
        ),
        (
            json!({"paths": ["/a%2"]}),
            json!({"paths": ["invalid url-encoded value: '%2'"]}),
        ),
        (
            json!({"hosts": ["*.a.*"]}),
            json!({"hosts": ["invalid wildcard: must have at most one wildcard"]}),
        ),
        (
            json!({"hosts": ["a.*.b"]}),
            json!({"hosts": ["invalid wildcard: must be placed at leftmost or rightmost label"]}),
        ),
        (
            json!({"hosts": ["a.*:80"]}),
            json!({"hosts": ["invalid wildcard: must be placed at leftmost or rightmost label"]}),
        ),
        (
            json!({"headers": {"Host": ["h"]}}),
            json!({"headers": {"Host": "cannot contain 'host' header, which must be specified in the 'hosts' attribute"}}),
        ),
        (
            json!({"headers": {"X-V": ["a", "~*("]}}),
            json!({"headers": {"X-V": [null, "invalid regex: '(' (unclosed group)"]}}),
        ),
        (
            json!({"methods": ["get"]}),
            json!({"methods": ["invalid value: get"]}),
        ),
        (
            json!({"hosts": ["h"], "https_redirect_status_code": 303}),
            json!({"https_redirect_status_code": "expected one of: 426, 301, 302, 307, 308"}),
        ),
        (
            json!({"hosts": ["h"], "expression": "true"}),
            json!({"expression": "unknown field"}),
        ),
        (
            json!({"protocols": ["tcp"], "sources": [{}]}),
            json!({"sources": [{"@entity": ["at least one of these fields must be non-empty: 'ip', 'port'"]}]}),
        ),
    ] {
        refused(&mut world, EntityKind::Route, given, expected);
    }
    for given in [
        json!({"hosts": ["*.a.test:8080", "b.*"]}),
        json!({"paths": ["~/users/(?<id>\\d+)$", "/a%2Fb"]}),
        json!({"headers": {"X-V": ["~*^a", "b"]}}),
        json!({"protocols": ["https"], "snis": ["*.a.test"]}),
        json!({"protocols": ["tls_passthrough"], "snis": ["a.test"]}),
        json!({"protocols": ["udp"], "sources": [{"ip": "10.0.0.0/8", "port": 53}]}),
    ] {
        world
            .create(EntityKind::Route, given)
            .unwrap()
            .parse::<Route>()
            .unwrap();
    }
    let error = world
        .create(EntityKind::Route, json!({"paths": ["~/("]}))
        .unwrap_err();
    assert!(
        error
            .message
            .contains("invalid regex: '/(' (PCRE returned: "),
        "{error}"
    );
}

#[test]
fn the_original_router_knows_no_wildcards_in_snis() {
    let mut world = World::new();
    world.flavor = RouterFlavor::Traditional;
    refused(
        &mut world,
        EntityKind::Route,
        json!({"snis": ["a.test", "*.a.test"]}),
        json!({"snis": [null, "invalid value: *.a.test"]}),
    );
}

#[test]
fn grpc_routes_keep_their_paths() {
    let mut world = World::new();
    let row = world
        .create(
            EntityKind::Route,
            json!({"protocols": ["grpc"], "paths": ["/"]}),
        )
        .unwrap();
    assert!(!row.parse::<Route>().unwrap().strip_path);
}

#[test]
fn expressions_have_their_own_fields() {
    let mut world = World::new();
    world.flavor = RouterFlavor::Expressions;
    let row = world
        .create(
            EntityKind::Route,
            json!({"expression": "http.path ^= \"/a\"", "priority": 7}),
        )
        .unwrap();
    let route: Route = row.parse().unwrap();
    assert_eq!(route.priority, Some(7));
    let error = world
        .create(EntityKind::Route, json!({"expression": "http.path ^="}))
        .unwrap_err();
    assert!(
        error
            .message
            .contains("Router Expression failed validation: "),
        "{error}"
    );
    world
        .create(
            EntityKind::Route,
            json!({"paths": ["/"], "sources": [{"ip": "127.0.0.1"}]}),
        )
        .unwrap();
}

#[test]
fn consumer_rules() {
    let mut world = World::new();
    refused(
        &mut world,
        EntityKind::Consumer,
        json!({}),
        json!({"@entity": ["at least one of these fields must be non-empty: 'custom_id', 'username'"]}),
    );
    world
        .create(
            EntityKind::Consumer,
            json!({"username": "ann", "custom_id": "1"}),
        )
        .unwrap();
    let error = world
        .create(
            EntityKind::Consumer,
            json!({"username": "bob", "custom_id": "1"}),
        )
        .unwrap_err();
    assert_eq!(error.status(), 409);
    assert_eq!(
        error.message,
        "UNIQUE violation detected on '{custom_id=\"1\"}'"
    );
    let error = world
        .patch(
            EntityKind::Consumer,
            "ann",
            json!({"username": null, "custom_id": null}),
        )
        .unwrap_err();
    assert_eq!(
        error.message,
        "schema violation (when updating, at least one of these fields must be non-empty: 'custom_id', 'username')"
    );
}

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

#[test]
fn vault_key_and_sni_rules() {
    let mut world = World::new();
    for (kind, given, expected) in [
        (
            EntityKind::Vault,
            json!({"prefix": "env", "name": "env"}),
            json!({"prefix": "must not be one of: env"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "Env-1", "name": "env"}),
            json!({"prefix": "invalid value: Env-1"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "hcv"}),
            json!({"name": "vault 'hcv' is not installed"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "env", "config": {"x": 1}}),
            json!({"config": {"x": "unknown field"}}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1"}),
            json!({"@entity": ["at least one of these fields must be non-empty: 'jwk', 'pem'"]}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "jwk": "{\"kid\":\"2\",\"kty\":\"oct\"}"}),
            json!({"@entity": ["kid in jwk.kid must be equal to keys.kid"]}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "pem": {"public_key": "x"}}),
            json!({"pem": {"public_key": "could not load the public key: no public key found, expected PEM text with '-----BEGIN PUBLIC KEY-----'"}}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "pem": {}}),
            json!({"@entity": ["need to supply a PEM formatted public and/or private key."]}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "a.*.b"}),
            json!({"name": "wildcard must be leftmost or rightmost character", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "*.a.*"}),
            json!({"name": "only one wildcard must be specified", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "1.2.3.4"}),
            json!({"name": "must not be an IP", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "a.test:443"}),
            json!({"name": "must not have a port", "certificate": "required field missing"}),
        ),
    ] {
        refused(&mut world, kind, given, expected);
    }
    let row = world
        .create(
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "env", "config": {"prefix": "APP_"}}),
        )
        .unwrap();
    row.parse::<Vault>().unwrap();
    let set = world.id_of(EntityKind::KeySet, json!({"name": "set"}));
    let key = json!({"kid": "1", "jwk": "{\"kid\":\"1\",\"kty\":\"oct\"}", "set": {"id": set}});
    world
        .create(EntityKind::Key, key.clone())
        .unwrap()
        .parse::<Key>()
        .unwrap();
    assert_eq!(
        world.create(EntityKind::Key, key).unwrap_err().status(),
        409
    );
}

#[test]
fn credentials_are_completed() {
    let mut world = World::new();
    let consumer = world.id_of(EntityKind::Consumer, json!({"username": "ann"}));
    let link = json!({ "id": consumer });
    let row = world
        .create(EntityKind::KeyAuthCredential, json!({ "consumer": link }))
        .unwrap();
    let credential: KeyAuthCredential = row.parse().unwrap();
    assert_eq!(credential.key.len(), 32);

    let row = world
        .create(
            EntityKind::BasicAuthCredential,
            json!({"consumer": link, "username": "ann", "password": "secret"}),
        )
        .unwrap();
    let stored: BasicAuthCredential = row.parse().unwrap();
    let hash = BasicAuthCredential::hash("secret", &stored.consumer.id);
    assert_eq!(hash.len(), 40);
    assert_eq!(stored.password, hash);
    // Another field leaves the stored hash alone.
    let patched = world
        .patch(
            EntityKind::BasicAuthCredential,
            "ann",
            json!({"tags": ["x"]}),
        )
        .unwrap();
    assert_eq!(
        patched.parse::<BasicAuthCredential>().unwrap().password,
        hash
    );

    let acl = json!({"consumer": link, "group": "admins"});
    world
        .create(EntityKind::Acl, acl.clone())
        .unwrap()
        .parse::<Acl>()
        .unwrap();
    let error = world.create(EntityKind::Acl, acl).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "UNIQUE violation detected on '{{consumer={{id=\"{consumer}\"}},group=\"admins\"}}'"
        )
    );
}

fn made(algorithm: Algorithm, authority: bool, days: u32) -> PemPair {
    SelfSigned {
        algorithm,
        common_name: "a.test",
        dns_names: &["a.test"],
        addresses: &[],
        authority,
        not_before: NOW_SECONDS - 2 * 86_400,
        days,
    }
    .generate()
    .unwrap()
}

#[test]
fn certificate_rules() {
    let mut world = World::new();
    let first = made(Algorithm::EcdsaP256, false, 30);
    let second = made(Algorithm::EcdsaP256, false, 30);
    let third = made(Algorithm::Rsa2048, false, 30);
    for (given, message) in [
        (
            json!({"cert": first.certificate, "key": second.key}),
            "schema violation (certificate does not match key)",
        ),
        (
            json!({"cert": first.certificate, "key": first.key, "cert_alt": second.certificate}),
            "schema violation (all or none of these fields must be set: 'cert_alt', 'key_alt')",
        ),
        (
            json!({"cert": first.certificate, "key": first.key, "cert_alt": second.certificate, "key_alt": second.key}),
            "schema violation (certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), \
             the provided certificates were both of the same type)",
        ),
    ] {
        let error = world.create(EntityKind::Certificate, given).unwrap_err();
        assert_eq!(error.message, message);
    }
    let error = world
        .create(EntityKind::Certificate, json!({"cert": "x", "key": "y"}))
        .unwrap_err();
    assert!(
        error.message.contains("cert: invalid certificate: ")
            && error.message.contains("key: invalid key: "),
        "{error}"
    );
    for given in [
        json!({"cert": first.certificate, "key": first.key, "cert_alt": third.certificate, "key_alt": third.key}),
        json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}"}),
    ] {
        world
            .create(EntityKind::Certificate, given)
            .unwrap()
            .parse::<Certificate>()
            .unwrap();
    }
}

#[test]
fn authority_rules() {
    let mut world = World::new();
    let good = made(Algorithm::EcdsaP256, true, 30);
    let two = format!("{0}{0}", good.certificate);
    for (cert, message) in [
        (two, "please submit only one certificate at a time"),
        (
            made(Algorithm::EcdsaP256, true, 1).certificate,
            "certificate expired, \"Not After\" time is in the past",
        ),
        (
            made(Algorithm::EcdsaP256, false, 30).certificate,
            "certificate does not appear to be a CA because it is missing the \"CA\" basic constraint",
        ),
    ] {
        refused(
            &mut world,
            EntityKind::CaCertificate,
            json!({ "cert": cert }),
            json!({ "@entity": [message] }),
        );
    }
    let id = world.id_of(EntityKind::CaCertificate, json!({"cert": good.certificate}));
    let service = world.id_of(
        EntityKind::Service,
        json!({"host": "h", "protocol": "https", "ca_certificates": [id]}),
    );
    let error = world.delete(EntityKind::CaCertificate, &id).unwrap_err();
    assert_eq!(
        (error.code as u8, error.message),
        (
            19,
            format!("ca certificate {id} is still referenced by services (id = {service})")
        )
    );
}

#[test]
fn every_kind_has_a_definition_in_its_place() {
    for flavor in [
        RouterFlavor::Traditional,
        RouterFlavor::TraditionalCompatible,
        RouterFlavor::Expressions,
    ] {
        for (kind, definition) in EntityKind::ALL.iter().zip(EntityTable::of(flavor).iter()) {
            assert_eq!(definition.kind, *kind);
            assert_eq!(EntityKind::from_table(definition.table()), Some(*kind));
            for key in &definition.foreign_keys {
                assert!(key.parent < *kind, "{kind}: parents come first");
                assert!(definition.schema.field(key.field).is_some());
            }
            for set in &definition.unique_sets {
                for field in set.fields {
                    assert!(definition.schema.field(field).is_some(), "{kind} {field}");
                }
            }
        }
    }
}
