//! `tcp-log`: a line of JSON for each request or stream, sent over TCP.

use std::sync::Arc;
use std::time::Duration;

use super::file_log::check_no_code;
use super::log_entry;
use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::{InstancePlan, UpstreamTlsPlan};
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::line_sender::{LineSender, Place};
use crate::runtime::contract::{LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::session::Session;
use crate::runtime::upstream_tls::UpstreamTls;

config_record! {
    /// Sends the log entry of each request or stream to a TCP server, as one line of JSON.
    pub struct Config {
        /// Name or address of the server.
        host: String = host().required(),
        /// Its port.
        port: u16 = port().required(),
        /// Milliseconds for connecting, and for each write.
        timeout: Option<f64> = number().validated_by(check_milliseconds).default(10_000),
        /// Milliseconds that a connection is kept without a line.
        keepalive: Option<f64> = number().validated_by(check_milliseconds).default(60_000),
        /// Whether TLS is spoken. The server's certificate is not verified.
        tls: bool = boolean().required().default(false),
        /// The server name of the TLS handshake, instead of the host.
        tls_sni: Option<String> = string(),
        /// Further members of the entry, made by Lua code, which this version does not run.
        custom_fields_by_lua: Option<serde_json::Map<String, serde_json::Value>> =
            map(string(), string()).validated_by(check_no_code),
    }
}

/// Longest time that may be set: a day, in milliseconds.
const MILLISECONDS_MAX: f64 = 86_400_000.0;
const TIMEOUT_MS: f64 = 10_000.0;
const KEEPALIVE_MS: f64 = 60_000.0;

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("tcp-log", 7, Config::schema()).with_streams(),
        link,
    }
}

fn check_milliseconds(value: &serde_json::Value) -> Result<(), String> {
    match value.as_f64() {
        Some(number) if !(1.0..=MILLISECONDS_MAX).contains(&number) => {
            Err(format!("must be between 1 and {MILLISECONDS_MAX}"))
        }
        _ => Ok(()),
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let name = config.tls_sni.as_deref().unwrap_or(&config.host);
    let tls = match config.tls {
        false => None,
        true => {
            let trust = &context.serving.trust;
            let tls = UpstreamTls::link(&UpstreamTlsPlan::default(), None, trust, context.live)
                .map_err(|error| format!("config.tls: {error}"))?;
            Some((tls, name.to_owned()))
        }
    };
    let milliseconds = |number: f64| Duration::from_secs_f64(number / 1000.0);
    let timeout = milliseconds(config.timeout.unwrap_or(TIMEOUT_MS));
    let keep = milliseconds(config.keepalive.unwrap_or(KEEPALIVE_MS));
    // Instances with the same place share a connection.
    let key = format!(
        "tcp-log {}:{} {timeout:?} {keep:?} {:?}",
        config.host,
        config.port,
        tls.as_ref().map(|(_, name)| name)
    );
    let sender = context.live.try_keep(key, || {
        let place = Place::new(
            &config.host,
            config.port,
            tls,
            timeout,
            keep,
            context.resolver,
        );
        LineSender::start(place)
    });
    let sender = sender.map_err(|error| format!("the system refuses a thread: {error}"))?;
    Ok(Arc::new(TcpLog { sender }))
}

struct TcpLog {
    sender: Arc<LineSender>,
}

impl Plugin for TcpLog {
    fn phases(&self) -> Phases {
        Phases::LOG.with(Phases::LOG_SESSION)
    }

    fn log(&self, exchange: &Exchange) {
        let mut line = Vec::with_capacity(log_entry::USUAL_BYTES);
        exchange.snapshot.renderer.log_entry(exchange, &mut line);
        line.push(b'\n');
        self.sender.send(line);
    }

    fn log_session(&self, session: &Session) {
        let mut line = Vec::with_capacity(log_entry::USUAL_BYTES);
        session.renderer.session_entry(session, &mut line);
        line.push(b'\n');
        self.sender.send(line);
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

    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::test_support::{Message, World};
    use crate::runtime::exchange::Try;

    #[test]
    fn sends_requests_and_streams() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let world = World::new();
        let plugin = world.link(entry(), json!({"host": "127.0.0.1", "port": port}));
        let exchange = world.exchange(Message::get("/p"));
        plugin.log(&exchange);
        let mut session = world.session();
        session.route = Some(world.route());
        session.connected = Some(session.started + Duration::from_millis(3));
        session.ended = Some(session.started + Duration::from_millis(9));
        (session.received, session.sent) = (5, 7);
        session.tries.push(Try {
            address: ([192, 0, 2, 7], 5432).into(),
            began: Duration::from_millis(1),
            choosing: Duration::ZERO,
            failed: None,
        });
        plugin.log_session(&session);
        drop((plugin, exchange, session));

        let mut text = String::new();
        server
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        let entries: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries[0]["request"]["uri"], "/p");
        for (pointer, expected) in [
            (
                "/session",
                json!({"received": 5, "sent": 7, "status": 200, "server_port": 8000}),
            ),
            ("/upstream", json!({"received": 7, "sent": 5})),
            ("/latencies", json!({"kong": 3, "session": 9})),
            ("/tries/0/port", json!(5432)),
            ("/client_ip", json!("192.0.2.1")),
            ("/route/name", json!("basket")),
            ("/service/name", json!("shop")),
            ("/workspace", json!("w")),
            ("/request", Value::Null),
        ] {
            let found = entries[1].pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(found, expected, "{pointer}");
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        let world = World::new();
        for (config, errors) in [
            (
                json!({"host": "a.test"}),
                json!({"config": {"port": "required field missing"}}),
            ),
            (
                json!({"host": "a.test", "port": 1, "timeout": 0}),
                json!({"config": {"timeout": "must be between 1 and 86400000"}}),
            ),
        ] {
            assert_eq!(world.refused(entry(), config), errors);
        }
        let began = Instant::now();
        drop(world.link(entry(), json!({"host": "127.0.0.1", "port": 1})));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
