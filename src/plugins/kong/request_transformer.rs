//! `request-transformer`: changes requests on their way upstream.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method};
use serde_json::Value;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::body::{self, Fields};
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::{ConfiguredName, lenient_value};
use crate::plugins::shared::query::Arguments;
use crate::plugins::shared::template::Template;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, RequestBody};

config_record! {
    /// Changes method, path, headers, query and body of requests. In each, what is to be removed comes first, then renamed,
    /// replaced, added, appended. Values may hold templates such as `$(headers['x'] or 'none')`.
    pub struct Config {
        /// The method to send upstream.
        http_method: Option<String> = http_method(),
        /// What to remove, by name.
        remove: Names = Names::schema_kind().required(),
        /// What to rename, as `old:new`.
        rename: Pairs = Pairs::schema_kind().required(),
        /// What to replace where it is present, as `name:value`.
        replace: Replacements = Replacements::schema_kind().required(),
        /// What to add where it is absent, as `name:value`.
        add: Pairs = Pairs::schema_kind().required(),
        /// What to add beside what is present, as `name:value`.
        append: Pairs = Pairs::schema_kind().required(),
    }
}

config_record! {
    /// Names.
    pub struct Names {
        /// Body fields (JSON, urlencoded, multipart; top level).
        body: Vec<String> = array(string()).required().default(json!([])),
        /// Headers.
        headers: Vec<String> = array(string().validated_by(check_header)).required().default(json!([])),
        /// Query arguments.
        querystring: Vec<String> = array(string()).required().default(json!([])),
    }
}

config_record! {
    /// Names with values.
    pub struct Pairs {
        /// Body fields (JSON, urlencoded, multipart; top level).
        body: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
        /// Headers.
        headers: Vec<String> = array(string().validated_by(check_header_pair)).required().default(json!([])),
        /// Query arguments.
        querystring: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
    }
}

config_record! {
    /// Names with values, and the path.
    pub struct Replacements {
        /// Body fields (JSON, urlencoded, multipart; top level).
        body: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
        /// Headers. `host` is always replaced.
        headers: Vec<String> = array(string().validated_by(check_header_pair)).required().default(json!([])),
        /// Query arguments.
        querystring: Vec<String> = array(string().validated_by(check_pair)).required().default(json!([])),
        /// The path to send upstream.
        uri: Option<String> = string().validated_by(check_template),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("request-transformer", 801, Config::schema()),
        link,
    }
}

/// Splits `name:value`; the value is empty when there is none.
pub(super) fn split(entry: &str) -> (&str, &str) {
    match entry.split_once(':') {
        Some((name, value)) => (name, value.trim_start_matches(':')),
        None => (entry, ""),
    }
}

/// Refuses an entry without a value, or with a template that cannot be read.
pub(super) fn check_pair(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let (name, pair_value) = split(text);
    if name.is_empty() || pair_value.is_empty() {
        return Err(format!("key '{name}' has no value"));
    }
    Template::parse(pair_value).map(drop)
}

/// As [`check_pair`], for headers.
pub(super) fn check_header_pair(value: &Value) -> Result<(), String> {
    check_header(value)?;
    check_pair(value)
}

/// Refuses an entry whose name is no header name.
pub(super) fn check_header(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) => ConfiguredName::parse(split(text).0).map(drop),
        None => Ok(()),
    }
}

