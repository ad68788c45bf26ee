//! `BasicAuthentication`: makes a header of a name and password, or takes one apart. It checks neither.

use serde::{Deserialize, Serialize};

use super::texts::{place, variable};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::xml::Fields;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub operation: Operation,
    pub user: String,
    pub password: String,
    /// Where the header's value goes (encode) or comes from (decode).
    pub header: String,
    pub ignore_unresolved: bool,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Encode,
    Decode,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let fields = &mut reader.fields;
    let words = [("Encode", Operation::Encode), ("Decode", Operation::Decode)];
    let operation = fields.choice("Operation", &words, findings);
    if operation.is_none() {
        findings.error(
            "missing-element",
            fields.place(),
            "needs <Operation> Encode or Decode",
        );
    }
    let mut reference = |name: &'static str, code: &str| {
        let element = fields.child(name, findings);
        let written = element.and_then(|element| {
            let mut inner = Fields::new(element);
            let name = inner.attribute_text("ref").map(str::to_owned);
            inner.finish(findings);
            name
        });
        if written.is_none() {
            let at = element.map_or_else(|| fields.place(), place);
            findings.error(
                "missing-element",
                at,
                format!("needs <{name} ref=\"variable\"/> ({code})"),
            );
        }
        written
    };
    let user = reference("User", "UserNameRequired");
    let password = reference("Password", "PasswordRequired");
    let ignore_unresolved = fields.boolean("IgnoreUnresolvedVariables", false, findings);
    let (name, code) = match operation {
        Some(Operation::Decode) => ("Source", "SourceRequired"),
        _ => ("AssignTo", "AssignToRequired"),
    };
    fields.ignore(&["Source", "AssignTo"]);
    let Some(header) = fields
        .child(name, findings)
        .filter(|element| !element.text().is_empty())
    else {
        findings.error(
            "missing-element",
            fields.place(),
            format!("needs <{name}> with a variable ({code})"),
        );
        return None;
    };
    let mut inner = Fields::new(header);
    inner.ignore_attributes(&["createNew"]);
    inner.finish(findings);
    let header = variable(&header.text(), header, findings)?;
    let config = Config {
        operation: operation?,
        user: user?,
        password: password?,
        header,
        ignore_unresolved,
    };
    reader.parsed(&config)
}
