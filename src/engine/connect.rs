//! Connections to endpoints: TCP, TLS, and what makes one connection fit to stand in for another.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ahash::RandomState;
use http::StatusCode;
use tokio::net::TcpStream;

use crate::engine::balance::connect_fault;
use crate::engine::descriptors;
use crate::engine::exchange::codec::UpstreamStream;
use crate::engine::forwarding::{self, Destination};
use crate::engine::mutual::handshake_refusal;
use crate::engine::read_ahead::{ReadAhead, TlsStream};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Fault, FaultKind};
use crate::runtime::mutual::{MutualTls, Offer, Refusal, Secured};
use crate::runtime::upstream_tls::UpstreamTls;

/// What the exchange driver speaks.
const HTTP1_ALPN: &[u8] = b"\x08http/1.1";
/// What calls speak.
const HTTP2_ALPN: &[u8] = b"\x02h2";
/// Hashes what connections must have in common; random, so that nobody can aim at a collision.
static GROUPS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Opens a connection for this exchange, TLS included, within the forward's connect timeout.
pub(crate) async fn connect(
    exchange: &Exchange,
    destination: &Destination<'_>,
) -> Result<UpstreamStream, Fault> {
    connect_speaking(HTTP1_ALPN, exchange, destination).await
}

/// The same, for HTTP/2; over TLS the upstream must agree to it.
pub(crate) async fn connect_http2(
    exchange: &Exchange,
    destination: &Destination<'_>,
) -> Result<UpstreamStream, Fault> {
    let stream = connect_speaking(HTTP2_ALPN, exchange, destination).await?;
    match &stream {
        // A peer of the mesh that carries bytes names no protocol.
        UpstreamStream::Tls(tls)
            if destination.picked.secured.is_some()
                && tls.ssl().selected_alpn_protocol().is_none() =>
        {
            Ok(stream)
        }
        UpstreamStream::Tls(tls) if tls.ssl().selected_alpn_protocol() != Some(b"h2") => {
            let address = destination.picked.address;
            Err(
                connect_fault(address, false, "the upstream does not speak HTTP/2")
                    .kind(FaultKind::TlsHandshake),
            )
        }
        _ => Ok(stream),
    }
}

async fn connect_speaking(
    protocols: &[u8],
    exchange: &Exchange,
    destination: &Destination<'_>,
) -> Result<UpstreamStream, Fault> {
    let address = destination.picked.address;
    let limit = Duration::from_millis(u64::from(destination.forward.plan.connect_timeout_ms));
    let opening = async {
        let stream = TcpStream::connect(address).await.map_err(|error| {
            connect_fault(address, false, &format!("connecting failed: {error}"))
        })?;
        if descriptors::is_reserved(&stream) {
            return Err(connect_fault(address, false, "descriptors run out"));
        }
        stream
            .set_nodelay(true)
            .map_err(|error| connect_fault(address, false, &error.to_string()))?;
        if let Some(secured) = &destination.picked.secured {
            let offer = match protocols {
                HTTP2_ALPN => Offer::Http2,
                _ => Offer::Http1,
            };
            let stream = shake_hands(secured, offer, stream).await;
            return stream
                .map(|stream| UpstreamStream::Tls(Box::new(stream)))
                .map_err(|refusal| refused(address, secured, &refusal));
        }
        let Some(tls) = &destination.forward.tls else {
            return Ok(UpstreamStream::Plain(stream));
        };
        let failed = |cause: &dyn std::fmt::Display| {
            connect_fault(address, false, &format!("TLS handshake failed: {cause}"))
                .kind(FaultKind::TlsHandshake)
        };
        let name = server_name(exchange, destination);
        let ssl = tls
            .connection(&name, protocols)
            .map_err(|error| failed(&error))?;
        let mut stream =
            TlsStream::new(ssl, ReadAhead::new(stream)).map_err(|error| failed(&error))?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            return Err(match UpstreamTls::refusal(stream.ssl()) {
                Some(reason) => failed(&reason),
                None => failed(&error),
            });
        }
        Ok(UpstreamStream::Tls(Box::new(stream)))
    };
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(connect_fault(address, true, "connecting timed out")),
    }
}

/// Shakes hands with a peer that must be the one whom the address is for. Nothing of a request is sent before.
pub(crate) async fn shake_hands(
    secured: &Secured,
    offer: Offer,
    stream: TcpStream,
) -> Result<TlsStream, Refusal> {
    let tls = secured.cell.load().ok_or(Refusal::NotReady)?;
    let (name, judge) = (secured.server_name.as_deref(), Arc::clone(&secured.judge));
    let ssl = tls
        .connecting(name, offer, judge)
        .map_err(Refusal::Handshake)?;
    let failed = |error: &dyn std::fmt::Display| Refusal::Handshake(error.to_string());
    let mut stream = TlsStream::new(ssl, ReadAhead::new(stream)).map_err(|error| failed(&error))?;
    let shaken = Pin::new(&mut stream).connect().await;
    match (MutualTls::outcome(stream.ssl()).cloned(), shaken) {
        (Some(Err(refusal)), _) => Err(refusal),
        (Some(Ok(_)), Ok(())) => {
            secured.counts.connected.fetch_add(1, Ordering::Relaxed);
            Ok(stream)
        }
        (_, Err(error)) => Err(handshake_refusal(&error)),
        (None, Ok(())) => Err(Refusal::NoCertificate),
    }
}

/// Counts and tells why a peer is not used, and what that means to the client.
pub(crate) fn refused(address: SocketAddr, secured: &Secured, refusal: &Refusal) -> Fault {
    secured.counts.failures.count(refusal);
    let (expected, reason) = (&*secured.expected, refusal.label());
    tracing::warn!(%address, expected, reason, "peer not used: {refusal}");
    let mut fault = connect_fault(address, false, &refusal.to_string());
    if matches!(refusal, Refusal::NotReady) {
        // Not the peer's fault: the gateway itself cannot call anybody at present.
        fault.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    fault.kind(FaultKind::TlsHandshake)
}

/// The TLS server name: the host asked for, without its port.
pub(crate) fn server_name(exchange: &Exchange, destination: &Destination<'_>) -> String {
    let host = forwarding::upstream_host(exchange, destination);
    let host = String::from_utf8_lossy(host.as_bytes());
    let (name, _) = crate::model::route::split_port(&host);
    name.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

/// What connections of one group have in common besides their address: protocol, trust, identity and server name.
/// Connections without TLS are all alike; those to peers of a mesh only under one certificate of our own.
pub(crate) fn pool_group(exchange: &Exchange, destination: &Destination<'_>) -> u64 {
    if let Some(secured) = &destination.picked.secured {
        // 0 while there is no identity: connecting will say so.
        let generation = secured.cell.load().map_or(0, |tls| tls.generation());
        let named = (&secured.expected, &secured.server_name);
        return GROUPS.hash_one((generation, named));
    }
    match &destination.forward.tls {
        None => 0,
        Some(tls) => GROUPS.hash_one((tls.identity(), server_name(exchange, destination))),
    }
}
