//! Where a target endpoint or a callout leads: a URL, target servers, another proxy, or a script.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::language;
use super::properties::{TargetProperties, read_target_properties};
use super::tls::{TlsInfo, read_tls};
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Most servers of a load balancer.
const SERVERS_MAX: usize = 1_000;

/// The way out of a target endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    Http(Box<HttpTarget>),
    Local(LocalTarget),
    Script(Box<ScriptTarget>),
}

/// `<HTTPTargetConnection>`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpTarget {
    /// A template; absent with a balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
    /// A template; only with a balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<HealthMonitor>,
    pub properties: TargetProperties,
}

/// `<LoadBalancer>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    pub algorithm: Algorithm,
    pub servers: Vec<BalancerServer>,
    /// Failures in a row after which a server is left out; 0: never.
    pub max_failures: u32,
    pub retry: bool,
    /// Statuses that count as failures.
    pub unhealthy_codes: Vec<u16>,
    /// After how long a server that was left out is tried again.
    pub disable_seconds: u32,
}

/// `<Algorithm>`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    RoundRobin,
    Weighted,
    LeastConnections,
}

/// One `<Server>` of a balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BalancerServer {
    pub name: String,
    pub weight: u32,
    pub enabled: bool,
    pub fallback: bool,
}

/// `<HealthMonitor>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthMonitor {
    pub interval_seconds: u32,
    pub monitor: Monitor,
}

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    Tcp {
        connect_timeout_seconds: u32,
        port: Option<u16>,
    },
    Http(Box<HttpMonitor>),
}

/// `<HTTPMonitor>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpMonitor {
    pub connect_timeout_seconds: u32,
    pub read_timeout_seconds: u32,
    pub port: Option<u16>,
    pub verb: String,
    pub path: String,
    pub payload: Option<String>,
    pub headers: Vec<(String, String)>,
    pub tls: Option<bool>,
    pub trusts_all: bool,
    pub uses_server_tls: bool,
    pub sends_id: bool,
    /// Empty: 200.
    pub success_codes: Vec<u16>,
    pub success_headers: Vec<(String, String)>,
}

/// `<LocalTargetConnection>`: another proxy of the same environment. Names are templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalTarget {
    Proxy { proxy: String, endpoint: String },
    Path(String),
}

/// `<ScriptTarget>`: a Node.js program of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptTarget {
    /// `node://server.js`
    pub resource: String,
    pub environment: BTreeMap<String, String>,
    pub arguments: Vec<String>,
    /// Of a connection beside it, which it takes the place of.
    pub properties: TargetProperties,
}

