//! The exchange driver: a whole request and response inside `request_filter`.
//!
//! For requests without a body, with a small one, or with one that steps have asked to hold; no upgrades, no
//! `Expect`, no gRPC. The response streams through as it arrives, or is held whole where steps need that. Everything
//! that is not about moving bytes is shared with the duplex driver: phases, header rules, balancing, faults.

mod call;
pub(crate) mod codec;
pub(crate) mod downstream;
pub(crate) mod pool;
pub(crate) mod switch;
mod terms;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{Method, StatusCode};
use pingora_error::ErrorType;
use pingora_http::ResponseHeader;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::engine::balance;
use crate::engine::buffers::Wire;
use crate::engine::client::Client;
use crate::engine::exchange::codec::{CodecError, INTERIM_MAX, UpstreamConnection};
use crate::engine::exchange::downstream::Downstream;
use crate::engine::exchange::pool::{Pool, PoolKey};
use crate::engine::forwarding::{self, BodyFraming, Destination};
use crate::engine::wait::within;
use crate::engine::websocket::opening;
use crate::engine::{connect, heads, phases};
use crate::model::plan::Protocol;
use crate::runtime::cluster::{Outcome, Picked};
use crate::runtime::contract::Phases;
use crate::runtime::exchange::{Exchange, RequestBody, ResponseHolding, ResponseSource};
use crate::runtime::fault::{Blame, Fault, FaultKind, LocalResponse};
use crate::runtime::head::ResponseHead;
use crate::runtime::snapshot::{Forward, Route};

/// The status logged when the client left before the response was complete (nginx's convention).
pub(crate) const CLIENT_LEFT: u16 = 499;

/// Drives exchanges over its own pool of upstream connections.
pub(crate) struct ExchangeDriver {
    pool: Arc<Pool>,
    /// Turns true when the time to drain is over: tunnels end then.
    parting: watch::Receiver<bool>,
    /// Connections to upstreams that speak gRPC, for calls whose body is held.
    calls: call::Connections,
}

/// What an attempt, or the whole series, came to.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack of a try that failed"
)]
enum Failure {
    /// The client is gone: nobody to answer.
    ClientLeft,
    /// To be answered with a fault; `retry` says whether another endpoint may be tried.
    Fault { fault: Fault, retry: bool },
}

/// A response whose head has been read.
struct Answered {
    /// In progress until the answer has been passed on.
    picked: Option<Picked>,
    connection: UpstreamConnection,
    key: PoolKey,
    head: ResponseHead,
}

/// Can the exchange driver take this request? `any_length`: its body will be held however long it is.
pub(crate) fn is_eligible(exchange: &Exchange, any_length: bool) -> bool {
    let Some(forward) = exchange.forward() else {
        return false;
    };
    let fields = exchange.request.fields();
    let small = match &exchange.request_body {
        RequestBody::Absent | RequestBody::Held(_) => true,
        RequestBody::Streaming { length } => {
            any_length || length.is_some_and(|length| length <= phases::SMALL_BODY_BYTES)
        }
    };
    let grpc = || {
        let kind = fields.get(&CONTENT_TYPE);
        kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
    };
    small
        && matches!(
            forward.plan.protocol,
            Protocol::Http | Protocol::Https | Protocol::Ws | Protocol::Wss
        )
        && (any_length || !fields.contains(&EXPECT))
        && !(exchange.http2 && grpc())
}

impl ExchangeDriver {
    pub(crate) fn new(pool: Arc<Pool>, parting: watch::Receiver<bool>) -> Self {
        Self {
            pool,
            parting,
            calls: call::Connections::default(),
        }
    }

    /// Runs the exchange. `Err` is a response for the caller to send; nothing has been written then.
    pub(crate) async fn run(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), Box<LocalResponse>> {
        let Some(route) = exchange.route.clone() else {
            return Ok(());
        };
        let Some(forward) = exchange.forward().cloned() else {
            return Ok(());
        };
        if forwarding::is_websocket_upgrade(exchange) {
            let ready = match switch::is_tunnel(client, exchange) {
                true if exchange.reads_messages => opening::ask(exchange),
                true => Ok(()),
                false => Err(switch::refusal(exchange)),
            };
            if let Err(fault) = ready {
                client.close();
                return Err(Box::pin(phases::failed(exchange, &fault)).await);
            }
        }
        match self.attempts(client, exchange, &route, &forward).await {
            Ok(answered) => self.relay(client, exchange, &forward, answered).await,
            Err(Failure::ClientLeft) => {
                exchange.status = CLIENT_LEFT;
                client.close();
                Ok(())
            }
            Err(Failure::Fault { fault, .. }) => {
                Err(Box::pin(phases::failed(exchange, &fault)).await)
            }
        }
    }

