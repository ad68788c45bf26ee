//! Rows for tests of compilation.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};

/// The id that goes with a name.
pub(super) fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Puts a row with this name's id and the usual times.
pub(super) fn put(set: &mut EntitySet, kind: EntityKind, name: &str, mut fields: Value) -> Change {
    fields["id"] = json!(id(name));
    fields["created_at"] = json!(1);
    fields["updated_at"] = json!(1);
    let row = Row::from_stored(kind, id(name), fields.to_string().into()).unwrap();
    set.put(Arc::new(row))
}

/// The changes that make the set from nothing.
pub(super) fn difference(set: &EntitySet) -> Vec<Change> {
    EntitySet::difference(&EntitySet::new(), set)
}
