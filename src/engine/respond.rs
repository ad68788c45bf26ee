//! The only writer of responses that the gateway makes itself.
//!
//! Header and body filters run over them as over an upstream's, so that CORS headers, rate limit headers and logs do not
//! depend on who answered.

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, SERVER};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::engine::{heads, phases};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::LocalResponse;

/// Sends a local response through the response phases.
pub(crate) async fn send(
    session: &mut Session,
    exchange: &mut Exchange,
    local: LocalResponse,
) -> Result<()> {
    phases::made_here(exchange);
    let (head, body) = prepare(exchange, local)?;
    exchange.status = head.status.as_u16();
    let bodiless = exchange.request.method == Method::HEAD || body.is_empty();
    exchange.response_bytes = body.len() as u64;
    let head = Box::new(head);
    exchange.response = Some(head.clone());
    session
        .as_downstream_mut()
        .write_response_header(head)
        .await?;
    if !bodiless {
        session
            .as_downstream_mut()
            .write_response_body(body, true)
            .await?;
    } else if session.as_downstream().is_http2() {
        session
            .as_downstream_mut()
            .write_response_body(Bytes::new(), true)
            .await?;
    }
    Ok(())
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
    if let Some(server) = &exchange.snapshot.serving.headers.server
        && !head.headers.contains_key(SERVER)
    {
        head.insert_header(SERVER, server.clone())?;
    }
    heads::add_gateway_headers(exchange, &mut head);
    phases::header_filter(exchange, &mut head);
    let mut body = local.body;
    if phases::takes_part(exchange, Phases::BODY_FILTER) {
        phases::body_filter(exchange, &mut body, true);
    }
    // 204 and 304 have no length; everything else that is made here is whole.
    if !matches!(head.status.as_u16(), 204 | 304) && !head.status.is_informational() {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    Ok((head, body))
}
