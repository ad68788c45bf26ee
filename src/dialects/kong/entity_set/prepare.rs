//! From what a client wrote to a complete, checked row.
//!
//! Order matters, because clients see the first failure only: shorthands, links by name (code 13), defaults and computed
//! fields, schema and rules (code 2). Links and uniqueness (codes 4 and 5) follow in [`write`](super::write).

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::EntitySet;
use crate::dialects::kong::entities::{
    EntityDefinition, EntityKind, EntityTable, Given, WriteContext, vault_config,
};
use crate::dialects::kong::error::ApiError;
use crate::model::schema::{ENTITY, FieldErrors, Kind, Record};

/// How a write treats what the client left out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner<'a> {
    /// Everything not given takes its default.
    Whole,
    /// Everything not given stays as it is in this row.
    Partial(&'a Map<String, Value>),
}

/// A checked row, not yet in the set.
pub(super) struct Prepared {
    pub(super) id: Uuid,
    pub(super) fields: Map<String, Value>,
}

impl EntitySet {
    /// Completes and checks a row. `id` is the one of the path, if any.
    pub(super) fn prepare(
        &self,
        kind: EntityKind,
        id: Option<Uuid>,
        mut given: Map<String, Value>,
        manner: Manner<'_>,
        context: &mut WriteContext<'_>,
    ) -> Result<Prepared, ApiError> {
        let definition = EntityTable::of(context.flavor).definition(kind);
        let mut errors = FieldErrors::new();
        if let Some(expand) = definition.expand
            && let Err(found) = expand(&mut given)
        {
            errors.merge(found);
        }
        self.resolve_links(definition, &mut given)?;
        definition.schema.move_aliases(&mut given);

        let before = match manner {
            Manner::Whole => None,
            Manner::Partial(before) => Some(before),
        };
        let kept_end = before.and_then(|before| before.get("ttl")).cloned();
        let merged = match before {
            None => given.clone(),
            Some(before) => {
                let mut before = before.clone();
                // A row holds the end, a client writes a duration: the two never meet in the checks.
                if definition.expires {
                    before.insert("ttl".into(), Value::Null);
                }
                merge_row(definition, before, given.clone(), context)
            }
        };
        let mut fields = definition.schema.fill(merged);
        let id = self.fill_automatic(definition, id, &mut fields, before.is_some(), context);
        if let Some(complete) = definition.complete {
            let given = Given {
                fields: &given,
                before,
            };
            complete(&mut fields, &given, context);
        }
        errors.merge(self.check(definition, &fields, before.is_some(), context));
        if !errors.is_empty() {
            return Err(ApiError::schema_violation(errors));
        }
        if definition.expires {
            let end = match given.get("ttl") {
                Some(ttl) => expiry_of(ttl, context.now_millis),
                None => kept_end.unwrap_or(Value::Null),
            };
            fields.insert("ttl".into(), end);
        }
        Ok(Prepared { id, fields })
    }

    /// Schema, then the rules of the kind. Both speak, as far as they do not repeat each other.
    fn check(
        &self,
        definition: &EntityDefinition,
        fields: &Map<String, Value>,
        partial: bool,
        context: &WriteContext<'_>,
    ) -> FieldErrors {
        let mut errors = match definition.schema.validate(fields) {
            Ok(()) => FieldErrors::new(),
            Err(errors) => errors,
        };
        if partial && let Some(Value::Array(list)) = errors.0.get_mut(ENTITY) {
            for text in list.iter_mut() {
                if let Value::String(text) = text
                    && text.starts_with("at least one of these fields must be non-empty")
                {
                    text.insert_str(0, "when updating, ");
                }
            }
        }
        if let Some(verify) = definition.verify {
            errors.merge(verify(self, fields, context));
        }
        errors
    }

