//! `cors`: answers browsers that ask whether one site may call another (Fetch standard, 3.2).

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_http::ResponseHeader;
use regex::Regex;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::configuration::read;
use crate::plugins::shared::headers::{lenient_value, set_response};
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::LocalResponse;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Every method that may be configured, and the default.
const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

config_record! {
    /// Tells browsers which other sites may call, and answers their preflight requests.
    pub struct Config {
        /// Sites that may call: `*`, an origin such as `https://example.com`, a host name, or a regular expression over
        /// either. None means `*`.
        origins: Option<Vec<String>> = array(string().validated_by(check_origin)),
        /// Request headers that may be used; none means those asked for.
        headers: Option<Vec<String>> = array(string()),
        /// Response headers that a page may read.
        exposed_headers: Option<Vec<String>> = array(string()),
        /// Methods that may be used.
        methods: Option<Vec<String>> = array(string().one_of(METHODS)).default(json!(METHODS)),
        /// Seconds for which a browser may remember the answer.
        max_age: Option<f64> = number(),
        /// May requests carry credentials?
        credentials: bool = boolean().required().default(false),
        /// May public pages call an upstream in a private network?
        private_network: bool = boolean().required().default(false),
        /// Leave preflight requests to the upstream.
        preflight_continue: bool = boolean().required().default(false),
        /// Add the headers to answers of requests without `Origin` too.
        allow_origin_absent: bool = boolean().required().default(true),
    }
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("cors", 2000, Config::schema())
            .without_consumer()
            .with_messages(),
        link,
    }
}

fn check_origin(value: &serde_json::Value) -> Result<(), String> {
    match value.as_str() {
        None | Some("*") => Ok(()),
        Some(text) => anchored(text)
            .map(drop)
            .map_err(|_| format!("'{text}' is not a valid regex")),
    }
}

fn anchored(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{text})$"))
}

fn link(plan: &Arc<InstancePlan>, _: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let origins = config.origins.as_deref().unwrap_or_default();
    let origins = match origins {
        [] => Origins::Any,
        [only] if only == "*" => Origins::Any,
        [only] if is_plain(only) => Origins::One(header(only, "origins")?),
        several => Origins::Several(
            several
                .iter()
                .map(|text| Pattern::parse(text))
                .collect::<Result<_, _>>()?,
        ),
    };
    let list = |list: &Option<Vec<String>>, field: &str| match list {
        Some(list) if !list.is_empty() => header(&list.join(","), field).map(Some),
        _ => Ok(None),
    };
    let max_age = config.max_age.map(|seconds| seconds.to_string());
    Ok(Arc::new(Cors {
        origins,
        headers: list(&config.headers, "headers")?,
        exposed_headers: list(&config.exposed_headers, "exposed_headers")?,
        methods: list(&config.methods, "methods")?,
        max_age: max_age.map(|text| header(&text, "max_age")).transpose()?,
        credentials: config.credentials,
        private_network: config.private_network,
        preflight_continue: config.preflight_continue,
        allow_origin_absent: config.allow_origin_absent,
    }))
}

fn header(text: &str, field: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .map_err(|_| format!("config.{field}: must not hold control characters"))
}

struct Cors {
    origins: Origins,
    headers: Option<HeaderValue>,
    exposed_headers: Option<HeaderValue>,
    methods: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

/// The request was a preflight: its answer is complete, or the upstream's affair.
struct Preflight;

impl Plugin for Cors {
    fn phases(&self) -> Phases {
        Phases::ACCESS.with(Phases::HEADER_FILTER)
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let request = &exchange.request;
        let is_preflight = request.method == Method::OPTIONS
            && request.headers.contains_key(ORIGIN)
            && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return Flow::Continue;
        }
        exchange.stash(Preflight);
        if self.preflight_continue {
            return Flow::Continue;
        }
        Flow::Respond(Box::new(self.preflight(exchange)))
    }

