#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::super::variables::{Fixed, MessageHandle};
use super::*;

fn variables() -> Fixed {
    Fixed::of([
        ("request.verb", "GET".into()),
        ("request.path", "/v1/items/4".into()),
        ("proxy.pathsuffix", "/items/4".into()),
        ("request.header.Content-Type", "text/xml".into()),
        ("request.header.help!me", "yes".into()),
        ("response.status.code", 400.into()),
        ("ratelimit.Q.exceed.count", "3".into()),
        ("yes", true.into()),
        ("no", false.into()),
        ("yes.text", "True".into()),
        ("empty", "".into()),
        ("ten", 10.into()),
        ("nine", "9".into()),
        ("half", 0.5.into()),
        ("long", 5_000_000_000_i64.into()),
        ("pattern", "/items/*".into()),
        ("regex", "[A-Z]+".into()),
        ("broken.regex", "(".into()),
        ("quoted", "a'b".into()),
        ("message", Value::Message(MessageHandle(1))),
        ("object", Value::Object(std::sync::Arc::new(()))),
        ("is.error", false.into()),
        ("order", "x".into()),
    ])
}

/// One line each: `true` or `false`, then the condition.
const CASES: &str = r#"
true
true  request.verb = "GET"
true  request.verb="GET"
true  request.verb=="GET"
true  request.verb == "GET"
true  request.verb Equals "GET"
true  request.verb EQUALS "GET"
true  request.verb is "GET"
true  request.verb Is "GET"
false request.verb = "get"
true  request.verb := "get"
true  request.verb EqualsCaseInsensitive "get"
false request.verb := "put"
false request.verb != "GET"
true  request.verb != "POST"
true  request.verb!="POST"
true  request.verb NotEquals "POST"
true  request.verb IsNot "POST"
true  request.verb isnot "POST"
true  request.verb is not "POST"
true  request.verb = "GET" and response.status.code = 400
true  request.verb = "GET" && response.status.code = 400
true  request.verb="GET"&&response.status.code=400
true  (request.verb="GET")and(response.status.code=400)
false request.verb = "GET" and response.status.code = 401
true  request.verb = "POST" or response.status.code = 400
true  request.verb = "POST" || response.status.code = 400
true  request.verb = "GET" or x = "1" and x = "2"
false (request.verb = "GET" or x = "1") and x = "2"
true  x = "1" and x = "2" or request.verb = "GET"
false x = "1" and (x = "2" or request.verb = "GET")
true  request.verb = "GET" AND (proxy.pathsuffix MatchesPath "/items/*")
true  not request.verb = "POST"
true  Not (request.verb = "POST")
true  !request.verb = "POST"
true  !(request.verb = "POST")
true  !(request.verb = "POST" or request.verb = "PUT")
true  !!(request.verb = "GET")
true  not not yes
true  not no and yes
false !(yes) or no
true  response.status.code = 400
true  response.status.code = "400"
false response.status.code = "400.0"
true  response.status.code = 400.0
true  response.status.code == 400L
true  response.status.code == 400f
true  response.status.code == 400d
true  response.status.code == 4E2d or yes
true  response.status.code > 399
true  response.status.code GreaterThan 399
true  response.status.code >= 400
true  response.status.code GreaterThanOrEquals 400
false response.status.code > 400
true  response.status.code < 500
true  response.status.code LesserThan 500
true  response.status.code <= 400
true  response.status.code LesserThanOrEquals 400
true  response.status.code >= 400 and response.status.code < 500
true  response.status.code > "399"
true  ratelimit.Q.exceed.count GreaterThan "0"
true  ratelimit.Q.exceed.count > 2
true  ten > nine
true  nine < ten
true  nine < "10"
true  "b" > "a"
false "9" > "10"
true  "x9" > "x10"
true  half < 1
true  half = 0.5
true  half > -1
true  long > 4000000000
true  long = 5000000000
true  -5 < 0
true  yes
false no
true  yes.text
false empty
false request.verb
false unset
true  true
false false
false null
true  yes = true
true  yes = "true"
true  yes is true
true  yes = "TRUE"
true  yes.text = true
true  no = false
false no = true
true  no != true
true  is.error = false
true  is.error == "false"
false yes = 1
true  unset = null
true  unset == null
true  unset is null
true  unset Equals null
false unset != null
false unset IsNot null
false request.verb = null
true  request.verb != null
true  request.verb IsNot null
true  request.verb is not null
false empty = null
true  empty != null
true  empty = ""
true  null = null
true  null := null
true  unset := unset2
false null =| null
false null != null
false unset = "a"
true  unset != "a"
true  "a" != unset
false unset := "a"
false unset =| "a"
false "a" =| unset
true  unset > 1
false 1 > unset
false unset > unset2
false unset >= 1
true  1 >= unset
true  unset >= unset2
false unset < 1
true  1 < unset
false unset < unset2
true  unset <= 1
false 1 <= unset
true  unset <= unset2
false unset ~ "*"
false unset ~~ ".*"
false unset ~/ "/**"
true  unset !~ "*"
false "a" !~ unset
false unset !~ unset2
false "a" ~ unset
false "a" ~~ unset
false "a" ~/ unset
false unset MatchesPath "/**"
false unset JavaRegex ".*"
false unset StartsWith "a"
true  proxy.pathsuffix MatchesPath "/items/*"
true  proxy.pathsuffix matchespath "/items/*"
true  proxy.pathsuffix MATCHESPATH "/items/{id}"
true  proxy.pathsuffix LikePath "/items/**"
true  proxy.pathsuffix ~/ "/*/4"
true  proxy.pathsuffix~/"/*/4"
false proxy.pathsuffix MatchesPath "/items"
true  proxy.pathsuffix MatchesPath "/items/4/"
true  proxy.pathsuffix MatchesPath pattern
false proxy.pathsuffix not MatchesPath "/items/*"
true  proxy.pathsuffix not MatchesPath "/other"
true  not proxy.pathsuffix MatchesPath "/other"
true  request.path Matches "/v?/*" or yes
true  request.path Matches "/v1/*"
true  request.path matches "*items*"
true  request.path Like "*4"
true  request.path ~ "*4"
false request.path ~ "*5"
true  request.path !~ "*5"
false request.path !~ "*4"
true  request.path Matches "/v1*4"
true  request.path =| "/v1"
true  request.path StartsWith "/v1"
true  request.path startswith "/v1"
true  request.path=|"/v1"
false request.path =| "/V1"
false request.path not StartsWith "/v1"
true  request.path ~~ "/v[0-9]+/items/\d"
true  request.path JavaRegex "/v[0-9]+/.*"
false request.path ~~ "/v[0-9]+"
true  request.path ~~ "(?i)/V1/.*"
true  request.verb ~~ "(GET|POST)"
false request.verb ~~ "(get|post)"
true  request.verb ~~ regex
false request.verb ~~ broken.regex
false request.verb ~~ "G"
true  request.verb ~~ "(?!POST).*"
true  'request.header.help!me' = "yes"
true  'request.verb' = 'request.verb'
false request.verb = 'GET'
true  'GET' = null
true  request.header.Content-Type = "text/xml"
true  request.header.Content-Type="text/xml"
true  quoted = "a'b"
true  "GET" = request.verb
true  "a" = "a"
true  1 = 1
true  1 = "1"
true  1 = 1.0
false 1 = 2
true  order = "x"
true  andy = null
true  nothing = null
true  isolated = null or no
true  object != "x"
false object = "[object Object]"
false object > 1
true  message =| "bod"
true  message ~ "b*y"
true  ((((request.verb = "GET"))))
true  yes and yes and yes and not no
false yes and yes and no
true  no or no or yes
true  yes Or no And no
true  !no&&!no
"#;

