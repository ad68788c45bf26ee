//! The phases of an exchange as functions: called by Pingora's hooks and by the exchange driver alike.
//!
//! ```text
//!            begin ─▶ admit ─▶ rewrite ─▶ route ─▶ access ─▶ (driver) ─▶ header_filter ─▶ body_filter ─▶ log
//!                       │         │         │         │          │             ▲
//!                       └─────────┴─────────┴─────────┴──────────┴── answer ───┘
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, StatusCode};
use pingora_http::ResponseHeader;

use crate::engine::websocket::handshake;
use crate::model::plan::{Protocol, ProtocolSet};
use crate::model::route;
use crate::runtime::connection::Connection;
use crate::runtime::contract::{Flow, Phases, Plugin, ProtocolProblem};
use crate::runtime::exchange::{Exchange, RequestBody, ResponseHolding, ResponseSource};
use crate::runtime::fault::{Blame, Fault, LocalResponse};
use crate::runtime::head::{RequestHead, ResponseHead};
use crate::runtime::message::{Message, MessageVerdict, TunnelEnd};
use crate::runtime::mutual::Admission;
use crate::runtime::path;
use crate::runtime::pipeline::{Instance, Pipeline};
use crate::runtime::router::MatchInput;
use crate::runtime::snapshot::Snapshot;

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Request bodies up to this length go through the exchange driver, in bytes.
pub(crate) const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Longest request line, and longest header field of an HTTP/1 request (nginx: `large_client_header_buffers 4 8k`), in bytes.
const HEAD_LINE_BYTES_MAX: usize = 8 * 1024;
/// Longest head of an HTTP/1 request, in bytes.
const HEAD_BYTES_MAX: usize = 4 * HEAD_LINE_BYTES_MAX;

/// Either go on, or answer with this.
pub(crate) type Step = Result<(), Box<LocalResponse>>;

/// Where a body can be read from, whatever the session is.
pub(crate) trait BodySource {
    /// Holds the request body in the exchange, up to `bytes_max` or else the usual limit.
    async fn hold(&mut self, exchange: &mut Exchange, bytes_max: Option<u64>) -> Result<(), Fault>;
}

/// An exchange for a request that has just arrived.
pub(crate) fn begin(
    snapshot: Arc<Snapshot>,
    connection: Arc<Connection>,
    request: RequestHead,
    body: RequestBody,
) -> Box<Exchange> {
    let exchange = Exchange::new(snapshot, connection, request, Instant::now());
    // Boxed where it is made: it is long, and handed on often.
    let mut exchange = Box::new(exchange);
    exchange.request_body = body;
    if exchange.connection.trusted {
        let peer = exchange.connection.peer.ip();
        let serving = Arc::clone(&exchange.snapshot.serving);
        exchange.client_address = serving.client_address(peer, exchange.request.fields());
        if let Some(scheme) = exchange.request.fields().get(&X_FORWARDED_PROTO) {
            exchange.secure = scheme == b"https";
        }
    }
    exchange
}

/// Checks what the HTTP layer demands and brings the path into normal form. `repaired`: what was wrong with the request
/// before Pingora silently put it right.
pub(crate) fn admit(exchange: &mut Exchange, repaired: Option<&'static str>) -> Step {
    if let Err(fault) = check_caller(exchange) {
        return Err(answer(exchange, &fault));
    }
    match check_request(exchange, repaired) {
        Ok(()) => Ok(()),
        Err(fault) => Err(answer(exchange, &fault)),
    }
}

/// On listeners where callers show certificates: may this one make this request? What is allowed goes on with the target
/// that was judged.
#[allow(
    clippy::result_large_err,
    reason = "made for refused requests only, and answered at once"
)]
fn check_caller(exchange: &mut Exchange) -> Result<(), Fault> {
    let Some(caller) = exchange.connection.caller.get() else {
        return Ok(());
    };
    let request = &exchange.request;
    let admission = caller.authority.admit(&caller.peer, request);
    let refused = |status: StatusCode, reason: &str| {
        let uri = &caller.peer.uri;
        tracing::info!(request_id = %exchange.request_id, %uri, "request refused: {reason}");
        Err(Fault::transport(
            status,
            Blame::Client,
            format!("{uri}: {reason}"),
        ))
    };
    if matches!(admission, Admission::Allow { .. }) {
        exchange.identity.principal = caller.principal(&exchange.snapshot);
    }
    match admission {
        Admission::Allow { target: None } => Ok(()),
        Admission::Allow {
            target: Some(target),
        } => match exchange.request.set_raw_path(target.as_bytes()) {
            Ok(()) => Ok(()),
            Err(_) => refused(StatusCode::BAD_REQUEST, "the normal path is no path"),
        },
        Admission::Deny { reason } => refused(StatusCode::FORBIDDEN, &reason),
        Admission::Malformed { reason } => refused(StatusCode::BAD_REQUEST, &reason),
    }
}

