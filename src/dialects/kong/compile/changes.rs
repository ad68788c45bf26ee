//! Which routes a set of changes touches; the other parts know by themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::pipeline;
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};

/// The routes to compile again, or to remove: those that changed, those of services that were switched on or off, and
/// those whose pipeline became another one.
pub(super) fn touched_routes(
    before: &EntitySet,
    after: &EntitySet,
    changes: &[Change],
) -> BTreeSet<Uuid> {
    let mut touched = pipeline::routes_with_other_pipeline(before, after, changes);
    for change in changes {
        match change.kind {
            EntityKind::Route => {
                touched.insert(change.id);
            }
            EntityKind::Service if switched(change) => {
                let routes = after.children(EntityKind::Route, "service", change.id);
                touched.extend(routes.map(|row| row.id));
            }
            _ => {}
        }
    }
    touched
}

/// Whether requests may go to a service. Kong: `service.enabled`.
pub(super) fn is_enabled(service: &Row) -> bool {
    #[derive(Deserialize)]
    struct Enabled {
        enabled: bool,
    }
    service.parse().is_ok_and(|Enabled { enabled }| enabled)
}

fn switched(change: &Change) -> bool {
    let enabled = |row: &Option<Arc<Row>>| row.as_ref().is_some_and(|row| is_enabled(row));
    enabled(&change.before) != enabled(&change.after)
}
