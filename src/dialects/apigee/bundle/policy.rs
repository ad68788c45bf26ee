//! Policies: what all of them have in common, and the way to the file that reads the rest.

use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::bundle::names::is_part_name;
use crate::dialects::apigee::policies::{self, Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::xml::{Element, Fields, Findings, Kind};

/// A policy read.
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: String,
    /// Its type, as the root element spells it: `AssignMessage`.
    pub kind: &'static str,
    pub enabled: bool,
    pub continue_on_error: bool,
    pub parsed: Parsed,
    /// Bodies that it looks at, as far as its text tells.
    pub bodies: Bodies,
    pub at: SourceRef,
}

/// Reads a file in `policies`. `None` for one that cannot be used; the reason is among the findings.
pub(super) fn read(element: Element<'_>, findings: &mut Findings) -> Option<Policy> {
    let mut fields = Fields::new(element);
    let name = fields.required_attribute("name", findings)?.to_owned();
    if !is_part_name(&name) {
        let message =
            format!("the name '{name}' is not allowed, use letters, digits, blanks and . _ - $ %");
        findings.error("name", fields.place(), message);
    }
    let Some(entry) = policies::entry(element.name()) else {
        let message = format!(
            "policy \"{name}\" has type {}, which this server does not run",
            element.name()
        );
        findings.error("unsupported-policy", element.place(), message);
        return None;
    };
    let enabled = fields.boolean_attribute("enabled", true, findings);
    let continue_on_error = fields.boolean_attribute("continueOnError", false, findings);
    fields.ignore_attributes(&["async"]);
    fields.ignore(&["DisplayName", "Description", "FaultRules"]);
    if !entry.reads_properties {
        fields.ignore(&["Properties"]);
    }
    let mut reader = PolicyReader {
        fields,
        findings,
        name: &name,
    };
    let parsed = (entry.parse)(&mut reader);
    let PolicyReader { fields, .. } = reader;
    fields.finish(findings);
    Some(Policy {
        kind: entry.kind,
        enabled,
        continue_on_error,
        bodies: scan(element),
        parsed: parsed?,
        at: element.place(),
        name,
    })
}

/// The bodies that texts and attributes below an element speak of.
fn scan(element: Element<'_>) -> Bodies {
    let mut bodies = Bodies::default();
    let root = element.node();
    for node in std::iter::once(root).chain(root.descendants()) {
        match node.kind() {
            Kind::Text(text) => bodies = bodies.with(Bodies::in_text(text)),
            Kind::Element(_) => {
                let attributes = node
                    .element()
                    .into_iter()
                    .flat_map(|element| element.attributes().map(|attribute| attribute.value()));
                for value in attributes {
                    bodies = bodies.with(Bodies::in_text(value));
                }
            }
            _ => {}
        }
    }
    bodies
}
