#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn route(fields: Value) -> Route {
    let mut all = json!({
        "id": "00000000-0000-4000-8000-000000000001", "created_at": 1, "updated_at": 1,
        "protocols": ["http", "https"], "https_redirect_status_code": 426, "regex_priority": 0,
        "strip_path": true, "path_handling": "v0", "preserve_host": false,
        "request_buffering": true, "response_buffering": true,
    });
    all.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn compiled(fields: Value, flavor: RouterFlavor) -> Vec<MatcherPlan> {
    compile_matchers(&route(fields), flavor).unwrap()
}

fn greatest(fields: Value, flavor: RouterFlavor) -> Precedence {
    compiled(fields, flavor)
        .iter()
        .map(|plan| plan.precedence)
        .max()
        .unwrap()
}

const COMPATIBLE: RouterFlavor = RouterFlavor::TraditionalCompatible;
const TRADITIONAL: RouterFlavor = RouterFlavor::Traditional;
const EXPRESSIONS: RouterFlavor = RouterFlavor::Expressions;

#[test]
fn each_beats_the_next() {
    for (flavor, order) in [
        (
            COMPATIBLE,
            vec![
                json!({"methods": ["GET"], "hosts": ["a.com"], "headers": {"x": ["1"]}, "paths": ["/"]}),
                json!({"hosts": ["a.com"], "paths": ["~/a"]}),
                json!({"hosts": ["a.com"], "paths": ["/aaa"]}),
                json!({"hosts": ["a.com"], "paths": ["/a"]}),
                json!({"hosts": ["a.com"], "methods": ["GET"]}),
                json!({"headers": {"x": ["1"], "y": ["1"]}, "paths": ["/a"]}),
                json!({"headers": {"x": ["1"]}, "paths": ["/a"]}),
                json!({"hosts": ["*.a.com"], "paths": ["/a"]}),
                json!({"hosts": ["a.com", "b.com"]}),
                json!({"headers": {"x": ["1"]}}),
                json!({"paths": ["~/version/\\d+/status/\\d+"], "regex_priority": 6}),
                json!({"paths": ["~/status/\\d+"], "regex_priority": 0}),
                json!({"paths": ["~/a"], "regex_priority": -1}),
                json!({"paths": ["/version"]}),
                json!({"paths": ["/v"]}),
                json!({"methods": ["GET"]}),
            ],
        ),
        (
            TRADITIONAL,
            vec![
                json!({"methods": ["GET"], "hosts": ["a.com"], "headers": {"x": ["1"]}, "paths": ["/"]}),
                json!({"hosts": ["a.com"], "paths": ["~/a"]}),
                json!({"hosts": ["a.com"], "paths": ["/aaa"]}),
                json!({"hosts": ["a.com"], "paths": ["/a"]}),
                json!({"hosts": ["*.a.com"], "paths": ["~/a"]}),
                json!({"hosts": ["*.a.com"], "paths": ["/a"]}),
                json!({"hosts": ["a.com"], "methods": ["GET"]}),
                json!({"headers": {"x": ["1"], "y": ["1"]}, "paths": ["/a"]}),
                json!({"headers": {"x": ["1"]}, "paths": ["/a"]}),
                json!({"hosts": ["*.a.com:80"]}),
                json!({"hosts": ["a.com"]}),
                json!({"hosts": ["*.a.com"]}),
                json!({"headers": {"x": ["1"]}}),
                json!({"paths": ["~/version/\\d+/status/\\d+"], "regex_priority": 6}),
                json!({"paths": ["~/status/\\d+"], "regex_priority": 0}),
                json!({"paths": ["/version"]}),
                json!({"paths": ["/v"]}),
                json!({"methods": ["GET"]}),
                json!({"snis": ["a.com"]}),
            ],
        ),
        (
            EXPRESSIONS,
            vec![
                json!({"expression": "http.path == \"/\"", "priority": 70_368_744_177_663_u64}),
                json!({"expression": "http.path == \"/\"", "priority": 1}),
                json!({"expression": "http.path == \"/\""}),
                json!({"methods": ["GET"], "hosts": ["a.com"], "headers": {"x": ["1"]}, "paths": ["~/"], "snis": ["a"]}),
            ],
        ),
        (
            COMPATIBLE,
            vec![
                json!({"protocols": ["tls"], "snis": ["a.com"], "sources": [{"port": 1}]}),
                json!({"protocols": ["tls"], "snis": ["a.com"]}),
                json!({"protocols": ["tcp"], "sources": [{"ip": "1.1.1.1", "port": 1}]}),
                json!({"protocols": ["tcp"], "sources": [{"ip": "1.1.1.1"}]}),
                json!({"protocols": ["tcp"], "sources": [{"port": 1}]}),
                json!({"protocols": ["tcp"], "sources": [{"ip": "1.1.1.0/24"}]}),
                json!({"protocols": ["tcp"], "destinations": [{"ip": "1.1.1.1"}]}),
            ],
        ),
    ] {
        for pair in order.windows(2) {
            let (better, worse) = (
                greatest(pair[0].clone(), flavor),
                greatest(pair[1].clone(), flavor),
            );
            let better = (better.rank, better.detail);
            assert!(
                better > (worse.rank, worse.detail),
                "{flavor:?}: {} must beat {}",
                pair[0],
                pair[1]
            );
        }
    }
    let both_ends = json!({"protocols": ["tcp"], "sources": [{"ip": "1.0.0.0/8"}], "destinations": [{"port": 1}]});
    assert_eq!(greatest(both_ends, COMPATIBLE).rank, 1 << 61 | 1 << 4 | 4);
}

