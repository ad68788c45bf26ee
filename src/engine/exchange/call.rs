//! Calls of upstreams that speak gRPC, for requests whose body is held: plugins translate it on the way up, and see each
//! piece of the answer and its trailers on the way down.
//!
//! Pingora's own path cannot send a body that was held, or one for a request that came without. Connections are shared by
//! all calls of one destination.

use std::net::SocketAddr;
use std::time::Duration;

use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use crate::engine::client::Client;
use crate::engine::exchange::downstream::Downstream;
use crate::engine::exchange::pool::PoolKey;
use crate::engine::exchange::{CLIENT_LEFT, ExchangeDriver, left, set_length};
use crate::engine::forwarding::{self, Destination};
use crate::engine::{balance, connect, heads, phases};
use crate::runtime::cluster::{Outcome, Picked};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::{Exchange, RequestBody, ResponseHolding, ResponseSource};
use crate::runtime::fault::{Blame, Fault, FaultKind, LocalResponse};
use crate::runtime::head::ResponseHead;
use crate::runtime::snapshot::{Forward, Route};

/// Destinations with a connection at most; beyond it those closed are swept, and then new ones are not kept.
const CONNECTIONS_MAX: usize = 4096;
/// Silence after which a connection with calls on it is probed.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: u32 = 64 * 1024;

type Calls = SendRequest<Full<Bytes>>;

/// One connection for each destination.
#[derive(Default)]
pub(crate) struct Connections(Mutex<AHashMap<PoolKey, Calls>>);

impl Connections {
    fn take(&self, key: &PoolKey) -> Option<Calls> {
        let mut connections = self.0.lock();
        let calls = connections.get(key)?;
        if calls.is_closed() {
            connections.remove(key);
            return None;
        }
        Some(calls.clone())
    }

    fn keep(&self, key: PoolKey, calls: Calls) {
        let mut connections = self.0.lock();
        if connections.len() >= CONNECTIONS_MAX {
            connections.retain(|_, calls| !calls.is_closed());
        }
        if connections.len() < CONNECTIONS_MAX {
            connections.insert(key, calls);
        }
    }
}

/// An answer whose head is here.
struct Answered {
    /// In progress until the answer has been passed on.
    _in_progress: Picked,
    head: ResponseHead,
    body: Incoming,
}

/// Why a call came to nothing.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack of a try that failed"
)]
enum Failure {
    ClientLeft,
    Fault { fault: Fault, retry: bool },
}

impl ExchangeDriver {
    /// Runs the call. `Err` is a response for the caller to send; nothing has been written then.
    pub(crate) async fn call(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), Box<LocalResponse>> {
        let (Some(route), Some(forward)) = (exchange.route.clone(), exchange.forward().cloned())
        else {
            return Ok(());
        };
        let mut body = match &exchange.request_body {
            RequestBody::Held(body) => body.clone(),
            RequestBody::Absent | RequestBody::Streaming { .. } => Bytes::new(),
        };
        if let Err(fault) = phases::request_body(exchange, &mut body, true) {
            return Err(phases::answer(exchange, &fault));
        }
        match self.calls(client, exchange, &route, &forward, &body).await {
            Ok(answered) => self.pass_on(client, exchange, &forward, answered).await,
            Err(Failure::ClientLeft) => {
                exchange.status = CLIENT_LEFT;
                client.close();
                Ok(())
            }
            Err(Failure::Fault { fault, .. }) => Err(phases::failed(exchange, &fault).await),
        }
    }

