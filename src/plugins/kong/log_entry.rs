//! The log entry: an exchange as one line of JSON, as Kong's log plugins write it.
//!
//! Secrets stay out: the values of `authorization` and `proxy-authorization` are replaced.

use std::borrow::Cow;
use std::time::Instant;

use http::HeaderMap;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};

use crate::plugins::shared::certificate_auth::Verification;
use crate::plugins::shared::query;
use crate::runtime::clock;
use crate::runtime::connection::TlsFacts;
use crate::runtime::exchange::{Exchange, Identity, ResponseSource, Try};
use crate::runtime::snapshot::Route;

/// What stands in the place of a secret value.
const REDACTED: &[u8] = b"REDACTED";

/// Room for a usual entry, so that the line is not moved while it grows.
pub(crate) const USUAL_BYTES: usize = 2048;

/// Appends the entry, without line end. `workspace` is the id of the one workspace.
pub(crate) fn write(exchange: &Exchange, workspace: &str, into: &mut Vec<u8>) {
    let mut entry = Object::begin(into);
    request(exchange, entry.key("request"));
    response(exchange, entry.key("response"));
    latencies(exchange, entry.key("latencies"));
    tries(&exchange.tries, exchange.started, entry.key("tries"));
    if exchange.upstream_status != 0 {
        upstream_status(exchange, entry.key("upstream_status"));
    }
    if let Some(target) = &exchange.upstream_target {
        text(target, entry.key("upstream_uri"));
    }
    text(
        exchange.client_address.to_string().as_bytes(),
        entry.key("client_ip"),
    );
    number(
        clock::unix_milliseconds(exchange.started),
        entry.key("started_at"),
    );
    owner(&exchange.identity, &mut entry);
    if let Some(route) = &exchange.route {
        target(route, &mut entry);
    }
    consumer(&exchange.identity, &mut entry);
    let source = match exchange.response_source {
        ResponseSource::Upstream => "upstream",
        ResponseSource::Gateway | ResponseSource::None => "kong",
    };
    text(source.as_bytes(), entry.key("source"));
    text(workspace.as_bytes(), entry.key("workspace"));
    text(b"default", entry.key("workspace_name"));
    for (name, value) in &exchange.notes {
        json(value, entry.key(name));
    }
    entry.end();
}

/// `authenticated_entity`, if there is one.
pub(super) fn owner(identity: &Identity, entry: &mut Object<'_>) {
    if let Some(credential) = &identity.credential {
        let mut owner = Object::begin(entry.key("authenticated_entity"));
        text(credential.plan.id.to_string().as_bytes(), owner.key("id"));
        let principal = credential.plan.principal.to_string();
        text(principal.as_bytes(), owner.key("consumer_id"));
        owner.end();
    }
}

/// `route`, and `service` if it leads to one.
pub(super) fn target(route: &Route, entry: &mut Object<'_>) {
    let description = route.plan.description.as_bytes();
    entry.key("route").extend_from_slice(description);
    if let Some(forward) = &route.forward {
        let description = forward.plan.description.as_bytes();
        entry.key("service").extend_from_slice(description);
    }
}

/// `consumer`, if there is one.
pub(super) fn consumer(identity: &Identity, entry: &mut Object<'_>) {
    if let Some(principal) = &identity.principal {
        let description = principal.plan.description.as_bytes();
        entry.key("consumer").extend_from_slice(description);
    }
}

fn request(exchange: &Exchange, into: &mut Vec<u8>) {
    let mut request = Object::begin(into);
    text(exchange.request_id.as_bytes(), request.key("id"));
    let target = exchange.target();
    text(target, request.key("uri"));
    let scheme = if exchange.connection.is_tls() {
        "https"
    } else {
        "http"
    };
    let host = without_port(exchange.host());
    let mut url = format!("{scheme}://{host}:{}", exchange.connection.port).into_bytes();
    url.extend_from_slice(target);
    text(&url, request.key("url"));
    querystring(exchange, request.key("querystring"));
    text(
        exchange.request.method.as_str().as_bytes(),
        request.key("method"),
    );
    let headers_max = exchange.snapshot.serving.plan.request_headers_max;
    headers(
        &exchange.request.headers,
        headers_max,
        request.key("headers"),
    );
    number(exchange.request_bytes, request.key("size"));
    if let Some(facts) = exchange.connection.tls.get() {
        tls(facts, &client_verify(exchange, facts), request.key("tls"));
    }
    request.end();
}

/// What came of the client's certificate: `NONE` where it showed none, `SUCCESS`, or `FAILED:` with the reason (nginx:
/// `$ssl_client_verify`).
fn client_verify(exchange: &Exchange, facts: &TlsFacts) -> Cow<'static, str> {
    match exchange.stashed::<Verification>() {
        Some(Verification(Ok(()))) => "SUCCESS".into(),
        Some(Verification(Err(reason))) => format!("FAILED:{reason}").into(),
        // On listeners of a mesh nobody gets this far without a certificate that was verified.
        None if exchange.connection.caller.get().is_some() => "SUCCESS".into(),
        None => unverified(facts).into(),
    }
}

/// The same where nobody verifies.
pub(super) fn unverified(facts: &TlsFacts) -> &'static str {
    match facts.client_certificate {
        None => "NONE",
        Some(_) => "FAILED:nobody asked for it to be verified",
    }
}

pub(super) fn tls(facts: &TlsFacts, client_verify: &str, into: &mut Vec<u8>) {
    let mut tls = Object::begin(into);
    text(facts.version.as_bytes(), tls.key("version"));
    text(facts.cipher.as_bytes(), tls.key("cipher"));
    text(client_verify.as_bytes(), tls.key("client_verify"));
    tls.end();
}

