//! Bundles: the files of a proxy or shared flow, read into endpoints, flows and policies.
//!
//! ```text
//! NAME.xml                 base configuration; the folders are the truth, it is read for its shape only
//! proxies/*.xml            [`ProxyEndpoint`]: base path, flows, route rules
//! targets/*.xml            [`TargetEndpoint`]: where requests go, flows around it
//! sharedflows/*.xml        steps of a shared flow
//! policies/*.xml           [`Policy`]: one file each, found by its `name` attribute
//! resources/TYPE/NAME      scripts, schemas, property sets
//! ```
//!
//! Owns the layout and what must hold within one bundle: names, references between its parts, unknown and unsupported
//! elements. Everything that is wrong is reported at once, with file and line. Refuses to know the environment that a
//! bundle is deployed to ([`crate::dialects::apigee::compile`] does). Start at [`parse_proxy`] and [`parse_shared_flow`].

mod connection;
mod endpoint;
mod flow;
mod language;
mod names;
mod policy;
mod properties;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::xml::{Document, Findings, Limits};

pub use connection::{
    Algorithm, Balancer, BalancerServer, Connection, HealthMonitor, HttpMonitor, HttpTarget,
    LocalTarget, Monitor, ScriptTarget, read_http_target, read_local_target,
};
pub use endpoint::{ProxyEndpoint, RouteRule, RouteTo, TargetEndpoint};
pub use flow::{DefaultFaultRule, FaultRule, Flow, Flows, Sides, Step};
pub use names::{is_part_name, is_proxy_name};
pub use policy::Policy;
pub use properties::{
    CodePattern, Compression, ProxyProperties, Retain, TargetProperties, is_success,
};
pub use tls::{CommonName, TlsInfo, read_tls};

/// The files of a bundle by path below its top folder, for example `proxies/default.xml`.
pub type Files = BTreeMap<Arc<str>, Arc<[u8]>>;

/// Most endpoints, policies and shared flows of a bundle, each.
const PARTS_MAX: usize = 2_000;

/// A bundle read.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// In the order of their files.
    pub proxies: Vec<ProxyEndpoint>,
    /// In the order of their files.
    pub targets: Vec<TargetEndpoint>,
    /// By name.
    pub policies: BTreeMap<String, Policy>,
    /// The steps of a shared flow; empty for a proxy.
    pub shared_flow: Vec<Step>,
}

impl Bundle {
    /// The proxy endpoint of this name.
    pub fn proxy(&self, name: &str) -> Option<&ProxyEndpoint> {
        self.proxies.iter().find(|proxy| proxy.name == name)
    }

    /// The target endpoint of this name.
    pub fn target(&self, name: &str) -> Option<&TargetEndpoint> {
        self.targets.iter().find(|target| target.name == name)
    }
}

/// Reads the bundle of a proxy. What is returned beside errors is what could be read.
pub fn parse_proxy(files: &Files) -> (Bundle, Findings) {
    let mut findings = Findings::new();
    let mut bundle = Bundle::default();
    check_base(files, "APIProxy", &mut findings);
    for document in documents(files, "proxies/", &mut findings) {
        if let Some(proxy) = endpoint::read_proxy(document.root(), &mut findings) {
            let known = bundle.proxies.iter().any(|other| other.name == proxy.name);
            push_unique(&mut bundle.proxies, proxy, known, &mut findings, |it| {
                (format!("proxy endpoint \"{}\"", it.name), it.at.clone())
            });
        }
    }
    for document in documents(files, "targets/", &mut findings) {
        if let Some(target) = endpoint::read_target(document.root(), &mut findings) {
            let known = bundle.targets.iter().any(|other| other.name == target.name);
            push_unique(&mut bundle.targets, target, known, &mut findings, |it| {
                (format!("target endpoint \"{}\"", it.name), it.at.clone())
            });
        }
    }
    read_policies(files, &mut bundle, &mut findings);
    if bundle.proxies.is_empty() && !findings.has_errors() {
        findings.error(
            "no-proxy-endpoint",
            SourceRef::document("proxies"),
            "a proxy needs at least one file with a <ProxyEndpoint>",
        );
    }
    check_references(&bundle, &mut findings);
    (bundle, findings)
}