/// Runs the global instances that take part before routing.
pub(crate) fn rewrite(exchange: &mut Exchange) -> Step {
    if !exchange
        .snapshot
        .global_pipeline
        .phases
        .has(Phases::REWRITE)
    {
        return Ok(());
    }
    let pipeline = Arc::clone(&exchange.snapshot.global_pipeline);
    for step in &pipeline.steps {
        let Some(ranked) = &step.base else { continue };
        if ranked.instance.phases.has(Phases::REWRITE) {
            let flow = ranked.instance.plugin.rewrite(exchange);
            conclude(exchange, flow)?;
        }
    }
    Ok(())
}

/// Finds the route and checks that the request's protocol fits it.
pub(crate) fn find_route(exchange: &mut Exchange) -> Step {
    let snapshot = &exchange.snapshot;
    let connection = &exchange.connection;
    let secure = connection.is_tls();
    let input = MatchInput {
        method: exchange.request.method().as_str(),
        host: exchange.host(),
        path: exchange.path(),
        query: exchange.query().unwrap_or_default(),
        headers: exchange.request.fields(),
        header_count_max: snapshot.serving.plan.request_headers_max,
        query_count_max: snapshot.serving.plan.query_arguments_max,
        sni: connection.server_name(),
        protocol: if secure {
            route::Protocol::Https
        } else {
            route::Protocol::Http
        },
        source: Some(connection.peer),
        destination: Some(connection.local),
        listening_port: connection.port,
        entrance: connection.entrance.get().map(|name| &**name),
    };
    let found = snapshot.router.find(&input).and_then(|found| {
        let route = snapshot.routes.at(found.slot)?;
        Some((Arc::clone(route), found.path))
    });
    let Some((route, matched)) = found else {
        let snapshot = Arc::clone(snapshot);
        let fault = snapshot.renderer.unrouted(exchange);
        collect_global(exchange);
        return Err(answer(exchange, &fault));
    };
    let problem = protocol_problem(
        exchange,
        route.plan.protocols,
        route.plan.https_redirect_status,
    );
    exchange.reads_messages = route.plan.protocols.intersects(ProtocolSet::MESSAGES);
    exchange.route = Some(route);
    exchange.matched = matched;
    match problem {
        None => Ok(()),
        Some(problem) => {
            collect_global(exchange);
            let snapshot = Arc::clone(&exchange.snapshot);
            Err(Box::new(
                snapshot.renderer.wrong_protocol(&problem, exchange),
            ))
        }
    }
}

/// Runs the access phase of the route's pipeline, choosing each instance when its turn comes.
pub(crate) async fn access<S: BodySource>(exchange: &mut Exchange, source: &mut S) -> Step {
    let Some(route) = &exchange.route else {
        return Ok(());
    };
    if route.pipeline.steps.is_empty() && exchange.forward().is_some() {
        return Ok(());
    }
    let route = Arc::clone(route);
    let pipeline: &Pipeline = &route.pipeline;
    let mut outcome = Ok(());
    for step in &pipeline.steps {
        let Some(instance) = step.choose(&exchange.identity) else {
            continue;
        };
        // The pipeline is shared with routes that carry requests.
        if exchange.reads_messages && !instance.plan.protocols.intersects(ProtocolSet::MESSAGES) {
            continue;
        }
        // Chosen even after an early end: later phases run for it all the same.
        if outcome.is_ok() {
            outcome = run_access(instance, exchange, source).await;
        }
        exchange.chosen.push(Arc::clone(instance));
    }
    outcome?;
    if exchange.forward().is_none() {
        let snapshot = Arc::clone(&exchange.snapshot);
        let fault = snapshot.renderer.unforwarded(exchange);
        return Err(answer(exchange, &fault));
    }
    Ok(())
}

