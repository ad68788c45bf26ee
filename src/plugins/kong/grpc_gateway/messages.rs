//! Messages of calls: made of a request's path, query and body, and shown in JSON.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};
use serde_json::value::RawValue;

use super::fields::{FieldPath, NoField};
use super::rules::{Binding, BodyRule};
use crate::plugins::shared::grpc_messages::{from_json, not_json, put_framed, show};
use crate::plugins::shared::query;

/// The body of the call: its messages with their prefixes. The error is for the client.
pub(super) fn call_body(
    binding: &Binding,
    variables: &[Cow<'_, str>],
    query: Option<&[u8]>,
    arguments_max: usize,
    body: &[u8],
) -> Result<Bytes, String> {
    let input = &binding.method.input;
    let mut framed = BytesMut::new();
    if binding.method.takes_many {
        for piece in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
            let piece = piece.map_err(|error| not_json(&error))?;
            let mut message = from_json(input, piece.get())?;
            fill_variables(binding, variables, &mut message)?;
            put_framed(&message, &mut framed)?;
        }
        return Ok(framed.freeze());
    }
    let blank = body.trim_ascii().is_empty();
    let mut message = match &binding.body {
        BodyRule::Whole if !blank => {
            let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
            from_json(input, text)?
        }
        BodyRule::Field(field) if !blank => read_field(input, field, body)?,
        _ => DynamicMessage::new(input.clone()),
    };
    if !matches!(binding.body, BodyRule::Whole) {
        for (name, value) in query::pieces(query.unwrap_or_default()).take(arguments_max) {
            fill_argument(binding, name, value.unwrap_or_default(), &mut message)?;
        }
    }
    fill_variables(binding, variables, &mut message)?;
    put_framed(&message, &mut framed)?;
    Ok(framed.freeze())
}

/// A message of which the body is one field.
fn read_field(
    kind: &MessageDescriptor,
    field: &FieldDescriptor,
    body: &[u8],
) -> Result<DynamicMessage, String> {
    // Read by itself first, so that the body cannot be more than the field's value.
    let value: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    let name = serde_json::Value::from(field.json_name());
    from_json(kind, &format!("{{{name}:{}}}", value.get()))
}

