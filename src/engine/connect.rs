//! Connections to endpoints: TCP, TLS, and what makes one connection fit to stand in for another.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use ahash::RandomState;
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::net::TcpStream;

use crate::engine::balance::connect_fault;
use crate::engine::descriptors;
use crate::engine::exchange::codec::UpstreamStream;
use crate::engine::forwarding::{self, Destination};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Fault, FaultKind};
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
        let mut stream = SslStream::new(ssl, stream).map_err(|error| failed(&error))?;
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
/// Connections without TLS are all alike.
pub(crate) fn pool_group(exchange: &Exchange, destination: &Destination<'_>) -> u64 {
    match &destination.forward.tls {
        None => 0,
        Some(tls) => GROUPS.hash_one((tls.identity(), server_name(exchange, destination))),
    }
}
