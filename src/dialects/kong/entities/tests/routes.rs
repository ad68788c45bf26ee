//! Routes.

use serde_json::json;

use super::refused;
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::World;

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
