//! `request-termination`: answers without asking the upstream.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::{FieldErrors, custom};
use crate::plugins::shared::body::Fields;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::query;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::{Fault, LocalResponse};
use crate::runtime::node::Node;

config_record! {
    /// Ends requests with a fixed answer.
    pub struct Config {
        /// Status of the answer.
        status_code: u16 = integer().required().between(100, 599).validated_by(check_final).default(503),
        /// Text of a JSON answer `{"message": …}`; excludes `content_type` and `body`.
        message: Option<String> = string(),
        /// Media type of `body`.
        content_type: Option<String> = string(),
        /// The whole body of the answer.
        body: Option<String> = string(),
        /// Answer with what the request was, for debugging.
        echo: bool = boolean().required().default(false),
        /// End only requests that carry this header or query argument.
        trigger: Option<String> = header_name(),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("request-termination", 2, Config::schema())
            .with_messages()
            .check(custom(
                &[
                    "config.message",
                    "config.content_type",
                    "config.body",
                    "config.echo",
                ],
                check_answer,
            )),
        link,
    }
}

/// An interim status cannot end a request.
fn check_final(value: &Value) -> Result<(), String> {
    match value.as_u64() {
        Some(100..200) => Err("must be a final status: between 200 and 599".to_owned()),
        _ => Ok(()),
    }
}

fn check_answer(instance: &Map<String, Value>) -> Result<(), FieldErrors> {
    let config = instance.get("config").unwrap_or(&Value::Null);
    let set = |name: &str| config.get(name).is_some_and(|value| !value.is_null());
    let echo = config.get("echo") == Some(&Value::Bool(true));
    if set("message") && (set("content_type") || set("body")) {
        Err(FieldErrors::whole(
            "message cannot be used with content_type or body",
        ))
    } else if set("content_type") && !set("body") {
        Err(FieldErrors::whole("content_type requires a body"))
    } else if echo && (set("content_type") || set("body")) {
        Err(FieldErrors::whole(
            "echo cannot be used with content_type and body",
        ))
    } else {
        Ok(())
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let status = StatusCode::from_u16(config.status_code)
        .map_err(|_| format!("config.status_code: {} is no status", config.status_code))?;
    let trigger = match config.trigger {
        Some(name) => {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("config.trigger: '{name}' is not a header name"))?;
            Some((name, header))
        }
        None => None,
    };
    let content_type = config
        .content_type
        .map(|text| {
            HeaderValue::try_from(text)
                .map_err(|_| "config.content_type: must not hold control characters".to_owned())
        })
        .transpose()?;
    Ok(Arc::new(RequestTermination {
        answer: match (config.echo, config.body) {
            (true, _) => Answer::Echo,
            (false, Some(body)) => Answer::Body(body.into(), content_type),
            (false, None) => Answer::Message,
        },
        status,
        message: config
            .message
            .or_else(|| usual_message(status).map(str::to_owned)),
        trigger,
        node: context.live.node().clone(),
    }))
}