fn check_template(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) => Template::parse(text).map(drop),
        None => Ok(()),
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let method = match &config.http_method {
        Some(name) => Some(
            Method::from_bytes(name.as_bytes())
                .map_err(|_| format!("config.http_method: '{name}' is not a method"))?,
        ),
        None => None,
    };
    let edits = |remove: &[String],
                 [rename, replace, add, append]: [&[String]; 4]|
     -> Result<Vec<Edit>, String> {
        let mut edits: Vec<Edit> = Vec::new();
        for name in remove {
            edits.push(Edit::new(Action::Remove, name, "")?);
        }
        for (action, entries) in [
            (Action::Rename, rename),
            (Action::Replace, replace),
            (Action::Add, add),
            (Action::Append, append),
        ] {
            for entry in entries {
                let (name, value) = split(entry);
                edits.push(Edit::new(action, name, value)?);
            }
        }
        Ok(edits)
    };
    let Config {
        remove,
        rename,
        replace,
        add,
        append,
        ..
    } = &config;
    Ok(Arc::new(RequestTransformer {
        uri: replace
            .uri
            .as_deref()
            .map(Template::parse)
            .transpose()
            .map_err(|error| format!("config.replace.uri: {error}"))?,
        headers: edits(
            &remove.headers,
            [
                &rename.headers,
                &replace.headers,
                &add.headers,
                &append.headers,
            ],
        )?
        .into_iter()
        .map(|edit| {
            let name = ConfiguredName::parse(&edit.name)?;
            Ok(HeaderEdit { name, edit })
        })
        .collect::<Result<_, String>>()?,
        body: edits(
            &remove.body,
            [&rename.body, &replace.body, &add.body, &append.body],
        )?,
        query: edits(
            &remove.querystring,
            [
                &rename.querystring,
                &replace.querystring,
                &add.querystring,
                &append.querystring,
            ],
        )?,
        method,
    }))
}

struct RequestTransformer {
    uri: Option<Template>,
    method: Option<Method>,
    headers: Vec<HeaderEdit>,
    body: Vec<Edit>,
    query: Vec<Edit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Remove,
    Rename,
    Replace,
    Add,
    Append,
}

/// One edit, in the order in which they are made.
struct Edit {
    action: Action,
    name: String,
    value: Template,
}

struct HeaderEdit {
    name: ConfiguredName,
    edit: Edit,
}

impl Edit {
    fn new(action: Action, name: &str, value: &str) -> Result<Self, String> {
        Ok(Self {
            action,
            name: name.to_owned(),
            value: Template::parse(value)?,
        })
    }
}

impl Plugin for RequestTransformer {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        Needs {
            request_body: !self.body.is_empty() || self.moves_body(),
            ..Needs::HEAD
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        // Templates speak of the request as it came to this plugin, whatever is changed first.
        let uri = self.uri.as_ref().map(|uri| uri.render(exchange));
        let headers = rendered(self.headers.iter().map(|header| &header.edit), exchange);
        let body = rendered(&self.body, exchange);
        let query = rendered(&self.query, exchange);
        if let Some(uri) = uri {
            replace_path(exchange, &uri);
        }
        if let Some(method) = &self.method {
            exchange.edits_mut().method = Some(method.clone());
            if self.moves_body() {
                move_body_to_query(exchange);
            }
        }
        for (header, value) in self.headers.iter().zip(headers) {
            header.apply(exchange, &value);
        }
        if !self.body.is_empty()
            && let Some(mut fields) = Fields::of(exchange)
        {
            for (edit, value) in self.body.iter().zip(body) {
                edit.apply_to_body(&mut fields, value);
            }
            body::replace(exchange, fields.write());
        }
        if !self.query.is_empty() {
            let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
            let text = exchange.upstream_query().unwrap_or_default();
            let mut arguments = Arguments::parse(text, arguments_max);
            for (edit, value) in self.query.iter().zip(query) {
                edit.apply_to_query(&mut arguments, value);
            }
            exchange.edits_mut().query = Some(arguments.write());
        }
        Flow::Continue
    }
}

fn rendered<'a>(edits: impl IntoIterator<Item = &'a Edit>, exchange: &Exchange) -> Vec<Vec<u8>> {
    edits
        .into_iter()
        .map(|edit| edit.value.render(exchange))
        .collect()
}

impl RequestTransformer {
    /// These methods have no body: fields of a form become query arguments.
    fn moves_body(&self) -> bool {
        matches!(
            self.method,
            Some(Method::GET | Method::HEAD | Method::TRACE)
        )
    }
}

fn replace_path(exchange: &mut Exchange, uri: &[u8]) {
    let (path, query) = match memchr::memchr(b'?', uri) {
        Some(at) => (uri.get(..at), uri.get(at + 1..)),
        None => (Some(uri), None),
    };
    let mut path = path.unwrap_or_default().to_vec();
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    let edits = exchange.edits_mut();
    edits.path = Some(path);
    if let Some(query) = query {
        edits.query = Some(query.to_vec());
    }
}

