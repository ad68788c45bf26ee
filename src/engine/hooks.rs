//! The gateway as Pingora's proxy calls it: one `ProxyHttp` implementation whose hooks call the phases.
//!
//! This is the duplex driver's road: large uploads, upgrades that do not wait, `100-continue`, gRPC and trailers. It decides
//! nothing of its own; what a phase does is in `phases.rs`, what an attempt is in `duplex.rs` and `balance.rs`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use smallvec::SmallVec;

use crate::engine::client::Client;
use crate::engine::exchange::{self, CLIENT_LEFT};
use crate::engine::forwarding::{self, Destination};
use crate::engine::gateway::{BEGUN, Begun, Counted, Gateway, body_of};
use crate::engine::io::Io;
use crate::engine::phases;
use crate::engine::{balance, duplex, heads, respond};
use crate::runtime::cluster::{Outcome, Picked};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::{Exchange, ResponseSource};
use crate::runtime::fault::{Blame, Fault, FaultKind, LocalResponse};
use crate::runtime::head::ResponseHead;

/// The gateway as Pingora's proxy path calls it.
pub(crate) struct Hooks(pub(crate) Arc<Gateway>);

impl Deref for Hooks {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.0
    }
}

/// What Pingora carries through the hooks of one request.
pub(crate) struct RequestState {
    exchange: Option<Box<Exchange>>,
    _counted: Counted,
    /// The duplex driver's: endpoints tried, the current one, and how far it got.
    tried: SmallVec<[SocketAddr; 2]>,
    picked: Option<Picked>,
    sent: bool,
    /// The current endpoint has answered.
    reported: bool,
    /// Why the request cannot be proxied, when a hook found out.
    fault: Option<Fault>,
    /// What a step answers instead of the upstream.
    instead: Option<Box<LocalResponse>>,
    /// Request body bytes seen by the duplex driver.
    body_bytes: u64,
    filters_body: bool,
}

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = RequestState;

    fn new_ctx(&self) -> Self::CTX {
        let begun = BEGUN.try_with(Cell::take).ok().flatten();
        let (exchange, counted) = match begun {
            Some(Begun { exchange, counted }) => (Some(exchange), counted),
            None => (None, Counted::new(&self.node)),
        };
        RequestState {
            exchange,
            _counted: counted,
            tried: SmallVec::new(),
            picked: None,
            sent: false,
            reported: false,
            fault: None,
            instead: None,
            body_bytes: 0,
            filters_body: false,
        }
    }

    /// No modules: the default one costs an allocation for each request.
    fn init_downstream_modules(&self, _modules: &mut pingora_core::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        let session = session.as_downstream_mut();
        if let Some(exchange) = &ctx.exchange {
            // It went as far as here already; the session has only now been given it.
            let (_, length) = body_of(session);
            self.adopt(session, length);
            *session.req_header_mut() = (*exchange.request).clone();
            return Ok(false);
        }
        let Some(mut exchange) = self.begin(session) else {
            return Error::e_explain(ErrorType::InternalError, "connection facts are missing");
        };
        let finished = self
            .exchange(&mut Client::Session(session), &mut exchange)
            .await;
        if !finished {
            // Pingora's own path reads the head: give it back.
            *session.req_header_mut() = (*exchange.request).clone();
        }
        ctx.exchange = Some(exchange);
        Ok(finished)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return Error::e_explain(ErrorType::InternalError, "no exchange");
        };
        let Some(route) = exchange.route.clone() else {
            return Error::e_explain(ErrorType::InternalError, "no route");
        };
        let Some(forward) = exchange.forward().cloned() else {
            return Error::e_explain(ErrorType::InternalError, "no forward");
        };
        let forward = &forward;
        ctx.sent = false;
        ctx.reported = false;
        ctx.body_bytes = 0;
        // Its place among the exchanges of the upstream is free for the next try.
        ctx.picked = None;
        let picked = match balance::pick(exchange, forward, &ctx.tried).await {
            Ok(picked) => picked,
            Err(fault) => {
                let status = fault.status.as_u16();
                ctx.fault = Some(fault);
                return Error::e_explain(ErrorType::HTTPStatus(status), "no endpoint");
            }
        };
        ctx.tried.push(picked.address);
        let destination = Destination {
            route: &route,
            forward,
            picked: &picked,
        };
        if phases::takes_part(exchange, Phases::LOG) {
            forwarding::note_target(exchange, &destination);
        }
        let peer = duplex::peer(exchange, &destination);
        ctx.picked = Some(picked);
        peer.map_err(|fault| {
            let status = fault.status.as_u16();
            ctx.fault = Some(*fault);
            Error::explain(ErrorType::HTTPStatus(status), "no identity to connect with")
        })
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        #[cfg(unix)] _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        match ctx
            .exchange
            .as_ref()
            .and_then(|exchange| exchange.forward())
        {
            Some(forward) => duplex::check_peer(forward, ctx.picked.as_ref(), digest),
            None => Ok(()),
        }
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        ctx.sent = true;
        let (Some(exchange), Some(picked)) = (&ctx.exchange, &ctx.picked) else {
            return Error::e_explain(ErrorType::InternalError, "no exchange");
        };
        let Some(route) = &exchange.route else {
            return Error::e_explain(ErrorType::InternalError, "no route");
        };
        let Some(forward) = exchange.forward() else {
            return Error::e_explain(ErrorType::InternalError, "no forward");
        };
        let destination = Destination {
            route,
            forward,
            picked,
        };
        forwarding::edit_head(exchange, &destination, upstream_request)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if end_of_stream && let Some(io) = Io::under(session.as_downstream()) {
            io.body_ended();
        }
        let Some(exchange) = &ctx.exchange else {
            return Ok(());
        };
        ctx.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        let limit = exchange.snapshot.serving.plan.request_body_bytes_max;
        // After an upgrade the bytes are a tunnel's, not a request's.
        let upgraded = exchange.upstream_status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
        if limit > 0 && ctx.body_bytes > limit && !upgraded {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let cause = format!("request body exceeds the limit of {limit} bytes");
            let fault = Fault::transport(status, Blame::Client, cause);
            ctx.fault = Some(fault.kind(FaultKind::RequestTooLarge));
            return Error::e_explain(ErrorType::HTTPStatus(status.as_u16()), "body too large");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let switching = upstream_response.status == StatusCode::SWITCHING_PROTOCOLS;
        if upstream_response.status.is_informational() && !switching {
            return Ok(());
        }
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return Ok(());
        };
        let status = upstream_response.status;
        if let (Some(forward), Some(picked)) = (exchange.forward(), &ctx.picked) {
            let outcome = Outcome::Answered(status.as_u16());
            balance::report(exchange, forward, picked, outcome);
            ctx.reported = true;
            if balance::is_retried_status(forward, status)
                && !session.as_ref().retry_buffer_truncated()
                && duplex::may_retry(exchange, true)
            {
                balance::give_up(exchange, status.as_u16());
                let code = ErrorType::HTTPStatus(status.as_u16());
                let mut again = Error::explain(code, "an answer that is not passed on");
                again.set_retry(true);
                return Err(again);
            }
        }
        exchange.timing.answered = Some(Instant::now());
        exchange.upstream_status = status.as_u16();
        exchange.response_source = ResponseSource::Upstream;
        heads::drop_hop_by_hop(upstream_response, switching);
        if phases::takes_part(exchange, Phases::RESPONSE_HEAD) {
            let stand_in = ResponseHeader::build_no_case(status, Some(0))?;
            let mut head = ResponseHead::from(std::mem::replace(upstream_response, stand_in));
            let step = phases::response_head(exchange, &mut head).await;
            *upstream_response = *head.into_whole();
            if let Err(local) = step {
                let status = local.status.as_u16();
                ctx.instead = Some(local);
                return Error::e_explain(ErrorType::HTTPStatus(status), "answered instead");
            }
        }
        heads::insert_left_fields(exchange, upstream_response);
        phases::header_filter(exchange, upstream_response);
        heads::insert_gateway_headers(exchange, upstream_response);
        ctx.filters_body = !switching && phases::takes_part(exchange, Phases::BODY_FILTER);
        if exchange.is_body_length_changing() {
            upstream_response.remove_header(&CONTENT_LENGTH);
            if !exchange.http2 {
                upstream_response.insert_header(TRANSFER_ENCODING, "chunked")?;
            }
        }
        let http10 = exchange.request.version() == http::Version::HTTP_10;
        if http10 && upstream_response.headers.contains_key(TRANSFER_ENCODING) {
            // Such a client knows no chunks: closing ends the body.
            upstream_response.remove_header(&TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        exchange.status = upstream_response.status.as_u16();
        if phases::takes_part(exchange, Phases::LOG) {
            exchange.response = Some(upstream_response.clone().into());
        }
        if switching {
            session.set_read_timeout(duplex::tunnel_timeout(exchange));
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        if ctx.filters_body
            && let Some(exchange) = ctx.exchange.as_deref_mut()
        {
            let mut piece = body.take().unwrap_or_default();
            phases::body_filter(exchange, &mut piece, end_of_stream);
            *body = Some(piece);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        upstream_trailers: &mut HeaderMap,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Bytes>> {
        if let Some(exchange) = ctx.exchange.as_deref_mut()
            && phases::takes_part(exchange, Phases::TRAILERS)
        {
            phases::trailers(exchange, upstream_trailers);
        }
        // With trailers the body filter never learns of the end: what it held back leaves now.
        if ctx.filters_body
            && let Some(exchange) = ctx.exchange.as_deref_mut()
        {
            let mut piece = Bytes::new();
            phases::body_filter(exchange, &mut piece, true);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Self::CTX,
        mut e: Box<Error>,
    ) -> Box<Error> {
        retry_if_allowed(ctx, &mut e, false, true);
        e
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        let mut e = e.more_context(format!("upstream {}", duplex::describe(peer)));
        if ctx.reported {
            // It has answered, and whether that is to be tried again was decided then.
            let again = matches!(e.etype(), ErrorType::HTTPStatus(_)) && e.retry();
            e.set_retry(again && session.response_written().is_none());
            return e;
        }
        let replayable = !session.as_ref().retry_buffer_truncated();
        let untouched = session.response_written().is_none();
        e.retry
            .decide_reuse(client_reused && replayable && untouched);
        if e.retry() {
            // Not the endpoint's fault: it closed an idle connection. The same one may be asked again.
            let idempotent = ctx.exchange.as_ref().is_some_and(|exchange| {
                exchange::is_idempotent(forwarding::upstream_method(exchange))
            });
            e.set_retry(idempotent);
            ctx.tried.pop();
        } else {
            retry_if_allowed(ctx, &mut e, ctx.sent, replayable && untouched);
        }
        e
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        e: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        let instead = ctx.instead.take();
        let fault = ctx.fault.take().unwrap_or_else(|| duplex::fault(e));
        let code = match &instead {
            Some(local) => local.status.as_u16(),
            None => fault.status.as_u16(),
        };
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return FailToProxy {
                error_code: code,
                can_reuse_downstream: false,
            };
        };
        let left =
            fault.blame == Blame::Client && *e.esource() == pingora_error::ErrorSource::Downstream;
        if left && instead.is_none() {
            exchange.status = CLIENT_LEFT;
        } else if session.response_written().is_none() {
            let local = match instead {
                Some(local) => local,
                None => phases::failed(exchange, &fault).await,
            };
            // Pingora closes the connection after this, whatever is said here.
            session.set_keepalive(None);
            let mut client = Client::Session(session.as_downstream_mut());
            if let Err(error) = respond::send(&mut client, exchange, *local).await {
                tracing::debug!(%error, "client left before the answer");
                exchange.status = CLIENT_LEFT;
            }
        } else {
            tracing::error!(request_id = %exchange.request_id, error = %e, "response cut short");
        }
        FailToProxy {
            error_code: code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _e: Option<&Error>, ctx: &mut Self::CTX) {
        let Some(exchange) = ctx.exchange.as_deref_mut() else {
            return;
        };
        self.ended(session.as_downstream(), exchange);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
        _error: &Error,
        _context: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Lets Pingora try the next endpoint, where the rules allow.
fn retry_if_allowed(ctx: &mut RequestState, error: &mut Error, sent: bool, replayable: bool) {
    let Some(exchange) = ctx.exchange.as_deref_mut() else {
        return;
    };
    let client = *error.esource() == pingora_error::ErrorSource::Downstream;
    let settled = ctx.fault.is_some() || ctx.instead.is_some();
    let fault = duplex::fault(error);
    if fault.blame == Blame::Upstream
        && !settled
        && let (Some(forward), Some(picked)) = (exchange.forward(), &ctx.picked)
    {
        balance::report(exchange, forward, picked, balance::outcome_of(&fault));
    }
    if client || settled || !replayable || !duplex::may_retry(exchange, sent) {
        error.set_retry(false);
        return;
    }
    balance::give_up(exchange, fault.status.as_u16());
    error.set_retry(true);
}
