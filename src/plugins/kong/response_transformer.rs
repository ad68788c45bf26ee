//! `response-transformer`: changes responses on their way to the client.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use pingora_http::ResponseHeader;
use serde_json::{Map, Number, Value};

use super::request_transformer::{check_header, split};
use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::body::append_json;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::{ConfiguredName, lenient_value};
use crate::runtime::contract::{LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;

config_record! {
    /// Changes headers and JSON bodies of responses. What is to be removed comes first, then renamed, replaced, added,
    /// appended. Bodies are changed at the top level; what is no JSON object passes as it is.
    pub struct Config {
        /// What to remove, by name.
        remove: Names = Names::schema_kind().required(),
        /// What to rename, as `old:new`.
        rename: Renames = Renames::schema_kind().required(),
        /// What to replace where it is present, as `name:value`.
        replace: Pairs = Pairs::schema_kind().required(),
        /// What to add where it is absent, as `name:value`.
        add: Pairs = Pairs::schema_kind().required(),
        /// What to add beside what is present, as `name:value`.
        append: Pairs = Pairs::schema_kind().required(),
    }
}

config_record! {
    /// Names.
    pub struct Names {
        /// Members of the body.
        json: Vec<String> = array(string()).required().default(json!([])),
        /// Headers.
        headers: Vec<String> = array(string().validated_by(check_header)).required().default(json!([])),
    }
}

config_record! {
    /// Old names with new ones.
    pub struct Renames {
        /// Members of the body.
        json: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
        /// Headers.
        headers: Vec<String> = array(string().validated_by(check_header_pair)).required().default(json!([])),
    }
}

config_record! {
    /// Names with values.
    pub struct Pairs {
        /// Members of the body.
        json: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
        /// What the values of `json` are, in the same order; texts where it says nothing.
        json_types: Vec<JsonType> = array(string().one_of(&["boolean", "number", "string"]))
            .required()
            .default(json!([])),
        /// Headers.
        headers: Vec<String> = array(string().validated_by(check_header_pair)).required().default(json!([])),
    }
}

/// What a value in a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonType {
    Boolean,
    Number,
    String,
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("response-transformer", 800, Config::schema()),
        link,
    }
}

fn check_pair(value: &Value) -> Result<(), String> {
    match value.as_str().map(split) {
        Some((name, value)) if name.is_empty() || value.is_empty() => {
            Err(format!("key '{name}' has no value"))
        }
        _ => Ok(()),
    }
}

fn check_header_pair(value: &Value) -> Result<(), String> {
    check_header(value)?;
    check_pair(value)
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let mut headers = Vec::new();
    for name in &config.remove.headers {
        headers.push(HeaderEdit::Remove(ConfiguredName::parse(name)?));
    }
    for entry in &config.rename.headers {
        let (from, to) = split(entry);
        headers.push(HeaderEdit::Rename(
            ConfiguredName::parse(from)?,
            ConfiguredName::parse(to)?,
        ));
    }
    for (pairs, edit) in [
        (
            &config.replace,
            HeaderEdit::Replace as fn(ConfiguredName, HeaderValue) -> HeaderEdit,
        ),
        (&config.add, HeaderEdit::Add),
        (&config.append, HeaderEdit::Append),
    ] {
        for entry in &pairs.headers {
            let (name, value) = split(entry);
            headers.push(edit(
                ConfiguredName::parse(name)?,
                lenient_value(value.as_bytes()),
            ));
        }
    }
    let mut members = Vec::new();
    for name in &config.remove.json {
        members.push(MemberEdit::Remove(name.clone()));
    }
    for entry in &config.rename.json {
        let (from, to) = split(entry);
        members.push(MemberEdit::Rename(from.to_owned(), to.to_owned()));
    }
    for (field, pairs, edit) in [
        (
            "replace",
            &config.replace,
            MemberEdit::Replace as fn(String, Value) -> MemberEdit,
        ),
        ("add", &config.add, MemberEdit::Add),
        ("append", &config.append, MemberEdit::Append),
    ] {
        for (index, entry) in pairs.json.iter().enumerate() {
            let (name, text) = split(entry);
            let value = typed(text, pairs.json_types.get(index).copied())
                .map_err(|error| format!("config.{field}.json: '{entry}': {error}"))?;
            members.push(edit(name.to_owned(), value));
        }
    }
    Ok(Arc::new(ResponseTransformer { headers, members }))
}

