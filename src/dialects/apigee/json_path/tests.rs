#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::*;
use serde_json::json;

fn store() -> Value {
    json!({
        "store": {
            "book": [
                {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
                {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
                {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3", "price": 8.99}
            ],
            "bicycle": {"color": "red", "price": 19.95}
        },
        "expensive": 10,
        "odd name": 1,
        "x-y": [1, [2, 3]],
        "nothing": null
    })
}

/// A path and the text of its result; `-` for nothing.
const CASES: &[(&str, &str)] = &[
    ("$.store.bicycle.color", "red"),
    ("$.store.book[0].title", "Sayings of the Century"),
    ("$.store.book.[0].title", "Sayings of the Century"),
    ("$['store']['book'][0]['title']", "Sayings of the Century"),
    (
        "$[\"store\"].bicycle",
        "{\"color\":\"red\",\"price\":19.95}",
    ),
    ("$.store.book[-1].title", "Moby Dick"),
    ("$.store.book[(@.length-1)].title", "Moby Dick"),
    (
        "$.store.book[*].author",
        "[\"Nigel Rees\",\"Evelyn Waugh\",\"Herman Melville\"]",
    ),
    (
        "$..author",
        "[\"Nigel Rees\",\"Evelyn Waugh\",\"Herman Melville\"]",
    ),
    ("$.store..price", "[8.95,12.99,8.99,19.95]"),
    ("$..book[2].title", "[\"Moby Dick\"]"),
    ("$..book[0,1].price", "[8.95,12.99]"),
    ("$..book[:2].price", "[8.95,12.99]"),
    ("$..book[-2:].price", "[12.99,8.99]"),
    ("$.store.book[0:3:2].price", "[8.95,8.99]"),
    ("$.store.book[?(@.isbn)].title", "[\"Moby Dick\"]"),
    ("$.store.book[?(@.price < 10)].price", "[8.95,8.99]"),
    (
        "$.store.book[?(@.price < $.expensive)].price",
        "[8.95,8.99]",
    ),
    (
        "$.store.book[?(@.category == 'fiction')].price",
        "[12.99,8.99]",
    ),
    (
        "$.store.book[?(@.category == \"fiction\" && @.price > 10)].price",
        "[12.99]",
    ),
    (
        "$.store.book[?(@.price > 12 || @.isbn)].price",
        "[12.99,8.99]",
    ),
    (
        "$.store.book[?(!(@.category == 'fiction'))].price",
        "[8.95]",
    ),
    ("$.store.book[?(!@.isbn)].price", "[8.95,12.99]"),
    ("$.store.book[?(@.author =~ /.*Rees/i)].price", "[8.95]"),
    ("$.store.book[?(@.author =~ /rees/)].price", "[]"),
    (
        "$.store.book[?(@.category in ['reference', 'poetry'])].price",
        "[8.95]",
    ),
    (
        "$.store.book[?(@.category nin ['fiction'])].price",
        "[8.95]",
    ),
    ("$.store.book[?(@.title contains 'Dick')].price", "[8.99]"),
    ("$.store.book.length()", "3"),
    ("$..book.length()", "1"),
    ("$.store.book[*].price.max()", "12.99"),
    ("$.store.bicycle.keys()", "[\"color\",\"price\"]"),
    ("$.expensive", "10"),
    ("$.nothing", "null"),
    ("$", "-whole"),
    ("$.odd name", "-error"),
    ("$['odd name']", "1"),
    ("$.x-y[1][0]", "2"),
    ("$['expensive','odd name']", "[10,1]"),
    ("$.missing", "-"),
    ("$.store.book[9]", "-"),
    ("$.store.book[9].x", "-"),
    ("$..missing", "[]"),
    ("$.missing[*]", "[]"),
    ("$.expensive.length()", "1"),
    ("store.bicycle.color", "red"),
    ("", "-error"),
    ("$.", "-error"),
    ("$[", "-error"),
    ("$[?(@.a", "-error"),
    ("$.a b", "-error"),
    ("$.a.nosuch()", "-error"),
    ("$['a", "-error"),
    ("$[?(@.a =~ /(/)]", "-error"),
];

#[test]
fn reads_the_table() {
    let store = store();
    for (path, expected) in CASES {
        let parsed = match JsonPath::parse(path) {
            Ok(parsed) => parsed,
            Err(error) => {
                assert_eq!(*expected, "-error", "{path}: {error}");
                assert!(error.contains("column"), "{error}");
                continue;
            }
        };
        match parsed.read(&store) {
            Ok(value) if *expected == "-whole" => assert_eq!(value, store),
            Ok(value) => assert_eq!(result_text(&value), *expected, "{path}"),
            Err(JsonPathError::Missing(_)) => assert_eq!(*expected, "-", "{path}"),
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

#[test]
fn spends_no_more_than_its_budget() {
    let list: Value = vec![json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]); 500].into();
    let path = JsonPath::parse("$..*..*..*..*..*[?($..*)]").unwrap();
    let document = json!({"a": list.clone(), "b": {"c": {"d": {"e": [list]}}}});
    assert!(matches!(path.read(&document), Err(JsonPathError::Limit(_))));
    assert!(JsonPath::parse(&format!("${}", "[?(@".repeat(100))).is_err());
    assert!(JsonPath::parse(&format!("$[?({}@.a)]", "!".repeat(2000))).is_err());
}