    async fn calls(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        route: &Route,
        forward: &Forward,
        body: &Bytes,
    ) -> Result<Answered, Failure> {
        let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        loop {
            let picked = balance::pick(exchange, forward, &tried)
                .await
                .map_err(|fault| Failure::Fault {
                    fault,
                    retry: false,
                })?;
            tried.push(picked.address);
            let destination = Destination {
                route,
                forward,
                picked: &picked,
            };
            if phases::takes_part(exchange, Phases::LOG) {
                forwarding::note_target(exchange, &destination);
            }
            match self.call_once(client, exchange, &destination, body).await {
                Ok((head, body)) => {
                    let outcome = Outcome::Answered(head.status.as_u16());
                    balance::report(exchange, forward, &picked, outcome);
                    return Ok(Answered {
                        _in_progress: picked,
                        head,
                        body,
                    });
                }
                Err(Failure::Fault { fault, retry }) => {
                    balance::report(exchange, forward, &picked, balance::outcome_of(&fault));
                    if !retry || !balance::may_try_again(exchange, forward, tried.len()) {
                        return Err(Failure::Fault {
                            fault,
                            retry: false,
                        });
                    }
                    balance::give_up(exchange, fault.status.as_u16());
                }
                Err(left @ Failure::ClientLeft) => return Err(left),
            }
        }
    }

    async fn call_once(
        &self,
        client: &mut Client<'_>,
        exchange: &Exchange,
        destination: &Destination<'_>,
        body: &Bytes,
    ) -> Result<(ResponseHead, Incoming), Failure> {
        let address = destination.picked.address;
        let key = PoolKey {
            address,
            group: connect::pool_group(exchange, destination),
        };
        let mut calls = match self.calls.take(&key) {
            Some(calls) => calls,
            None => {
                let opened = open(exchange, destination).await;
                // Nothing was sent: another endpoint may be tried.
                let calls = opened.map_err(|fault| Failure::Fault { fault, retry: true })?;
                self.calls.keep(key, calls.clone());
                calls
            }
        };
        let request = request(exchange, destination, body).map_err(|fault| Failure::Fault {
            fault,
            retry: false,
        })?;
        let limit = Duration::from_millis(u64::from(destination.forward.plan.read_timeout_ms));
        let answered = tokio::select! {
            biased;
            answered = tokio::time::timeout(limit, calls.send_request(request)) => answered,
            () = client.left() => return Err(Failure::ClientLeft),
        };
        match answered {
            Ok(Ok(response)) => {
                let (parts, incoming) = response.into_parts();
                let head = cased(&parts).map_err(|fault| Failure::Fault {
                    fault,
                    retry: false,
                })?;
                Ok((head.into(), incoming))
            }
            Ok(Err(error)) => {
                let fault = broken(address, &error);
                // Refused before it was begun, for example by a connection that was just closed.
                let retry = error.is_canceled();
                Err(Failure::Fault { fault, retry })
            }
            Err(_) => {
                let cause = format!("upstream {address}: waiting for the response timed out");
                let fault = Fault::transport(StatusCode::GATEWAY_TIMEOUT, Blame::Upstream, cause)
                    .kind(FaultKind::UpstreamTimeout);
                Err(Failure::Fault {
                    fault,
                    retry: false,
                })
            }
        }
    }

