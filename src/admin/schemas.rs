//! `/schemas/…`: what entities and plugins hold, and whether a given one would be taken.
//!
//! Clients read these to fill defaults and to draw forms, so fields keep their order.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::{Endpoint, Pending};
use crate::dialects::kong::entities::{EntityDefinition, EntityKind, WriteContext, vault_config};
use crate::dialects::kong::entity_set::EntitySet;
use crate::model::catalog::PluginInfo;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/schemas/{entity}").shows("Describe an entity", show_entity),
        Endpoint::at("/schemas/plugins/{name}").shows("Describe a plugin", show_plugin),
        Endpoint::at("/schemas/vaults/{name}").shows("Describe a kind of vault", show_vault),
        Endpoint::at("/schemas/filters/{name}")
            .shows("Describe a Wasm filter; there are none", show_filter),
        Endpoint::at("/plugins/schema/{name}")
            .shows("Describe the config of a plugin", show_plugin_config),
        Endpoint::at("/schemas/{entity}/validate").waits(
            Method::POST,
            "Check an entity without storing it",
            |admin, call| validate(admin, call),
        ),
    ]
}

/// The definition behind a name in a schema path: the table's name, or the collection's path.
fn definition<'a>(admin: &'a Admin, name: &str) -> Result<&'a EntityDefinition, Answer> {
    admin
        .entities
        .iter()
        .find(|definition| definition.table() == name || definition.path == Some(name))
        .ok_or_else(|| not_found("entity", name))
}

fn not_found(what: &str, name: &str) -> Answer {
    Answer::message(StatusCode::NOT_FOUND, &format!("No {what} named '{name}'"))
}

fn plugin<'a>(admin: &'a Admin, name: &str) -> Result<&'a PluginInfo, Answer> {
    admin
        .catalog
        .plugin(name)
        .filter(|plugin| admin.settings.general.plugins.includes(plugin.name))
        .ok_or_else(|| not_found("plugin", name))
}

fn show_entity(admin: &Admin, call: &Call) -> Outcome {
    let definition = definition(admin, call.key(0))?;
    Ok(Answer::ok(&entity_schema(definition)))
}

/// An entity's schema as clients see it, with what may be written beside the fields.
pub(super) fn entity_schema(definition: &EntityDefinition) -> Value {
    let mut schema = definition.schema.to_json();
    if let Value::Object(schema) = &mut schema
        && !definition.shorthands.is_empty()
    {
        let shorthands = definition
            .shorthands
            .iter()
            .map(|field| json!({ field.name.as_ref(): field.to_json() }));
        let list = schema
            .entry("shorthand_fields")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.extend(shorthands);
        }
    }
    schema
}

fn show_plugin(admin: &Admin, call: &Call) -> Outcome {
    let info = plugin(admin, call.key(0))?;
    Ok(Answer::ok(&plugin_schema(admin, info)))
}

/// A plugin's schema: the fields of an instance that depend on the plugin.
pub(super) fn plugin_schema(admin: &Admin, info: &PluginInfo) -> Value {
    let instance = &admin.entities.definition(EntityKind::Plugin).schema;
    let mut fields = Vec::new();
    for (name, allowed) in [
        ("protocols", true),
        ("consumer_group", info.consumer_scope),
        ("route", info.route_scope),
        ("service", info.service_scope),
        ("consumer", info.consumer_scope),
    ] {
        let Some(field) = instance.field(name) else {
            continue;
        };
        let mut described = field.to_json();
        if let Value::Object(described) = &mut described {
            if name == "protocols" {
                described.insert("default".into(), json!(info.protocols));
                if let Some(Value::Object(elements)) = described.get_mut("elements") {
                    let allowed = [info.protocols, info.further_protocols].concat();
                    elements.insert("one_of".into(), json!(allowed));
                }
            } else if !allowed {
                described.insert("eq".into(), Value::Null);
            }
        }
        fields.push(json!({ name: described }));
    }
    let mut config = Map::new();
    config.insert("type".into(), "record".into());
    config.insert("required".into(), true.into());
    if let Value::Object(described) = info.config.to_json() {
        config.extend(described);
    }
    fields.push(json!({ "config": config }));
    let mut schema = Map::new();
    schema.insert("fields".into(), Value::Array(fields));
    let checks = crate::model::schema::Record {
        checks: info.checks.clone(),
        ..Default::default()
    };
    if let Some(checks) = checks.to_json().get("entity_checks") {
        schema.insert("entity_checks".into(), checks.clone());
    }
    Value::Object(schema)
}

fn show_plugin_config(admin: &Admin, call: &Call) -> Outcome {
    let info = plugin(admin, call.key(0))?;
    Ok(Answer::ok(&info.config.to_json()))
}

fn show_vault(_: &Admin, call: &Call) -> Outcome {
    let name = call.key(0);
    let schema = vault_config(name).ok_or_else(|| not_found("vault", name))?;
    let mut config = Map::new();
    config.insert("type".into(), "record".into());
    config.insert("required".into(), true.into());
    if let Value::Object(described) = schema.to_json() {
        config.extend(described);
    }
    Ok(Answer::ok(&json!({ "fields": [{ "config": config }] })))
}

fn show_filter(_: &Admin, call: &Call) -> Outcome {
    Err(not_found("filter", call.key(0)))
}

fn validate(admin: Arc<Admin>, call: Call) -> Pending {
    Box::pin(async move {
        let definition = definition(&admin, call.key(0))?;
        let fields = call.fields().await?;
        let mut given = fields.values;
        if !fields.typed {
            super::crud::coerce(&admin, definition, &mut given, None);
        }
        let mut new_id = Uuid::new_v4;
        let mut context = WriteContext {
            now_millis: super::crud::now_millis(),
            catalog: &admin.catalog,
            flavor: admin.flavor(),
            new_id: &mut new_id,
            already_transformed: false,
        };
        EntitySet::validate_alone(definition.kind, given, &mut context)?;
        Ok(Answer::message(
            StatusCode::OK,
            "schema validation successful",
        ))
    })
}
