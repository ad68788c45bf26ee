//! `Copy`, `Remove`, `Add`, `Set` and `AssignVariable`: how policies build and edit messages.
//!
//! Owns the reading of what AssignMessage, RaiseFault and ServiceCallout have in common. The steps keep the order of the
//! document, because later ones see what earlier ones did.

use serde::{Deserialize, Serialize};

use super::texts::{Pair, names, pairs, place, template, variable};
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Edits in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Edits {
    pub steps: Vec<Edit>,
    /// What is unset reads as empty text instead of failing.
    pub ignore_unresolved: bool,
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    Copy(Box<Copy>),
    Remove(Box<Remove>),
    Add(Box<Add>),
    Set(Box<Set>),
    AssignVariable(Box<AssignVariable>),
}

/// All of a kind, or some by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    All,
    Some(Vec<String>),
}

/// What is copied from another message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Copy {
    /// The message's name; none is the current message.
    pub source: Option<String>,
    pub headers: Option<Names>,
    pub query_parameters: Option<Names>,
    pub form_parameters: Option<Names>,
    pub payload: bool,
    pub verb: bool,
    pub version: bool,
    pub path: bool,
    pub status: bool,
    pub reason: bool,
}

/// What is removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remove {
    pub headers: Option<Names>,
    pub query_parameters: Option<Names>,
    pub form_parameters: Option<Names>,
    pub payload: bool,
}

/// What is appended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Add {
    pub headers: Vec<Pair>,
    pub query_parameters: Vec<Pair>,
    pub form_parameters: Vec<Pair>,
}

/// What is replaced; every text is a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Set {
    pub headers: Vec<Pair>,
    pub query_parameters: Vec<Pair>,
    pub form_parameters: Vec<Pair>,
    pub payload: Option<Payload>,
    pub verb: Option<String>,
    pub version: Option<String>,
    pub path: Option<String>,
    pub status: Option<String>,
    pub reason: Option<String>,
}

/// A body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What stands around variables instead of braces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiters: Option<(String, String)>,
}

/// A variable that is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AssignVariable {
    pub name: String,
    /// The variable whose value counts when it is set.
    pub reference: Option<String>,
    pub template: Option<String>,
    /// A variable that holds a template.
    pub template_reference: Option<String>,
    /// Counts when nothing else gave a value.
    pub value: Option<String>,
}

/// Names of the elements that [`read`] takes.
const STEPS: [&str; 5] = ["Copy", "Remove", "Add", "Set", "AssignVariable"];

/// Reads the edits among the children of an element, in order.
pub(super) fn read(
    fields: &mut Fields<'_>,
    ignores_unresolved: bool,
    findings: &mut Findings,
) -> Edits {
    fields.ignore(&STEPS);
    let ignore_unresolved =
        fields.boolean("IgnoreUnresolvedVariables", ignores_unresolved, findings);
    let mut steps = Vec::new();
    for element in fields.element().children() {
        match element.name() {
            "Copy" => steps.push(Edit::Copy(Box::new(copy(element, findings)))),
            "Remove" => steps.push(Edit::Remove(Box::new(remove(element, findings)))),
            "Add" => steps.push(Edit::Add(Box::new(add(element, findings)))),
            "Set" => steps.push(Edit::Set(Box::new(set(element, findings)))),
            "AssignVariable" => {
                steps.extend(assign(element, findings).map(|it| Edit::AssignVariable(Box::new(it))))
            }
            _ => {}
        }
    }
    Edits {
        steps,
        ignore_unresolved,
    }
}

fn some_names(
    fields: &mut Fields<'_>,
    list: &'static str,
    item: &'static str,
    findings: &mut Findings,
) -> Option<Names> {
    let names = names(fields.child(list, findings)?, item, findings);
    Some(if names.is_empty() {
        Names::All
    } else {
        Names::Some(names)
    })
}

fn some_pairs(
    fields: &mut Fields<'_>,
    list: &'static str,
    item: &'static str,
    findings: &mut Findings,
) -> Vec<Pair> {
    fields
        .child(list, findings)
        .map(|list| pairs(list, item, findings))
        .unwrap_or_default()
}

fn copy(element: Element<'_>, findings: &mut Findings) -> Copy {
    let mut fields = Fields::new(element);
    let copy = Copy {
        source: fields.attribute_text("source").map(str::to_owned),
        headers: some_names(&mut fields, "Headers", "Header", findings),
        query_parameters: some_names(&mut fields, "QueryParams", "QueryParam", findings),
        form_parameters: some_names(&mut fields, "FormParams", "FormParam", findings),
        payload: fields.boolean("Payload", false, findings),
        verb: fields.boolean("Verb", false, findings),
        version: fields.boolean("Version", false, findings),
        path: fields.boolean("Path", false, findings),
        status: fields.boolean("StatusCode", false, findings),
        reason: fields.boolean("ReasonPhrase", false, findings),
    };
    fields.finish(findings);
    copy
}

