//! The index against a naive loop over all matchers, on random tables and requests.
//!
//! The words are few, so that almost everything collides with something. Single conditions are written here a second
//! time, as simply as possible and without the index's helpers.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use regex::bytes::Regex;
use uuid::Uuid;

use crate::model::route::{
    AddressPattern, ExpressionText, HeaderCondition, HostPattern, HostReading, MatcherPlan,
    NamePattern, PathCondition, Precedence, Protocol, ValuePattern,
};
use crate::runtime::router::{MatchInput, Router};

const HOSTS: [&str; 10] = [
    "a.com",
    "b.a.com",
    "c.b.a.com",
    "x.com",
    "*.a.com",
    "*.com",
    "a.*",
    "b.a.*",
    "*.b.a.com",
    "com",
];
const REQUEST_HOSTS: [&str; 14] = [
    "",
    "a.com",
    "b.a.com",
    "c.b.a.com",
    "x.com",
    "A.com",
    ".a.com",
    "a.",
    "b.a.org",
    "a.com.",
    "com",
    "[::1]",
    "b.a.",
    "a.com:x",
];
const PREFIXES: [&[&str]; 5] = [
    &["/"],
    &["/a", "/b"],
    &["/ab", "/ac", "/xy"],
    &["/a/b", "/b/a"],
    &["/a/b/c", "/xy/1/"],
];
const REGEXES: [&str; 9] = [
    r"^/a/\d+",
    r"^/(?<x>[a-z]+)/b",
    r"^/a|/b",
    r"(?-u)^(?:/xy/.*y)",
    "/b",
    "^/a/b",
    "^/(a|b)/c",
    r"^/a(/b)+",
    "^/ab?",
];
const PATHS: [&str; 16] = [
    "/", "/a", "/ab", "/abc", "/a/b", "/a/b/c", "/a/12", "/b", "/b/a", "/b/c", "/x/b", "/xy/1/2y",
    "/xy", "/a/", "/éa", "/q/b",
];
const METHODS: [&str; 3] = ["GET", "POST", "get"];
const SNIS: [&str; 5] = ["a.com", "b.a.com", "*.a.com", "a.*", "x.com"];
const PORTS: [u16; 4] = [80, 443, 8000, 8080];
const HEADER_NAMES: [&str; 4] = ["x-v", "x_v", "version", "x-long_name"];
const HEADER_VALUES: [&str; 4] = ["1", "two", "Two", "three 3"];

/// An expression that the test evaluates itself.
#[derive(Clone, Debug)]
enum Condition {
    HostIs(String),
    PathStarts(String),
    PathMatches(String),
    MethodIs(String),
    PortIs(u16),
    AnyHeaderIs(String, String),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
}

impl Condition {
    fn text(&self) -> String {
        let list = |parts: &[Self], symbol: &str| {
            let parts: Vec<String> = parts
                .iter()
                .map(|part| format!("({})", part.text()))
                .collect();
            parts.join(symbol)
        };
        match self {
            Self::HostIs(host) => format!("http.host == {host:?}"),
            Self::PathStarts(path) => format!("http.path ^= {path:?}"),
            Self::PathMatches(regex) => format!("http.path ~ r#\"{regex}\"#"),
            Self::MethodIs(method) => format!("http.method == {method:?}"),
            Self::PortIs(port) => format!("net.dst.port == {port}"),
            Self::AnyHeaderIs(name, value) => format!(
                "any(lower(http.headers.{})) == {value:?}",
                name.replace('-', "_")
            ),
            Self::All(parts) => list(parts, " && "),
            Self::Any(parts) => list(parts, " || "),
            Self::Not(inner) => format!("!({})", inner.text()),
        }
    }

    /// Whether it holds; puts the length of the last path match into `length`.
    fn holds(&self, request: &Request, length: &mut Option<usize>) -> bool {
        match self {
            Self::HostIs(host) => request.host == *host,
            Self::PathStarts(path) => {
                let holds = request.path.starts_with(path.as_str());
                if holds {
                    *length = Some(path.len());
                }
                holds
            }
            Self::PathMatches(regex) => match regex_of(regex).find(request.path.as_bytes()) {
                Some(found) => {
                    *length = Some(found.len());
                    true
                }
                None => false,
            },
            Self::MethodIs(method) => request.method == *method,
            Self::PortIs(port) => request.port.unwrap_or(request.listening_port) == *port,
            Self::AnyHeaderIs(name, value) => request
                .header_values(name, true)
                .iter()
                .any(|present| present.to_lowercase() == *value),
            Self::All(parts) => parts.iter().all(|part| part.holds(request, length)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(request, length)),
            Self::Not(inner) => !inner.holds(request, &mut None),
        }
    }
}

