//! Mesh gateways: which targets are behind them, where they are, and what is expected at their other end.
//!
//! A gateway looks at the server name of the handshake alone and passes the connection on. Start at [`mode_for`].

use super::answers::HealthEntry;
use super::chain::ChainTarget;
use super::instance::{Healthy, Instance, share};
use super::registration::GatewayMode;

/// More gateways than this are not looked at.
const GATEWAYS_MAX: usize = 256;

/// A mesh gateway that takes traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Host name, IPv4 or IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    pub weight: u32,
}

/// The way to a target for somebody in `own` (a datacenter, empty while it is not known). `written` is what the one who
/// calls says, and wins over what the target says.
pub fn mode_for(target: &ChainTarget, own: &str, written: Option<GatewayMode>) -> GatewayMode {
    let elsewhere = !target.datacenter.is_empty() && !own.is_empty() && target.datacenter != own;
    if !elsewhere {
        return GatewayMode::Direct;
    }
    let of_target = match target.mesh_gateway.mode.as_str() {
        "local" => Some(GatewayMode::Local),
        "remote" => Some(GatewayMode::Remote),
        "none" => Some(GatewayMode::Direct),
        _ => None,
    };
    written.or(of_target).unwrap_or_default()
}

/// The gateways among these entries that take traffic. Those of the own datacenter are reached at their usual address,
/// those of another one at the one for the outside (`wan`).
pub fn gateways(entries: &[HealthEntry], mode: GatewayMode) -> Vec<Gateway> {
    let gateway = |entry: &HealthEntry| {
        if entry.service.kind != "mesh-gateway" {
            return None;
        }
        let weight = share(entry, Healthy::PassingAndWarning)?;
        let service = &entry.service;
        let usual = match service.address.as_str() {
            "" => (entry.node.address.as_str(), service.port),
            address => (address, service.port),
        };
        let outside = || match service.tagged_addresses.get("wan") {
            Some(wan) if !wan.address.is_empty() => (wan.address.as_str(), wan.port),
            _ => match entry.node.tagged_addresses.get("wan") {
                Some(wan) if service.address.is_empty() => (wan.as_str(), service.port),
                _ => usual,
            },
        };
        let (host, port) = match mode {
            GatewayMode::Remote => outside(),
            GatewayMode::Local | GatewayMode::Direct => usual,
        };
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Gateway {
            host: host.to_owned(),
            port,
            weight,
        })
    };
    let entries = entries.iter().take(GATEWAYS_MAX);
    entries.filter_map(gateway).collect()
}

/// The ways to these instances through the gateways: at the other end any of the instances may answer.
pub fn through(instances: &[Instance], gateways: &[Gateway]) -> Vec<Instance> {
    let Some(first) = instances.first() else {
        return Vec::new();
    };
    let mut identities = Vec::new();
    for instance in instances {
        for identity in &instance.identities {
            if !identities.contains(identity) {
                identities.push(identity.clone());
            }
        }
    }
    let way = |gateway: &Gateway| Instance {
        id: format!("gateway {}:{}", gateway.host, gateway.port),
        host: gateway.host.clone(),
        port: gateway.port,
        weight: gateway.weight,
        identities: identities.clone(),
        server_name: first.server_name.clone(),
    };
    gateways.iter().map(way).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_other_datacenters_are_behind_gateways() {
        let target = |datacenter: &str, mode: &str| -> ChainTarget {
            serde_json::from_str(&format!(
                r#"{{"Datacenter":"{datacenter}","MeshGateway":{{"Mode":"{mode}"}}}}"#
            ))
            .unwrap()
        };
        use GatewayMode::{Direct, Local, Remote};
        for (datacenter, own, of_target, written, mode) in [
            ("dc1", "dc1", "local", None, Direct),
            ("dc2", "dc1", "local", None, Local),
            ("dc2", "dc1", "", None, Direct),
            ("dc2", "dc1", "local", Some(Remote), Remote),
            ("dc2", "dc1", "local", Some(Direct), Direct),
            ("dc2", "", "local", None, Direct),
        ] {
            let found = mode_for(&target(datacenter, of_target), own, written);
            assert_eq!(found, mode, "{datacenter} {own} {of_target} {written:?}");
        }
    }

    #[test]
    fn gateways_have_an_inside_and_an_outside() {
        let entries: Vec<HealthEntry> = serde_json::from_str(
            r#"[
            {"Node":{"Address":"10.0.0.1","TaggedAddresses":{"wan":"192.0.2.1"}},
             "Service":{"Kind":"mesh-gateway","Port":8443}},
            {"Node":{"Address":"10.0.0.2"},
             "Service":{"Kind":"mesh-gateway","Address":"10.1.0.2","Port":8443,
                        "TaggedAddresses":{"wan":{"Address":"192.0.2.2","Port":443}}}},
            {"Node":{"Address":"10.0.0.3"},"Service":{"Kind":"mesh-gateway","Port":8443},
             "Checks":[{"Status":"critical"}]},
            {"Node":{"Address":"10.0.0.4"},"Service":{"Kind":"","Port":8443}}
            ]"#,
        )
        .unwrap();
        let shown = |mode| -> Vec<String> {
            let found = gateways(&entries, mode);
            found
                .iter()
                .map(|it| format!("{}:{}", it.host, it.port))
                .collect()
        };
        assert_eq!(
            shown(GatewayMode::Local),
            ["10.0.0.1:8443", "10.1.0.2:8443"]
        );
        assert_eq!(
            shown(GatewayMode::Remote),
            ["192.0.2.1:8443", "192.0.2.2:443"]
        );
    }
}
