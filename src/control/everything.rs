//! The entities of all dialects behind one store: what the control plane of a node keeps.
//!
//! Each dialect keeps a set of its own and knows nothing of the others; revisions, commits and durability are common.
//! Start at [`ControlPlane::write_kong`] and [`ControlPlane::write_apigee`]: writers of one dialect see its set alone.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::entities::{Change as ControlChange, Entities};
use super::plane::{ControlPlane, Moment};
use super::store::{Edit, Row as StoredRow};
use crate::dialects::apigee::entities::Kind as ApigeeKind;
use crate::dialects::apigee::entity_set::{
    Change as ApigeeChange, EntitySet as ApigeeSet, Row as ApigeeRow,
};
use crate::dialects::apigee::error::ApiError as ApigeeError;
use crate::dialects::kong::entity_set::{Change as KongChange, EntitySet as KongSet};
use crate::dialects::kong::error::ApiError as KongError;

/// All entities of a node. Cloning costs two pointers.
#[derive(Debug, Clone, Default)]
pub struct Everything {
    pub kong: Arc<KongSet>,
    pub apigee: Arc<ApigeeSet>,
}

/// One entity of some dialect before and after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Kong(KongChange),
    Apigee(ApigeeChange),
}

/// Why a write was refused, or failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    Kong(KongError),
    Apigee(ApigeeError),
    /// The store or the control plane failed.
    Failure(String),
}

impl Everything {
    /// A whole that holds one set of Kong's.
    pub fn of_kong(kong: KongSet) -> Self {
        Self {
            kong: Arc::new(kong),
            apigee: Arc::default(),
        }
    }
}

impl Change {
    /// The changes of each dialect.
    pub fn split(changes: &[Self]) -> (Vec<KongChange>, Vec<ApigeeChange>) {
        let (mut kong, mut apigee) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Self::Kong(change) => kong.push(change.clone()),
                Self::Apigee(change) => apigee.push(change.clone()),
            }
        }
        (kong, apigee)
    }
}

impl ControlChange for Change {
    fn kind(&self) -> &'static str {
        match self {
            Self::Kong(change) => change.kind.table(),
            Self::Apigee(change) => change.kind.table(),
        }
    }

    fn id(&self) -> Uuid {
        match self {
            Self::Kong(change) => change.id,
            Self::Apigee(change) => change.id,
        }
    }

    fn json_after(&self) -> Option<Arc<str>> {
        match self {
            Self::Kong(change) => change.after.as_ref().map(|row| row.json.clone()),
            Self::Apigee(change) => change.after.as_ref().map(|row| row.json.clone()),
        }
    }

    fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Kong(change), Self::Kong(later)) => Self::Kong(change.followed_by(later)),
            (Self::Apigee(change), Self::Apigee(later)) => Self::Apigee(change.followed_by(later)),
            // Tables of different dialects have different names.
            (_, later) => later,
        }
    }
}

impl Entities for Everything {
    type Change = Change;
    type Error = Refusal;

    fn restore(rows: &[StoredRow]) -> Result<Self, String> {
        let mut kong = Vec::with_capacity(rows.len());
        let mut apigee = ApigeeSet::new();
        for stored in rows {
            match ApigeeKind::from_table(&stored.kind) {
                Some(kind) => {
                    let row = ApigeeRow::from_stored(kind, stored.id, stored.json.clone())?;
                    apigee.put_row(Arc::new(row));
                }
                None => kong.push(stored.clone()),
            }
        }
        Ok(Self {
            kong: Arc::new(KongSet::restore(&kong)?),
            apigee: Arc::new(apigee),
        })
    }

