//! `ExtractVariables`: parts of a message, or of other variables, into variables.

use serde::{Deserialize, Serialize};

use super::texts::{place, template};
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::json_path::JsonPath;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::text_pattern::TextPattern;
use crate::dialects::apigee::xml::{Element, Fields, Findings};
use crate::dialects::apigee::xpath::XPath;

/// The most patterns, paths and expressions of one list.
const LIST_MAX: usize = 200;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub source: String,
    /// The source's body is emptied afterwards.
    pub clear_payload: bool,
    pub prefix: Option<String>,
    pub ignore_unresolved: bool,
    pub texts: Vec<TextSource>,
    pub json: Vec<JsonVariable>,
    pub xml: Option<XmlSource>,
}

/// Texts that patterns are matched against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSource {
    pub from: TextFrom,
    /// All patterns are tried, not only until one matches.
    pub all: bool,
    pub patterns: Vec<PatternText>,
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFrom {
    UriPath,
    QueryParameter(String),
    Header(String),
    FormParameter(String),
    Variable(String),
}

/// Makes a source from the name of a child's `name` attribute.
type FromName = fn(String) -> TextFrom;

/// Elements with a name, and the source that they stand for.
pub(super) const NAMED_SOURCES: [(&str, FromName); 4] = [
    ("QueryParam", TextFrom::QueryParameter),
    ("Header", TextFrom::Header),
    ("FormParam", TextFrom::FormParameter),
    ("Variable", TextFrom::Variable),
];

/// A pattern as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternText {
    pub text: String,
    pub ignore_case: bool,
}

/// A variable's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableType {
    #[default]
    String,
    Boolean,
    Integer,
    Long,
    Float,
    Double,
    Nodeset,
}

const TYPES: [(&str, VariableType); 7] = [
    ("string", VariableType::String),
    ("boolean", VariableType::Boolean),
    ("integer", VariableType::Integer),
    ("long", VariableType::Long),
    ("float", VariableType::Float),
    ("double", VariableType::Double),
    ("nodeset", VariableType::Nodeset),
];

/// A variable from JSON; the path is a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonVariable {
    pub name: String,
    pub kind: VariableType,
    pub path: String,
}

/// Variables from XML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XmlSource {
    pub namespaces: Vec<(String, String)>,
    /// Nothing further is evaluated after the first expression that gives something.
    pub stops: bool,
    pub variables: Vec<XmlVariable>,
}

/// A variable from XML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XmlVariable {
    pub name: String,
    pub kind: VariableType,
    pub expression: String,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let mut config = Config {
        source: "message".to_owned(),
        clear_payload: false,
        prefix: fields
            .filled_text("VariablePrefix", findings)
            .map(|text| text.into_owned()),
        ignore_unresolved: fields.boolean("IgnoreUnresolvedVariables", false, findings),
        texts: Vec::new(),
        json: Vec::new(),
        xml: None,
    };
    if let Some(source) = fields.child("Source", findings) {
        let mut inner = Fields::new(source);
        config.clear_payload = inner.boolean_attribute("clearPayload", false, findings);
        inner.finish(findings);
        let name = source.text();
        if !name.is_empty() {
            config.source = name.into_owned();
        }
    }
    for element in fields.children("URIPath").take(LIST_MAX) {
        config
            .texts
            .push(texts(element, TextFrom::UriPath, findings));
    }
    for (child, from) in NAMED_SOURCES {
        for element in fields.children(child).take(LIST_MAX) {
            let name = element.attribute("name").map(str::trim).unwrap_or_default();
            if name.is_empty() {
                findings.error(
                    "missing-attribute",
                    place(element),
                    "needs the attribute 'name' (MissingName)",
                );
            }
            config
                .texts
                .push(texts(element, from(name.to_owned()), findings));
        }
    }
    for payload in fields.children("JSONPayload").take(LIST_MAX) {
        json(payload, &mut config.json, findings);
    }
    if let Some(payload) = fields.child("XMLPayload", findings) {
        config.xml = Some(xml(payload, findings));
    }
    if config.texts.is_empty() && config.json.is_empty() && config.xml.is_none() {
        reader.error("nothing-to-extract", "extracts nothing (NothingToExtract), add <URIPath>, <QueryParam>, <Header>, <FormParam>, <Variable>, <JSONPayload> or <XMLPayload>");
    }
    let looks_inside = !config.json.is_empty()
        || config.xml.is_some()
        || config.clear_payload
        || config
            .texts
            .iter()
            .any(|text| matches!(text.from, TextFrom::FormParameter(_)));
    let bodies = if looks_inside {
        Bodies::in_text(&config.source)
    } else {
        Bodies::NONE
    };
    let bodies = if looks_inside && config.source == "message" {
        bodies.with(Bodies::CURRENT)
    } else {
        bodies
    };
    Some(reader.parsed(&config)?.with_bodies(bodies))
}