    async fn attempts(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        route: &Route,
        forward: &Forward,
    ) -> Result<Answered, Failure> {
        let body = match &exchange.request_body {
            RequestBody::Held(body) => body.clone(),
            RequestBody::Absent | RequestBody::Streaming { .. } => Bytes::new(),
        };
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
            match self.attempt(client, exchange, &destination, &body).await {
                Ok(mut answered) => {
                    let status = answered.head.status();
                    balance::report(
                        exchange,
                        forward,
                        &picked,
                        Outcome::Answered(status.as_u16()),
                    );
                    if balance::is_retried_status(forward, status)
                        && is_idempotent(forwarding::upstream_method(exchange))
                        && balance::may_try_again(exchange, forward, tried.len())
                    {
                        balance::give_up(exchange, status.as_u16());
                        continue;
                    }
                    answered.picked = Some(picked);
                    return Ok(answered);
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

    async fn attempt(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        destination: &Destination<'_>,
        body: &Bytes,
    ) -> Result<Answered, Failure> {
        let key = PoolKey {
            address: destination.picked.address,
            group: connect::pool_group(exchange, destination),
        };
        // The first try begins when the request is forwarded; further ones cannot count from there.
        let mut now = match exchange.timing.forwarded {
            Some(forwarded) if exchange.tries.len() == 1 => forwarded,
            _ => Instant::now(),
        };
        let mut reused = true;
        let mut connection = match self.pool.take(&key, now) {
            Some(connection) => connection,
            None => {
                reused = false;
                let connection = self.connect(exchange, destination).await?;
                now = Instant::now();
                connection
            }
        };
        loop {
            let outcome = self
                .ask(client, exchange, destination, (&mut connection, now), body)
                .await;
            let repeatable = is_idempotent(forwarding::upstream_method(exchange));
            let stale = reused
                && repeatable
                && matches!(&outcome, Err(AskError::Codec(error)) if is_stale(error));
            match outcome {
                Ok(head) => {
                    return Ok(Answered {
                        picked: None,
                        connection,
                        key,
                        head,
                    });
                }
                // The upstream closed an idle connection at the moment it was taken: not the endpoint's fault.
                Err(_) if stale => {
                    reused = false;
                    connection = self.connect(exchange, destination).await?;
                    now = Instant::now();
                }
                Err(AskError::ClientLeft) => return Err(Failure::ClientLeft),
                Err(AskError::Timeout(what)) => {
                    let cause = format!("upstream {}: {what} timed out", key.address);
                    let fault =
                        Fault::transport(StatusCode::GATEWAY_TIMEOUT, Blame::Upstream, cause)
                            .kind(FaultKind::UpstreamTimeout);
                    let retry = repeatable;
                    return Err(Failure::Fault { fault, retry });
                }
                Err(AskError::Codec(error)) => {
                    let cause = format!("upstream {}: {}", key.address, chain(&error));
                    // A response that could not be understood was received: another endpoint may not be asked.
                    let retry =
                        matches!(error, CodecError::Io(_) | CodecError::ClosedBeforeResponse)
                            && repeatable;
                    let fault = Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, cause)
                        .kind(error.fault_kind());
                    return Err(Failure::Fault { fault, retry });
                }
            }
        }
    }

    async fn connect(
        &self,
        exchange: &Exchange,
        destination: &Destination<'_>,
    ) -> Result<UpstreamConnection, Failure> {
        // Boxed, as all that is seldom awaited: the future of every request would carry room for it otherwise.
        match Box::pin(connect::connect(exchange, destination)).await {
            Ok(stream) => Ok(UpstreamConnection::new(stream)),
            // Nothing was sent: any method may be tried elsewhere.
            Err(fault) => Err(Failure::Fault { fault, retry: true }),
        }
    }

    /// Sends the request and reads the final response's head, on a connection that was ready at a time.
    async fn ask(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        destination: &Destination<'_>,
        (connection, ready): (&mut UpstreamConnection, Instant),
        body: &Bytes,
    ) -> Result<ResponseHead, AskError> {
        let plan = &destination.forward.plan;
        let framing = match exchange.request_body {
            RequestBody::Held(_) => BodyFraming::Length(body.len() as u64),
            _ => BodyFraming::None,
        };
        let mut wire = Wire::take();
        forwarding::write_head(exchange, destination, framing, &mut wire);
        let mut message = wire.as_slice().chain(body.as_ref());
        let write_timeout = Duration::from_millis(u64::from(plan.write_timeout_ms));
        within(write_timeout, connection.write_all(&mut message))
            .await
            .ok_or(AskError::Timeout("sending the request"))?
            .map_err(CodecError::Io)?;
        drop(wire);
        connection.requests += 1;
        let read_timeout = Duration::from_millis(u64::from(plan.read_timeout_ms));
        // A head is sent in no time; a body may take its own.
        let mut since = match body.is_empty() {
            true => ready,
            false => Instant::now(),
        };
        for _ in 0..INTERIM_MAX {
            let method = forwarding::upstream_method(exchange);
            let due = (since + read_timeout).into();
            let mut alarm = std::mem::take(&mut connection.alarm);
            let head = tokio::select! {
                biased;
                head = connection.read_head(method, !exchange.http2) => head?,
                () = client.left() => return Err(AskError::ClientLeft),
                () = alarm.rings(due) => return Err(AskError::Timeout("waiting for the response")),
            };
            connection.alarm = alarm;
            if !head.status().is_informational() {
                return Ok(head);
            }
            since = Instant::now();
            if head.status() == StatusCode::SWITCHING_PROTOCOLS {
                if forwarding::is_websocket_upgrade(exchange) {
                    return Ok(head);
                }
                return Err(
                    CodecError::Head("a switch of protocols nobody asked for".to_owned()).into(),
                );
            }
        }
        Err(CodecError::Head("too many interim responses".to_owned()).into())
    }

    /// Passes the response on through the response phases.
    async fn relay(
        &self,
        client: &mut Client<'_>,
        exchange: &mut Exchange,
        forward: &Forward,
        answered: Answered,
    ) -> Result<(), Box<LocalResponse>> {
        let Answered {
            picked: _in_progress,
            mut connection,
            key,
            mut head,
        } = answered;
        let now = Instant::now();
        exchange.timing.answered = Some(now);
        exchange.upstream_status = head.status().as_u16();
        exchange.response_source = ResponseSource::Upstream;
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(self.switch(client, exchange, forward, connection, head)).await;
        }
        let read_timeout = Duration::from_millis(u64::from(forward.plan.read_timeout_ms));

        if phases::takes_part(exchange, Phases::RESPONSE_HEAD) {
            Box::pin(phases::response_head(exchange, &mut head)).await?;
        }
        let mut held = None;
        if phases::holds_response(exchange) {
            let mut body = Box::pin(self.hold(exchange, &mut connection, read_timeout)).await?;
            Box::pin(phases::message(exchange, &mut head, &mut body)).await?;
            set_length(&mut head, body.len());
            held = Some(body);
        }
        // Log entries show the head as sent; otherwise what the gateway adds need not be in it.
        let logged = phases::takes_part(exchange, Phases::LOG);
        let is_head_filtered = phases::takes_part(exchange, Phases::HEADER_FILTER);
        if logged || exchange.http2 || is_head_filtered {
            heads::insert_left_fields(exchange, &mut head);
        }
        if is_head_filtered {
            phases::header_filter(exchange, &mut head);
        }
        if logged || exchange.http2 {
            heads::insert_gateway_headers(exchange, &mut head);
        }
        let filtered = phases::takes_part(exchange, Phases::BODY_FILTER);
        if exchange.is_body_length_changing() {
            head.remove_header(&CONTENT_LENGTH);
        }
        exchange.status = head.status().as_u16();

        // The head and whatever is here already leave together.
        let (mut piece, mut end) = match held.take() {
            Some(body) => (body, true),
            None => match connection.ready_piece() {
                Ok(piece) => (piece.unwrap_or_default(), connection.is_complete()),
                Err(error) => {
                    let cause = format!("upstream {}: {}", key.address, chain(&error));
                    let fault = Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, cause)
                        .kind(error.fault_kind());
                    return Err(Box::pin(phases::failed(exchange, &fault)).await);
                }
            },
        };
        if filtered {
            phases::body_filter(exchange, &mut piece, end);
        }
        let added = (!logged).then_some(&*exchange);
        let method = exchange.request.method();
        let started = Downstream::start(client, &mut head, method, added, piece, end).await;
        exchange.response = Some(head);
        let mut downstream = match started {
            Ok(downstream) => downstream,
            Err(error) => {
                left(client, exchange, &error);
                return Ok(());
            }
        };
        while !end {
            let mut piece = match read_piece(client, &mut connection, read_timeout).await {
                Ok(Some(piece)) => piece,
                Ok(None) => Bytes::new(),
                Err(AskError::ClientLeft) => {
                    exchange.status = CLIENT_LEFT;
                    downstream.abort(client);
                    exchange.response_bytes = downstream.sent();
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(
                        request_id = %exchange.request_id, upstream = %key.address,
                        "response cut short: {}", error.text()
                    );
                    client.cut_short().await;
                    exchange.response_bytes = downstream.sent();
                    return Ok(());
                }
            };
            end = connection.is_complete();
            if filtered {
                phases::body_filter(exchange, &mut piece, end);
            }
            if let Err(error) = downstream.piece(client, piece, end).await {
                left(client, exchange, &error);
                exchange.response_bytes = downstream.sent();
                return Ok(());
            }
        }
        exchange.response_bytes = downstream.sent();
        let limits = &exchange.snapshot.serving.plan.upstream_pool;
        let idle = exchange.edits.as_deref().and_then(|edits| edits.idle);
        self.pool.keep(key, connection, limits, idle, now);
        Ok(())
    }