pub(super) struct Request {
    pub(super) protocol: Protocol,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) header_count_max: usize,
    pub(super) sni: Option<String>,
    pub(super) source: SocketAddr,
    pub(super) listening_port: u16,
}

impl Request {
    fn header_values(&self, name: &str, alike: bool) -> Vec<String> {
        let fold = |name: &str| {
            if alike {
                name.replace('_', "-")
            } else {
                name.to_owned()
            }
        };
        self.header_map()
            .iter()
            .take(self.header_count_max)
            .filter(|(present, _)| fold(present.as_str()) == fold(name))
            .map(|(_, value)| value.to_str().unwrap().to_owned())
            .collect()
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    pub(super) fn find(&self, router: &Router) -> Option<(u32, Option<usize>)> {
        let host = self
            .port
            .map_or(self.host.clone(), |port| format!("{}:{port}", self.host));
        let headers = self.header_map();
        let input = MatchInput {
            protocol: self.protocol,
            method: &self.method,
            host: &host,
            path: self.path.as_bytes(),
            query: b"",
            headers: (&headers).into(),
            header_count_max: self.header_count_max,
            query_count_max: 100,
            sni: self.sni.as_deref(),
            source: Some(self.source),
            destination: None,
            listening_port: self.listening_port,
            entrance: None,
        };
        router
            .find(&input)
            .map(|found| (found.slot, found.path.length()))
    }
}

/// Compiling dominates a naive loop, so each text is compiled once.
fn regex_of(text: &str) -> Regex {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        compiled
            .entry(text.to_owned())
            .or_insert_with(|| Regex::new(text).unwrap())
            .clone()
    })
}

/// A plan and the expression in it.
type Planned = (MatcherPlan, Option<Condition>);

/// `Some(length of the matched path)` when every condition holds.
fn naive_match((plan, condition): &Planned, request: &Request) -> Option<Option<usize>> {
    let name_holds = |pattern: &NamePattern, name: &str, least: usize| match pattern {
        NamePattern::Exact(text) => text == name,
        NamePattern::Suffix(text) => {
            name.ends_with(text.as_str()) && name.len() >= text.len() + least
        }
        NamePattern::Prefix(text) => {
            name.starts_with(text.as_str()) && name.len() >= text.len() + least
        }
    };
    let (least, default_port) = match (plan.host_reading, request.protocol) {
        (HostReading::ListeningPort, _) => (0, request.listening_port),
        (HostReading::SchemePort, Protocol::Https) => (1, 443),
        (HostReading::SchemePort, _) => (1, 80),
    };
    let port = request.port.unwrap_or(default_port);
    let all_hold = (plan.protocols.is_empty() || plan.protocols.contains(request.protocol))
        && (plan.hosts.is_empty()
            || plan.hosts.iter().any(|host| {
                name_holds(&host.name, &request.host, least)
                    && host.port.is_none_or(|wanted| wanted == port)
            }))
        && (plan.methods.is_empty() || plan.methods.contains(&request.method))
        && plan.headers.iter().all(|header| {
            request
                .header_values(&header.name, header.dashes_alike)
                .iter()
                .any(|present| {
                    let present = present.to_lowercase();
                    header.values.iter().any(|value| match value {
                        ValuePattern::Plain(text) => *text == present,
                        ValuePattern::Regex(regex) => regex_of(regex).is_match(present.as_bytes()),
                    })
                })
        })
        && (plan.snis.is_empty()
            || plan.snis_waived_for.contains(request.protocol)
            || request
                .sni
                .as_ref()
                .is_some_and(|sni| plan.snis.iter().any(|pattern| name_holds(pattern, sni, 0))))
        && (plan.sources.is_empty()
            || plan.sources.iter().any(|source| {
                source
                    .network
                    .is_none_or(|network| network.contains(&request.source.ip()))
                    && source.port.is_none_or(|port| port == request.source.port())
            }));
    if !all_hold {
        return None;
    }
    let mut length = match &plan.paths {
        PathCondition::Any => None,
        PathCondition::Prefixes(texts) => Some(
            texts
                .iter()
                .find(|text| request.path.starts_with(text.as_str()))?
                .len(),
        ),
        PathCondition::Regexes(texts) => Some(texts.iter().find_map(|text| {
            regex_of(text)
                .find(request.path.as_bytes())
                .map(|found| found.len())
        })?),
    };
    match condition {
        Some(condition) if !condition.holds(request, &mut length) => None,
        _ => Some(length),
    }
}

