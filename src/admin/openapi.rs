//! `/openapi.json`: the whole API as an OpenAPI 3.1 document, made from the tables that serve it.

mod schema;

use http::Method;
use serde_json::{Map, Value, json};

use self::schema::record_schema;
use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud::{Operation, Place};
use super::special;
use super::state::{Admin, KONG_VERSION, VERSION};
use super::table::{Answerer, Endpoint, Handler, Step};
use crate::dialects::kong::entities::EntityKind;

/// Answers with the document.
pub fn show(admin: &Admin, _: &Call) -> Outcome {
    Ok(Answer::ok(&document(admin)))
}

/// The document.
pub fn document(admin: &Admin) -> Value {
    let mut paths = Map::new();
    for endpoint in special::table(admin.entities).iter() {
        let mut item = Map::new();
        let parameters: Vec<Value> = endpoint.steps.iter().filter_map(path_parameter).collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), Value::Array(parameters));
        }
        for answerer in &endpoint.answerers {
            let method = answerer.method.as_str().to_ascii_lowercase();
            item.insert(method, operation(endpoint, answerer));
        }
        paths.insert(endpoint.path(), Value::Object(item));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sallyport Admin API",
            "version": VERSION,
            "summary": format!("Compatible with the Admin API of Kong {KONG_VERSION}"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas(admin),
            "securitySchemes": { "basic": { "type": "http", "scheme": "basic" } },
        },
        // Without `admin_auth = basic` nothing is demanded.
        "security": [{}, { "basic": [] }],
    })
}

fn path_parameter(step: &Step) -> Option<Value> {
    match step {
        Step::Fixed(_) => None,
        Step::Key(name) => Some(json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        })),
    }
}

fn operation(endpoint: &Endpoint, answerer: &Answerer) -> Value {
    let path = endpoint.path();
    let slug: String = path
        .chars()
        .filter(|c| *c != '{' && *c != '}')
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut described = Map::new();
    let id = format!("{}{slug}", answerer.method.as_str().to_ascii_lowercase());
    described.insert("operationId".into(), id.trim_end_matches('_').into());
    described.insert("summary".into(), answerer.summary.as_str().into());
    if let Some(Step::Fixed(tag)) = endpoint.steps.first() {
        described.insert("tags".into(), json!([tag]));
    }
    match answerer.handler {
        Handler::Generic(operation) => describe_generic(&mut described, operation),
        Handler::Plain(_) | Handler::Waiting(_) => describe_special(&mut described, answerer),
    }
    Value::Object(described)
}

fn describe_special(described: &mut Map<String, Value>, answerer: &Answerer) {
    if matches!(answerer.method, Method::POST | Method::PUT | Method::PATCH) {
        let any = json!({ "schema": { "type": "object" } });
        described.insert(
            "requestBody".into(),
            json!({ "content": { "application/json": any } }),
        );
    }
    described.insert(
        "responses".into(),
        json!({
            "2XX": { "description": "Done" },
            "4XX": refused("Refused; the message says why"),
        }),
    );
}

fn describe_generic(described: &mut Map<String, Value>, operation: Operation) {
    let one = json!({ "$ref": format!("#/components/schemas/{}", operation.kind.table()) });
    let many = json!({
        "type": "object",
        "required": ["data", "next"],
        "properties": {
            "data": { "type": "array", "items": one },
            "next": { "type": ["string", "null"] },
            "offset": { "type": "string" },
        },
    });
    let answers = |schema: &Value, description: &str| json!({ "description": description, "content": { "application/json": { "schema": schema } } });
    let mut responses = Map::new();
    match (operation.method(), operation.place) {
        (Method::GET, Place::Collection { .. }) => {
            described.insert("parameters".into(), list_parameters());
            responses.insert("200".into(), answers(&many, "A page"));
        }
        (Method::POST, _) => {
            responses.insert("201".into(), answers(&one, "Made"));
        }
        (Method::DELETE, _) => {
            responses.insert("204".into(), json!({ "description": "Gone" }));
        }
        _ => {
            responses.insert("200".into(), answers(&one, "As it is now"));
        }
    }
    if operation.writes_fields() {
        let content = json!({ "schema": one });
        described.insert(
            "requestBody".into(),
            json!({ "content": {
                "application/json": content,
                "application/x-www-form-urlencoded": content,
                "multipart/form-data": content,
            } }),
        );
        responses.insert("409".into(), refused("Another entity holds a unique value"));
    }
    responses.insert(
        "400".into(),
        refused("Something in the request is not allowed"),
    );
    responses.insert("404".into(), refused("There is no such entity"));
    if operation.method() != Method::GET {
        responses.insert("405".into(), refused("Not possible without a database"));
    }
    described.insert("responses".into(), Value::Object(responses));
}

fn refused(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/error" } } },
    })
}

fn list_parameters() -> Value {
    json!([
        { "name": "size", "in": "query", "description": "Most entities of the page",
          "schema": { "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 } },
        { "name": "offset", "in": "query", "description": "Where the page starts, from the page before",
          "schema": { "type": "string" } },
        { "name": "tags", "in": "query", "description": "Tags, joined by ',' for all of them or '/' for any",
          "schema": { "type": "string" } },
    ])
}

fn schemas(admin: &Admin) -> Map<String, Value> {
    let mut schemas = Map::new();
    for definition in admin.entities.iter() {
        let mut schema = record_schema(&definition.schema);
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for field in &definition.shorthands {
                let mut described = schema::field_schema(field);
                described.insert("writeOnly".into(), true.into());
                properties.insert(field.name.to_string(), Value::Object(described));
            }
        }
        if definition.kind == EntityKind::Plugin {
            schema.insert("allOf".into(), plugin_choices(admin));
        }
        schemas.insert(definition.table().to_owned(), Value::Object(schema));
    }
    for plugin in admin.catalog.iter() {
        schemas.insert(
            plugin_schema_name(plugin.name),
            Value::Object(record_schema(&plugin.config)),
        );
    }
    schemas.insert(
        "error".into(),
        json!({
            "type": "object",
            "required": ["message"],
            "properties": {
                "code": { "type": "integer" },
                "name": { "type": "string" },
                "message": { "type": "string" },
                "fields": { "type": "object" },
                "options": { "type": "object" },
            },
        }),
    );
    schemas
}

fn plugin_schema_name(plugin: &str) -> String {
    format!("plugin-config.{plugin}")
}

/// For each plugin: if the instance has its name, its config has this form.
fn plugin_choices(admin: &Admin) -> Value {
    admin
        .catalog
        .iter()
        .map(|plugin| {
            let reference = format!("#/components/schemas/{}", plugin_schema_name(plugin.name));
            json!({
                "if": { "properties": { "name": { "const": plugin.name } }, "required": ["name"] },
                "then": { "properties": { "config": { "$ref": reference } } },
            })
        })
        .collect()
}
