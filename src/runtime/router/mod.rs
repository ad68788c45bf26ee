//! The router: from a request to the route whose matcher has the greatest precedence among those that match.
//!
//! Owns the index and the evaluation of matchers. It does not know what routes lead to: a route is a *slot*, a number
//! that the snapshot gives meaning to. Start with [`Router::find`]; `place.rs` says where matchers are filed.
//!
//! # The index
//!
//! A lookup collects candidates from a few places and keeps the best that holds. Which places is decided by conditions
//! that are necessary for the matcher, so the index can only find too much, never too little:
//!
//! 1. Matchers with hosts (or an expression that implies some): by exact name in a hash map, by `*.suffix` and
//!    `prefix.*` in two more that are asked at the dots of the request's host. What is found there is a radix trie over
//!    the literal beginnings of paths.
//! 2. Without hosts: one such trie for all.
//! 3. Without hosts and with no more than `/` for a path: by server name, or by the value of a header.
//!
//! At one place, candidates are tried best first, and only those that could beat the best so far.
//!
//! # Cost
//!
//! With distinct hosts or paths, a lookup costs a hash and a walk down the path. It grows with the number of matchers
//! that share a place *and* outrank the one that wins: at worst linear, for example thousands of path regexes that begin
//! with a group, thousands of methods or header values under one and the same path, or thousands of server names with
//! asterisks. Nothing is allocated (but see [`crate::expr::lowered`]).
//!
//! Copies of a router share everything. Changing one route of a shared router copies what leads to it, some
//! microseconds at 100,000 routes.

mod input;
mod map;
mod matcher;
mod place;
#[cfg(test)]
mod tests;
mod trie;

use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::expr::lowered;
use crate::model::route::{MatcherPlan, NamePattern, Precedence};
use crate::runtime::matched::MatchedPath;

pub use input::MatchInput;
pub use matcher::LinkError;

use input::View;
use map::SharedMap;
use matcher::{Entry, EntryList, Found, Matcher, PathHint, Ports};
use place::{ANY_PATH, Place};
use trie::{Node, insert_sorted};

/// The most headers by whose values matchers are filed: each costs every lookup a question. Further ones are filed with
/// the matchers without conditions on host and path.
const INDEXED_HEADERS_MAX: usize = 16;

/// An index of matchers. Cloning is cheap, and a clone does not see later changes.
#[derive(Debug, Clone, Default)]
pub struct Router {
    slots: SharedMap<u32, SmallVec<[Arc<Matcher>; 1]>>,
    hosts: SharedMap<Key, Arc<Node>>,
    host_suffixes: Wildcards,
    host_prefixes: Wildcards,
    /// Matchers without hosts.
    anywhere: Arc<Node>,
    by_sni: SharedMap<Key, Entries>,
    /// Those of [`Self::by_sni`] that some protocols excuse.
    sni_waived: Entries,
    by_header: Arc<Vec<HeaderIndex>>,
}

/// The matcher that won.
#[derive(Debug, Clone)]
pub struct Match {
    /// Its route.
    pub slot: u32,
    /// What of the path it matched. Groups of a regex are only computed when somebody asks for them.
    pub path: MatchedPath,
}

/// A host name, server name or header value; most fit without an allocation.
type Key = SmallVec<[u8; 32]>;

/// Candidates of one place, best first.
type Entries = Arc<EntryList>;

/// Tries by the fixed part of a name with an asterisk.
#[derive(Debug, Clone, Default)]
struct Wildcards {
    tries: SharedMap<Key, Arc<Node>>,
    /// No key is longer; bounds how often a long name is hashed. Only grows.
    key_bytes_max: usize,
}

#[derive(Debug, Clone)]
struct HeaderIndex {
    /// In lower case, with dashes.
    name: String,
    values: SharedMap<Key, Entries>,
}

impl Router {
    /// Builds a router from all its routes; routes that cannot be linked are left out and reported.
    pub fn build<'p>(
        routes: impl IntoIterator<Item = (u32, &'p [MatcherPlan])>,
    ) -> (Self, Vec<(u32, LinkError)>) {
        let mut linked: Vec<(Precedence, Arc<Matcher>)> = Vec::new();
        let mut errors = Vec::new();
        for (slot, plans) in routes {
            match link_all(slot, plans) {
                Ok(matchers) => linked.extend(
                    matchers
                        .into_iter()
                        .map(|matcher| (matcher.precedence, matcher)),
                ),
                Err(error) => errors.push((slot, error)),
            }
        }
        // Best first, so that filing a matcher appends to its places instead of moving what is there.
        linked.sort_unstable_by(|left, right| {
            right.0.cmp(&left.0).then(left.1.slot.cmp(&right.1.slot))
        });
        let mut router = Self::default();
        for (_, matcher) in linked {
            router.file(matcher);
        }
        (router, errors)
    }