fn naive_find(
    table: &BTreeMap<u32, Vec<Planned>>,
    request: &Request,
) -> Option<(u32, Option<usize>)> {
    table
        .iter()
        .flat_map(|(slot, plans)| plans.iter().map(move |plan| (*slot, plan)))
        .filter_map(|(slot, plan)| {
            Some((
                (plan.0.precedence, Reverse(slot)),
                naive_match(plan, request)?,
            ))
        })
        .max_by_key(|(order, _)| *order)
        .map(|((_, Reverse(slot)), length)| (slot, length))
}

struct Dice(StdRng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    fn word(&mut self, words: &[&str]) -> String {
        (*words.choose(&mut self.0).unwrap()).to_owned()
    }

    fn port(&mut self) -> u16 {
        *PORTS.choose(&mut self.0).unwrap()
    }

    /// One to three of something, or none of it.
    fn some_of<T>(&mut self, percent: u32, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        match self.chance(percent) {
            true => (0..self.0.random_range(1..=3)).map(|_| one(self)).collect(),
            false => Vec::new(),
        }
    }

    fn condition(&mut self, depth: u32) -> Condition {
        match self.0.random_range(0..if depth == 0 { 6 } else { 9 }) {
            0 => Condition::HostIs(self.word(&REQUEST_HOSTS[1..6])),
            1 => Condition::PathStarts(self.word(&PATHS)),
            2 => Condition::PathMatches(self.word(&REGEXES)),
            3 => Condition::MethodIs(self.word(&METHODS)),
            4 => Condition::PortIs(self.port()),
            5 => Condition::AnyHeaderIs(
                self.word(&HEADER_NAMES),
                self.word(&HEADER_VALUES).to_lowercase(),
            ),
            6 => Condition::Not(Box::new(self.condition(depth - 1))),
            7 => Condition::All((0..2).map(|_| self.condition(depth - 1)).collect()),
            _ => Condition::Any((0..2).map(|_| self.condition(depth - 1)).collect()),
        }
    }

    fn plan(&mut self, slot: u32, ordinal: u32) -> Planned {
        let paths = match self.0.random_range(0..4) {
            0 => PathCondition::Any,
            1 => PathCondition::Regexes(
                (0..self.0.random_range(1..=3))
                    .map(|_| self.word(&REGEXES))
                    .collect(),
            ),
            _ => {
                let same_length = *PREFIXES.choose(&mut self.0).unwrap();
                PathCondition::Prefixes(
                    (0..self.0.random_range(1..=2))
                        .map(|_| self.word(same_length))
                        .collect(),
                )
            }
        };
        let condition = self.chance(20).then(|| self.condition(2));
        let plan = MatcherPlan {
            entrance: None,
            precedence: Precedence {
                rank: self.0.random_range(0..4),
                detail: self.0.random_range(0..2),
                created_at: self.0.random_range(0..2),
                id: Uuid::from_u128(u128::from(slot % 7)),
                ordinal,
            },
            protocols: self
                .some_of(10, |dice| *Protocol::ALL[..2].choose(&mut dice.0).unwrap())
                .into(),
            hosts: self.some_of(60, |dice| HostPattern {
                name: NamePattern::parse(&dice.word(&HOSTS)),
                port: dice.chance(30).then(|| dice.port()),
            }),
            host_reading: if self.chance(50) {
                HostReading::ListeningPort
            } else {
                HostReading::SchemePort
            },
            headers: self.some_of(25, |dice| HeaderCondition {
                name: dice.word(&HEADER_NAMES),
                dashes_alike: dice.chance(50),
                values: match dice.chance(30) {
                    true => vec![ValuePattern::Regex(r"t|^\d$".to_owned())],
                    false => vec![ValuePattern::Plain(
                        dice.word(&HEADER_VALUES).to_lowercase(),
                    )],
                },
            }),
            methods: self.some_of(25, |dice| dice.word(&METHODS)),
            paths,
            snis: self.some_of(15, |dice| NamePattern::parse(&dice.word(&SNIS))),
            snis_waived_for: self.some_of(60, |_| Protocol::Http).into(),
            sources: self.some_of(10, |dice| AddressPattern {
                network: dice.chance(60).then(|| {
                    dice.word(&["10.0.0.0/8", "10.1.2.3/32", "fd00::/8"])
                        .parse()
                        .unwrap()
                }),
                port: dice.chance(50).then(|| dice.port()),
            }),
            destinations: Vec::new(),
            expression: condition.as_ref().map(|condition| ExpressionText {
                text: condition.text(),
                stream: false,
            }),
        };
        (plan, condition)
    }

    fn plans(&mut self, slot: u32) -> Vec<Planned> {
        (0..self.0.random_range(1..=2))
            .map(|ordinal| self.plan(slot, ordinal))
            .collect()
    }

    fn request(&mut self) -> Request {
        let protocol = *Protocol::ALL[..2].choose(&mut self.0).unwrap();
        let host = self.word(&REQUEST_HOSTS);
        Request {
            protocol,
            method: self.word(&METHODS),
            port: (self.chance(40) && !host.is_empty() && !host.contains(':')).then(|| self.port()),
            host,
            path: self.word(&PATHS),
            headers: self.some_of(60, |dice| {
                (dice.word(&HEADER_NAMES), dice.word(&HEADER_VALUES))
            }),
            header_count_max: if self.chance(20) { 1 } else { 100 },
            sni: (protocol == Protocol::Https && self.chance(70)).then(|| self.word(&SNIS)),
            source: SocketAddr::new(
                self.word(&["10.1.2.3", "11.0.0.1", "fd00::1"])
                    .parse()
                    .unwrap(),
                self.port(),
            ),
            listening_port: self.port(),
        }
    }
}

