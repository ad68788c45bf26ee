//! `ResponseCache`: answers from a cache instead of asking the target. One policy, attached in a request flow and in a
//! response flow.

use serde::{Deserialize, Serialize};

use super::caching::{Expiry, Place, check_lookup_timeout, read_expiry, read_place};
use super::texts::place as at;
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::condition::Condition;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub place: Place,
    #[serde(default)]
    pub expiry: Expiry,
    /// Only responses with a status from 200 to 205 are kept.
    pub excludes_errors: bool,
    /// A condition; where it holds nothing is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_lookup: Option<String>,
    /// A condition; where it holds nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_population: Option<String>,
    /// Requests that accept other things have other entries.
    pub uses_accept_headers: bool,
    /// `Cache-Control` and `Expires` of the response count.
    pub uses_response_headers: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let place = read_place(reader);
    let expiry = read_expiry(&mut reader.fields, reader.findings);
    check_lookup_timeout(&mut reader.fields, reader.findings);
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let mut condition = |name| {
        let element = fields.child(name, findings)?;
        let text = element.text();
        if text.is_empty() {
            return None;
        }
        if let Err(error) = Condition::parse(&text) {
            let message = format!("the condition cannot be read: {error}");
            findings.error("condition", at(element), message);
        }
        Some(text.into_owned())
    };
    let skip_lookup = condition("SkipCacheLookup");
    let skip_population = condition("SkipCachePopulation");
    let mut flag = |name| fields.boolean(name, false, findings);
    let (excludes_errors, uses_accept_headers, uses_response_headers) = (
        flag("ExcludeErrorResponse"),
        flag("UseAcceptHeader"),
        flag("UseResponseCacheHeaders"),
    );
    let (place, named) = place?;
    let config = Config {
        place,
        expiry,
        excludes_errors,
        skip_lookup,
        skip_population,
        uses_accept_headers,
        uses_response_headers,
    };
    let parsed = reader.parsed(&config)?.with_cache(named);
    Some(parsed.with_bodies(Bodies::RESPONSE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn reads_options_and_holds_the_response() {
        let (config, findings, bodies) = read::<Config>(
            "<ResponseCache name='r'><CacheKey><KeyFragment ref='request.uri'/></CacheKey>\
             <ExpirySettings><TimeoutInSeconds ref='ttl'>60</TimeoutInSeconds></ExpirySettings>\
             <SkipCacheLookup>request.header.fresh = \"1\"</SkipCacheLookup><SkipCachePopulation/>\
             <ExcludeErrorResponse>true</ExcludeErrorResponse><UseAcceptHeader>true</UseAcceptHeader>\
             </ResponseCache>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert!(config.excludes_errors && config.uses_accept_headers);
        assert!(!config.uses_response_headers);
        assert!(config.skip_lookup.is_some() && config.skip_population.is_none());
        assert!(bodies.response && !bodies.request);
        let (_, findings, _) = read::<Config>(
            "<ResponseCache name='r'><CacheKey/><SkipCacheLookup>a = = b</SkipCacheLookup></ResponseCache>",
        );
        assert!(findings.iter().any(|one| one.is_error()));
    }
}
