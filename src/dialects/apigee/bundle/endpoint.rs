//! Proxy endpoints, target endpoints, and the rules that lead from one to the other.

use serde::{Deserialize, Serialize};

use super::connection::{self, Connection};
use super::flow::{self, Flows, Owner};
use super::language;
use super::names::is_part_name;
use super::properties::{ProxyProperties, read_proxy_properties};
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Longest base path, in segments.
const BASE_PATH_SEGMENTS_MAX: usize = 64;
/// Most route rules of an endpoint.
const ROUTE_RULES_MAX: usize = 2_000;

/// The inbound half of a proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyEndpoint {
    pub name: String,
    pub flows: Flows,
    /// Begins with a slash and does not end with one, but for `/` itself.
    pub base_path: String,
    /// Empty: `default` and, where it exists, `secure`.
    pub virtual_hosts: Vec<String>,
    pub properties: ProxyProperties,
    /// In the order in which they are tried.
    pub routes: Vec<RouteRule>,
    pub at: SourceRef,
}

/// Where requests go, with the flows around it.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetEndpoint {
    pub name: String,
    pub flows: Flows,
    pub connection: Connection,
    pub at: SourceRef,
}

/// One choice of where a request goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    pub to: RouteTo,
    #[serde(skip)]
    pub at: SourceRef,
}

/// Where a route rule leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTo {
    /// To the target endpoint of this name.
    Target(String),
    /// To this URL, a template, without flows around it.
    Url(String),
    /// To no target: the response begins empty.
    Nowhere,
}

/// Reads a file in `proxies`.
pub(super) fn read_proxy(element: Element<'_>, findings: &mut Findings) -> Option<ProxyEndpoint> {
    let (mut fields, name) = begin(element, "ProxyEndpoint", findings)?;
    let flows = flow::read(&mut fields, Owner::Proxy, findings);
    let mut base_path = "/".to_owned();
    let mut virtual_hosts = Vec::new();
    let mut properties = ProxyProperties::default();
    let spellings = ["HTTPProxyConnection", "HttpProxyConnection"];
    if let Some(element) = fields.child_spelled(&spellings, findings) {
        let mut connection = Fields::new(element);
        if let Some(element) = connection.child("BasePath", findings) {
            base_path = read_base_path(element, findings);
        }
        for element in connection.children("VirtualHost") {
            let name = element.text().into_owned();
            if !name.is_empty() && !virtual_hosts.contains(&name) {
                virtual_hosts.push(name);
            }
        }
        if let Some(element) = connection.child("Properties", findings) {
            properties = read_proxy_properties(element, findings);
        }
        connection.refuse(
            "Authentication",
            "callers are verified with policies",
            findings,
        );
        connection.ignore(&["Description"]);
        connection.finish(findings);
    }
    let rules: Vec<_> = fields.children("RouteRule").collect();
    if rules.len() > ROUTE_RULES_MAX {
        let message = format!(
            "has {} route rules, at most {ROUTE_RULES_MAX} are allowed",
            rules.len()
        );
        findings.error("too-many-parts", fields.place(), message);
    }
    let routes: Vec<_> = rules
        .into_iter()
        .take(ROUTE_RULES_MAX)
        .map(|element| read_route_rule(element, findings))
        .collect();
    warn_of_dead_rules(&routes, findings);
    fields.finish(findings);
    Some(ProxyEndpoint {
        name,
        flows,
        base_path,
        virtual_hosts,
        properties,
        routes,
        at: element.place(),
    })
}

/// Reads a file in `targets`.
pub(super) fn read_target(element: Element<'_>, findings: &mut Findings) -> Option<TargetEndpoint> {
    let (mut fields, name) = begin(element, "TargetEndpoint", findings)?;
    let flows = flow::read(&mut fields, Owner::Target, findings);
    let connection = connection::read(&mut fields, findings);
    fields.finish(findings);
    Some(TargetEndpoint {
        name,
        flows,
        connection: connection?,
        at: element.place(),
    })
}

fn begin<'a>(
    element: Element<'a>,
    root: &str,
    findings: &mut Findings,
) -> Option<(Fields<'a>, String)> {
    if element.name() != root {
        let message = format!("must be <{root}>, not <{}>", element.name());
        findings.error("wrong-root", element.place(), message);
        return None;
    }
    let mut fields = Fields::new(element);
    let name = fields.required_attribute("name", findings)?.to_owned();
    if !is_part_name(&name) {
        let message =
            format!("the name '{name}' is not allowed, use letters, digits, blanks and . _ - $ %");
        findings.error("name", fields.place(), message);
    }
    fields.ignore(&["Description", "DisplayName"]);
    Some((fields, name))
}

fn read_base_path(element: Element<'_>, findings: &mut Findings) -> String {
    let text = element.text();
    let place = || element.place().about("<BasePath>");
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return "/".to_owned();
    }
    let segments: Vec<&str> = trimmed.split('/').collect();
    if segments.len() > BASE_PATH_SEGMENTS_MAX {
        let message = format!("has more than {BASE_PATH_SEGMENTS_MAX} segments");
        findings.error("base-path", place(), message);
    }
    if segments.first() == Some(&"*") {
        findings.error(
            "base-path",
            place(),
            "'*' cannot be the first segment of a base path",
        );
    }
    for segment in &segments {
        if segment.is_empty() {
            findings.error("base-path", place(), "has an empty segment");
        } else if *segment != "*" && segment.contains('*') {
            let message = format!(
                "segment '{segment}' is not supported, '*' stands for a whole segment and '**' for nothing"
            );
            findings.error("base-path", place(), message);
        } else if segment
            .bytes()
            .any(|byte| byte <= b' ' || matches!(byte, b'?' | b'#' | 0x7f))
        {
            let message = format!("segment '{segment}' has characters that no path has");
            findings.error("base-path", place(), message);
        }
    }
    format!("/{trimmed}")
}

fn read_route_rule(element: Element<'_>, findings: &mut Findings) -> RouteRule {
    let mut fields = Fields::new(element);
    let name = fields.attribute_text("name").unwrap_or_default().to_owned();
    let condition = flow::read_condition(&mut fields, findings);
    let target = fields.filled_text("TargetEndpoint", findings);
    let url = fields.filled_text("URL", findings);
    fields.refuse(
        "IntegrationEndpoint",
        "requests go to target endpoints and URLs",
        findings,
    );
    if target.is_some() && url.is_some() {
        findings.warning(
            "no-effect",
            fields.place(),
            "has both <TargetEndpoint> and <URL>, only the first counts",
        );
    }
    let to = match (target, url) {
        (Some(name), _) => RouteTo::Target(name.into_owned()),
        (None, Some(url)) => {
            language::check_url(&url, element, findings);
            RouteTo::Url(url.into_owned())
        }
        (None, None) => RouteTo::Nowhere,
    };
    fields.ignore(&["Description"]);
    fields.finish(findings);
    RouteRule {
        name,
        condition,
        to,
        at: element.place(),
    }
}

fn warn_of_dead_rules(routes: &[RouteRule], findings: &mut Findings) {
    let mut rest = routes.iter();
    let Some(always) = rest.find(|rule| rule.condition.is_none()) else {
        return;
    };
    for rule in rest {
        findings.warning(
            "dead-rule",
            rule.at
                .clone()
                .about(format!("route rule \"{}\"", rule.name)),
            format!(
                "is never reached, rule \"{}\" before it has no condition",
                always.name
            ),
        );
    }
}
