//! What a route matches: a [`Route`] becomes [`MatcherPlan`]s under one of the three router flavours.
//!
//! Owns Kong's matching quirks and its precedence numbers, so that the router below needs to know neither. Of the
//! precedence it computes what Kong calls `strict`: the documented bit layout, without the overflow of the open build.
//! Start with [`compile_matchers`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dialects::kong::entities::{
    AddressMatch, Protocol as RouteProtocol, Route, RouterFlavor,
};
use crate::model::route::{
    AddressPattern, ExpressionText, HeaderCondition, HostPattern, HostReading, MatcherPlan,
    NamePattern, PathCondition, Precedence, Protocol, ProtocolSet, ValuePattern,
};
use crate::model::{Diagnostic, SourceRef};

/// Compiles what a route matches. The route as a whole is refused when a part of it cannot be expressed: a route that
/// ignored a condition would take requests that are not meant for it.
pub fn compile_matchers(
    route: &Route,
    flavor: RouterFlavor,
) -> Result<Vec<MatcherPlan>, Diagnostic> {
    let stream = is_stream(route);
    if flavor == RouterFlavor::Expressions
        && let Some(text) = route.expression.as_deref()
    {
        let plan = MatcherPlan {
            precedence: precedence(route, EXPRESSIONS_FIRST | route.priority.unwrap_or(0), 0, 0),
            protocols: protocols_asked_for(route, flavor),
            expression: Some(ExpressionText {
                text: text.to_owned(),
                stream,
            }),
            ..MatcherPlan::default()
        };
        return Ok(vec![plan]);
    }
    let common = MatcherPlan {
        protocols: protocols_asked_for(route, flavor),
        hosts: list(&route.hosts)
            .iter()
            .map(|host| HostPattern::parse(host))
            .collect(),
        host_reading: match flavor {
            RouterFlavor::Traditional => HostReading::SchemePort,
            _ => HostReading::ListeningPort,
        },
        headers: headers(route, flavor),
        methods: list(&route.methods).to_vec(),
        snis: snis(route, flavor)?,
        snis_waived_for: snis_waived_for(route, flavor),
        sources: addresses(route, "sources", &route.sources)?,
        destinations: addresses(route, "destinations", &route.destinations)?,
        ..MatcherPlan::default()
    };
    Ok(match flavor {
        RouterFlavor::Traditional => traditional(route, &common),
        _ if stream => vec![MatcherPlan {
            precedence: precedence(route, stream_rank(route), 0, 0),
            ..common
        }],
        _ => compatible(route, &common),
    })
}

/// The top byte of an expression's rank: it beats every route that is written in fields.
const EXPRESSIONS_FIRST: u64 = 0xFF << 56;
/// Precedences count at most this many header names.
const HEADER_NAMES_MAX: usize = 255;
/// Precedences distinguish plain paths up to this length: 19 bits.
const PATH_LENGTH_MAX: usize = (1 << 19) - 1;

fn precedence(route: &Route, rank: u64, detail: u64, ordinal: usize) -> Precedence {
    Precedence {
        rank,
        detail,
        created_at: route.created_at,
        id: route.id,
        ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
    }
}

/// `traditional_compatible`: one matcher for the regex paths, one for the plain paths of each length.
fn compatible(route: &Route, common: &MatcherPlan) -> Vec<MatcherPlan> {
    let regexes: Vec<String> = list(&route.paths)
        .iter()
        .filter_map(|path| path.strip_prefix('~'))
        .map(compatible_regex)
        .collect();
    let mut by_length: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for path in list(&route.paths)
        .iter()
        .filter(|path| !path.starts_with('~'))
    {
        by_length.entry(path.len()).or_default().push(path.clone());
    }
    let base = kinds(route).number() << 61
        | u64::from(has_only_plain_hosts(route)) << 60
        | bounded(common.headers.len(), HEADER_NAMES_MAX) << 52;
    let mut groups = Vec::new();
    if !regexes.is_empty() {
        groups.push((
            base | 1 << 51 | u64::from(regex_priority(route)) << 19,
            PathCondition::Regexes(regexes),
        ));
    }
    for (length, paths) in by_length.into_iter().rev() {
        groups.push((
            base | bounded(length, PATH_LENGTH_MAX),
            PathCondition::Prefixes(paths),
        ));
    }
    if groups.is_empty() {
        groups.push((base, PathCondition::Any));
    }
    groups
        .into_iter()
        .enumerate()
        .map(|(ordinal, (rank, paths))| MatcherPlan {
            precedence: precedence(route, rank, 0, ordinal),
            paths,
            ..common.clone()
        })
        .collect()
}

/// The anchor stands in front of the text as it is: in `/a|/b` only the first alternative is anchored, as in Kong. The
/// named groups are rewritten wherever `?<` occurs, as Kong does it.
fn compatible_regex(text: &str) -> String {
    format!("^{}", text.replace("?<", "?P<"))
}

