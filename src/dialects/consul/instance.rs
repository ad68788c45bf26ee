//! Instances of an upstream: where one is, whether it takes traffic, and whom it must prove to be.
//!
//! Start at [`instances`].

use super::answers::HealthEntry;
use super::spiffe::{DEFAULT, ServiceIdentity, SpiffeId};

/// More instances of one service than this are not taken over.
pub const INSTANCES_MAX: usize = 10_000;

/// One instance that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id and node: stable as long as it is registered.
    pub id: String,
    /// Host name, IPv4 or IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    pub weight: u32,
    /// Whom its certificate must speak for: one of these.
    pub identities: Vec<ServiceIdentity>,
    /// The server name to send, where its registration demands one.
    pub server_name: Option<String>,
}

/// What was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub id: String,
    pub why: String,
}

/// Which health counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healthy {
    /// Those with warnings serve with their own weight.
    PassingAndWarning,
    /// Passing alone.
    Passing,
}

/// The instances that take traffic.
///
/// `asked` is the service that was asked for; `trust_domain` that of the roots.
pub fn instances(
    entries: &[HealthEntry],
    asked: &str,
    trust_domain: &str,
    healthy: Healthy,
) -> (Vec<Instance>, Vec<Skipped>) {
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    for entry in entries.iter().take(INSTANCES_MAX) {
        let Some(weight) = share(entry, healthy) else {
            continue;
        };
        match instance(entry, asked, trust_domain, weight) {
            Ok(instance) => found.push(instance),
            Err(why) => skipped.push(Skipped {
                id: entry.service.id.clone(),
                why,
            }),
        }
    }
    (found, skipped)
}

/// The share of an instance; none if it takes no traffic.
pub(super) fn share(entry: &HealthEntry, healthy: Healthy) -> Option<u32> {
    let is = |status: &str| entry.checks.iter().any(|check| check.status == status);
    let known = |check: &super::answers::HealthCheck| {
        matches!(check.status.as_str(), "passing" | "warning" | "critical")
    };
    if is("critical") || !entry.checks.iter().all(known) {
        return None;
    }
    let weight = match is("warning") {
        true if healthy == Healthy::Passing => return None,
        true => entry.service.weights.warning,
        false => entry.service.weights.passing,
    };
    (weight > 0).then_some(weight)
}

fn instance(
    entry: &HealthEntry,
    asked: &str,
    trust_domain: &str,
    weight: u32,
) -> Result<Instance, String> {
    let service = &entry.service;
    let or_default = |text: &str| match text {
        "" => DEFAULT.to_owned(),
        text => text.to_owned(),
    };
    let of_name = |name: &str| {
        vec![ServiceIdentity {
            trust_domain: trust_domain.to_owned(),
            partition: or_default(&service.partition),
            namespace: or_default(&service.namespace),
            datacenter: entry.node.datacenter.clone(),
            service: name.to_owned(),
        }]
    };
    let peered = &service.connect.peer_meta.spiffe_id;
    let identities = if !peered.is_empty() {
        peered
            .iter()
            .filter_map(|uri| SpiffeId::parse(uri).ok()?.service())
            .collect()
    } else if service.kind == "connect-proxy" && !service.proxy.destination_service_name.is_empty()
    {
        of_name(&service.proxy.destination_service_name)
    } else if service.kind == "terminating-gateway" {
        of_name(asked)
    } else if service.kind.is_empty() && service.connect.native {
        of_name(&service.service)
    } else {
        Vec::new()
    };
    if identities.is_empty() {
        return Err("is not a valid connect service".to_owned());
    }
    let host = match service.address.as_str() {
        "" => &entry.node.address,
        address => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = u16::try_from(service.port).unwrap_or(0);
    if host.is_empty() || port == 0 {
        return Err("has no address or port".to_owned());
    }
    Ok(Instance {
        id: format!("{}/{}", entry.node.node, service.id),
        host: host.to_owned(),
        port,
        weight,
        identities,
        server_name: service.connect.peer_meta.sni.first().cloned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> (Vec<Instance>, Vec<Skipped>) {
        let entries: Vec<HealthEntry> = serde_json::from_str(text).unwrap();
        instances(&entries, "db", "t.consul", Healthy::PassingAndWarning)
    }

    #[test]
    fn each_kind_has_its_own_identity() {
        let (found, skipped) = read(
            r#"[
            {"Node":{"Node":"n1","Address":"10.0.0.1","Datacenter":"dc2"},
             "Service":{"Kind":"connect-proxy","ID":"db-proxy","Service":"db-sidecar-proxy","Port":21000,
                        "Proxy":{"DestinationServiceName":"db"}},"Checks":[{"Status":"passing"}]},
            {"Node":{"Node":"n1","Address":"10.0.0.1","Datacenter":"dc1"},
             "Service":{"ID":"edge","Service":"edge","Address":"[::1]","Port":8443,"Namespace":"team","Partition":"w",
                        "Weights":{"Passing":10,"Warning":2},"Connect":{"Native":true}},"Checks":[{"Status":"warning"}]},
            {"Node":{"Node":"n2","Address":"10.0.0.2","Datacenter":"dc1"},
             "Service":{"Kind":"terminating-gateway","ID":"tg","Service":"tg","Port":1},"Checks":[]},
            {"Node":{"Node":"n3","Address":"10.0.0.3","Datacenter":"far"},
             "Service":{"Kind":"mesh-gateway","ID":"mg","Service":"mg","Port":8443,
                        "Connect":{"PeerMeta":{"SNI":["s"],"SpiffeID":["spiffe://far.consul/ns/default/dc/far/svc/db","bad"]}}}},
            {"Node":{"Node":"n4","Address":"10.0.0.4"},"Service":{"ID":"plain","Service":"db","Port":1}}
            ]"#,
        );
        let shown: Vec<_> = found
            .iter()
            .map(|one| {
                format!(
                    "{}:{} {} {}",
                    one.host, one.port, one.weight, one.identities[0]
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "10.0.0.1:21000 1 spiffe://t.consul/ns/default/dc/dc2/svc/db",
                "::1:8443 2 spiffe://t.consul/ap/w/ns/team/dc/dc1/svc/edge",
                "10.0.0.2:1 1 spiffe://t.consul/ns/default/dc/dc1/svc/db",
                "10.0.0.3:8443 1 spiffe://far.consul/ns/default/dc/far/svc/db",
            ]
        );
        assert_eq!(found[3].server_name.as_deref(), Some("s"));
        assert_eq!(skipped.len(), 1);
    }

    #[test]
    fn health_decides_who_serves() {
        let entry = |checks: &str| {
            format!(
                r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1","Datacenter":"dc1"}},
                "Service":{{"ID":"e","Service":"e","Port":1,"Connect":{{"Native":true}},"Weights":{{"Passing":3,"Warning":0}}}},
                "Checks":[{checks}]}}]"#
            )
        };
        for (checks, serving) in [
            ("", 1),
            (r#"{"Status":"passing"}"#, 1),
            (r#"{"Status":"passing"},{"Status":"critical"}"#, 0),
            (r#"{"Status":"warning"}"#, 0),
            (r#"{"Status":"odd"}"#, 0),
        ] {
            assert_eq!(read(&entry(checks)).0.len(), serving, "{checks}");
        }
    }
}
