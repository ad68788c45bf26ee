//! Flows: steps with conditions on the request's and on the response's side, and the rules for faults.

use serde::{Deserialize, Serialize};

use super::language;
use super::names::is_part_name;
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Most steps of one flow and side.
const STEPS_MAX: usize = 1_000;
/// Most conditional flows, and most fault rules, of an endpoint.
const FLOWS_MAX: usize = 2_000;

/// One attachment of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub policy: String,
    /// `None` always holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(skip)]
    pub at: SourceRef,
}

/// Steps for the request and for the response.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<Step>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<Step>,
}

/// A flow that runs when it is the first whose condition holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `None` always holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(default)]
    pub steps: Sides,
}

/// What runs when a fault fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    pub steps: Vec<Step>,
}

/// What runs when no fault rule did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefaultFaultRule {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Runs also after a fault rule did.
    #[serde(default)]
    pub always_enforce: bool,
    pub steps: Vec<Step>,
}

/// The flows of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flows {
    pub pre: Sides,
    /// The first one whose condition holds runs, chosen anew for each side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditional: Vec<Flow>,
    pub post: Sides,
    /// After the answer was sent; proxy endpoints only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_client: Vec<Step>,
    /// In the order in which they are tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fault_rules: Vec<FaultRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_fault_rule: Option<DefaultFaultRule>,
}

/// Whose flows are read: fault rules are tried in different orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Proxy,
    Target,
}

impl Flows {
    /// Shows every list of steps.
    pub fn each_list(&self, mut see: impl FnMut(&[Step])) {
        let flows = self.conditional.iter().map(|flow| &flow.steps);
        for sides in [&self.pre, &self.post].into_iter().chain(flows) {
            see(&sides.request);
            see(&sides.response);
        }
        see(&self.post_client);
        for rule in &self.fault_rules {
            see(&rule.steps);
        }
        if let Some(rule) = &self.default_fault_rule {
            see(&rule.steps);
        }
    }

    /// True when there is nothing to run.
    pub fn is_empty(&self) -> bool {
        let mut steps = 0;
        self.each_list(|list| steps += list.len());
        steps == 0
    }
}

/// Reads the flows of an endpoint.
pub(super) fn read(fields: &mut Fields<'_>, owner: Owner, findings: &mut Findings) -> Flows {
    let mut flows = Flows::default();
    if let Some(element) = fields.child("PreFlow", findings) {
        flows.pre = read_unconditional(element, findings);
    }
    if let Some(element) = fields.child("PostFlow", findings) {
        flows.post = read_unconditional(element, findings);
    }
    if let Some(element) = fields.child("Flows", findings) {
        let mut list = Fields::new(element);
        let children: Vec<_> = list.children("Flow").collect();
        check_count(element, children.len(), FLOWS_MAX, "flows", findings);
        flows.conditional = children
            .into_iter()
            .take(FLOWS_MAX)
            .map(|element| read_conditional(element, findings))
            .collect();
        list.finish(findings);
    }
    let post_client = fields.child("PostClientFlow", findings);
    if let (Some(element), Owner::Proxy) = (post_client, owner) {
        flows.post_client = read_post_client(element, findings);
    } else if let Some(element) = post_client {
        findings.warning(
            "no-effect",
            element.place().about("<PostClientFlow>"),
            "has no effect in a target endpoint, only proxy endpoints have one",
        );
    }
    fields.refuse(
        "EventFlow",
        "events of a stream are passed on as they come",
        findings,
    );
    if let Some(element) = fields.child("FaultRules", findings) {
        let mut list = Fields::new(element);
        let children: Vec<_> = list.children("FaultRule").collect();
        check_count(element, children.len(), FLOWS_MAX, "fault rules", findings);
        flows.fault_rules = children
            .into_iter()
            .take(FLOWS_MAX)
            .map(|element| read_fault_rule(element, findings))
            .collect();
        list.finish(findings);
        // Proxy endpoints try the last rule first, target endpoints the first one.
        if owner == Owner::Proxy {
            flows.fault_rules.reverse();
        }
    }
    if let Some(element) = fields.child("DefaultFaultRule", findings) {
        let mut rule = Fields::new(element);
        let name = rule.attribute_text("name").unwrap_or_default().to_owned();
        let condition = read_condition(&mut rule, findings);
        let always_enforce = rule.boolean("AlwaysEnforce", false, findings);
        let steps = read_steps(&mut rule, findings);
        rule.ignore(&["Description"]);
        rule.finish(findings);
        flows.default_fault_rule = Some(DefaultFaultRule {
            name,
            condition,
            always_enforce,
            steps,
        });
    }
    flows
}