/// `traditional`: one matcher for every path.
fn traditional(route: &Route, common: &MatcherPlan) -> Vec<MatcherPlan> {
    let kinds = kinds(route);
    let hosts = &common.hosts;
    let mut submatch = 0;
    if hosts
        .iter()
        .any(|host| host.name.is_wildcard() && host.port.is_some())
    {
        submatch |= 4;
    }
    if has_only_plain_hosts(route) {
        submatch |= 2;
    }
    let rank = |submatch: u64| {
        kinds.number() << 18
            | kinds.bits() << 11
            | submatch << 8
            | bounded(common.headers.len(), HEADER_NAMES_MAX)
    };
    let matcher = |ordinal: usize, path: &str| match path.strip_prefix('~') {
        Some(regex) => MatcherPlan {
            precedence: precedence(
                route,
                rank(submatch | 1),
                u64::from(regex_priority(route)) << 32,
                ordinal,
            ),
            paths: PathCondition::Regexes(vec![format!("{}^(?:{regex})", ascii_flag(regex))]),
            ..common.clone()
        },
        None => MatcherPlan {
            precedence: precedence(
                route,
                rank(submatch),
                bounded(path.len(), PATH_LENGTH_MAX),
                ordinal,
            ),
            paths: PathCondition::Prefixes(vec![path.to_owned()]),
            ..common.clone()
        },
    };
    match list(&route.paths) {
        [] => vec![MatcherPlan {
            precedence: precedence(route, rank(submatch), 0, 0),
            ..common.clone()
        }],
        paths => paths
            .iter()
            .enumerate()
            .map(|(ordinal, path)| matcher(ordinal, path))
            .collect(),
    }
}

/// PCRE's classes know ASCII only, and its dot takes any byte. Patterns that name other characters need the flag off.
fn ascii_flag(regex: &str) -> &'static str {
    let names_others = !regex.is_ascii()
        || ["\\p", "\\P", "\\x", "\\u", "\\U"]
            .iter()
            .any(|word| regex.contains(word));
    if names_others { "" } else { "(?-u)" }
}

/// The kinds of attribute that a route uses.
#[derive(Clone, Copy)]
struct Kinds {
    hosts: bool,
    headers: bool,
    paths: bool,
    methods: bool,
    snis: bool,
    sources: bool,
    destinations: bool,
}

fn kinds(route: &Route) -> Kinds {
    Kinds {
        hosts: !list(&route.hosts).is_empty(),
        headers: given_headers(route).next().is_some(),
        paths: !list(&route.paths).is_empty(),
        methods: !list(&route.methods).is_empty(),
        snis: !list(&route.snis).is_empty(),
        sources: !list(&route.sources).is_empty(),
        destinations: !list(&route.destinations).is_empty(),
    }
}

impl Kinds {
    /// The `traditional` category: among routes with equally many kinds, hosts beat headers beat paths and so on.
    fn bits(self) -> u64 {
        [
            self.hosts,
            self.headers,
            self.paths,
            self.methods,
            self.snis,
            self.sources,
            self.destinations,
        ]
        .into_iter()
        .fold(0, |bits, present| bits << 1 | u64::from(present))
    }

    fn number(self) -> u64 {
        u64::from(self.bits().count_ones())
    }
}

/// The rank of a stream route: server name, or both ends; then how precisely the ends are named.
fn stream_rank(route: &Route) -> u64 {
    let kinds = kinds(route);
    let precision = |ends: &[AddressMatch]| {
        ends.iter().fold(0, |bits, end| {
            let address = match &end.ip {
                None => 0,
                Some(ip) if ip.contains('/') => 1,
                Some(_) => 8,
            };
            bits | address | if end.port.is_some() { 4 } else { 0 }
        })
    };
    u64::from(kinds.snis || (kinds.sources && kinds.destinations)) << 61
        | precision(list(&route.sources)) << 4
        | precision(list(&route.destinations))
}

/// `regex_priority` in 32 bits, in its own order: it may be negative.
fn regex_priority(route: &Route) -> u32 {
    let low = i64::from(i32::MIN);
    let priority = route
        .regex_priority
        .unwrap_or(0)
        .clamp(low, i64::from(i32::MAX));
    u32::try_from(priority - low).unwrap_or(u32::MAX)
}

fn bounded(number: usize, max: usize) -> u64 {
    u64::try_from(number.min(max)).unwrap_or(u64::MAX)
}

fn has_only_plain_hosts(route: &Route) -> bool {
    let hosts = list(&route.hosts);
    !hosts.is_empty() && !hosts.iter().any(|host| host.contains('*'))
}

fn list<T>(values: &Option<Vec<T>>) -> &[T] {
    values.as_deref().unwrap_or_default()
}

/// Header conditions; a name without values is none.
fn given_headers(route: &Route) -> impl Iterator<Item = (&String, &Vec<String>)> {
    route
        .headers
        .iter()
        .flatten()
        .filter(|(_, values)| !values.is_empty())
}

