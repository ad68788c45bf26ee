//! Refusing what is wrong, in the exact words that clients of the Admin API know.

use serde_json::{Map, Value};

use super::errors::REQUIRED;
use super::{Field, FieldErrors, Kind, Record};

impl Record {
    /// Checks a filled record: every field, then the checks that span several.
    pub fn validate(&self, record: &Map<String, Value>) -> Result<(), FieldErrors> {
        let mut errors = self.validate_fields(record);
        for check in &self.checks {
            check.run(record, &mut errors);
        }
        errors.into_result()
    }

    /// Checks the fields only.
    pub fn validate_fields(&self, record: &Map<String, Value>) -> FieldErrors {
        let mut errors = FieldErrors::new();
        for field in &self.fields {
            let value = record.get(field.name.as_ref()).unwrap_or(&Value::Null);
            if let Err(error) = field.validate(value) {
                errors.add_tree(&field.name, error);
            }
        }
        for name in record.keys() {
            if self.field(name).is_none() {
                errors.add_tree(name, Value::from("unknown field"));
            }
        }
        errors
    }
}

impl Field {
    /// Checks one value. The error is a text, or for lists, maps and records a tree.
    pub fn validate(&self, value: &Value) -> Result<(), Value> {
        if value.is_null() {
            return self.validate_null();
        }
        if self.referenceable && value.as_str().is_some_and(is_reference) {
            return Ok(());
        }
        self.validate_kind(value)?;
        self.validate_rules(value).map_err(Value::String)
    }

    fn validate_null(&self) -> Result<(), Value> {
        if self.ne.as_ref().is_some_and(Value::is_null) {
            return Err("value must not be null".into());
        }
        if let Some(eq) = &self.eq
            && !eq.is_null()
        {
            return Err(format!("value must be {}", shown(eq)).into());
        }
        if self.required {
            return Err(REQUIRED.into());
        }
        Ok(())
    }

