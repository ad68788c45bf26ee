//! The response's head on its way to the client: what is dropped, what is added. Used by both drivers.

use std::time::Instant;

use http::HeaderValue;
use http::header::{CONNECTION, HeaderName, SERVER, UPGRADE, VIA};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use crate::runtime::exchange::{Exchange, ResponseSource};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes hop-by-hop fields off an upstream's head. `upgraded` keeps what a switch of protocols needs.
pub(crate) fn drop_hop_by_hop(head: &mut ResponseHeader, upgraded: bool) {
    if let Some(listed) = head.headers.get(CONNECTION) {
        let named: SmallVec<[HeaderName; 2]> = listed
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|member| {
                !member.eq_ignore_ascii_case(b"close")
                    && !member.eq_ignore_ascii_case(b"keep-alive")
                    && !member.eq_ignore_ascii_case(b"upgrade")
            })
            .filter_map(|member| HeaderName::from_bytes(member).ok())
            .collect();
        for name in named {
            head.remove_header(&name);
        }
        if !upgraded {
            head.remove_header(&CONNECTION);
        }
    }
    if head.headers.contains_key(&KEEP_ALIVE) {
        head.remove_header(&KEEP_ALIVE);
    }
    if head.headers.contains_key(&PROXY_CONNECTION) {
        head.remove_header(&PROXY_CONNECTION);
    }
    if !upgraded && head.headers.contains_key(UPGRADE) {
        head.remove_header(&UPGRADE);
    }
}

/// Adds what the gateway says of itself. Names are data: a dialect chose them.
pub(crate) fn add_gateway_headers(exchange: &Exchange, head: &mut ResponseHeader) {
    let headers = &exchange.snapshot.serving.headers;
    // Only a header map at its size limit refuses an insertion; the response goes out without it then.
    let mut add = |name: &HeaderName, value: HeaderValue| {
        let _ = head.insert_header(name.clone(), value);
    };
    let proxied = exchange.timing.forwarded.is_some();
    if proxied {
        if let (Some(name), Some(forwarded)) = (&headers.proxy_latency, exchange.timing.forwarded) {
            add(name, milliseconds(exchange.milliseconds_until(forwarded)));
        }
        if let (Some(name), Some(forwarded)) =
            (&headers.upstream_latency, exchange.timing.forwarded)
        {
            let answered = exchange.timing.answered.unwrap_or_else(Instant::now);
            let waited = answered.saturating_duration_since(forwarded).as_millis();
            add(
                name,
                milliseconds(u64::try_from(waited).unwrap_or(u64::MAX)),
            );
        }
        if let Some(name) = &headers.upstream_status
            && exchange.upstream_status != 0
        {
            add(name, HeaderValue::from(exchange.upstream_status));
        }
    } else if let Some(name) = &headers.response_latency {
        let answered = exchange.timing.answered.unwrap_or_else(Instant::now);
        add(name, milliseconds(exchange.milliseconds_until(answered)));
    }
    if let Some(name) = &headers.request_id_downstream
        && let Ok(value) = HeaderValue::from_bytes(exchange.request_id.as_bytes())
    {
        add(name, value);
    }
    if proxied {
        add_via(exchange, head);
        if let Some(server) = &headers.server
            && exchange.response_source != ResponseSource::Gateway
            && !head.headers.contains_key(SERVER)
        {
            let _ = head.insert_header(SERVER, server.clone());
        }
    }
    if let Some(debug) = &headers.debug
        && exchange.request.headers.contains_key(&debug.asks)
        && let Some(route) = &exchange.route
    {
        let mut tell = |name: &HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                let _ = head.insert_header(name.clone(), value);
            }
        };
        tell(&debug.route_id, &route.plan.id.to_string());
        if let Some(name) = &route.plan.name {
            tell(&debug.route_name, name);
        }
        if let Some(forward) = &route.forward {
            tell(&debug.forward_id, &forward.plan.id.to_string());
            if let Some(name) = &forward.plan.name {
                tell(&debug.forward_name, name);
            }
        }
    }
}

fn add_via(exchange: &Exchange, head: &mut ResponseHeader) {
    let headers = &exchange.snapshot.serving.headers;
    let upstream_is_http2 = exchange
        .route
        .as_ref()
        .and_then(|route| route.forward.as_ref())
        .is_some_and(|forward| forward.plan.protocol.is_grpc());
    let own = if upstream_is_http2 {
        &headers.via_http2
    } else {
        &headers.via_http1
    };
    let Some(own) = own else { return };
    let value = match head.headers.get(VIA) {
        None => own.clone(),
        Some(existing) => {
            let mut joined = existing.as_bytes().to_vec();
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(own.as_bytes());
            match HeaderValue::from_bytes(&joined) {
                Ok(value) => value,
                Err(_) => own.clone(),
            }
        }
    };
    let _ = head.insert_header(VIA, value);
}

fn milliseconds(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}
