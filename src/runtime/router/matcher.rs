//! A matcher, linked: its regexes compiled, its conditions in the order in which they are cheap to refuse.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderName;
use smallvec::SmallVec;

use super::input::View;
use crate::expr::pattern::{self, Pattern};
use crate::expr::{Expression, ParseError, Scope, lowered};
use crate::model::route::{
    AddressPattern, HeaderCondition, HostPattern, HostReading, MatcherPlan, NamePattern,
    PathCondition, Precedence, ProtocolSet, ValuePattern,
};

/// Why a matcher of the plan cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A regex for a path does not compile.
    #[error("invalid path regex '{pattern}': {reason}")]
    PathRegex {
        /// The regex as the plan has it.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A regex for a header value does not compile.
    #[error("invalid regex '{pattern}' for the header '{header}': {reason}")]
    HeaderRegex {
        /// The header's name.
        header: String,
        /// The regex as the plan has it.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header name that no request can have.
    #[error("'{0}' is not a header name")]
    HeaderName(String),
    /// An expression does not parse.
    #[error("invalid expression: {0}")]
    Expression(ParseError),
}

/// A linked matcher.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) slot: u32,
    pub(super) precedence: Precedence,
    pub(super) hosts: Box<[HostPattern]>,
    pub(super) snis: Box<[NamePattern]>,
    pub(super) snis_waived_for: ProtocolSet,
    pub(super) headers: Box<[Header]>,
    pub(super) paths: Paths,
    pub(super) expression: Option<Box<Expression>>,
    protocols: ProtocolSet,
    host_reading: HostReading,
    methods: Box<[Box<str>]>,
    sources: Box<[AddressPattern]>,
    destinations: Box<[AddressPattern]>,
    entrance: Option<Box<str>>,
}

/// A linked header condition.
#[derive(Debug)]
pub(super) struct Header {
    /// In lower case; with dashes where [`Self::alike`].
    pub(super) name: Box<str>,
    pub(super) alike: bool,
    values: Box<[Value]>,
}

#[derive(Debug)]
enum Value {
    Plain(Box<str>),
    Regex(Pattern),
}

/// Linked path conditions.
#[derive(Debug)]
pub(super) enum Paths {
    Any,
    /// One is by far the commonest number.
    Prefixes(SmallVec<[Box<str>; 1]>),
    Regexes(Box<[Arc<Pattern>]>),
}

/// A matcher where the index files it, with what the place already tells about it. It says enough to answer the
/// commonest lookups without a look at the matcher, which is one cache miss less.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    matcher: Arc<Matcher>,
    pub(super) slot: u32,
    path: PathHint,
    ports: Ports,
    /// The matcher asks for nothing but hosts and paths.
    bare: bool,
}

/// Candidates of one place, best first.
pub(super) type EntryList = SmallVec<[Entry; 1]>;

/// What a place tells about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathHint {
    /// The matcher has no path condition.
    Free,
    /// It has, and all of it must be looked at.
    Unknown,
    /// The prefix with this number is the only one that can hold.
    Candidate(u32),
    /// A prefix of this length holds.
    Holds(u32),
}

/// The ports of the host patterns that led to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    Any,
    These(Arc<[u16]>),
}

/// What of the path a matcher matched.
#[derive(Debug, Clone, Default)]
pub(super) struct Found<'r> {
    /// How many bytes, where a path was asked for.
    pub(super) length: Option<usize>,
    pub(super) regex: Option<&'r Arc<Pattern>>,
    /// The regex saw the lower-cased path.
    pub(super) lower: bool,
}