    /// Replaces links by a unique field (`{"name":"x"}`) by links by id, and empty links by null.
    fn resolve_links(
        &self,
        definition: &EntityDefinition,
        given: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        for key in &definition.foreign_keys {
            let Some(Value::Object(link)) = given.get(key.field) else {
                continue;
            };
            let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
            let resolved = if !link.is_empty() && link.values().all(is_empty) {
                Value::Null
            } else if let Some(id) = link.get("id").filter(|id| !id.is_null()) {
                json!({ "id": id })
            } else if let Some((field, value)) = unique_member(key.parent, link) {
                let Some(row) = self.find_unique(key.parent, field, value) else {
                    return Err(ApiError::foreign_key_unresolved(
                        key.field,
                        field,
                        value,
                        key.parent.table(),
                    ));
                };
                json!({ "id": row.id })
            } else {
                continue;
            };
            given.insert(key.field.to_owned(), resolved);
        }
        Ok(())
    }

    /// Sets what the gateway sets: the id and the times.
    fn fill_automatic(
        &self,
        definition: &EntityDefinition,
        id: Option<Uuid>,
        fields: &mut Map<String, Value>,
        partial: bool,
        context: &mut WriteContext<'_>,
    ) -> Uuid {
        let given_id = fields
            .get("id")
            .and_then(Value::as_str)
            .and_then(|text| Uuid::try_parse(text).ok());
        let malformed = given_id.is_none() && fields.get("id").is_some_and(|id| !id.is_null());
        let id = id.or(given_id).unwrap_or_else(|| (context.new_id)());
        // A malformed id stays for the schema to refuse.
        if !malformed {
            fields.insert("id".into(), id.to_string().into());
        }
        let now = if definition.fraction_times {
            Value::from(context.now_millis as f64 / 1000.0)
        } else {
            Value::from(context.now_millis / 1000)
        };
        if !partial && fields.get("created_at").is_none_or(Value::is_null) {
            fields.insert("created_at".into(), now.clone());
        }
        fields.insert("updated_at".into(), now);
        id
    }
}

/// The first member of a link that identifies a row of the parent.
fn unique_member(parent: EntityKind, link: &Map<String, Value>) -> Option<(&str, &str)> {
    link.iter().find_map(|(field, value)| {
        parent.definition().unique_field(field)?;
        Some((field.as_str(), value.as_str()?))
    })
}

/// The end of a life of `ttl` seconds from now; zero means no end.
fn expiry_of(ttl: &Value, now_millis: i64) -> Value {
    match ttl.as_f64() {
        Some(seconds) if seconds > 0.0 => {
            Value::from((now_millis as f64 / 1000.0 + seconds).ceil() as u64)
        }
        _ => Value::Null,
    }
}

fn merge_row(
    definition: &EntityDefinition,
    before: Map<String, Value>,
    patch: Map<String, Value>,
    context: &WriteContext<'_>,
) -> Map<String, Value> {
    // A record without a fixed description is merged by the one that its owner names.
    let name = patch.get("name").or_else(|| before.get("name"));
    let name = name.and_then(Value::as_str).unwrap_or_default();
    let config = match definition.kind {
        EntityKind::Plugin => context
            .catalog
            .plugin(name)
            .map(|info| info.config.as_ref().clone()),
        EntityKind::Vault => vault_config(name),
        _ => None,
    };
    merge(&definition.schema, config.as_ref(), before, patch)
}

/// Lays a patch over a row: nested records field by field, everything else whole.
fn merge(
    schema: &Record,
    config: Option<&Record>,
    mut before: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Map<String, Value> {
    schema.move_aliases(&mut patch);
    for (name, value) in patch {
        let inner = match schema.field(&name).map(|field| &field.kind) {
            Some(Kind::Record(record)) => Some(record.as_ref()),
            Some(Kind::Abstract) => config,
            _ => None,
        };
        let merged = match (inner, before.get_mut(&name).map(Value::take), value) {
            (Some(inner), Some(Value::Object(before)), Value::Object(patch)) => {
                Value::Object(merge(inner, None, before, patch))
            }
            (_, _, value) => value,
        };
        before.insert(name, merged);
    }
    before
}
