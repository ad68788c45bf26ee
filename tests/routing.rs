//! Kong's routing rules, from the route as written to the route that wins, against a plain reading of them.
//!
//! Tables and requests are random, of few words. What a route matches and which one wins is written here a second time
//! for each flavour of the router, as a comparison of tuples instead of bits, over all routes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use regex::Regex;
use sallyport::dialects::kong::compile::route::compile_matchers;
use sallyport::dialects::kong::entities::{Route, RouterFlavor};
use sallyport::model::route::Protocol;
use sallyport::runtime::router::{MatchInput, Router};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const HOSTS: [&str; 8] = [
    "a.com",
    "b.a.com",
    "*.a.com",
    "*.com",
    "a.*",
    "a.com:80",
    "*.a.com:8000",
    "b.a.com:443",
];
const REQUEST_HOSTS: [&str; 10] = [
    "a.com",
    "b.a.com",
    "x.b.a.com",
    "a.org",
    "a.com:80",
    "b.a.com:8000",
    "b.a.com:443",
    "A.com",
    ".a.com",
    "a.",
];
const PATHS: [&str; 10] = [
    "/",
    "/a",
    "/b",
    "/ab",
    "/a/b",
    "/a/b/c",
    r"~/a/\d+",
    "~/a",
    "~/(?<x>[a-z])/b",
    "~/a/b|/c",
];
const REQUEST_PATHS: [&str; 10] = [
    "/", "/a", "/ab", "/a/b", "/a/b/c", "/a/12", "/b", "/b/b", "/x/c", "/c",
];
const HEADERS: [&str; 3] = ["X-Mode", "x_mode", "version"];
const VALUES: [&str; 5] = ["One", "two", "~*^t", "~*N", "one"];
const REQUEST_VALUES: [&str; 4] = ["one", "TWO", "three", "~*^t"];

struct Request {
    secure: bool,
    method: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
    sni: Option<String>,
}

const LISTENING_PORT: u16 = 8000;

impl Request {
    fn find(&self, router: &Router) -> Option<(u32, Option<usize>)> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let input = MatchInput {
            protocol: if self.secure {
                Protocol::Https
            } else {
                Protocol::Http
            },
            method: &self.method,
            host: &self.host,
            path: self.path.as_bytes(),
            query: b"",
            headers: (&headers).into(),
            header_count_max: 100,
            query_count_max: 100,
            sni: self.sni.as_deref(),
            source: None,
            destination: None,
            listening_port: LISTENING_PORT,
            entrance: None,
        };
        router
            .find(&input)
            .map(|found| (found.slot, found.path.length()))
    }
}

fn is_found(pattern: &str, text: &str) -> Option<usize> {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let regex = compiled
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(pattern).unwrap());
        regex.find(text).map(|found| found.len())
    })
}

fn with_port(text: &str) -> (&str, Option<u16>) {
    match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().unwrap())),
        None => (text, None),
    }
}

fn host_matches(pattern: &str, request: &Request, flavor: RouterFlavor) -> bool {
    let (pattern, port) = with_port(pattern);
    let (host, asked) = with_port(&request.host);
    let traditional = flavor == RouterFlavor::Traditional;
    let default = match (traditional, request.secure) {
        (false, _) => LISTENING_PORT,
        (true, true) => 443,
        (true, false) => 80,
    };
    let name_holds = if traditional {
        is_found(
            &format!("^{}$", pattern.replace('.', r"\.").replace('*', ".+")),
            host,
        )
        .is_some()
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        host.ends_with(suffix)
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        host.starts_with(prefix)
    } else {
        host == pattern
    };
    name_holds && port.is_none_or(|port| port == asked.unwrap_or(default))
}

fn header_matches(name: &str, values: &[String], request: &Request, flavor: RouterFlavor) -> bool {
    let traditional = flavor == RouterFlavor::Traditional;
    let fold = |name: &str| match traditional {
        true => name.to_lowercase(),
        false => name.to_lowercase().replace('-', "_"),
    };
    let present = request
        .headers
        .iter()
        .filter(|(other, _)| fold(other) == fold(name));
    present.map(|(_, text)| text.to_lowercase()).any(|text| {
        values.iter().any(|value| match value.strip_prefix("~*") {
            Some(regex) if !traditional => is_found(&regex.to_lowercase(), &text).is_some(),
            Some(regex) if values.len() == 1 => is_found(regex, &text).is_some(),
            _ => value.to_lowercase() == text,
        })
    })
}

