//! `websocket-size-limit`: how long the messages of a WebSocket may be.

use std::sync::Arc;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::{MESSAGE_PROTOCOLS, at_least_one_of};
use crate::plugins::shared::configuration::read;
use crate::runtime::contract::{Flow, LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::message::MESSAGE_BYTES_MAX;

config_record! {
    /// Closes WebSockets whose messages are too long: the sender is told 1009, the other side 1001.
    pub struct Config {
        /// The longest message from the client, in bytes, instead of 1 MiB.
        client_max_payload: Option<u32> = integer().between(1, MESSAGE_BYTES_MAX),
        /// The longest message from the upstream, in bytes, instead of 16 MiB.
        upstream_max_payload: Option<u32> = integer().between(1, MESSAGE_BYTES_MAX),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("websocket-size-limit", 1003, Config::schema())
            .protocols(MESSAGE_PROTOCOLS)
            .check(at_least_one_of(&[
                "config.client_max_payload",
                "config.upstream_max_payload",
            ])),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    Ok(Arc::new(WebsocketSizeLimit { config }))
}

struct WebsocketSizeLimit {
    config: Config,
}

impl Plugin for WebsocketSizeLimit {
    fn phases(&self) -> Phases {
        Phases::HANDSHAKE
    }

    fn handshake(&self, exchange: &mut Exchange) -> Flow {
        let limits = &mut exchange.message_limits;
        limits.client = self.config.client_max_payload.unwrap_or(limits.client);
        limits.upstream = self.config.upstream_max_payload.unwrap_or(limits.upstream);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World};
    use crate::runtime::message::MessageLimits;

    #[test]
    fn sets_what_is_configured() {
        let usual = MessageLimits::default();
        for (config, client, upstream) in [
            (json!({"client_max_payload": 5}), 5, usual.upstream),
            (
                json!({"upstream_max_payload": 1 << 25}),
                usual.client,
                1 << 25,
            ),
        ] {
            let world = World::new();
            let plugin = world.link(entry(), config);
            let mut exchange = world.exchange(Message::get("/"));
            assert!(matches!(plugin.handshake(&mut exchange), Flow::Continue));
            assert_eq!(exchange.message_limits, MessageLimits { client, upstream });
        }
    }
}
