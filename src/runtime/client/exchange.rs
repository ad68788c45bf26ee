//! One request and its response over a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::error::{ClientError, Stage};
use super::pool::{Connection, Pool, PoolKey};
use super::{Address, Destination, HttpProtocol, Limits};

/// How long a response is held back for its connection to become ready again.
const READY_WAIT: Duration = Duration::from_millis(100);

/// A call that did not succeed.
pub(super) struct Failure {
    pub(super) error: ClientError,
    /// Was the connection closed before a byte of a response came, as happens to pooled ones?
    pub(super) stale: bool,
}

/// The request as its protocol wants it: target and `Host`, or an absolute URI.
pub(super) fn prepare(
    destination: &Destination,
    request: Request<Bytes>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let refused = |uri: &Uri, reason: &str| ClientError::Url {
        url: uri.to_string(),
        reason: reason.to_owned(),
    };
    let (mut head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let host = match head.headers.remove(HOST) {
        Some(host) => host,
        None => {
            let text = match head.uri.authority() {
                Some(authority) => authority.as_str().to_owned(),
                None => own_host(destination),
            };
            HeaderValue::try_from(text).map_err(|_| refused(&head.uri, "its host is not valid"))?
        }
    };
    match destination.protocol {
        HttpProtocol::Http1 => {
            head.version = Version::HTTP_11;
            head.headers.insert(HOST, host);
            head.uri = Uri::from(target);
        }
        HttpProtocol::Http2 => {
            head.version = Version::HTTP_2;
            let authority = Authority::try_from(host.as_bytes())
                .map_err(|_| refused(&head.uri, "its host is not valid"))?;
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(match destination.tls {
                Some(_) => Scheme::HTTPS,
                None => Scheme::HTTP,
            });
            parts.authority = Some(authority);
            parts.path_and_query = Some(target);
            head.uri =
                Uri::from_parts(parts).map_err(|_| refused(&head.uri, "its host is not valid"))?;
        }
    }
    Ok(Request::from_parts(head, Full::new(body)))
}

/// What a destination is called when the request does not say.
fn own_host(destination: &Destination) -> String {
    let port = match &destination.address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    match (&destination.tls, &destination.address) {
        (Some(tls), _) if !tls.server_name.is_empty() => {
            let name = &tls.server_name;
            let name = match name.parse::<std::net::Ipv6Addr>() {
                Ok(_) => format!("[{name}]"),
                Err(_) => name.to_string(),
            };
            match port {
                Some(443) | None => name,
                Some(port) => format!("{name}:{port}"),
            }
        }
        (_, Address::Tcp(address)) => without_default_port(address),
        (_, Address::Unix(_)) => "localhost".to_owned(),
    }
}

fn without_default_port(address: &SocketAddr) -> String {
    match (address.port(), address) {
        (80, SocketAddr::V4(address)) => address.ip().to_string(),
        (80, SocketAddr::V6(address)) => format!("[{}]", address.ip()),
        _ => address.to_string(),
    }
}

/// Sends a request and reads its whole response; a connection that can be used again goes to the pool.
pub(super) async fn run(
    pool: &Arc<Pool>,
    key: &PoolKey,
    connection: Connection,
    request: Request<Full<Bytes>>,
    limits: &Limits,
    deadline: Instant,
) -> Result<Response<Bytes>, Failure> {
    let address = key.address();
    let timed_out = |stage| Failure {
        error: ClientError::Timeout {
            address: address.clone(),
            stage,
        },
        stale: false,
    };
    let asked = tokio::time::timeout_at(deadline, ask(pool, key, connection, request)).await;
    let (response, connection) = asked.map_err(|_| timed_out(Stage::Waiting))??;
    let (head, body) = response.into_parts();
    let reading = read(address, body, limits.body_bytes_max);
    let body = tokio::time::timeout_at(deadline, reading)
        .await
        .map_err(|_| timed_out(Stage::Reading))?
        .map_err(|error| Failure {
            error,
            stale: false,
        })?;
    if let Some(connection) = connection {
        keep(pool, key, connection, deadline).await;
    }
    Ok(Response::from_parts(head, body))
}

/// The response's head, and the connection if it is to be kept after the body.
async fn ask(
    pool: &Arc<Pool>,
    key: &PoolKey,
    connection: Connection,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Option<Connection>), Failure> {
    match connection {
        Connection::Http1(mut sender) => match sender.try_send_request(request).await {
            Ok(response) => Ok((response, Some(Connection::Http1(sender)))),
            Err(mut failed) => {
                let written = failed.take_message().is_none();
                Err(broken(key, failed.error(), written))
            }
        },
        Connection::Http2(mut sender) => {
            // Here already while it is used: others may send over it meanwhile.
            pool.keep(key, Connection::Http2(sender.clone()));
            match sender.try_send_request(request).await {
                Ok(response) => Ok((response, None)),
                Err(mut failed) => {
                    let written = failed.take_message().is_none();
                    Err(broken(key, failed.error(), written))
                }
            }
        }
    }
}

fn broken(key: &PoolKey, error: &hyper::Error, written: bool) -> Failure {
    let reason = {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    };
    // A reset while the request was written is told as an I/O error, the rest as an incomplete message.
    let io = std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
    Failure {
        stale: !written
            || error.is_incomplete_message()
            || error.is_closed()
            || error.is_canceled()
            || io,
        error: ClientError::Protocol {
            address: key.address().clone(),
            reason,
            written,
        },
    }
}

async fn read(address: &Address, mut body: Incoming, limit: usize) -> Result<Bytes, ClientError> {
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClientError::Protocol {
            address: address.clone(),
            reason: format!("reading the response failed: {error}"),
            written: true,
        })?;
        let Ok(data) = frame.into_data() else {
            // Trailers: nobody here asks for them.
            continue;
        };
        let before = first.as_ref().map_or(0, Bytes::len) + whole.len();
        if data.len() > limit.saturating_sub(before) {
            return Err(ClientError::TooLarge {
                address: address.clone(),
                limit,
            });
        }
        match first.take() {
            // A body of one piece is not copied.
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(one) => {
                whole.reserve(one.len() + data.len());
                whole.extend_from_slice(&one);
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// Puts a connection into the pool once its driver says that it is ready for another request.
async fn keep(pool: &Arc<Pool>, key: &PoolKey, connection: Connection, deadline: Instant) {
    let Connection::Http1(mut sender) = connection else {
        return;
    };
    // At once in nearly all cases: the driver has seen the end of the body already.
    let limit = deadline.min(Instant::now() + READY_WAIT);
    if let Ok(Ok(())) = tokio::time::timeout_at(limit, sender.ready()).await {
        pool.keep(key, Connection::Http1(sender));
    }
}
