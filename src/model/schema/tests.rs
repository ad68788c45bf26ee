#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "tests"
)]

use serde_json::{Map, Value};

use super::*;

crate::config_record! {
    /// Where counters live.
    pub struct Store {
        /// Name of the
        /// server.
        host: Option<String> = host(),
        /// Its port.
        port: u16 = port().default(6379),
    }
}

crate::config_record! {
    /// A record with one of everything.
    pub struct Config {
        /// Names under which the key is looked for.
        key_names: Vec<String> = array(header_name()).required().default(json!(["apikey"])),
        /// Requests per minute.
        minute: Option<f64> = number().greater_than(0),
        /// What is counted.
        limit_by as "limit-by": String = string().required().default("consumer").one_of(&["consumer", "ip"]),
        /// Mode.
        r#type: Option<String> = string(),
        /// Whether errors let requests pass.
        fault_tolerant: bool = boolean().required().default(true),
        /// Where counters live.
        store: Store = Store::schema_kind().required(),
        /// Methods.
        methods: Option<Vec<String>> = set(http_method()),
        /// Whole number.
        count: Option<i64> = integer().between(1, 10),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn schema() -> Record {
    Config::schema()
        .check(at_least_one_of(&["minute", "type"]))
        .check(conditional(
            "limit-by",
            any().one_of(&["ip"]),
            "type",
            any().required(),
        ))
        .alias("store_host", &["store", "host"])
}

#[test]
fn fills_every_field_in_schema_order() {
    let filled = schema().fill(object(
        json!({"minute": 5, "count": 3.0, "methods": ["GET", "GET"], "store_host": "a"}),
    ));
    assert_eq!(
        Value::Object(filled.clone()).to_string(),
        r#"{"key_names":["apikey"],"minute":5,"limit-by":"consumer","type":null,"fault_tolerant":true,"store":{"host":"a","port":6379},"methods":["GET"],"count":3}"#
    );
    let config: Config = serde_json::from_value(Value::Object(filled)).unwrap();
    assert_eq!(config.limit_by, "consumer");
    assert_eq!(config.store.port, 6379);
}

#[test]
fn null_takes_the_default_only_where_a_value_is_required() {
    let filled = schema().fill(object(json!({"key_names": null, "store": {"port": null}})));
    assert_eq!(filled["key_names"], json!(["apikey"]));
    assert_eq!(filled["store"], json!({"host": null, "port": null}));
}

#[test]
fn refuses_in_known_words() {
    for (given, expected) in [
        (
            json!({"minute": 0}),
            json!({"minute": "value must be greater than 0"}),
        ),
        (
            json!({"minute": 1, "count": 11}),
            json!({"count": "value should be between 1 and 10"}),
        ),
        (
            json!({"minute": 1, "count": 1.5}),
            json!({"count": "expected an integer"}),
        ),
        (
            json!({"minute": 1, "limit-by": "x"}),
            json!({"limit-by": "expected one of: consumer, ip"}),
        ),
        (
            json!({"minute": 1, "colour": 1}),
            json!({"colour": "unknown field"}),
        ),
        (
            json!({"minute": 1, "methods": ["GET", "get"]}),
            json!({"methods": [null, "invalid value: get"]}),
        ),
        (
            json!({"minute": 1, "methods": "GET"}),
            json!({"methods": "expected a set"}),
        ),
        (
            json!({"minute": 1, "type": ""}),
            json!({"type": "length must be at least 1"}),
        ),
        (
            json!({"minute": 1, "store": {"host": "a:80"}}),
            json!({"store": {"host": "must not have a port"}}),
        ),
        (
            json!({}),
            json!({"@entity": ["at least one of these fields must be non-empty: 'minute', 'type'"]}),
        ),
        (
            json!({"minute": 1, "limit-by": "ip"}),
            json!({
                "type": "required field missing",
                "@entity": ["failed conditional validation given value of field 'limit-by'"],
            }),
        ),
    ] {
        let schema = schema();
        let filled = schema.fill(object(given.clone()));
        let errors = schema.validate(&filled).unwrap_err();
        assert_eq!(errors.into_json(), expected, "{given}");
    }
}

#[test]
fn form_values_take_the_types_of_the_schema() {
    let schema = schema();
    let mut form = object(json!({
        "minute": "5.5", "count": "3", "fault_tolerant": "false", "methods": "GET", "type": "",
        "store": {"port": "80"}, "store_host": "a",
    }));
    schema.coerce(&mut form);
    assert_eq!(
        Value::Object(form),
        json!({
            "minute": 5.5, "count": 3, "fault_tolerant": false, "methods": ["GET"], "type": null,
            "store": {"port": 80}, "store_host": "a",
        })
    );
    let mut hosts = json!("a.test, b.test");
    array(host()).comma_separated().coerce(&mut hosts);
    assert_eq!(hosts, json!(["a.test", "b.test"]));
}

#[test]
fn describes_itself() {
    let described = schema().to_json();
    assert_eq!(
        described["fields"][0],
        json!({"key_names": {
            "type": "array",
            "elements": {"type": "string"},
            "description": "Names under which the key is looked for.",
            "required": true,
            "default": ["apikey"],
        }})
    );
    assert_eq!(
        described["fields"][5]["store"]["fields"][0]["host"]["description"],
        "Name of the server."
    );
    assert_eq!(
        described["entity_checks"][0],
        json!({"at_least_one_of": ["minute", "type"]})
    );
}

#[test]
fn ready_kinds_refuse_in_known_words() {
    for (field, value, expected) in [
        (host(), "a b", Some("invalid value: a b")),
        (host(), "::1", None),
        (host(), "a.test:80", Some("must not have a port")),
        (host(), "1.2.3.400", Some("invalid value: 1.2.3.400")),
        (sni(), "127.0.0.1", Some("must not be an IP")),
        (path(), "a", Some("should start with: /")),
        (path(), "/a//b", Some("must not have empty segments")),
        (path(), "/a%2", Some("invalid url-encoded value: '%2'")),
        (
            path(),
            "/a b",
            Some(
                "invalid path: '/a b' (characters outside of the reserved list of RFC 3986 found)",
            ),
        ),
        (url(), "example", Some("missing host in url")),
        (url(), "http://h:80/x", None),
        (
            name(),
            "a b",
            Some(
                "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
            ),
        ),
        (name(), "größe", None),
        (
            header_name(),
            "a:b",
            Some("bad header name 'a:b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"),
        ),
        (ip_or_cidr(), "10.0.0.0/8", None),
        (ip_or_cidr(), "x", Some("invalid ip or cidr range: 'x'")),
        (uuid(), "x", Some("expected a valid UUID")),
        (string().regex(), "(", Some("not a valid regex: (")),
        (
            string().referenceable().one_of(&["a"]),
            "{vault://env/x}",
            None,
        ),
    ] {
        let outcome = field.validate(&json!(value));
        let expected = expected.map_or(Ok(()), |text| Err(json!(text)));
        assert_eq!(outcome, expected, "{value}");
    }
}