/// Shows the head of the upstream's response to the instances that have to wait for something before it is passed on.
pub(crate) async fn response_head(exchange: &mut Exchange, head: &mut ResponseHead) -> Step {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::RESPONSE_HEAD) {
            let instance = Arc::clone(instance);
            let flow = instance.plugin.response_head(exchange, head).await;
            conclude(exchange, flow)?;
        }
    }
    Ok(())
}

/// Is the upstream's response held whole before it is passed on?
pub(crate) fn holds_response(exchange: &Exchange) -> bool {
    exchange.response_holding != ResponseHolding::Never && takes_part(exchange, Phases::MESSAGE)
}

/// The answer to a fault that the gateway ran into by itself: an instance's own, or the dialect's.
pub(crate) async fn failed(exchange: &mut Exchange, fault: &Fault) -> Box<LocalResponse> {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::FAULT) {
            let instance = Arc::clone(instance);
            if let Some(local) = instance.plugin.fault(exchange, fault).await {
                tell(exchange, fault);
                return Box::new(local);
            }
        }
    }
    answer(exchange, fault)
}

/// Runs header_filter for the instances chosen.
pub(crate) fn header_filter(exchange: &mut Exchange, head: &mut ResponseHeader) {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::HEADER_FILTER) {
            let instance = Arc::clone(instance);
            instance.plugin.header_filter(exchange, head);
        }
    }
}

/// Does any instance chosen take part in this phase?
pub(crate) fn takes_part(exchange: &Exchange, phase: Phases) -> bool {
    exchange
        .chosen
        .iter()
        .any(|instance| instance.phases.has(phase))
}

/// Shows a piece of the request's body to the instances that change it on its way up.
pub(crate) fn request_body(
    exchange: &mut Exchange,
    piece: &mut Bytes,
    end: bool,
) -> Result<(), Box<Fault>> {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::REQUEST_BODY) {
            let instance = Arc::clone(instance);
            instance.plugin.request_body(exchange, piece, end)?;
        }
    }
    Ok(())
}

/// Shows a message from the client to the instances that look at such.
pub(crate) fn client_message(exchange: &mut Exchange, message: &mut Message) -> MessageVerdict {
    for_each_message(exchange, Phases::CLIENT_MESSAGE, |plugin, exchange| {
        plugin.client_message(exchange, message)
    })
}

/// Shows a message from the upstream to the instances that look at such.
pub(crate) fn upstream_message(exchange: &mut Exchange, message: &mut Message) -> MessageVerdict {
    for_each_message(exchange, Phases::UPSTREAM_MESSAGE, |plugin, exchange| {
        plugin.upstream_message(exchange, message)
    })
}

fn for_each_message(
    exchange: &mut Exchange,
    phase: Phases,
    mut show: impl FnMut(&dyn Plugin, &mut Exchange) -> MessageVerdict,
) -> MessageVerdict {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(phase) {
            let instance = Arc::clone(instance);
            match show(&*instance.plugin, exchange) {
                MessageVerdict::Pass => {}
                verdict => return verdict,
            }
        }
    }
    MessageVerdict::Pass
}

/// Tells the instances chosen how a tunnel of messages ended.
pub(crate) fn tunnel_ended(exchange: &mut Exchange, end: &TunnelEnd) {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::TUNNEL_END) {
            let instance = Arc::clone(instance);
            instance.plugin.tunnel_ended(exchange, end);
        }
    }
}

/// Shows what the upstream says behind its response's body.
pub(crate) fn trailers(exchange: &mut Exchange, trailers: &mut HeaderMap) {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::TRAILERS) {
            let instance = Arc::clone(instance);
            instance.plugin.trailers(exchange, trailers);
        }
    }
}

/// Runs body_filter for the instances chosen over one piece.
pub(crate) fn body_filter(exchange: &mut Exchange, piece: &mut Bytes, end: bool) {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::BODY_FILTER) {
            let instance = Arc::clone(instance);
            instance.plugin.body_filter(exchange, piece, end);
        }
    }
}