    /// Adds one matcher to a route.
    pub fn insert(&mut self, slot: u32, plan: &MatcherPlan) -> Result<(), LinkError> {
        self.file(Arc::new(Matcher::link(slot, plan)?));
        Ok(())
    }

    /// Makes these the matchers of a route; on error nothing changes.
    pub fn replace(&mut self, slot: u32, plans: &[MatcherPlan]) -> Result<(), LinkError> {
        let matchers = link_all(slot, plans)?;
        self.remove(slot);
        for matcher in matchers {
            self.file(matcher);
        }
        Ok(())
    }

    /// Removes all matchers of a route. False when it has none.
    pub fn remove(&mut self, slot: u32) -> bool {
        let mut matchers = SmallVec::new();
        self.slots.change_or_drop(&slot, |present| {
            matchers = std::mem::take(present);
            false
        });
        for matcher in &matchers {
            self.unfile(matcher);
        }
        !matchers.is_empty()
    }

    /// How many routes have matchers.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when no route has matchers.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The matcher of greatest precedence among those that match.
    pub fn find(&self, input: &MatchInput<'_>) -> Option<Match> {
        let view = View::new(input);
        let mut best = Best {
            view: &view,
            winner: None,
        };
        self.find_by_host(&mut best);
        self.anywhere
            .visit(input.path, |entries| best.consider(entries, false));
        if let Some(entries) = input.sni.and_then(|sni| self.by_sni.find(sni.as_bytes())) {
            best.consider(entries, false);
        }
        if !self.sni_waived.is_empty() {
            best.consider(&self.sni_waived, false);
        }
        for index in self.by_header.iter() {
            let _ = view.each_header(&index.name, true, &mut |value| {
                if let Some(entries) = lowered(value, |value| index.values.find(value)) {
                    best.consider(entries, false);
                }
                ControlFlow::Continue(())
            });
        }
        let (entry, found) = best.winner?;
        let path = MatchedPath::new(found.length, found.regex.map(Arc::clone))
            .on_lowered_path(found.lower);
        Some(Match {
            slot: entry.slot,
            path,
        })
    }