    fn validate_kind(&self, value: &Value) -> Result<(), Value> {
        let complaint = match (&self.kind, value) {
            (Kind::Any, _) | (Kind::String, Value::String(_)) | (Kind::Boolean, Value::Bool(_)) => {
                return Ok(());
            }
            (Kind::Number, Value::Number(_)) | (Kind::Abstract, Value::Object(_)) => return Ok(()),
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                return Ok(());
            }
            (Kind::Array(element) | Kind::Set(element), Value::Array(list)) => {
                return validate_elements(element, list);
            }
            (Kind::Map { keys, values }, Value::Object(map)) => {
                let mut errors = Map::new();
                for (key, inner) in map {
                    let wrong = keys
                        .validate(&Value::from(key.as_str()))
                        .and_then(|()| values.validate(inner));
                    if let Err(error) = wrong {
                        errors.insert(key.clone(), error);
                    }
                }
                return tree(errors);
            }
            (Kind::Record(record), Value::Object(map)) => {
                return record.validate(map).map_err(FieldErrors::into_json);
            }
            (Kind::Foreign(_), Value::Object(map)) => return validate_link(map),
            (Kind::String, _) => "expected a string",
            (Kind::Boolean, _) => "expected a boolean",
            (Kind::Number, _) => "expected a number",
            (Kind::Integer, _) => "expected an integer",
            (Kind::Array(_), _) => "expected an array",
            (Kind::Set(_), _) => "expected a set",
            (Kind::Map { .. }, _) => "expected a map",
            (Kind::Record(_) | Kind::Abstract, _) => "expected a record",
            (Kind::Foreign(_), _) => "value must be null or a record with an id",
        };
        Err(complaint.into())
    }

    fn validate_rules(&self, value: &Value) -> Result<(), String> {
        self.validate_choice(value)?;
        if let Some(number) = value.as_f64() {
            self.validate_number(number)?;
        }
        if self.uuid && !value.as_str().is_some_and(is_uuid) {
            return Err("expected a valid UUID".into());
        }
        if self.is_regex
            && let Some(text) = value.as_str()
            && regex_syntax::parse(text).is_err()
        {
            return Err(format!("not a valid regex: {text}"));
        }
        self.validate_length(value)?;
        if let Some(text) = value.as_str() {
            self.validate_text(text)?;
        }
        if let Value::Array(list) = value {
            self.validate_list(list)?;
        }
        self.validators.iter().try_for_each(|rule| rule(value))
    }

    fn validate_choice(&self, value: &Value) -> Result<(), String> {
        if let Some(eq) = &self.eq
            && eq != value
        {
            return Err(format!("value must be {}", shown(eq)));
        }
        if let Some(ne) = &self.ne
            && ne == value
        {
            return Err(format!("value must not be {}", shown(ne)));
        }
        if self.not_one_of.contains(value) {
            return Err(format!("must not be one of: {}", listed(&self.not_one_of)));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(value) {
            return Err(format!("expected one of: {}", listed(&self.one_of)));
        }
        Ok(())
    }

    fn validate_number(&self, number: f64) -> Result<(), String> {
        if let Some(bound) = self.greater_than
            && number <= bound
        {
            return Err(format!("value must be greater than {bound}"));
        }
        if self.timestamp && number <= 0.0 {
            return Err("expected a valid timestamp".into());
        }
        if let Some((low, high)) = self.between
            && !(low..=high).contains(&number)
        {
            return Err(format!("value should be between {low} and {high}"));
        }
        Ok(())
    }

    fn validate_length(&self, value: &Value) -> Result<(), String> {
        let (length, least) = match value {
            Value::String(text) if matches!(self.kind, Kind::String) => {
                (text.len(), self.len_min.or(Some(1)))
            }
            Value::String(text) => (text.len(), self.len_min),
            Value::Array(list) => (list.len(), self.len_min),
            Value::Object(map) => (map.len(), self.len_min),
            _ => return Ok(()),
        };
        if let Some(exact) = self.len_eq
            && length != exact
        {
            return Err(format!("length must be {exact}"));
        }
        if let Some(least) = least
            && length < least
        {
            return Err(format!("length must be at least {least}"));
        }
        if let Some(most) = self.len_max
            && length > most
        {
            return Err(format!("length must be at most {most}"));
        }
        Ok(())
    }

    fn validate_text(&self, text: &str) -> Result<(), String> {
        if let Some(prefix) = self.starts_with
            && !text.starts_with(prefix)
        {
            return Err(format!("should start with: {prefix}"));
        }
        if let Some(pattern) = &self.pattern
            && !(pattern.accepts)(text)
        {
            return Err(format!("invalid value: {text}"));
        }
        Ok(())
    }

    fn validate_list(&self, list: &[Value]) -> Result<(), String> {
        if let Some(wanted) = &self.contains
            && !list.contains(wanted)
        {
            return Err(format!("expected to contain: {}", shown(wanted)));
        }
        if !self.exclusive_subsets.is_empty() {
            let groups_used = self
                .exclusive_subsets
                .iter()
                .filter(|group| {
                    list.iter()
                        .any(|item| item.as_str().is_some_and(|text| group.contains(&text)))
                })
                .count();
            if groups_used > 1 {
                let groups: Vec<String> = self
                    .exclusive_subsets
                    .iter()
                    .map(|group| format!("('{}')", group.join("', '")))
                    .collect();
                return Err(format!(
                    "these sets are mutually exclusive: {}",
                    groups.join(", ")
                ));
            }
        }
        Ok(())
    }
}

/// Whether a text is, as a whole, a `{vault://…}` reference.
pub fn is_reference(text: &str) -> bool {
    text.strip_prefix("{vault://")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|rest| !rest.is_empty())
}

fn is_uuid(text: &str) -> bool {
    // The `uuid` crate also reads braces, URNs and the form without dashes.
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn validate_elements(element: &Field, list: &[Value]) -> Result<(), Value> {
    let mut errors: Vec<Value> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let outcome = match item {
            // A list never holds nothing.
            Value::Null => Err(Value::from(REQUIRED)),
            item => element.validate(item),
        };
        if let Err(error) = outcome {
            errors.resize(index, Value::Null);
            errors.push(error);
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Value::Array(errors))
    }
}

fn validate_link(map: &Map<String, Value>) -> Result<(), Value> {
    let mut errors = Map::new();
    match map.get("id") {
        Some(Value::String(id)) if is_uuid(id) => {}
        Some(Value::String(_)) => {
            errors.insert("id".into(), "expected a valid UUID".into());
        }
        None => {
            errors.insert("id".into(), "missing primary key".into());
        }
        Some(Value::Null) => {
            errors.insert("id".into(), REQUIRED.into());
        }
        Some(_) => {
            errors.insert("id".into(), "expected a string".into());
        }
    }
    // Clients send rows as they were shown, names included: what is beside the id does not count.
    tree(errors)
}

fn tree(errors: Map<String, Value>) -> Result<(), Value> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Value::Object(errors))
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn listed(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(shown).collect();
    values.join(", ")
}
