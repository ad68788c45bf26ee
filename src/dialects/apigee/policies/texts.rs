//! Templates, conditions and references as policies write them: read and judged in one go.
//!
//! Owns the small shapes that many policies share: an element that is a template, a text with a `ref` attribute, a list of
//! named values. Refuses to know what they are for.

use serde::{Deserialize, Serialize};

use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::java_regex::JavaRegex;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::variables::VariableName;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Where an element was written, with its name as the subject.
pub(super) fn place(element: Element<'_>) -> SourceRef {
    element.place().about(format!("<{}>", element.name()))
}

/// A text that is a template; what is wrong with it becomes a finding.
pub(super) fn template(text: &str, element: Element<'_>, findings: &mut Findings) -> String {
    if let Err(error) = Template::parse(text) {
        findings.push(error.diagnostic(place(element)));
    }
    text.to_owned()
}

/// A text that is a regular expression for finding anywhere.
pub(super) fn regex(text: &str, element: Element<'_>, findings: &mut Findings) -> String {
    if let Err(reason) = JavaRegex::anywhere(text) {
        findings.error("invalid-regular-expression", place(element), reason);
    }
    text.to_owned()
}

/// A text that names a variable.
pub(super) fn variable(
    text: &str,
    element: Element<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > VariableName::BYTES_MAX {
        findings.error(
            "invalid-variable-name",
            place(element),
            "needs the name of a variable",
        );
        return None;
    }
    Some(text.to_owned())
}

/// `<X ref="variable">text</X>`: the variable counts when it is set, else the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefOrText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl RefOrText {
    /// Reads an element; unknown attributes get their warning.
    pub(super) fn read(element: Element<'_>, findings: &mut Findings) -> Self {
        let mut fields = Fields::new(element);
        let reference = fields.attribute_text("ref").map(str::to_owned);
        fields.finish(findings);
        let text = element.text();
        Self {
            reference,
            text: (!text.is_empty()).then(|| text.into_owned()),
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.reference.is_none() && self.text.is_none()
    }
}

/// A value under a name; both are templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

/// The most entries of one list.
const LIST_MAX: usize = 1000;

/// The children of one kind with a `name` attribute: `<Headers><Header name="x">…</Header></Headers>`.
pub(super) fn pairs(list: Element<'_>, child: &'static str, findings: &mut Findings) -> Vec<Pair> {
    let mut fields = Fields::new(list);
    let mut pairs = Vec::new();
    for element in fields.children(child).take(LIST_MAX) {
        let mut item = Fields::new(element);
        let name = item.required_attribute("name", findings);
        item.finish(findings);
        let value = template(&element.text(), element, findings);
        if let Some(name) = name {
            let name = template(name, element, findings);
            check_index(&name, element, findings);
            pairs.push(Pair { name, value });
        }
    }
    fields.finish(findings);
    pairs
}

/// The `name` attributes of the children of one kind.
pub(super) fn names(
    list: Element<'_>,
    child: &'static str,
    findings: &mut Findings,
) -> Vec<String> {
    pairs(list, child, findings)
        .into_iter()
        .map(|pair| pair.name)
        .collect()
}

/// A number behind a name counts from 1.
fn check_index(name: &str, element: Element<'_>, findings: &mut Findings) {
    let index = name
        .rsplit_once('.')
        .and_then(|(_, index)| index.parse::<i64>().ok());
    if index.is_some_and(|index| index < 1) {
        let message = format!("the index in '{name}' must be 1 or more (InvalidIndex)");
        findings.error("invalid-index", place(element), message);
    }
}