#[test]
fn evaluates_the_table() {
    let variables = variables();
    let mut count = 0;
    for line in CASES.lines().skip(1) {
        let (expected, text) = line.split_once(' ').unwrap_or((line, ""));
        let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            condition.evaluate(&variables).unwrap().to_string(),
            expected,
            "{text}"
        );
        assert_eq!(condition.text(), text.trim());
        // White space does not matter, nor do parentheses around the whole.
        let spread = format!("\n\t ( {text}\r\n ) ");
        if !text.trim().is_empty() {
            let spread =
                Condition::parse(&spread).unwrap_or_else(|error| panic!("{spread}: {error}"));
            assert_eq!(
                spread.evaluate(&variables).unwrap().to_string(),
                expected,
                "{text}"
            );
            let negated = Condition::parse(&format!("not ({text})")).unwrap();
            assert_ne!(
                negated.evaluate(&variables).unwrap().to_string(),
                expected,
                "not {text}"
            );
        }
        count += 1;
    }
    assert!(count > 180, "{count}");
}

#[test]
fn reads_conditions_over_several_lines() {
    let text = "(request.verb = \"GET\") and\n   (proxy.pathsuffix\n MatchesPath \"/items/*\")\n";
    assert!(
        Condition::parse(text)
            .unwrap()
            .evaluate(&variables())
            .unwrap()
    );
    for blank in ["", "  ", "\n\t"] {
        assert!(
            Condition::parse(blank)
                .unwrap()
                .evaluate(&variables())
                .unwrap()
        );
    }
}