    /// Reads the whole body, up to the limit for held messages.
    async fn hold(
        &self,
        exchange: &mut Exchange,
        connection: &mut UpstreamConnection,
        read_timeout: Duration,
    ) -> Result<Bytes, Box<LocalResponse>> {
        let limit = match exchange.response_holding {
            ResponseHolding::UpTo(bytes) => bytes,
            _ => exchange.snapshot.serving.plan.held_body_bytes_max,
        };
        let mut body = BytesMut::new();
        loop {
            let piece = pingora_timeout::timeout(read_timeout, connection.read_piece()).await;
            let fault = match piece {
                Ok(Ok(None)) => return Ok(body.freeze()),
                Ok(Ok(Some(piece))) if body.len() + piece.len() <= limit => {
                    body.extend_from_slice(&piece);
                    continue;
                }
                Ok(Ok(Some(_))) => Fault::transport(
                    StatusCode::BAD_GATEWAY,
                    Blame::Upstream,
                    format!("response body exceeds {limit} bytes, the limit for held messages"),
                )
                .kind(FaultKind::ResponseTooLarge),
                Ok(Err(error)) => {
                    Fault::transport(StatusCode::BAD_GATEWAY, Blame::Upstream, chain(&error))
                        .kind(error.fault_kind())
                }
                Err(_) => Fault::transport(
                    StatusCode::GATEWAY_TIMEOUT,
                    Blame::Upstream,
                    "reading the response timed out",
                )
                .kind(FaultKind::UpstreamTimeout),
            };
            return Err(phases::failed(exchange, &fault).await);
        }
    }
}