fn plans_of(planned: &[Planned]) -> Vec<MatcherPlan> {
    planned.iter().map(|(plan, _)| plan.clone()).collect()
}

/// True when something matched.
fn assert_same(
    router: &Router,
    table: &BTreeMap<u32, Vec<Planned>>,
    request: &Request,
    context: &str,
) -> bool {
    let expected = naive_find(table, request);
    let found = request.find(router);
    if found != expected {
        let show =
            |found: Option<(u32, Option<usize>)>| found.map(|(slot, _)| plans_of(&table[&slot]));
        panic!(
            "{context}: found {found:?}: {:#?}\nexpected {expected:?}: {:#?}\nfor {} {:?} port {:?} {} {:?} sni {:?}",
            show(found),
            show(expected),
            request.method,
            request.host,
            request.port,
            request.path,
            request.headers,
            request.sni
        );
    }
    found.is_some()
}

#[test]
fn built_tables_agree_with_the_naive_loop() {
    let (mut requests, mut hits) = (0, 0);
    for seed in 0..500 {
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        let size = dice.0.random_range(0..40);
        let table: BTreeMap<u32, Vec<Planned>> =
            (0..size).map(|slot| (slot, dice.plans(slot))).collect();
        let plans: Vec<(u32, Vec<MatcherPlan>)> = table
            .iter()
            .map(|(slot, plans)| (*slot, plans_of(plans)))
            .collect();
        let (router, errors) =
            Router::build(plans.iter().map(|(slot, plans)| (*slot, plans.as_slice())));
        assert!(errors.is_empty(), "{errors:?}");
        for _ in 0..25 {
            requests += 1;
            hits += usize::from(assert_same(
                &router,
                &table,
                &dice.request(),
                &format!("seed {seed}"),
            ));
        }
    }
    assert!(
        (requests / 4..requests * 19 / 20).contains(&hits),
        "{hits} of {requests} requests matched something"
    );
}

#[test]
fn changed_tables_agree_with_the_naive_loop() {
    for seed in 0..25 {
        let mut dice = Dice(StdRng::seed_from_u64(1_000_000 + seed));
        let mut table: BTreeMap<u32, Vec<Planned>> = BTreeMap::new();
        let mut router = Router::default();
        let mut kept = None;
        for step in 0..120 {
            let slot = dice.0.random_range(0..40);
            if dice.chance(40) {
                assert_eq!(router.remove(slot), table.remove(&slot).is_some());
            } else {
                let planned = dice.plans(slot);
                router.replace(slot, &plans_of(&planned)).unwrap();
                table.insert(slot, planned);
            }
            assert_eq!(router.len(), table.len());
            if step == 60 {
                kept = Some((router.clone(), table.clone()));
            }
            for _ in 0..3 {
                assert_same(
                    &router,
                    &table,
                    &dice.request(),
                    &format!("seed {seed} step {step}"),
                );
            }
        }
        // A copy does not see what happened to the original.
        let (kept, kept_table) = kept.unwrap();
        for _ in 0..40 {
            assert_same(
                &kept,
                &kept_table,
                &dice.request(),
                &format!("seed {seed}, copy"),
            );
        }
        for slot in 0..40 {
            router.remove(slot);
        }
        assert!(
            router.is_empty()
                && router.hosts.is_empty()
                && router.by_sni.is_empty()
                && router.by_header.is_empty()
        );
        assert_eq!(dice.request().find(&router), None);
    }
}
