//! `websocket-validator`: messages of a WebSocket against JSON schemas.

use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::{MESSAGE_PROTOCOLS, at_least_one_of};
use crate::plugins::shared::configuration::read;
use crate::runtime::contract::{LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::message::{Ending, Message, MessageKind, MessageVerdict, code};

/// How far a pattern of a schema may search before the message counts as invalid.
const PATTERN_STEPS_MAX: usize = 100_000;

config_record! {
    /// Closes WebSockets whose messages do not fit: the sender is told 1007, the other side 1001. Kinds of messages
    /// without a schema pass.
    pub struct Config {
        /// Schemas for messages from the client.
        client: Option<Direction> = Direction::schema_kind(),
        /// Schemas for messages from the upstream.
        upstream: Option<Direction> = Direction::schema_kind(),
    }
}

config_record! {
    /// Schemas for one direction.
    pub struct Direction {
        /// For text messages.
        text: Option<Terms> = Terms::schema_kind(),
        /// For binary messages.
        binary: Option<Terms> = Terms::schema_kind(),
    }
}

config_record! {
    /// A schema in its language.
    pub struct Terms {
        /// The language: JSON schema, draft 4.
        kind as "type": String = string().required().one_of(&["draft4"]),
        /// The schema, as JSON text. References lead nowhere but within it.
        schema: String = string().required().validated_by(check_schema),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("websocket-validator", 1006, Config::schema())
            .protocols(MESSAGE_PROTOCOLS)
            .check(at_least_one_of(&[
                "config.client.text",
                "config.client.binary",
                "config.upstream.text",
                "config.upstream.binary",
            ])),
        link,
    }
}

fn check_schema(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) => compile(text).map(drop),
        None => Ok(()),
    }
}

fn compile(text: &str) -> Result<Validator, String> {
    let schema: Value =
        serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    jsonschema::draft4::options()
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(PATTERN_STEPS_MAX))
        .build(&schema)
        .map_err(|error| format!("is not a schema of draft 4: {error}"))
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let validator = |check: Option<Terms>, place: &str| {
        check
            .map(|check| compile(&check.schema))
            .transpose()
            .map_err(|error| format!("config.{place}.schema {error}"))
    };
    let side = |direction: Option<Direction>, name: &str| {
        let (text, binary) = match direction {
            Some(direction) => (direction.text, direction.binary),
            None => (None, None),
        };
        Ok::<_, String>(Schemas {
            text: validator(text, &format!("{name}.text"))?,
            binary: validator(binary, &format!("{name}.binary"))?,
        })
    };
    Ok(Arc::new(WebsocketValidator {
        client: side(config.client, "client")?,
        upstream: side(config.upstream, "upstream")?,
    }))
}

struct WebsocketValidator {
    client: Schemas,
    upstream: Schemas,
}

struct Schemas {
    text: Option<Validator>,
    binary: Option<Validator>,
}

impl Schemas {
    fn is_empty(&self) -> bool {
        self.text.is_none() && self.binary.is_none()
    }

    fn judge(&self, message: &Message) -> MessageVerdict {
        let validator = match message.kind {
            MessageKind::Text => &self.text,
            MessageKind::Binary => &self.binary,
            _ => &None,
        };
        let Some(validator) = validator else {
            return MessageVerdict::Pass;
        };
        let fits = serde_json::from_slice(&message.data)
            .is_ok_and(|content: Value| validator.is_valid(&content));
        match fits {
            true => MessageVerdict::Pass,
            false => {
                let ending = Ending::blaming_sender(code::INVALID_DATA, "");
                MessageVerdict::End(Box::new(ending))
            }
        }
    }
}

impl Plugin for WebsocketValidator {
    fn phases(&self) -> Phases {
        let mut phases = Phases::NONE;
        if !self.client.is_empty() {
            phases = phases.with(Phases::CLIENT_MESSAGE);
        }
        if !self.upstream.is_empty() {
            phases = phases.with(Phases::UPSTREAM_MESSAGE);
        }
        phases
    }

    fn client_message(&self, _: &mut Exchange, message: &mut Message) -> MessageVerdict {
        self.client.judge(message)
    }

    fn upstream_message(&self, _: &mut Exchange, message: &mut Message) -> MessageVerdict {
        self.upstream.judge(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{self, World};

    fn message(kind: MessageKind, data: &'static str) -> Message {
        Message {
            kind,
            data: Bytes::from_static(data.as_bytes()),
            code: None,
        }
    }

    #[test]
    fn judges_each_direction_and_kind_by_its_own_schema() {
        let object = r#"{"type": "object", "required": ["id"]}"#;
        let number = r#"{"type": "number", "maximum": 5, "exclusiveMaximum": true}"#;
        let config = json!({
            "client": {"text": {"type": "draft4", "schema": object}},
            "upstream": {"binary": {"type": "draft4", "schema": number}},
        });
        let world = World::new();
        let plugin = world.link(entry(), config);
        assert!(plugin.phases().has(Phases::CLIENT_MESSAGE));
        assert!(plugin.phases().has(Phases::UPSTREAM_MESSAGE));
        let mut exchange = world.exchange(test_support::Message::get("/"));
        for (kind, data, client, upstream) in [
            (MessageKind::Text, r#"{"id": 1}"#, true, true),
            (MessageKind::Text, r#"{"no": 1}"#, false, true),
            (MessageKind::Text, "not JSON", false, true),
            (MessageKind::Text, "", false, true),
            (MessageKind::Binary, "4.5", true, true),
            (MessageKind::Binary, "5", true, false),
            (MessageKind::Ping, "nothing", true, true),
            (MessageKind::Close, "nothing", true, true),
        ] {
            let passes = |verdict| match verdict {
                MessageVerdict::Pass => true,
                MessageVerdict::End(ending) => {
                    assert_eq!((ending.sender.code, ending.peer.code), (1007, 1001));
                    false
                }
                MessageVerdict::Drop => panic!("dropped"),
            };
            let verdict = plugin.client_message(&mut exchange, &mut message(kind, data));
            assert_eq!(passes(verdict), client, "client: {data}");
            let verdict = plugin.upstream_message(&mut exchange, &mut message(kind, data));
            assert_eq!(passes(verdict), upstream, "upstream: {data}");
        }
    }

    #[test]
    fn refuses_what_is_no_schema() {
        for (schema, reason) in [
            ("{", "is not JSON"),
            (r#"{"type": "nothing"}"#, "is not a schema"),
            (
                r#"{"$ref": "https://example.com/schema"}"#,
                "is not a schema",
            ),
        ] {
            let error = check_schema(&json!(schema)).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn a_pattern_does_not_search_for_ever() {
        let validator = compile(r#"{"pattern": "^(?=(a+)+$)x"}"#).unwrap();
        let text = format!("\"{}b\"", "a".repeat(60));
        let content: Value = serde_json::from_str(&text).unwrap();
        assert!(!validator.is_valid(&content));
    }
}
