//! Whether bodies are held or streamed, and why: the decision of the compiler that `sallyport plan` shows.
//!
//! A body is held when some step, condition or rule looks at it or replaces it. Endpoints that ask for streaming get it,
//! and their steps see empty bodies, as at Apigee.

use std::collections::{BTreeMap, BTreeSet};

use crate::dialects::apigee::bundle::{
    Bundle, Flows, LocalTarget, Policy, ProxyEndpoint, Step, TargetEndpoint,
};
use crate::dialects::apigee::policies::Bodies;
use crate::dialects::apigee::program::{Handling, Hooks};

use super::Surroundings;

/// Most reasons that are told for one body.
const REASONS_MAX: usize = 5;

/// Which flow a step is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

struct Judge<'a> {
    surroundings: &'a Surroundings<'a>,
    request: Vec<String>,
    response: Vec<String>,
    /// Shared flows that were looked at, by side.
    seen: BTreeSet<(String, bool)>,
    /// Bodies of the request and of the response that are held even where the endpoints stream.
    despite: (bool, bool),
}

/// Judges a proxy endpoint with the target endpoints that its rules lead to.
pub(super) fn judge(
    surroundings: &Surroundings<'_>,
    bundle: &Bundle,
    proxy: &ProxyEndpoint,
    targets: &[&TargetEndpoint],
    hooks: &Hooks,
) -> Handling {
    let mut judge = Judge {
        surroundings,
        request: Vec::new(),
        response: Vec::new(),
        seen: BTreeSet::new(),
        despite: (false, false),
    };
    judge.flows(&proxy.flows, &bundle.policies, "the proxy endpoint");
    for rule in &proxy.routes {
        judge.text(rule.condition.as_deref(), Side::Request, || {
            format!("route rule \"{}\"", rule.name)
        });
    }
    let mut handling = Handling::default();
    let mut streams_request = proxy.properties.request_streaming;
    let mut streams_response = proxy.properties.response_streaming;
    let mut limits = (0, 0);
    for target in targets {
        judge.flows(
            &target.flows,
            &bundle.policies,
            &format!("target endpoint \"{}\"", target.name),
        );
        match &target.connection {
            crate::dialects::apigee::bundle::Connection::Http(http) => {
                let kept = &http.properties;
                streams_request |= kept.request_streaming;
                streams_response |= kept.response_streaming;
                limits.0 = limits.0.max(kept.request_payload_bytes_max);
                limits.1 = limits.1.max(kept.response_payload_bytes_max);
                if kept.compression.is_some() {
                    judge.add(Bodies::ALL, Side::Request, || {
                        "compression.algorithm is set".to_owned()
                    });
                }
            }
            crate::dialects::apigee::bundle::Connection::Local(local) => {
                let callee = match local {
                    LocalTarget::Proxy { proxy, .. } => proxy.clone(),
                    LocalTarget::Path(path) => path.clone(),
                };
                judge.add(Bodies::ALL, Side::Request, || {
                    format!("it calls the proxy {callee}, whose steps may look at it")
                });
            }
            crate::dialects::apigee::bundle::Connection::Script(script) => {
                let kept = &script.properties;
                limits.0 = limits.0.max(kept.request_payload_bytes_max);
                limits.1 = limits.1.max(kept.response_payload_bytes_max);
                judge.add(Bodies::ALL, Side::Request, || {
                    format!("the program {} gets whole messages", script.resource)
                });
                judge.despite = (true, true);
            }
        }
    }
    if proxy.properties.compression.is_some() {
        judge.add(Bodies::RESPONSE, Side::Response, || {
            "compression.algorithm is set".to_owned()
        });
    }
    let points = [
        (&hooks.pre_proxy, Side::Request),
        (&hooks.pre_target, Side::Request),
        (&hooks.post_target, Side::Response),
        (&hooks.post_proxy, Side::Response),
    ];
    for (hook, side) in points {
        if let Some(hook) = hook {
            judge.shared_flow(&hook.shared_flow, side);
        }
    }
    streams_request &= !judge.despite.0;
    streams_response &= !judge.despite.1;
    let default = crate::dialects::apigee::bundle::TargetProperties::default();
    handling.request_bytes_max = match limits.0 {
        0 => default.request_payload_bytes_max,
        limit => limit,
    };
    handling.response_bytes_max = match limits.1 {
        0 => default.response_payload_bytes_max,
        limit => limit,
    };
    handling.holds_request = !judge.request.is_empty() && !streams_request;
    handling.holds_response = !judge.response.is_empty() && !streams_response;
    handling.why = why("request", &judge.request, streams_request);
    handling
        .why
        .extend(why("response", &judge.response, streams_response));
    handling
}

