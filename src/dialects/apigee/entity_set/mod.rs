//! All entities of the dialect in memory: rows as compact JSON under keys that are lists of names.
//!
//! The structure is persistent: a clone is cheap and shares everything. Keys sort so that everything below a parent
//! stands together: a list is a range. This module checks nothing; whoever writes has judged before. It knows neither
//! store nor clock. Start at [`EntitySet::find`] and [`EntitySet::list`].

mod bundles;
mod key;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use bundles::{DeployedBundle, Files};
pub use key::Key;

use super::entities::{App, Developer, Entity, Kind};

/// One stored entity. Immutable: a write makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which kind.
    pub kind: Kind,
    /// The id in the store, computed from kind and key.
    pub id: Uuid,
    /// The names it stands under; see [`Kind`].
    pub key: Key,
    /// The envelope: `{"key":[…],"value":{…}}`, compact.
    pub json: Arc<str>,
}

#[derive(Serialize)]
struct EnvelopeOut<'a, E> {
    key: &'a Key,
    value: &'a E,
}

#[derive(Deserialize)]
struct KeyOnly {
    key: Key,
}

#[derive(Deserialize)]
struct ValueOnly<E> {
    value: E,
}

impl Row {
    /// A row as it was stored, trusting that it was checked when written.
    ///
    /// # Errors
    ///
    /// A text that says why it cannot be read.
    pub fn from_stored(kind: Kind, id: Uuid, json: Arc<str>) -> Result<Self, String> {
        let KeyOnly { key } = serde_json::from_str(&json)
            .map_err(|error| format!("{} {id}: stored text is damaged: {error}", kind.table()))?;
        Ok(Self {
            kind,
            id,
            key,
            json,
        })
    }

    /// A row with new content.
    fn written<E: Entity>(key: Key, value: &E) -> Self {
        let envelope = EnvelopeOut { key: &key, value };
        // Maps with text keys, numbers and texts always have a JSON form.
        let json = serde_json::to_string(&envelope).unwrap_or_default();
        Self {
            kind: E::KIND,
            id: key.id(E::KIND),
            json: json.into(),
            key,
        }
    }

    /// The entity; none only when the store was written by another program.
    pub fn parse<E: Entity>(&self) -> Option<E> {
        if self.kind != E::KIND {
            return None;
        }
        serde_json::from_str::<ValueOnly<E>>(&self.json)
            .ok()
            .map(|envelope| envelope.value)
    }

    /// The last part of the key: the name within its parent.
    pub fn name(&self) -> &str {
        self.key.last()
    }
}

