//! All entities in memory: rows as compact JSON, and the indexes that reading and checking need.
//!
//! The structure is persistent: a clone is cheap and shares everything, so a write works on a clone and a refused one is
//! simply dropped. Writing is generic over the [entity table](super::entities): start at [`write`] for what POST, PUT,
//! PATCH and DELETE mean, at [`read`] for lists and pages. This module knows neither store nor clock.

mod certificates;
mod index;
mod prepare;
pub mod read;
mod resolve;
pub mod write;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::entities::EntityKind;
use index::RowIndex;

pub use read::{Page, PageQuery, TagFilter, Tagged};
pub use resolve::RowKey;
pub use write::Written;

/// One stored entity. Immutable: a write makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which kind.
    pub kind: EntityKind,
    /// The id, unique within the kind.
    pub id: Uuid,
    /// The whole entity: compact JSON with every field of its schema, null where nothing is set.
    pub json: Arc<str>,
    /// The second since 1970 at which it ends, if it does.
    pub expires_at: Option<u64>,
}

/// One entity before and after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which kind.
    pub kind: EntityKind,
    /// Which one.
    pub id: Uuid,
    /// The row before; `None` when it is new.
    pub before: Option<Arc<Row>>,
    /// The row after; `None` when it is gone.
    pub after: Option<Arc<Row>>,
}

/// Why a stored row cannot be taken in.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {id}: stored text is not a JSON object")]
pub struct BadRow {
    kind: EntityKind,
    id: Uuid,
    #[source]
    cause: Option<serde_json::Error>,
}

impl Row {
    /// A row as it was stored, trusting that it was checked when written.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object.
    pub fn from_stored(kind: EntityKind, id: Uuid, json: Arc<str>) -> Result<Self, BadRow> {
        let parsed: Map<String, Value> = serde_json::from_str(&json).map_err(|cause| BadRow {
            kind,
            id,
            cause: Some(cause),
        })?;
        Ok(Self {
            kind,
            id,
            json,
            expires_at: index::expiry(kind, &parsed),
        })
    }

    fn from_map(kind: EntityKind, id: Uuid, map: Map<String, Value>) -> Self {
        let expires_at = index::expiry(kind, &map);
        Self {
            kind,
            id,
            json: Value::Object(map).to_string().into(),
            expires_at,
        }
    }

    /// The typed view of the row, for example [`Route`](super::entities::Route).
    ///
    /// # Errors
    ///
    /// The row does not have the form of `T`; never for a row that was written through the rules.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.json)
    }

    /// The fields of the row, in schema order.
    pub fn fields(&self) -> Map<String, Value> {
        // Every constructor checked that the text is an object.
        self.parse().unwrap_or_default()
    }

    /// Whether the row has ended by `now_seconds`.
    pub fn has_expired(&self, now_seconds: u64) -> bool {
        self.expires_at.is_some_and(|end| end <= now_seconds)
    }
}

impl Change {
    /// This change and a later one of the same row as one.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        Self {
            before: self.before,
            ..later
        }
    }
}

/// All entities. Cloning is cheap: clones share structure.
#[derive(Debug, Clone, Default)]
pub struct EntitySet {
    rows: OrdMap<(EntityKind, Uuid), Arc<Row>>,
    /// Kind, position in the kind's unique sets, value.
    unique: OrdMap<(EntityKind, u8, Arc<str>), Uuid>,
    /// Parent, kind of the child, position in the kind's links, child.
    links: OrdSet<(Uuid, EntityKind, u8, Uuid)>,
    tags: OrdSet<(Arc<str>, EntityKind, Uuid)>,
    /// Second since 1970 at which the row ends.
    expiring: OrdSet<(u64, EntityKind, Uuid)>,
}

impl EntitySet {
    /// No entity.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows there are, of all kinds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of this id.
    pub fn row(&self, kind: EntityKind, id: Uuid) -> Option<&Arc<Row>> {
        self.rows.get(&(kind, id))
    }

    /// Puts a row in place of the one with its id, unchecked: for rows that were checked when they were written.
    pub fn put(&mut self, row: Arc<Row>) -> Change {
        let (kind, id) = (row.kind, row.id);
        let before = self.rows.insert((kind, id), row.clone());
        if let Some(before) = &before {
            self.unindex(before);
        }
        self.index(&row);
        Change {
            kind,
            id,
            before,
            after: Some(row),
        }
    }

    /// Takes a row out, unchecked; `None` when there is none.
    pub fn take(&mut self, kind: EntityKind, id: Uuid) -> Option<Change> {
        let before = self.rows.remove(&(kind, id))?;
        self.unindex(&before);
        Some(Change {
            kind,
            id,
            before: Some(before),
            after: None,
        })
    }

    /// Does again what a change did elsewhere.
    pub fn apply(&mut self, change: &Change) {
        match &change.after {
            Some(row) => {
                self.put(row.clone());
            }
            None => {
                self.take(change.kind, change.id);
            }
        }
    }

    /// What leads from one set to another. Costs what differs, when one is a descendant of the other.
    pub fn difference(before: &Self, after: &Self) -> Vec<Change> {
        before
            .rows
            .diff(&after.rows)
            .map(|item| match item {
                DiffItem::Add((kind, id), row) => Change {
                    kind: *kind,
                    id: *id,
                    before: None,
                    after: Some(row.clone()),
                },
                DiffItem::Update { old, new } => Change {
                    kind: new.0.0,
                    id: new.0.1,
                    before: Some(old.1.clone()),
                    after: Some(new.1.clone()),
                },
                DiffItem::Remove((kind, id), row) => Change {
                    kind: *kind,
                    id: *id,
                    before: Some(row.clone()),
                    after: None,
                },
            })
            .collect()
    }

    /// Takes out every row that has ended by `now_seconds`. Nothing hangs on rows of the kinds that end.
    pub fn remove_expired(&mut self, now_seconds: u64) -> Vec<Change> {
        let ended: Vec<(EntityKind, Uuid)> = self
            .expiring
            .iter()
            .take_while(|(end, _, _)| *end <= now_seconds)
            .map(|(_, kind, id)| (*kind, *id))
            .collect();
        ended
            .into_iter()
            .filter_map(|(kind, id)| self.take(kind, id))
            .collect()
    }

    fn index(&mut self, row: &Row) {
        let index = RowIndex::of(row);
        for (position, value) in index.unique {
            self.unique.insert((row.kind, position, value), row.id);
        }
        for (parent, position) in index.links {
            self.links.insert((parent, row.kind, position, row.id));
        }
        for tag in index.tags {
            self.tags.insert((tag, row.kind, row.id));
        }
        if let Some(end) = row.expires_at {
            self.expiring.insert((end, row.kind, row.id));
        }
    }

    fn unindex(&mut self, row: &Row) {
        let index = RowIndex::of(row);
        for (position, value) in index.unique {
            let key = (row.kind, position, value);
            // Another row may hold the value by now, when rows arrive from a store in any order.
            if self.unique.get(&key) == Some(&row.id) {
                self.unique.remove(&key);
            }
        }
        for (parent, position) in index.links {
            self.links.remove(&(parent, row.kind, position, row.id));
        }
        for tag in index.tags {
            self.tags.remove(&(tag, row.kind, row.id));
        }
        if let Some(end) = row.expires_at {
            self.expiring.remove(&(end, row.kind, row.id));
        }
    }
}
