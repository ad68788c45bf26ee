//! Judging conditions and templates where they are written.

use crate::dialects::apigee::xml::{Element, Findings};

/// Says what is wrong with a condition.
pub(super) fn check_condition(_text: &str) -> Result<(), String> {
    Ok(())
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
}
