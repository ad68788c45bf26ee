//! From a document to entities: a whole new set, or additions to one.
//!
//! Every entity goes through the same door as a write of the Admin API, parents first, so a document may hold exactly
//! what the API would accept. Nothing stops at the first failure: all of them are told at once.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::findings::DocumentError;
use super::flatten::{Flat, FlatEntity, flatten, uniqueness};
use super::{Document, Progress};
use crate::dialects::kong::entities::{EntityDefinition, EntityKind, EntityTable, WriteContext};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row, RowKey, Written};
use crate::dialects::kong::error::{ApiError, ErrorCode};

/// Entities between two reports of progress.
const PROGRESS_EVERY: usize = 256;

/// A loaded document.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Everything the document says, and nothing else.
    pub entities: EntitySet,
    /// How many entities it held.
    pub count: usize,
    /// The document's hash.
    pub hash: String,
}

impl Loaded {
    /// Takes over the rows of `before` that the document repeats, so that only what it changes counts as changed:
    /// loading a document again makes new time stamps, and nothing else of an entity that has an id of its own.
    pub fn keep_unchanged(&mut self, before: &EntitySet) {
        let repeated: Vec<Arc<Row>> = self
            .entities
            .all_rows()
            .filter_map(|row| {
                let old = before.row(row.kind, row.id)?;
                (untimed(old) == untimed(row)).then(|| old.clone())
            })
            .collect();
        for row in repeated {
            self.entities.put(row);
        }
    }
}

/// The fields of a row but for its times.
fn untimed(row: &Row) -> Map<String, Value> {
    let mut fields = row.fields();
    fields.shift_remove("created_at");
    fields.shift_remove("updated_at");
    fields
}

/// An imported document.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What it changed.
    pub changes: Vec<Change>,
    /// How many entities it held.
    pub count: usize,
}

/// Makes the entity set that a document describes. Kong: `declarative_config`, `POST /config`.
///
/// `context` is the one of a write; the document says itself whether its values are transformed.
///
/// # Errors
///
/// Everything that is wrong with the document.
pub fn load(
    document: Document,
    context: &mut WriteContext<'_>,
    progress: Progress<'_>,
) -> Result<Loaded, DocumentError> {
    let hash = document.hash.clone();
    let mut entities = EntitySet::new();
    let Imported { count, .. } = run(&mut entities, document, context, progress, create)?;
    Ok(Loaded {
        entities,
        count,
        hash,
    })
}

/// Adds what a document describes to a set, replacing what it holds under the same ids or keys; removes nothing.
/// Kong: `config db_import`.
///
/// # Errors
///
/// Everything that is wrong with the document; drop the set then.
pub fn import(
    entities: &mut EntitySet,
    document: Document,
    context: &mut WriteContext<'_>,
    progress: Progress<'_>,
) -> Result<Imported, DocumentError> {
    run(entities, document, context, progress, upsert)
}

/// How one entity enters a set.
type Enter = fn(&mut EntitySet, &FlatEntity, &mut WriteContext<'_>) -> Result<Written, ApiError>;

fn create(
    entities: &mut EntitySet,
    entity: &FlatEntity,
    context: &mut WriteContext<'_>,
) -> Result<Written, ApiError> {
    entities.create(entity.kind, entity.fields.clone(), context)
}

fn upsert(
    entities: &mut EntitySet,
    entity: &FlatEntity,
    context: &mut WriteContext<'_>,
) -> Result<Written, ApiError> {
    if entities.row(entity.kind, entity.id).is_none() {
        return create(entities, entity, context);
    }
    let mut fields = entity.fields.clone();
    if entity.kind == EntityKind::Certificate {
        // A replacement without names would drop those that the document does not repeat.
        let names = entities.snis_of(entity.id);
        fields.insert(crate::dialects::kong::entities::SNIS.into(), json!(names));
    }
    entities.upsert(entity.kind, &RowKey::Id(entity.id), None, fields, context)
}

fn run(
    entities: &mut EntitySet,
    document: Document,
    context: &mut WriteContext<'_>,
    progress: Progress<'_>,
    enter: Enter,
) -> Result<Imported, DocumentError> {
    let table = EntityTable::of(context.flavor);
    let mut flat = flatten(document.root, table, entities, &mut *context.new_id);
    context.already_transformed = flat.already_transformed;
    let count = flat.entities.len();
    let mut order: Vec<usize> = (0..count).collect();
    // Links point from later kinds to earlier ones; within a kind the order of the document stays.
    order.sort_by_key(|position| flat.entities.get(*position).map(|entity| entity.kind));
    let mut changes = Vec::new();
    for (done, position) in order.into_iter().enumerate() {
        if done % PROGRESS_EVERY == 0 {
            progress(done, count);
        }
        let Some(entity) = flat.entities.get(position) else {
            continue;
        };
        // The set may be left half changed by a refusal.
        let mut trial = entities.clone();
        let entered = enter(&mut trial, entity, context);
        match entered {
            Ok(written) if !entity.refused => {
                *entities = trial;
                changes.extend(written.changes);
            }
            Ok(_) => {}
            Err(error) => tell(&mut flat, position, error),
        }
    }
    progress(count, count);
    match flat.findings.is_empty() {
        true => Ok(Imported { changes, count }),
        false => Err(flat.findings.into_error()),
    }
}

/// Puts a refusal where the document's writer finds it.
fn tell(flat: &mut Flat, position: usize, error: ApiError) {
    let Some(entity) = flat.entities.get(position) else {
        return;
    };
    let definition = entity.kind.definition();
    let subject = flat.subject(entity);
    match (error.code, error.fields) {
        (ErrorCode::SchemaViolation, Some(fields)) => {
            let errors = crate::model::schema::FieldErrors(fields);
            flat.findings.add_fields(&subject, errors);
        }
        // What it clashes with, or what it hangs on, was told before.
        _ if entity.refused => {}
        (ErrorCode::UniqueViolation, Some(fields)) => {
            let message = unique_message(definition, &fields);
            flat.findings.add_clash(&subject, message);
        }
        (ErrorCode::PrimaryKeyViolation, _) => {
            let id = entity.id.to_string();
            let message = uniqueness(definition, "primary key", &id);
            flat.findings.add_clash(&subject, message);
        }
        // Every link was found in the document; what it leads to was refused, and that was told.
        (ErrorCode::ForeignKeyViolation, _) if !flat.findings.is_empty() => {}
        _ => flat.findings.add_clash(&subject, error.message),
    }
}

fn unique_message(definition: &EntityDefinition, fields: &Map<String, Value>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let values: Vec<String> = fields.values().map(shown).collect();
    uniqueness(definition, &names.join(", "), &values.join(", "))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(link) => link.get("id").map_or_else(|| value.to_string(), shown),
        other => other.to_string(),
    }
}

/// What stands for a link that leads nowhere: never the id of an entity.
pub(super) fn nowhere() -> Value {
    json!({ "id": Uuid::nil() })
}
