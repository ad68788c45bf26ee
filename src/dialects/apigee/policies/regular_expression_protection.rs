//! `RegularExpressionProtection`: refuses messages in which a pattern is found.

use serde::{Deserialize, Serialize};

use super::extract_variables::{NAMED_SOURCES, TextFrom, namespaces};
use super::texts::{place, regex};
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::json_path::JsonPath;
use crate::dialects::apigee::xml::{Element, Fields, Findings};
use crate::dialects::apigee::xpath::XPath;

/// The most patterns and expressions of one list.
const LIST_MAX: usize = 500;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// None is the current message.
    pub source: Option<String>,
    pub ignore_unresolved: bool,
    pub texts: Vec<Texts>,
    pub namespaces: Vec<(String, String)>,
    /// XPath and patterns.
    pub xml: Vec<(String, Vec<String>)>,
    /// JSONPath and patterns.
    pub json: Vec<(String, Vec<String>)>,
}

/// Patterns that are looked for in one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    pub from: TextFrom,
    pub patterns: Vec<String>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let mut config = Config {
        source: fields
            .filled_text("Source", findings)
            .map(|text| text.into_owned()),
        ignore_unresolved: fields.boolean("IgnoreUnresolvedVariables", false, findings),
        texts: Vec::new(),
        namespaces: Vec::new(),
        xml: Vec::new(),
        json: Vec::new(),
    };
    for element in fields.children("URIPath").take(LIST_MAX) {
        config.texts.push(Texts {
            from: TextFrom::UriPath,
            patterns: patterns(element, Fields::new(element), findings),
        });
    }
    for (child, from) in NAMED_SOURCES {
        for element in fields.children(child).take(LIST_MAX) {
            let mut inner = Fields::new(element);
            let name = inner
                .required_attribute("name", findings)
                .unwrap_or_default()
                .to_owned();
            config.texts.push(Texts {
                from: from(name),
                patterns: patterns(element, inner, findings),
            });
        }
    }
    if let Some(payload) = fields.child("XMLPayload", findings) {
        let mut inner = Fields::new(payload);
        config.namespaces = namespaces(&mut inner, findings);
        for element in inner.children("XPath").take(LIST_MAX) {
            let mut item = Fields::new(element);
            item.ignore(&["Type"]);
            let expression = expression(element, &mut item, "EmptyXPathExpression", findings);
            if let Err(reason) = XPath::parse(&expression, &config.namespaces) {
                findings.error("invalid-xpath", place(element), reason);
            }
            config
                .xml
                .push((expression, patterns(element, item, findings)));
        }
        inner.finish(findings);
    }
    if let Some(payload) = fields.child("JSONPayload", findings) {
        let mut inner = Fields::new(payload);
        // Slashes are compared as they are meant, so there is nothing to escape.
        inner.ignore_attributes(&["escapeSlashCharacter"]);
        for element in inner.children("JSONPath").take(LIST_MAX) {
            let mut item = Fields::new(element);
            let expression = expression(element, &mut item, "EmptyJSONPathExpression", findings);
            if let Err(reason) = JsonPath::parse(&expression) {
                findings.error("invalid-json-path", place(element), reason);
            }
            config
                .json
                .push((expression, patterns(element, item, findings)));
        }
        inner.finish(findings);
    }
    if config.texts.is_empty() && config.xml.is_empty() && config.json.is_empty() {
        reader.error("nothing-to-enforce", "looks at nothing (NothingToEnforce), add <URIPath>, <QueryParam>, <Header>, <FormParam>, <Variable>, <XMLPayload> or <JSONPayload>");
    }
    let looks_inside = !config.xml.is_empty()
        || !config.json.is_empty()
        || config
            .texts
            .iter()
            .any(|texts| matches!(texts.from, TextFrom::FormParameter(_)));
    let bodies = match &config.source {
        _ if !looks_inside => Bodies::NONE,
        None => Bodies::CURRENT,
        Some(source) => Bodies::in_text(source),
    };
    Some(reader.parsed(&config)?.with_bodies(bodies))
}

fn expression(
    element: Element<'_>,
    fields: &mut Fields<'_>,
    code: &str,
    findings: &mut Findings,
) -> String {
    let text = fields
        .filled_text("Expression", findings)
        .map(|text| text.into_owned());
    text.unwrap_or_else(|| {
        findings.error(
            "missing-element",
            place(element),
            format!("needs <Expression> ({code})"),
        );
        String::new()
    })
}

fn patterns(element: Element<'_>, mut fields: Fields<'_>, findings: &mut Findings) -> Vec<String> {
    let mut list = Vec::new();
    for child in fields.children("Pattern").take(LIST_MAX) {
        let mut inner = Fields::new(child);
        let ignore_case = inner.boolean_attribute("ignoreCase", false, findings);
        inner.finish(findings);
        let text = child.text();
        let pattern = if ignore_case {
            format!("(?i){text}")
        } else {
            text.into_owned()
        };
        list.push(regex(&pattern, child, findings));
    }
    fields.finish(findings);
    if list.is_empty() {
        findings.error(
            "missing-element",
            place(element),
            "needs at least one <Pattern> (NoPatternsToEnforce)",
        );
    }
    list
}
