//! Where the request goes and what it says there: the base, the path's suffix, the query, the host.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{HOST, HeaderName};

use crate::dialects::apigee::bundle::Retain;
use crate::dialects::apigee::message::Message;
use crate::dialects::apigee::message::parameters::{self, Parameters};
use crate::dialects::apigee::program::DynamicTls;
use crate::dialects::apigee::url::UrlParts;
use crate::dialects::apigee::xml::boolean_of;
use crate::model::plan::ForwardPlan;
use crate::plugins::apigee::flow::context::PolicyFault;
use crate::plugins::apigee::flow::fault;
use crate::plugins::apigee::flow::program::{HttpWay, Program, Url, template};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope, TargetFacts};
use crate::runtime::snapshot::Forward;

/// A request ready to go.
pub(crate) struct Composed {
    pub(crate) forward: Arc<Forward>,
    /// Path and query.
    pub(crate) target: String,
    /// A host that a policy has written; the target's own otherwise.
    pub(crate) host: Option<HeaderValue>,
}

/// What is known of a target before its request flow runs.
pub(crate) fn facts(scope: &Scope, name: &str, way: &HttpWay) -> TargetFacts {
    let mut facts = TargetFacts {
        name: name.into(),
        expected_name: way.plan.expected_name.clone(),
        ..TargetFacts::default()
    };
    match &way.url {
        Some(Url::Fixed(url)) => {
            facts.url = way.plan.url.clone();
            describe(&mut facts, url);
        }
        Some(Url::Template(template)) => {
            let text = scope.fill(template);
            if let Ok(url) = UrlParts::parse(&text) {
                describe(&mut facts, &url);
            }
            facts.url = Some(text);
        }
        None => {
            facts.scheme = "http";
            if let Some(forward) = scope.inbound.snapshot.forwards.get(&way.plan.forward) {
                facts.scheme = if forward.tls.is_some() {
                    "https"
                } else {
                    "http"
                };
                facts.host = forward.plan.host.to_string();
                facts.port = forward.plan.port;
            }
        }
    }
    facts
}

fn describe(facts: &mut TargetFacts, url: &UrlParts) {
    facts.scheme = url.scheme();
    facts.host.clone_from(&url.host);
    facts.port = url.port;
    facts.base_path = if url.path.is_empty() {
        "/".to_owned()
    } else {
        url.path.clone()
    };
}

/// Puts the request to a target together.
pub(crate) fn compose(
    program: &Program,
    scope: &mut Scope,
    way: &HttpWay,
) -> Result<Composed, PolicyFault> {
    let written = scope
        .target
        .as_deref()
        .filter(|target| target.url_written)
        .and_then(|target| target.url.clone());
    let mut appends_suffix = scope.copies_path_suffix;
    let (forward, path, query) = match (&written, &way.url) {
        (Some(text), _) => {
            let url = UrlParts::parse(text).map_err(|reason| fault::bad_path(&reason))?;
            appends_suffix &= url.query.is_none();
            (
                dynamic_forward(program, scope, way, &url)?,
                url.path,
                url.query,
            )
        }
        (None, Some(Url::Fixed(url))) => {
            let forward = match &way.plan.tls {
                Some(tls) => profile(scope, resolve_tls(scope, tls)?)?,
                None => profile(scope, way.plan.forward)?,
            };
            let forward = match way.plan.tls.is_some() {
                true => program
                    .dynamic
                    .to(&forward, url)
                    .map_err(|reason| fault::unavailable(&reason))?,
                false => forward,
            };
            (forward, url.path.clone(), url.query.clone())
        }
        (None, Some(Url::Template(_))) => {
            let text = scope
                .target
                .as_deref()
                .and_then(|target| target.url.clone());
            let url = UrlParts::parse(text.as_deref().unwrap_or_default())
                .map_err(|reason| fault::bad_path(&reason))?;
            (
                dynamic_forward(program, scope, way, &url)?,
                url.path,
                url.query,
            )
        }
        (None, None) => {
            let path = way.path.as_ref().map(|path| scope.fill(path));
            let path = path.unwrap_or_default();
            if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                return Err(fault::bad_path(
                    "the path holds blanks or control characters",
                ));
            }
            let (path, query) = match path.split_once('?') {
                Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                None => (path, None),
            };
            (profile(scope, way.plan.forward)?, path, query)
        }
    };
    let suffix = if appends_suffix {
        scope.entry.suffix.as_str()
    } else {
        ""
    };
    let mut target = join(&path, suffix);
    let request = scope.message(REQUEST);
    let own = match scope.copies_query_parameters {
        true => request.and_then(|request| request.query.as_deref()),
        false => None,
    };
    let query = joined_query(query, own, &way.plan.properties.query_parameters);
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        // Writing to a text cannot fail.
        let _ = write!(target, "?{query}");
    }
    Ok(Composed {
        forward,
        target,
        host: None,
    })
}