/// Reads the one way out of a target endpoint.
pub(super) fn read(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Connection> {
    let spellings = ["HTTPTargetConnection", "HttpTargetConnection"];
    let http = fields.child_spelled(&spellings, findings);
    let local = fields.child("LocalTargetConnection", findings);
    let script = fields.child("ScriptTarget", findings);
    if let Some(element) = fields.child("HostedTarget", findings) {
        findings.error(
            "HostedTargetNotSupported",
            element.place().about("<HostedTarget>"),
            "is not supported, it runs in Apigee's cloud only; use a ScriptTarget or a HTTPTargetConnection",
        );
        return None;
    }
    let place = fields.place();
    let read_http =
        |findings: &mut Findings| http.map(|element| read_http_target(element, findings));
    match (script, local) {
        (Some(script), _) => {
            let beside = read_http(findings);
            if beside.is_some() || local.is_some() {
                findings.warning(
                    "no-effect",
                    place,
                    "has a <ScriptTarget> beside another connection, the script counts",
                );
            }
            let mut target = read_script(script, findings)?;
            if let Some(beside) = beside {
                target.properties = beside.properties;
            }
            Some(Connection::Script(Box::new(target)))
        }
        (None, Some(local)) => {
            if http.is_some() {
                findings.error(
                    "several-targets",
                    place,
                    "has both <HTTPTargetConnection> and <LocalTargetConnection>, one is allowed",
                );
            }
            Some(Connection::Local(read_local_target(local, findings)?))
        }
        (None, None) => match read_http(findings) {
            Some(target) => Some(Connection::Http(Box::new(target))),
            None => {
                findings.error(
                    "no-target",
                    place,
                    "needs one of <HTTPTargetConnection>, <LocalTargetConnection> and <ScriptTarget>",
                );
                None
            }
        },
    }
}

/// Reads `<HTTPTargetConnection>`, also that of a callout.
pub fn read_http_target(element: Element<'_>, findings: &mut Findings) -> HttpTarget {
    let mut fields = Fields::new(element);
    let url = fields
        .filled_text("URL", findings)
        .map(|text| text.into_owned());
    let balancer = fields
        .child("LoadBalancer", findings)
        .map(|element| read_balancer(element, findings));
    let path = fields
        .filled_text("Path", findings)
        .map(|text| text.into_owned());
    let tls = fields
        .child("SSLInfo", findings)
        .map(|element| read_tls(element, findings));
    let monitor = fields
        .child("HealthMonitor", findings)
        .and_then(|element| read_monitor(element, findings));
    let properties = fields
        .child("Properties", findings)
        .map(|element| read_target_properties(element, findings));
    fields.refuse(
        "Authentication",
        "tokens for Google's services are not made here",
        findings,
    );
    let url = match (&balancer, url) {
        (Some(_), Some(_)) => {
            findings.warning(
                "no-effect",
                fields.place(),
                "has both <URL> and <LoadBalancer>, the balancer counts",
            );
            None
        }
        (None, None) => {
            findings.error(
                "missing-element",
                fields.place(),
                "needs <URL> or <LoadBalancer>",
            );
            None
        }
        (None, Some(url)) => {
            language::check_url(&url, element, findings);
            Some(url)
        }
        (Some(_), None) => None,
    };
    if let Some(path) = &path {
        language::check_template(path, element, "<Path>", findings);
    }
    if path.is_some() && balancer.is_none() {
        findings.warning(
            "no-effect",
            fields.place(),
            "<Path> has no effect without <LoadBalancer>",
        );
    }
    fields.ignore(&["Description"]);
    fields.finish(findings);
    HttpTarget {
        url,
        balancer,
        path,
        tls,
        monitor,
        properties: properties.unwrap_or_default(),
    }
}

/// Reads `<LocalTargetConnection>`, also that of a callout.
pub fn read_local_target(element: Element<'_>, findings: &mut Findings) -> Option<LocalTarget> {
    let mut fields = Fields::new(element);
    let proxy = fields.filled_text("APIProxy", findings);
    let endpoint = fields.filled_text("ProxyEndpoint", findings);
    let path = fields.filled_text("Path", findings);
    for text in [&proxy, &endpoint, &path].into_iter().flatten() {
        language::check_template(text, element, "<LocalTargetConnection>", findings);
    }
    fields.ignore(&["Properties", "Description"]);
    let place = fields.place();
    fields.finish(findings);
    match (proxy, endpoint, path) {
        (Some(proxy), endpoint, None) => Some(LocalTarget::Proxy {
            proxy: proxy.into_owned(),
            endpoint: endpoint.map_or_else(|| "default".to_owned(), |name| name.into_owned()),
        }),
        (None, None, Some(path)) => Some(LocalTarget::Path(path.into_owned())),
        _ => {
            let message = "needs either <APIProxy> and <ProxyEndpoint>, or <Path>";
            findings.error("missing-element", place, message);
            None
        }
    }
}

fn read_balancer(element: Element<'_>, findings: &mut Findings) -> Balancer {
    let mut fields = Fields::new(element);
    let words = [
        ("RoundRobin", Algorithm::RoundRobin),
        ("Weighted", Algorithm::Weighted),
        ("LeastConnections", Algorithm::LeastConnections),
    ];
    let algorithm = fields
        .choice("Algorithm", &words, findings)
        .unwrap_or(Algorithm::RoundRobin);
    let elements: Vec<_> = fields.children("Server").take(SERVERS_MAX + 1).collect();
    if elements.is_empty() || elements.len() > SERVERS_MAX {
        let message = format!("needs from 1 to {SERVERS_MAX} <Server>");
        findings.error("missing-element", fields.place(), message);
    }
    let mut servers = Vec::new();
    for element in elements {
        servers.extend(read_server(element, algorithm, findings));
    }
    if servers
        .iter()
        .filter(|server: &&BalancerServer| server.fallback)
        .count()
        > 1
    {
        findings.error(
            "several-fallbacks",
            fields.place(),
            "may have one fallback server at most",
        );
    }
    let max_failures = fields
        .number("MaxFailures", 0..=1_000_000, findings)
        .unwrap_or(0);
    let retry = fields.boolean("RetryEnabled", true, findings);
    let unhealthy_codes = fields
        .child("ServerUnhealthyResponse", findings)
        .map(|element| read_codes(element, findings))
        .unwrap_or_default();
    let disable_seconds = fields
        .number("TargetDisableSecs", 1..=86_400, findings)
        .unwrap_or(300);
    fields.finish(findings);
    Balancer {
        algorithm,
        servers,
        max_failures,
        retry,
        unhealthy_codes,
        disable_seconds,
    }
}

fn read_server(
    element: Element<'_>,
    algorithm: Algorithm,
    findings: &mut Findings,
) -> Option<BalancerServer> {
    let mut fields = Fields::new(element);
    let name = fields.required_attribute("name", findings);
    let weight = fields.number("Weight", 1..=65_535, findings);
    if algorithm == Algorithm::Weighted && weight.is_none() {
        findings.error(
            "missing-element",
            fields.place(),
            "needs a <Weight>, the algorithm is Weighted",
        );
    }
    let enabled = fields.boolean("IsEnabled", true, findings);
    let fallback = fields.boolean("IsFallback", false, findings);
    fields.finish(findings);
    Some(BalancerServer {
        name: name?.to_owned(),
        weight: match algorithm {
            Algorithm::Weighted => weight.unwrap_or(1),
            Algorithm::RoundRobin | Algorithm::LeastConnections => 1,
        },
        enabled,
        fallback,
    })
}

fn read_codes(element: Element<'_>, findings: &mut Findings) -> Vec<u16> {
    let mut fields = Fields::new(element);
    let mut codes = Vec::new();
    for child in fields.children("ResponseCode") {
        match child.text().parse::<u16>() {
            Ok(code) if (100..=599).contains(&code) => codes.push(code),
            _ => {
                let message = format!("must be a status from 100 to 599, not '{}'", child.text());
                findings.error(
                    "invalid-value",
                    child.place().about("<ResponseCode>"),
                    message,
                );
            }
        }
    }
    fields.ignore(&["Header"]);
    fields.finish(findings);
    codes
}

fn read_headers(element: Element<'_>) -> Vec<(String, String)> {
    element
        .children()
        .filter(|child| child.name() == "Header")
        .filter_map(|child| {
            let name = child.attribute("name")?.trim();
            Some((name.to_owned(), child.text().into_owned()))
        })
        .collect()
}

fn read_monitor(element: Element<'_>, findings: &mut Findings) -> Option<HealthMonitor> {
    let mut fields = Fields::new(element);
    let enabled = fields.boolean("IsEnabled", false, findings);
    let interval = fields.number("IntervalInSec", 1..=86_400, findings);
    let tcp = fields.child("TCPMonitor", findings);
    let http = fields.child("HTTPMonitor", findings);
    let place = fields.place();
    fields.finish(findings);
    let monitor = match (tcp, http) {
        (Some(element), None) => {
            let mut fields = Fields::new(element);
            let timeout = fields.number("ConnectTimeoutInSec", 1..=3_600, findings);
            let port = fields.number("Port", 1..=u16::MAX, findings);
            if timeout.is_none() {
                findings.error(
                    "missing-element",
                    fields.place(),
                    "needs <ConnectTimeoutInSec>",
                );
            }
            fields.finish(findings);
            Monitor::Tcp {
                connect_timeout_seconds: timeout.unwrap_or(10),
                port,
            }
        }
        (None, Some(element)) => Monitor::Http(Box::new(read_http_monitor(element, findings))),
        _ => {
            findings.error(
                "missing-element",
                place,
                "needs either <TCPMonitor> or <HTTPMonitor>",
            );
            return None;
        }
    };
    if interval.is_none() {
        findings.error("missing-element", place, "needs <IntervalInSec>");
    }
    enabled.then_some(HealthMonitor {
        interval_seconds: interval?,
        monitor,
    })
}

fn read_http_monitor(element: Element<'_>, findings: &mut Findings) -> HttpMonitor {
    let mut fields = Fields::new(element);
    let mut read = HttpMonitor {
        connect_timeout_seconds: 10,
        read_timeout_seconds: 30,
        port: None,
        verb: "GET".to_owned(),
        path: "/".to_owned(),
        payload: None,
        headers: Vec::new(),
        tls: None,
        trusts_all: false,
        uses_server_tls: false,
        sends_id: false,
        success_codes: Vec::new(),
        success_headers: Vec::new(),
    };
    match fields.child("Request", findings) {
        None => findings.error("missing-element", fields.place(), "needs <Request>"),
        Some(element) => {
            let mut request = Fields::new(element);
            if let Some(seconds) = request.number("ConnectTimeoutInSec", 1..=3_600, findings) {
                read.connect_timeout_seconds = seconds;
            }
            match request.number("SocketReadTimeoutInSec", 0..=3_600, findings) {
                None | Some(0) => {}
                Some(seconds) => read.read_timeout_seconds = seconds,
            }
            read.port = request.number("Port", 1..=u16::MAX, findings);
            if let Some(verb) = request.filled_text("Verb", findings) {
                read.verb = verb.into_owned();
            }
            if let Some(path) = request.filled_text("Path", findings) {
                read.path = path.into_owned();
            }
            read.payload = request
                .filled_text("Payload", findings)
                .map(|text| text.into_owned());
            read.tls = request.optional_boolean("IsSSL", findings);
            read.trusts_all = request.boolean("TrustAllSSL", false, findings);
            read.uses_server_tls = request.boolean("UseTargetServerSSLInfo", false, findings);
            read.sends_id = request.boolean("IncludeHealthCheckIdHeader", false, findings);
            request.ignore(&["Header"]);
            read.headers = read_headers(element);
            request.finish(findings);
        }
    }
    if let Some(element) = fields.child("SuccessResponse", findings) {
        read.success_codes = read_codes(element, findings);
        read.success_headers = read_headers(element);
    }
    fields.finish(findings);
    read
}

fn read_script(element: Element<'_>, findings: &mut Findings) -> Option<ScriptTarget> {
    let mut fields = Fields::new(element);
    let resource = fields.required_text("ResourceURL", findings);
    let mut environment = BTreeMap::new();
    if let Some(list) = fields.child("EnvironmentVariables", findings) {
        for child in list
            .children()
            .filter(|child| child.name() == "EnvironmentVariable")
        {
            if let Some(name) = child.attribute("name") {
                environment.insert(name.trim().to_owned(), child.text().into_owned());
            }
        }
    }
    let mut arguments = Vec::new();
    if let Some(list) = fields.child("Arguments", findings) {
        let children = list.children().filter(|child| child.name() == "Argument");
        arguments.extend(children.map(|child| child.text().into_owned()));
    }
    fields.ignore(&["Properties"]);
    let place = fields.place();
    fields.finish(findings);
    let resource = resource?.into_owned();
    if !resource.starts_with("node://") {
        let message = format!("<ResourceURL> must begin with node://, not '{resource}'");
        findings.error("invalid-value", place, message);
    }
    Some(ScriptTarget {
        resource,
        environment,
        arguments,
        properties: TargetProperties::default(),
    })
}
