//! What each kind of entity accepts, completes and refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod certificates;
mod consumers;
mod plugins;
mod routes;
mod services;
mod upstreams;

use serde_json::Value;

use super::*;
use crate::dialects::kong::entity_set::testing::World;

/// Creates, and expects these `fields` of a schema violation.
fn refused(world: &mut World, kind: EntityKind, given: Value, expected: Value) {
    let error = world.create(kind, given.clone()).unwrap_err();
    assert_eq!(
        error.fields.clone().map(Value::Object),
        Some(expected),
        "{kind} {given}: {error}"
    );
}

#[test]
fn every_kind_has_a_definition_in_its_place() {
    for flavor in [
        RouterFlavor::Traditional,
        RouterFlavor::TraditionalCompatible,
        RouterFlavor::Expressions,
    ] {
        for (kind, definition) in EntityKind::ALL.iter().zip(EntityTable::of(flavor).iter()) {
            assert_eq!(definition.kind, *kind);
            assert_eq!(EntityKind::from_table(definition.table()), Some(*kind));
            for key in &definition.foreign_keys {
                assert!(key.parent < *kind, "{kind}: parents come first");
                assert!(definition.schema.field(key.field).is_some());
            }
            for set in &definition.unique_sets {
                for field in set.fields {
                    assert!(definition.schema.field(field).is_some(), "{kind} {field}");
                }
            }
        }
    }
}
