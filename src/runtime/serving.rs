//! The serving plan linked: header names parsed, constant values built.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::model::serving::ServingPlan;
use crate::runtime::head::Fields;
use crate::runtime::titled::TitledName;
use crate::runtime::upstream_tls::Trust;

/// What holds for every request, ready to use.
pub struct Serving {
    pub plan: ServingPlan,
    pub headers: GatewayHeaders,
    /// Trust in upstreams whose forward names no authorities.
    pub trust: Arc<Trust>,
    client_address_header: Option<HeaderName>,
}

/// The gateway's own headers.
pub struct GatewayHeaders {
    /// `Server` of the gateway's own responses.
    pub server: Option<HeaderValue>,
    /// `Via` for clients and upstreams over HTTP/1.1.
    pub via_http1: Option<HeaderValue>,
    /// `Via` over HTTP/2.
    pub via_http2: Option<HeaderValue>,
    pub upstream_latency: Option<TitledName>,
    pub proxy_latency: Option<TitledName>,
    pub response_latency: Option<TitledName>,
    pub upstream_status: Option<TitledName>,
    pub request_id_downstream: Option<TitledName>,
    pub request_id_upstream: Option<TitledName>,
    pub caller_upstream: Option<TitledName>,
    pub debug: Option<DebugHeaders>,
}

/// Headers for a client that asks what matched.
pub struct DebugHeaders {
    pub asks: HeaderName,
    pub route_id: TitledName,
    pub route_name: TitledName,
    pub forward_id: TitledName,
    pub forward_name: TitledName,
}

impl Serving {
    /// Links the plan. The error names the header that is no header name.
    pub fn link(plan: ServingPlan) -> Result<Self, String> {
        let headers = &plan.headers;
        let via = |version: &str| -> Result<Option<HeaderValue>, String> {
            headers
                .via
                .then(|| value(&format!("{version} {}", headers.product)))
                .transpose()
        };
        let debug = match &headers.debug {
            None => None,
            Some(names) => Some(DebugHeaders {
                asks: name(&names.asks)?,
                route_id: TitledName::parse(&names.route_id)?,
                route_name: TitledName::parse(&names.route_name)?,
                forward_id: TitledName::parse(&names.forward_id)?,
                forward_name: TitledName::parse(&names.forward_name)?,
            }),
        };
        let linked = GatewayHeaders {
            server: headers
                .server
                .then(|| value(&headers.product))
                .transpose()?,
            via_http1: via("1.1")?,
            via_http2: via("2")?,
            upstream_latency: optional(headers.upstream_latency.as_deref())?,
            proxy_latency: optional(headers.proxy_latency.as_deref())?,
            response_latency: optional(headers.response_latency.as_deref())?,
            upstream_status: optional(headers.upstream_status.as_deref())?,
            request_id_downstream: optional(headers.request_id_downstream.as_deref())?,
            request_id_upstream: optional(headers.request_id_upstream.as_deref())?,
            caller_upstream: optional(headers.caller_upstream.as_deref())?,
            debug,
        };
        let client_address_header = match &*plan.client_address.header {
            "" => None,
            text => Some(name(text)?),
        };
        Ok(Self {
            trust: Trust::link(&plan.trust_anchors)?,
            headers: linked,
            client_address_header,
            plan,
        })
    }

    /// Are this peer's forwarding headers believed?
    pub fn trusts(&self, address: IpAddr) -> bool {
        if self.plan.trusted.is_empty() {
            return false;
        }
        let address = address.to_canonical();
        self.plan.trusted.iter().any(|net| net.contains(&address))
    }

    /// The client's address as a trusted peer reports it, or the peer's own.
    pub fn client_address(&self, peer: IpAddr, fields: Fields<'_>) -> IpAddr {
        let Some(name) = &self.client_address_header else {
            return peer;
        };
        let mut client = peer;
        // Header lines and list members from last to first: the nearest proxy wrote last.
        let lines: SmallVec<[&[u8]; 4]> = fields.named(name.as_str()).collect();
        for line in lines.iter().rev() {
            for member in line.rsplit(|b| *b == b',') {
                let Some(address) = std::str::from_utf8(member).ok().and_then(parse_address) else {
                    return client;
                };
                client = address;
                if !self.plan.client_address.recursive || !self.trusts(address) {
                    return client;
                }
            }
        }
        client
    }

    /// The port as the world sees it.
    pub fn external_port(&self, listening: u16) -> u16 {
        self.plan
            .port_map
            .iter()
            .find(|(_, inside)| *inside == listening)
            .map_or(listening, |(outside, _)| *outside)
    }
}

/// An address with or without port, with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| format!("'{text}' is not a header name"))
}

fn optional(text: Option<&str>) -> Result<Option<TitledName>, String> {
    text.map(TitledName::parse).transpose()
}

fn value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text).map_err(|_| format!("'{text}' is not a header value"))
}