    fn absorb(&mut self, edits: &[Edit]) -> Result<Vec<Change>, String> {
        let mut kong = Vec::new();
        let mut changes = Vec::new();
        for edit in edits {
            let Some(kind) = ApigeeKind::from_table(&edit.kind) else {
                kong.push(edit.clone());
                continue;
            };
            let set = Arc::make_mut(&mut self.apigee);
            let change = match &edit.json {
                Some(json) => {
                    let row = ApigeeRow::from_stored(kind, edit.id, json.clone())?;
                    Some(set.put_row(Arc::new(row)))
                }
                None => set.take_id(kind, edit.id),
            };
            changes.extend(change.map(Change::Apigee));
        }
        if !kong.is_empty() {
            let absorbed = Arc::make_mut(&mut self.kong).absorb(&kong)?;
            changes.extend(absorbed.into_iter().map(Change::Kong));
        }
        Ok(changes)
    }

    fn difference(before: &Self, after: &Self) -> Vec<Change> {
        let kong = KongSet::difference(&before.kong, &after.kong);
        let apigee = ApigeeSet::difference(&before.apigee, &after.apigee);
        let kong = kong.into_iter().map(Change::Kong);
        kong.chain(apigee.into_iter().map(Change::Apigee)).collect()
    }

    fn failure(reason: String) -> Refusal {
        Refusal::Failure(reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kong(error) => error.fmt(f),
            Self::Apigee(error) => error.fmt(f),
            Self::Failure(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<KongError> for Refusal {
    fn from(error: KongError) -> Self {
        Self::Kong(error)
    }
}

impl From<ApigeeError> for Refusal {
    fn from(error: ApigeeError) -> Self {
        Self::Apigee(error)
    }
}

impl From<Refusal> for KongError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Kong(error) => error,
            Refusal::Apigee(error) => Self::database_error(error.to_string()),
            Refusal::Failure(reason) => Self::database_error(reason),
        }
    }
}

impl From<Refusal> for ApigeeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Apigee(error) => error,
            Refusal::Kong(error) => Self::failure(error.to_string()),
            Refusal::Failure(reason) => Self::failure(reason),
        }
    }
}

/// Lets an operation on Kong's set run on everything.
fn on_kong<T, F>(
    mut operation: F,
) -> impl FnMut(&mut Everything, &Moment) -> Result<(T, Vec<Change>), Refusal>
where
    F: FnMut(&mut KongSet, &Moment) -> Result<(T, Vec<KongChange>), KongError>,
{
    move |everything, moment| {
        let (value, changes) = operation(Arc::make_mut(&mut everything.kong), moment)?;
        Ok((value, changes.into_iter().map(Change::Kong).collect()))
    }
}

/// Lets an operation on Apigee's set run on everything.
fn on_apigee<T, F>(
    mut operation: F,
) -> impl FnMut(&mut Everything, &Moment) -> Result<(T, Vec<Change>), Refusal>
where
    F: FnMut(&mut ApigeeSet, &Moment) -> Result<(T, Vec<ApigeeChange>), ApigeeError>,
{
    move |everything, moment| {
        let (value, changes) = operation(Arc::make_mut(&mut everything.apigee), moment)?;
        Ok((value, changes.into_iter().map(Change::Apigee).collect()))
    }
}

impl ControlPlane<Everything> {
    /// Kong's entities as of the newest commit.
    pub fn kong(&self) -> Arc<KongSet> {
        Arc::clone(&self.read().kong)
    }

    /// Apigee's entities as of the newest commit.
    pub fn apigee(&self) -> Arc<ApigeeSet> {
        Arc::clone(&self.read().apigee)
    }

    /// [`ControlPlane::write`] on Kong's entities.
    ///
    /// # Errors
    ///
    /// The operation's refusal, or code 8 when the store failed; nothing has changed then.
    pub async fn write_kong<T, F>(&self, operation: F) -> Result<(T, u64), KongError>
    where
        T: Send + 'static,
        F: FnMut(&mut KongSet, &Moment) -> Result<(T, Vec<KongChange>), KongError> + Send + 'static,
    {
        Ok(self.write(on_kong(operation)).await?)
    }

    /// [`ControlPlane::write_kong`] for threads that may block.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_kong_blocking<T, F>(&self, operation: F) -> Result<(T, u64), KongError>
    where
        T: Send + 'static,
        F: FnMut(&mut KongSet, &Moment) -> Result<(T, Vec<KongChange>), KongError> + Send + 'static,
    {
        Ok(self.write_blocking(on_kong(operation))?)
    }

