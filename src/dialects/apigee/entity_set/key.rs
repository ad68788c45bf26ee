//! The names an entity stands under: its parents from the outside in, then its own.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dialects::apigee::entities::Kind;

/// The namespace of the ids that are computed from keys.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c1f_9e52_0a34_4b0f_9a6d_51b1_7cf0_2e8b);

/// A list of names; see [`Kind`] for what stands where. Cloning costs a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<[Box<str>]>);

impl Key {
    /// A key of these names.
    pub fn of(parts: &[&str]) -> Self {
        Self(parts.iter().map(|part| Box::from(*part)).collect())
    }

    /// The name at a position, empty when there is none.
    pub fn part(&self, index: usize) -> &str {
        self.0.get(index).map_or("", |part| part)
    }

    /// The names.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|part| &**part)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last name: its own within its parent.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", |part| part)
    }

    /// Whether it stands below, or is, another one.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// The id of the entity of this kind and key: always the same one.
    pub fn id(&self, kind: Kind) -> Uuid {
        let mut text = String::from(kind.table());
        for part in self.parts() {
            // No name can hold this, so different keys give different texts.
            text.push('\0');
            text.push_str(part);
        }
        Uuid::new_v5(&NAMESPACE, text.as_bytes())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
