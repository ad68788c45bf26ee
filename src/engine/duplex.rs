//! The duplex driver: Pingora's own proxy path, for large uploads, 100-continue and gRPC.
//!
//! What Pingora's hooks need beyond the shared phases: the peer, its options, and the mapping of errors to faults.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::{ALPN, HttpPeer, Peer};
use pingora_error::{Error, ErrorSource, ErrorType, Result};

use crate::engine::forwarding::{self, Destination};
use crate::engine::{balance, connect};
use crate::model::plan::Protocol;
use crate::runtime::cluster::Picked;
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::{Blame, Fault, FaultKind};
use crate::runtime::mutual::Refusal;
use crate::runtime::snapshot::Forward;

/// Concurrent streams on one HTTP/2 connection to an upstream.
const UPSTREAM_STREAMS_MAX: usize = 128;
/// Silence after which an HTTP/2 connection to an upstream is probed.
const UPSTREAM_PING_AFTER: Duration = Duration::from_secs(30);

/// The peer for one try. The error says that there is no identity to connect with.
pub(crate) fn peer(
    exchange: &Exchange,
    destination: &Destination<'_>,
) -> std::result::Result<Box<HttpPeer>, Box<Fault>> {
    let plan = &destination.forward.plan;
    let picked = destination.picked;
    let secured = picked.secured.as_ref();
    let server_name = match secured {
        Some(secured) => secured.server_name.as_deref().unwrap_or("").to_owned(),
        None => connect::server_name(exchange, destination),
    };
    let tls = destination.forward.tls.is_some() || secured.is_some();
    #[allow(clippy::disallowed_methods, reason = "the address is resolved already")]
    let mut peer = HttpPeer::new(picked.address, tls, server_name);
    peer.group_key = connect::pool_group(exchange, destination);
    let options = &mut peer.options;
    let milliseconds = |ms: u32| Some(Duration::from_millis(u64::from(ms)));
    options.connection_timeout = milliseconds(plan.connect_timeout_ms);
    options.total_connection_timeout = milliseconds(plan.connect_timeout_ms);
    options.read_timeout = milliseconds(plan.read_timeout_ms);
    options.write_timeout = milliseconds(plan.write_timeout_ms);
    let idle = exchange.snapshot.serving.plan.upstream_pool.idle_seconds;
    let usual = Duration::from_secs(if idle == 0 { u64::from(u32::MAX) } else { idle });
    let own = exchange.edits.as_deref().and_then(|edits| edits.idle);
    options.idle_timeout = Some(own.unwrap_or(usual));
    if matches!(plan.protocol, Protocol::Grpc | Protocol::Grpcs) {
        options.set_http_version(2, 2);
        options.max_h2_streams = UPSTREAM_STREAMS_MAX;
        options.h2_ping_interval = Some(UPSTREAM_PING_AFTER);
    } else {
        options.set_http_version(1, 1);
        options.alpn = ALPN::H1;
    }
    if let Some(secured) = secured {
        let Some(mutual) = secured.cell.load() else {
            let fault = connect::refused(picked.address, secured, &Refusal::NotReady);
            return Err(Box::new(fault));
        };
        // Judged by our own check as below; the connector knows neither identities nor roots that others signed.
        options.verify_cert = false;
        options.verify_hostname = false;
        peer.client_cert_key = Some(Arc::clone(mutual.shown()));
        let secured = Arc::clone(secured);
        let address = picked.address;
        peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(move |ssl| {
            let judged = mutual.check_server(ssl, &*secured.judge);
            match &judged {
                Ok(_) => drop(secured.counts.connected.fetch_add(1, Ordering::Relaxed)),
                Err(refusal) => drop(connect::refused(address, &secured, refusal)),
            }
            let verdict = judged.map(|_| ()).map_err(|refusal| refusal.to_string());
            Some(Arc::new(Verdict(verdict)))
        }));
    } else if let Some(tls) = &destination.forward.tls {
        // Chain, depth and name are judged by our own check, which Pingora's connector cannot do in full; it runs
        // where the handshake ends, and its verdict is read before the first byte of a request.
        options.verify_cert = tls.verifies();
        options.verify_hostname = false;
        options.ca = tls.authorities().cloned();
        peer.client_cert_key = tls.client_certificate().cloned();
        let judge = Arc::clone(tls);
        let name = peer.sni.clone();
        peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(move |ssl| {
            Some(Arc::new(Verdict(judge.check_peer(ssl, &name))))
        }));
    }
    Ok(Box::new(peer))
}

