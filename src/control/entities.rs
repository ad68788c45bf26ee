//! What the control plane asks of the entities that a dialect keeps in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::store::{Edit, Row};

/// All entities of a node. Cloning must be cheap (shared structure): every write works on a clone.
pub trait Entities: Clone + Default + Send + Sync + 'static {
    /// One entity before and after a write.
    type Change: Change;
    /// What a refused write is answered with.
    type Error: fmt::Display + Send + 'static;

    /// Takes rows in as they were stored, trusting that they were checked when written.
    ///
    /// # Errors
    ///
    /// A text that names the row which this program cannot read.
    fn restore(rows: &[Row]) -> Result<Self, String>;

    /// Takes in another node's commit, trusting that it was checked there.
    ///
    /// # Errors
    ///
    /// A text that names the row which this program cannot read.
    fn absorb(&mut self, edits: &[Edit]) -> Result<Vec<Self::Change>, String>;

    /// What leads from `before` to `after`.
    fn difference(before: &Self, after: &Self) -> Vec<Self::Change>;

    /// The answer when the store or the control plane failed; the client is told nothing of `reason`.
    fn failure(reason: String) -> Self::Error;
}

/// One entity before and after a write.
pub trait Change: Clone + Send + Sync + 'static {
    /// What it is, as its dialect names the table.
    fn kind(&self) -> &'static str;
    /// Unique within its kind.
    fn id(&self) -> Uuid;
    /// The new content as compact JSON; `None` when the write deleted it.
    fn json_after(&self) -> Option<Arc<str>>;
    /// This change and a later one of the same entity as one.
    #[must_use]
    fn followed_by(self, later: Self) -> Self;
}

/// Changes of several writes, at most one for each entity.
#[derive(Debug, Clone)]
pub struct ChangeSet<C> {
    changes: BTreeMap<(&'static str, Uuid), C>,
}

impl<C> Default for ChangeSet<C> {
    fn default() -> Self {
        Self {
            changes: BTreeMap::new(),
        }
    }
}

impl<C: Change> ChangeSet<C> {
    /// Adds what happened after everything already here.
    pub fn add(&mut self, changes: impl IntoIterator<Item = C>) {
        for change in changes {
            let key = (change.kind(), change.id());
            let joined = match self.changes.remove(&key) {
                Some(earlier) => earlier.followed_by(change),
                None => change,
            };
            self.changes.insert(key, joined);
        }
    }

    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many entities changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes as a commit.
    pub fn edits(&self) -> Vec<Edit> {
        self.changes
            .iter()
            .map(|((kind, id), change)| Edit {
                kind: (*kind).into(),
                id: *id,
                json: change.json_after(),
            })
            .collect()
    }

    /// The changes, ordered by kind and id.
    pub fn into_vec(self) -> Vec<C> {
        self.changes.into_values().collect()
    }
}
