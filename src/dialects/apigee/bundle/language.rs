//! Judging conditions and templates where they are written.

use crate::dialects::apigee::condition::Condition;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::xml::{Element, Findings};

/// Says what is wrong with a condition.
pub(super) fn check_condition(text: &str) -> Result<(), String> {
    let parsed = Condition::parse(text);
    parsed.map(drop).map_err(|error| error.to_string())
}

/// A URL, which may be a template: it must begin with a scheme that is spoken, or with a variable.
pub(super) fn check_url(text: &str, element: Element<'_>, findings: &mut Findings) {
    let known = ["http://", "https://", "{"];
    if !known.iter().any(|start| text.starts_with(start)) {
        findings.error(
            "url",
            element.place().about("<URL>"),
            format!("'{text}' must begin with http:// or https://, or with a variable in braces"),
        );
    }
    check_template(text, element, "<URL>", findings);
}

/// A text that may be a template.
pub(super) fn check_template(
    text: &str,
    element: Element<'_>,
    what: &str,
    findings: &mut Findings,
) {
    if let Err(error) = Template::parse(text) {
        findings.push(error.diagnostic(element.place().about(what)));
    }
}