fn move_body_to_query(exchange: &mut Exchange) {
    let Some(Fields::Urlencoded(fields)) = Fields::of(exchange) else {
        return;
    };
    let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
    let text = exchange.upstream_query().unwrap_or_default();
    let mut arguments = Arguments::parse(text, arguments_max);
    for (name, value) in fields.0 {
        arguments.set(&name, value.unwrap_or_default());
    }
    exchange.edits_mut().query = Some(arguments.write());
    exchange.request_body = RequestBody::Absent;
    let head = &mut exchange.request;
    head.remove_header(&CONTENT_LENGTH);
    head.remove_header(&CONTENT_TYPE);
    head.remove_header(&TRANSFER_ENCODING);
}

impl HeaderEdit {
    fn apply(&self, exchange: &mut Exchange, value: &[u8]) {
        let name = self.name.name();
        if *name == HOST {
            // The name asked for upstream is no ordinary header: it can be replaced and nothing else.
            if self.edit.action == Action::Replace
                && let Ok(host) = HeaderValue::from_bytes(value)
            {
                exchange.edits_mut().host = Some(host);
            }
            return;
        }
        let head = &mut exchange.request;
        let present = head.headers.contains_key(name);
        match self.edit.action {
            Action::Remove => {
                head.remove_header(name);
            }
            Action::Rename => {
                let to = String::from_utf8_lossy(value);
                let Ok(to) = ConfiguredName::parse(&to) else {
                    return;
                };
                if !present || *to.name() == HOST {
                    return;
                }
                let values: Vec<HeaderValue> = head.headers.get_all(name).iter().cloned().collect();
                head.remove_header(name);
                head.remove_header(to.name());
                for value in values {
                    to.add_request(head, value);
                }
            }
            Action::Replace if present => self.name.set_request(head, lenient_value(value)),
            Action::Add if !present => self.name.set_request(head, lenient_value(value)),
            Action::Append => self.name.add_request(head, lenient_value(value)),
            Action::Replace | Action::Add => {}
        }
    }
}

impl Edit {
    fn apply_to_body(&self, fields: &mut Fields, value: Vec<u8>) {
        match self.action {
            Action::Remove => fields.remove(&self.name),
            Action::Rename => fields.rename(&self.name, &String::from_utf8_lossy(&value)),
            Action::Replace if fields.has(&self.name) => fields.set(&self.name, value),
            Action::Add if !fields.has(&self.name) => fields.set(&self.name, value),
            Action::Append => fields.append(&self.name, value),
            Action::Replace | Action::Add => {}
        }
    }

    fn apply_to_query(&self, arguments: &mut Arguments, value: Vec<u8>) {
        let name = self.name.as_bytes();
        match self.action {
            Action::Remove => arguments.remove(name),
            Action::Rename => arguments.rename(name, &value),
            Action::Replace if arguments.has(name) => arguments.set(name, value),
            Action::Add if !arguments.has(name) => arguments.set(name, value),
            Action::Append => arguments.append(name, value),
            Action::Replace | Action::Add => {}
        }
    }
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

    /// The exchange after the plugin has had its turn.
    fn transformed(config: Value, message: Message) -> Exchange {
        let world = World::new();
        let plugin = world.link(entry(), config);
        let mut exchange = world.exchange(message);
        assert!(matches!(plugin.access(&mut exchange), Flow::Continue));
        exchange
    }