/// Runs the whole-message steps over a response that is held.
pub(crate) async fn message(
    exchange: &mut Exchange,
    head: &mut ResponseHead,
    body: &mut Bytes,
) -> Step {
    for index in 0..exchange.chosen.len() {
        let Some(instance) = exchange.chosen.get(index) else {
            break;
        };
        if instance.phases.has(Phases::MESSAGE) {
            let instance = Arc::clone(instance);
            let flow = instance.plugin.message(exchange, head, body).await;
            conclude(exchange, flow)?;
        }
    }
    Ok(())
}

/// Runs the log phase.
pub(crate) fn log(exchange: &Exchange) {
    for instance in &exchange.chosen {
        if instance.phases.has(Phases::LOG) {
            instance.plugin.log(exchange);
        }
    }
}

/// The dialect's response to a fault; the cause goes to the log.
#[cold]
pub(crate) fn answer(exchange: &mut Exchange, fault: &Fault) -> Box<LocalResponse> {
    tell(exchange, fault);
    let renderer = Arc::clone(&exchange.snapshot.renderer);
    Box::new(renderer.fault(fault, exchange))
}

/// Logs a fault's cause.
fn tell(exchange: &Exchange, fault: &Fault) {
    if let Some(cause) = &fault.cause {
        let upstream = exchange.tries.last();
        let upstream = upstream.map(|attempt| tracing::field::display(attempt.address));
        match fault.blame {
            Blame::Client => tracing::info!(
                request_id = %exchange.request_id, client = %exchange.client_address,
                status = fault.status.as_u16(), "{cause}"
            ),
            Blame::Gateway | Blame::Upstream => tracing::error!(
                request_id = %exchange.request_id, client = %exchange.client_address,
                status = fault.status.as_u16(), upstream, "{cause}"
            ),
        }
    }
}

/// For requests without a route, or refused by it: the global instances run their response phases.
fn collect_global(exchange: &mut Exchange) {
    let pipeline = Arc::clone(&exchange.snapshot.global_pipeline);
    for step in &pipeline.steps {
        if let Some(instance) = step.choose(&exchange.identity) {
            exchange.chosen.push(Arc::clone(instance));
        }
    }
}

async fn run_access<S: BodySource>(
    instance: &Arc<Instance>,
    exchange: &mut Exchange,
    source: &mut S,
) -> Step {
    if instance.needs.request_body
        && matches!(exchange.request_body, RequestBody::Streaming { .. })
        && let limit = instance.plugin.request_body_bytes_max()
        && let Err(fault) = Box::pin(source.hold(exchange, limit)).await
    {
        // Not chosen yet, but the only one that can know.
        if instance.phases.has(Phases::FAULT)
            && let Some(local) = instance.plugin.fault(exchange, &fault).await
        {
            tell(exchange, &fault);
            return Err(Box::new(local));
        }
        return Err(answer(exchange, &fault));
    }
    if instance.phases.has(Phases::ACCESS) {
        let flow = instance.plugin.access(exchange);
        conclude(exchange, flow)?;
    }
    if instance.phases.has(Phases::ACCESS_ASYNC) {
        let flow = instance.plugin.access_async(exchange).await;
        conclude(exchange, flow)?;
    }
    if exchange.reads_messages && instance.phases.has(Phases::HANDSHAKE) {
        let flow = instance.plugin.handshake(exchange);
        conclude(exchange, flow)?;
    }
    Ok(())
}

fn conclude(exchange: &mut Exchange, flow: Flow) -> Step {
    match flow {
        Flow::Continue => Ok(()),
        Flow::Respond(response) => Err(response),
        Flow::Fault(fault) => Err(answer(exchange, &fault)),
    }
}