/// Reads the bundle of a shared flow.
pub fn parse_shared_flow(files: &Files) -> (Bundle, Findings) {
    let mut findings = Findings::new();
    let mut bundle = Bundle::default();
    check_base(files, "SharedFlowBundle", &mut findings);
    let mut flows: Vec<(String, Vec<Step>)> = Vec::new();
    for document in documents(files, "sharedflows/", &mut findings) {
        flows.extend(flow::read_shared_flow(document.root(), &mut findings));
    }
    read_policies(files, &mut bundle, &mut findings);
    let default = flows.iter().position(|(name, _)| name == "default");
    match (default, flows.len()) {
        (Some(at), _) => bundle.shared_flow = flows.swap_remove(at).1,
        (None, 1) => bundle.shared_flow = flows.swap_remove(0).1,
        (None, 0) => findings.error(
            "no-shared-flow",
            SourceRef::document("sharedflows"),
            "a shared flow needs a file with a <SharedFlow>",
        ),
        (None, _) => findings.error(
            "no-default-flow",
            SourceRef::document("sharedflows"),
            "one of several shared flows must have the name 'default', it is the one that runs",
        ),
    }
    check_steps(&bundle, &bundle.shared_flow, &mut findings);
    (bundle, findings)
}

/// The text of a resource file, by its URL (`jsc://x.js`) or bare name.
pub fn resource<'a>(files: &'a Files, kind: &str, name: &str) -> Option<&'a Arc<[u8]>> {
    files.get(format!("resources/{kind}/{name}").as_str())
}

/// Type and name of a resource URL such as `jsc://lib/x.js`.
pub fn split_resource(url: &str) -> Option<(&str, &str)> {
    let (kind, name) = url.trim().split_once("://")?;
    let plain = |text: &str| {
        !text.is_empty() && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
    };
    (plain(kind) && !kind.contains('/') && plain(name)).then_some((kind, name))
}

fn push_unique<T>(
    list: &mut Vec<T>,
    part: T,
    known: bool,
    findings: &mut Findings,
    describe: impl Fn(&T) -> (String, SourceRef),
) {
    let (what, at) = describe(&part);
    if known {
        findings.error(
            "duplicate-name",
            at,
            format!("{what} exists twice in the bundle"),
        );
    } else if list.len() >= PARTS_MAX {
        findings.error(
            "too-many-parts",
            at,
            format!("a bundle may have at most {PARTS_MAX} of a kind"),
        );
    } else {
        list.push(part);
    }
}

/// The XML documents of a folder, in the order of their paths; broken ones are reported.
fn documents(files: &Files, folder: &str, findings: &mut Findings) -> Vec<Document> {
    let mut documents = Vec::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_part(path, folder)) {
        documents.extend(document(path, bytes, findings));
    }
    documents
}

/// Is this an XML file directly in the folder? Dot files and editors' copies are not.
fn is_part(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|name| name.ends_with(".xml") && !name.starts_with('.') && !name.contains('/'))
}

fn document(path: &str, bytes: &[u8], findings: &mut Findings) -> Option<Document> {
    let parsed = Document::parse_bytes(path, bytes, Limits::CONFIGURATION);
    parsed
        .map_err(|error| findings.push(error.diagnostic(path)))
        .ok()
}

/// The base configuration must be one well-formed file with the right root; what it lists may be stale.
fn check_base(files: &Files, root: &str, findings: &mut Findings) {
    let mut bases = files.iter().filter(|(path, _)| is_part(path, ""));
    let Some((path, bytes)) = bases.next() else {
        // Tools make bundles without one; nothing in it is needed.
        return;
    };
    if let Some((second, _)) = bases.next() {
        findings.error(
            "several-base-files",
            SourceRef::document(second.clone()),
            format!("a bundle has one base configuration, this is a second one beside {path}"),
        );
    }
    let Some(document) = document(path, bytes, findings) else {
        return;
    };
    let element = document.root();
    if element.name() != root {
        findings.error(
            "wrong-root",
            element.place(),
            format!("must be <{root}>, not <{}>", element.name()),
        );
    }
}

