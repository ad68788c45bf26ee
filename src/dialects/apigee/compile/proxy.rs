//! Proxy endpoints to programs: what a bundle refers to is looked up, and put where it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::target::{self, Place};
use super::{Surroundings, handling, id, matcher};
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::bundle::{self, Bundle, Policy, ProxyEndpoint, Step, TargetEndpoint};
use crate::dialects::apigee::describe;
use crate::dialects::apigee::entities::{Cache, FlowHook, HookPoint};
use crate::dialects::apigee::entity_set::{DeployedBundle, Files};
use crate::dialects::apigee::policies::{Callout, javascript};
use crate::dialects::apigee::program::{
    self, Entrance, Hook, Hooks, Program, ProxyProgram, Route, RouteTo, SharedFlow,
};
use crate::dialects::apigee::script::Script;
use crate::dialects::apigee::xml::Findings;
use crate::model::plan::Plan;

/// Longest resource that is compiled in, in bytes.
const RESOURCE_BYTES_MAX: usize = 4 << 20;

/// Compiles all proxy endpoints of a bundle into `plan`.
pub(super) fn compile(
    surroundings: &Surroundings<'_>,
    deployed: &DeployedBundle,
    bundle: &Bundle,
    files: &Files,
    plan: &mut Plan,
    findings: &mut Findings,
) {
    let mut unit = Unit {
        surroundings,
        deployed,
        plan,
        findings,
    };
    for endpoint in &bundle.proxies {
        unit.endpoint(endpoint, bundle, files);
    }
}

/// Judges a shared flow that is about to be deployed.
pub(super) fn check_shared_flow(
    surroundings: &Surroundings<'_>,
    name: &str,
    findings: &mut Findings,
) {
    let mut path = Vec::new();
    check_cycles(surroundings, name, &mut path, findings);
    let Some(shared) = surroundings.shared_flows.get(name) else {
        return;
    };
    let deployed = DeployedBundle {
        organization: surroundings.organization.to_owned(),
        environment: surroundings.environment.to_owned(),
        kind: crate::dialects::apigee::entities::BundleKind::SharedFlow,
        name: name.to_owned(),
        revision: shared.revision,
        deployment: crate::dialects::apigee::entities::Deployment {
            base_path: "/".to_owned(),
            retires_at_ms: None,
            stamp: Default::default(),
        },
    };
    let mut plan = Plan::default();
    let mut unit = Unit {
        surroundings,
        deployed: &deployed,
        plan: &mut plan,
        findings,
    };
    for policy in shared.bundle.policies.values() {
        unit.policy(policy, &shared.files, Some(name));
    }
}

/// Shared flows that call themselves, however far round, are refused.
fn check_cycles(
    surroundings: &Surroundings<'_>,
    name: &str,
    path: &mut Vec<String>,
    findings: &mut Findings,
) {
    if path.iter().any(|other| other == name) {
        if path.first().is_some_and(|first| first == name) {
            let message = format!("calls itself: {} calls {name}", path.join(" calls "));
            let at = SourceRef::subject(format!("shared flow \"{name}\""));
            findings.error("cyclic-callout", at, message);
        }
        return;
    }
    let Some(shared) = surroundings.shared_flows.get(name) else {
        return;
    };
    path.push(name.to_owned());
    for step in &shared.bundle.shared_flow {
        let policy = shared.bundle.policies.get(&step.policy);
        for called in policy
            .into_iter()
            .flat_map(|policy| &policy.parsed.shared_flows)
        {
            check_cycles(surroundings, &called.value, path, findings);
        }
    }
    path.pop();
}

struct Unit<'a> {
    surroundings: &'a Surroundings<'a>,
    deployed: &'a DeployedBundle,
    plan: &'a mut Plan,
    findings: &'a mut Findings,
}

