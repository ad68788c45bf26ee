//! From entities back to a document. Kong: `config db_export`, `GET /config`, the answer to `POST /config`.

use serde_json::{Map, Value};

use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{EntitySet, Row};

/// A document that describes the whole set: flat, with ids, values as stored. Loading it gives the same entities.
pub fn export(entities: &EntitySet, now_millis: i64) -> Value {
    let mut root = Map::new();
    root.insert("_format_version".into(), "3.0".into());
    root.insert("_transform".into(), false.into());
    for kind in EntityKind::ALL {
        let rows: Vec<Value> = entities
            .rows(*kind)
            .filter_map(|row| exported(row, now_millis))
            .map(Value::Object)
            .collect();
        if !rows.is_empty() {
            root.insert(kind.table().to_owned(), rows.into());
        }
    }
    Value::Object(root)
}

/// [`export`] as YAML.
///
/// # Errors
///
/// A text when a value has no YAML form; none that passed the entities' rules lacks one.
pub fn export_yaml(entities: &EntitySet, now_millis: i64) -> Result<String, String> {
    serde_yaml_ng::to_string(&export(entities, now_millis)).map_err(|error| error.to_string())
}

/// The entities as the answer to a load shows them: by table, then by id, with every field.
pub fn loaded_entities(entities: &EntitySet) -> Value {
    let mut root = Map::new();
    for row in entities.all_rows() {
        let table = root
            .entry(row.kind.table())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(table) = table {
            table.insert(row.id.to_string(), Value::Object(row.fields()));
        }
    }
    Value::Object(root)
}

/// One entity without what is not set, links by id; `None` when it has ended.
fn exported(row: &Row, now_millis: i64) -> Option<Map<String, Value>> {
    let mut fields = row.fields();
    if let Some(end) = row.expires_at {
        let now = u64::try_from(now_millis / 1000).unwrap_or(0);
        let left = end.checked_sub(now).filter(|left| *left > 0)?;
        fields.insert("ttl".into(), left.into());
    }
    for key in &row.kind.definition().foreign_keys {
        let id = fields
            .get(key.field)
            .and_then(|link| link.get("id"))
            .cloned();
        if let Some(id) = id {
            fields.insert(key.field.to_owned(), id);
        }
    }
    without_nulls(&mut fields);
    Some(fields)
}

fn without_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        if let Value::Object(inner) = value {
            without_nulls(inner);
        }
    }
}