/// Name and steps of a file in `sharedflows`.
pub(super) fn read_shared_flow(
    element: Element<'_>,
    findings: &mut Findings,
) -> Option<(String, Vec<Step>)> {
    if element.name() != "SharedFlow" {
        let message = format!("must be <SharedFlow>, not <{}>", element.name());
        findings.error("wrong-root", element.place(), message);
        return None;
    }
    let mut fields = Fields::new(element);
    let name = fields.required_attribute("name", findings)?.to_owned();
    let steps = read_steps(&mut fields, findings);
    fields.ignore(&["Description", "DisplayName"]);
    fields.finish(findings);
    Some((name, steps))
}

/// The condition of a step, flow, rule or route, when it is not blank. One that cannot be read is reported.
pub(super) fn read_condition(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let element = fields.child("Condition", findings)?;
    let text = element.text();
    if text.is_empty() {
        return None;
    }
    if let Err(error) = language::check_condition(&text) {
        let message = format!("the condition cannot be read: {error}");
        findings.error("condition", element.place().about("<Condition>"), message);
    }
    Some(text.into_owned())
}

fn check_count(
    element: Element<'_>,
    count: usize,
    most: usize,
    what: &str,
    findings: &mut Findings,
) {
    if count > most {
        let message = format!("has {count} {what}, at most {most} are allowed");
        findings.error("too-many-parts", element.place(), message);
    }
}

fn read_unconditional(element: Element<'_>, findings: &mut Findings) -> Sides {
    let mut fields = Fields::new(element);
    fields.ignore_attributes(&["name"]);
    fields.ignore(&["Description", "Condition"]);
    if let Some(condition) = element.child("Condition")
        && !condition.text().is_empty()
    {
        findings.warning(
            "no-effect",
            condition.place().about("<Condition>"),
            format!("has no effect in <{}>, which always runs", element.name()),
        );
    }
    let sides = read_sides(&mut fields, findings);
    fields.finish(findings);
    sides
}

fn read_conditional(element: Element<'_>, findings: &mut Findings) -> Flow {
    let mut fields = Fields::new(element);
    let name = fields.attribute_text("name").unwrap_or_default().to_owned();
    if !is_part_name(&name) {
        let message =
            format!("needs a name of letters, digits, blanks and . _ - $ %, not '{name}'");
        findings.error("name", fields.place(), message);
    }
    let condition = read_condition(&mut fields, findings);
    let description = fields.filled_text("Description", findings);
    let steps = read_sides(&mut fields, findings);
    fields.finish(findings);
    Flow {
        name,
        description: description.map(|text| text.into_owned()),
        condition,
        steps,
    }
}

fn read_sides(fields: &mut Fields<'_>, findings: &mut Findings) -> Sides {
    let mut side = |name: &'static str| {
        let Some(element) = fields.child(name, findings) else {
            return Vec::new();
        };
        let mut fields = Fields::new(element);
        let steps = read_steps(&mut fields, findings);
        fields.finish(findings);
        steps
    };
    Sides {
        request: side("Request"),
        response: side("Response"),
    }
}

fn read_post_client(element: Element<'_>, findings: &mut Findings) -> Vec<Step> {
    let mut fields = Fields::new(element);
    fields.ignore_attributes(&["name"]);
    fields.ignore(&["Description"]);
    let sides = read_sides(&mut fields, findings);
    if !sides.request.is_empty() {
        findings.warning(
            "no-effect",
            fields.place(),
            "has request steps, which have no effect: the answer was sent before it runs",
        );
    }
    fields.finish(findings);
    sides.response
}

fn read_fault_rule(element: Element<'_>, findings: &mut Findings) -> FaultRule {
    let mut fields = Fields::new(element);
    let name = fields.attribute_text("name").unwrap_or_default().to_owned();
    let condition = read_condition(&mut fields, findings);
    let steps = read_steps(&mut fields, findings);
    fields.ignore(&["Description"]);
    fields.finish(findings);
    FaultRule {
        name,
        condition,
        steps,
    }
}

fn read_steps(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<Step> {
    let elements: Vec<_> = fields.children("Step").collect();
    check_count(
        fields.element(),
        elements.len(),
        STEPS_MAX,
        "steps",
        findings,
    );
    elements
        .into_iter()
        .take(STEPS_MAX)
        .filter_map(|element| read_step(element, findings))
        .collect()
}

fn read_step(element: Element<'_>, findings: &mut Findings) -> Option<Step> {
    let mut fields = Fields::new(element);
    let policy = fields.required_text("Name", findings);
    let condition = read_condition(&mut fields, findings);
    if let Some(rules) = fields.child("FaultRules", findings)
        && rules.children().next().is_some()
    {
        findings.warning(
            "no-effect",
            rules.place().about("<FaultRules>"),
            "has no effect in a step, the endpoint's fault rules count",
        );
    }
    fields.ignore(&["Description"]);
    fields.finish(findings);
    Some(Step {
        policy: policy?.into_owned(),
        condition,
        at: element.place(),
    })
}
