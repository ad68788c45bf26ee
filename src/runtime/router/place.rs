//! Where the index files a matcher: under conditions that are necessary for it, so that a lookup which does not meet
//! them never sees it.
//!
//! The place is computed from the matcher alone, so that removing finds what inserting filed.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::matcher::{Header, Matcher, PathHint, Paths, Ports};
use super::trie::KEY_BYTES_MAX;
use crate::expr::pattern::literal_prefix;
use crate::model::route::NamePattern;

/// The most places that the product of hosts and paths of one matcher may take; beyond that its hosts alone are used.
const PLACES_MAX: usize = 16_384;
/// A literal up to this length (`/`) says nothing about a path; headers and server names tell matchers apart better.
const WEAK_KEY_BYTES: usize = 1;
/// The key of every path.
pub(super) const ANY_PATH: &[u8] = b"";

/// Where a matcher is filed.
#[derive(Debug)]
pub(super) enum Place<'m> {
    /// Under every combination of a host and a path key.
    Hosts {
        hosts: HostKeys<'m>,
        paths: PathKeys<'m>,
    },
    /// Under every path key, whatever the host.
    Paths(PathKeys<'m>),
    /// Under server names, and in the list of those that some protocols excuse from them.
    Snis(Vec<&'m str>),
    /// Under the values of a header, whose name is written with dashes.
    Header { name: String, values: Vec<&'m str> },
}

/// Distinct names, each with the ports that it is wanted with. One is the commonest number, as of [`PathKeys`].
pub(super) type HostKeys<'m> = SmallVec<[(Cow<'m, NamePattern>, Ports); 1]>;
pub(super) type PathKeys<'m> = SmallVec<[PathKey<'m>; 1]>;

/// A literal that the path must start with.
#[derive(Debug)]
pub(super) struct PathKey<'m> {
    pub(super) text: Cow<'m, [u8]>,
    /// What is known about a path that starts with it.
    pub(super) hint: PathHint,
}

impl<'m> Place<'m> {
    pub(super) fn of(matcher: &'m Matcher) -> Self {
        let anchors = matcher
            .expression
            .as_ref()
            .map(|expression| expression.anchors())
            .unwrap_or_default();
        let mut paths = path_keys(&matcher.paths);
        if is_weak(&paths)
            && let Some(literals) = anchors.paths
        {
            paths = shortest(literals);
        }
        let hosts = match (matcher.hosts.is_empty(), anchors.hosts) {
            (false, _) => host_keys(matcher),
            (true, Some(names)) => expression_hosts(names),
            (true, None) => HostKeys::new(),
        };
        if !hosts.is_empty() {
            if hosts.len().saturating_mul(paths.len()) > PLACES_MAX {
                paths = any_path();
            }
            return Self::Hosts { hosts, paths };
        }
        if is_weak(&paths) {
            if let Some(names) = exact_snis(matcher) {
                return Self::Snis(names);
            }
            if let Some((header, values)) = matcher.headers.iter().find_map(plain_header) {
                return Self::Header {
                    name: header.name.replace('_', "-"),
                    values,
                };
            }
        }
        Self::Paths(paths)
    }
}

fn is_weak(paths: &[PathKey<'_>]) -> bool {
    paths.iter().any(|key| key.text.len() <= WEAK_KEY_BYTES)
}

fn any_path<'m>() -> PathKeys<'m> {
    smallvec![PathKey {
        text: Cow::Borrowed(ANY_PATH),
        hint: PathHint::Unknown
    }]
}

fn path_keys(paths: &Paths) -> PathKeys<'_> {
    match paths {
        Paths::Any => smallvec![PathKey {
            text: Cow::Borrowed(ANY_PATH),
            hint: PathHint::Free
        }],
        Paths::Prefixes(texts) if texts.len() <= PLACES_MAX => (0..)
            .zip(texts)
            .map(|(index, text)| prefix_key(index, text))
            .collect(),
        Paths::Prefixes(_) => any_path(),
        // All regexes are tried in order wherever one of them is filed.
        Paths::Regexes(regexes) => shortest(
            regexes
                .iter()
                .map(|regex| literal_prefix(regex.as_str()))
                .collect(),
        ),
    }
}

/// The key of a plain path, cut to fit.
fn prefix_key(index: u32, text: &str) -> PathKey<'_> {
    let text = text.as_bytes();
    match (text.get(..KEY_BYTES_MAX), u32::try_from(text.len())) {
        (None, Ok(length)) => PathKey {
            text: Cow::Borrowed(text),
            hint: PathHint::Holds(length),
        },
        (cut, _) => PathKey {
            text: Cow::Borrowed(cut.unwrap_or(text)),
            hint: PathHint::Candidate(index),
        },
    }
}

/// Keys for literals of which one suffices: those that begin with another one add nothing.
fn shortest<'m>(mut literals: Vec<Vec<u8>>) -> PathKeys<'m> {
    for literal in &mut literals {
        literal.truncate(KEY_BYTES_MAX);
    }
    literals.sort();
    // Sorted, whatever begins with a key follows it directly.
    literals.dedup_by(|later, kept| later.starts_with(kept));
    literals
        .into_iter()
        .map(|text| PathKey {
            text: Cow::Owned(text),
            hint: PathHint::Unknown,
        })
        .collect()
}

fn host_keys(matcher: &Matcher) -> HostKeys<'_> {
    let wanted = |port: Option<u16>| port.map_or(Ports::Any, |port| Ports::These([port].into()));
    if let [host] = &*matcher.hosts {
        return smallvec![(Cow::Borrowed(&host.name), wanted(host.port))];
    }
    let mut sorted: Vec<(&NamePattern, Option<u16>)> = matcher
        .hosts
        .iter()
        .map(|host| (&host.name, host.port))
        .collect();
    sorted.sort_by(|left, right| key_of(left.0).cmp(&key_of(right.0)));
    sorted
        .chunk_by(|left, right| left.0 == right.0)
        .filter_map(|group| {
            let (name, _) = group.first()?;
            let ports: Option<Vec<u16>> = group.iter().map(|(_, port)| *port).collect();
            Some((
                Cow::Borrowed(*name),
                ports.map_or(Ports::Any, |ports| Ports::These(ports.into())),
            ))
        })
        .collect()
}

fn key_of(name: &NamePattern) -> (u8, &str) {
    match name {
        NamePattern::Exact(text) => (0, text),
        NamePattern::Suffix(text) => (1, text),
        NamePattern::Prefix(text) => (2, text),
    }
}

fn expression_hosts<'m>(names: Vec<Vec<u8>>) -> HostKeys<'m> {
    let mut names: Vec<String> = names
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| (Cow::Owned(NamePattern::Exact(name)), Ports::Any))
        .collect()
}

fn exact_snis(matcher: &Matcher) -> Option<Vec<&str>> {
    if matcher.snis.is_empty() {
        return None;
    }
    let names: Option<Vec<&str>> = matcher
        .snis
        .iter()
        .map(|pattern| match pattern {
            NamePattern::Exact(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    names.map(sorted_once)
}

fn plain_header(header: &Header) -> Option<(&Header, Vec<&str>)> {
    Some((header, sorted_once(header.plain_values()?)))
}

fn sorted_once(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names.dedup();
    names
}
