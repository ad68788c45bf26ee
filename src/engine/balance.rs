//! Choosing an endpoint for a try, and remembering the tries. Shared by both drivers.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::model::plan::HashInput;
use crate::runtime::cluster::{Cluster, Outcome, Picked};
use crate::runtime::exchange::{Exchange, RequestBody, Try, TryFailure};
use crate::runtime::fault::{Blame, Fault, FaultKind, NoEndpoint};
use crate::runtime::retry_budget::Suspects;
use crate::runtime::snapshot::Forward;
use crate::runtime::titled::TitledName;
use crate::runtime::told::ResponseField;

static SET_COOKIE: LazyLock<TitledName> = LazyLock::new(|| TitledName::fixed("Set-Cookie"));

/// The next endpoint for this exchange. Waits only for a name that was never resolved, and no longer than a connection
/// may take.
pub(crate) async fn pick(
    exchange: &mut Exchange,
    forward: &Forward,
    tried: &[SocketAddr],
) -> Result<Picked, Fault> {
    let cluster = &forward.cluster;
    let is_resolved = cluster.is_resolved();
    let has_waited = !tried.is_empty()
        || !exchange.chosen.is_empty()
        || exchange.request_body != RequestBody::Absent
        || !is_resolved;
    if !is_resolved {
        let limit = Duration::from_millis(u64::from(forward.plan.connect_timeout_ms));
        // Whether it came in time or not: picking tells.
        let _ = Box::pin(pingora_timeout::timeout(limit, cluster.resolved())).await;
    }
    let suspects = match tried.is_empty() && forward.plan.retries > 0 {
        true => forward.retries.request(exchange.started),
        false => Suspects::new(),
    };
    let avoided = if suspects.is_empty() {
        tried
    } else {
        &suspects
    };
    let picked = match cluster.sticky_cookie() {
        None => {
            let key = hash_key(exchange, cluster);
            cluster.pick(key, avoided)
        }
        Some((name, path)) => pick_sticky(exchange, cluster, (name, path), avoided),
    };
    let picked = picked.map_err(|reason| no_endpoint(exchange, &reason))?;
    // Where nothing can have taken time the clock is not asked again.
    let now = match has_waited {
        true => Instant::now(),
        false => exchange.started,
    };
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

/// Tells cluster and budget what came of the last try.
pub(crate) fn report(exchange: &Exchange, forward: &Forward, picked: &Picked, outcome: Outcome) {
    match outcome {
        Outcome::Broken | Outcome::TimedOut => {
            forward.retries.failed(picked.address, Instant::now());
        }
        Outcome::Answered(_) | Outcome::Connected => forward.retries.succeeded(picked.address),
    }
    if picked.is_tracked() {
        let spent = exchange.started.elapsed();
        let began = exchange.tries.last().map_or(spent, |attempt| attempt.began);
        picked.report(outcome, spent.saturating_sub(began));
    }
}

/// What a try that ended with this fault says of the endpoint.
pub(crate) fn outcome_of(fault: &Fault) -> Outcome {
    match fault.status {
        StatusCode::GATEWAY_TIMEOUT => Outcome::TimedOut,
        _ => Outcome::Broken,
    }
}

/// May the exchange be tried once more, as far as number and budget of retries go? A yes is counted.
pub(crate) fn may_try_again(exchange: &Exchange, forward: &Forward, tries: usize) -> bool {
    if tries > usize::from(forward.plan.retries) {
        return false;
    }
    let percent = exchange.snapshot.serving.plan.retry_percent;
    let allowed = forward.retries.allows(percent, Instant::now());
    if !allowed {
        tracing::warn!(
            request_id = %exchange.request_id,
            upstream = &*forward.cluster.plan.name,
            "not tried again: too many requests of this upstream are being retried"
        );
    }
    allowed
}

/// Does an answer with this status count as a failed try of a request that may be sent twice?
pub(crate) fn is_retried_status(forward: &Forward, status: StatusCode) -> bool {
    forward.plan.retry_statuses.contains(&status.as_u16())
}

/// Follows the client's cookie, and sets one where that leads nowhere.
fn pick_sticky(
    exchange: &mut Exchange,
    cluster: &Cluster,
    (name, path): (&str, &str),
    tried: &[SocketAddr],
) -> Result<Picked, NoEndpoint> {
    let sent = cookie(exchange, name);
    let sent =
        sent.and_then(|value| u64::from_str_radix(std::str::from_utf8(&value).ok()?, 16).ok());
    let picked = cluster.pick(sent, tried)?;
    // An earlier try of this exchange may have set one for an address that then failed.
    if let Some(Stuck(stale)) = exchange.stashed::<Stuck>() {
        let stale = stale.clone().into();
        exchange.response_fields.take_back(&stale);
    }
    if let Some(token) = picked.token
        && sent != Some(token)
        && let Ok(cookie) = HeaderValue::try_from(format!(
            "{name}={token:016x}; Path={path}; SameSite=Lax; HttpOnly"
        ))
    {
        exchange.stash(Stuck(cookie.clone()));
        let field = ResponseField::beside(&SET_COOKIE, cookie);
        exchange.response_fields.push(field);
    }
    Ok(picked)
}

/// The sticky cookie set for this exchange.
struct Stuck(HeaderValue);

fn no_endpoint(exchange: &mut Exchange, reason: &NoEndpoint) -> Fault {
    exchange.timing.forwarded.get_or_insert_with(Instant::now);
    let fault = exchange.snapshot.renderer.no_endpoint(reason);
    let fault = fault.kind(FaultKind::NoEndpoint);
    match reason {
        NoEndpoint::Resolver(cause) | NoEndpoint::Unlisted(cause) if fault.cause.is_none() => {
            fault.cause(cause.clone())
        }
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
            if let Some(told) = exchange.request_fields.get(&name) {
                return told.value.as_ref().map(|it| Cluster::hash(it.as_bytes()));
            }
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

/// The value of a cookie that the client sent.
fn cookie(exchange: &Exchange, name: &str) -> Option<Vec<u8>> {
    let lines = exchange.request.headers.get_all(COOKIE);
    lines.iter().find_map(|line| {
        line.as_bytes().split(|b| *b == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let rest = pair.strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=").map(<[u8]>::to_vec)
        })
    })
}

/// The cookie's value; without one a new value is made and set on the response.
fn hash_of_cookie(exchange: &mut Exchange, name: &str, path: &str) -> u64 {
    if let Some(value) = cookie(exchange, name) {
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