/// What [`crate::runtime::upstream_tls::UpstreamTls::check_peer`] said when the connection was made.
struct Verdict(std::result::Result<(), String>);

/// Refuses a TLS connection, new or pooled, whose peer is not the one that the forward demands.
pub(crate) fn check_peer(
    forward: &Forward,
    picked: Option<&Picked>,
    digest: Option<&Digest>,
) -> Result<()> {
    let secured = picked.is_some_and(|picked| picked.secured.is_some());
    if !secured && forward.tls.as_ref().is_some_and(|tls| tls.is_restricted()) {
        // Its connector cannot be told; rather no request than one over a version or cipher that was not allowed.
        return Error::e_explain(
            ErrorType::InternalError,
            "TLS versions or ciphers are prescribed for this upstream, which uploads and gRPC cannot keep to",
        );
    }
    if !secured && !forward.tls.as_ref().is_some_and(|tls| tls.verifies()) {
        return Ok(());
    }
    let verdict = digest
        .and_then(|digest| digest.ssl_digest.as_ref())
        .and_then(|digest| digest.extension.get::<Verdict>());
    match verdict {
        Some(Verdict(Ok(()))) => Ok(()),
        Some(Verdict(Err(reason))) => Error::e_explain(ErrorType::InvalidCert, reason.clone()),
        None => Error::e_explain(
            ErrorType::InvalidCert,
            "the upstream's certificate was not checked",
        ),
    }
}

/// What an error of Pingora's means to the client.
pub(crate) fn fault(error: &Error) -> Fault {
    let blame = match error.esource() {
        ErrorSource::Downstream => Blame::Client,
        ErrorSource::Internal => Blame::Gateway,
        ErrorSource::Upstream | ErrorSource::Unset => Blame::Upstream,
    };
    let status = match (error.etype(), blame) {
        (ErrorType::HTTPStatus(status), _) => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        (_, Blame::Client) => StatusCode::BAD_REQUEST,
        (_, Blame::Gateway) => StatusCode::INTERNAL_SERVER_ERROR,
        (
            ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::TLSHandshakeTimedout,
            Blame::Upstream,
        ) => StatusCode::GATEWAY_TIMEOUT,
        (_, Blame::Upstream) => StatusCode::BAD_GATEWAY,
    };
    Fault::transport(status, blame, error.to_string()).kind(kind_of(error, blame))
}

fn kind_of(error: &Error, blame: Blame) -> FaultKind {
    if blame != Blame::Upstream {
        return FaultKind::Other;
    }
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => FaultKind::UpstreamTimeout,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => FaultKind::TlsHandshake,
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => FaultKind::Connect,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            FaultKind::UpstreamClosed
        }
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error => {
            FaultKind::UpstreamMalformed
        }
        _ => FaultKind::Other,
    }
}

/// May a failed try be repeated? Never once a response has begun; after the request was written only for methods that
/// may be sent twice. A yes counts as a retry.
pub(crate) fn may_retry(exchange: &Exchange, sent: bool) -> bool {
    let Some(forward) = exchange.forward() else {
        return false;
    };
    let method = forwarding::upstream_method(exchange);
    (!sent || crate::engine::exchange::is_idempotent(method))
        && balance::may_try_again(exchange, forward, exchange.tries.len())
}

/// How long an upgraded connection may stay silent.
pub(crate) fn tunnel_timeout(exchange: &Exchange) -> Option<Duration> {
    let forward = exchange.forward()?;
    Some(Duration::from_millis(u64::from(
        forward.plan.read_timeout_ms,
    )))
}

/// The peer's address for messages.
pub(crate) fn describe(peer: &HttpPeer) -> Arc<str> {
    peer.address().to_string().into()
}
