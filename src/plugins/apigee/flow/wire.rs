//! Between the engine's exchange and messages: a request taken in, a request sent on, a response in and out.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::scope::Inbound;
use crate::plugins::apigee::flow::target::Composed;
use crate::plugins::apigee::flow::transaction::drop_hop_by_hop;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::LocalResponse;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
        request_id: exchange.request_id,
        started: exchange.started,
        host: exchange.host().into(),
    })
}

/// Tells what lies before the proxy, in the request's own head, so that policies see it. `own_address`: the address that
/// the client connected to is told, too.
pub(super) fn add_forwarded(exchange: &mut Exchange, own_address: bool) {
    let connection = Arc::clone(&exchange.connection);
    let mut addresses = String::with_capacity(64);
    for value in exchange.request.headers.get_all(&X_FORWARDED_FOR) {
        if let Ok(text) = value.to_str() {
            addresses.push_str(text);
            addresses.push_str(", ");
        }
    }
    addresses.push_str(&connection.peer_text);
    if own_address {
        // Writing to a text cannot fail.
        let _ = write!(addresses, ", {}", connection.local.ip());
    }
    let proto = if exchange.secure { "https" } else { "http" };
    let fields = [
        (&X_FORWARDED_FOR, HeaderValue::try_from(addresses).ok()),
        (
            &X_FORWARDED_PORT,
            HeaderValue::from_str(&connection.port_text).ok(),
        ),
        (&X_FORWARDED_PROTO, Some(HeaderValue::from_static(proto))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            // Only a header map at its size limit refuses.
            let _ = exchange.request.insert_header(name.clone(), value);
        }
    }
}

/// The request as a message; its body is there when it is held.
pub(super) fn request(exchange: &Exchange) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut headers = exchange.request.headers.clone();
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
        version: exchange.request.version,
        verb: verb(&exchange.request.method),
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
    if message.verb != exchange.request.method.as_str()
        && let Ok(method) = Method::from_bytes(message.verb.as_bytes())
    {
        exchange.edits_mut().method = Some(method);
    }
    if message.headers != exchange.request.headers {
        replace_headers(exchange, &message.headers);
    }
    let body = &mut exchange.request_body;
    let is_held = matches!(body, RequestBody::Held(_));
    if is_held || !message.content.is_empty() {
        *body = RequestBody::Held(message.content.clone());
    }
}

/// The head that the client sent stays, but for its fields.
fn replace_headers(exchange: &mut Exchange, headers: &HeaderMap) {
    let old = &exchange.request;
    let made =
        RequestHeader::build_no_case(old.method.clone(), old.raw_path(), Some(headers.len() + 2));
    let Ok(mut head) = made else { return };
    head.set_version(old.version);
    for (name, value) in headers {
        // Only a header map at its size limit refuses, and this one came from such a map.
        let _ = head.append_header(name.clone(), value.clone());
    }
    *exchange.request = head;
}

/// A target's response as a message.
pub(super) fn response(head: &ResponseHeader, content: Bytes) -> Message {
    let mut headers = head.headers.clone();
    drop_hop_by_hop(&mut headers);
    Message {
        headers,
        content,
        version: head.version,
        status: head.status.as_u16(),
        reason: head
            .get_reason_phrase()
            .filter(|reason| Some(*reason) != head.status.canonical_reason())
            .map(Into::into),
        ..Message::response()
    }
}

/// Writes the answer over a target's response.
pub(super) fn overwrite(answer: &Message, head: &mut ResponseHeader) {
    // A message's status lies between 100 and 599.
    let _ = head.set_status(final_status(answer.status));
    let _ = head.set_reason_phrase(answer.reason.as_deref());
    if answer.headers == head.headers {
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
    use super::leads_back;

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