    /// Passes the answer on piece by piece, its trailers last.
    async fn pass_on(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        forward: &Forward,
        answered: Answered,
    ) -> Result<(), Box<LocalResponse>> {
        let Answered {
            _in_progress,
            mut head,
            body: mut incoming,
        } = answered;
        exchange.timing.answered = Some(std::time::Instant::now());
        exchange.upstream_status = head.status.as_u16();
        exchange.response_source = ResponseSource::Upstream;
        heads::drop_hop_by_hop(&mut head, false);
        if phases::takes_part(exchange, Phases::RESPONSE_HEAD) {
            phases::response_head(exchange, &mut head).await?;
        }
        let limit = Duration::from_millis(u64::from(forward.plan.read_timeout_ms));
        let mut held = None;
        if phases::holds_response(exchange) {
            let (mut body, mut trailers) = match self
                .hold_answer(client, exchange, &mut incoming, limit)
                .await
            {
                Ok(whole) => whole,
                Err(Failure::ClientLeft) => {
                    exchange.status = CLIENT_LEFT;
                    client.close();
                    return Ok(());
                }
                Err(Failure::Fault { fault, .. }) => {
                    return Err(phases::failed(exchange, &fault).await);
                }
            };
            phases::trailers(exchange, &mut trailers);
            phases::message(exchange, &mut head, &mut body).await?;
            set_length(&mut head, body.len());
            held = Some((body, trailers));
        }
        heads::insert_left_fields(exchange, &mut head);
        phases::header_filter(exchange, &mut head);
        heads::insert_gateway_headers(exchange, &mut head);
        if exchange.is_body_length_changing() {
            head.remove_header(&CONTENT_LENGTH);
        }
        exchange.status = head.status.as_u16();
        let filtered = phases::takes_part(exchange, Phases::BODY_FILTER);
        let is_held = held.is_some();
        let (mut piece, trailers) = held.unwrap_or_default();
        let mut end = is_held || incoming.is_end_stream();
        if end && filtered {
            phases::body_filter(exchange, &mut piece, true);
        }
        // Trailers that were held back are the end of their stream, where the client knows such.
        let trailers = Some(trailers).filter(|fields| client.is_http2() && !fields.is_empty());
        let last = end && trailers.is_none();
        let method = exchange.request.method().clone();
        let started = Downstream::start(client, &mut head, &method, None, piece, last).await;
        exchange.response = Some(head);
        let mut downstream = match started {
            Ok(downstream) => downstream,
            Err(error) => {
                left(client, exchange, &error);
                return Ok(());
            }
        };
        if let Some(trailers) = trailers
            && let Err(error) = write_trailers(client, trailers)
        {
            left(client, exchange, &error);
        }
        while !end {
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout(limit, incoming.frame()) => frame,
                () = client.left() => {
                    // The call is cancelled: its stream goes with the body.
                    exchange.status = CLIENT_LEFT;
                    client.close();
                    exchange.response_bytes = downstream.sent();
                    return Ok(());
                }
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => Some(frame),
                Ok(None) => None,
                Ok(Some(Err(_))) | Err(_) => {
                    tracing::error!(request_id = %exchange.request_id, "response cut short");
                    client.cut_short().await;
                    exchange.response_bytes = downstream.sent();
                    return Ok(());
                }
            };
            let mut trailers = None;
            let mut piece = match frame.map(Frame::into_data) {
                Some(Ok(piece)) => piece,
                Some(Err(frame)) => {
                    let mut fields = frame.into_trailers().unwrap_or_default();
                    phases::trailers(exchange, &mut fields);
                    trailers = Some(fields);
                    end = true;
                    Bytes::new()
                }
                None => {
                    end = true;
                    Bytes::new()
                }
            };
            if filtered {
                phases::body_filter(exchange, &mut piece, end);
            }
            let written = match trailers.filter(|fields| piece.is_empty() && !fields.is_empty()) {
                Some(trailers) if client.is_http2() => write_trailers(client, trailers),
                _ => downstream.piece(client, piece, end).await,
            };
            if let Err(error) = written {
                left(client, exchange, &error);
                exchange.response_bytes = downstream.sent();
                return Ok(());
            }
        }
        exchange.response_bytes = downstream.sent();
        Ok(())
    }
}

impl ExchangeDriver {
    /// Reads the whole answer, up to the limit for held messages.
    async fn hold_answer(
        &self,
        client: &mut Client<'_>,
        exchange: &Exchange,
        incoming: &mut Incoming,
        limit: Duration,
    ) -> Result<(Bytes, HeaderMap), Failure> {
        let bytes_max = match exchange.response_holding {
            ResponseHolding::UpTo(bytes) => bytes,
            _ => exchange.snapshot.serving.plan.held_body_bytes_max,
        };
        let fail = |status: StatusCode, cause: String, kind: FaultKind| Failure::Fault {
            fault: Fault::transport(status, Blame::Upstream, cause).kind(kind),
            retry: false,
        };
        let mut body = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout(limit, incoming.frame()) => frame,
                () = client.left() => return Err(Failure::ClientLeft),
            };
            let frame = match frame {
                Ok(None) => return Ok((body.freeze(), HeaderMap::new())),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let cause = format!("reading the response: {error}");
                    return Err(fail(
                        StatusCode::BAD_GATEWAY,
                        cause,
                        FaultKind::UpstreamClosed,
                    ));
                }
                Err(_) => {
                    let cause = "reading the response timed out".to_owned();
                    return Err(fail(
                        StatusCode::GATEWAY_TIMEOUT,
                        cause,
                        FaultKind::UpstreamTimeout,
                    ));
                }
            };
            match frame.into_data() {
                Ok(piece) if body.len() + piece.len() <= bytes_max => {
                    body.extend_from_slice(&piece);
                }
                Ok(_) => {
                    let cause = format!(
                        "response body exceeds {bytes_max} bytes, the limit for held messages"
                    );
                    let status = StatusCode::BAD_GATEWAY;
                    return Err(fail(status, cause, FaultKind::ResponseTooLarge));
                }
                Err(frame) => {
                    return Ok((body.freeze(), frame.into_trailers().unwrap_or_default()));
                }
            }
        }
    }
}

