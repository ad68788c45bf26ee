//! `file-log`: a line of JSON for each request or stream, appended to a file.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::log_entry;
use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::log_writer::LogWriter;
use crate::runtime::contract::{LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::session::Session;

config_record! {
    /// Appends the log entry of each request or stream to a file, as one line of JSON.
    pub struct Config {
        /// The file; relative paths start at the instance's prefix. Made when there is none, in a folder that exists.
        path: String = string().required().matching("^[^*&%\\`]+$", is_path),
        /// Open the file anew for each line, so that a rotated file is let go.
        reopen: bool = boolean().required().default(false),
        /// Further members of the entry, made by Lua code, which this version does not run.
        custom_fields_by_lua: Option<serde_json::Map<String, serde_json::Value>> =
            map(string(), string()).validated_by(check_no_code),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("file-log", 9, Config::schema()).with_streams(),
        link,
    }
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', '&', '%', '\\', '`', '\0'])
}

pub(super) fn check_no_code(value: &Value) -> Result<(), String> {
    match value.as_object() {
        Some(code) if !code.is_empty() => {
            Err("not supported by this version: Lua code does not run here".to_owned())
        }
        _ => Ok(()),
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let path = context.prefix.join(&config.path);
    let writer = context.live.keep("file-log", || LogWriter::start().ok());
    if writer.is_none() {
        return Err("file-log: the system refuses a thread for writing".to_owned());
    }
    Ok(Arc::new(FileLog {
        path: path.into(),
        reopen: config.reopen,
        writer,
    }))
}

struct FileLog {
    path: Arc<Path>,
    reopen: bool,
    writer: Arc<Option<LogWriter>>,
}

impl Plugin for FileLog {
    fn phases(&self) -> Phases {
        Phases::LOG.with(Phases::LOG_SESSION)
    }

    fn log(&self, exchange: &Exchange) {
        let mut line = Vec::with_capacity(log_entry::USUAL_BYTES);
        exchange.snapshot.renderer.log_entry(exchange, &mut line);
        self.append(line);
    }

    fn log_session(&self, session: &Session) {
        let mut line = Vec::with_capacity(log_entry::USUAL_BYTES);
        session.renderer.session_entry(session, &mut line);
        self.append(line);
    }
}

impl FileLog {
    fn append(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if let Some(writer) = &*self.writer {
            writer.append(&self.path, self.reopen, line);
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

    use std::time::Duration;

    use pingora_http::ResponseHeader;
    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World, principal_id};
    use crate::runtime::exchange::{ResponseSource, Try, TryFailure};

    #[test]
    fn writes_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.log");
        let world = World::new().principal("alice", &[]);
        let plugin = world.link(entry(), json!({"path": path.to_str().unwrap()}));
        let mut exchange = world.exchange(
            Message::get("/p?a=1&a=2&b")
                .header("Authorization", "Basic secret")
                .header("X-A", "1")
                .header("X-A", "2"),
        );
        world.authenticate(&mut exchange, "alice");
        let at = |ms| Some(exchange.started + Duration::from_millis(ms));
        let (forwarded, answered, ended) = (at(2), at(12), at(15));
        exchange.timing.forwarded = forwarded;
        exchange.timing.answered = answered;
        exchange.timing.ended = ended;
        exchange.status = 200;
        exchange.upstream_status = 200;
        exchange.response_source = ResponseSource::Upstream;
        exchange.response = Some(ResponseHeader::build(200, None).unwrap().into());
        exchange.upstream_target = Some(b"/base/p?a=1&a=2&b"[..].into());
        let attempt = |port, failed| Try {
            address: ([192, 0, 2, 7], port).into(),
            began: Duration::from_millis(1),
            choosing: Duration::ZERO,
            failed,
        };
        exchange
            .tries
            .push(attempt(1, Some(TryFailure { code: 502 })));
        exchange.tries.push(attempt(2, None));
        exchange.notes.push(("correlation_id", json!("c-1")));
        plugin.log(&exchange);
        drop(plugin);
        drop(exchange);

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("}\n") && !text.contains("secret"));
        let seen: Value = serde_json::from_str(&text).unwrap();
        for (pointer, expected) in [
            ("/request/method", json!("GET")),
            ("/request/uri", json!("/p?a=1&a=2&b")),
            (
                "/request/url",
                json!("http://gateway.test:8000/p?a=1&a=2&b"),
            ),
            ("/request/querystring", json!({"a": ["1", "2"], "b": true})),
            ("/request/headers/authorization", json!("REDACTED")),
            ("/request/headers/x-a", json!(["1", "2"])),
            ("/upstream_uri", json!("/base/p?a=1&a=2&b")),
            ("/upstream_status", json!("502, 200")),
            ("/response/status", json!(200)),
            (
                "/latencies",
                json!({"request": 15, "kong": 2, "proxy": 10, "receive": 3}),
            ),
            ("/tries/0/code", json!(502)),
            ("/tries/0/state", json!("failed")),
            ("/tries/1/code", Value::Null),
            ("/tries/1/port", json!(2)),
            ("/client_ip", json!("192.0.2.1")),
            ("/route/name", json!("basket")),
            ("/service/name", json!("shop")),
            ("/consumer/username", json!("alice")),
            (
                "/authenticated_entity/consumer_id",
                json!(principal_id("alice")),
            ),
            ("/source", json!("upstream")),
            ("/workspace", json!("w")),
            ("/correlation_id", json!("c-1")),
        ] {
            let found = seen.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(found, expected, "{pointer}");
        }
    }

    #[test]
    fn refuses_code_and_odd_paths() {
        let world = World::new();
        for (config, errors) in [
            (
                json!({"path": "/a", "custom_fields_by_lua": {"a": "return 1"}}),
                json!({"config": {"custom_fields_by_lua": "not supported by this version: Lua code does not run here"}}),
            ),
            (
                json!({"path": "/a*"}),
                json!({"config": {"path": "invalid value: /a*"}}),
            ),
            (
                json!({}),
                json!({"config": {"path": "required field missing"}}),
            ),
        ] {
            assert_eq!(world.refused(entry(), config), errors);
        }
    }
}
