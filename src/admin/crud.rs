//! The endpoints that every entity has, generic over the entity table.
//!
//! | path | methods |
//! |---|---|
//! | `/P` | GET list, POST create |
//! | `/P/K` | GET, PUT, PATCH, DELETE |
//! | `/P/K/FIELD` | GET, PUT, PATCH, DELETE: the row that K links to |
//! | `/PARENT/K/P` | GET list, POST create |
//! | `/PARENT/K/P/K2` | GET, PUT, PATCH, DELETE |
//!
//! What a write means stands in `dialects`; here are only paths, bodies and answers. Lists join the stored texts of rows
//! without reading them, so ten thousand rows cost no more than their bytes.

mod list;
mod write;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::{Endpoint, Handler};
use crate::dialects::kong::entities::{EntityDefinition, EntityKind, EntityTable, vault_config};
use crate::dialects::kong::entity_set::{EntitySet, Row, RowKey};
use crate::dialects::kong::error::ApiError;

pub(super) use list::{Next, decode_offset, escape, join, list, size};
pub(super) use write::{Done, Refused, commit, refuse_without_database};

/// What to do, and with which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub verb: Verb,
    /// The kind that is read or written.
    pub kind: EntityKind,
    pub place: Place,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Read,
    Create,
    /// Insert or replace.
    Replace,
    /// Merge into what is there.
    Update,
    Remove,
}

/// Where in the tree of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `/P`, or `/PARENT/K/P` when tied to a parent.
    Collection { below: Option<Parent> },
    /// `/P/K`, or `/PARENT/K/P/K2`.
    Item { below: Option<Parent> },
    /// `/CHILD/K/FIELD`: the row that a child links to.
    Linked {
        child: EntityKind,
        field: &'static str,
    },
}

/// The parent of a nested path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    pub kind: EntityKind,
    /// The child's link to it.
    pub field: &'static str,
}

impl Operation {
    /// The HTTP method that asks for it.
    pub fn method(self) -> Method {
        match self.verb {
            Verb::Read => Method::GET,
            Verb::Create => Method::POST,
            Verb::Replace => Method::PUT,
            Verb::Update => Method::PATCH,
            Verb::Remove => Method::DELETE,
        }
    }

    /// Whether the request's body holds fields.
    pub fn writes_fields(self) -> bool {
        matches!(self.verb, Verb::Create | Verb::Replace | Verb::Update)
    }

    fn summary(self) -> String {
        let table = self.kind.table();
        let what = match self.place {
            Place::Collection { below: None } => format!("'{table}' entities"),
            Place::Item { below: None } => format!("a '{table}' entity"),
            Place::Collection {
                below: Some(parent),
            } => format!("'{table}' entities of a '{}' entity", parent.kind.table()),
            Place::Item {
                below: Some(parent),
            } => format!("a '{table}' entity of a '{}' entity", parent.kind.table()),
            Place::Linked { child, .. } => {
                format!("the '{table}' entity of a '{}' entity", child.table())
            }
        };
        let verb = match (self.verb, self.place) {
            (Verb::Read, Place::Collection { .. }) => "List",
            (Verb::Read, _) => "Show",
            (Verb::Create, _) => "Create one of the",
            (Verb::Replace, _) => "Create or replace",
            (Verb::Update, _) => "Change fields of",
            (Verb::Remove, _) => "Remove",
        };
        format!("{verb} {what}")
    }
}

const COLLECTION: &[Verb] = &[Verb::Read, Verb::Create];
const ITEM: &[Verb] = &[Verb::Read, Verb::Replace, Verb::Update, Verb::Remove];

/// The endpoints of all entities.
pub fn endpoints(entities: &EntityTable) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    let mut add = |path: String, verbs: &[Verb], kind: EntityKind, place: Place| {
        let mut endpoint = Endpoint::at(&path);
        for verb in verbs {
            let operation = Operation {
                verb: *verb,
                kind,
                place,
            };
            endpoint = endpoint.on(
                operation.method(),
                operation.summary(),
                Handler::Generic(operation),
            );
        }
        endpoints.push(endpoint);
    };
    for definition in entities.iter() {
        let (kind, table) = (definition.kind, definition.table());
        if let Some(path) = definition.path {
            add(
                format!("/{path}"),
                COLLECTION,
                kind,
                Place::Collection { below: None },
            );
            let item = format!("/{path}/{{{table}}}");
            add(item.clone(), ITEM, kind, Place::Item { below: None });
            for link in &definition.foreign_keys {
                // Kong answers 404 to `/snis/K/certificate`.
                if kind == EntityKind::Sni {
                    continue;
                }
                let place = Place::Linked {
                    child: kind,
                    field: link.field,
                };
                add(format!("{item}/{}", link.field), ITEM, link.parent, place);
            }
        }
        for nested in &definition.nested {
            let Some(link) = definition.foreign_key(nested.field) else {
                continue;
            };
            let parent = entities.definition(link.parent);
            let Some(parent_path) = parent.path else {
                continue;
            };
            let below = Some(Parent {
                kind: link.parent,
                field: nested.field,
            });
            let path = format!("/{parent_path}/{{{}}}/{}", parent.table(), nested.path);
            add(path.clone(), COLLECTION, kind, Place::Collection { below });
            add(
                format!("{path}/{{{table}}}"),
                ITEM,
                kind,
                Place::Item { below },
            );
        }
    }
    endpoints
}

