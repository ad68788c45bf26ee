//! What the indexes hold about a row, computed from the row alone.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::Row;
use crate::dialects::kong::entities::{EntityKind, UniqueSet};

/// The index entries of a row.
#[derive(Debug, Default)]
pub(super) struct RowIndex {
    /// Position of the unique set, and the value in it.
    pub(super) unique: Vec<(u8, Arc<str>)>,
    /// Parent, and position of the link.
    pub(super) links: Vec<(Uuid, u8)>,
    pub(super) tags: Vec<Arc<str>>,
}

impl RowIndex {
    pub(super) fn of(row: &Row) -> Self {
        let definition = row.kind.definition();
        let fields = row.fields();
        let unique = positions(&definition.unique_sets)
            .filter_map(|(position, set)| Some((position, unique_value(set, &fields)?)))
            .collect();
        let links = positions(&definition.foreign_keys)
            .filter_map(|(position, key)| Some((linked(&fields, key.field)?, position)))
            .collect();
        let tags = match fields.get("tags") {
            Some(Value::Array(tags)) => tags
                .iter()
                .filter_map(Value::as_str)
                .map(Arc::from)
                .collect(),
            _ => Vec::new(),
        };
        Self {
            unique,
            links,
            tags,
        }
    }
}

/// Items with their position; definitions have a handful, so a byte counts them.
pub(super) fn positions<T>(items: &[T]) -> impl Iterator<Item = (u8, &T)> {
    (0..=u8::MAX).zip(items)
}

/// The value of a row in a unique set, as text; `None` when the set does not apply to it.
pub(super) fn unique_value(set: &UniqueSet, fields: &Map<String, Value>) -> Option<Arc<str>> {
    if let [field] = set.fields {
        return Some(match fields.get(*field)? {
            Value::Null => return None,
            Value::String(text) => Arc::from(text.as_str()),
            other => other.to_string().into(),
        });
    }
    let mut values = Vec::with_capacity(set.fields.len());
    for field in set.fields {
        let value = fields.get(*field).cloned().unwrap_or(Value::Null);
        if value.is_null() && !set.null_counts {
            return None;
        }
        values.push(value);
    }
    Some(Value::Array(values).to_string().into())
}

/// The id in a link.
pub(super) fn linked(fields: &Map<String, Value>, field: &str) -> Option<Uuid> {
    let id = fields.get(field)?.get("id")?.as_str()?;
    Uuid::try_parse(id).ok()
}

/// The second at which a row ends.
pub(super) fn expiry(kind: EntityKind, fields: &Map<String, Value>) -> Option<u64> {
    if !kind.definition().expires {
        return None;
    }
    fields
        .get("ttl")
        .and_then(Value::as_f64)
        .map(|end| end as u64)
}
