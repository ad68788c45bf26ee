//! What serves requests: the phases up to access, then one of the two drivers, then the log.
//!
//! Ordinary requests of HTTP/1.1 and HTTP/2 streams come here without Pingora's proxy (`application.rs`) and go to it only when
//! the duplex driver has to forward them; they then continue where they were, see [`BEGUN`] and `hooks.rs`.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use crate::engine::client::Client;
use crate::engine::exchange::{self, CLIENT_LEFT, ExchangeDriver};
use crate::engine::forwarding;
use crate::engine::http1::Http1;
use crate::engine::io::Io;
use crate::engine::log::AccessLog;
use crate::engine::phases::{self, BodySource};
use crate::engine::respond;
use crate::engine::websocket::handshake;
use crate::runtime::connection::Connection;
use crate::runtime::contract::Phases;
use crate::runtime::exchange::{Exchange, RequestBody};
use crate::runtime::fault::LocalResponse;
use crate::runtime::head::RequestHead;
use crate::runtime::node::Node;
use crate::runtime::snapshot::Snapshot;

/// A request body that nobody wanted is read away for at most this long before the connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Which driver every request takes, for tests that run through both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForcedDriver {
    Exchange,
    Duplex,
}

/// Serves requests with whatever snapshot is current when they begin.
pub(crate) struct Gateway {
    pub(crate) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(crate) node: Arc<Node>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) driver: ExchangeDriver,
    pub(crate) forced: Option<ForcedDriver>,
    /// The process ends: every answer is the last one on its connection.
    pub(crate) draining: Arc<AtomicBool>,
}

/// A request being served, counted.
pub(crate) struct Counted(Arc<Node>);

impl Counted {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        node.traffic.request_began();
        Self(Arc::clone(node))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.traffic.request_ended();
    }
}

/// A request that went as far as access and is Pingora's to forward.
pub(crate) struct Begun {
    pub(crate) exchange: Box<Exchange>,
    pub(crate) counted: Counted,
}

tokio::task_local! {
    /// What the hooks take over in the request that this task passes to Pingora.
    pub(crate) static BEGUN: Cell<Option<Begun>>;
}

impl Gateway {
    /// Serves a request of a connection that the gateway reads itself. What it gives back goes to Pingora.
    pub(crate) async fn serve_http1(
        &self,
        http1: &mut Http1,
        request: RequestHead,
        body: usize,
    ) -> Option<Begun> {
        let counted = Counted::new(&self.node);
        if self.draining.load(Ordering::Relaxed) {
            http1.close();
        }
        let body = match body as u64 {
            0 => RequestBody::Absent,
            length => RequestBody::Streaming {
                length: Some(length),
            },
        };
        let head_bytes = request.as_it_came().len() as u64;
        let connection = Arc::clone(&http1.io().connection);
        let snapshot = self.snapshots.load_full();
        let mut exchange = phases::begin(snapshot, connection, request, body);
        exchange.request_bytes = head_bytes;
        if !self
            .exchange(&mut Client::Http1(http1), &mut exchange)
            .await
        {
            return Some(Begun { exchange, counted });
        }
        exchange.request_bytes += http1.body_read();
        self.log(&mut exchange);
        if let Some(ended) = exchange.timing.ended {
            http1.answered(ended);
        }
        None
    }

    /// Serves a stream of HTTP/2. What it gives back goes to Pingora.
    pub(crate) async fn serve_http2(&self, session: &mut ServerSession) -> Option<Begun> {
        let counted = Counted::new(&self.node);
        let mut exchange = self.begin(session)?;
        if !self
            .exchange(&mut Client::Session(session), &mut exchange)
            .await
        {
            return Some(Begun { exchange, counted });
        }
        self.ended(session, &mut exchange);
        None
    }

    /// Is this stream's request one that never leads to Pingora's path, as far as its head tells?
    pub(crate) fn is_ordinary(&self, session: &ServerSession) -> bool {
        let head = session.req_header();
        let grpc = || {
            let kind = head.headers.get(CONTENT_TYPE);
            kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        };
        self.forced != Some(ForcedDriver::Duplex) && !head.headers.contains_key(EXPECT) && !grpc()
    }

    /// Everything from the checks to the answer. False when Pingora is to forward the request.
    pub(crate) async fn exchange(&self, client: &mut Client<'_>, exchange: &mut Exchange) -> bool {
        let finished = match self.until_forwarding(client, exchange).await {
            Ok(DriverChoice::Exchange) => self.driver.run(client, exchange).await,
            Ok(DriverChoice::Call) => Box::pin(self.driver.call(client, exchange)).await,
            Ok(DriverChoice::Duplex) => return false,
            Err(local) => Err(local),
        };
        if let Err(local) = finished
            && let Err(error) = Box::pin(respond::send(client, exchange, *local)).await
        {
            tracing::debug!(%error, "client left before the answer");
            exchange.status = CLIENT_LEFT;
            client.close();
        }
        true
    }

    /// Counts what a session moved, and logs.
    pub(crate) fn ended(&self, session: &ServerSession, exchange: &mut Exchange) {
        exchange.request_bytes += session.body_bytes_read() as u64;
        if exchange.response_bytes == 0 {
            exchange.response_bytes = match Io::under(session) {
                Some(io) => io.written(),
                None => session.body_bytes_sent() as u64,
            };
        }
        self.log(exchange);
    }

    fn log(&self, exchange: &mut Exchange) {
        exchange.timing.ended = Some(Instant::now());
        if let Some(log) = &self.access_log {
            log.write(exchange);
        }
        phases::log(exchange);
    }

