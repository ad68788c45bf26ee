//! A policy's file read as the compiler would.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde::de::DeserializeOwned;

use super::{Bodies, PolicyReader, entry};
use crate::base::diagnostic::Diagnostic;
use crate::dialects::apigee::xml::{Document, Fields, Findings, Limits};

/// The configuration (absent when it was refused), everything that was found, and the bodies it says it looks at.
pub(crate) fn read<C: DeserializeOwned>(text: &str) -> (Option<C>, Vec<Diagnostic>, Bodies) {
    let document = Document::parse("p.xml", text, Limits::CONFIGURATION).unwrap();
    let root = document.root();
    let entry = entry(root.name()).expect("a policy of the table");
    let mut findings = Findings::new();
    let mut fields = Fields::new(root);
    fields.ignore_attributes(&["name"]);
    let mut reader = PolicyReader {
        fields,
        findings: &mut findings,
        name: root.attribute("name").unwrap_or_default(),
    };
    let parsed = (entry.parse)(&mut reader);
    reader.fields.finish(reader.findings);
    let bodies = parsed
        .as_ref()
        .map(|parsed| parsed.bodies)
        .unwrap_or_default();
    let config = parsed.map(|parsed| serde_json::from_value(parsed.config).unwrap());
    (config, findings.into_vec(), bodies)
}