fn usual_message(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

struct RequestTermination {
    status: StatusCode,
    message: Option<String>,
    answer: Answer,
    trigger: Option<(String, HeaderName)>,
    node: Arc<Node>,
}

enum Answer {
    Message,
    Body(bytes::Bytes, Option<HeaderValue>),
    Echo,
}

impl Plugin for RequestTermination {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn needs(&self) -> Needs {
        Needs {
            request_body: matches!(self.answer, Answer::Echo),
            ..Needs::HEAD
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        if !self.is_triggered(exchange) {
            return Flow::Continue;
        }
        let mut response = LocalResponse::new(self.status);
        match &self.answer {
            Answer::Message => {
                return Flow::fault(match &self.message {
                    Some(message) => Fault::plain(self.status, message.clone()),
                    None => Fault {
                        message: None,
                        ..Fault::plain(self.status, "")
                    },
                });
            }
            Answer::Body(body, content_type) => {
                response.body = body.clone();
                if let Some(kind) = content_type {
                    response.headers.push((CONTENT_TYPE, kind.clone()));
                }
            }
            Answer::Echo => {
                let kind = HeaderValue::from_static("application/json; charset=utf-8");
                response.headers.push((CONTENT_TYPE, kind));
                response.body = self.echo(exchange).to_string().into();
            }
        }
        Flow::Respond(Box::new(response))
    }
}

impl RequestTermination {
    fn is_triggered(&self, exchange: &Exchange) -> bool {
        let Some((name, header)) = &self.trigger else {
            return true;
        };
        let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
        exchange.request.headers.contains_key(header)
            || exchange.query().is_some_and(|text| {
                query::find(text, name.as_bytes(), arguments_max) != query::Argument::Absent
            })
    }

    fn echo(&self, exchange: &Exchange) -> Value {
        let request = &exchange.request;
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
        let mut headers = Map::new();
        let serving = &exchange.snapshot.serving.plan;
        for name in request.headers.keys().take(serving.request_headers_max) {
            let mut values = request.headers.get_all(name).iter();
            let first = values.next().map(|value| text(value.as_bytes()));
            let rest: Vec<Value> = values.map(|value| text(value.as_bytes())).collect();
            let value = match first {
                Some(first) if rest.is_empty() => first,
                first => first.into_iter().chain(rest).collect(),
            };
            headers.insert(name.as_str().to_owned(), value);
        }
        let mut arguments = Map::new();
        for (name, value) in
            query::pieces(exchange.query().unwrap_or_default()).take(serving.query_arguments_max)
        {
            let value = value.map_or(Value::Bool(true), |value| text(&query::decode(value)));
            arguments.insert(
                String::from_utf8_lossy(&query::decode(name)).into_owned(),
                value,
            );
        }
        let raw_body = match &exchange.request_body {
            RequestBody::Held(body) => text(body),
            RequestBody::Absent | RequestBody::Streaming { .. } => "".into(),
        };
        let body = match Fields::of(exchange) {
            Some(Fields::Json(map)) => Value::Object(map),
            Some(Fields::Urlencoded(arguments)) => arguments
                .0
                .iter()
                .map(|(name, value)| {
                    let value = value.as_deref().map_or(Value::Bool(true), text);
                    (String::from_utf8_lossy(name).into_owned(), value)
                })
                .collect(),
            Some(Fields::Multipart(_)) | None => Value::Null,
        };
        let described = |text: Option<&Arc<str>>| -> Value {
            text.and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or(Value::Null)
        };
        let route = exchange.route.as_ref();
        json!({
            "message": self.message,
            "kong": {
                "node_id": self.node.id().to_string(),
                "worker_pid": std::process::id(),
                "hostname": self.node.hostname(),
            },
            "request": {
                "scheme": if exchange.connection.is_tls() { "https" } else { "http" },
                "host": request.headers.get(HOST).map_or(exchange.host().into(), |host| text(host.as_bytes())),
                "port": exchange.connection.port,
                "headers": headers,
                "query": arguments,
                "body": body,
                "raw_body": raw_body,
                "method": request.method.as_str(),
                "path": text(exchange.raw_path()),
            },
            "matched_route": described(route.map(|route| &route.plan.description)),
            "matched_service": described(
                route
                    .and_then(|route| route.forward.as_ref())
                    .map(|forward| &forward.plan.description),
            ),
        })
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

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    #[test]
    fn answers_with_messages() {
        let world = World::new();
        for (config, status, message) in [
            (json!({}), 503, "Service unavailable"),
            (json!({"status_code": 502}), 502, "Bad Gateway"),
            (json!({"status_code": 403, "message": "no"}), 403, "no"),
            (json!({"status_code": 200}), 200, ""),
        ] {
            let plugin = world.link(entry(), config);
            let flow = plugin.access(&mut world.exchange(Message::get("/")));
            assert_eq!(refusal(&flow), Some((status, message.to_owned())));
        }
    }

    #[test]
    fn answers_with_a_body() {
        let world = World::new();
        let plugin = world.link(
            entry(),
            json!({"status_code": 200, "content_type": "text/x", "body": "hello"}),
        );
        let Flow::Respond(answer) = plugin.access(&mut world.exchange(Message::get("/"))) else {
            panic!("expected an answer");
        };
        assert_eq!(answer.body, "hello");
        assert_eq!(answer.headers[0].1, "text/x");
    }

    #[test]
    fn waits_for_its_trigger() {
        let world = World::new();
        let plugin = world.link(entry(), json!({"trigger": "X-End"}));
        for (message, ends) in [
            (Message::get("/"), false),
            (Message::get("/").header("x-end", "1"), true),
            (Message::get("/?X-End"), true),
        ] {
            let flow = plugin.access(&mut world.exchange(message));
            assert_eq!(!matches!(flow, Flow::Continue), ends);
        }
    }

    #[test]
    fn echoes() {
        let world = World::new();
        let plugin = world.link(entry(), json!({"echo": true, "status_code": 404}));
        let message = Message::get("/a?b=1").body("application/json", r#"{"c":2}"#);
        let Flow::Respond(answer) = plugin.access(&mut world.exchange(message)) else {
            panic!("expected an answer");
        };
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(seen["message"], "Not found");
        assert_eq!(seen["request"]["path"], "/a");
        assert_eq!(seen["request"]["query"], json!({"b": "1"}));
        assert_eq!(seen["request"]["body"], json!({"c": 2}));
        assert_eq!(seen["matched_route"], json!({"name": "basket"}));
    }

    #[test]
    fn refuses_contradictions() {
        let world = World::new();
        for (config, message) in [
            (
                json!({"message": "a", "body": "b"}),
                "message cannot be used with content_type or body",
            ),
            (
                json!({"content_type": "text/x"}),
                "content_type requires a body",
            ),
            (
                json!({"echo": true, "body": "b"}),
                "echo cannot be used with content_type and body",
            ),
        ] {
            assert_eq!(
                world.refused(entry(), config),
                json!({"@entity": [message]})
            );
        }
    }
}