    fn header_filter(&self, exchange: &mut Exchange, head: &mut ResponseHeader) {
        let origin = exchange.request.headers.get(ORIGIN);
        if exchange.stashed::<Preflight>().is_some()
            || (origin.is_none() && !self.allow_origin_absent)
        {
            return;
        }
        let verdict = self.verdict(origin);
        match verdict.origin {
            Some(value) => set_response(head, ACCESS_CONTROL_ALLOW_ORIGIN, value),
            None => {
                head.remove_header(&ACCESS_CONTROL_ALLOW_ORIGIN);
            }
        }
        if verdict.varies {
            add_vary(head);
        }
        if verdict.credentials {
            let value = HeaderValue::from_static("true");
            set_response(head, ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
        }
        if let Some(value) = &self.exposed_headers {
            set_response(head, ACCESS_CONTROL_EXPOSE_HEADERS, value.clone());
        }
    }
}

/// What the caller is told about its origin.
struct Verdict {
    origin: Option<HeaderValue>,
    /// The answer depends on the `Origin` of the request, or could for another one.
    varies: bool,
    credentials: bool,
}

impl Cors {
    fn verdict(&self, origin: Option<&HeaderValue>) -> Verdict {
        let mut verdict = match &self.origins {
            Origins::Any => Verdict {
                origin: Some(HeaderValue::from_static("*")),
                varies: false,
                credentials: false,
            },
            Origins::One(value) => Verdict {
                origin: Some(value.clone()),
                varies: true,
                credentials: self.credentials,
            },
            Origins::Several(patterns) => Verdict {
                origin: origin
                    .filter(|origin| {
                        let seen = Origin::parse(&String::from_utf8_lossy(origin.as_bytes()));
                        patterns.iter().any(|pattern| pattern.matches(&seen))
                    })
                    .cloned(),
                varies: true,
                credentials: self.credentials,
            },
        };
        // With credentials a browser does not accept `*`.
        if let (Origins::Any, true, Some(origin)) = (&self.origins, self.credentials, origin) {
            verdict = Verdict {
                origin: Some(origin.clone()),
                varies: true,
                credentials: true,
            };
        }
        verdict
    }

    fn preflight(&self, exchange: &Exchange) -> LocalResponse {
        let asked = &exchange.request.headers;
        let verdict = self.verdict(asked.get(ORIGIN));
        let yes = || HeaderValue::from_static("true");
        let allowed_headers = self
            .headers
            .clone()
            .or_else(|| asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned());
        let private_network = self.private_network
            && asked
                .get(&REQUEST_PRIVATE_NETWORK)
                .is_some_and(|value| value == "true");
        let headers = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, verdict.origin),
            (
                VARY,
                verdict.varies.then(|| HeaderValue::from_static("Origin")),
            ),
            (
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                verdict.credentials.then(yes),
            ),
            (ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers),
            (ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()),
            (ACCESS_CONTROL_MAX_AGE, self.max_age.clone()),
            (ALLOW_PRIVATE_NETWORK, private_network.then(yes)),
            (CONTENT_LENGTH, Some(HeaderValue::from_static("0"))),
        ];
        let mut response = LocalResponse::new(StatusCode::OK);
        response.headers.extend(
            headers
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value))),
        );
        response
    }
}

fn add_vary(head: &mut ResponseHeader) {
    let mut members: Vec<u8> = Vec::new();
    for value in head.headers.get_all(VARY) {
        let named = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|member| member.trim_ascii().eq_ignore_ascii_case(b"origin"));
        if named {
            return;
        }
        members.extend_from_slice(value.as_bytes());
        members.extend_from_slice(b", ");
    }
    members.extend_from_slice(b"Origin");
    set_response(head, VARY, lenient_value(&members));
}

/// The configured origins.
enum Origins {
    Any,
    /// Always answered, whoever asks.
    One(HeaderValue),
    Several(Vec<Pattern>),
}

/// An origin in comparable form: lower-case, with its port.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    full: String,
    host: String,
}

impl Origin {
    fn parse(text: &str) -> Self {
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://").unwrap_or(("", &text));
        let usual_port = match scheme {
            "http" => Some("80"),
            "https" => Some("443"),
            _ => None,
        };
        // A colon inside brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let full = match port.filter(|port| Some(*port) != usual_port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Self {
            full,
            host: host.to_owned(),
        }
    }
}

enum Pattern {
    Any,
    Origin(String),
    Host(String),
    OriginRegex(Regex),
    HostRegex(Regex),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let whole = text.contains(':');
        if is_plain(text) {
            let origin = Origin::parse(text);
            return Ok(match whole {
                true => Self::Origin(origin.full),
                false => Self::Host(origin.host),
            });
        }
        let regex =
            anchored(text).map_err(|_| format!("config.origins: '{text}' is not a valid regex"))?;
        Ok(match whole {
            true => Self::OriginRegex(regex),
            false => Self::HostRegex(regex),
        })
    }

    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Origin(full) => *full == origin.full,
            Self::Host(host) => *host == origin.host,
            Self::OriginRegex(regex) => regex.is_match(&origin.full),
            Self::HostRegex(regex) => regex.is_match(&origin.host),
        }
    }
}