/// Why asking failed.
enum AskError {
    ClientLeft,
    Timeout(&'static str),
    Codec(CodecError),
}

impl From<CodecError> for AskError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl AskError {
    fn text(&self) -> String {
        match self {
            Self::ClientLeft => "the client left".to_owned(),
            Self::Timeout(what) => format!("{what} timed out"),
            Self::Codec(error) => chain(error),
        }
    }
}

async fn read_piece(
    client: &mut Client<'_>,
    connection: &mut UpstreamConnection,
    read_timeout: Duration,
) -> Result<Option<Bytes>, AskError> {
    let due = tokio::time::Instant::now() + read_timeout;
    let mut alarm = std::mem::take(&mut connection.alarm);
    let piece = tokio::select! {
        biased;
        piece = connection.read_piece() => piece?,
        () = client.left() => return Err(AskError::ClientLeft),
        () = alarm.rings(due) => return Err(AskError::Timeout("reading the response")),
    };
    connection.alarm = alarm;
    Ok(piece)
}

/// The client took no more of the response.
fn left(client: &mut Client<'_>, exchange: &mut Exchange, error: &pingora_error::Error) {
    tracing::debug!(request_id = %exchange.request_id, %error, "client left");
    if matches!(
        error.etype(),
        ErrorType::WriteError | ErrorType::WriteTimedout
    ) {
        exchange.status = CLIENT_LEFT;
    }
    client.close();
}

fn set_length(head: &mut ResponseHeader, length: usize) {
    // Only a header map at its size limit refuses; the body is then sent chunked.
    if head.insert_header(CONTENT_LENGTH, length).is_err() {
        head.remove_header(&CONTENT_LENGTH);
    }
}

/// Methods that may be sent twice: all but POST, LOCK and PATCH.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    *method != Method::POST && *method != Method::PATCH && method.as_str() != "LOCK"
}

/// Does the error look like an idle connection closed by its upstream?
fn is_stale(error: &CodecError) -> bool {
    match error {
        CodecError::ClosedBeforeResponse => true,
        CodecError::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::NotConnected
        ),
        _ => false,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
