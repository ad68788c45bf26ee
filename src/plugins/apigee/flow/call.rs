//! Requests of the flow's own: to services over the gateway's client, and to proxies inside the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Method, Request};

use crate::dialects::apigee::message::Message;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::execute::DEPTH_MAX;
use crate::plugins::apigee::flow::program::{LocalWay, Program};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};
use crate::plugins::apigee::flow::target::{self, Composed};
use crate::plugins::apigee::flow::transaction::{Outcome, Transaction};
use crate::plugins::apigee::flow::wire::drop_hop_by_hop;
use crate::plugins::apigee::flow::{entrance, fault};
use crate::runtime::client::{
    Address, Client, ClientError, Destination, DestinationTls, HttpProtocol, Limits,
};
use crate::runtime::fault::NoEndpoint;
use crate::runtime::snapshot::Forward;

/// Where a message is sent, and how long that may take.
pub(crate) struct Call {
    pub(crate) forward: Arc<Forward>,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) connect: Duration,
    pub(crate) total: Duration,
    pub(crate) body_bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no server can be asked")]
    NoEndpoint(NoEndpoint),
    #[error("the message cannot be sent: {0}")]
    Message(String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl CallError {
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_timeout())
    }
}

/// Sends a message and waits for the whole answer. While connecting fails, further servers are asked as the forward says.
pub(crate) async fn send(
    client: &Client,
    call: &Call,
    message: &Message,
) -> Result<Message, CallError> {
    let plan = &call.forward.plan;
    let cluster = &call.forward.cluster;
    if !cluster.is_resolved() {
        // Whether it came in time or not: picking tells.
        let _ = tokio::time::timeout(call.connect, cluster.resolved()).await;
    }
    let began = Instant::now();
    let mut tried = Vec::new();
    loop {
        let picked = cluster.pick(None, &tried).map_err(CallError::NoEndpoint)?;
        tried.push(picked.address);
        let destination = Destination {
            address: Address::Tcp(picked.address),
            tls: call.forward.tls.as_ref().map(|tls| DestinationTls {
                tls: Arc::clone(tls),
                server_name: Arc::clone(&picked.endpoint.host),
            }),
            protocol: HttpProtocol::Http1,
        };
        let usual = if call.forward.tls.is_some() { 443 } else { 80 };
        let host = match picked.endpoint.port == usual {
            true => &picked.endpoint.authority,
            false => &picked.endpoint.authority_with_port,
        };
        let request = wire(message, &call.target, host)?;
        let limits = Limits {
            connect: call.connect,
            total: call.total.saturating_sub(began.elapsed()),
            body_bytes_max: call.body_bytes_max,
        };
        match client.send(&destination, request, &limits).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let mut headers = head.headers;
                drop_hop_by_hop(&mut headers);
                return Ok(Message {
                    headers,
                    content: body,
                    version: head.version,
                    status: head.status.as_u16(),
                    ..Message::response()
                });
            }
            Err(error) if error.was_written() || tried.len() > usize::from(plan.retries) => {
                return Err(error.into());
            }
            Err(error) => tracing::debug!(%error, "another server is asked"),
        }
    }
}

fn wire(message: &Message, target: &str, host: &HeaderValue) -> Result<Request<Bytes>, CallError> {
    let unfit = |error: &dyn std::fmt::Display| CallError::Message(error.to_string());
    let method = Method::from_bytes(message.verb.as_bytes()).map_err(|error| unfit(&error))?;
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(message.content.clone())
        .map_err(|error| unfit(&error))?;
    let mut headers = message.headers.clone();
    drop_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.insert(HOST, host.clone());
    *request.headers_mut() = headers;
    Ok(request)
}

/// Another proxy of the environment, with a scope of its own for this request.
pub(crate) fn local(
    caller: &Program,
    scope: &Scope,
    way: &LocalWay,
    mut request: Message,
) -> Result<(Arc<Program>, Scope), PolicyFault> {
    if scope.depth >= DEPTH_MAX {
        return Err(fault::too_deep(DEPTH_MAX));
    }
    let own = if request.path == "/" {
        String::new()
    } else {
        request.path.clone()
    };
    let (program, entry) = match way {
        LocalWay::Proxy { proxy, endpoint } => {
            let (proxy, endpoint) = (scope.fill(proxy), scope.fill(endpoint));
            let found = caller.registry.named(caller, proxy.trim(), endpoint.trim());
            let program = found.ok_or_else(|| fault::no_local_target(&proxy))?;
            request.path = target::join(&program.plan.base_path, &own);
            let entry = entrance::entry(&program, None, &request.path);
            (program, entry)
        }
        LocalWay::Path(path) => {
            request.path = target::join(&scope.fill(path), &own);
            let found = entrance::find(caller, scope, &request);
            found.ok_or_else(|| fault::no_local_target(&request.path))?
        }
    };
    let place = Arc::clone(&program.place);
    let mut callee = Scope::new(place, Arc::clone(&scope.inbound), entry, request);
    callee.depth = scope.depth + 1;
    Ok((program, callee))
}

/// Runs a transaction to its answer; targets are asked with the gateway's client.
pub(crate) async fn run(client: &Client, mut transaction: Transaction) -> Message {
    if let Outcome::Forward(composed) = transaction.begin().await {
        let asked = match transaction.top() {
            Some(frame) => {
                let properties = frame.http_way().map(|way| way.plan.properties.clone());
                let request = frame.scope.message(REQUEST).cloned();
                Some((
                    properties.unwrap_or_default(),
                    request.unwrap_or_else(Message::request),
                ))
            }
            None => None,
        };
        if let Some((properties, request)) = asked {
            let Composed {
                forward, target, ..
            } = *composed;
            let call = Call {
                forward,
                target,
                connect: Duration::from_millis(u64::from(properties.connect_timeout_ms)),
                total: Duration::from_millis(u64::from(properties.io_timeout_ms)),
                body_bytes_max: usize::try_from(properties.response_payload_bytes_max)
                    .unwrap_or(usize::MAX),
            };
            match send(client, &call, &request).await {
                Ok(response) => transaction.respond(response).await,
                Err(error) if error.is_timeout() => {
                    transaction.fail(fault::gateway_timeout()).await
                }
                Err(error) => {
                    transaction
                        .fail(fault::unavailable(&error.to_string()))
                        .await
                }
            }
        }
    }
    let answer = transaction
        .answer()
        .cloned()
        .unwrap_or_else(Message::response);
    if transaction.has_after() {
        tokio::spawn(transaction.after());
    }
    answer
}
