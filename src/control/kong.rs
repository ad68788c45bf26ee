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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::control::ControlPlane;
    use crate::control::store::embedded::{EmbeddedStore, Ownership};
    use crate::dialects::kong::entities::{RouterFlavor, WriteContext};
    use crate::dialects::kong::entity_set::RowKey;
    use crate::model::catalog::Catalog;

    fn create(plane: &ControlPlane<EntitySet>, name: &str) -> Result<Uuid, ApiError> {
        let fields = json!({"name": name, "host": "h.test"});
        let written = plane.write_blocking(move |set, moment| {
            let mut new_id = Uuid::new_v4;
            let mut context = WriteContext {
                now_millis: moment.unix_ms(),
                flavor: RouterFlavor::default(),
                catalog: &Catalog::default(),
                new_id: &mut new_id,
                already_transformed: false,
            };
            let fields = fields.as_object().cloned().unwrap();
            let written = set.create(EntityKind::Service, fields, &mut context)?;
            Ok((written.row.id, written.changes))
        });
        written.map(|(id, _)| id)
    }

    #[test]
    fn entities_outlive_the_process() {
        let prefix = tempfile::tempdir().unwrap();
        let start = || {
            let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
            ControlPlane::<EntitySet>::start(Arc::new(store), Box::new(|_| {})).unwrap()
        };
        let plane = start();
        let id = create(&plane, "kept").unwrap();
        create(&plane, "dropped").unwrap();
        let refused = create(&plane, "kept").unwrap_err();
        assert_eq!(refused.status(), 409);
        let key = RowKey::Name("dropped".to_owned());
        let deleted = plane
            .write_blocking(move |set, _| Ok(((), set.delete(EntityKind::Service, &key, None)?)));
        assert_eq!(deleted.unwrap().1, 3);
        let before = plane.read();
        drop(plane);
        let after = start().read();
        assert_eq!(EntitySet::difference(&before, &after), []);
        assert_eq!(after.len(), 1);
        assert!(after.row(EntityKind::Service, id).is_some());
    }

    #[test]
    fn rows_of_unknown_tables_are_named() {
        let row = |kind: &str, json: &str| StoredRow {
            kind: kind.into(),
            id: Uuid::nil(),
            revision: 1,
            json: json.into(),
        };
        let refused = |kind, json| EntitySet::restore(&[row(kind, json)]).unwrap_err();
        let id = Uuid::nil();
        assert_eq!(
            refused("gadgets", "{}"),
            format!("gadgets {id}: this program knows no such table")
        );
        let text = refused("routes", "[");
        assert!(text.starts_with(&format!("routes {id}: ")), "{text}");
    }
}