fn headers(route: &Route, flavor: RouterFlavor) -> Vec<HeaderCondition> {
    let traditional = flavor == RouterFlavor::Traditional;
    given_headers(route)
        .map(|(name, values)| HeaderCondition {
            name: name.to_ascii_lowercase(),
            dashes_alike: !traditional,
            values: values
                .iter()
                .map(|value| match value.strip_prefix("~*") {
                    Some(regex) if !traditional => ValuePattern::Regex(regex.to_lowercase()),
                    Some(regex) if values.len() == 1 => {
                        ValuePattern::Regex(format!("{}{regex}", ascii_flag(regex)))
                    }
                    _ => ValuePattern::Plain(value.to_lowercase()),
                })
                .collect(),
        })
        .collect()
}

fn snis(route: &Route, flavor: RouterFlavor) -> Result<Vec<NamePattern>, Diagnostic> {
    list(&route.snis)
        .iter()
        .map(|sni| {
            let pattern = NamePattern::parse(sni.strip_suffix('.').unwrap_or(sni));
            match flavor {
                RouterFlavor::Traditional if pattern.is_wildcard() => Err(problem(
                    route,
                    "wildcard-sni",
                    format!("'snis' has the wildcard name '{sni}', which the router flavour 'traditional' cannot match"),
                )
                .with_hint("use a plain name, or the router flavour 'traditional_compatible'")),
                _ => Ok(pattern),
            }
        })
        .collect()
}

/// Where there is no handshake to ask, a route that also takes plain text is not held to its server names.
fn snis_waived_for(route: &Route, flavor: RouterFlavor) -> ProtocolSet {
    let only = |protocols: &[RouteProtocol]| {
        route
            .protocols
            .iter()
            .all(|protocol| protocols.contains(protocol))
    };
    if list(&route.snis).is_empty() {
        return ProtocolSet::default();
    }
    match flavor {
        _ if is_stream(route) => match flavor {
            RouterFlavor::Traditional => ProtocolSet::default(),
            _ if only(&[RouteProtocol::Tls, RouteProtocol::TlsPassthrough]) => {
                ProtocolSet::default()
            }
            _ => ProtocolSet::from_iter([Protocol::Tcp, Protocol::Udp]),
        },
        RouterFlavor::Traditional => ProtocolSet::from_iter([Protocol::Http]),
        _ if only(&[RouteProtocol::Https]) || only(&[RouteProtocol::Wss]) => ProtocolSet::default(),
        _ => ProtocolSet::from_iter([Protocol::Http]),
    }
}

fn addresses(
    route: &Route,
    field: &str,
    given: &Option<Vec<AddressMatch>>,
) -> Result<Vec<AddressPattern>, Diagnostic> {
    list(given)
        .iter()
        .map(|end| {
            let network = match end.ip.as_deref() {
                None => None,
                Some(ip) => Some(network(ip).ok_or_else(|| {
                    problem(
                        route,
                        "invalid-address",
                        format!("'{field}' has '{ip}', which is no address or range"),
                    )
                    .with_hint("an IPv4 or IPv6 address, or a range like 10.0.0.0/8")
                })?),
            };
            Ok(AddressPattern {
                network,
                port: end.port,
            })
        })
        .collect()
}

fn network(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse::<IpNet>().ok().map(|network| network.trunc()),
        false => text
            .parse::<IpAddr>()
            .ok()
            .map(|address| IpNet::from(address.to_canonical())),
    }
}

/// Streams are told apart by whether they begin with TLS. Of requests only the flavour `expressions` checks the protocol
/// while matching, but for routes of one secure protocol only: those take plain text too, and answer it with an upgrade
/// or a redirect.
fn protocols_asked_for(route: &Route, flavor: RouterFlavor) -> ProtocolSet {
    match (flavor, route.protocols.as_slice()) {
        (_, protocols) if is_stream(route) => protocols.iter().map(|p| spoken(*p)).collect(),
        (RouterFlavor::Traditional | RouterFlavor::TraditionalCompatible, _)
        | (_, [RouteProtocol::Https | RouteProtocol::Wss]) => ProtocolSet::default(),
        (_, protocols) => protocols.iter().map(|p| spoken(*p)).collect(),
    }
}

fn spoken(protocol: RouteProtocol) -> Protocol {
    match protocol {
        RouteProtocol::Http | RouteProtocol::Grpc | RouteProtocol::Ws => Protocol::Http,
        RouteProtocol::Https | RouteProtocol::Grpcs | RouteProtocol::Wss => Protocol::Https,
        RouteProtocol::Tcp => Protocol::Tcp,
        RouteProtocol::Tls | RouteProtocol::TlsPassthrough => Protocol::Tls,
        RouteProtocol::Udp => Protocol::Udp,
    }
}

fn is_stream(route: &Route) -> bool {
    super::pipeline::is_stream(&route.protocols)
}

fn problem(route: &Route, code: &'static str, message: String) -> Diagnostic {
    let subject = match &route.name {
        Some(name) => format!("route \"{name}\""),
        None => format!("route {}", route.id),
    };
    Diagnostic::error(code, SourceRef::subject(subject), message)
}

#[cfg(test)]
mod tests;
