//! Between the engine's exchange and messages: a request taken in, a request sent on, a response in and out.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::scope::Inbound;
use crate::plugins::apigee::flow::target::Composed;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::LocalResponse;
use crate::runtime::head::{ResponseHead, visible};
use crate::runtime::titled::TitledName;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static X_FORWARDED_FOR: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Forwarded-For"));
static X_FORWARDED_PORT: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Forwarded-Port"));
static X_FORWARDED_PROTO: LazyLock<TitledName> =
    LazyLock::new(|| TitledName::fixed("X-Forwarded-Proto"));

/// What is known of the exchange as it came in.
pub(super) fn inbound(
    exchange: &Exchange,
    client_certificate: Option<Arc<ClientCertificate>>,
) -> Arc<Inbound> {
    Arc::new(Inbound {
        client_certificate,
        snapshot: Arc::clone(&exchange.snapshot),
        connection: Arc::clone(&exchange.connection),
        client_address: exchange.client_address,
        secure: exchange.secure,
        request_id: exchange.request_id.clone(),
        started: exchange.started,
        host: exchange.host().into(),
    })
}

/// Fields that tell what lies before the proxy; they stand instead of the client's. `own_address`: the address that the
/// client connected to is told, too.
pub(super) fn forwarded(
    exchange: &Exchange,
    own_address: bool,
) -> impl Iterator<Item = (&'static TitledName, HeaderValue)> + use<> {
    let connection = &exchange.connection;
    let mut addresses = String::with_capacity(64);
    let fields = exchange.request.fields();
    let before = fields.named(X_FORWARDED_FOR.name.as_str());
    for text in before.filter_map(visible) {
        addresses.push_str(text);
        addresses.push_str(", ");
    }
    addresses.push_str(&connection.peer_text);
    if own_address {
        // Writing to a text cannot fail.
        let _ = write!(addresses, ", {}", connection.local.ip());
    }
    let proto = if exchange.secure { "https" } else { "http" };
    let port = HeaderValue::from_str(&connection.port_text);
    let fields = [
        (&*X_FORWARDED_FOR, HeaderValue::try_from(addresses).ok()),
        (&*X_FORWARDED_PORT, port.ok()),
        (&*X_FORWARDED_PROTO, Some(HeaderValue::from_static(proto))),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
}

/// Fields that belong to a connection and never cross from one message to another.
fn hop_by_hop() -> [&'static HeaderName; 7] {
    [
        &CONNECTION,
        &TE,
        &TRAILER,
        &TRANSFER_ENCODING,
        &UPGRADE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
    ]
}

/// Has the head such fields?
pub(super) fn has_hop_by_hop(head: &ResponseHead) -> bool {
    let fields = head.fields();
    hop_by_hop().into_iter().any(|name| fields.contains(name))
}

/// Takes them out.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    // One walk over the names is cheaper than a lookup for each that is seldom there.
    let present: SmallVec<[&HeaderName; 4]> = headers
        .keys()
        .filter_map(|name| hop_by_hop().into_iter().find(|other| *other == name))
        .collect();
    for name in present {
        headers.remove(name);
    }
}

/// The request as a message; its body is there when it is held.
pub(super) fn request(exchange: &Exchange) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut headers = exchange.request.fields().to_map();
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(exchange.host())
    {
        headers.insert(HOST, host);
    }
    Message {
        headers,
        content: match &exchange.request_body {
            RequestBody::Held(body) => body.clone(),
            RequestBody::Absent | RequestBody::Streaming { .. } => Bytes::new(),
        },
        version: exchange.request.version(),
        verb: verb(exchange.request.method()),
        path: path(exchange).into_owned(),
        query: exchange.query().map(text),
        ..Message::request()
    }
}

/// The path as the client sent it. One with segments that lead back is taken in the form in which its route was found:
/// what conditions judge and what is passed on must not lie elsewhere.
pub(super) fn path(exchange: &Exchange) -> Cow<'_, str> {
    let raw = exchange.raw_path();
    match leads_back(raw) {
        true => String::from_utf8_lossy(exchange.path()),
        false => String::from_utf8_lossy(raw),
    }
}

/// Is some segment `.` or `..`, perhaps with its dots encoded?
fn leads_back(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        loop {
            rest = match rest {
                [] => return dots == 1 || dots == 2,
                [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
                _ => return false,
            };
            dots += 1;
        }
    })
}