/// The forward with what the transaction wants otherwise: another name in the target's certificate, and no more time
/// than is left for the whole exchange.
pub(crate) fn adjusted(
    program: &Program,
    scope: &Scope,
    way: &HttpWay,
    mut forward: Arc<Forward>,
) -> Result<Arc<Forward>, PolicyFault> {
    let expected = scope
        .target
        .as_deref()
        .and_then(|facts| facts.expected_name.as_deref());
    if let Some(name) = expected
        && way.plan.expected_name.as_deref() != Some(name)
    {
        forward = expecting(program, forward, name)?;
    }
    if let Some(left) = time_left(program, scope) {
        let left = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        if left < forward.plan.read_timeout_ms {
            let plan = ForwardPlan {
                read_timeout_ms: left,
                ..ForwardPlan::clone(&forward.plan)
            };
            forward = Arc::new(Forward {
                plan: Arc::new(plan),
                cluster: Arc::clone(&forward.cluster),
                retries: Arc::clone(&forward.retries),
                tls: forward.tls.clone(),
            });
        }
    }
    Ok(forward)
}

/// The same forward, to a target whose certificate has this name.
pub(crate) fn expecting(
    program: &Program,
    forward: Arc<Forward>,
    name: &str,
) -> Result<Arc<Forward>, PolicyFault> {
    let linked = program.dynamic.expecting(&forward, name);
    linked.map_err(|reason| fault::unavailable(&reason))
}

/// What is left of the time for the whole exchange; none when it has no limit (`api.timeout`).
pub(crate) fn time_left(program: &Program, scope: &Scope) -> Option<Duration> {
    let limit = Duration::from_millis(program.plan.properties.api_timeout_ms?);
    Some(limit.saturating_sub(scope.inbound.started.elapsed()))
}

/// Where a callout goes: the forward, and its URL's own path and query.
pub(crate) fn callout(
    program: &Program,
    scope: &Scope,
    way: &HttpWay,
) -> Result<(Arc<Forward>, UrlParts), PolicyFault> {
    let parse = |text: &str| UrlParts::parse(text).map_err(|reason| fault::bad_path(&reason));
    match &way.url {
        Some(Url::Fixed(url)) => match way.plan.tls {
            None => Ok((profile(scope, way.plan.forward)?, url.clone())),
            Some(_) => Ok((dynamic_forward(program, scope, way, url)?, url.clone())),
        },
        Some(Url::Template(template)) => {
            let url = parse(&scope.fill(template))?;
            Ok((dynamic_forward(program, scope, way, &url)?, url))
        }
        None => {
            let forward = profile(scope, way.plan.forward)?;
            let path = way
                .path
                .as_ref()
                .map(|path| scope.fill(path))
                .unwrap_or_default();
            let path = join(&path, "");
            let scheme = if forward.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let url = parse(&format!("{scheme}://balanced{path}"))?;
            Ok((forward, url))
        }
    }
}

/// The forward of the plan; it is missing only where it could not be linked.
fn profile(scope: &Scope, id: uuid::Uuid) -> Result<Arc<Forward>, PolicyFault> {
    let forward = scope.inbound.snapshot.forwards.get(&id);
    forward.cloned().ok_or_else(|| {
        fault::unavailable("the target cannot be used, see the log of its deployment")
    })
}

fn dynamic_forward(
    program: &Program,
    scope: &Scope,
    way: &HttpWay,
    url: &UrlParts,
) -> Result<Arc<Forward>, PolicyFault> {
    let id = match &way.plan.tls {
        Some(tls) => resolve_tls(scope, tls)?,
        None => way.plan.forward,
    };
    let profile = profile(scope, id)?;
    let linked = program.dynamic.to(&profile, url);
    linked.map_err(|reason| fault::unavailable(&reason))
}