/// No regular expression, though a dot would be one.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Message, World};

    fn shown(value: Option<&HeaderValue>) -> &str {
        value.map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn chooses_the_origin() {
        let world = World::new();
        let several = json!({"origins": ["http://a.test", "b.test", r"https://.*\.c\.test"]});
        for (config, origin, allowed, vary) in [
            (json!({}), "http://x.test", "*", ""),
            (json!({"origins": ["*"]}), "http://x.test", "*", ""),
            (
                json!({"credentials": true}),
                "http://x.test",
                "http://x.test",
                "Origin",
            ),
            (
                json!({"origins": ["http://a.test"]}),
                "http://x.test",
                "http://a.test",
                "Origin",
            ),
            (
                several.clone(),
                "http://a.test:80",
                "http://a.test:80",
                "Origin",
            ),
            (several.clone(), "http://a.test:81", "", "Origin"),
            (
                several.clone(),
                "https://b.test:9",
                "https://b.test:9",
                "Origin",
            ),
            (
                several.clone(),
                "https://x.c.test",
                "https://x.c.test",
                "Origin",
            ),
            (several.clone(), "https://x.c.test.evil", "", "Origin"),
            (several, "null", "", "Origin"),
        ] {
            let case = format!("{config} {origin}");
            let plugin = world.link(entry(), config);
            let mut exchange = world.exchange(Message::get("/").header("origin", origin));
            assert!(matches!(plugin.access(&mut exchange), Flow::Continue));
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.insert_header("Access-Control-Allow-Origin", "upstream")
                .unwrap();
            plugin.header_filter(&mut exchange, &mut head);
            assert_eq!(
                shown(head.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)),
                allowed,
                "{case}"
            );
            assert_eq!(shown(head.headers.get(VARY)), vary, "{case}");
        }
    }

    #[test]
    fn answers_preflight() {
        let world = World::new();
        let preflight = || {
            Message::new("OPTIONS", "/")
                .header("origin", "http://x.test")
                .header("access-control-request-method", "PUT")
                .header("access-control-request-headers", "X-A, X-B")
                .header("access-control-request-private-network", "true")
        };
        let plugin = world.link(
            entry(),
            json!({"methods": ["GET", "PUT"], "max_age": 60, "private_network": true}),
        );
        let mut exchange = world.exchange(preflight());
        let Flow::Respond(answer) = plugin.access(&mut exchange) else {
            panic!("expected an answer");
        };
        let mut seen: Vec<String> = answer
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "access-control-allow-headers: X-A, X-B",
                "access-control-allow-methods: GET,PUT",
                "access-control-allow-origin: *",
                "access-control-allow-private-network: true",
                "access-control-max-age: 60",
                "content-length: 0",
            ]
        );
        // The answer is complete: header_filter adds nothing.
        let mut head = ResponseHeader::build(200, None).unwrap();
        plugin.header_filter(&mut exchange, &mut head);
        assert!(head.headers.is_empty());

        let lenient = world.link(entry(), json!({"preflight_continue": true}));
        let flow = lenient.access(&mut world.exchange(preflight()));
        assert!(matches!(flow, Flow::Continue));
    }

    #[test]
    fn joins_vary_and_skips_requests_without_origin() {
        let world = World::new();
        let config = json!({"origins": ["http://a.test"], "allow_origin_absent": false,
            "exposed_headers": ["X-A"]});
        let plugin = world.link(entry(), config);
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("Vary", "Accept").unwrap();
        plugin.header_filter(&mut world.exchange(Message::get("/")), &mut head);
        assert_eq!(head.headers.len(), 1);
        let mut exchange = world.exchange(Message::get("/").header("origin", "http://a.test"));
        plugin.header_filter(&mut exchange, &mut head);
        assert_eq!(head.headers[VARY], "Accept, Origin");
        assert_eq!(head.headers[ACCESS_CONTROL_EXPOSE_HEADERS], "X-A");
    }
}