fn typed(text: &str, kind: Option<JsonType>) -> Result<Value, String> {
    Ok(match kind {
        None | Some(JsonType::String) => Value::from(text),
        Some(JsonType::Boolean) => Value::Bool(text == "true"),
        Some(JsonType::Number) => Value::Number(
            text.trim()
                .parse::<Number>()
                .map_err(|_| "is not a number".to_owned())?,
        ),
    })
}

struct ResponseTransformer {
    headers: Vec<HeaderEdit>,
    members: Vec<MemberEdit>,
}

/// Edits in the order in which they are made.
enum HeaderEdit {
    Remove(ConfiguredName),
    Rename(ConfiguredName, ConfiguredName),
    Replace(ConfiguredName, HeaderValue),
    Add(ConfiguredName, HeaderValue),
    Append(ConfiguredName, HeaderValue),
}

/// Edits in the order in which they are made.
enum MemberEdit {
    Remove(String),
    Rename(String, String),
    Replace(String, Value),
    Add(String, Value),
    Append(String, Value),
}

/// The body as far as it has come.
#[derive(Default)]
struct Collected {
    body: BytesMut,
    /// It is longer than what may be held: it passes as it is.
    given_up: bool,
}

impl Plugin for ResponseTransformer {
    fn phases(&self) -> Phases {
        match self.members.is_empty() {
            true => Phases::HEADER_FILTER,
            false => Phases::HEADER_FILTER.with(Phases::BODY_FILTER),
        }
    }

    fn header_filter(&self, exchange: &mut Exchange, head: &mut ResponseHeader) {
        for edit in &self.headers {
            edit.apply(head);
        }
        if !self.members.is_empty() && has_json_body(exchange, head) {
            head.remove_header(&CONTENT_LENGTH);
            exchange.body_length_changes();
            exchange.stash(Collected::default());
        }
    }

    fn body_filter(&self, exchange: &mut Exchange, piece: &mut Bytes, end: bool) {
        let bytes_max = exchange.snapshot.serving.plan.held_body_bytes_max;
        let Some(collected) = exchange.stashed_mut::<Collected>() else {
            return;
        };
        if collected.given_up {
            return;
        }
        collected.body.extend_from_slice(piece);
        if collected.body.len() > bytes_max {
            collected.given_up = true;
            *piece = collected.body.split().freeze();
        } else if end {
            *piece = self.transformed(collected.body.split().freeze());
        } else {
            *piece = Bytes::new();
        }
    }
}

impl HeaderEdit {
    fn apply(&self, head: &mut ResponseHeader) {
        match self {
            Self::Remove(name) => {
                head.remove_header(name.name());
            }
            Self::Rename(from, to) => {
                let values: Vec<HeaderValue> =
                    head.headers.get_all(from.name()).iter().cloned().collect();
                if values.is_empty() {
                    return;
                }
                head.remove_header(from.name());
                head.remove_header(to.name());
                for value in values {
                    to.add_response(head, value);
                }
            }
            Self::Replace(name, value) => {
                if head.headers.contains_key(name.name()) {
                    name.set_response(head, value.clone());
                }
            }
            Self::Add(name, value) => {
                if !head.headers.contains_key(name.name()) {
                    name.set_response(head, value.clone());
                }
            }
            Self::Append(name, value) => name.add_response(head, value.clone()),
        }
    }
}

impl ResponseTransformer {
    fn transformed(&self, body: Bytes) -> Bytes {
        let Ok(Value::Object(mut members)) = serde_json::from_slice(&body) else {
            return body;
        };
        for edit in &self.members {
            edit.apply(&mut members);
        }
        // Maps with text keys can always be written.
        serde_json::to_vec(&members).map_or(body, Bytes::from)
    }
}

impl MemberEdit {
    fn apply(&self, members: &mut Map<String, Value>) {
        match self {
            Self::Remove(name) => {
                members.shift_remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(value) = members.shift_remove(from) {
                    members.insert(to.clone(), value);
                }
            }
            Self::Replace(name, value) => {
                if let Some(present) = members.get_mut(name) {
                    *present = value.clone();
                }
            }
            Self::Add(name, value) => {
                if !members.contains_key(name) {
                    members.insert(name.clone(), value.clone());
                }
            }
            Self::Append(name, value) => append_json(members, name, value.clone()),
        }
    }
}