#[test]
fn equals_go_to_the_older_then_to_the_higher_id() {
    let of = |created_at: i64, id: u128| {
        let id = Uuid::from_u128(id);
        greatest(
            json!({"methods": ["GET"], "created_at": created_at, "id": id}),
            COMPATIBLE,
        )
    };
    assert!(of(1, 1) > of(2, 9));
    assert!(of(1, 9) > of(1, 1));
}

#[test]
fn paths_are_split() {
    let paths = json!({"paths": ["/a", "~/x/(?<id>\\d+)", "/bb", "/c", "~/y|/z"]});
    let shape = |flavor| -> Vec<PathCondition> {
        let mut plans = compiled(paths.clone(), flavor);
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.precedence));
        plans.into_iter().map(|plan| plan.paths).collect()
    };
    let prefixes = |texts: &[&str]| {
        PathCondition::Prefixes(texts.iter().map(|text| (*text).to_owned()).collect())
    };
    let regexes = |texts: &[&str]| {
        PathCondition::Regexes(texts.iter().map(|text| (*text).to_owned()).collect())
    };
    assert_eq!(
        shape(COMPATIBLE),
        [
            regexes(&["^/x/(?P<id>\\d+)", "^/y|/z"]),
            prefixes(&["/bb"]),
            prefixes(&["/a", "/c"])
        ]
    );
    assert_eq!(
        shape(TRADITIONAL),
        [
            regexes(&["(?-u)^(?:/x/(?<id>\\d+))"]),
            regexes(&["(?-u)^(?:/y|/z)"]),
            prefixes(&["/bb"]),
            prefixes(&["/a"]),
            prefixes(&["/c"])
        ]
    );
}

#[test]
fn header_patterns() {
    let fields = json!({"headers": {"X-Mode": ["Plain", "~*A\\d"], "x_one": ["~*B"], "none": []}});
    let shown =
        |flavor| serde_json::to_value(&compiled(fields.clone(), flavor)[0].headers).unwrap();
    assert_eq!(
        shown(COMPATIBLE),
        json!([
            {"name": "x-mode", "dashes_alike": true, "values": [{"plain": "plain"}, {"regex": "a\\d"}]},
            {"name": "x_one", "dashes_alike": true, "values": [{"regex": "b"}]},
        ])
    );
    assert_eq!(
        shown(TRADITIONAL),
        json!([
            {"name": "x-mode", "values": [{"plain": "plain"}, {"plain": "~*a\\d"}]},
            {"name": "x_one", "values": [{"regex": "(?-u)B"}]},
        ])
    );
}

#[test]
fn server_names() {
    let waived = |protocols: &[&str], flavor| -> Vec<Protocol> {
        compiled(json!({"protocols": protocols, "snis": ["a.com."]}), flavor)[0]
            .snis_waived_for
            .into()
    };
    assert_eq!(waived(&["http", "https"], COMPATIBLE), [Protocol::Http]);
    assert_eq!(waived(&["https"], COMPATIBLE), []);
    assert_eq!(waived(&["https"], TRADITIONAL), [Protocol::Http]);
    assert_eq!(waived(&["tls"], COMPATIBLE), []);
    assert_eq!(
        waived(&["tcp", "tls"], COMPATIBLE),
        [Protocol::Tcp, Protocol::Udp]
    );
    assert_eq!(waived(&["tcp", "tls"], TRADITIONAL), []);
    let plan = &compiled(json!({"snis": ["a.com.", "*.b.com"]}), COMPATIBLE)[0];
    assert_eq!(
        plan.snis,
        [
            NamePattern::Exact("a.com".to_owned()),
            NamePattern::Suffix(".b.com".to_owned())
        ]
    );
    let refusal = compile_matchers(
        &route(json!({"name": "r", "snis": ["*.b.com"]})),
        TRADITIONAL,
    )
    .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "route \"r\": 'snis' has the wildcard name '*.b.com', which the router flavour 'traditional' cannot match, \
         use a plain name, or the router flavour 'traditional_compatible'"
    );
}

#[test]
fn protocols_of_requests_matter_in_expressions_only() {
    for (protocols, expected) in [
        (vec!["http", "https"], vec![Protocol::Http, Protocol::Https]),
        (vec!["http"], vec![Protocol::Http]),
        (vec!["https"], vec![]),
        (vec!["grpc"], vec![Protocol::Http]),
        (vec!["grpcs"], vec![Protocol::Https]),
        (vec!["tls"], vec![Protocol::Tls]),
        (vec!["tls_passthrough"], vec![Protocol::Tls]),
        (vec!["tcp", "tls"], vec![Protocol::Tcp, Protocol::Tls]),
    ] {
        let fields = json!({"protocols": protocols, "expression": "net.src.port == 1"});
        let asked: Vec<Protocol> = compiled(fields.clone(), EXPRESSIONS)[0].protocols.into();
        assert_eq!(asked, expected, "{fields}");
        // Of streams they always do.
        let stream = asked.iter().any(|protocol| !protocol.is_http());
        let asked: Vec<Protocol> = compiled(json!({"protocols": protocols}), COMPATIBLE)[0]
            .protocols
            .into();
        assert_eq!(asked, if stream { expected } else { vec![] }, "{fields}");
    }
}

#[test]
fn addresses() {
    let fields = json!({"protocols": ["tcp"], "sources": [{"ip": "10.1.2.3/8", "port": 1}, {"ip": "fd00::1"}]});
    let shown = serde_json::to_value(&compiled(fields, COMPATIBLE)[0].sources).unwrap();
    assert_eq!(
        shown,
        json!([{"network": "10.0.0.0/8", "port": 1}, {"network": "fd00::1/128"}])
    );
    let bad = route(json!({"protocols": ["tcp"], "sources": [{"ip": "10.1"}]}));
    assert!(
        compile_matchers(&bad, COMPATIBLE)
            .unwrap_err()
            .message
            .contains("'10.1'")
    );
}