/// The length that the path matches with.
fn path_matches(path: &str, request: &Request, flavor: RouterFlavor) -> Option<usize> {
    match path.strip_prefix('~') {
        None => request.path.starts_with(path).then_some(path.len()),
        Some(regex) if flavor == RouterFlavor::Traditional => {
            is_found(&format!("^(?:{regex})"), &request.path)
        }
        Some(regex) => is_found(&format!("^{regex}"), &request.path),
    }
}

/// What decides between routes that match, most important first.
type Order = (Vec<i64>, Reverse<i64>, Uuid);

/// The best way in which the route matches, and the length of the path that does.
fn best_match(
    route: &Route,
    request: &Request,
    flavor: RouterFlavor,
) -> Option<(Order, Option<usize>)> {
    let empty = Vec::new();
    let hosts = route.hosts.as_ref().unwrap_or(&empty);
    let methods = route.methods.as_ref().unwrap_or(&empty);
    let snis = route.snis.as_ref().unwrap_or(&empty);
    let paths = route.paths.as_ref().unwrap_or(&empty);
    let headers: Vec<(&String, &Vec<String>)> = route.headers.iter().flatten().collect();
    let protocols: Vec<&str> = route
        .protocols
        .iter()
        .map(|protocol| protocol.name())
        .collect();
    let order = |rank: Vec<i64>| (rank, Reverse(route.created_at), route.id);
    let scheme = if request.secure { "https" } else { "http" };
    let protocol_asked = flavor == RouterFlavor::Expressions && protocols != ["https"];
    if protocol_asked && !protocols.contains(&scheme) {
        return None;
    }
    if let Some(text) = route
        .expression
        .as_ref()
        .filter(|_| flavor == RouterFlavor::Expressions)
    {
        // The tables hold expressions of one form only.
        let path = text
            .strip_prefix("http.path ^= \"")
            .unwrap()
            .strip_suffix('"')
            .unwrap();
        let length = path_matches(path, request, flavor)?;
        return Some((
            order(vec![1, i64::try_from(route.priority.unwrap()).unwrap()]),
            Some(length),
        ));
    }
    let strict = flavor != RouterFlavor::Traditional && protocols == ["https"];
    let sni_holds = snis.is_empty()
        || (!request.secure && !strict)
        || request.sni.as_ref().is_some_and(|sni| {
            snis.iter()
                .any(|wanted| wanted.trim_end_matches('.') == sni)
        });
    if !(hosts.is_empty() || hosts.iter().any(|host| host_matches(host, request, flavor)))
        || !(methods.is_empty() || methods.contains(&request.method))
        || !headers
            .iter()
            .all(|(name, values)| header_matches(name, values, request, flavor))
        || !sni_holds
    {
        return None;
    }
    let present = [
        !hosts.is_empty(),
        !headers.is_empty(),
        !paths.is_empty(),
        !methods.is_empty(),
        !snis.is_empty(),
    ]
    .map(i64::from);
    let kinds = present.iter().sum();
    let plain_hosts = i64::from(!hosts.is_empty() && !hosts.iter().any(|host| host.contains('*')));
    let names = i64::try_from(headers.len()).unwrap();
    let rank = |path: Option<&str>| {
        let regex = i64::from(path.is_some_and(|path| path.starts_with('~')));
        let priority = if regex == 1 {
            route.regex_priority.unwrap_or(0)
        } else {
            0
        };
        let length = path
            .filter(|_| regex == 0)
            .map_or(0, |path| i64::try_from(path.len()).unwrap());
        if flavor != RouterFlavor::Traditional {
            return vec![0, kinds, plain_hosts, names, regex, priority, length];
        }
        let wildcard_with_port = i64::from(
            hosts
                .iter()
                .any(|host| host.contains('*') && host.contains(':')),
        );
        let mut rank = vec![0, kinds];
        rank.extend(present);
        rank.extend([
            wildcard_with_port,
            plain_hosts,
            regex,
            names,
            priority,
            length,
        ]);
        rank
    };
    if paths.is_empty() {
        return Some((order(rank(None)), None));
    }
    // Of equal ones the first in the list counts.
    paths
        .iter()
        .enumerate()
        .filter_map(|(index, path)| Some((path, index, path_matches(path, request, flavor)?)))
        .max_by_key(|(path, index, _)| (rank(Some(path)), Reverse(*index)))
        .map(|(path, _, length)| (order(rank(Some(path))), Some(length)))
}

