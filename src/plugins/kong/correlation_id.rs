//! `correlation-id`: an identifier for each request, for the upstream, the client and the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use http::HeaderValue;
use pingora_http::ResponseHeader;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::serving::AccessLogFormat;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::{lenient_value, set_response};
use crate::runtime::clock;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::snapshot::id_value;
use crate::runtime::titled::TitledName;

config_record! {
    /// Gives each request an identifier in a header, unless it has one already.
    pub struct Config {
        /// The header.
        header_name: Option<String> = header_name().default("Kong-Request-ID"),
        /// `uuid`: a UUID for each request. `uuid#counter`: a UUID for the process and a number for each request.
        /// `tracker`: addresses, process, connection, requests on it, and time.
        generator: Generator = string()
            .one_of(&["uuid", "uuid#counter", "tracker"])
            .required()
            .default("uuid#counter"),
        /// Send the header to the client too.
        echo_downstream: bool = boolean().required().default(false),
    }
}

/// How identifiers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Generator {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "uuid#counter")]
    Counter,
    #[serde(rename = "tracker")]
    Tracker,
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("correlation-id", 100_001, Config::schema()).with_messages(),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let name = config.header_name.as_deref().unwrap_or("Kong-Request-ID");
    let header = TitledName::parse(name).map_err(|error| format!("config.header_name: {error}"))?;
    Ok(Arc::new(CorrelationId {
        header: Arc::new(header),
        generator: config.generator,
        echo: config.echo_downstream,
    }))
}

struct CorrelationId {
    header: Arc<TitledName>,
    generator: Generator,
    echo: bool,
}

/// The process' part of `uuid#counter` identifiers.
static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().to_string());
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Plugin for CorrelationId {
    fn phases(&self) -> Phases {
        match self.echo {
            true => Phases::ACCESS.with(Phases::HEADER_FILTER),
            false => Phases::ACCESS,
        }
    }

    fn needs(&self) -> Needs {
        // The echo is read from the head.
        match self.echo {
            true => Needs::HEAD,
            false => Needs::NOTHING,
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let present = exchange.request.fields().get(&self.header.name);
        let made = match present {
            Some(id) if !id.is_empty() => None,
            _ => Some(self.generate(exchange)),
        };
        if writes_entry(exchange)
            && let Some(id) = made.as_ref().map(HeaderValue::as_bytes).or(present)
        {
            let note = String::from_utf8_lossy(id).into_owned();
            exchange.notes.push(("correlation_id", note.into()));
        }
        if let Some(id) = made {
            exchange.tell_upstream(&self.header, Some(id));
        }
        Flow::Continue
    }

    fn header_filter(&self, exchange: &mut Exchange, head: &mut ResponseHeader) {
        // The request has none when an answer was made before this plugin's turn.
        let id = match exchange.request.headers.get(&self.header.name) {
            Some(id) => id.clone(),
            None => self.generate(exchange),
        };
        set_response(head, self.header.title.clone(), id);
    }
}

/// Whether somebody may write a log entry of this request, and so its notes.
fn writes_entry(exchange: &Exchange) -> bool {
    exchange.snapshot.serving.plan.access_log == AccessLogFormat::Entry
        || exchange
            .route
            .as_ref()
            .is_some_and(|route| route.pipeline.phases.has(Phases::LOG))
}

impl CorrelationId {
    fn generate(&self, exchange: &Exchange) -> HeaderValue {
        match self.generator {
            Generator::Uuid => id_value(&Uuid::new_v4()),
            Generator::Counter => {
                let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
                let mut text: SmallVec<[u8; 64]> = SmallVec::new();
                text.extend_from_slice(PROCESS.as_bytes());
                text.push(b'#');
                text.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
                lenient_value(&text)
            }
            Generator::Tracker => tracker(exchange),
        }
    }
}

/// `ip-port-pid-connection-requests-time`: where the client connected to, and when.
fn tracker(exchange: &Exchange) -> HeaderValue {
    let connection = &exchange.connection;
    let milliseconds = clock::unix_milliseconds(exchange.started);
    let text = format!(
        "{}-{}-{}-{}-{}-{}.{:03}",
        connection.local.ip(),
        connection.port,
        std::process::id(),
        connection.serial,
        connection.requests.load(Ordering::Relaxed),
        milliseconds / 1_000,
        milliseconds % 1_000,
    );
    lenient_value(text.as_bytes())
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

    #[test]
    fn makes_identifiers() {
        let world = World::new();
        for (generator, pattern) in [
            ("uuid", r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
            ("uuid#counter", r"^[0-9a-f-]{36}#\d+$"),
            ("tracker", r"^[\d.]+-8000-\d+-\d+-1-\d{10}\.\d{3}$"),
        ] {
            let plugin = world.link(entry(), json!({"generator": generator}));
            let mut exchange = world.exchange(Message::get("/"));
            plugin.access(&mut exchange);
            let id = exchange.request.headers["kong-request-id"]
                .to_str()
                .unwrap();
            assert!(regex::Regex::new(pattern).unwrap().is_match(id), "{id}");
            assert_eq!(exchange.notes[0], ("correlation_id", json!(id)));
        }
    }

    #[test]
    fn keeps_the_clients_own_and_echoes() {
        let world = World::new();
        let plugin = world.link(
            entry(),
            json!({"header_name": "X-Id", "echo_downstream": true}),
        );
        let mut exchange = world.exchange(Message::get("/").header("x-id", "mine"));
        plugin.access(&mut exchange);
        assert_eq!(exchange.request.headers["x-id"], "mine");
        let mut head = ResponseHeader::build(200, None).unwrap();
        plugin.header_filter(&mut exchange, &mut head);
        assert_eq!(head.headers["x-id"], "mine");
    }
}
