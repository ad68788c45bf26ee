//! The smallest entities there are, for tests of this floor: numbered texts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::entities::{Change, Entities};
use super::store::{Edit, Row};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Toy(pub(super) BTreeMap<Uuid, Arc<str>>);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToyChange {
    pub(super) id: Uuid,
    pub(super) before: Option<Arc<str>>,
    pub(super) after: Option<Arc<str>>,
}

impl Toy {
    /// Sets a text and returns the change; the text "refuse" is refused, after the draft was touched.
    pub(super) fn set(&mut self, id: u128, text: &str) -> Result<Vec<ToyChange>, String> {
        let id = Uuid::from_u128(id);
        let before = self.0.insert(id, text.into());
        if text == "refuse" {
            return Err("refused".to_owned());
        }
        let after = Some(text.into());
        Ok(vec![ToyChange { id, before, after }])
    }

    pub(super) fn text(&self, id: u128) -> Option<&str> {
        self.0.get(&Uuid::from_u128(id)).map(AsRef::as_ref)
    }
}

impl Change for ToyChange {
    fn kind(&self) -> &'static str {
        "toys"
    }
    fn id(&self) -> Uuid {
        self.id
    }
    fn json_after(&self) -> Option<Arc<str>> {
        self.after.clone()
    }
    fn followed_by(self, later: Self) -> Self {
        Self {
            before: self.before,
            ..later
        }
    }
}

impl Entities for Toy {
    type Change = ToyChange;
    type Error = String;

    fn restore(rows: &[Row]) -> Result<Self, String> {
        let pairs = rows.iter().map(|row| (row.id, row.json.clone()));
        Ok(Self(pairs.collect()))
    }

    fn absorb(&mut self, edits: &[Edit]) -> Result<Vec<ToyChange>, String> {
        let changes = edits.iter().map(|edit| ToyChange {
            id: edit.id,
            before: match &edit.json {
                Some(json) => self.0.insert(edit.id, json.clone()),
                None => self.0.remove(&edit.id),
            },
            after: edit.json.clone(),
        });
        Ok(changes.collect())
    }

    fn difference(before: &Self, after: &Self) -> Vec<ToyChange> {
        let ids = before.0.keys().chain(after.0.keys());
        let ids: std::collections::BTreeSet<_> = ids.collect();
        let change = |id: &&Uuid| ToyChange {
            id: **id,
            before: before.0.get(*id).cloned(),
            after: after.0.get(*id).cloned(),
        };
        let changes = ids.iter().map(change);
        changes
            .filter(|change| change.before != change.after)
            .collect()
    }

    fn failure(reason: String) -> String {
        format!("failure: {reason}")
    }
}