    fn find_by_host<'r>(&'r self, best: &mut Best<'r, '_>) {
        let host = best.view.host.as_bytes();
        let path = best.view.input.path;
        if let Some(trie) = self.hosts.find(host) {
            trie.visit(path, |entries| best.consider(entries, false));
        }
        if !self.host_suffixes.tries.is_empty() {
            let longest = host.len().saturating_sub(self.host_suffixes.key_bytes_max);
            for dot in memchr::memchr_iter(b'.', host).filter(|dot| *dot >= longest) {
                if let Some(trie) = host
                    .get(dot..)
                    .and_then(|suffix| self.host_suffixes.tries.find(suffix))
                {
                    trie.visit(path, |entries| best.consider(entries, dot == 0));
                }
            }
        }
        if !self.host_prefixes.tries.is_empty() {
            for dot in memchr::memchr_iter(b'.', host)
                .take_while(|dot| *dot < self.host_prefixes.key_bytes_max)
            {
                if let Some(trie) = host
                    .get(..=dot)
                    .and_then(|prefix| self.host_prefixes.tries.find(prefix))
                {
                    trie.visit(path, |entries| {
                        best.consider(entries, dot + 1 == host.len())
                    });
                }
            }
        }
    }

    fn file(&mut self, matcher: Arc<Matcher>) {
        self.slots
            .change(matcher.slot, |present| present.push(Arc::clone(&matcher)));
        let entry = |path, ports| Entry::new(&matcher, path, ports);
        let anywhere = || Entry::new(&matcher, PathHint::Unknown, Ports::Any);
        match Place::of(&matcher) {
            Place::Hosts { hosts, paths } => {
                for (name, ports) in hosts {
                    self.tries_mut(&name)
                        .change(key_bytes(&name).into(), |trie| {
                            let trie = Arc::make_mut(trie);
                            for key in &paths {
                                trie.insert(&key.text, entry(key.hint, ports.clone()));
                            }
                        });
                }
            }
            Place::Paths(paths) => {
                let trie = Arc::make_mut(&mut self.anywhere);
                for key in &paths {
                    trie.insert(&key.text, entry(key.hint, Ports::Any));
                }
            }
            Place::Snis(names) => {
                for name in names {
                    self.by_sni.change(name.as_bytes().into(), |entries| {
                        insert_sorted(Arc::make_mut(entries), anywhere());
                    });
                }
                if !matcher.snis_waived_for.is_empty() {
                    insert_sorted(Arc::make_mut(&mut self.sni_waived), anywhere());
                }
            }
            Place::Header { name, values } => match self.header_index_mut(name) {
                Some(index) => {
                    for value in values {
                        index.values.change(value.as_bytes().into(), |entries| {
                            insert_sorted(Arc::make_mut(entries), anywhere());
                        });
                    }
                }
                None => {
                    Arc::make_mut(&mut self.anywhere).insert(ANY_PATH, anywhere());
                }
            },
        }
    }

    fn unfile(&mut self, matcher: &Matcher) {
        let slot = matcher.slot;
        match Place::of(matcher) {
            Place::Hosts { hosts, paths } => {
                for (name, _) in hosts {
                    self.tries_mut(&name)
                        .change_or_drop(key_bytes(&name), |trie| {
                            let trie = Arc::make_mut(trie);
                            !paths
                                .iter()
                                .fold(false, |_, key| trie.remove(&key.text, slot))
                        });
                }
            }
            Place::Paths(paths) => {
                let trie = Arc::make_mut(&mut self.anywhere);
                for key in &paths {
                    trie.remove(&key.text, slot);
                }
            }
            Place::Snis(names) => {
                for name in names {
                    drop_entry(&mut self.by_sni, name.as_bytes(), slot);
                }
                if !matcher.snis_waived_for.is_empty() {
                    Arc::make_mut(&mut self.sni_waived).retain(|entry| entry.slot != slot);
                }
            }
            Place::Header { name, values } => {
                let indexes = Arc::make_mut(&mut self.by_header);
                for index in indexes.iter_mut().filter(|index| index.name == name) {
                    for value in &values {
                        drop_entry(&mut index.values, value.as_bytes(), slot);
                    }
                }
                indexes.retain(|index| !index.values.is_empty());
                // Where the header was one too many when the matcher was filed.
                Arc::make_mut(&mut self.anywhere).remove(ANY_PATH, slot);
            }
        }
    }

    fn tries_mut(&mut self, name: &NamePattern) -> &mut SharedMap<Key, Arc<Node>> {
        let wildcards = match name {
            NamePattern::Exact(_) => return &mut self.hosts,
            NamePattern::Suffix(_) => &mut self.host_suffixes,
            NamePattern::Prefix(_) => &mut self.host_prefixes,
        };
        wildcards.key_bytes_max = wildcards.key_bytes_max.max(key_bytes(name).len());
        &mut wildcards.tries
    }

    /// The index by values of this header, made when there is room for one more.
    fn header_index_mut(&mut self, name: String) -> Option<&mut HeaderIndex> {
        let indexes = Arc::make_mut(&mut self.by_header);
        let at = match indexes.iter().position(|index| index.name == name) {
            Some(at) => at,
            None if indexes.len() >= INDEXED_HEADERS_MAX => return None,
            None => {
                indexes.push(HeaderIndex {
                    name,
                    values: SharedMap::default(),
                });
                indexes.len() - 1
            }
        };
        indexes.get_mut(at)
    }
}

fn link_all(slot: u32, plans: &[MatcherPlan]) -> Result<Vec<Arc<Matcher>>, LinkError> {
    plans
        .iter()
        .map(|plan| Matcher::link(slot, plan).map(Arc::new))
        .collect()
}

fn key_bytes(name: &NamePattern) -> &[u8] {
    match name {
        NamePattern::Exact(text) | NamePattern::Suffix(text) | NamePattern::Prefix(text) => {
            text.as_bytes()
        }
    }
}

fn drop_entry(map: &mut SharedMap<Key, Entries>, key: &[u8], slot: u32) {
    map.change_or_drop(key, |entries| {
        let entries = Arc::make_mut(entries);
        entries.retain(|entry| entry.slot != slot);
        !entries.is_empty()
    });
}

/// The best matcher so far.
struct Best<'r, 'v> {
    view: &'v View<'v>,
    winner: Option<(&'r Entry, Found<'r>)>,
}

impl<'r> Best<'r, '_> {
    /// Tries candidates, best first, while they can still win.
    fn consider(&mut self, entries: &'r [Entry], star_is_empty: bool) {
        for entry in entries {
            if let Some((winner, _)) = &self.winner
                && !entry.beats(winner)
            {
                return;
            }
            if let Some(found) = entry.holds(self.view, star_is_empty) {
                self.winner = Some((entry, found));
                return;
            }
        }
    }
}