fn texts(element: Element<'_>, from: TextFrom, findings: &mut Findings) -> TextSource {
    let mut fields = Fields::new(element);
    fields.ignore_attributes(&["name"]);
    let all = fields
        .choice_attribute("match", &[("all", true), ("first", false)], findings)
        .unwrap_or(false);
    let mut patterns = Vec::new();
    for child in fields.children("Pattern").take(LIST_MAX) {
        let mut inner = Fields::new(child);
        let ignore_case = inner.boolean_attribute("ignoreCase", false, findings);
        inner.finish(findings);
        let text = child.text().into_owned();
        let parsed = TextPattern::parse(&text, from == TextFrom::UriPath);
        if let Err(reason) = parsed {
            findings.error("invalid-pattern", place(child), reason);
        }
        patterns.push(PatternText { text, ignore_case });
    }
    if patterns.is_empty() {
        findings.error(
            "missing-element",
            place(element),
            "needs at least one <Pattern>",
        );
    }
    fields.finish(findings);
    TextSource {
        from,
        all,
        patterns,
    }
}

fn variable(
    element: Element<'_>,
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> Option<(String, VariableType)> {
    let name = fields.attribute_text("name").map(str::to_owned);
    let kind = fields
        .choice_attribute("type", &TYPES, findings)
        .unwrap_or_default();
    if name.is_none() {
        findings.error(
            "missing-attribute",
            place(element),
            "needs the attribute 'name' (MissingName)",
        );
    }
    Some((name?, kind))
}

fn json(payload: Element<'_>, into: &mut Vec<JsonVariable>, findings: &mut Findings) {
    let mut fields = Fields::new(payload);
    let mut count = 0;
    for element in fields.children("Variable").take(LIST_MAX) {
        count += 1;
        let mut inner = Fields::new(element);
        let variable = variable(element, &mut inner, findings);
        let path = inner.child("JSONPath", findings);
        inner.finish(findings);
        let Some(path_element) = path.filter(|path| !path.text().is_empty()) else {
            findings.error(
                "missing-element",
                place(element),
                "needs <JSONPath> with a path (EmptyJSONPathExpression)",
            );
            continue;
        };
        let path = template(&path_element.text(), path_element, findings);
        // A path with variables is only known when they are.
        let fixed = Template::parse(&path).is_ok_and(|parsed| parsed.fixed().is_some());
        if fixed && let Err(reason) = JsonPath::parse(&path) {
            findings.error(
                "invalid-json-path",
                place(path_element),
                format!("{reason} (JSONPathCompilationFailed)"),
            );
        }
        let Some((name, kind)) = variable else {
            continue;
        };
        if kind == VariableType::Nodeset {
            findings.error(
                "invalid-value",
                place(element),
                "JSON gives no nodeset (CannotBeConvertedToNodeset)",
            );
        }
        into.push(JsonVariable { name, kind, path });
    }
    if count == 0 {
        findings.error(
            "missing-element",
            place(payload),
            "needs a <Variable> with a <JSONPath> (NoJSONPathsToEvaluate)",
        );
    }
    fields.finish(findings);
}

fn xml(payload: Element<'_>, findings: &mut Findings) -> XmlSource {
    let mut fields = Fields::new(payload);
    let mut source = XmlSource {
        stops: fields.boolean_attribute("stopPayloadProcessing", false, findings),
        ..XmlSource::default()
    };
    source.namespaces = namespaces(&mut fields, findings);
    for element in fields.children("Variable").take(LIST_MAX) {
        let mut inner = Fields::new(element);
        let variable = variable(element, &mut inner, findings);
        let expression = inner.child("XPath", findings);
        inner.finish(findings);
        let Some(expression_element) =
            expression.filter(|expression| !expression.text().is_empty())
        else {
            findings.error(
                "missing-element",
                place(element),
                "needs <XPath> with an expression (EmptyXPathExpression)",
            );
            continue;
        };
        let expression = expression_element.text().into_owned();
        if let Err(reason) = XPath::parse(&expression, &source.namespaces) {
            findings.error(
                "invalid-xpath",
                place(expression_element),
                format!("{reason} (XPathCompilationFailed)"),
            );
        }
        if let Some((name, kind)) = variable {
            source.variables.push(XmlVariable {
                name,
                kind,
                expression,
            });
        }
    }
    if source.variables.is_empty() {
        findings.error(
            "missing-element",
            place(payload),
            "needs a <Variable> with an <XPath> (NoXPathsToEvaluate)",
        );
    }
    fields.finish(findings);
    source
}

/// `<Namespaces><Namespace prefix="p">uri</Namespace></Namespaces>`
pub(super) fn namespaces(
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    let Some(element) = fields.child("Namespaces", findings) else {
        return list;
    };
    let mut inner = Fields::new(element);
    for namespace in inner.children("Namespace").take(LIST_MAX) {
        let mut item = Fields::new(namespace);
        let prefix = item.attribute_text("prefix").unwrap_or_default().to_owned();
        item.finish(findings);
        let uri = namespace.text().into_owned();
        if uri.is_empty() {
            findings.error(
                "invalid-value",
                place(namespace),
                "needs a URI (NONEmptyPrefixMappedToEmptyURI)",
            );
        }
        if list.iter().any(|(known, _)| *known == prefix) {
            findings.error(
                "invalid-value",
                place(namespace),
                format!("the prefix '{prefix}' is declared twice (DuplicatePrefix)"),
            );
        }
        list.push((prefix, uri));
    }
    inner.finish(findings);
    list
}