fn why(body: &str, reasons: &[String], streams: bool) -> Vec<String> {
    match (reasons.is_empty(), streams) {
        (true, _) => vec![format!("the {body}'s body streams: no step looks at it")],
        (false, true) => vec![format!(
            "the {body}'s body streams: {body}.streaming.enabled is set, although {} looks at it",
            reasons.join(", ")
        )],
        (false, false) => vec![format!("the {body}'s body is held: {}", reasons.join(", "))],
    }
}

impl Judge<'_> {
    fn flows(&mut self, flows: &Flows, policies: &BTreeMap<String, Policy>, of: &str) {
        let conditional = flows.conditional.iter().map(|flow| &flow.steps);
        for sides in [&flows.pre, &flows.post].into_iter().chain(conditional) {
            self.steps(&sides.request, policies, Side::Request);
            self.steps(&sides.response, policies, Side::Response);
        }
        for flow in &flows.conditional {
            for side in [Side::Request, Side::Response] {
                self.text(flow.condition.as_deref(), side, || {
                    format!("flow \"{}\" of {of}", flow.name)
                });
            }
        }
        self.steps(&flows.post_client, policies, Side::Response);
        for rule in &flows.fault_rules {
            self.text(rule.condition.as_deref(), Side::Response, || {
                format!("fault rule \"{}\" of {of}", rule.name)
            });
            self.fault_steps(&rule.steps, policies);
        }
        if let Some(rule) = &flows.default_fault_rule {
            self.fault_steps(&rule.steps, policies);
        }
    }

    /// In the error flow the current message is an answer that is already here, or a target's error, which streams past
    /// whoever replaces it. Only those who read it need it whole.
    fn fault_steps(&mut self, steps: &[Step], policies: &BTreeMap<String, Policy>) {
        for step in steps {
            self.text(step.condition.as_deref(), Side::Response, || {
                format!("a step of policy \"{}\"", step.policy)
            });
            if let Some(policy) = policies.get(&step.policy) {
                let replaces = matches!(policy.kind, "AssignMessage" | "RaiseFault");
                let mut bodies = policy.bodies.with(policy.parsed.bodies);
                bodies.current &= !replaces;
                self.add(bodies, Side::Response, || {
                    format!("policy \"{}\"", step.policy)
                });
            }
        }
    }

    fn steps(&mut self, steps: &[Step], policies: &BTreeMap<String, Policy>, side: Side) {
        for step in steps {
            self.text(step.condition.as_deref(), side, || {
                format!("a step of policy \"{}\"", step.policy)
            });
            let Some(policy) = policies.get(&step.policy) else {
                continue;
            };
            if !policy.enabled {
                continue;
            }
            let bodies = policy.bodies.with(policy.parsed.bodies);
            self.add(bodies, side, || format!("policy \"{}\"", step.policy));
            if policy.parsed.holds_streams {
                match side {
                    Side::Request => self.despite.0 = true,
                    Side::Response => self.despite.1 = true,
                }
            }
            for called in &policy.parsed.shared_flows {
                self.shared_flow(&called.value, side);
            }
            if policy.kind == "FlowCallout" && policy.parsed.shared_flows.is_empty() {
                self.add(Bodies::ALL, side, || {
                    format!("policy \"{}\", which may call any shared flow", step.policy)
                });
            }
        }
    }

    fn shared_flow(&mut self, name: &str, side: Side) {
        if !self.seen.insert((name.to_owned(), side == Side::Request)) {
            return;
        }
        let surroundings = self.surroundings;
        if let Some(shared) = surroundings.shared_flows.get(name) {
            self.steps(&shared.bundle.shared_flow, &shared.bundle.policies, side);
        }
    }

    fn text(&mut self, text: Option<&str>, side: Side, who: impl FnOnce() -> String) {
        if let Some(text) = text {
            self.add(Bodies::in_text(text), side, || {
                format!("the condition of {}", who())
            });
        }
    }

    fn add(&mut self, bodies: Bodies, side: Side, who: impl FnOnce() -> String) {
        let request = bodies.request || (bodies.current && side == Side::Request);
        let response = bodies.response || (bodies.current && side == Side::Response);
        if !request && !response {
            return;
        }
        let who = who();
        let note = |looked: bool, list: &mut Vec<String>| {
            if looked && list.len() < REASONS_MAX && !list.contains(&who) {
                list.push(who.clone());
            }
        };
        note(request, &mut self.request);
        note(response, &mut self.response);
    }
}