#[test]
fn errors_tell_the_place() {
    let cases = [
        ("request.verb =", 1, 15, "is expected, not the end"),
        ("request.verb = \"GET", 1, 16, "\" is not closed"),
        ("a = 'b", 1, 5, "' is not closed"),
        ("(a = \"1\"", 1, 9, "')' is expected"),
        ("a = \"1\")", 1, 8, "')' closes nothing"),
        ("a = \"1\"\n  b = \"2\"", 2, 3, "'and', 'or' or the end"),
        ("a and\nor b", 2, 1, "is expected, not 'or'"),
        ("= \"x\"", 1, 1, "is expected"),
        ("a & b", 1, 3, "'&' does not belong"),
        ("a = \u{201C}x\u{201D}", 1, 5, "typographic"),
        ("a ~~ \"(\"", 1, 6, "regular expression"),
        ("a = ''", 1, 5, "not a variable"),
        ("a not b", 1, 7, "an operator is expected"),
        ("()", 1, 2, "is expected, not ')'"),
        ("a = 1.2.3", 1, 5, "not a number"),
        ("a = 99999999999999999999", 1, 5, "not a number"),
        ("ä = é =", 1, 7, ""),
        ("a = \"x\" and", 1, 12, "the end"),
        ("a = \"\" b\" ", 1, 8, ""),
    ];
    for (text, line, column, part) in cases {
        let error = Condition::parse(text).expect_err(text);
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{text}: {error}"
        );
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn has_limits() {
    let deep = format!(
        "{}a{}",
        "(".repeat(DEPTH_MAX + 1),
        ")".repeat(DEPTH_MAX + 1)
    );
    assert!(
        Condition::parse(&deep)
            .unwrap_err()
            .message
            .contains("deeper")
    );
    assert!(Condition::parse(&"!".repeat(100_000)).is_err());
    let wide = vec!["a"; COMPARISONS_MAX + 1].join(" or ");
    assert!(
        Condition::parse(&wide)
            .unwrap_err()
            .message
            .contains("comparisons")
    );
    assert!(Condition::parse(&" a".repeat(BYTES_MAX)).is_err());
    let slow = Condition::parse(r#"x ~~ "(a*)*\1b""#).unwrap();
    let slow_text = Fixed(std::collections::HashMap::from([(
        "x",
        "a".repeat(5000).into(),
    )]));
    assert!(slow.evaluate(&slow_text).is_err());
}

#[test]
fn names_its_variables() {
    let condition = Condition::parse(r#"a.b = c and (not d or 'e f' ~~ "x")"#).unwrap();
    let names: Vec<_> = condition
        .variables()
        .into_iter()
        .map(VariableName::as_str)
        .collect();
    assert_eq!(names, ["a.b", "c", "d", "e f"]);
}

#[test]
fn obeys_the_laws_of_logic() {
    use proptest::prelude::*;
    let leaf = prop::sample::select(vec![
        "yes",
        "no",
        "unset",
        "request.verb = \"GET\"",
        "ten > 11",
    ])
    .prop_map(str::to_owned);
    let tree = leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("({one}) and ({two})")),
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("({one}) || ({two})")),
            inner.prop_map(|one| format!("not ({one})")),
        ]
    });
    let variables = variables();
    let value = |text: &str| {
        Condition::parse(text)
            .unwrap()
            .evaluate(&variables)
            .unwrap()
    };
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&(tree.clone(), tree), |(one, two)| {
            let (a, b) = (value(&one), value(&two));
            prop_assert_eq!(value(&format!("({one}) and ({two})")), a && b);
            prop_assert_eq!(value(&format!("({one}) or ({two})")), a || b);
            // De Morgan, through another path of the parser.
            prop_assert_eq!(value(&format!("!(!({one}) && !({two}))")), a || b);
            Ok(())
        })
        .unwrap();
}
