//! `ResponseCache`: answers from a cache instead of asking the target.
//!
//! In the request flow it looks up; a hit is the response, and the response flow goes on behind the policy's attachment
//! there. In the response flow it keeps what the target answered, under the key of the request flow.

use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, DATE, EXPIRES,
};

use super::caching::{Cache, Expiry};
use super::stored_response::{decode, encode};
use super::{Policy, PolicyLink};
use crate::dialects::apigee::condition::Condition;
use crate::dialects::apigee::message::{Message, fields};
use crate::dialects::apigee::policies::response_cache::Config;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::execute;
use crate::plugins::apigee::flow::scope::{REQUEST, RESPONSE, Side};
use crate::runtime::entry_cache::Found;

/// Answers to requests for a part, or to those who have it already: they are not the resource.
const NEVER_KEPT: [u16; 2] = [206, 304];

struct ResponseCache {
    cache: Cache,
    expiry: Expiry,
    config: Config,
    skip_lookup: Option<Condition>,
    skip_population: Option<Condition>,
    names: Names,
}

/// The policy's variables.
struct Names {
    hit: VariableName,
    key: VariableName,
    cache: VariableName,
    invalid: VariableName,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    let config: Config = link.config()?;
    let condition = |text: Option<&String>| {
        let parsed = text.map(|text| Condition::parse(text));
        parsed.transpose().map_err(|error| error.to_string())
    };
    let name = |last: &str| VariableName::new(&format!("responsecache.{}.{last}", link.name));
    Ok(Box::new(ResponseCache {
        cache: Cache::link(link, &config.place),
        expiry: Expiry::link(&config.expiry),
        skip_lookup: condition(config.skip_lookup.as_ref())?,
        skip_population: condition(config.skip_population.as_ref())?,
        names: Names {
            hit: name("cachehit"),
            key: name("cachekey"),
            cache: name("cachename"),
            invalid: name("invalidentry"),
        },
        config,
    }))
}

/// Only the number of variables can refuse a policy's own.
fn set(flow: &mut FlowContext<'_>, name: &VariableName, value: impl Into<Value<'static>>) {
    let _ = flow.set(name, value.into());
}

impl ResponseCache {
    fn key(&self, flow: &FlowContext<'_>) -> String {
        let mut key = self.cache.key(flow);
        if self.config.uses_accept_headers
            && let Some(request) = flow.message(REQUEST)
        {
            for name in [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
                key.push_str("__");
                if let Some(value) = fields::joined(&request.headers, &name) {
                    key.push_str(&value);
                }
            }
        }
        key
    }

    fn look_up(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let key = self.key(flow);
        let skips = self.skip_lookup.is_some() && execute::holds(flow, self.skip_lookup.as_ref())?;
        let found = match skips {
            true => Found::Nothing,
            false => self.cache.table.find(&key, Instant::now()),
        };
        set(flow, &self.names.key, key);
        set(flow, &self.names.cache, self.cache.name.to_string());
        set(flow, &self.names.invalid, found == Found::Ended);
        let response = match found {
            Found::Value(value) => decode(value),
            Found::Ended | Found::Nothing => None,
        };
        set(flow, &self.names.hit, response.is_some());
        Ok(match response {
            Some(response) => {
                flow.replace(RESPONSE, response);
                Next::AnswerFromHere
            }
            None => Next::Continue,
        })
    }

    fn keep(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        let is_hit = flow.owned(&self.names.hit).and_then(|hit| hit.as_boolean());
        let is_head = flow.message(REQUEST).is_some_and(|it| it.verb == "HEAD");
        // A body that streams past is not here to be kept.
        let is_held = flow.program.plan.handling.holds_response;
        if is_hit == Some(true) || is_head || !is_held {
            return Ok(Next::Continue);
        }
        if self.skip_population.is_some() && execute::holds(flow, self.skip_population.as_ref())? {
            return Ok(Next::Continue);
        }
        let Some(response) = flow.message(RESPONSE) else {
            return Ok(Next::Continue);
        };
        if !self.is_kept(response) {
            return Ok(Next::Continue);
        }
        let mut life = self.cache.life(&self.expiry, flow.scope);
        if self.config.uses_response_headers {
            match freshness(&response.headers, SystemTime::now()) {
                Freshness::Unsaid => {}
                Freshness::For(most) => life = life.at_most(most),
                Freshness::Stale => return Ok(Next::Continue),
            }
        }
        let Some(value) = encode(response) else {
            return Ok(Next::Continue);
        };
        let known = flow.text(&self.names.key).map(|key| key.into_owned());
        let key = known.unwrap_or_else(|| self.key(flow));
        self.cache.keep(&key, value, life);
        Ok(Next::Continue)
    }

    fn is_kept(&self, response: &Message) -> bool {
        let status = response.status;
        !NEVER_KEPT.contains(&status)
            && (!self.config.excludes_errors || (200..=205).contains(&status))
    }
}

impl Policy for ResponseCache {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        match flow.side {
            Side::Request => self.look_up(flow),
            Side::Response => self.keep(flow),
            Side::Error => Ok(Next::Continue),
        }
    }
}

/// What a response's own fields say of its life.
#[derive(Debug, PartialEq, Eq)]
enum Freshness {
    Unsaid,
    For(Duration),
    Stale,
}

fn freshness(headers: &HeaderMap, now: SystemTime) -> Freshness {
    let mut shared = None;
    let mut own = None;
    for value in headers.get_all(CACHE_CONTROL) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for directive in value.split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || argument.trim().trim_matches('"').parse::<u64>().ok();
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => return Freshness::Stale,
                // What cannot be read is over: nobody knows what was meant.
                "s-maxage" => shared = Some(seconds().unwrap_or(0)),
                "max-age" => own = Some(seconds().unwrap_or(0)),
                _ => {}
            }
        }
    }
    let date = |name| {
        let value = headers.get(name)?;
        Some(
            value
                .to_str()
                .ok()
                .and_then(|text| httpdate::parse_http_date(text).ok()),
        )
    };
    let expires = date(EXPIRES).map(|end| {
        let sent = date(DATE).flatten().unwrap_or(now);
        let left = end.and_then(|end| end.duration_since(sent).ok());
        left.unwrap_or_default()
    });
    let seconds = [shared, own].into_iter().flatten().map(Duration::from_secs);
    match seconds.chain(expires).min() {
        None => Freshness::Unsaid,
        Some(Duration::ZERO) => Freshness::Stale,
        Some(life) => Freshness::For(life),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_shortest_of_what_fields_say_counts() {
        let seconds = |seconds| Freshness::For(Duration::from_secs(seconds));
        let sent = ("date", "Wed, 21 Aug 2013 19:16:47 GMT");
        for (given, expected) in [
            (&[][..], Freshness::Unsaid),
            (&[("cache-control", "public")], Freshness::Unsaid),
            (
                &[("cache-control", "max-age=60, S-MaxAge=\"30\"")],
                seconds(30),
            ),
            (
                &[("cache-control", "max-age=10"), ("cache-control", "x")],
                seconds(10),
            ),
            (
                &[sent, ("expires", "Wed, 21 Aug 2013 19:16:57 GMT")],
                seconds(10),
            ),
            (&[sent, ("expires", "0")], Freshness::Stale),
            (&[("cache-control", "max-age=0")], Freshness::Stale),
            (&[("cache-control", "max-age=x")], Freshness::Stale),
            (&[("cache-control", "max-age=9, private")], Freshness::Stale),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(
                freshness(&headers, SystemTime::now()),
                expected,
                "{given:?}"
            );
        }
    }
}