/// One entity before and after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which kind.
    pub kind: Kind,
    /// Its id in the store.
    pub id: Uuid,
    /// The names it stands under.
    pub key: Key,
    /// The row before; `None` when it is new.
    pub before: Option<Arc<Row>>,
    /// The row after; `None` when it is gone.
    pub after: Option<Arc<Row>>,
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
    rows: OrdMap<(Kind, Key), Arc<Row>>,
    /// Kind, organisation and alias to key; see [`Entity::alias`].
    aliases: OrdMap<(Kind, Key), Key>,
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

    /// The row under a key.
    pub fn row(&self, kind: Kind, key: &[&str]) -> Option<&Arc<Row>> {
        self.rows.get(&(kind, Key::of(key)))
    }

    /// Whether there is one under a key.
    pub fn has(&self, kind: Kind, key: &[&str]) -> bool {
        self.row(kind, key).is_some()
    }

    /// The entity under a key.
    pub fn find<E: Entity>(&self, key: &[&str]) -> Option<E> {
        self.row(E::KIND, key)?.parse()
    }

    /// The row of this alias within an organisation.
    pub fn by_alias(&self, kind: Kind, organization: &str, alias: &str) -> Option<&Arc<Row>> {
        let key = self.aliases.get(&(kind, Key::of(&[organization, alias])))?;
        self.rows.get(&(kind, key.clone()))
    }

    /// All rows of a kind whose key begins with these names, in the order of their keys.
    pub fn list<'a>(
        &'a self,
        kind: Kind,
        below: &[&str],
    ) -> impl Iterator<Item = &'a Arc<Row>> + use<'a> {
        let prefix = Key::of(below);
        self.rows
            .range((kind, prefix.clone())..)
            .take_while(move |((of, key), _)| *of == kind && key.starts_with(&prefix))
            .map(|(_, row)| row)
    }

    /// As [`EntitySet::list`], parsed.
    pub fn all<'a, E: Entity + 'a>(
        &'a self,
        below: &[&str],
    ) -> impl Iterator<Item = (&'a Key, E)> + use<'a, E> {
        self.list(E::KIND, below)
            .filter_map(|row| Some((&row.key, row.parse()?)))
    }

    /// Writes an entity under a key, new or not.
    pub fn put<E: Entity>(&mut self, key: &[&str], value: &E) -> Change {
        self.put_row(Arc::new(Row::written(Key::of(key), value)))
    }

    /// Puts a row in place of the one with its key.
    pub fn put_row(&mut self, row: Arc<Row>) -> Change {
        let place = (row.kind, row.key.clone());
        if let Some(before) = self.rows.get(&place)
            && let Some(alias) = alias_of(before)
        {
            self.aliases.remove(&alias);
        }
        if let Some(alias) = alias_of(&row) {
            self.aliases.insert(alias, row.key.clone());
        }
        let before = self.rows.insert(place, Arc::clone(&row));
        Change {
            kind: row.kind,
            id: row.id,
            key: row.key.clone(),
            before,
            after: Some(row),
        }
    }

    /// Takes an entity out; `None` when there is none.
    pub fn remove(&mut self, kind: Kind, key: &[&str]) -> Option<Change> {
        self.take(kind, Key::of(key))
    }

    fn take(&mut self, kind: Kind, key: Key) -> Option<Change> {
        let before = self.rows.remove(&(kind, key.clone()))?;
        if let Some(alias) = alias_of(&before) {
            self.aliases.remove(&alias);
        }
        Some(Change {
            kind,
            id: before.id,
            key,
            before: Some(before),
            after: None,
        })
    }

    /// Takes out the row of a store id, as another node's commit names it. Costs a look at every row of the kind.
    pub fn take_id(&mut self, kind: Kind, id: Uuid) -> Option<Change> {
        let key = self
            .list(kind, &[])
            .find(|row| row.id == id)
            .map(|row| row.key.clone())?;
        self.take(kind, key)
    }

    /// Takes out everything of a kind below these names.
    pub fn remove_below(&mut self, kind: Kind, below: &[&str]) -> Vec<Change> {
        let keys: Vec<Key> = self.list(kind, below).map(|row| row.key.clone()).collect();
        keys.into_iter()
            .filter_map(|key| self.take(kind, key))
            .collect()
    }

    /// What leads from one set to another. Costs what differs, when one is a descendant of the other.
    pub fn difference(before: &Self, after: &Self) -> Vec<Change> {
        let change = |before: Option<&Arc<Row>>, after: Option<&Arc<Row>>| {
            let row = after.or(before)?;
            Some(Change {
                kind: row.kind,
                id: row.id,
                key: row.key.clone(),
                before: before.cloned(),
                after: after.cloned(),
            })
        };
        before
            .rows
            .diff(&after.rows)
            .filter_map(|item| match item {
                DiffItem::Add(_, row) => change(None, Some(row)),
                DiffItem::Update { old, new } => change(Some(old.1), Some(new.1)),
                DiffItem::Remove(_, row) => change(Some(row), None),
            })
            .collect()
    }
}

fn alias_of(row: &Row) -> Option<(Kind, Key)> {
    let alias = match row.kind {
        Kind::Developer => row.parse::<Developer>()?.alias(),
        Kind::App => row.parse::<App>()?.alias(),
        _ => None,
    }?;
    Some((row.kind, Key::of(&[row.key.part(0), &alias])))
}