impl Matcher {
    pub(super) fn link(slot: u32, plan: &MatcherPlan) -> Result<Self, LinkError> {
        let expression = match &plan.expression {
            None => None,
            Some(expression) => {
                let scope = if expression.stream {
                    Scope::Stream
                } else {
                    Scope::Http
                };
                let parsed =
                    Expression::parse(&expression.text, scope).map_err(LinkError::Expression)?;
                Some(Box::new(parsed))
            }
        };
        Ok(Self {
            slot,
            precedence: plan.precedence,
            hosts: plan.hosts.clone().into(),
            snis: plan.snis.clone().into(),
            snis_waived_for: plan.snis_waived_for,
            headers: plan
                .headers
                .iter()
                .map(link_header)
                .collect::<Result<_, _>>()?,
            paths: link_paths(&plan.paths)?,
            expression,
            protocols: plan.protocols,
            host_reading: plan.host_reading,
            methods: plan
                .methods
                .iter()
                .map(|method| method.as_str().into())
                .collect(),
            sources: plan.sources.clone().into(),
            destinations: plan.destinations.clone().into(),
            entrance: plan.entrance.as_deref().map(Into::into),
        })
    }

    /// It asks for nothing but hosts and paths.
    fn is_bare(&self) -> bool {
        self.protocols.is_empty()
            && self.methods.is_empty()
            && self.snis.is_empty()
            && self.headers.is_empty()
            && self.sources.is_empty()
            && self.destinations.is_empty()
            && self.entrance.is_none()
            && self.expression.is_none()
    }

    fn snis_hold(&self, view: &View<'_>) -> bool {
        if self.snis.is_empty() || self.snis_waived_for.contains(view.input.protocol) {
            return true;
        }
        let Some(sni) = view.input.sni else {
            return false;
        };
        self.snis.iter().any(|pattern| match pattern {
            NamePattern::Exact(name) => name == sni,
            NamePattern::Suffix(suffix) => sni.ends_with(suffix.as_str()),
            NamePattern::Prefix(prefix) => sni.starts_with(prefix.as_str()),
        })
    }
}

