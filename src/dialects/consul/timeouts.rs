//! How long the way to an upstream may take, as the resolvers of its discovery chain have it.

use std::time::Duration;

use serde_json::Value;

use super::chain::DiscoveryChain;
use super::duration::timeout_of;
use super::walk;

/// Resolution, connection and handshake, where nobody names a limit: as Consul's own proxy has it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence of an upstream, where nobody names one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What a resolver (Consul: `service-resolver`) says of time, and the defaults for what it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolverTimeouts {
    /// Resolution, connection and handshake. Consul: `ConnectTimeout`.
    pub connect: Duration,
    /// The longest silence before and within an answer. Consul: `RequestTimeout`.
    pub request: Duration,
}

impl Default for ResolverTimeouts {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            request: REQUEST_TIMEOUT,
        }
    }
}

impl ResolverTimeouts {
    /// Those of a resolver of this chain. One that Consul made up, because nobody wrote one, says nothing.
    ///
    /// # Errors
    /// There is no such resolver, or a field is not a duration.
    pub fn of(chain: &DiscoveryChain, name: &str) -> Result<Self, String> {
        let resolver = walk::resolver(chain, name)?;
        let mut timeouts = Self::default();
        if resolver.default {
            return Ok(timeouts);
        }
        let read = |field: &str, value: &Option<Value>| {
            timeout_of(field, value.as_ref()).map_err(|what| {
                format!("the resolver '{name}' of '{}': {what}", chain.service_name)
            })
        };
        if let Some(connect) = read("ConnectTimeout", &resolver.connect_timeout)? {
            timeouts.connect = connect;
        }
        if let Some(request) = read("RequestTimeout", &resolver.request_timeout)? {
            timeouts.request = request;
        }
        Ok(timeouts)
    }

    /// For traffic that goes to one of several: nobody is cut short who was promised more.
    pub fn of_all<'a>(
        chain: &DiscoveryChain,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let each = names.into_iter().map(|name| Self::of(chain, name));
        let longest = each.reduce(|one, other| {
            let (one, other) = (one?, other?);
            Ok(Self {
                connect: one.connect.max(other.connect),
                request: one.request.max(other.request),
            })
        });
        longest.unwrap_or_else(|| Ok(Self::default()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chain(resolver: &str) -> DiscoveryChain {
        let text = format!(
            r#"{{"ServiceName":"db","Nodes":{{"a":{{"Type":"resolver","Resolver":{resolver}}},
                "b":{{"Type":"resolver","Resolver":{{"ConnectTimeout":"3s","RequestTimeout":"90s"}}}},
                "c":{{"Type":"router"}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn of(resolver: &str) -> (u64, u64) {
        let timeouts = ResolverTimeouts::of(&chain(resolver), "a").unwrap();
        (timeouts.connect.as_secs(), timeouts.request.as_secs())
    }

    #[test]
    fn what_nobody_wrote_is_as_consuls_own_proxy_has_it() {
        assert_eq!(of("{}"), (10, 60));
        assert_eq!(of(r#"{"ConnectTimeout":"5s","Default":true}"#), (10, 60));
        assert_eq!(
            of(r#"{"ConnectTimeout":"0s","RequestTimeout":0}"#),
            (10, 60)
        );
        assert_eq!(of(r#"{"ConnectTimeout":"5s"}"#), (5, 60));
        assert_eq!(of(r#"{"RequestTimeout":"2m"}"#), (10, 120));
    }

    #[test]
    fn of_several_the_longest_counts() {
        let chain = chain(r#"{"ConnectTimeout":"30s","RequestTimeout":"9s"}"#);
        let all = ResolverTimeouts::of_all(&chain, ["a", "b"]).unwrap();
        let (connect, request) = (Duration::from_secs(30), Duration::from_secs(90));
        assert_eq!(all, ResolverTimeouts { connect, request });
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let chain = chain(r#"{"RequestTimeout":"soon"}"#);
        let wrong = ResolverTimeouts::of_all(&chain, ["b", "a"]).unwrap_err();
        let expected = r#"the resolver 'a' of 'db': RequestTimeout "soon" is not a duration"#;
        assert_eq!(wrong, expected);
        for name in ["c", "d"] {
            assert!(ResolverTimeouts::of(&chain, name).is_err(), "{name}");
        }
    }
}
