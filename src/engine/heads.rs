//! The response's head on its way to the client: what is dropped, what is added. Used by both drivers. And what becomes
//! of heads that are kept for long: [`settle`].

use std::sync::LazyLock;

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, HeaderName, SERVER, UPGRADE, VIA};
use http::response::Parts as RespParts;
use http::{HeaderMap, HeaderValue};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use crate::runtime::exchange::Exchange;
use crate::runtime::head::Fields;
use crate::runtime::titled::TitledName;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static SERVER_TITLED: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("Server"));
static VIA_TITLED: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("Via"));

/// Heads that stay while a tunnel does let go of the buffers in which they came: those are many times as long. Names lose
/// the case in which they were written, which nobody asks for once they have been passed on. Heads that are kept as they
/// came have no buffer but their own.
pub(crate) fn settle(exchange: &mut Exchange) {
    // Only a header map at its size limit refuses a field, and each of these had its place there.
    if let Fields::Map(fields) = exchange.request.fields() {
        for (name, value) in copied(fields) {
            match value {
                None => drop(exchange.request.remove_header(&name)),
                Some(value) => drop(exchange.request.append_header(name, value)),
            }
        }
    }
    if let Some(response) = &mut exchange.response
        && let Fields::Map(fields) = response.fields()
    {
        for (name, value) in copied(fields) {
            match value {
                None => drop(response.remove_header(&name)),
                Some(value) => drop(response.append_header(name, value)),
            }
        }
    }
}

/// What to do with a head so that it holds copies: names to take out, and then fields to put in.
fn copied(fields: &HeaderMap) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let length = fields.values().map(HeaderValue::len).sum();
    let mut bytes = BytesMut::with_capacity(length);
    let out = fields.keys().map(|name| (name.clone(), None));
    let put = fields.iter().map(|(name, value)| {
        bytes.put_slice(value.as_bytes());
        let mut copy = pingora_http::header_value_from_raw(bytes.split().freeze());
        copy.set_sensitive(value.is_sensitive());
        (name.clone(), Some(copy))
    });
    out.chain(put).collect()
}

