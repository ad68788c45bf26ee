//! The handshake of a tunnel whose messages are read: what the upstream is asked, and what its answer amounts to.

use http::StatusCode;
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use pingora_http::ResponseHeader;

use crate::engine::phases;
use crate::engine::websocket::frame::Compression;
use crate::engine::websocket::{deflate, handshake};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Blame, Fault, FaultKind};
use crate::runtime::message::MessageLimits;

/// What was asked for; kept in the exchange until the answer.
struct Asked {
    key: Box<[u8]>,
    compression_offered: bool,
    /// Will somebody look into messages?
    opened: bool,
}

/// Checks the client's handshake, and offers the upstream no extension that could not be understood here.
#[allow(
    clippy::result_large_err,
    reason = "made for refused requests only, and answered at once"
)]
pub(crate) fn ask(exchange: &mut Exchange) -> Result<(), Fault> {
    let Some(key) = handshake::key(&exchange.request).map(Box::from) else {
        let cause = "Sec-WebSocket-Key is not 16 bytes in base64";
        return Err(Fault::transport(
            StatusCode::BAD_REQUEST,
            Blame::Client,
            cause,
        ));
    };
    let opened = exchange.message_limits != MessageLimits::default()
        || phases::takes_part(
            exchange,
            Phases::CLIENT_MESSAGE.with(Phases::UPSTREAM_MESSAGE),
        );
    let offer = deflate::offer(&exchange.request.headers, opened);
    let asked = Asked {
        key,
        compression_offered: offer.is_some(),
        opened,
    };
    exchange.request.remove_header(&SEC_WEBSOCKET_EXTENSIONS);
    if let Some(offer) = offer {
        // Only a header map at its size limit refuses, and a field was just taken off.
        let _ = exchange
            .request
            .insert_header(SEC_WEBSOCKET_EXTENSIONS, offer);
    }
    exchange.stash(asked);
    Ok(())
}

/// Judges a switch of protocols, and completes its head for the client.
#[allow(
    clippy::result_large_err,
    reason = "made for refused requests only, and answered at once"
)]
pub(crate) fn confirm(
    exchange: &Exchange,
    head: &mut ResponseHeader,
) -> Result<Compression, Fault> {
    let refused = |reason: &str| {
        let cause = format!("the upstream's answer to the WebSocket handshake: {reason}");
        Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, cause)
            .kind(FaultKind::UpstreamMalformed)
    };
    let Some(asked) = exchange.stashed::<Asked>() else {
        return Err(refused("nothing was asked for"));
    };
    if !handshake::agrees(head, &asked.key) {
        return Err(refused("it does not prove that it read the key"));
    }
    let (compression, agreed) =
        deflate::agreed(&head.headers, asked.compression_offered, asked.opened).map_err(refused)?;
    head.remove_header(&SEC_WEBSOCKET_EXTENSIONS);
    if let Some(agreed) = agreed {
        // As above.
        let _ = head.insert_header("Sec-WebSocket-Extensions", agreed);
    }
    Ok(compression)
}