struct Dice(StdRng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    fn word(&mut self, words: &[&str]) -> String {
        (*words.choose(&mut self.0).unwrap()).to_owned()
    }

    fn words(&mut self, words: &[&str]) -> Vec<String> {
        (0..self.0.random_range(1..=3))
            .map(|_| self.word(words))
            .collect()
    }

    fn route(&mut self, flavor: RouterFlavor) -> Route {
        let protocols: &[&str] = [["http", "https"].as_slice(), &["http"], &["https"]]
            .choose(&mut self.0)
            .unwrap();
        let mut route = json!({
            "id": Uuid::from_u128(self.0.random()), "created_at": self.0.random_range(0..3), "updated_at": 1,
            "protocols": protocols, "https_redirect_status_code": 426, "regex_priority": self.0.random_range(-1..3),
            "strip_path": true, "path_handling": "v0", "preserve_host": false,
            "request_buffering": true, "response_buffering": true,
        });
        let fields = route.as_object_mut().unwrap();
        if flavor == RouterFlavor::Expressions && self.chance(20) {
            let path = self.word(&PATHS[..6]);
            fields.insert(
                "expression".to_owned(),
                json!(format!("http.path ^= \"{path}\"")),
            );
            fields.insert("priority".to_owned(), json!(self.0.random_range(0..3)));
            return serde_json::from_value(route).unwrap();
        }
        let mut give = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        if self.chance(50) {
            give("hosts", json!(self.words(&HOSTS)));
        }
        if self.chance(70) {
            give("paths", json!(self.words(&PATHS)));
        }
        if self.chance(25) {
            give("methods", json!(self.words(&["GET", "POST"])));
        }
        if self.chance(15) {
            give("snis", json!(self.words(&["a.com", "b.com."])));
        }
        if self.chance(30) {
            let headers: Map<String, Value> = self
                .words(&HEADERS)
                .into_iter()
                .map(|name| (name, json!(self.words(&VALUES))))
                .collect();
            give("headers", Value::Object(headers));
        }
        serde_json::from_value(route).unwrap()
    }

    fn request(&mut self) -> Request {
        let secure = self.chance(50);
        let lines = self.0.random_range(0..=2);
        Request {
            secure,
            method: self.word(&["GET", "POST"]),
            host: self.word(&REQUEST_HOSTS),
            path: self.word(&REQUEST_PATHS),
            headers: (0..lines)
                .map(|_| (self.word(&HEADERS), self.word(&REQUEST_VALUES)))
                .collect(),
            sni: (secure && self.chance(70)).then(|| self.word(&["a.com", "b.com"])),
        }
    }
}

fn compare(flavor: RouterFlavor) {
    let (mut hits, mut requests) = (0, 0);
    for seed in 0..400 {
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        let count = dice.0.random_range(0..25);
        let routes: Vec<Route> = (0..count).map(|_| dice.route(flavor)).collect();
        let plans: Vec<_> = routes
            .iter()
            .map(|route| compile_matchers(route, flavor).unwrap())
            .collect();
        let (router, errors) = Router::build((0..).zip(plans.iter().map(Vec::as_slice)));
        assert!(errors.is_empty(), "{errors:?}");
        for _ in 0..25 {
            let request = dice.request();
            let expected = (0..)
                .zip(&routes)
                .filter_map(|(slot, route)| Some((best_match(route, &request, flavor)?, slot)))
                .max_by(|((left, _), _), ((right, _), _)| left.cmp(right))
                .map(|((_, length), slot): (_, u32)| (slot, length));
            let found = request.find(&router);
            requests += 1;
            hits += usize::from(found.is_some());
            if found != expected {
                let show = |found: Option<(u32, _)>| {
                    found.map(|(slot, _)| &routes[usize::try_from(slot).unwrap()])
                };
                panic!(
                    "{flavor:?}, seed {seed}: {} {} {} secure {} {:?} sni {:?}\nfound {found:?} {:#?}\nexpected {expected:?} {:#?}",
                    request.method,
                    request.host,
                    request.path,
                    request.secure,
                    request.headers,
                    request.sni,
                    show(found),
                    show(expected)
                );
            }
        }
    }
    assert!(
        hits > requests / 4 && hits < requests,
        "{hits} of {requests} requests matched something"
    );
}

#[test]
fn traditional_compatible() {
    compare(RouterFlavor::TraditionalCompatible);
}

#[test]
fn traditional() {
    compare(RouterFlavor::Traditional);
}

#[test]
fn expressions() {
    compare(RouterFlavor::Expressions);
}
