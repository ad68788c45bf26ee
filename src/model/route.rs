//! The matching part of the plan: under which conditions a request takes a route, and which route wins when several
//! match.
//!
//! Plain data without regex objects: the running router links it. A route is described by one or more
//! [`MatcherPlan`]s, because dialects give different parts of one route different precedences. All conditions of a
//! matcher must hold; within one condition one alternative suffices; an empty condition always holds.

use std::cmp::Ordering;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One way to reach a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatcherPlan {
    /// Which matcher wins when several match.
    pub precedence: Precedence,
    /// The protocols that it takes. Default, and when empty: all.
    #[serde(skip_serializing_if = "ProtocolSet::is_empty")]
    pub protocols: ProtocolSet,
    /// Hosts; compared case-sensitively with the `Host` header.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// How [`Self::hosts`] are read.
    #[serde(skip_serializing_if = "is_default")]
    pub host_reading: HostReading,
    /// Headers; every one of them must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderCondition>,
    /// Methods, compared case-sensitively.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths, compared with the normalised path.
    #[serde(skip_serializing_if = "is_default")]
    pub paths: PathCondition,
    /// Server names of the TLS handshake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snis: Vec<NamePattern>,
    /// Protocols in which [`Self::snis`] counts as satisfied. Default: none.
    #[serde(skip_serializing_if = "ProtocolSet::is_empty")]
    pub snis_waived_for: ProtocolSet,
    /// Addresses that the connection may come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<AddressPattern>,
    /// Addresses that the connection may go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<AddressPattern>,
    /// The listener that the request must have come in by, where listeners have names. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrance: Option<String>,
    /// An expression that must hold, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<ExpressionText>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The text of an expression, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpressionText {
    /// The text, in the language of [`crate::expr`].
    pub text: String,
    /// It is about connections and may only use `net.*` and `tls.*`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stream: bool,
}

/// A name, or all names with an ending or a beginning.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// Names that end with this, which starts with a dot: `*.example.com` is `.example.com`.
    Suffix(String),
    /// Names that start with this, which ends with a dot: `example.*` is `example.`.
    Prefix(String),
}

impl NamePattern {
    /// Reads `name`, `*.suffix` or `prefix.*`; an asterisk elsewhere is an ordinary character.
    pub fn parse(text: &str) -> Self {
        if let Some(suffix) = text.strip_prefix('*').filter(|rest| rest.starts_with('.')) {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*').filter(|rest| rest.ends_with('.')) {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    /// True for names with an asterisk.
    pub fn is_wildcard(&self) -> bool {
        !matches!(self, Self::Exact(_))
    }
}

/// A host, and the port where it matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPattern {
    /// The name, without port.
    pub name: NamePattern,
    /// The port that the request must be for. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl HostPattern {
    /// Reads `host` or `host:port`, where the host is as in [`NamePattern::parse`].
    pub fn parse(text: &str) -> Self {
        let (name, port) = split_port(text);
        Self {
            name: NamePattern::parse(name),
            port,
        }
    }
}

/// Splits `host:port`; see [`port_of`].
pub fn split_port(host: &str) -> (&str, Option<u16>) {
    match port_of(host.as_bytes()) {
        Some((name, port)) => (host.get(..name.len()).unwrap_or(host), Some(port)),
        None => (host, None),
    }
}

/// The two halves of `host:port`. What follows the last colon is a port only if it is a number up to 65535 and the colon is
/// not part of a bare IPv6 address.
pub fn port_of(host: &[u8]) -> Option<(&[u8], u16)> {
    let (name, rest) = host.split_at_checked(memchr::memrchr(b':', host)?)?;
    let digits = rest.get(1..)?;
    let bare_address = name.contains(&b':') && !name.ends_with(b"]");
    if name.is_empty() || bare_address || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((name, port))
}

/// The two ways to read host patterns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostReading {
    /// A request without port is for the listening port; the asterisk may stand for nothing.
    #[default]
    ListeningPort,
    /// A request without port is for 443 over TLS and 80 otherwise; the asterisk stands for at least one byte.
    SchemePort,
}

/// A header that must have one of some values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderCondition {
    /// The name, in lower case.
    pub name: String,
    /// `-` and `_` are the same in the name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dashes_alike: bool,
    /// The alternatives, compared with the lower-cased value of each line with that name.
    pub values: Vec<ValuePattern>,
}

/// What a lower-cased header value is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValuePattern {
    /// This value, itself in lower case.
    Plain(String),
    /// A regex that is found somewhere in the value.
    Regex(String),
}

/// What the normalised path must look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathCondition {
    /// Anything.
    #[default]
    Any,
    /// It starts with one of these. Of several that match, the first counts, so dialects group them by length.
    Prefixes(Vec<String>),
    /// One of these regexes is found in it; the first in the list that is gives the matched part and the captures. The
    /// dialect writes the anchors.
    Regexes(Vec<String>),
}

/// An address, a port, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPattern {
    /// The network that holds the address. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpNet>,
    /// The port. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a request or a connection speaks, as far as routes distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP of any version without TLS; gRPC included.
    Http,
    /// HTTP of any version over TLS; gRPC included.
    Https,
    /// A TCP connection without TLS.
    Tcp,
    /// A TLS connection that does not carry HTTP.
    Tls,
    /// UDP datagrams of one peer.
    Udp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 5] = [Self::Http, Self::Https, Self::Tcp, Self::Tls, Self::Udp];

    /// The protocol's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    /// True when the client's side is TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// True for requests, false for connections.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of [`Protocol`]s; serialized as a list. Default: empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Protocol>", into = "Vec<Protocol>")]