/// The forward that TLS settings with variables come to.
fn resolve_tls(scope: &Scope, tls: &DynamicTls) -> Result<uuid::Uuid, PolicyFault> {
    let text = |text: &Option<String>| {
        let parsed = text.as_deref().map(template);
        match parsed {
            Some(Ok(template)) => scope.fill(&template).trim().to_owned(),
            _ => String::new(),
        }
    };
    let flag = |given: &Option<String>, default: bool| match given {
        Some(_) => boolean_of(&text(given)).unwrap_or(false),
        None => default,
    };
    let enabled = flag(&tls.info.enabled, true);
    let shows = flag(&tls.info.client_auth, false);
    let (key_store, key_alias) = match shows {
        true => (text(&tls.info.key_store), text(&tls.info.key_alias)),
        false => Default::default(),
    };
    let key = DynamicTls::key(
        enabled,
        &key_store,
        &key_alias,
        &text(&tls.info.trust_store),
    );
    tls.forwards.get(&key).copied().ok_or_else(|| {
        fault::tls_failed("a key store, alias or trust store of these names does not exist")
    })
}

/// Two parts of a path with exactly one slash between them.
pub(crate) fn join(base: &str, suffix: &str) -> String {
    let base = base.strip_suffix('/').unwrap_or(base);
    let mut joined = String::with_capacity(base.len() + suffix.len() + 1);
    if !base.is_empty() && !base.starts_with('/') {
        joined.push('/');
    }
    joined.push_str(base);
    if !suffix.is_empty() && !suffix.starts_with('/') {
        joined.push('/');
    }
    joined.push_str(suffix);
    if joined.is_empty() {
        joined.push('/');
    }
    joined
}

/// The base's parameters, without those that the request has too, then the request's.
pub(crate) fn joined_query(
    base: Option<String>,
    own: Option<&str>,
    retain: &Retain,
) -> Option<String> {
    let mut own = own.map(str::to_owned);
    if !retain.keeps_all()
        && let Some(query) = &mut own
    {
        let names: Vec<String> = Parameters(query)
            .names()
            .into_iter()
            .map(|it| it.into_owned())
            .collect();
        for name in names {
            if !retain.names.contains(&name) {
                parameters::remove(query, &name, None);
            }
        }
    }
    match (base, own) {
        (None, own) => own,
        (base, None) => base,
        (Some(mut base), Some(own)) => {
            let names: Vec<String> = Parameters(&own)
                .names()
                .into_iter()
                .map(|it| it.into_owned())
                .collect();
            for name in names {
                parameters::remove(&mut base, &name, None);
            }
            if !base.is_empty() && !own.is_empty() {
                base.push('&');
            }
            base.push_str(&own);
            Some(base)
        }
    }
}

/// Changes of headers that a target's properties ask for.
pub(crate) fn apply_properties(message: &mut Message, way: &HttpWay) {
    let properties = &way.plan.properties;
    if let Some(method) = properties.method_override.get(message.verb.as_ref())
        && let Ok(value) = HeaderValue::from_str(method)
    {
        let name = HeaderName::from_static("x-http-method-override");
        message.headers.insert(name, value);
    }
    retain_headers(
        message,
        &properties.request_headers,
        &[
            HOST.as_str(),
            "content-type",
            "content-length",
            "content-encoding",
        ],
    );
}

/// Drops the headers that are not to be passed on.
pub(crate) fn retain_headers(message: &mut Message, retain: &Retain, always: &[&str]) {
    if retain.keeps_all() {
        return;
    }
    let dropped: Vec<HeaderName> = message
        .headers
        .keys()
        .filter(|name| !retain.keeps(name.as_str()) && !always.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in dropped {
        message.headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    #[test]
    fn joins_with_one_slash() {
        let cases = [
            ("", "", "/"),
            ("/", "", "/"),
            ("/a", "", "/a"),
            ("/a/", "/b", "/a/b"),
            ("/a", "b", "/a/b"),
            ("", "/b", "/b"),
            ("a", "/b/", "/a/b/"),
        ];
        for (base, suffix, joined) in cases {
            let expected = if joined == "/a" && base == "/a" {
                "/a"
            } else {
                joined
            };
            assert_eq!(join(base, suffix), expected, "{base} {suffix}");
        }
    }

    #[test]
    fn the_requests_parameters_replace_those_of_the_base() {
        let all = Retain::default();
        let joined = |base: Option<&str>, own: Option<&str>| {
            joined_query(base.map(str::to_owned), own, &all)
        };
        assert_eq!(
            joined(Some("a=1&b=2"), Some("b=3&c=%20")).as_deref(),
            Some("a=1&b=3&c=%20")
        );
        assert_eq!(joined(Some("a=1"), None).as_deref(), Some("a=1"));
        assert_eq!(joined(None, Some("x")).as_deref(), Some("x"));
        let some = Retain {
            all: false,
            names: vec!["b".to_owned()],
        };
        assert_eq!(
            joined_query(None, Some("a=1&b=2"), &some).as_deref(),
            Some("b=2")
        );
    }
}
