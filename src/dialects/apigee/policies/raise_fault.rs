//! `RaiseFault`: ends the normal flow with a response of its own.

use serde::{Deserialize, Serialize};

use super::message_edits::{self, Edit, Edits};
use super::{Bodies, Parsed, PolicyReader};
use crate::dialects::apigee::xml::Fields;

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub edits: Edits,
    /// `fault.reason` is the reason phrase alone.
    pub short_reason: bool,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let findings = &mut *reader.findings;
    let ignore_unresolved = reader
        .fields
        .boolean("IgnoreUnresolvedVariables", true, findings);
    let short_reason = reader.fields.boolean("ShortFaultReason", false, findings);
    let mut edits = Edits::default();
    if let Some(response) = reader.fields.child("FaultResponse", findings) {
        let mut fields = Fields::new(response);
        edits = message_edits::read(&mut fields, ignore_unresolved, findings);
        fields.finish(findings);
    } else {
        edits.ignore_unresolved = ignore_unresolved;
    }
    let copies =
        |edit: &Edit| matches!(edit, Edit::Copy(copy) if copy.payload && copy.source.is_none());
    let bodies = if edits.steps.iter().any(copies) {
        Bodies::CURRENT
    } else {
        Bodies::NONE
    };
    Some(
        reader
            .parsed(&Config {
                edits,
                short_reason,
            })?
            .with_bodies(bodies),
    )
}