/// The path's own: they win over what stands elsewhere.
fn fill_variables(
    binding: &Binding,
    variables: &[Cow<'_, str>],
    message: &mut DynamicMessage,
) -> Result<(), String> {
    binding
        .variables
        .iter()
        .zip(variables)
        .try_for_each(|(field, value)| field.put(message, value))
}

/// An argument of the query. Those that name no field are not for the method.
fn fill_argument(
    binding: &Binding,
    name: &[u8],
    value: &[u8],
    message: &mut DynamicMessage,
) -> Result<(), String> {
    let name = query::decode(name);
    let Ok(name) = std::str::from_utf8(&name) else {
        return Ok(());
    };
    let field = match FieldPath::resolve(&binding.method.input, name) {
        Ok(field) => field,
        Err(NoField::Unknown(_)) => return Ok(()),
        Err(NoField::Unfit(reason)) => return Err(reason),
    };
    let in_body = match &binding.body {
        BodyRule::Field(body) => field.first() == body,
        BodyRule::None | BodyRule::Whole => false,
    };
    if in_body || binding.variables.contains(&field) {
        return Ok(());
    }
    let value = query::decode(value);
    let value = std::str::from_utf8(&value)
        .map_err(|_| format!("the value of '{name}' in the query is not UTF-8"))?;
    field.put(message, value)
}

/// A message of the upstream's in JSON, or the field of it that the rule names.
pub(super) fn to_json(binding: &Binding, message: Bytes) -> Result<Vec<u8>, String> {
    let output = &binding.method.output;
    let Some(field) = &binding.answer else {
        let mut json = serde_json::Serializer::new(Vec::with_capacity(256));
        show(output, message, &mut json)?;
        return Ok(json.into_inner());
    };
    let whole = show(output, message, serde_json::value::Serializer)?;
    let value = whole.get(field.name()).unwrap_or(&serde_json::Value::Null);
    Ok(value.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::{Value, json};

    use super::super::rules::tests::rules;
    use super::*;
    use crate::plugins::shared::grpc_messages::{Cut, cut};

    const METHODS: &str = concat!(
        "rpc Get(Item) returns (Item) { option (google.api.http) = { get: \"/get/{name}\" }; }\n",
        "rpc Put(Item) returns (Item) { option (google.api.http) = { put: \"/put/{deep.text=a/*}\" body: \"*\" }; }\n",
        "rpc Part(Item) returns (Item) { option (google.api.http) = { post: \"/part/{name}\" body: \"deep\" response_body: \"tags\" }; }\n",
        "rpc Many(stream Item) returns (stream Item) { option (google.api.http) = { post: \"/many/{small}\" body: \"*\" }; }\n",
    );

    /// Sends a request through and back: what the method would receive, shown as its answer.
    fn echo(method: &str, target: &str, body: &str) -> Result<Vec<Value>, String> {
        let rules = rules(METHODS).unwrap();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (target, None),
        };
        let (binding, values) = rules.find(method, path).expect("a rule");
        let framed = call_body(binding, &values, query, 100, body.as_bytes())?;
        let mut rest = BytesMut::from(&*framed);
        let mut shown = Vec::new();
        loop {
            match cut(&mut rest, 1 << 20) {
                Cut::Message(message) => {
                    let json = to_json(binding, message).unwrap();
                    shown.push(serde_json::from_slice(&json).unwrap());
                }
                other => {
                    assert_eq!(other, Cut::Nothing);
                    return Ok(shown);
                }
            }
        }
    }

    fn one(method: &str, target: &str, body: &str) -> Value {
        echo(method, target, body).unwrap().remove(0)
    }

    #[test]
    fn query_and_path_fill_fields_of_every_kind() {
        let target = "/get/a%20b?small=-7&big=9007199254740993&count=18446744073709551615&yes=true&ratio=0.5\
            &data=AP_-&kind=BOOK&deep.text=x+y&deep.deeper.numbers=1&deep.deeper.numbers=2&tags=a&tags=b%26c\
            &at=2026-01-02T03:04:05Z&maybe=7&longName=camel&right=3&kinds=0&kinds=BOOK&mask=a,b.cD&part=1.5\
            &extra=0&unknown=1&nobody.x=2&name=not-this";
        let shown = one("GET", target, "ignored");
        let expected = json!({
            "name": "a b", "small": -7, "big": 9007199254740993_i64, "count": 18446744073709551615_u64, "yes": true,
            "ratio": 0.5, "data": "AP/+", "kind": "BOOK",
            "deep": {"text": "x y", "deeper": {"text": "", "numbers": [1, 2]}, "numbers": []},
            "tags": ["a", "b&c"], "scores": {}, "at": "2026-01-02T03:04:05Z", "maybe": 7, "long_name": "camel",
            "right": 3, "kinds": ["NONE", "BOOK"], "mask": "a,b.cD", "part": 1.5, "extra": 0,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn bodies_are_read_whole_or_as_a_field() {
        let shown = one(
            "PUT",
            "/put/a/7?small=5",
            r#" {"name":"n","deep":{"text":"not this","numbers":[1]},"scores":{"a":1},"long_name":"l","other":[{}],"big":"12"} "#,
        );
        assert_eq!(shown["deep"], json!({"text": "a/7", "numbers": [1]}));
        assert_eq!(
            shown["small"], 0,
            "the query is not for the method where the body is all of it"
        );
        assert_eq!((&shown["name"], &shown["big"]), (&json!("n"), &json!(12)));
        assert_eq!(one("PUT", "/put/a/7", " ")["deep"]["text"], "a/7");
        let rules = rules(METHODS).unwrap();
        let (binding, values) = rules.find("POST", "/part/n").unwrap();
        let query = Some(b"tags=t&deep.text=not-this&small=2".as_slice());
        let framed = call_body(binding, &values, query, 100, br#"{"text":"in the body"}"#).unwrap();
        let whole =
            DynamicMessage::decode(binding.method.input.clone(), framed.slice(5..)).unwrap();
        let text = |name: &str| whole.get_field_by_name(name).unwrap().to_string();
        assert_eq!(text("small"), "2");
        assert!(text("deep").contains("in the body"));
        let shown = to_json(binding, framed.slice(5..)).unwrap();
        assert_eq!(shown, br#"["t"]"#, "the answer is one field");
    }

    #[test]
    fn streams_are_values_one_after_the_other() {
        let shown = echo("POST", "/many/3", "{\"name\":\"a\"}\n{\"name\":\"b\"} {}").unwrap();
        let names: Vec<&Value> = shown.iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["a", "b", ""]);
        assert!(shown.iter().all(|it| it["small"] == 3));
        assert_eq!(echo("POST", "/many/3", "").unwrap(), Vec::<Value>::new());
        assert!(echo("POST", "/many/3", "{} x").is_err());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let deep = format!("{}{{}}{}", r#"{"deeper":"#.repeat(5000), "}".repeat(5000));
        let cases = [
            (
                "GET",
                "/get/a?small=x",
                "",
                "'x' does not fit field 'small'",
            ),
            ("GET", "/get/a?yes=1", "", "'1' does not fit field 'yes'"),
            (
                "GET",
                "/get/a?kind=SHELF",
                "",
                "'SHELF' does not fit field 'kind'",
            ),
            ("GET", "/get/a?data=*", "", "'*' does not fit field 'data'"),
            ("GET", "/get/a?at=now", "", "'now' does not fit field 'at'"),
            (
                "GET",
                "/get/a?deep=x",
                "",
                "'deep' is a message: name one of its fields",
            ),
            (
                "GET",
                "/get/a?scores=x",
                "",
                "'scores' is a map, which only a body can hold",
            ),
            (
                "GET",
                "/get/a?name.x=x",
                "",
                "'name' of 'name.x' is no message",
            ),
            (
                "GET",
                "/get/a?small=%FF",
                "",
                "the value of 'small' in the query is not UTF-8",
            ),
            (
                "PUT",
                "/put/a/b",
                "{",
                "the body is not JSON that fits: EOF while parsing",
            ),
            (
                "PUT",
                "/put/a/b",
                "{} {}",
                "the body is not JSON that fits: trailing characters",
            ),
            (
                "PUT",
                "/put/a/b",
                "[]",
                "the body is not JSON that fits: invalid type: sequence",
            ),
            (
                "PUT",
                "/put/a/b",
                r#"{"small":"x"}"#,
                "the body is not JSON that fits: ",
            ),
            (
                "PUT",
                "/put/a/b",
                r#"{"small":1e99}"#,
                "the body is not JSON that fits: ",
            ),
            (
                "POST",
                "/part/a",
                r#"{},"name":"x""#,
                "the body is not JSON that fits: trailing characters",
            ),
            (
                "POST",
                "/part/a",
                &deep,
                "the body is not JSON that fits: recursion limit exceeded",
            ),
            ("POST", "/many/x", "{}", "'x' does not fit field 'small'"),
        ];
        for (method, target, body, expected) in cases {
            let error = echo(method, target, body).expect_err(target);
            assert!(error.starts_with(expected), "{target} {body:.40}: {error}");
        }
        let deep = format!("/get/a?deep.{}text=x", "deeper.".repeat(40));
        assert!(echo("GET", &deep, "").is_err());
    }

    #[test]
    fn broken_answers_are_told() {
        let rules = rules(METHODS).unwrap();
        let (binding, _) = rules.find("GET", "/get/a").unwrap();
        for broken in [&b"\x0a\xff"[..], b"\xff\xff\xff", b"\x08"] {
            assert!(to_json(binding, Bytes::copy_from_slice(broken)).is_err());
        }
        let mut compressed = BytesMut::from(&b"\x01\0\0\0\0"[..]);
        assert!(matches!(cut(&mut compressed, 10), Cut::Broken(_)));
        let mut long = BytesMut::from(&b"\0\0\0\0\x0b"[..]);
        assert!(matches!(cut(&mut long, 10), Cut::Broken(_)));
        let mut short = BytesMut::from(&b"\0\0\0\0\x02a"[..]);
        assert_eq!(cut(&mut short, 10), Cut::Nothing);
        // Messages in messages without end.
        let mut bomb = vec![];
        for _ in 0..200 {
            let mut outer = vec![0x12];
            bomb_length(bomb.len(), &mut outer);
            outer.extend(&bomb);
            bomb = outer;
        }
        let mut outer = vec![0x4a];
        bomb_length(bomb.len(), &mut outer);
        outer.extend(&bomb);
        assert!(to_json(binding, outer.into()).is_err());
    }

    fn bomb_length(mut length: usize, into: &mut Vec<u8>) {
        while length >= 0x80 {
            into.push(length as u8 | 0x80);
            length >>= 7;
        }
        into.push(length as u8);
    }
}
