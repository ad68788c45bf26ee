//! Choosing an endpoint for a try, and remembering the tries. Shared by both drivers.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::model::plan::HashInput;
use crate::runtime::cluster::{Cluster, Picked};
use crate::runtime::exchange::{Exchange, ResponseField, Try, TryFailure};
use crate::runtime::fault::{Blame, Fault, FaultKind, NoEndpoint};
use crate::runtime::snapshot::Forward;
use crate::runtime::titled::TitledName;

static SET_COOKIE: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("Set-Cookie"));

/// The next endpoint for this exchange. Waits only for a name that was never resolved, and no longer than a connection
/// may take.
pub(crate) async fn pick(
    exchange: &mut Exchange,
    forward: &Forward,
    tried: &[SocketAddr],
) -> Result<Picked, Fault> {
    let cluster = &forward.cluster;
    if !cluster.is_resolved() {
        let limit = Duration::from_millis(u64::from(forward.plan.connect_timeout_ms));
        // Whether it came in time or not: picking tells.
        let _ = Box::pin(pingora_timeout::timeout(limit, cluster.resolved())).await;
    }
    let key = hash_key(exchange, cluster);
    let picked = cluster
        .pick(key, tried)
        .map_err(|reason| no_endpoint(exchange, &reason))?;
    let now = Instant::now();
    let forwarded = *exchange.timing.forwarded.get_or_insert(now);
    let began = if tried.is_empty() { forwarded } else { now };
    exchange.tries.push(Try {
        address: picked.address,
        began: began.saturating_duration_since(exchange.started),
        choosing: now.saturating_duration_since(began),
        failed: None,
    });
    Ok(picked)
}

/// The last try is given up for another one.
pub(crate) fn give_up(exchange: &mut Exchange, code: u16) {
    if let Some(attempt) = exchange.tries.last_mut() {
        attempt.failed = Some(TryFailure { code });
    }
}

fn no_endpoint(exchange: &mut Exchange, reason: &NoEndpoint) -> Fault {
    exchange.timing.forwarded.get_or_insert_with(Instant::now);
    let fault = exchange.snapshot.renderer.no_endpoint(reason);
    let fault = fault.kind(FaultKind::NoEndpoint);
    match reason {
        NoEndpoint::Resolver(cause) if fault.cause.is_none() => fault.cause(cause.clone()),
        _ => fault,
    }
}

/// The hash of what this cluster hashes, with its fallback; nothing found hashes the empty value.
fn hash_key(exchange: &mut Exchange, cluster: &Cluster) -> Option<u64> {
    let (on, fallback) = cluster.hash_input()?;
    let key = hash_of(exchange, on)
        .or_else(|| hash_of(exchange, fallback))
        .unwrap_or_else(|| Cluster::hash(b""));
    Some(key)
}

fn hash_of(exchange: &mut Exchange, input: &HashInput) -> Option<u64> {
    match input {
        HashInput::None => None,
        HashInput::Principal => {
            let identity = &exchange.identity;
            let principal = identity
                .principal
                .as_ref()
                .map(|principal| principal.plan.id);
            let id = principal.or_else(|| identity.credential.as_ref().map(|it| it.plan.id))?;
            Some(Cluster::hash(id.to_string().as_bytes()))
        }
        HashInput::Address => {
            let text = exchange.client_address.to_string();
            Some(Cluster::hash(text.as_bytes()))
        }
        HashInput::Header(name) => {
            let name = HeaderName::try_from(&**name).ok()?;
            let values: Vec<&[u8]> = exchange
                .request
                .headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            (!values.is_empty()).then(|| Cluster::hash(&values.concat()))
        }
        HashInput::Cookie { name, path } => Some(hash_of_cookie(exchange, name, path)),
        HashInput::Path => Some(Cluster::hash(exchange.path())),
        HashInput::QueryArgument(name) => {
            let query = exchange.query()?;
            let mut values: Vec<Vec<u8>> = query
                .split(|b| *b == b'&')
                .take(exchange.snapshot.serving.plan.query_arguments_max)
                .filter_map(|argument| {
                    let (key, value) = match memchr::memchr(b'=', argument) {
                        Some(at) => (argument.get(..at)?, argument.get(at + 1..)),
                        None => (argument, None),
                    };
                    let key = percent_encoding::percent_decode(key);
                    key.eq(name.bytes()).then(|| match value {
                        Some(value) => percent_encoding::percent_decode(value).collect(),
                        // An argument without value counts as true.
                        None => b"true".to_vec(),
                    })
                })
                .collect();
            values.sort();
            (!values.is_empty()).then(|| Cluster::hash(&values.join(&b',')))
        }
        HashInput::Capture(name) => exchange.captures().find(name).map(Cluster::hash),
    }
}

/// The cookie's value; without one a new value is made and set on the response.
fn hash_of_cookie(exchange: &mut Exchange, name: &str, path: &str) -> u64 {
    let value = exchange
        .request
        .headers
        .get_all(COOKIE)
        .iter()
        .find_map(|line| {
            line.as_bytes().split(|b| *b == b';').find_map(|pair| {
                let pair = pair.trim_ascii();
                let rest = pair.strip_prefix(name.as_bytes())?;
                rest.strip_prefix(b"=").map(<[u8]>::to_vec)
            })
        });
    if let Some(value) = value {
        return Cluster::hash(&value);
    }
    let already_set = exchange.stashed::<MadeCookie>().map(|made| made.0);
    if let Some(hash) = already_set {
        return hash;
    }
    let value = uuid::Uuid::new_v4().to_string();
    let hash = Cluster::hash(value.as_bytes());
    // The attribute is spelt as the reference gateway spells it.
    let cookie = format!("{name}={value}; Path={path}; Same-Site=Lax; HttpOnly");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        let field = ResponseField::beside(&SET_COOKIE, cookie);
        exchange.response_fields.push(field);
    }
    exchange.stash(MadeCookie(hash));
    hash
}

/// The cookie made for this exchange, so that a retry hashes the same value.
struct MadeCookie(u64);

/// The fault for a connection that could not be made.
pub(crate) fn connect_fault(address: SocketAddr, timed_out: bool, cause: &str) -> Fault {
    let status = if timed_out {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::BAD_GATEWAY
    };
    Fault::transport(
        status,
        Blame::Upstream,
        format!("upstream {address}: {cause}"),
    )
    .kind(FaultKind::Connect)
}