pub struct ProtocolSet(u8);

impl ProtocolSet {
    /// True when no protocol is in it.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// True when `protocol` is in it.
    pub fn contains(self, protocol: Protocol) -> bool {
        self.0 & protocol.bit() != 0
    }
}

impl FromIterator<Protocol> for ProtocolSet {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        Self(
            protocols
                .into_iter()
                .fold(0, |bits, protocol| bits | protocol.bit()),
        )
    }
}

impl From<Vec<Protocol>> for ProtocolSet {
    fn from(protocols: Vec<Protocol>) -> Self {
        protocols.into_iter().collect()
    }
}

impl From<ProtocolSet> for Vec<Protocol> {
    fn from(set: ProtocolSet) -> Self {
        Protocol::ALL
            .into_iter()
            .filter(|protocol| set.contains(*protocol))
            .collect()
    }
}

/// Which of several matching matchers wins: the greatest.
///
/// Ordered by `rank`, then `detail`, both as numbers; equals go to the older route (`created_at`), then to the higher
/// `id`, then to the earlier `ordinal` within the route. Only precedences made by one dialect under one flavour compare
/// sensibly, and a router holds no others. What the two numbers hold:
///
/// ```text
/// traditional_compatible, HTTP           rank, 64 bits; detail is 0
/// |63  61|60   |59         52|51   |50             19|18         0|
/// | kinds|plain| header names|regex| regex_priority | path length |
///
/// traditional_compatible, streams        rank; detail is 0
/// |61              |7     4|3          0|
/// |sni, or src+dst |sources|destinations|
///
/// expressions                            rank; detail is 0
/// |63      56|45       0|
/// |   0xFF   | priority |                JSON routes of the same router: as traditional_compatible
///
/// traditional                            rank                                     detail
/// |20     18|17                      11|10     8|7          0|       |63            32|31         0|
/// |  kinds  | host hdr path method sni |submatch|header names|       | regex_priority | path length |
/// |         |           source dest    |        |            |
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Precedence {
    /// Compared first; greater wins.
    pub rank: u64,
    /// Compared second; greater wins.
    #[serde(skip_serializing_if = "is_default")]
    pub detail: u64,
    /// When the route was made, in seconds since 1970; earlier wins. Kong: `route.created_at`.
    pub created_at: i64,
    /// The route; higher wins.
    pub id: Uuid,
    /// Position among the matchers of one route; earlier wins.
    #[serde(skip_serializing_if = "is_default")]
    pub ordinal: u32,
}

impl Ord for Precedence {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.rank, self.detail)
            .cmp(&(other.rank, other.detail))
            .then_with(|| other.created_at.cmp(&self.created_at))
            .then_with(|| self.id.cmp(&other.id))
            .then_with(|| other.ordinal.cmp(&self.ordinal))
    }
}

impl PartialOrd for Precedence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
    fn hosts_and_ports() {
        for (text, name, port) in [
            ("example.com", "example.com", None),
            ("example.com:80", "example.com", Some(80)),
            ("example.com:", "example.com:", None),
            ("example.com:99999", "example.com:99999", None),
            ("example.com:+80", "example.com:+80", None),
            (":80", ":80", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("::1", "::1", None),
            ("", "", None),
        ] {
            assert_eq!(split_port(text), (name, port), "{text}");
        }
        assert_eq!(
            HostPattern::parse("*.a.b:1").name,
            NamePattern::Suffix(".a.b".to_owned())
        );
        assert_eq!(
            HostPattern::parse("a.*").name,
            NamePattern::Prefix("a.".to_owned())
        );
        assert_eq!(
            HostPattern::parse("*").name,
            NamePattern::Exact("*".to_owned())
        );
    }

    #[test]
    fn greatest_precedence() {
        let base = Precedence {
            rank: 1,
            detail: 1,
            created_at: 5,
            id: Uuid::from_u128(5),
            ordinal: 5,
        };
        for greater in [
            Precedence {
                rank: 2,
                detail: 0,
                ..base
            },
            Precedence {
                detail: 2,
                created_at: 9,
                ..base
            },
            Precedence {
                created_at: 4,
                id: Uuid::from_u128(1),
                ..base
            },
            Precedence {
                id: Uuid::from_u128(6),
                ordinal: 9,
                ..base
            },
            Precedence { ordinal: 4, ..base },
        ] {
            assert!(greater > base, "{greater:?}");
        }
    }

    #[test]
    fn plans_survive_serialization() {
        let plan = MatcherPlan {
            protocols: ProtocolSet::from_iter([Protocol::Https]),
            hosts: vec![HostPattern::parse("*.example.com:8443")],
            paths: PathCondition::Prefixes(vec!["/a".to_owned()]),
            snis: vec![NamePattern::parse("a.test")],
            snis_waived_for: ProtocolSet::from_iter([Protocol::Http]),
            ..MatcherPlan::default()
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(
            serde_json::from_str::<MatcherPlan>(&text).unwrap(),
            plan,
            "{text}"
        );
        let empty = serde_json::to_value(MatcherPlan::default()).unwrap();
        assert_eq!(
            serde_json::from_value::<MatcherPlan>(empty).unwrap(),
            MatcherPlan::default()
        );
    }
}
