//! Settings of the proxy listeners to the serving plan: header names, limits, trust.

use std::sync::Arc;
use std::time::Duration;

use crate::model::plan::KeyPairPlan;
use crate::model::serving::{
    AccessLogFormat, ClientAddressPlan, DebugHeadersPlan, GatewayHeadersPlan, ServingPlan,
    UpstreamPoolPlan,
};
use crate::settings::Settings;
use crate::settings::logging::AccessLogFormat as LogSetting;
use crate::settings::proxying::PROXY_PROTOCOL;

/// Largest message held whole for plugins that need it, in bytes, whatever the body limit allows.
const HELD_BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What settings refer to by path, read by whoever may read files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServingFiles {
    /// PEM, of `lua_ssl_trusted_certificate`.
    pub trust_anchors: Arc<str>,
    /// Of `client_ssl_cert` and `client_ssl_cert_key`, when `client_ssl` is on.
    pub client_certificate: Option<Arc<KeyPairPlan>>,
}

/// The serving plan of these settings. `product` is the token for `Server` and `Via`.
pub fn compile_serving(settings: &Settings, files: &ServingFiles, product: &str) -> ServingPlan {
    let proxying = &settings.proxying;
    let limits = &settings.limits;
    ServingPlan {
        trusted: proxying.trusted_ips.blocks.clone(),
        client_address: ClientAddressPlan {
            // The PROXY header has named the client already, before any request.
            header: match proxying.real_ip_header.0.as_str() {
                PROXY_PROTOCOL => "".into(),
                header => header.into(),
            },
            recursive: proxying.real_ip_recursive,
        },
        request_headers_max: limits.lua_max_req_headers.as_usize(),
        response_headers_max: limits.lua_max_resp_headers.as_usize(),
        query_arguments_max: limits.lua_max_uri_args.as_usize(),
        request_body_bytes_max: limits.client_max_body_size.0,
        held_body_bytes_max: HELD_BODY_BYTES_MAX,
        tunnel_idle_seconds: limits.tunnel_idle_timeout.map(|idle| match idle.0 {
            Duration::ZERO => 0,
            idle => idle.as_secs().max(1),
        }),
        client_idle_seconds: limits.keepalive_timeout.0.as_secs_f64().ceil() as u64,
        client_head_ms: u64::try_from(limits.client_header_timeout.0.as_millis())
            .unwrap_or(u64::MAX),
        client_body_bytes_per_second: limits.client_body_min_rate.0,
        listener_connections_max: limits.listener_connections_max.as_usize(),
        address_connections_max: limits.address_connections_max.as_usize(),
        client_requests_max: u32::try_from(limits.keepalive_requests.0).unwrap_or(u32::MAX),
        retry_percent: u8::try_from(limits.upstream_retry_budget.0).unwrap_or(u8::MAX),
        upstream_pool: UpstreamPoolPlan {
            idle_per_peer_max: limits.upstream_keepalive_pool_size.as_usize(),
            requests_max: u32::try_from(limits.upstream_keepalive_max_requests.0)
                .unwrap_or(u32::MAX),
            idle_seconds: limits.upstream_keepalive_idle_timeout.0.as_secs(),
        },
        headers: compile_headers(settings, product),
        error_type: proxying.error_default_type.word().into(),
        trust_anchors: Arc::clone(&files.trust_anchors),
        client_certificate: files.client_certificate.clone(),
        port_map: settings
            .listen
            .port_maps
            .iter()
            .map(|map| (map.external, map.listening))
            .collect(),
        access_log: match settings.logging.access_log_format {
            LogSetting::Combined => AccessLogFormat::Combined,
            LogSetting::Json => AccessLogFormat::Entry,
        },
    }
}

fn compile_headers(settings: &Settings, product: &str) -> GatewayHeadersPlan {
    let tokens = &settings.proxying.headers;
    let named = |wanted: bool, name: &str| wanted.then(|| Arc::from(name));
    GatewayHeadersPlan {
        product: product.into(),
        server: tokens.server,
        via: tokens.via,
        upstream_latency: named(tokens.upstream_latency, "X-Kong-Upstream-Latency"),
        proxy_latency: named(tokens.proxy_latency, "X-Kong-Proxy-Latency"),
        response_latency: named(tokens.response_latency, "X-Kong-Response-Latency"),
        upstream_status: named(tokens.upstream_status, "X-Kong-Upstream-Status"),
        request_id_downstream: named(tokens.request_id, "X-Kong-Request-Id"),
        request_id_upstream: named(
            settings.proxying.headers_upstream.request_id,
            "X-Kong-Request-Id",
        ),
        caller_upstream: named(
            settings.consul.consul_service.is_some(),
            "X-Consul-Client-Service",
        ),
        debug: settings
            .proxying
            .allow_debug_header
            .then(|| DebugHeadersPlan {
                asks: "Kong-Debug".into(),
                route_id: "Kong-Route-Id".into(),
                route_name: "Kong-Route-Name".into(),
                forward_id: "Kong-Service-Id".into(),
                forward_name: "Kong-Service-Name".into(),
            }),
    }
}
