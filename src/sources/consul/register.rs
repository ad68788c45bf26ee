//! A proxy that registers itself: what it tells the agent, how it stays healthy, how it leaves.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::client::{AgentClient, AgentError, Question, encode};
use super::discovery::ByHand;

/// The agent takes a proxy for dead that says nothing for so long.
const TTL: &str = "30s";
/// How often it is told that all is well.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// Every third heartbeat registers anew: the agent may have forgotten.
const RECONCILE_EVERY: u32 = 3;
/// Tries to leave.
const LEAVE_TRIES: u32 = 3;
/// Between them.
const LEAVE_PAUSE: Duration = Duration::from_millis(500);

/// Keeps a registration.
pub struct Registrar {
    client: Arc<AgentClient>,
    id: String,
    body: String,
}

impl Registrar {
    pub fn new(client: Arc<AgentClient>, proxy: &ByHand) -> Self {
        let id = proxy.id();
        let (host, port) = proxy.listen.clone().unwrap_or_default();
        let upstreams: Vec<_> = proxy
            .upstreams
            .iter()
            .map(|upstream| {
                json!({
                    "DestinationType": upstream.destination_type,
                    "DestinationName": upstream.destination_name,
                    "LocalBindAddress": upstream.local_bind_address,
                    "LocalBindPort": upstream.local_bind_port,
                })
            })
            .collect();
        // An address for all interfaces is none that others can call: the node's own counts then.
        let address = match host.as_str() {
            "0.0.0.0" | "::" => "",
            host => host,
        };
        let body = json!({
            "Kind": "connect-proxy",
            "ID": id,
            "Name": format!("{}-proxy", proxy.service),
            "Address": address,
            "Port": port,
            "Proxy": { "DestinationServiceName": proxy.service, "Upstreams": upstreams },
            "Check": { "CheckID": format!("{id}-ttl"), "Name": "Sallyport", "TTL": TTL, "Status": "passing" },
        });
        Self {
            client,
            id,
            body: body.to_string(),
        }
    }

    /// Registers, and keeps the registration until cancelled.
    pub async fn keep(&self) {
        let mut beats = tokio::time::interval(HEARTBEAT_EVERY);
        let mut beat: u32 = 0;
        let mut registered = false;
        loop {
            beats.tick().await;
            if !registered || beat.is_multiple_of(RECONCILE_EVERY) {
                registered = self.told("register", self.register().await);
            }
            if registered {
                let pass = format!(
                    "/v1/agent/check/pass/{}",
                    encode(&format!("{}-ttl", self.id))
                );
                let question = Question::send(Method::PUT, pass, String::new());
                registered = self.told("heartbeat", self.client.ask(&question).await.map(drop));
            }
            beat = beat.wrapping_add(1);
        }
    }

    fn told(&self, what: &str, done: Result<(), AgentError>) -> bool {
        if let Err(error) = &done {
            tracing::warn!(id = %self.id, "{what}: {error}");
        }
        done.is_ok()
    }

    async fn register(&self) -> Result<(), AgentError> {
        let target = "/v1/agent/service/register";
        let question = Question::send(Method::PUT, target, self.body.clone());
        self.client.ask(&question).await.map(drop)
    }

    /// Takes the registration back.
    pub async fn leave(&self) {
        let target = format!("/v1/agent/service/deregister/{}", encode(&self.id));
        let question = Question::send(Method::PUT, target, String::new());
        for attempt in 1..=LEAVE_TRIES {
            match self.client.ask(&question).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(id = %self.id, attempt, "deregister: {error}"),
            }
            tokio::time::sleep(LEAVE_PAUSE).await;
        }
    }
}