fn write_trailers(client: &mut Client<'_>, trailers: HeaderMap) -> pingora_error::Result<()> {
    match client {
        Client::Session(ServerSession::H2(session)) => session.write_trailers(trailers),
        // Asked only over HTTP/2, whose streams are all sessions of this kind.
        _ => Ok(()),
    }
}

async fn open(exchange: &Exchange, destination: &Destination<'_>) -> Result<Calls, Fault> {
    let address = destination.picked.address;
    let stream = connect::connect_http2(exchange, destination).await?;
    let limit = Duration::from_millis(u64::from(destination.forward.plan.connect_timeout_ms));
    let shaking = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .max_header_list_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream));
    match tokio::time::timeout(limit, shaking).await {
        Ok(Ok((calls, driver))) => {
            tokio::spawn(async move {
                // What breaks the connection is told to whoever waits for an answer on it.
                let _ = driver.await;
            });
            Ok(calls)
        }
        Ok(Err(error)) => Err(balance::connect_fault(address, false, &error.to_string())),
        Err(_) => Err(balance::connect_fault(
            address,
            true,
            "connecting timed out",
        )),
    }
}

/// The request as it goes upstream: the same rules for its fields as everywhere.
#[allow(clippy::result_large_err, reason = "made for requests that fail only")]
fn request(
    exchange: &Exchange,
    destination: &Destination<'_>,
    body: &Bytes,
) -> Result<Request<Full<Bytes>>, Fault> {
    let unusable = |cause: String| Fault::transport(StatusCode::BAD_REQUEST, Blame::Client, cause);
    let mut head = RequestHeader::build_no_case("POST", b"/", None)
        .map_err(|error| unusable(error.to_string()))?;
    head.set_version(Version::HTTP_2);
    forwarding::edit_head(exchange, destination, &mut head)
        .map_err(|error| unusable(error.to_string()))?;
    for name in [
        HOST,
        CONNECTION,
        UPGRADE,
        TRANSFER_ENCODING,
        CONTENT_LENGTH,
        EXPECT,
        HeaderName::from_static("keep-alive"),
    ] {
        head.remove_header(&name);
    }
    let host = forwarding::upstream_host(exchange, destination);
    let authority = Authority::try_from(host.as_bytes())
        .map_err(|error| unusable(format!("host of the upstream: {error}")))?;
    let target = PathAndQuery::try_from(head.raw_path())
        .map_err(|error| unusable(format!("target of the upstream: {error}")))?;
    let scheme = match destination.forward.tls {
        Some(_) => Scheme::HTTPS,
        None => Scheme::HTTP,
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    Ok(request)
}

/// The head as HTTP/1 clients need it too: with the names' case.
#[allow(clippy::result_large_err, reason = "made for answers that fail only")]
fn cased(parts: &http::response::Parts) -> Result<Box<ResponseHeader>, Fault> {
    let unusable = |error: Box<pingora_error::Error>| {
        Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, error.to_string())
            .kind(FaultKind::UpstreamMalformed)
    };
    let mut head =
        ResponseHeader::build(parts.status, Some(parts.headers.len())).map_err(unusable)?;
    for (name, value) in &parts.headers {
        head.append_header(name.clone(), value.clone())
            .map_err(unusable)?;
    }
    Ok(Box::new(head))
}

fn broken(address: SocketAddr, error: &hyper::Error) -> Fault {
    let cause = format!("upstream {address}: {error}");
    Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, cause)
        .kind(FaultKind::UpstreamClosed)
}