fn verb(method: &Method) -> Cow<'static, str> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
    ];
    const WORDS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    match known.iter().position(|other| other == method) {
        Some(index) => WORDS
            .get(index)
            .map_or(Cow::Borrowed("GET"), |word| Cow::Borrowed(*word)),
        None => Cow::Owned(method.as_str().to_owned()),
    }
}

/// Sends the exchange to a target, with the message as it stands.
pub(super) fn forward(exchange: &mut Exchange, message: Option<&Message>, composed: &Composed) {
    exchange.chosen_forward = Some(Arc::clone(&composed.forward));
    let edits = exchange.edits_mut();
    edits.target = Some(composed.target.clone().into_bytes());
    edits.host.clone_from(&composed.host);
    edits.fields_as_given = true;
    let Some(message) = message else { return };
    if message.verb != exchange.request.method().as_str()
        && let Ok(method) = Method::from_bytes(message.verb.as_bytes())
    {
        exchange.edits_mut().method = Some(method);
    }
    if !exchange.request.fields().are(&message.headers) {
        exchange.request.replace_fields(message.headers.clone());
    }
    let body = &mut exchange.request_body;
    let is_held = matches!(body, RequestBody::Held(_));
    if is_held || !message.content.is_empty() {
        *body = RequestBody::Held(message.content.clone());
    }
}

/// A target's response as a message.
pub(super) fn response(head: &ResponseHead, content: Bytes) -> Message {
    let mut headers = head.fields().to_map();
    drop_hop_by_hop(&mut headers);
    let status = head.status();
    let usual = status.canonical_reason().unwrap_or_default();
    Message {
        headers,
        content,
        version: head.version(),
        status: status.as_u16(),
        reason: Some(head.reason())
            .filter(|reason| *reason != usual)
            .map(Into::into),
        ..Message::response()
    }
}

/// Writes the answer over a target's response.
pub(super) fn overwrite(answer: &Message, head: &mut ResponseHead) {
    let status = final_status(answer.status);
    let usual = head.status().canonical_reason().unwrap_or_default();
    let reason = answer.reason.as_deref().unwrap_or(usual);
    let is_line_same = head.status() == status && head.reason() == reason;
    let are_fields_same = head.fields().are(&answer.headers);
    if !is_line_same {
        // A message's status lies between 100 and 599.
        let _ = head.set_status(status);
        let _ = head.set_reason_phrase(answer.reason.as_deref());
    }
    if are_fields_same {
        return;
    }
    let old: Vec<HeaderName> = head.headers.keys().cloned().collect();
    for name in old {
        head.remove_header(&name);
    }
    for (name, value) in &answer.headers {
        if *name != TRANSFER_ENCODING {
            // As above.
            let _ = head.append_header(name.clone(), value.clone());
        }
    }
}

/// The answer as the gateway's own response.
pub(super) fn local(answer: &Message) -> LocalResponse {
    let status = StatusCode::from_u16(final_status(answer.status));
    let mut local = LocalResponse::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &answer.headers {
        if *name != TRANSFER_ENCODING && *name != CONTENT_LENGTH {
            local.headers.push((name.clone(), value.clone()));
        }
    }
    local.body = answer.content.clone();
    local
}

/// Interim statuses end nothing: an answer with one would leave the client waiting.
fn final_status(status: u16) -> u16 {
    match status {
        200..=599 => status,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_connection_are_dropped_whatever_their_number() {
        let all = "connection keep-alive proxy-connection te trailer transfer-encoding upgrade";
        let mut headers = HeaderMap::new();
        for name in all.split(' ').chain(["via", "te", "upgrade", "via"]) {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get_all("via").iter().count(), 2);
    }

    #[test]
    fn segments_that_lead_back_are_seen() {
        for (path, leads) in [
            ("/a/b", false),
            ("/a/../b", true),
            ("/a/./b", true),
            ("/a/%2e%2E/b", true),
            ("/a/.%2e", true),
            ("/a/...", false),
            ("/a/..b", false),
            ("/a/.b/", false),
            ("//", false),
        ] {
            assert_eq!(leads_back(path.as_bytes()), leads, "{path}");
        }
    }
}
