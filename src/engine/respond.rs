//! The only writer of responses that the gateway makes itself.
//!
//! Header and body filters run over them as over an upstream's, so that CORS headers, rate limit headers and logs do not
//! depend on who answered.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_error::Result;
use pingora_http::ResponseHeader;

use crate::engine::client::Client;
use crate::engine::exchange::downstream::Downstream;
use crate::engine::{heads, phases};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::LocalResponse;
use crate::runtime::head::ResponseHead;

/// How long the rest of a request body is read over HTTP/2 after its answer.
const READ_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends a local response through the response phases.
pub(crate) async fn send(
    client: &mut Client<'_>,
    exchange: &mut Exchange,
    local: LocalResponse,
) -> Result<()> {
    phases::made_here(exchange);
    let (head, body) = prepare(exchange, local)?;
    let mut head = ResponseHead::from(head);
    exchange.status = head.status().as_u16();
    if is_body_unwelcome(exchange) {
        client.close();
    }
    let method = exchange.request.method().clone();
    // Past the session: it would replace `Connection` and close a connection whose request body nobody has read yet.
    // What is left of that body is read away before the next request.
    let started = Downstream::start(client, &mut head, &method, None, body, true).await;
    exchange.response = Some(head);
    exchange.response_bytes = started?.sent();
    if exchange.http2 && matches!(exchange.request_body, RequestBody::Streaming { .. }) {
        client.read_away(READ_AWAY_TIMEOUT).await;
    }
    Ok(())
}

/// Is the connection better closed than read on? A body that is too long would be read in vain, and a client that
/// waits for `100 Continue` may send its body or not.
fn is_body_unwelcome(exchange: &Exchange) -> bool {
    exchange.status == StatusCode::PAYLOAD_TOO_LARGE.as_u16()
        || (exchange.request.fields().contains(&EXPECT)
            && matches!(exchange.request_body, RequestBody::Streaming { .. }))
}

/// Head and body after the response phases.
pub(crate) fn prepare(
    exchange: &mut Exchange,
    local: LocalResponse,
) -> Result<(ResponseHeader, Bytes)> {
    let mut head = ResponseHeader::build(local.status, Some(local.headers.len() + 8))?;
    for (name, value) in local.headers {
        head.append_header(name, value)?;
    }
    heads::insert_left_fields(exchange, &mut head);
    phases::header_filter(exchange, &mut head);
    let mut body = local.body;
    if phases::takes_part(exchange, Phases::BODY_FILTER) {
        phases::body_filter(exchange, &mut body, true);
    }
    heads::insert_gateway_headers(exchange, &mut head);
    // 204 and 304 have no length; everything else that is made here is whole.
    if !matches!(head.status.as_u16(), 204 | 304) && !head.status.is_informational() {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    Ok((head, body))
}
