//! `KeyValueMapOperations`: reads and writes entries of a key-value map.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place, template, variable};
use super::{Parsed, PolicyReader};
use crate::dialects::apigee::xml::{Element, Fields, Findings, boolean_of};

/// The map when nobody names one.
const MAP_DEFAULT: &str = "kvmap";
/// Most operations, and parts of a key.
const LIST_MAX: usize = 100;

/// Where the map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Organization,
    Environment,
    Proxy,
    Policy,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Get {
        key: Vec<RefOrText>,
        assign_to: String,
        /// Which of several values, from 1; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<usize>,
    },
    Put {
        key: Vec<RefOrText>,
        values: Vec<RefOrText>,
        /// In place of what is there.
        replaces: bool,
    },
    Delete {
        key: Vec<RefOrText>,
    },
}

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// A template.
    pub map: String,
    pub scope: Scope,
    /// Entries that are there from the start: written when their key is absent.
    pub initial: Vec<(Vec<RefOrText>, Vec<RefOrText>)>,
    pub operations: Vec<Operation>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let root = reader.fields.element();
    let attribute = reader
        .fields
        .attribute_text("mapIdentifier")
        .map(str::to_owned);
    let findings = &mut *reader.findings;
    let map = reader.fields.child("MapName", findings).map(|element| {
        let mut fields = Fields::new(element);
        let reference = fields
            .attribute_text("ref")
            .map(|name| format!("{{{name}}}"));
        fields.finish(findings);
        reference.unwrap_or_else(|| template(&element.text(), element, findings))
    });
    let map = map.or(attribute);
    if map.as_deref().is_some_and(|map| map.trim().is_empty()) {
        findings.error(
            "missing-map",
            place(root),
            "mapIdentifier must not be empty (UnsupportedOperationException)",
        );
        return None;
    }
    let scope = reader.fields.text("Scope", findings);
    let scope = match scope.as_deref().map(str::trim) {
        None | Some("" | "environment") => Scope::Environment,
        Some("organization") => Scope::Organization,
        Some("apiproxy") => Scope::Proxy,
        Some("policy") => Scope::Policy,
        Some(other) => {
            findings.error(
                "invalid-scope",
                place(root),
                format!("Scope '{other}' is not known, allowed are organization, environment, apiproxy and policy"),
            );
            return None;
        }
    };
    let mut initial = Vec::new();
    if let Some(list) = reader.fields.child("InitialEntries", findings) {
        let mut fields = Fields::new(list);
        for entry in fields.children("Entry").take(LIST_MAX) {
            let mut entry_fields = Fields::new(entry);
            let key = read_key(&mut entry_fields, entry, findings);
            let values = read_values(&mut entry_fields, entry, findings);
            entry_fields.finish(findings);
            initial.push((key?, values?));
        }
        fields.finish(findings);
    }
    // Values are read where they are: there is nothing to expire.
    reader
        .fields
        .ignore(&["ExpiryTimeInSecs", "ExclusiveCache"]);
    for name in ["Get", "Put", "Delete"] {
        let _ = reader.fields.children(name).count();
    }
    let mut operations = Vec::new();
    for element in root.children().take(LIST_MAX) {
        let mut fields = Fields::new(element);
        let operation = match element.name() {
            "Get" => {
                let assign_to = fields.required_attribute("assignTo", findings)?;
                let assign_to = variable(assign_to, element, findings)?;
                let index = fields.attribute_text("index").map(str::to_owned);
                let index = match index.as_deref().map(|text| text.trim().parse::<usize>()) {
                    None => None,
                    Some(Ok(index)) if index > 0 => Some(index),
                    Some(_) => {
                        findings.error(
                            "invalid-index",
                            place(element),
                            "index must be a whole number from 1 (InvalidIndex)",
                        );
                        return None;
                    }
                };
                Operation::Get {
                    key: read_key(&mut fields, element, findings)?,
                    assign_to,
                    index,
                }
            }
            "Put" => {
                let replaces = fields.attribute_text("override").and_then(boolean_of);
                Operation::Put {
                    key: read_key(&mut fields, element, findings)?,
                    values: read_values(&mut fields, element, findings)?,
                    replaces: replaces.unwrap_or(false),
                }
            }
            "Delete" => Operation::Delete {
                key: read_key(&mut fields, element, findings)?,
            },
            _ => continue,
        };
        fields.finish(findings);
        operations.push(operation);
    }
    reader.parsed(&Config {
        map: map.unwrap_or_else(|| MAP_DEFAULT.to_owned()),
        scope,
        initial,
        operations,
    })
}

fn read_key(
    fields: &mut Fields<'_>,
    at: Element<'_>,
    findings: &mut Findings,
) -> Option<Vec<RefOrText>> {
    let Some(key) = fields.child("Key", findings) else {
        findings.error("missing-key", place(at), "needs <Key> (KeyIsMissing)");
        return None;
    };
    let mut inner = Fields::new(key);
    let parts: Vec<RefOrText> = inner
        .children("Parameter")
        .take(LIST_MAX)
        .map(|part| RefOrText::read(part, findings))
        .collect();
    inner.finish(findings);
    if parts.is_empty() {
        findings.error(
            "missing-key",
            place(key),
            "needs <Parameter> (KeyIsMissing)",
        );
        return None;
    }
    Some(parts)
}

fn read_values(
    fields: &mut Fields<'_>,
    at: Element<'_>,
    findings: &mut Findings,
) -> Option<Vec<RefOrText>> {
    let values: Vec<RefOrText> = fields
        .children("Value")
        .take(LIST_MAX)
        .map(|value| RefOrText::read(value, findings))
        .collect();
    if values.is_empty() {
        findings.error("missing-value", place(at), "needs <Value> (ValueIsMissing)");
        return None;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn operations_keep_their_order() {
        let (config, findings, _) = read::<Config>(
            "<KeyValueMapOperations name='k' mapIdentifier='m'><Scope>apiproxy</Scope>\
             <Put override='true'><Key><Parameter>a</Parameter><Parameter ref='b'/></Key><Value ref='v'/></Put>\
             <Get assignTo='x' index='2'><Key><Parameter>a</Parameter></Key></Get>\
             <Delete><Key><Parameter>a</Parameter></Key></Delete></KeyValueMapOperations>",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let config = config.unwrap();
        assert_eq!((config.map.as_str(), config.scope), ("m", Scope::Proxy));
        assert!(matches!(
            config.operations.as_slice(),
            [
                Operation::Put { replaces: true, .. },
                Operation::Get { index: Some(2), .. },
                Operation::Delete { .. }
            ]
        ));
        for body in [
            "<Get assignTo='x'/>",
            "<Put><Key><Parameter>a</Parameter></Key></Put>",
            "<Get assignTo='x' index='0'><Key><Parameter>a</Parameter></Key></Get>",
            "<Scope>galaxy</Scope>",
        ] {
            let xml = format!("<KeyValueMapOperations name='k'>{body}</KeyValueMapOperations>");
            let (config, findings, _) = read::<Config>(&xml);
            assert!(
                config.is_none() && findings.iter().any(|one| one.is_error()),
                "{body}"
            );
        }
    }
}