/// Takes hop-by-hop fields off an upstream's head. `upgraded` keeps what a switch of protocols needs.
pub(crate) fn drop_hop_by_hop(head: &mut ResponseHeader, upgraded: bool) {
    // One walk over the names is cheaper than a lookup for each that is seldom there.
    let mut present: SmallVec<[&'static HeaderName; 4]> = SmallVec::new();
    for name in head.headers.keys() {
        let hop_by_hop = [&CONNECTION, &UPGRADE, &KEEP_ALIVE, &PROXY_CONNECTION];
        present.extend(hop_by_hop.into_iter().find(|other| *other == name));
    }
    if present.contains(&&CONNECTION) {
        for name in listed_in_connection(head) {
            head.remove_header(&name);
        }
    }
    for name in present {
        if !upgraded || (*name != CONNECTION && *name != UPGRADE) {
            head.remove_header(name);
        }
    }
}

/// Fields that the upstream's Connection header names; they end here.
fn listed_in_connection(head: &ResponseHeader) -> SmallVec<[HeaderName; 2]> {
    let mut named = SmallVec::new();
    for value in head.headers.get_all(CONNECTION) {
        for member in value.as_bytes().split(|b| *b == b',') {
            let member = member.trim_ascii();
            let option = ["close", "keep-alive", "upgrade"]
                .iter()
                .any(|option| member.eq_ignore_ascii_case(option.as_bytes()));
            if !option && let Ok(name) = HeaderName::from_bytes(member) {
                named.push(name);
            }
        }
    }
    named
}

/// Puts what access left for the response into the head, for plugins to see.
pub(crate) fn insert_left_fields(exchange: &mut Exchange, head: &mut ResponseHeader) {
    for field in std::mem::take(&mut exchange.response_fields) {
        let title = field.name.title.clone();
        let value = HeaderValue::from(field.value);
        // Only a header map at its size limit refuses; the response goes out without it then.
        let _ = match field.beside_others {
            true => head.append_header(title, value).map(drop),
            false => head.insert_header(title, value),
        };
    }
}

/// Writes a field of an HTTP/1 head.
pub(crate) fn put_field(wire: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    wire.put_slice(name);
    wire.put_slice(b": ");
    wire.put_slice(value);
    wire.put_slice(b"\r\n");
}

/// What the gateway says of itself, written into a head that plugins have already seen.
pub(crate) fn insert_gateway_headers(exchange: &Exchange, head: &mut ResponseHeader) {
    let mut added: SmallVec<[(&TitledName, HeaderValue); 8]> = SmallVec::new();
    let unique = exchange
        .snapshot
        .serving
        .headers
        .request_id_downstream
        .as_ref();
    for_each_gateway_header(exchange, (&head.headers).into(), |name, value| {
        if let Ok(mut value) = HeaderValue::from_bytes(value) {
            // A value that never comes again is kept out of the connection's table of fields (RFC 7541, 7.1.3): there it
            // would push out those that do come again, and be compared with all its predecessors.
            value.set_sensitive(
                exchange.http2 && unique.is_some_and(|other| std::ptr::eq(other, name)),
            );
            added.push((name, value));
        }
    });
    if exchange.http2 {
        // Without names' case, which HTTP/2 does not know, a plain map will do.
        let (stand_in, ()) = http::Response::new(()).into_parts();
        let mut parts = RespParts::from(std::mem::replace(head, stand_in.into()));
        for (name, value) in added {
            // As above.
            let _ = parts.headers.try_insert(name.name.clone(), value);
        }
        *head = parts.into();
        return;
    }
    for (name, value) in added {
        // As above.
        let _ = head.insert_header(name.title.clone(), value);
    }
}

/// The same, and what access left, written behind a head on its way to an HTTP/1 client.
pub(crate) fn put_gateway_headers(exchange: &Exchange, fields: Fields<'_>, wire: &mut Vec<u8>) {
    for field in exchange.response_fields.iter() {
        let name = &field.name.title;
        field.value.show(|value| put_field(wire, name, value));
    }
    for_each_gateway_header(exchange, fields, |name, value| {
        put_field(wire, &name.title, value);
    });
}

/// Does one of the fields written behind the head stand instead of this one?
pub(crate) fn is_written_anew(exchange: &Exchange, name: &[u8]) -> bool {
    let is_via = VIA_TITLED.is(name) && exchange.snapshot.serving.headers.via_http1.is_some();
    is_via || exchange.response_fields.stand_for(name)
}

/// Names are data: a dialect chose them.
fn for_each_gateway_header<'e>(
    exchange: &'e Exchange,
    fields: Fields<'_>,
    mut add: impl FnMut(&'e TitledName, &[u8]),
) {
    let headers = &exchange.snapshot.serving.headers;
    let mut digits = itoa::Buffer::new();
    match exchange.timing.forwarded {
        Some(forwarded) => {
            if let Some(name) = &headers.upstream_latency {
                let answered = exchange.timing.answered.unwrap_or(forwarded);
                let waited = answered.saturating_duration_since(forwarded).as_millis();
                add(name, digits.format(waited).as_bytes());
            }
            if let Some(name) = &headers.proxy_latency {
                let spent = exchange.milliseconds_until(forwarded);
                add(name, digits.format(spent).as_bytes());
            }
            if let Some(name) = &headers.upstream_status
                && exchange.upstream_status != 0
            {
                add(name, digits.format(exchange.upstream_status).as_bytes());
            }
            put_via(exchange, fields, &mut add);
        }
        None => {
            if let Some(name) = &headers.response_latency {
                let answered = exchange.timing.answered.unwrap_or(exchange.started);
                let spent = exchange.milliseconds_until(answered);
                add(name, digits.format(spent).as_bytes());
            }
        }
    }
    if let Some(server) = &headers.server
        && !fields.contains(&SERVER)
    {
        add(&SERVER_TITLED, server.as_bytes());
    }
    if let Some(name) = &headers.request_id_downstream {
        add(name, exchange.request_id.as_bytes());
    }
    if let Some(debug) = &headers.debug
        && exchange.request.fields().contains(&debug.asks)
        && let Some(route) = &exchange.route
    {
        add(&debug.route_id, route.plan.id.to_string().as_bytes());
        if let Some(name) = &route.plan.name {
            add(&debug.route_name, name.as_bytes());
        }
        if let Some(forward) = exchange.forward() {
            add(&debug.forward_id, forward.plan.id.to_string().as_bytes());
            if let Some(name) = &forward.plan.name {
                add(&debug.forward_name, name.as_bytes());
            }
        }
    }
}

fn put_via<'e>(
    exchange: &'e Exchange,
    fields: Fields<'_>,
    add: &mut impl FnMut(&'e TitledName, &[u8]),
) {
    let headers = &exchange.snapshot.serving.headers;
    let upstream_is_http2 = exchange
        .forward()
        .is_some_and(|forward| forward.plan.protocol.is_grpc());
    let own = if upstream_is_http2 {
        &headers.via_http2
    } else {
        &headers.via_http1
    };
    let Some(own) = own else { return };
    if !fields.contains(&VIA) {
        return add(&VIA_TITLED, own.as_bytes());
    }
    let mut joined = Vec::with_capacity(64);
    for value in fields.named(VIA.as_str()) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(own.as_bytes());
    add(&VIA_TITLED, &joined);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    #[test]
    fn copies_hold_nothing_of_the_buffer_they_came_from() {
        let came = Bytes::from(b"X-A: one\r\nX-B: two\r\nX-A: three\r\n".repeat(100));
        let mut fields = HeaderMap::new();
        for (name, value) in [("x-a", 5..8), ("x-b", 15..18), ("x-a", 25..30)] {
            let value = pingora_http::header_value_from_raw(came.slice(value));
            fields.append(name, value);
        }
        let before: Vec<_> = fields.values().cloned().collect();
        let mut after = HeaderMap::new();
        for (name, value) in copied(&fields) {
            match value {
                None => assert!(fields.contains_key(name)),
                Some(value) => drop(after.append(name, value)),
            }
        }
        assert_eq!(after, fields);
        let buffer = came.as_ptr_range();
        let is_within = |value: &&HeaderValue| buffer.contains(&value.as_bytes().as_ptr());
        assert_eq!(before.iter().filter(is_within).count(), 3);
        assert_eq!(after.values().filter(is_within).count(), 0);
    }
}