fn response(exchange: &Exchange, into: &mut Vec<u8>) {
    let mut response = Object::begin(into);
    number(u64::from(exchange.status), response.key("status"));
    if let Some(head) = &exchange.response {
        let headers_max = exchange.snapshot.serving.plan.response_headers_max;
        headers(&head.headers, headers_max, response.key("headers"));
    }
    number(exchange.response_bytes, response.key("size"));
    response.end();
}

fn latencies(exchange: &Exchange, into: &mut Vec<u8>) {
    let timing = &exchange.timing;
    let ended = timing.ended.unwrap_or_else(Instant::now);
    let ours = timing.forwarded.or(timing.answered).unwrap_or(ended);
    let mut latencies = Object::begin(into);
    number(exchange.milliseconds_until(ended), latencies.key("request"));
    number(exchange.milliseconds_until(ours), latencies.key("kong"));
    let (waited, received) = match (timing.forwarded, timing.answered) {
        (Some(forwarded), Some(answered)) => (
            i64::try_from(answered.saturating_duration_since(forwarded).as_millis()).ok(),
            ended.saturating_duration_since(answered).as_millis(),
        ),
        _ => (None, 0),
    };
    json(&waited.unwrap_or(-1), latencies.key("proxy"));
    number(
        u64::try_from(received).unwrap_or(u64::MAX),
        latencies.key("receive"),
    );
    latencies.end();
}

pub(super) fn tries(tries: &[Try], started: Instant, into: &mut Vec<u8>) {
    into.push(b'[');
    let start_us = clock::unix_microseconds(started);
    for (index, attempt) in tries.iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        one_try(attempt, start_us, into);
    }
    into.push(b']');
}

fn one_try(attempt: &Try, start_us: u64, into: &mut Vec<u8>) {
    let began_ns = u128::from(start_us) * 1_000 + attempt.began.as_nanos();
    let mut one = Object::begin(into);
    json(&(began_ns / 1_000_000), one.key("balancer_start"));
    json(&began_ns, one.key("balancer_start_ns"));
    json(&attempt.choosing.as_millis(), one.key("balancer_latency"));
    json(&attempt.choosing.as_nanos(), one.key("balancer_latency_ns"));
    text(attempt.address.ip().to_string().as_bytes(), one.key("ip"));
    number(u64::from(attempt.address.port()), one.key("port"));
    if let Some(failure) = &attempt.failed {
        text(b"failed", one.key("state"));
        number(u64::from(failure.code), one.key("code"));
    }
    one.end();
}

/// The statuses of all attempts, as nginx lists them.
fn upstream_status(exchange: &Exchange, into: &mut Vec<u8>) {
    let mut list = String::new();
    for failure in exchange.tries.iter().filter_map(|attempt| attempt.failed) {
        list.push_str(&format!("{}, ", failure.code));
    }
    list.push_str(&exchange.upstream_status.to_string());
    text(list.as_bytes(), into);
}

fn querystring(exchange: &Exchange, into: &mut Vec<u8>) {
    let Some(query) = exchange.query() else {
        into.extend_from_slice(b"{}");
        return;
    };
    let arguments_max = exchange.snapshot.serving.plan.query_arguments_max;
    let mut map = serde_json::Map::new();
    for (name, value) in query::pieces(query).take(arguments_max) {
        let name = String::from_utf8_lossy(&query::decode(name)).into_owned();
        let value = match value {
            None => serde_json::Value::Bool(true),
            Some(value) => String::from_utf8_lossy(&query::decode(value)).into(),
        };
        match map.get_mut(&name) {
            None => {
                map.insert(name, value);
            }
            Some(serde_json::Value::Array(list)) => list.push(value),
            Some(present) => {
                let first = present.take();
                *present = serde_json::Value::Array(vec![first, value]);
            }
        }
    }
    json(&map, into);
}

/// Names are lower-case already; several values make a list.
fn headers(map: &HeaderMap, headers_max: usize, into: &mut Vec<u8>) {
    let mut object = Object::begin(into);
    for name in map.keys().take(headers_max) {
        let mut values = map.get_all(name).iter().map(|value| {
            if *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION {
                REDACTED
            } else {
                value.as_bytes()
            }
        });
        let into = object.key(name.as_str());
        match (values.next(), values.next()) {
            (Some(only), None) => text(only, into),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(values);
                into.push(b'[');
                for (index, value) in all.enumerate() {
                    if index > 0 {
                        into.push(b',');
                    }
                    text(value, into);
                }
                into.push(b']');
            }
        }
    }
    object.end();
}

/// The host without its port; brackets of an IPv6 address stay.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A JSON object under construction, written straight into a buffer.
pub(super) struct Object<'a> {
    into: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(into: &'a mut Vec<u8>) -> Self {
        into.push(b'{');
        Self { into, empty: true }
    }

    /// Writes the key; the caller writes the value into what is returned.
    pub(super) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.into.push(b',');
        }
        text(name.as_bytes(), self.into);
        self.into.push(b':');
        self.into
    }

    pub(super) fn end(self) {
        self.into.push(b'}');
    }
}

pub(super) fn number(value: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(super) fn text(value: &[u8], into: &mut Vec<u8>) {
    json(&String::from_utf8_lossy(value), into);
}

pub(super) fn json(value: &impl serde::Serialize, into: &mut Vec<u8>) {
    // Texts, numbers and values with text keys can always be written into memory.
    let _ = serde_json::to_writer(into, value);
}