fn link_header(condition: &HeaderCondition) -> Result<Header, LinkError> {
    let mut name = condition.name.to_ascii_lowercase();
    if HeaderName::from_lowercase(name.as_bytes()).is_err() {
        return Err(LinkError::HeaderName(name));
    }
    if condition.dashes_alike {
        name = name.replace('_', "-");
    }
    let values = condition
        .values
        .iter()
        .map(|value| match value {
            ValuePattern::Plain(text) => Ok(Value::Plain(text.as_str().into())),
            ValuePattern::Regex(text) => {
                pattern::compile(text)
                    .map(Value::Regex)
                    .map_err(|reason| LinkError::HeaderRegex {
                        header: condition.name.clone(),
                        pattern: text.clone(),
                        reason,
                    })
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Header {
        name: name.into(),
        alike: condition.dashes_alike,
        values,
    })
}

fn link_paths(condition: &PathCondition) -> Result<Paths, LinkError> {
    let link_regex = |text: &String| {
        pattern::compile(text)
            .map(Arc::new)
            .map_err(|reason| LinkError::PathRegex {
                pattern: text.clone(),
                reason,
            })
    };
    Ok(match condition {
        PathCondition::Any => Paths::Any,
        PathCondition::Prefixes(texts) => {
            Paths::Prefixes(texts.iter().map(|text| text.as_str().into()).collect())
        }
        PathCondition::Regexes(patterns) => {
            Paths::Regexes(patterns.iter().map(link_regex).collect::<Result<_, _>>()?)
        }
    })
}

impl Entry {
    pub(super) fn new(matcher: &Arc<Matcher>, path: PathHint, ports: Ports) -> Self {
        Self {
            matcher: Arc::clone(matcher),
            slot: matcher.slot,
            path,
            ports,
            bare: matcher.is_bare(),
        }
    }

    /// The total order of the router: greater precedence first, then the lower slot.
    pub(super) fn beats(&self, other: &Self) -> bool {
        (&self.matcher.precedence, Reverse(self.slot))
            > (&other.matcher.precedence, Reverse(other.slot))
    }

    /// Checks every condition but the host's name, which led to this entry. `star_is_empty` says that it did so by an
    /// asterisk that stands for nothing.
    pub(super) fn holds<'r>(&'r self, view: &View<'_>, star_is_empty: bool) -> Option<Found<'r>> {
        let input = view.input;
        if self.bare && self.ports == Ports::Any && !star_is_empty {
            return self.path_found(input.path);
        }
        let matcher = &*self.matcher;
        let elsewhere =
            || matcher.entrance.is_some() && matcher.entrance.as_deref() != input.entrance;
        let refused = elsewhere()
            || (!matcher.protocols.is_empty() && !matcher.protocols.contains(input.protocol))
            || (star_is_empty && matcher.host_reading == HostReading::SchemePort)
            || !self.ports.hold(view.port(matcher.host_reading))
            || (!matcher.methods.is_empty()
                && !matcher
                    .methods
                    .iter()
                    .any(|method| **method == *input.method))
            || !matcher.snis_hold(view)
            || !addresses_hold(&matcher.sources, || view.source())
            || !addresses_hold(&matcher.destinations, || view.destination())
            || !matcher.headers.iter().all(|header| header.holds(view));
        if refused {
            return None;
        }
        let found = self.path_found(input.path)?;
        match &matcher.expression {
            None => Some(found),
            Some(expression) => Some(match expression.matches(view)? {
                Some(path) => Found {
                    length: Some(path.range.len()),
                    regex: path.regex,
                    lower: path.lower,
                },
                None => found,
            }),
        }
    }

    fn path_found(&self, path: &[u8]) -> Option<Found<'_>> {
        let prefix_found = |length: usize| Found {
            length: Some(length),
            ..Found::default()
        };
        let begins = |prefix: &str| path.starts_with(prefix.as_bytes());
        match (self.path, &self.matcher.paths) {
            (PathHint::Free, _) | (_, Paths::Any) => Some(Found::default()),
            (PathHint::Holds(length), _) => Some(prefix_found(usize::try_from(length).ok()?)),
            (PathHint::Candidate(index), Paths::Prefixes(prefixes)) => {
                let prefix = prefixes.get(usize::try_from(index).ok()?)?;
                begins(prefix).then(|| prefix_found(prefix.len()))
            }
            (_, Paths::Prefixes(prefixes)) => prefixes
                .iter()
                .find(|prefix| begins(prefix))
                .map(|prefix| prefix_found(prefix.len())),
            (_, Paths::Regexes(regexes)) => regexes.iter().find_map(|regex| {
                let length = regex.find(path)?.len();
                Some(Found {
                    length: Some(length),
                    regex: Some(regex),
                    lower: false,
                })
            }),
        }
    }
}

impl Ports {
    fn hold(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

impl Header {
    fn holds(&self, view: &View<'_>) -> bool {
        let mut held = false;
        let _ = view.each_header(&self.name, self.alike, &mut |value| {
            held = lowered(value, |value| {
                self.values.iter().any(|pattern| pattern.holds(value))
            });
            if held {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        held
    }

    /// Its alternatives, if none of them is a regex.
    pub(super) fn plain_values(&self) -> Option<Vec<&str>> {
        self.values
            .iter()
            .map(|value| match value {
                Value::Plain(text) => Some(&**text),
                Value::Regex(_) => None,
            })
            .collect()
    }
}

impl Value {
    fn holds(&self, lowered: &[u8]) -> bool {
        match self {
            Self::Plain(text) => text.as_bytes() == lowered,
            Self::Regex(regex) => regex.is_match(lowered),
        }
    }
}

fn addresses_hold(
    patterns: &[AddressPattern],
    address: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let Some(address) = address() else {
        return false;
    };
    patterns.iter().any(|pattern| {
        pattern
            .network
            .is_none_or(|network| network.contains(&address.ip()))
            && pattern.port.is_none_or(|port| port == address.port())
    })
}