impl Unit<'_> {
    fn endpoint(&mut self, endpoint: &ProxyEndpoint, bundle: &Bundle, files: &Files) {
        let surroundings = self.surroundings;
        let (organization, environment) = (surroundings.organization, surroundings.environment);
        let proxy = self.deployed.name.as_str();
        let hosts = matcher::hosts(surroundings, endpoint, self.findings);
        let base_path =
            describe::prefixed(&self.deployed.deployment.base_path, &endpoint.base_path);
        let program_id = id(&[organization, environment, "program", proxy, &endpoint.name]);
        let mut entrances = BTreeMap::new();
        let mut routes = Vec::new();
        for host in &hosts {
            let route = id(&[
                organization,
                environment,
                "route",
                proxy,
                &endpoint.name,
                &host.name,
            ]);
            let entrance = Entrance {
                virtual_host: host.name.clone(),
                aliases: host.host_aliases.clone(),
                tls: host.is_tls(),
                clients: matcher::clients(surroundings, host, self.plan, self.findings),
            };
            entrances.insert(route, entrance);
            routes.push((route, host));
        }
        let names: BTreeSet<&str> = endpoint
            .routes
            .iter()
            .filter_map(|rule| match &rule.to {
                bundle::RouteTo::Target(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let used: Vec<&TargetEndpoint> = names
            .iter()
            .filter_map(|name| bundle.target(name))
            .collect();
        let hooks = self.hooks();
        let mut targets = BTreeMap::new();
        for target in &used {
            let place = Place {
                surroundings,
                parts: vec![proxy, &endpoint.name, &target.name],
                at: &target.at,
            };
            let way = target::way(&place, &target.connection, files, self.plan, self.findings);
            if let Some(way) = way {
                let compiled = program::Target {
                    flows: target.flows.clone(),
                    way,
                };
                targets.insert(target.name.clone(), compiled);
            }
        }
        let rules = self.rules(endpoint, bundle);
        let mut needed = BTreeSet::new();
        let mut policies = BTreeMap::new();
        let mut see = |steps: &[Step]| needed.extend(steps.iter().map(|step| step.policy.clone()));
        endpoint.flows.each_list(&mut see);
        for target in &used {
            target.flows.each_list(&mut see);
        }
        let mut shared = SharedNames::default();
        for hook in [
            &hooks.pre_proxy,
            &hooks.pre_target,
            &hooks.post_target,
            &hooks.post_proxy,
        ] {
            shared
                .names
                .extend(hook.iter().map(|hook| hook.shared_flow.clone()));
        }
        for name in &needed {
            if let Some(policy) = bundle.policies.get(name) {
                self.note_shared(policy, &mut shared);
                policies.insert(name.clone(), self.policy(policy, files, None));
            }
        }
        self.check_after(endpoint, bundle);
        let program = ProxyProgram {
            organization: organization.to_owned(),
            environment: environment.to_owned(),
            proxy: proxy.to_owned(),
            revision: self.deployed.revision,
            endpoint: endpoint.name.clone(),
            handling: handling::judge(surroundings, bundle, endpoint, &used, &hooks),
            base_path: base_path.clone(),
            configured_base_path: endpoint.base_path.clone(),
            entrances,
            properties: endpoint.properties.clone(),
            flows: endpoint.flows.clone(),
            routes: rules,
            targets,
            policies,
            shared_flows: self.shared_flows(shared),
            hooks,
        };
        let config = match serde_json::to_value(Program::Proxy(Box::new(program))) {
            Ok(config) => config,
            Err(error) => {
                let message = format!("cannot be compiled: {error}");
                return self.findings.error("program", endpoint.at.clone(), message);
            }
        };
        let (key, pipeline) = matcher::pipeline(program_id, config);
        self.plan.pipelines.insert(key, Arc::new(pipeline));
        for (route, host) in routes {
            let name = format!("{proxy}/{}", endpoint.name);
            let compiled = matcher::route(name, host, &base_path, route, key);
            self.plan.routes.insert(route, Arc::new(compiled));
        }
    }

    fn rules(&mut self, endpoint: &ProxyEndpoint, bundle: &Bundle) -> Vec<Route> {
        let mut rules = Vec::new();
        for (index, rule) in endpoint.routes.iter().enumerate() {
            let to = match &rule.to {
                bundle::RouteTo::Nowhere => RouteTo::Nowhere,
                // A target that is missing has been reported.
                bundle::RouteTo::Target(name) if bundle.target(name).is_some() => {
                    RouteTo::Target(name.clone())
                }
                bundle::RouteTo::Target(_) => continue,
                bundle::RouteTo::Url(url) => {
                    let number = index.to_string();
                    let place = Place {
                        surroundings: self.surroundings,
                        parts: vec![&self.deployed.name, &endpoint.name, "rule", &number],
                        at: &rule.at,
                    };
                    let target = bundle::HttpTarget {
                        url: Some(url.clone()),
                        ..Default::default()
                    };
                    match target::http(&place, &target, self.plan, self.findings) {
                        Some(way) => RouteTo::Url(Box::new(way)),
                        None => continue,
                    }
                }
            };
            rules.push(Route {
                name: rule.name.clone(),
                condition: rule.condition.clone(),
                to,
            });
        }
        rules
    }

    fn hooks(&self) -> Hooks {
        let find = |point: HookPoint| {
            let hook: FlowHook = self
                .surroundings
                .set
                .find(&self.surroundings.key(point.word()))?;
            Some(Hook {
                shared_flow: hook.shared_flow,
                continue_on_error: hook.continue_on_error,
            })
        };
        Hooks {
            pre_proxy: find(HookPoint::PreProxy),
            pre_target: find(HookPoint::PreTarget),
            post_target: find(HookPoint::PostTarget),
            post_proxy: find(HookPoint::PostProxy),
        }
    }

    /// A policy with what it refers to.
    fn policy(&mut self, policy: &Policy, files: &Files, shared: Option<&str>) -> program::Policy {
        let surroundings = self.surroundings;
        let mut resources = BTreeMap::new();
        for wanted in &policy.parsed.resources {
            let found = bundle::split_resource(&wanted.value)
                .and_then(|(kind, name)| surroundings.resource(files, kind, name));
            match found.map(|bytes| String::from_utf8(bytes.to_vec())) {
                Some(Ok(text)) if text.len() <= RESOURCE_BYTES_MAX => {
                    resources.insert(wanted.value.clone(), text);
                }
                Some(Ok(_)) => {
                    let message = format!(
                        "the resource {} is longer than {RESOURCE_BYTES_MAX} bytes",
                        wanted.value
                    );
                    self.findings.error("resource", wanted.at.clone(), message);
                }
                Some(Err(_)) => {
                    let message = format!("the resource {} is not UTF-8 text", wanted.value);
                    self.findings.error("resource", wanted.at.clone(), message);
                }
                None => {
                    let message = format!(
                        "there is no resource {} in the bundle, the environment or the organisation",
                        wanted.value
                    );
                    self.findings
                        .error("unknown-resource", wanted.at.clone(), message);
                }
            }
        }
        if surroundings.checks_scripts && policy.kind == "Javascript" {
            self.check_script(policy, &resources, files);
        }
        let mut terms = None;
        for named in &policy.parsed.caches {
            let key = surroundings.key(&named.value);
            match surroundings.set.find::<Cache>(&key) {
                Some(cache) => terms = Some(program::CacheTerms::of(&cache)),
                None => {
                    let message = format!(
                        "the environment {} has no cache '{}' (InvalidCacheResourceReference)",
                        surroundings.environment, named.value
                    );
                    self.findings
                        .error("unknown-cache", named.at.clone(), message);
                }
            }
        }
        let callout = match &policy.parsed.callout {
            None => None,
            Some(Callout::Local(local)) => Some(program::Way::Local(local.clone())),
            Some(Callout::Http(http)) => {
                let mut parts = vec![self.deployed.name.as_str(), "callout"];
                parts.extend(shared);
                parts.push(&policy.name);
                let place = Place {
                    surroundings,
                    parts,
                    at: &policy.at,
                };
                target::http(&place, http, self.plan, self.findings)
                    .map(|way| program::Way::Http(Box::new(way)))
            }
        };
        program::Policy {
            kind: policy.kind.to_owned(),
            enabled: policy.enabled,
            continue_on_error: policy.continue_on_error,
            config: policy.parsed.config.clone(),
            resources,
            callout,
            cache: terms,
        }
    }

    /// A script that does not compile would fail with every request.
    fn check_script(
        &mut self,
        policy: &Policy,
        resources: &BTreeMap<String, String>,
        files: &Files,
    ) {
        let config = javascript::Config::deserialize(&policy.parsed.config);
        let Ok(config) = config else { return };
        // A resource that is missing has been reported.
        let Ok(parts) = config.script_files(&policy.name, resources) else {
            return;
        };
        let Err(problem) = Script::assemble(parts).check() else {
            return;
        };
        let at = match &problem.place {
            Some((file, line)) if **file != *policy.name => {
                let own = bundle::resource(files, "jsc", file).is_some();
                let document = match own {
                    true => format!("resources/jsc/{file}"),
                    false => format!("jsc://{file}"),
                };
                SourceRef::document(document).at_line(*line)
            }
            _ => policy.at.clone(),
        };
        let message = format!(
            "the script of policy \"{}\" does not compile: {problem}",
            policy.name
        );
        self.findings.error("ScriptCompilationFailed", at, message);
    }

    fn note_shared(&mut self, policy: &Policy, shared: &mut SharedNames) {
        for called in &policy.parsed.shared_flows {
            if !self.surroundings.shared_flows.contains_key(&called.value) {
                let message = format!(
                    "the shared flow '{}' is not deployed to {}, calls fail until it is",
                    called.value, self.surroundings.environment
                );
                self.findings
                    .warning("shared-flow", called.at.clone(), message);
            }
            shared.names.insert(called.value.clone());
        }
        if policy.kind == "FlowCallout" && policy.parsed.shared_flows.is_empty() {
            shared
                .names
                .extend(self.surroundings.shared_flows.keys().cloned());
        }
    }

    /// Shared flows with those that they call.
    fn shared_flows(&mut self, wanted: SharedNames) -> BTreeMap<String, SharedFlow> {
        let surroundings = self.surroundings;
        let mut compiled = BTreeMap::new();
        let mut open: Vec<String> = wanted.names.into_iter().collect();
        while let Some(name) = open.pop() {
            if compiled.contains_key(&name) {
                continue;
            }
            let Some(shared) = surroundings.shared_flows.get(&name) else {
                continue;
            };
            check_cycles(surroundings, &name, &mut Vec::new(), self.findings);
            let mut policies = BTreeMap::new();
            for step in &shared.bundle.shared_flow {
                let Some(policy) = shared.bundle.policies.get(&step.policy) else {
                    continue;
                };
                let mut called = SharedNames::default();
                self.note_shared(policy, &mut called);
                open.extend(called.names);
                let compiled = self.policy(policy, &shared.files, Some(&name));
                policies.insert(step.policy.clone(), compiled);
            }
            let flow = SharedFlow {
                revision: shared.revision,
                steps: shared.bundle.shared_flow.clone(),
                policies,
            };
            compiled.insert(name, flow);
        }
        compiled
    }

    /// After the answer was sent only what writes logs has an effect.
    fn check_after(&mut self, endpoint: &ProxyEndpoint, bundle: &Bundle) {
        for step in &endpoint.flows.post_client {
            let Some(policy) = bundle.policies.get(&step.policy) else {
                continue;
            };
            if !matches!(
                policy.kind,
                "MessageLogging" | "FlowCallout" | "StatisticsCollector"
            ) {
                let message = format!(
                    "policy \"{}\" of type {} runs after the answer was sent, where it changes nothing that the client sees",
                    policy.name, policy.kind
                );
                self.findings
                    .warning("post-client-flow", step.at.clone(), message);
            }
        }
    }
}

#[derive(Default)]
struct SharedNames {
    names: BTreeSet<String>,
}
