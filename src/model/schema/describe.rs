//! A schema as JSON, the way the schema endpoints show it.

use serde_json::{Map, Value, json};

use super::{Check, Field, Kind, Record};

impl Record {
    /// The record in Kong's schema form: `{"fields":[{NAME:{…}}],"entity_checks":[…]}`, fields in order.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("fields".into(), self.fields_json());
        if !self.checks.is_empty() {
            let checks = self.checks.iter().filter_map(Check::to_json).collect();
            out.insert("entity_checks".into(), Value::Array(checks));
        }
        if !self.aliases.is_empty() {
            let aliases = self.aliases.iter().map(|alias| {
                let described = self.field_at(alias.path).map_or(json!({}), Field::to_json);
                json!({ alias.name: described })
            });
            out.insert("shorthand_fields".into(), aliases.collect());
        }
        Value::Object(out)
    }

    /// The fields alone: `[{NAME:{…}}]`.
    pub fn fields_json(&self) -> Value {
        self.fields
            .iter()
            .map(|field| json!({ field.name.as_ref(): field.to_json() }))
            .collect()
    }
}

impl Field {
    /// The field in Kong's schema form, without its name.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        match &self.kind {
            Kind::String => put(&mut out, "type", "string"),
            Kind::Integer => put(&mut out, "type", "integer"),
            Kind::Number => put(&mut out, "type", "number"),
            Kind::Boolean => put(&mut out, "type", "boolean"),
            Kind::Array(element) => {
                put(&mut out, "type", "array");
                out.insert("elements".into(), element.to_json());
            }
            Kind::Set(element) => {
                put(&mut out, "type", "set");
                out.insert("elements".into(), element.to_json());
            }
            Kind::Map { keys, values } => {
                put(&mut out, "type", "map");
                out.insert("keys".into(), keys.to_json());
                out.insert("values".into(), values.to_json());
            }
            Kind::Record(record) => {
                put(&mut out, "type", "record");
                if let Value::Object(inner) = record.to_json() {
                    out.extend(inner);
                }
            }
            Kind::Foreign(table) => {
                put(&mut out, "type", "foreign");
                put(&mut out, "reference", table);
            }
            Kind::Abstract => {
                put(&mut out, "type", "record");
                out.insert("abstract".into(), Value::Bool(true));
            }
            Kind::Any => {}
        }
        self.put_rules(&mut out);
        Value::Object(out)
    }

    fn put_rules(&self, out: &mut Map<String, Value>) {
        if !self.description.is_empty() {
            put(out, "description", &self.description);
        }
        for (name, set) in [
            ("required", self.required),
            ("unique", self.unique),
            ("auto", self.auto),
            ("immutable", self.immutable),
            ("referenceable", self.referenceable),
            ("encrypted", self.encrypted),
            ("uuid", self.uuid),
            ("timestamp", self.timestamp),
            ("is_regex", self.is_regex),
        ] {
            if set {
                out.insert(name.into(), Value::Bool(true));
            }
        }
        if let Some(default) = &self.default {
            out.insert("default".into(), default.clone());
        }
        if let Some(eq) = &self.eq {
            out.insert("eq".into(), eq.clone());
        }
        if let Some(ne) = &self.ne {
            out.insert("ne".into(), ne.clone());
        }
        if !self.one_of.is_empty() {
            out.insert("one_of".into(), Value::Array(self.one_of.clone()));
        }
        if !self.not_one_of.is_empty() {
            out.insert("not_one_of".into(), Value::Array(self.not_one_of.clone()));
        }
        if let Some((low, high)) = self.between {
            out.insert("between".into(), json!([number(low), number(high)]));
        }
        if let Some(bound) = self.greater_than {
            out.insert("gt".into(), number(bound));
        }
        for (name, length) in [
            ("len_eq", self.len_eq),
            ("len_min", self.len_min),
            ("len_max", self.len_max),
        ] {
            if let Some(length) = length {
                out.insert(name.into(), Value::from(length));
            }
        }
        if let Some(prefix) = self.starts_with {
            put(out, "starts_with", prefix);
        }
        if let Some(pattern) = &self.pattern {
            put(out, "match", pattern.text);
        }
        if let Some(value) = &self.contains {
            out.insert("contains".into(), value.clone());
        }
        if !self.exclusive_subsets.is_empty() {
            out.insert(
                "mutually_exclusive_subsets".into(),
                json!(self.exclusive_subsets),
            );
        }
    }
}

impl Check {
    /// The check in Kong's schema form; rules in code have none.
    fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::AtLeastOneOf(fields) => json!({ "at_least_one_of": fields }),
            Self::OnlyOneOf(fields) => json!({ "only_one_of": fields }),
            Self::MutuallyExclusive(fields) => json!({ "mutually_exclusive": fields }),
            Self::MutuallyRequired(fields) => json!({ "mutually_required": fields }),
            Self::Distinct(fields) => json!({ "distinct": fields }),
            Self::Conditional {
                if_field,
                if_match,
                then_field,
                then_match,
                then_error,
            } => {
                let mut inner = json!({
                    "if_field": if_field,
                    "if_match": if_match.to_json(),
                    "then_field": then_field,
                    "then_match": then_match.to_json(),
                });
                if let (Some(text), Value::Object(map)) = (then_error, &mut inner) {
                    put(map, "then_err", text);
                }
                json!({ "conditional": inner })
            }
            Self::ConditionalAtLeastOneOf {
                if_field,
                if_match,
                then_at_least_one_of,
                then_error,
            } => {
                let mut inner = json!({
                    "if_field": if_field,
                    "if_match": if_match.to_json(),
                    "then_at_least_one_of": then_at_least_one_of,
                });
                if let (Some(text), Value::Object(map)) = (then_error, &mut inner) {
                    put(map, "then_err", text);
                }
                json!({ "conditional_at_least_one_of": inner })
            }
            Self::Custom { fields, .. } => {
                json!({ "custom_entity_check": { "field_sources": fields } })
            }
        })
    }
}

fn put(out: &mut Map<String, Value>, name: &str, text: &str) {
    out.insert(name.to_owned(), Value::String(text.to_owned()));
}

/// Whole numbers without a fraction, as a reader would write them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}
