//! What holds for every request whatever its route: trust, limits, and the gateway's own headers.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

/// Settings of the request path, written by the dialect that owns the proxy listeners.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServingPlan {
    /// Peers whose forwarding headers are believed.
    pub trusted: Vec<IpNet>,
    pub client_address: ClientAddressPlan,
    /// Only the first N header fields are seen by routing and plugins.
    pub request_headers_max: usize,
    pub response_headers_max: usize,
    /// Only the first N query arguments are seen by routing and plugins.
    pub query_arguments_max: usize,
    /// Longest request body in bytes; 0 is unlimited. Beyond: 413.
    pub request_body_bytes_max: u64,
    /// Largest message held whole for steps that need it, in bytes.
    pub held_body_bytes_max: usize,
    /// Idle seconds before a client's keep-alive connection is closed.
    pub client_idle_seconds: u64,
    /// Seconds that a tunnel may be silent in both directions; 0 is forever, `None` the forward's read timeout.
    pub tunnel_idle_seconds: Option<u64>,
    /// Milliseconds for the whole head of a request over HTTP/1, from its first byte; 0 is unlimited.
    pub client_head_ms: u64,
    /// Bytes of a request's body over HTTP/1 in each second that is waited for them; 0 is unlimited.
    pub client_body_bytes_per_second: u64,
    /// Connections that one listener may have open; 0 is unlimited.
    pub listener_connections_max: usize,
    /// Connections that one client address (IPv6: one /64) may have open on all listeners; 0 is unlimited.
    pub address_connections_max: usize,
    /// Requests on one client connection; 0 is unlimited.
    pub client_requests_max: u32,
    /// Share of a forward's requests that may be tried again, in per cent; 100 is no limit.
    pub retry_percent: u8,
    pub upstream_pool: UpstreamPoolPlan,
    pub headers: GatewayHeadersPlan,
    /// Media type of error bodies when the client names none.
    pub error_type: Arc<str>,
    /// PEM trust anchors for upstream verification; empty is the system's.
    pub trust_anchors: Arc<str>,
    /// The certificate shown to upstreams when neither forward nor cluster has one.
    pub client_certificate: Option<Arc<crate::model::plan::KeyPairPlan>>,
    /// `external:listening` ports: what the world sees instead of the port bound.
    pub port_map: Vec<(u16, u16)>,
    /// One line per request into the access log, as what.
    pub access_log: AccessLogFormat,
}

/// How the client's address is found when the peer is trusted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientAddressPlan {
    /// Lower-case header name; empty never looks.
    pub header: Arc<str>,
    /// Walk the list from the right past trusted addresses.
    pub recursive: bool,
}

/// Idle upstream connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UpstreamPoolPlan {
    /// Idle connections kept for one upstream; 0 disables reuse.
    pub idle_per_peer_max: usize,
    /// Requests on one connection; 0 is unlimited.
    pub requests_max: u32,
    /// Seconds an idle connection is kept; 0 is forever.
    pub idle_seconds: u64,
}

/// Names of headers that the gateway adds. `None` is off.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct GatewayHeadersPlan {
    /// Product token, e.g. `sallyport/0.1.0`.
    pub product: Arc<str>,
    /// `Server` on the gateway's own responses, and where the upstream sent none.
    pub server: bool,
    /// `Via` on requests and proxied responses.
    pub via: bool,
    /// Milliseconds from sending the request to receiving the response's headers.
    pub upstream_latency: Option<Arc<str>>,
    /// Milliseconds in the gateway before proxying.
    pub proxy_latency: Option<Arc<str>>,
    /// Milliseconds to make a local response.
    pub response_latency: Option<Arc<str>>,
    pub upstream_status: Option<Arc<str>>,
    pub request_id_downstream: Option<Arc<str>>,
    pub request_id_upstream: Option<Arc<str>>,
    /// Tells upstreams the name of a caller that showed a certificate of the mesh; taken from nobody else.
    pub caller_upstream: Option<Arc<str>>,
    /// A request with this header is told what it matched.
    pub debug: Option<DebugHeadersPlan>,
}

/// Names of the headers that tell a debugging client what matched.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DebugHeadersPlan {
    pub asks: Arc<str>,
    pub route_id: Arc<str>,
    pub route_name: Arc<str>,
    pub forward_id: Arc<str>,
    pub forward_name: Arc<str>,
}

/// The form of access log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLogFormat {
    /// nginx's combined form.
    Combined,
    /// The dialect's log entry as JSON.
    Entry,
}
