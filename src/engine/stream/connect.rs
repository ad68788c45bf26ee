//! From a routed stream to a connection with an endpoint of its forward.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use http::StatusCode;
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::engine::connect::{refused, shake_hands};
use crate::engine::io::Channel;
use crate::engine::read_ahead::{ReadAhead, TlsStream};
use crate::engine::{descriptors, proxy_header};
use crate::model::plan::HashInput;
use crate::model::route::split_port;
use crate::runtime::cluster::{Cluster, Outcome, Picked};
use crate::runtime::exchange::{Try, TryFailure};
use crate::runtime::fault::NoEndpoint;
use crate::runtime::mutual::Offer;
use crate::runtime::retry_budget::Suspects;
use crate::runtime::session::{Closing, Session};
use crate::runtime::snapshot::{Forward, Route};

/// Streams offer no protocol by ALPN: what they carry is not ours to say.
const NO_ALPN: &[u8] = b"";

/// A connection with an endpoint.
pub(super) struct Connected {
    pub(super) channel: Channel,
    /// Held to the stream's end: the endpoint counts it as in progress.
    pub(super) _picked: Picked,
}

/// Connects, to another endpoint after each failure, as often as the forward allows.
pub(super) async fn connect(
    session: &mut Session,
    route: &Route,
    forward: &Forward,
) -> Result<Connected, Closing> {
    let mut tried: SmallVec<[SocketAddr; 2]> = SmallVec::new();
    loop {
        let picked = pick(session, forward, &tried).await?;
        tried.push(picked.address);
        let began = Instant::now();
        let limit = Duration::from_millis(forward.plan.connect_timeout_ms.into());
        let opening = open(session, route, forward, &picked);
        let (outcome, cause) = match tokio::time::timeout(limit, opening).await {
            Ok(Ok(channel)) => {
                picked.report(Outcome::Connected, began.elapsed());
                forward.retries.succeeded(picked.address);
                return Ok(Connected {
                    channel,
                    _picked: picked,
                });
            }
            Ok(Err(cause)) => (Outcome::Broken, cause),
            Err(_) => (Outcome::TimedOut, "connecting timed out".to_owned()),
        };
        picked.report(outcome, began.elapsed());
        forward.retries.failed(picked.address, Instant::now());
        let cause = format!("upstream {}: {cause}", picked.address);
        let percent = session.serving.plan.retry_percent;
        if tried.len() > usize::from(forward.plan.retries)
            || !forward.retries.allows(percent, Instant::now())
        {
            return Err(Closing::new(StatusCode::BAD_GATEWAY, cause));
        }
        tracing::warn!(client = %session.connection.peer, "{cause}, trying another");
        if let Some(attempt) = session.tries.last_mut() {
            let code = StatusCode::BAD_GATEWAY.as_u16();
            attempt.failed = Some(TryFailure { code });
        }
    }
}

async fn pick(
    session: &mut Session,
    forward: &Forward,
    tried: &[SocketAddr],
) -> Result<Picked, Closing> {
    let cluster = &forward.cluster;
    if !cluster.is_resolved() {
        let limit = Duration::from_millis(forward.plan.connect_timeout_ms.into());
        // Whether it came in time or not: picking tells.
        let _ = tokio::time::timeout(limit, cluster.resolved()).await;
    }
    let key = cluster.hash_input().map(|(on, fallback)| {
        hash_of(session, on)
            .or_else(|| hash_of(session, fallback))
            .unwrap_or_else(|| Cluster::hash(b""))
    });
    let suspects = match tried.is_empty() && forward.plan.retries > 0 {
        true => forward.retries.request(session.started),
        false => Suspects::new(),
    };
    let avoided = if suspects.is_empty() {
        tried
    } else {
        &suspects
    };
    let picked = cluster
        .pick(key, avoided)
        .map_err(|reason| no_endpoint(&reason))?;
    let now = Instant::now();
    let forwarded = *session.forwarded.get_or_insert(now);
    let began = if tried.is_empty() { forwarded } else { now };
    session.tries.push(Try {
        address: picked.address,
        began: began.saturating_duration_since(session.started),
        choosing: now.saturating_duration_since(began),
        failed: None,
    });
    Ok(picked)
}

/// A stream has an address and perhaps a caller; it has no header, cookie, path or query.
fn hash_of(session: &Session, input: &HashInput) -> Option<u64> {
    match input {
        HashInput::Address => Some(Cluster::hash(session.client_address.to_string().as_bytes())),
        HashInput::Principal => {
            let principal = session.identity.principal.as_ref()?;
            Some(Cluster::hash(principal.plan.id.to_string().as_bytes()))
        }
        _ => None,
    }
}

fn no_endpoint(reason: &NoEndpoint) -> Closing {
    let cause = match reason {
        NoEndpoint::NoneUsable => "no endpoint can be used",
        NoEndpoint::NameNotFound => "the name of the upstream does not exist",
        NoEndpoint::Resolver(cause) | NoEndpoint::Unlisted(cause) => cause,
        NoEndpoint::TooMany(_) => "as many connections as allowed are open",
    };
    Closing::new(StatusCode::SERVICE_UNAVAILABLE, cause)
}

async fn open(
    session: &Session,
    route: &Route,
    forward: &Forward,
    picked: &Picked,
) -> Result<Channel, String> {
    let failed = |what: &str, cause: &dyn std::fmt::Display| format!("{what}: {cause}");
    let mut stream = TcpStream::connect(picked.address)
        .await
        .map_err(|error| failed("connecting failed", &error))?;
    if descriptors::is_reserved(&stream) {
        return Err("descriptors run out".to_owned());
    }
    stream
        .set_nodelay(true)
        .map_err(|error| failed("connecting failed", &error))?;
    if let Some(version) = forward.plan.proxy_header {
        let (client, local) = (session.connection.peer, session.connection.local);
        let header = proxy_header::render(version, client, local);
        stream
            .write_all(&header)
            .await
            .map_err(|error| failed("sending the PROXY header", &error))?;
    }
    if let Some(secured) = &picked.secured {
        return match shake_hands(secured, Offer::Nothing, stream).await {
            Ok(stream) => Ok(Channel::Tls(Box::new(stream))),
            Err(refusal) => {
                refused(picked.address, secured, &refusal);
                Err(refusal.to_string())
            }
        };
    }
    let Some(tls) = &forward.tls else {
        return Ok(Channel::Plain(stream));
    };
    let name = server_name(session, route, picked);
    let handshake = "TLS handshake failed";
    let ssl = tls
        .connection(&name, NO_ALPN)
        .map_err(|error| failed(handshake, &error))?;
    let stream = ReadAhead::new(stream);
    let mut stream = TlsStream::new(ssl, stream).map_err(|error| failed(handshake, &error))?;
    Pin::new(&mut stream)
        .connect()
        .await
        .map_err(|error| failed(handshake, &error))?;
    Ok(Channel::Tls(Box::new(stream)))
}

/// The name that the upstream is asked for: the client's own where the route preserves it, else the endpoint's.
fn server_name(session: &Session, route: &Route, picked: &Picked) -> String {
    if route.plan.preserve_host
        && let Some(name) = &session.server_name
    {
        return name.to_string();
    }
    let authority = String::from_utf8_lossy(picked.endpoint.authority.as_bytes());
    let (name, _) = split_port(&authority);
    name.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}