#[allow(
    clippy::result_large_err,
    reason = "made for refused requests only, and answered at once"
)]
fn check_request(exchange: &mut Exchange, repaired: Option<&'static str>) -> Result<(), Fault> {
    let bad = |cause: String| Fault::transport(StatusCode::BAD_REQUEST, Blame::Client, cause);
    if let Some(what) = repaired {
        return Err(bad(what.to_owned()));
    }
    check_head_size(exchange)?;
    let request = &exchange.request;
    let method = request.method();
    if *method == http::Method::TRACE {
        let cause = "method TRACE is not served";
        return Err(Fault::transport(
            StatusCode::METHOD_NOT_ALLOWED,
            Blame::Client,
            cause,
        ));
    }
    if *method == http::Method::CONNECT {
        let cause = "method CONNECT is served for WebSockets over HTTP/2 only";
        return Err(Fault::transport(
            StatusCode::METHOD_NOT_ALLOWED,
            Blame::Client,
            cause,
        ));
    }
    let plain_name = |b: u8| b.is_ascii_uppercase() || matches!(b, b'_' | b'-');
    if !method.as_str().bytes().all(plain_name) {
        return Err(bad(
            "method name with characters other than A-Z, _ and -".to_owned()
        ));
    }
    if request.version() == http::Version::HTTP_11 && !request.fields().contains(&HOST) {
        return Err(bad("HTTP/1.1 without Host".to_owned()));
    }
    if request.plain_target().is_none() {
        path::Target::parse(request.raw_path()).map_err(|refusal| bad(refusal.to_string()))?;
    }
    let normal =
        path::normalize(exchange.raw_path()).map_err(|refusal| bad(refusal.to_string()))?;
    let normal = match normal {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path.into_boxed_slice()),
    };
    exchange.normal_path = normal;
    let limit = exchange.snapshot.serving.plan.request_body_bytes_max;
    if let RequestBody::Streaming {
        length: Some(length),
    } = exchange.request_body
        && limit > 0
        && length > limit
    {
        let cause = format!("request body of {length} bytes exceeds the limit of {limit}");
        return Err(Fault::transport(
            StatusCode::PAYLOAD_TOO_LARGE,
            Blame::Client,
            cause,
        ));
    }
    Ok(())
}

/// Holds HTTP/1 heads to the limits. Those of HTTP/2 are held to theirs while they are unpacked.
#[allow(
    clippy::result_large_err,
    reason = "made for refused requests only, and answered at once"
)]
fn check_head_size(exchange: &Exchange) -> Result<(), Fault> {
    // Set from the head's length before anything else is counted.
    let head = usize::try_from(exchange.request_bytes).unwrap_or(usize::MAX);
    if head <= HEAD_LINE_BYTES_MAX {
        return Ok(());
    }
    let request = &exchange.request;
    let line = request.method().as_str().len() + request.raw_path().len() + "  HTTP/1.1".len();
    if line > HEAD_LINE_BYTES_MAX {
        let cause =
            format!("request line of {line} bytes exceeds the limit of {HEAD_LINE_BYTES_MAX}");
        return Err(Fault::transport(
            StatusCode::URI_TOO_LONG,
            Blame::Client,
            cause,
        ));
    }
    let fields = request.fields().iter();
    let longest = fields
        .map(|(name, value)| name.len() + 2 + value.len())
        .max();
    if head <= HEAD_BYTES_MAX && longest.unwrap_or(0) <= HEAD_LINE_BYTES_MAX {
        return Ok(());
    }
    let cause = format!(
        "request head of {head} bytes exceeds {HEAD_BYTES_MAX}, or a field of it {HEAD_LINE_BYTES_MAX}"
    );
    Err(Fault {
        message: Some("Request header or cookie too large".into()),
        ..Fault::transport(StatusCode::BAD_REQUEST, Blame::Client, cause)
    })
}

fn protocol_problem(
    exchange: &Exchange,
    protocols: ProtocolSet,
    status: u16,
) -> Option<ProtocolProblem> {
    let has = |protocol| protocols.contains(protocol);
    if has(Protocol::Grpc) || has(Protocol::Grpcs) {
        let kind = exchange.request.fields().get(&CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        if !grpc {
            return Some(ProtocolProblem::NotGrpc);
        }
        if !exchange.http2 {
            return Some(ProtocolProblem::NeedsHttp2);
        }
        return (!has(Protocol::Grpc) && !exchange.secure).then_some(ProtocolProblem::GrpcNeedsTls);
    }
    let tls_only = match has(Protocol::Ws) || has(Protocol::Wss) {
        true => !has(Protocol::Ws),
        false => has(Protocol::Https) && !has(Protocol::Http),
    };
    if tls_only && !exchange.secure {
        return Some(ProtocolProblem::NeedsTls { status });
    }
    if has(Protocol::Ws) || has(Protocol::Wss) {
        return handshake::problem(&exchange.request);
    }
    None
}

/// Marks the response as the gateway's own.
pub(crate) fn made_here(exchange: &mut Exchange) {
    exchange.response_source = ResponseSource::Gateway;
    if exchange.timing.answered.is_none() {
        exchange.timing.answered = Some(Instant::now());
    }
}
