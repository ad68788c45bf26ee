//! `ip-restriction`: who may pass, by address.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use ipnet::IpNet;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::model::schema::at_least_one_of;
use crate::plugins::shared::configuration::read;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::session::{Closing, Session, Verdict};

config_record! {
    /// Lets clients pass, or turns them away, by their addresses. Streams are closed.
    pub struct Config {
        /// Addresses and ranges that may pass; when set, nobody else may.
        allow: Option<Vec<String>> = array(ip_or_cidr()),
        /// Addresses and ranges that may not pass; looked at first.
        deny: Option<Vec<String>> = array(ip_or_cidr()),
        /// Status of the refusal instead of 403.
        status: Option<f64> = number().validated_by(check_status),
        /// Text of the refusal instead of the usual one.
        message: Option<String> = string(),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("ip-restriction", 990, Config::schema())
            .protocols(&["http", "https", "tcp", "tls", "grpc", "grpcs"])
            .further_protocols(&["tls_passthrough", "udp", "ws", "wss"])
            .with_messages()
            .check(at_least_one_of(&["config.allow", "config.deny"])),
        link,
    }
}

/// Refuses numbers that cannot be the status of an answer.
pub(super) fn check_status(value: &serde_json::Value) -> Result<(), String> {
    match value.as_f64() {
        Some(number) if number.fract() != 0.0 || !(200.0..=599.0).contains(&number) => {
            Err("must be a whole number between 200 and 599".to_owned())
        }
        _ => Ok(()),
    }
}

/// The status that `check_status` let through.
pub(super) fn status(number: f64) -> Result<StatusCode, String> {
    // In range, as checked; a cast of what is not would saturate and be refused here.
    StatusCode::from_u16(number as u16).map_err(|_| format!("{number} is not a status"))
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    Ok(Arc::new(IpRestriction {
        allow: networks(config.allow).map_err(|error| format!("config.allow: {error}"))?,
        deny: networks(config.deny).map_err(|error| format!("config.deny: {error}"))?,
        status: config
            .status
            .map_or(Ok(StatusCode::FORBIDDEN), status)
            .map_err(|error| format!("config.status: {error}"))?,
        message: config.message,
    }))
}

fn networks(list: Option<Vec<String>>) -> Result<Vec<IpNet>, String> {
    list.unwrap_or_default()
        .iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("'{text}' is neither an address nor a range"))
        })
        .collect()
}

struct IpRestriction {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    status: StatusCode,
    message: Option<String>,
}

#[async_trait]
impl Plugin for IpRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS.with(Phases::PREREAD)
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        match self.refusal(exchange.client_address) {
            None => Flow::Continue,
            Some(message) => Flow::fault(Fault::refuse(self.status, message)),
        }
    }

    async fn preread(&self, session: &mut Session) -> Verdict {
        match self.refusal(session.client_address) {
            None => Verdict::Continue,
            Some(message) => Verdict::Close(Closing::new(self.status, message)),
        }
    }
}

impl IpRestriction {
    /// What to tell a client that may not pass.
    fn refusal(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        let holds = |list: &[IpNet]| list.iter().any(|network| network.contains(&address));
        if !holds(&self.deny) && (self.allow.is_empty() || holds(&self.allow)) {
            return None;
        }
        Some(match &self.message {
            Some(message) => message.clone(),
            None => format!("IP address not allowed: {address}"),
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

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World, refusal};

    #[test]
    fn denies_first_then_allows() {
        let world = World::new();
        let usual = |address: &str| Some((403, format!("IP address not allowed: {address}")));
        for (config, address, refused) in [
            (json!({"allow": ["10.0.0.0/8"]}), "10.1.2.3", None),
            (json!({"allow": ["10.0.0.0/8"]}), "::ffff:10.1.2.3", None),
            (
                json!({"allow": ["10.0.0.0/8"]}),
                "11.0.0.1",
                usual("11.0.0.1"),
            ),
            (json!({"deny": ["10.0.0.1"]}), "10.0.0.2", None),
            (
                json!({"allow": ["10.0.0.0/8"], "deny": ["10.0.0.1"]}),
                "10.0.0.1",
                usual("10.0.0.1"),
            ),
            (
                json!({"deny": ["2001:db8::/32"]}),
                "2001:db8::1",
                usual("2001:db8::1"),
            ),
            (
                json!({"deny": ["10.0.0.1"], "status": 418, "message": "go away"}),
                "10.0.0.1",
                Some((418, "go away".to_owned())),
            ),
        ] {
            let case = format!("{config} {address}");
            let plugin = world.link(entry(), config);
            let mut exchange = world.exchange(Message::get("/"));
            exchange.client_address = address.parse().unwrap();
            assert_eq!(refusal(&plugin.access(&mut exchange)), refused, "{case}");
        }
    }
    #[tokio::test]
    async fn closes_streams() {
        let world = World::new();
        let plugin = world.link(entry(), json!({"deny": ["192.0.2.0/24"]}));
        let mut session = world.session();
        let Verdict::Close(closing) = plugin.preread(&mut session).await else {
            panic!("not closed");
        };
        let cause = "IP address not allowed: 192.0.2.1";
        assert_eq!(closing, Closing::new(StatusCode::FORBIDDEN, cause));
        session.client_address = IpAddr::from([10, 0, 0, 1]);
        let verdict = plugin.preread(&mut session).await;
        assert!(matches!(verdict, Verdict::Continue));
    }
}
