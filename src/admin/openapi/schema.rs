//! From our descriptions of records to JSON Schema (2020-12), as OpenAPI 3.1 uses it.

use serde_json::{Map, Value, json};

use crate::model::schema::{Field, Kind, Record};

/// A record as an object schema. Nothing is listed as required that has a default or is filled in by the gateway.
pub(super) fn record_schema(record: &Record) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &record.fields {
        properties.insert(field.name.to_string(), Value::Object(field_schema(field)));
        let has_value = field.default.is_some() || field.auto;
        if field.required && !has_value && !matches!(field.kind, Kind::Record(_) | Kind::Abstract) {
            required.push(field.name.to_string());
        }
    }
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema
}

/// A field as a schema.
pub(super) fn field_schema(field: &Field) -> Map<String, Value> {
    let mut schema = kind_schema(&field.kind);
    if !field.required
        && let Some(kind) = schema
            .get("type")
            .and_then(Value::as_str)
            .map(str::to_owned)
    {
        schema.insert("type".into(), json!([kind, "null"]));
    }
    if !field.description.is_empty() {
        schema.insert("description".into(), field.description.as_str().into());
    }
    if let Some(default) = &field.default {
        schema.insert("default".into(), default.clone());
    }
    if field.uuid {
        schema.insert("format".into(), "uuid".into());
    }
    if let Some(value) = &field.eq {
        schema.insert("const".into(), value.clone());
    }
    if !field.one_of.is_empty() {
        let mut allowed = field.one_of.clone();
        if !field.required {
            allowed.push(Value::Null);
        }
        schema.insert("enum".into(), Value::Array(allowed));
    }
    if !field.not_one_of.is_empty() {
        schema.insert("not".into(), json!({ "enum": field.not_one_of }));
    }
    if let Some((low, high)) = field.between {
        schema.insert("minimum".into(), number(low));
        schema.insert("maximum".into(), number(high));
    }
    if let Some(bound) = field.greater_than {
        schema.insert("exclusiveMinimum".into(), number(bound));
    }
    let (least, most) = match field.kind {
        Kind::String => ("minLength", "maxLength"),
        Kind::Map { .. } => ("minProperties", "maxProperties"),
        _ => ("minItems", "maxItems"),
    };
    for (name, length) in [
        (least, field.len_eq.or(field.len_min)),
        (most, field.len_eq.or(field.len_max)),
    ] {
        if let Some(length) = length {
            schema.insert(name.into(), length.into());
        }
    }
    if field.encrypted {
        schema.insert("x-secret".into(), true.into());
    }
    if field.referenceable {
        schema.insert("x-referenceable".into(), true.into());
    }
    schema
}

fn kind_schema(kind: &Kind) -> Map<String, Value> {
    let schema = match kind {
        Kind::String => json!({ "type": "string" }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Array(element) => {
            json!({ "type": "array", "items": field_schema(&required(element)) })
        }
        Kind::Set(element) => json!({
            "type": "array", "items": field_schema(&required(element)), "uniqueItems": true,
        }),
        Kind::Map { values, .. } => json!({
            "type": "object", "additionalProperties": field_schema(&required(values)),
        }),
        Kind::Record(record) => Value::Object(record_schema(record)),
        Kind::Foreign(table) => json!({
            "type": "object",
            "description": format!("A row of '{table}'"),
            "properties": { "id": { "type": "string", "format": "uuid" } },
        }),
        Kind::Abstract => json!({ "type": "object" }),
        Kind::Any => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// Elements of lists are never null.
fn required(element: &Field) -> Field {
    let mut element = element.clone();
    element.required = true;
    element
}

/// Whole numbers without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}
