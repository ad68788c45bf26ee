//! Services.

use serde_json::json;

use super::refused;
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::World;

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