    /// [`ControlPlane::write`] on Apigee's entities.
    ///
    /// # Errors
    ///
    /// The operation's refusal, or a failure (500) when the store failed; nothing has changed then.
    pub async fn write_apigee<T, F>(&self, operation: F) -> Result<(T, u64), ApigeeError>
    where
        T: Send + 'static,
        F: FnMut(&mut ApigeeSet, &Moment) -> Result<(T, Vec<ApigeeChange>), ApigeeError>
            + Send
            + 'static,
    {
        Ok(self.write(on_apigee(operation)).await?)
    }

    /// [`ControlPlane::write_apigee`] for threads that may block.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_apigee_blocking<T, F>(&self, operation: F) -> Result<(T, u64), ApigeeError>
    where
        T: Send + 'static,
        F: FnMut(&mut ApigeeSet, &Moment) -> Result<(T, Vec<ApigeeChange>), ApigeeError>
            + Send
            + 'static,
    {
        Ok(self.write_blocking(on_apigee(operation))?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;
    use crate::control::store::embedded::{EmbeddedStore, Ownership};
    use crate::dialects::apigee::entities::{Environment, Stamp};

    fn environment(name: &str) -> Environment {
        Environment {
            name: name.to_owned(),
            description: String::new(),
            properties: Default::default(),
            stamp: Stamp::default(),
        }
    }

    fn row(kind: &str, json: &str) -> StoredRow {
        StoredRow {
            kind: kind.into(),
            id: Uuid::nil(),
            revision: 1,
            json: json.into(),
        }
    }

    #[test]
    fn both_dialects_share_store_and_revisions() {
        let prefix = tempfile::tempdir().unwrap();
        let start = || {
            let store = EmbeddedStore::open(prefix.path(), Ownership::Own).unwrap();
            ControlPlane::<Everything>::start(Arc::new(store), Box::new(|_| {})).unwrap()
        };
        let plane = start();
        let write = |name: &'static str| {
            plane.write_apigee_blocking(move |set, _| {
                let change = set.put(&["o", name], &environment(name));
                match name {
                    "bad" => Err(ApigeeError::bad_request("no")),
                    _ => Ok(((), vec![change])),
                }
            })
        };
        assert_eq!(write("test").unwrap().1, 1);
        assert_eq!(write("bad").unwrap_err().status, 400);
        assert_eq!(write("prod").unwrap().1, 2);
        let before = plane.read();
        drop(plane);
        let after = start().read();
        assert_eq!(Everything::difference(&before, &after), []);
        assert_eq!(after.apigee.len(), 2);
        assert!(after.apigee.has(ApigeeKind::Environment, &["o", "test"]));
        assert!(after.kong.is_empty());
    }

    #[test]
    fn damaged_and_unknown_rows_are_named() {
        let text = Everything::restore(&[row("apigee_caches", "{}")]).unwrap_err();
        assert!(text.starts_with("apigee_caches 0000"), "{text}");
        let text = Everything::restore(&[row("gadgets", "{}")]).unwrap_err();
        assert!(text.contains("knows no such table"), "{text}");
    }

    #[test]
    fn commits_of_other_nodes_are_taken_in() {
        let mut elsewhere = Everything::default();
        let change = Arc::make_mut(&mut elsewhere.apigee).put(&["o", "x"], &environment("x"));
        let edit = |json| Edit {
            kind: "apigee_environments".into(),
            id: change.id,
            json,
        };
        let mut here = Everything::default();
        let json = change.after.as_ref().map(|row| row.json.clone());
        assert_eq!(here.absorb(&[edit(json)]).unwrap().len(), 1);
        assert_eq!(Everything::difference(&here, &elsewhere), []);
        assert_eq!(here.absorb(&[edit(None)]).unwrap().len(), 1);
        assert!(here.apigee.is_empty());
    }
}