    fn values(exchange: &Exchange, name: &str) -> Vec<String> {
        let values = exchange.request.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn edits_headers() {
        let message = || {
            Message::get("/")
                .header("X-A", "1")
                .header("X-A", "2")
                .header("X-B", "b")
        };
        for (config, name, expected) in [
            (json!({"remove": {"headers": ["x-a"]}}), "x-a", vec![]),
            (
                json!({"rename": {"headers": ["X-A:X-N"]}}),
                "x-n",
                vec!["1", "2"],
            ),
            (json!({"rename": {"headers": ["X-A:X-N"]}}), "x-a", vec![]),
            (json!({"replace": {"headers": ["X-B:n"]}}), "x-b", vec!["n"]),
            (json!({"replace": {"headers": ["X-N:n"]}}), "x-n", vec![]),
            (json!({"add": {"headers": ["X-B:n"]}}), "x-b", vec!["b"]),
            (json!({"add": {"headers": ["X-N:n:m"]}}), "x-n", vec!["n:m"]),
            (
                json!({"append": {"headers": ["X-B:n"]}}),
                "x-b",
                vec!["b", "n"],
            ),
            (
                json!({"add": {"headers": ["X-N:$(headers.x_b .. '!')"]}}),
                "x-n",
                vec!["b!"],
            ),
            (
                json!({"remove": {"headers": ["x-b"]}, "add": {"headers": ["X-B:new"]}}),
                "x-b",
                vec!["new"],
            ),
        ] {
            let exchange = transformed(config.clone(), message());
            assert_eq!(values(&exchange, name), expected, "{config}");
        }
    }

    #[test]
    fn replaces_host_method_and_path() {
        let config = json!({
            "http_method": "DELETE",
            "replace": {"headers": ["Host:other.test"], "uri": "/v2/$(query_params.id)"},
            "add": {"headers": ["host:ignored"]},
        });
        let exchange = transformed(config, Message::get("/?id=7"));
        let edits = exchange.edits.unwrap();
        assert_eq!(edits.method, Some(Method::DELETE));
        assert_eq!(edits.path.as_deref(), Some(&b"/v2/7"[..]));
        assert_eq!(edits.host.unwrap(), "other.test");
        assert_eq!(exchange.request.headers["host"], "gateway.test");
    }

    #[test]
    fn edits_the_query() {
        let config = json!({
            "remove": {"querystring": ["a"]},
            "rename": {"querystring": ["b:c"]},
            "replace": {"querystring": ["d:4 5"]},
            "add": {"querystring": ["e:5", "d:no"]},
            "append": {"querystring": ["d:6"]},
        });
        let exchange = transformed(config, Message::get("/?a=1&b=2&d=3"));
        assert_eq!(exchange.upstream_query(), Some(&b"c=2&d=4%205&e=5&d=6"[..]));
    }

    #[test]
    fn edits_bodies() {
        let config = json!({
            "remove": {"body": ["a"]},
            "rename": {"body": ["b:c"]},
            "add": {"body": ["d:$(headers.x)"]},
            "append": {"body": ["c:3"]},
        });
        for (kind, body, expected) in [
            (
                "application/json",
                r#"{"a":1,"b":2}"#,
                r#"{"c":[2,"3"],"d":"x"}"#,
            ),
            (
                "application/x-www-form-urlencoded",
                "a=1&b=2",
                "c=2&d=x&c=3",
            ),
            ("text/plain", "a=1", "a=1"),
            ("application/json", "{broken", "{broken"),
        ] {
            let message = Message::new("POST", "/").header("x", "x").body(kind, body);
            let exchange = transformed(config.clone(), message);
            assert_eq!(
                exchange.request_body,
                RequestBody::Held(expected.to_owned().into())
            );
            let length = expected.len().to_string();
            assert_eq!(values(&exchange, "content-length"), [length]);
        }
    }

    #[test]
    fn methods_without_body_take_it_into_the_query() {
        let message =
            Message::new("POST", "/?a=1").body("application/x-www-form-urlencoded", "b=2");
        let exchange = transformed(json!({"http_method": "GET"}), message);
        assert_eq!(exchange.upstream_query(), Some(&b"a=1&b=2"[..]));
        assert_eq!(exchange.request_body, RequestBody::Absent);
        assert!(values(&exchange, "content-length").is_empty());
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let world = World::new();
        for (config, errors) in [
            (
                json!({"add": {"headers": ["x"]}}),
                json!({"config": {"add": {"headers": ["key 'x' has no value"]}}}),
            ),
            (
                json!({"add": {"headers": ["a b:c"]}}),
                json!({"config": {"add": {"headers": ["'a b' is not a valid header"]}}}),
            ),
            (
                json!({"add": {"body": ["a:$(x.y)"]}}),
                json!({"config": {"add": {"body": ["invalid template '$(x.y)': 'x' is unknown, expected one of: headers, query_params, uri_captures, shared"]}}}),
            ),
        ] {
            assert_eq!(world.refused(entry(), config), errors);
        }
    }
}
