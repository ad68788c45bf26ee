//! Where the index files a matcher: under conditions that are necessary for it, so that a lookup which does not meet
//! them never sees it.
//!
//! The place is computed from the matcher alone, so that removing finds what inserting filed.

use crate::expr::pattern::literal_prefix;
use crate::model::route::NamePattern;

use super::matcher::{ALL_PREFIXES, Header, Matcher, Paths, Ports};
use super::trie::KEY_BYTES_MAX;

/// The most places that the product of hosts and paths of one matcher may take; beyond that its hosts alone are used.
const PLACES_MAX: usize = 16_384;
/// A literal up to this length (`/`) says nothing about a path; headers and server names tell matchers apart better.
const WEAK_KEY_BYTES: usize = 1;

/// Where a matcher is filed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under every combination of a host and a path key.
    Hosts {
        hosts: Vec<(NamePattern, Ports)>,
        paths: Vec<PathKey>,
    },
    /// Under every path key, whatever the host.
    Paths(Vec<PathKey>),
    /// Under server names, and in the list of those that some protocols excuse from them.
    Snis(Vec<String>),
    /// Under the values of a header, whose name is written with dashes.
    Header { name: String, values: Vec<String> },
}

/// A literal that the path must start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathKey {
    pub(super) text: Vec<u8>,
    /// See [`super::matcher::Entry::prefix`].
    pub(super) prefix: u32,
}

impl PathKey {
    fn new(text: &[u8], prefix: u32) -> Self {
        Self {
            text: text.get(..KEY_BYTES_MAX).unwrap_or(text).to_vec(),
            prefix,
        }
    }

    /// The key of every path.
    pub(super) fn any() -> Self {
        Self::new(b"", ALL_PREFIXES)
    }
}

impl Place {
    pub(super) fn of(matcher: &Matcher) -> Self {
        let anchors = matcher
            .expression
            .as_ref()
            .map(|expression| expression.anchors())
            .unwrap_or_default();
        let mut paths = path_keys(&matcher.paths);
        if is_weak(&paths)
            && let Some(literals) = &anchors.paths
        {
            paths = shortest(literals.iter().map(Vec::as_slice));
        }
        let hosts = match (matcher.hosts.is_empty(), anchors.hosts) {
            (false, _) => host_keys(matcher),
            (true, Some(names)) => expression_hosts(names),
            (true, None) => Vec::new(),
        };
        if !hosts.is_empty() {
            if hosts.len().saturating_mul(paths.len()) > PLACES_MAX {
                paths = vec![PathKey::any()];
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

fn is_weak(paths: &[PathKey]) -> bool {
    paths.iter().any(|key| key.text.len() <= WEAK_KEY_BYTES)
}

fn path_keys(paths: &Paths) -> Vec<PathKey> {
    match paths {
        Paths::Any => vec![PathKey::any()],
        Paths::Prefixes(texts) if texts.len() <= PLACES_MAX => (0..)
            .zip(texts)
            .map(|(index, text)| PathKey::new(text.as_bytes(), index))
            .collect(),
        Paths::Prefixes(_) => vec![PathKey::any()],
        // All regexes are tried in order wherever one of them is filed.
        Paths::Regexes(regexes) => {
            let literals: Vec<Vec<u8>> = regexes
                .iter()
                .map(|regex| literal_prefix(regex.as_str()))
                .collect();
            shortest(literals.iter().map(Vec::as_slice))
        }
    }
}

/// Keys for literals of which one suffices: those that begin with another one add nothing.
fn shortest<'l>(literals: impl Iterator<Item = &'l [u8]>) -> Vec<PathKey> {
    let mut keys: Vec<PathKey> = literals
        .map(|text| PathKey::new(text, ALL_PREFIXES))
        .collect();
    keys.sort_by(|left, right| left.text.cmp(&right.text));
    // Sorted, whatever begins with a key follows it directly.
    keys.dedup_by(|later, kept| later.text.starts_with(&kept.text));
    keys
}

/// The distinct names of the matcher's hosts, each with the ports that it is wanted with.
fn host_keys(matcher: &Matcher) -> Vec<(NamePattern, Ports)> {
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
                (*name).clone(),
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

fn expression_hosts(names: Vec<Vec<u8>>) -> Vec<(NamePattern, Ports)> {
    let mut names: Vec<String> = names
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| (NamePattern::Exact(name), Ports::Any))
        .collect()
}

fn exact_snis(matcher: &Matcher) -> Option<Vec<String>> {
    if matcher.snis.is_empty() {
        return None;
    }
    let names: Option<Vec<String>> = matcher
        .snis
        .iter()
        .map(|pattern| match pattern {
            NamePattern::Exact(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.map(sorted_once)
}

fn plain_header(header: &Header) -> Option<(&Header, Vec<String>)> {
    let values = header.plain_values()?;
    Some((
        header,
        sorted_once(values.into_iter().map(str::to_owned).collect()),
    ))
}

fn sorted_once(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}
