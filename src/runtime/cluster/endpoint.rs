//! What an upstream is called: the name in the Host header and in the TLS handshake.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use uuid::Uuid;

use crate::model::plan::{ClusterPlan, EndpointPlan};

/// Longest host name with port, in bytes; DNS allows 253 for the name.
const AUTHORITY_BYTES_MAX: usize = 512;

/// Largest weight of an endpoint.
pub(super) const WEIGHT_MAX: u32 = 65_535;

/// The name and port under which an address is spoken to.
#[derive(Debug)]
pub struct Endpoint {
    /// Id of the plan's endpoint.
    pub id: Uuid,
    /// Name without port and brackets: the TLS server name, or an IP address.
    pub host: Arc<str>,
    pub port: u16,
    /// Host header when `port` is the scheme's default port.
    pub authority: HeaderValue,
    /// Host header otherwise.
    pub authority_with_port: HeaderValue,
}

impl Endpoint {
    /// The endpoint as reached on `port`. `service_name` is the target of the SRV record that led there.
    pub(super) fn new(
        cluster: &ClusterPlan,
        endpoint: &EndpointPlan,
        port: u16,
        service_name: Option<&Arc<str>>,
    ) -> Result<Self, String> {
        if let Some(header) = &cluster.host_header {
            // With or without a port of its own it is sent as written; the port is added only where there is none.
            let value = header_value(cluster, header)?;
            let (host, written_port) = split_port(header);
            let authority_with_port = match written_port {
                Some(_) => value.clone(),
                None => header_value(cluster, &format!("{header}:{port}"))?,
            };
            return Ok(Self {
                id: endpoint.id,
                host: host.into(),
                port,
                authority: value,
                authority_with_port,
            });
        }
        let host = match service_name {
            Some(name) if cluster.use_srv_name => name,
            _ => &endpoint.host,
        };
        let bare = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{host}]"),
            _ => host.to_string(),
        };
        let authority_with_port = match endpoint.roster {
            // The ports of members are those of proxies, of which applications know nothing.
            Some(_) => header_value(cluster, &bare)?,
            None => header_value(cluster, &format!("{bare}:{port}"))?,
        };
        Ok(Self {
            id: endpoint.id,
            host: Arc::clone(host),
            port,
            authority: header_value(cluster, &bare)?,
            authority_with_port,
        })
    }
}

/// Says what is wrong with an endpoint of a plan, before any address is known.
pub(super) fn check(cluster: &ClusterPlan, endpoint: &EndpointPlan) -> Result<(), String> {
    if endpoint.host.is_empty() {
        return Err(format!(
            "cluster '{}': an endpoint has no host, a host name or IP address is needed",
            cluster.name
        ));
    }
    if endpoint.weight > WEIGHT_MAX {
        return Err(format!(
            "cluster '{}': endpoint '{}' has weight {}, at most {WEIGHT_MAX} is allowed",
            cluster.name, endpoint.host, endpoint.weight
        ));
    }
    Endpoint::new(cluster, endpoint, u16::MAX, None).map(|_| ())
}

fn header_value(cluster: &ClusterPlan, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .ok()
        .filter(|value| value.len() <= AUTHORITY_BYTES_MAX && !text.contains(' '))
        .ok_or_else(|| {
            format!(
                "cluster '{}': '{}' cannot be sent as a host name, use at most {AUTHORITY_BYTES_MAX} visible characters",
                cluster.name,
                text.escape_debug()
            )
        })
}

/// Host (without brackets) and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::runtime::cluster::tests::{cluster, endpoint};

    #[test]
    fn is_called_as_configured() {
        // host_header, use_srv_name, host, SRV target: server name, Host, Host with port
        let cases = [
            (None, false, "a.test", None, "a.test", "a.test", "a.test:81"),
            (
                None,
                false,
                "192.0.2.1",
                None,
                "192.0.2.1",
                "192.0.2.1",
                "192.0.2.1:81",
            ),
            (
                None,
                false,
                "2001:db8::1",
                None,
                "2001:db8::1",
                "[2001:db8::1]",
                "[2001:db8::1]:81",
            ),
            (
                None,
                false,
                "a.test",
                Some("n1.test"),
                "a.test",
                "a.test",
                "a.test:81",
            ),
            (
                None,
                true,
                "a.test",
                Some("n1.test"),
                "n1.test",
                "n1.test",
                "n1.test:81",
            ),
            (None, true, "a.test", None, "a.test", "a.test", "a.test:81"),
            (
                Some("h.test"),
                true,
                "a.test",
                Some("n1.test"),
                "h.test",
                "h.test",
                "h.test:81",
            ),
            (
                Some("h.test:9"),
                false,
                "a.test",
                None,
                "h.test",
                "h.test:9",
                "h.test:9",
            ),
            (
                Some("[::1]:9"),
                false,
                "a.test",
                None,
                "::1",
                "[::1]:9",
                "[::1]:9",
            ),
        ];
        for (header, use_srv_name, host, service, server_name, bare, with_port) in cases {
            let mut cluster = cluster(vec![endpoint(host, 80, 1)]);
            cluster.host_header = header.map(Into::into);
            cluster.use_srv_name = use_srv_name;
            let service = service.map(Arc::from);
            let made =
                Endpoint::new(&cluster, &cluster.endpoints[0], 81, service.as_ref()).unwrap();
            assert_eq!(&*made.host, server_name);
            assert_eq!(made.authority, bare);
            assert_eq!(made.authority_with_port, with_port);
        }
    }

    #[test]
    fn refuses_what_is_no_host_name() {
        for host in ["", "a b", "a\nb", &"a".repeat(600)] {
            let cluster = cluster(vec![endpoint(host, 80, 1)]);
            assert!(check(&cluster, &cluster.endpoints[0]).is_err(), "{host:?}");
        }
    }
}
