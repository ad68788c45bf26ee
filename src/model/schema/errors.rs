//! The tree of complaints about a record, in the form in which clients read it.

use serde_json::{Map, Value};

/// The key under which complaints about a whole record stand.
pub const ENTITY: &str = "@entity";

/// The complaint about an absent required field.
pub const REQUIRED: &str = "required field missing";

/// What is wrong with a record: per field a text, or a nested tree; under [`ENTITY`] a list of texts.
///
/// Elements of lists stand in an array with null for the sound ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldErrors(pub Map<String, Value>);

impl FieldErrors {
    /// No complaint.
    pub fn new() -> Self {
        Self::default()
    }

    /// One complaint about the field at a dotted path.
    pub fn one(path: &str, message: impl Into<String>) -> Self {
        let mut errors = Self::new();
        errors.add(path, message);
        errors
    }

    /// One complaint about the record as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        let mut errors = Self::new();
        errors.add_whole(message);
        errors
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a complaint about the field at a dotted path (`config.redis.host`); the first complaint about a field stays.
    pub fn add(&mut self, path: &str, message: impl Into<String>) {
        let mut map = &mut self.0;
        let mut rest = path;
        while let Some((first, tail)) = rest.split_once('.') {
            let inner = map
                .entry(first.to_owned())
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else {
                return;
            };
            map = inner;
            rest = tail;
        }
        map.entry(rest.to_owned())
            .or_insert_with(|| Value::String(message.into()));
    }

    /// Adds a ready tree under a field.
    pub fn add_tree(&mut self, field: &str, tree: Value) {
        self.0.insert(field.to_owned(), tree);
    }

    /// Adds a complaint about the record as a whole.
    pub fn add_whole(&mut self, message: impl Into<String>) {
        let list = self
            .0
            .entry(ENTITY.to_owned())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(Value::String(message.into()));
        }
    }

    /// Takes over all complaints of another tree; those already here stay.
    pub fn merge(&mut self, other: FieldErrors) {
        for (key, value) in other.0 {
            match (self.0.get_mut(&key), value) {
                (Some(Value::Array(mine)), Value::Array(theirs)) if key == ENTITY => {
                    mine.extend(theirs);
                }
                (Some(Value::Object(mine)), Value::Object(theirs)) => {
                    let mut inner = FieldErrors(std::mem::take(mine));
                    inner.merge(FieldErrors(theirs));
                    *mine = inner.0;
                }
                (Some(_), _) => {}
                (None, value) => {
                    self.0.insert(key, value);
                }
            }
        }
    }

    /// Whether the field at a dotted path, or one above it, has a complaint.
    pub fn covers(&self, path: &str) -> bool {
        let mut map = &self.0;
        for step in path.split('.') {
            match map.get(step) {
                None => return false,
                Some(Value::Object(inner)) => map = inner,
                Some(_) => return true,
            }
        }
        true
    }

    /// `Ok` when nothing is wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The tree as JSON.
    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}