fn remove(element: Element<'_>, findings: &mut Findings) -> Remove {
    let mut fields = Fields::new(element);
    let payload = fields.child("Payload", findings);
    let remove = Remove {
        headers: some_names(&mut fields, "Headers", "Header", findings),
        query_parameters: some_names(&mut fields, "QueryParams", "QueryParam", findings),
        form_parameters: some_names(&mut fields, "FormParams", "FormParam", findings),
        // `<Payload/>` alone names the body as `<Headers/>` alone names all headers.
        payload: payload.is_some_and(|element| !element.text().eq_ignore_ascii_case("false")),
    };
    fields.finish(findings);
    remove
}

fn add(element: Element<'_>, findings: &mut Findings) -> Add {
    let mut fields = Fields::new(element);
    let add = Add {
        headers: some_pairs(&mut fields, "Headers", "Header", findings),
        query_parameters: some_pairs(&mut fields, "QueryParams", "QueryParam", findings),
        form_parameters: some_pairs(&mut fields, "FormParams", "FormParam", findings),
    };
    fields.finish(findings);
    add
}

fn set(element: Element<'_>, findings: &mut Findings) -> Set {
    let mut fields = Fields::new(element);
    let payload = fields
        .child("Payload", findings)
        .map(|element| payload(element, findings));
    let mut text = |name: &'static str, findings: &mut Findings| {
        let child = fields.child(name, findings)?;
        let text = child.text();
        (!text.is_empty()).then(|| template(&text, child, findings))
    };
    let verb = text("Verb", findings);
    let version = text("Version", findings);
    let path = text("Path", findings);
    let status = text("StatusCode", findings);
    let reason = text("ReasonPhrase", findings);
    if let Some(status) = &status
        && !status.contains('{')
        && !status
            .parse()
            .is_ok_and(|status: u16| (100..=599).contains(&status))
    {
        let message =
            format!("<StatusCode> must be a number from 100 to 599 or a template, not '{status}'");
        findings.error("invalid-value", place(element), message);
    }
    let set = Set {
        payload,
        verb,
        version,
        path,
        status,
        reason,
        headers: some_pairs(&mut fields, "Headers", "Header", findings),
        query_parameters: some_pairs(&mut fields, "QueryParams", "QueryParam", findings),
        form_parameters: some_pairs(&mut fields, "FormParams", "FormParam", findings),
    };
    fields.finish(findings);
    set
}

fn payload(element: Element<'_>, findings: &mut Findings) -> Payload {
    let mut fields = Fields::new(element);
    let content_type = fields
        .attribute_text("contentType")
        .map(|text| template(text, element, findings));
    let prefix = fields.attribute_text("variablePrefix");
    let suffix = fields.attribute_text("variableSuffix");
    for attribute in element.attributes() {
        let known = ["contentType", "variablePrefix", "variableSuffix"];
        if !attribute.is_namespace() && !known.contains(&attribute.name()) {
            let message = format!(
                "attribute '{}' is not known and has no effect",
                attribute.name()
            );
            findings.warning("unknown-element", place(element), message);
        }
    }
    // XML may stand in it without CDATA.
    let text = element.inner_xml().trim().to_owned();
    let delimiters = match (prefix, suffix) {
        (None, None) => None,
        (prefix, suffix) => Some((
            prefix.unwrap_or("{").to_owned(),
            suffix.unwrap_or("}").to_owned(),
        )),
    };
    let parsed = match &delimiters {
        None => Template::parse(&text),
        Some((prefix, suffix)) => Template::parse_delimited(&text, prefix, suffix),
    };
    if let Err(error) = parsed {
        findings.push(error.diagnostic(place(element)));
    }
    Payload {
        text,
        content_type,
        delimiters,
    }
}

fn assign(element: Element<'_>, findings: &mut Findings) -> Option<AssignVariable> {
    let mut fields = Fields::new(element);
    let name = fields.text("Name", findings).unwrap_or_default();
    let reference = fields.filled_text("Ref", findings);
    let mut assign = AssignVariable {
        reference: reference.map(|text| text.into_owned()),
        ..AssignVariable::default()
    };
    if let Some(child) = fields.child("Template", findings) {
        let mut inner = Fields::new(child);
        assign.template_reference = inner.attribute_text("ref").map(str::to_owned);
        inner.finish(findings);
        let text = child.text();
        if !text.is_empty() || assign.template_reference.is_none() {
            assign.template = Some(template(&text, child, findings));
        }
    }
    // White space in a value counts.
    assign.value = fields
        .child("Value", findings)
        .map(|child| child.inner_xml().into_owned());
    if let Some(set) = fields.filled_text("PropertySetRef", findings) {
        assign.reference.get_or_insert(format!("propertyset.{set}"));
    }
    fields.refuse(
        "ResourceURL",
        "put the text into <Value> or <Template>",
        findings,
    );
    fields.finish(findings);
    assign.name = variable(&name, element, findings)?;
    Some(assign)
}