fn read_policies(files: &Files, bundle: &mut Bundle, findings: &mut Findings) {
    for document in documents(files, "policies/", findings) {
        let Some(policy) = policy::read(document.root(), findings) else {
            continue;
        };
        if bundle.policies.len() >= PARTS_MAX {
            let message = format!("a bundle may have at most {PARTS_MAX} policies");
            findings.error("too-many-parts", policy.at, message);
        } else if bundle.policies.contains_key(&policy.name) {
            let message = format!("policy \"{}\" exists twice in the bundle", policy.name);
            findings.error("duplicate-name", policy.at, message);
        } else {
            bundle.policies.insert(policy.name.clone(), policy);
        }
    }
}

/// Steps name policies, route rules name target endpoints.
fn check_references(bundle: &Bundle, findings: &mut Findings) {
    for proxy in &bundle.proxies {
        proxy
            .flows
            .each_list(|steps| check_steps(bundle, steps, findings));
        for rule in &proxy.routes {
            if let RouteTo::Target(name) = &rule.to
                && bundle.target(name).is_none()
            {
                let at = rule
                    .at
                    .clone()
                    .about(format!("route rule \"{}\"", rule.name));
                let known: Vec<_> = bundle.targets.iter().map(|it| it.name.as_str()).collect();
                let message =
                    format!("names the target endpoint '{name}', which the bundle does not have");
                findings.push(
                    crate::base::diagnostic::Diagnostic::error("unknown-target", at, message)
                        .with_hint(match known.is_empty() {
                            true => "it has none".to_owned(),
                            false => format!("it has {}", known.join(", ")),
                        }),
                );
            }
        }
    }
    for target in &bundle.targets {
        target
            .flows
            .each_list(|steps| check_steps(bundle, steps, findings));
    }
    let proxies = bundle.proxies.iter().map(|proxy| &proxy.flows);
    let flows = proxies.chain(bundle.targets.iter().map(|target| &target.flows));
    check_response_caches(bundle, flows, findings);
}

/// A response cache has one attachment in request flows, where it looks up, and one in response flows, where it keeps.
fn check_response_caches<'a>(
    bundle: &Bundle,
    flows: impl Iterator<Item = &'a Flows>,
    findings: &mut Findings,
) {
    let mut seen = std::collections::BTreeSet::new();
    let mut check = |steps: &[Step], side: &'static str, code: &str| {
        for step in steps {
            let policy = bundle.policies.get(&step.policy);
            if policy.is_some_and(|policy| policy.kind == "ResponseCache")
                && !seen.insert((step.policy.clone(), side))
            {
                let message = format!(
                    "attaches the ResponseCache '{}' in {side} flows a second time, one attachment is allowed ({code})",
                    step.policy
                );
                findings.error(
                    "response-cache-attachment",
                    step.at.clone().about("<Step>"),
                    message,
                );
            }
        }
    };
    for flows in flows {
        let conditional = flows.conditional.iter().map(|flow| &flow.steps);
        for sides in [&flows.pre, &flows.post].into_iter().chain(conditional) {
            let (request, response) = (&sides.request, &sides.response);
            check(
                request,
                "request",
                "ResponseCacheStepAttachmentNotAllowedReq",
            );
            check(
                response,
                "response",
                "ResponseCacheStepAttachmentNotAllowedResp",
            );
        }
    }
}

fn check_steps(bundle: &Bundle, steps: &[Step], findings: &mut Findings) {
    for step in steps {
        if !bundle.policies.contains_key(&step.policy) {
            let message = format!(
                "names the policy '{}', which the bundle does not have",
                step.policy
            );
            findings.error("unknown-policy", step.at.clone().about("<Step>"), message);
        }
    }
}