    /// Takes the request out of the session.
    pub(crate) fn begin(&self, session: &mut ServerSession) -> Option<Box<Exchange>> {
        let (body, length) = body_of(session);
        let (connection, head_bytes) = self.adopt(session, length)?;
        let head = session.req_header_mut();
        // The session goes on asking for method and version.
        let (mut stand_in, ()) = http::Request::new(()).into_parts();
        stand_in.method = head.method.clone();
        stand_in.version = head.version;
        let mut request = Box::new(std::mem::replace(head, stand_in.into()));
        let mut body = body;
        if session.is_http2() {
            join_cookies(&mut request);
            if is_extended_connect(&request) {
                // From here on it looks as over HTTP/1, where its data are no body either.
                request.set_method(http::Method::GET);
                handshake::fill_in(&mut request);
                body = RequestBody::Absent;
            }
        }
        let snapshot = self.snapshots.load_full();
        let request = RequestHead::from(request);
        let mut exchange = phases::begin(snapshot, connection, request, body);
        exchange.request_bytes = head_bytes;
        Some(exchange)
    }

    /// Prepares a session whose head was read. Gives the facts of its connection and the length of the head.
    pub(crate) fn adopt(
        &self,
        session: &mut ServerSession,
        body: Option<u64>,
    ) -> Option<(Arc<Connection>, u64)> {
        let head_bytes = match session.as_http1() {
            Some(http1) => http1.get_headers_raw_bytes().len() as u64,
            None => 0,
        };
        let connection = connection_of(session, head_bytes, body)?;
        if session.as_http1().is_some() {
            if self.draining.load(Ordering::Relaxed) {
                session.set_keepalive(None);
            }
            session.set_pipelining_enabled(true);
            session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        }
        Some((connection, head_bytes))
    }

    /// Everything up to the decision where the request goes.
    async fn until_forwarding(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<DriverChoice, Box<LocalResponse>> {
        let repaired = client.repaired(exchange);
        phases::admit(exchange, repaired)?;
        phases::rewrite(exchange)?;
        phases::find_route(exchange)?;
        phases::access(exchange, client).await?;
        let choice = self.choose_driver(client, exchange);
        if choice != DriverChoice::Duplex
            && matches!(exchange.request_body, RequestBody::Streaming { .. })
            && let Err(fault) = Box::pin(client.hold(exchange, None)).await
        {
            return Err(Box::pin(phases::failed(exchange, &fault)).await);
        }
        Ok(choice)
    }

    fn choose_driver(&self, client: &Client<'_>, exchange: &Exchange) -> DriverChoice {
        if forwarding::is_websocket_upgrade(exchange) {
            // Whatever is forced: Pingora's tunnel is only for clients that do not wait for their answer.
            let own = exchange.reads_messages
                || exchange.http2
                || exchange::switch::is_tunnel(client, exchange);
            return match own {
                true => DriverChoice::Exchange,
                false => DriverChoice::Duplex,
            };
        }
        let grpc = exchange
            .forward()
            .is_some_and(|forward| forward.plan.protocol.is_grpc());
        if grpc
            && (matches!(exchange.request_body, RequestBody::Held(_))
                || phases::takes_part(exchange, Phases::REQUEST_BODY))
        {
            return DriverChoice::Call;
        }
        // What is held, or will be, only the exchange driver can send.
        let must_hold = matches!(exchange.request_body, RequestBody::Held(_))
            || phases::holds_response(exchange);
        match self.forced {
            Some(ForcedDriver::Duplex) if !must_hold => DriverChoice::Duplex,
            forced if exchange::is_eligible(exchange, forced.is_some() || must_hold) => {
                DriverChoice::Exchange
            }
            _ => DriverChoice::Duplex,
        }
    }
}

/// Who moves the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DriverChoice {
    Exchange,
    /// The exchange driver, for upstreams that speak gRPC.
    Call,
    Duplex,
}

/// The request's body as its head announces it, with its length if that is known.
pub(crate) fn body_of(session: &mut ServerSession) -> (RequestBody, Option<u64>) {
    // Asked first: on HTTP/1 this fixes the body's framing, before the head is taken away.
    if session.is_body_empty() {
        return (RequestBody::Absent, Some(0));
    }
    let length = session
        .get_header(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    (RequestBody::Streaming { length }, length)
}

/// The facts of the session's connection; tells the stream that the head was read.
fn connection_of(
    session: &ServerSession,
    head_bytes: u64,
    body: Option<u64>,
) -> Option<Arc<Connection>> {
    if let Some(io) = Io::under(session) {
        io.request_began(head_bytes, body);
        return Some(Arc::clone(&io.connection));
    }
    let digest = session.digest()?.proxy_digest.as_ref()?;
    let facts = digest.user_data.as_ref()?;
    facts.downcast_ref::<Arc<Connection>>().cloned()
}

/// Does the request open a WebSocket over HTTP/2 (RFC 8441, 4)?
fn is_extended_connect(request: &RequestHeader) -> bool {
    request.method == http::Method::CONNECT
        && request
            .extensions
            .get::<h2::ext::Protocol>()
            .is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// HTTP/2 may split cookies over several fields, HTTP/1 knows one (RFC 9113, 8.2.3).
fn join_cookies(request: &mut RequestHeader) {
    let joined = {
        let cookies = request.headers.get_all(COOKIE);
        let crumbs: SmallVec<[&[u8]; 8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
        if crumbs.len() < 2 {
            return;
        }
        HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()))
    };
    if let Ok(joined) = joined {
        // Only a header map at its size limit refuses, and this one shrinks.
        let _ = request.insert_header(COOKIE, joined);
    }
}
