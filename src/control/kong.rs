//! The Kong entity set as the control plane keeps it.

use std::sync::Arc;

use uuid::Uuid;

use super::entities::{Change as ControlChange, Entities};
use super::store::{Edit, Row as StoredRow};
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::dialects::kong::error::ApiError;

impl ControlChange for Change {
    fn kind(&self) -> &'static str {
        self.kind.table()
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn json_after(&self) -> Option<Arc<str>> {
        self.after.as_ref().map(|row| row.json.clone())
    }

    fn followed_by(self, later: Self) -> Self {
        Change::followed_by(self, later)
    }
}

impl Entities for EntitySet {
    type Change = Change;
    type Error = ApiError;

    fn restore(rows: &[StoredRow]) -> Result<Self, String> {
        let mut entities = Self::new();
        for stored in rows {
            let row = restored(&stored.kind, stored.id, stored.json.clone())?;
            entities.put(Arc::new(row));
        }
        Ok(entities)
    }

    fn absorb(&mut self, edits: &[Edit]) -> Result<Vec<Change>, String> {
        let mut changes = Vec::with_capacity(edits.len());
        for edit in edits {
            match &edit.json {
                Some(json) => {
                    let row = restored(&edit.kind, edit.id, json.clone())?;
                    changes.push(self.put(Arc::new(row)));
                }
                None => changes.extend(self.take(kind_of(&edit.kind, edit.id)?, edit.id)),
            }
        }
        Ok(changes)
    }

    fn difference(before: &Self, after: &Self) -> Vec<Change> {
        Self::difference(before, after)
    }

    fn failure(reason: String) -> ApiError {
        ApiError::database_error(reason)
    }
}

fn kind_of(table: &str, id: Uuid) -> Result<EntityKind, String> {
    EntityKind::from_table(table)
        .ok_or_else(|| format!("{table} {id}: this program knows no such table"))
}

fn restored(table: &str, id: Uuid, json: Arc<str>) -> Result<Row, String> {
    Row::from_stored(kind_of(table, id)?, id, json).map_err(|error| {
        let cause = std::error::Error::source(&error);
        cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    })
}