/// Whether a body will follow, of `application/json` or a type ending in `+json`, that is not compressed.
fn has_json_body(exchange: &Exchange, head: &ResponseHeader) -> bool {
    let is_empty = exchange.request.method == Method::HEAD
        || head.status.is_informational()
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if is_empty || head.headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let Some(kind) = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World};

    fn head(kind: &str, length: usize) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("Content-Type", kind).unwrap();
        head.insert_header("Content-Length", length.to_string())
            .unwrap();
        head.insert_header("X-A", "a").unwrap();
        head
    }

    #[test]
    fn edits_headers() {
        let world = World::new();
        for (config, name, expected) in [
            (json!({"remove": {"headers": ["X-A"]}}), "x-a", vec![]),
            (
                json!({"rename": {"headers": ["X-A:X-B"]}}),
                "x-b",
                vec!["a"],
            ),
            (json!({"replace": {"headers": ["X-A:n"]}}), "x-a", vec!["n"]),
            (json!({"replace": {"headers": ["X-N:n"]}}), "x-n", vec![]),
            (json!({"add": {"headers": ["X-A:n"]}}), "x-a", vec!["a"]),
            (json!({"add": {"headers": ["X-N:n"]}}), "x-n", vec!["n"]),
            (
                json!({"append": {"headers": ["X-A:n"]}}),
                "x-a",
                vec!["a", "n"],
            ),
        ] {
            let plugin = world.link(entry(), config.clone());
            let mut head = head("text/plain", 0);
            plugin.header_filter(&mut world.exchange(Message::get("/")), &mut head);
            let seen: Vec<_> = head.headers.get_all(name).iter().cloned().collect();
            assert_eq!(seen, expected, "{config}");
            assert!(!plugin.phases().has(Phases::BODY_FILTER));
        }
    }

    #[test]
    fn edits_json() {
        let world = World::new();
        let config = json!({
            "remove": {"json": ["gone"]},
            "rename": {"json": ["old:new"]},
            "replace": {"json": ["kept:2", "none:1"], "json_types": ["number"]},
            "add": {"json": ["added:true", "kept:x"], "json_types": ["boolean", "string"]},
            "append": {"json": ["new:2"]},
        });
        let plugin = world.link(entry(), config);
        for (kind, body, expected) in [
            (
                "application/json; charset=utf-8",
                r#"{"gone":1,"old":"1","kept":1}"#,
                r#"{"kept":2,"new":["1","2"],"added":true}"#,
            ),
            (
                "application/problem+json",
                "{}",
                r#"{"added":true,"kept":"x","new":["2"]}"#,
            ),
            ("application/json", "[1]", "[1]"),
            ("application/json", "{broken", "{broken"),
            ("text/plain", "{}", "{}"),
        ] {
            let mut exchange = world.exchange(Message::get("/"));
            let mut head = head(kind, body.len());
            plugin.header_filter(&mut exchange, &mut head);
            let changes = kind.starts_with("application/");
            assert_eq!(exchange.is_body_length_changing(), changes);
            assert_eq!(head.headers.contains_key("content-length"), !changes);
            // In two pieces.
            let (first, second) = body.split_at(body.len() / 2);
            let mut sent = Vec::new();
            for (piece, end) in [(first, false), (second, false), ("", true)] {
                let mut piece = Bytes::from(piece.to_owned());
                plugin.body_filter(&mut exchange, &mut piece, end);
                sent.extend_from_slice(&piece);
            }
            assert_eq!(String::from_utf8(sent).unwrap(), expected);
        }
    }

    #[test]
    fn lets_pass_what_is_too_long_to_hold() {
        let world = World::new();
        let plugin = world.link(entry(), json!({"remove": {"json": ["a"]}}));
        let mut exchange = world.exchange(Message::get("/"));
        plugin.header_filter(&mut exchange, &mut head("application/json", 0));
        let long = Bytes::from(vec![b' '; 1 << 20]);
        let mut sent = 0;
        for _ in 0..3 {
            let mut piece = long.clone();
            plugin.body_filter(&mut exchange, &mut piece, false);
            sent += piece.len();
        }
        assert_eq!(sent, 3 << 20);
    }
}
