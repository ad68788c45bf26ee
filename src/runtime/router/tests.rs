//! Single cases of the router; `random.rs` compares it with a naive loop.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod random;

use http::HeaderMap;

use super::{LinkError, MatchInput, Router};
use crate::model::route::{
    ExpressionText, HeaderCondition, MatcherPlan, PathCondition, Protocol, ValuePattern,
};
use random::Request;

fn matcher(edit: impl FnOnce(&mut MatcherPlan)) -> MatcherPlan {
    let mut plan = MatcherPlan::default();
    edit(&mut plan);
    plan
}

fn request(host: &str, path: &str) -> Request {
    Request {
        protocol: Protocol::Http,
        method: "GET".to_owned(),
        host: host.to_owned(),
        port: None,
        path: path.to_owned(),
        headers: Vec::new(),
        header_count_max: 100,
        sni: None,
        source: "127.0.0.1:1".parse().unwrap(),
        listening_port: 8000,
    }
}

#[test]
fn long_keys_are_checked_in_full() {
    let long = format!("/{}", "a".repeat(400));
    let mut router = Router::default();
    router
        .insert(
            1,
            &matcher(|plan| plan.paths = PathCondition::Prefixes(vec![long.clone()])),
        )
        .unwrap();
    assert_eq!(
        request("h", &format!("{long}/x")).find(&router),
        Some((1, Some(401)))
    );
    assert_eq!(request("h", &long[..400]).find(&router), None);
}

#[test]
fn captures_of_the_winner() {
    let mut router = Router::default();
    let regexes = vec![
        r"^/never".to_owned(),
        r"^/(?<tenant>[a-z]+)/(\d+)(x)?".to_owned(),
    ];
    router
        .insert(
            7,
            &matcher(|plan| plan.paths = PathCondition::Regexes(regexes)),
        )
        .unwrap();
    router
        .insert(
            8,
            &matcher(|plan| {
                plan.precedence.rank = 1;
                let text = r##"lower(http.path) ~ r#"^/shout/(?<word>[a-z]+)"#"##.to_owned();
                plan.expression = Some(ExpressionText {
                    text,
                    stream: false,
                });
            }),
        )
        .unwrap();
    let headers = HeaderMap::new();
    let input = |path: &'static str| MatchInput {
        protocol: Protocol::Http,
        method: "GET",
        host: "h",
        path: path.as_bytes(),
        query: b"",
        headers: (&headers).into(),
        header_count_max: 100,
        query_count_max: 100,
        sni: None,
        source: None,
        destination: None,
        listening_port: 80,
        entrance: None,
    };
    let found = router.find(&input("/acme/42/rest")).unwrap();
    let captures = found.path.captures(b"/acme/42/rest");
    assert_eq!((found.slot, found.path.length()), (7, Some(8)));
    assert_eq!(captures.find("tenant"), Some(b"acme".as_slice()));
    assert_eq!(captures.find("1"), Some(b"acme".as_slice()));
    assert_eq!(captures.find("2"), Some(b"42".as_slice()));
    assert_eq!(captures.find("3"), None);
    let found = router.find(&input("/Shout/LOUD")).unwrap();
    assert_eq!(found.slot, 8);
    assert_eq!(
        found.path.captures(b"/Shout/LOUD").find("word"),
        Some(b"loud".as_slice())
    );
}

#[test]
fn errors_change_nothing() {
    let mut router = Router::default();
    let fine = matcher(|plan| plan.methods = vec!["GET".to_owned()]);
    router.insert(1, &fine).unwrap();
    for (plan, message) in [
        (
            matcher(|plan| plan.paths = PathCondition::Regexes(vec!["^/(".to_owned()])),
            "invalid path regex '^/(': unclosed group",
        ),
        (
            matcher(|plan| {
                plan.headers = vec![HeaderCondition {
                    name: "x".to_owned(),
                    dashes_alike: false,
                    values: vec![ValuePattern::Regex("[".to_owned())],
                }];
            }),
            "invalid regex '[' for the header 'x': unclosed character class",
        ),
        (
            matcher(|plan| {
                plan.headers = vec![HeaderCondition {
                    name: "x y".to_owned(),
                    dashes_alike: false,
                    values: Vec::new(),
                }];
            }),
            "'x y' is not a header name",
        ),
        (
            matcher(|plan| {
                plan.expression = Some(ExpressionText {
                    text: "http".to_owned(),
                    stream: false,
                })
            }),
            "invalid expression: Unknown LHS field (line 1, column 1)",
        ),
    ] {
        let error: LinkError = router
            .replace(1, &[fine.clone(), plan.clone()])
            .unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(request("h", "/").find(&router), Some((1, None)));
        let (built, errors) =
            Router::build([(1, [plan].as_slice()), (2, std::slice::from_ref(&fine))]);
        assert_eq!((built.len(), errors.len()), (1, 1));
    }
}