/// Runs a generic operation.
pub async fn run(admin: &Arc<Admin>, operation: Operation, call: &Call) -> Outcome {
    match (operation.verb, operation.place) {
        (Verb::Read, Place::Collection { below }) => list::list(admin, operation.kind, below, call),
        (Verb::Read, _) => read(admin, operation, call),
        _ => write::write(admin, operation, call).await,
    }
}

fn read(admin: &Admin, operation: Operation, call: &Call) -> Outcome {
    let set = admin.control.kong();
    let row = match operation.place {
        Place::Item { below: None } => find(&set, admin, operation.kind, call.key(0))?.cloned(),
        Place::Item {
            below: Some(parent),
        } => {
            let parent_id = find_parent(&set, admin, parent.kind, call.key(0))?;
            find_child(
                &set,
                admin,
                operation.kind,
                call.key(1),
                parent.field,
                parent_id,
            )?
            .cloned()
        }
        Place::Linked { child, field } => {
            let child = find(&set, admin, child, call.key(0))?.ok_or_else(Answer::not_found)?;
            set.linked_row(child, field).cloned()
        }
        Place::Collection { .. } => None,
    };
    let row = row
        .filter(|row| !row.has_expired(now_seconds()))
        .ok_or_else(Answer::not_found)?;
    Ok(Answer::json_text(
        http::StatusCode::OK,
        render(&set, admin, &row),
    ))
}

/// The row that a path's text addresses at top level.
pub(super) fn find<'s>(
    set: &'s EntitySet,
    admin: &Admin,
    kind: EntityKind,
    text: &str,
) -> Result<Option<&'s Arc<Row>>, ApiError> {
    let definition = admin.entities.definition(kind);
    let key = top_level_key(definition, text)?;
    Ok(set.find(kind, &key, None))
}

/// Reads a key at top level, where keys that are unique only within a parent mean nothing.
pub(super) fn top_level_key(definition: &EntityDefinition, text: &str) -> Result<RowKey, ApiError> {
    match RowKey::read(definition, text)? {
        RowKey::Name(_) if definition.endpoint_key_scope.is_some() => Err(ApiError::not_a_uuid()),
        key => Ok(key),
    }
}

/// The id of the parent that a path names. Certificates may also be named by a server name.
pub(super) fn find_parent(
    set: &EntitySet,
    admin: &Admin,
    kind: EntityKind,
    text: &str,
) -> Result<Uuid, Answer> {
    let found = if kind == EntityKind::Certificate && Uuid::try_parse(text).is_err() {
        set.certificate_of_sni(text)
    } else {
        find(set, admin, kind, text)?
    };
    found.map(|row| row.id).ok_or_else(Answer::not_found)
}

/// The row that a path's text addresses below a parent; none when it belongs to another one.
pub(super) fn find_child<'s>(
    set: &'s EntitySet,
    admin: &Admin,
    kind: EntityKind,
    text: &str,
    field: &str,
    parent: Uuid,
) -> Result<Option<&'s Arc<Row>>, ApiError> {
    let key = RowKey::read(admin.entities.definition(kind), text)?;
    Ok(set
        .find(kind, &key, Some(parent))
        .filter(|row| link_of(row, field) == Some(parent)))
}

/// The id that a row's link holds.
pub(super) fn link_of(row: &Row, field: &str) -> Option<Uuid> {
    let fields = row.fields();
    let id = fields.get(field)?.get("id")?.as_str()?;
    Uuid::try_parse(id).ok()
}

/// A row as JSON text, as answers show it.
pub(super) fn render(set: &EntitySet, admin: &Admin, row: &Row) -> String {
    let stored_form = match row.kind {
        EntityKind::Certificate | EntityKind::Plugin => false,
        _ => row.expires_at.is_none(),
    };
    if stored_form {
        return row.json.to_string();
    }
    Value::Object(show(set, admin, row)).to_string()
}

/// A row's fields, as answers show them.
pub(super) fn show(set: &EntitySet, admin: &Admin, row: &Row) -> Map<String, Value> {
    // A row ends at a whole second; a second that has begun is no longer left, so the moment is rounded up.
    const SECOND_MILLIS: i64 = 1_000;
    set.show(row, now_millis() + SECOND_MILLIS - 1, &admin.catalog)
}

/// Gives the texts of a form the types that the schema asks for. `plugin` names the plugin when the form does not.
pub(super) fn coerce(
    admin: &Admin,
    definition: &EntityDefinition,
    given: &mut Map<String, Value>,
    plugin: Option<&str>,
) {
    let mut shorthands = Map::new();
    for field in &definition.shorthands {
        if let Some(mut value) = given.shift_remove(field.name.as_ref()) {
            field.coerce(&mut value);
            shorthands.insert(field.name.to_string(), value);
        }
    }
    definition.schema.coerce(given);
    given.extend(shorthands);
    let name = given
        .get("name")
        .and_then(Value::as_str)
        .or(plugin)
        .map(str::to_owned);
    let (Some(name), Some(config)) = (name, given.get_mut("config")) else {
        return;
    };
    if config.as_str() == Some("") {
        *config = Value::Null;
    }
    let Value::Object(config) = config else {
        return;
    };
    match definition.kind {
        EntityKind::Plugin => {
            if let Some(info) = admin.catalog.plugin(&name) {
                info.config.coerce(config);
            }
        }
        EntityKind::Vault => {
            if let Some(schema) = vault_config(&name) {
                schema.coerce(config);
            }
        }
        _ => {}
    }
}

/// Milliseconds since 1970.
pub(super) fn now_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Seconds since 1970.
pub(super) fn now_seconds() -> u64 {
    u64::try_from(now_millis() / 1000).unwrap_or(0)
}
