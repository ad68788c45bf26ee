//! The fields of a body, taken out one by one with lenient types: clients send numbers and switches as texts.
//!
//! Whatever is left at the end is unknown and refused, because it would have no effect.

use serde_json::{Map, Value};

use super::{Attribute, Stamp};
use crate::dialects::apigee::error::ApiError;

/// Most elements of one list.
const LIST_MAX: usize = 5_000;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an entity, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The fields that are not yet taken; see the module.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a body.
    pub fn new(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A field as it came; none when absent or null.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Puts a field in place of the one of its name.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A text; numbers and switches count as their text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => text_of(name, value).map(Some),
        }
    }

    /// A text that must be there and not be empty.
    pub fn needed(&mut self, name: &str) -> Result<String, ApiError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(ApiError::field(name, "is missing, it must not be empty")),
        }
    }

    /// The name of an entity.
    ///
    /// # Errors
    ///
    /// When it is missing, longer than 255 bytes, or holds `/` or control characters.
    pub fn name(&mut self) -> Result<String, ApiError> {
        let name = self.needed("name")?;
        check_name(&name)?;
        Ok(name)
    }

    /// A switch: `true`, `false`, or such a text.
    pub fn switch(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(other) => Err(ApiError::field(
                name,
                format!("{other} is no switch, allowed are true and false"),
            )),
        }
    }

    /// A whole number, or such a text.
    pub fn number(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let wrong = |value: &Value| ApiError::field(name, format!("{value} is not a whole number"));
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => {
                let parsed = text.trim().parse();
                parsed.map(Some).map_err(|_| wrong(&Value::String(text)))
            }
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(&value)),
        }
    }

    /// A network port.
    pub fn port(&mut self, name: &str) -> Result<Option<u16>, ApiError> {
        match self.number(name)? {
            None => Ok(None),
            Some(number) => match u16::try_from(number) {
                Ok(port) if port > 0 => Ok(Some(port)),
                _ => Err(ApiError::field(
                    name,
                    format!("{number} is no port, allowed are 1 to 65535"),
                )),
            },
        }
    }

    /// A list of texts; a single text is a list of one.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let list = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            // What an empty element of XML becomes.
            Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
            Some(single) => vec![single],
        };
        if list.len() > LIST_MAX {
            return Err(ApiError::field(
                name,
                format!("has more than {LIST_MAX} elements"),
            ));
        }
        list.into_iter().map(|value| text_of(name, value)).collect()
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields))),
            Some(Value::String(text)) if text.is_empty() => Ok(Some(Self(Map::new()))),
            Some(_) => Err(ApiError::field(name, "is not an object")),
        }
    }

    /// A list of objects; a single object is a list of one.
    pub fn objects(&mut self, name: &str) -> Result<Vec<Self>, ApiError> {
        let list = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
            Some(single) => vec![single],
        };
        if list.len() > LIST_MAX {
            return Err(ApiError::field(
                name,
                format!("has more than {LIST_MAX} elements"),
            ));
        }
        list.into_iter()
            .map(|value| match value {
                Value::Object(fields) => Ok(Self(fields)),
                _ => Err(ApiError::field(name, "must hold objects only")),
            })
            .collect()
    }

    /// The list `attributes` of names and values, of which the later one of a name counts.
    pub fn attributes(&mut self) -> Result<Option<Vec<Attribute>>, ApiError> {
        if !self.0.contains_key("attributes") {
            return Ok(None);
        }
        let mut attributes: Vec<Attribute> = Vec::new();
        for mut fields in self.objects("attributes")? {
            let name = fields.needed("name")?;
            let value = fields.text("value")?.unwrap_or_default();
            fields.finish()?;
            Attribute::set(&mut attributes, Attribute { name, value })?;
        }
        Ok(Some(attributes))
    }

    /// Whether a field was given at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Lets go of fields that answers carry and that a client may send back, though it cannot set them.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names.iter().chain(&Stamp::FIELDS) {
            self.0.shift_remove(*name);
        }
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    ///
    /// One that names the unknown fields.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        Err(ApiError::bad_request(format!(
            "unrecognized field {}",
            names.join(", ")
        )))
    }
}

/// Checks the name of an entity.
///
/// # Errors
///
/// When it is empty, longer than 255 bytes, or holds `/` or control characters.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(ApiError::field(
            "name",
            format!("must have 1 to {NAME_BYTES_MAX} bytes"),
        ));
    }
    if name.contains('/') || name.chars().any(char::is_control) {
        return Err(ApiError::field(
            "name",
            format!("'{name}' must hold no slash and no control character"),
        ));
    }
    Ok(())
}

fn text_of(name: &str, value: Value) -> Result<String, ApiError> {
    let text = match value {
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => return Err(ApiError::field(name, "is not a text")),
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(ApiError::field(
            name,
            format!("is longer than {TEXT_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().cloned().unwrap())
    }

    #[test]
    fn types_are_lenient_and_leftovers_are_not() {
        let mut given = fields(json!({
            "port": "80", "isEnabled": "TRUE", "host": 7, "list": "one", "none": null, "odd": 1
        }));
        assert_eq!(given.port("port").unwrap(), Some(80));
        assert_eq!(given.switch("isEnabled").unwrap(), Some(true));
        assert_eq!(given.needed("host").unwrap(), "7");
        assert_eq!(given.texts("list").unwrap(), ["one"]);
        assert_eq!(given.text("none").unwrap(), None);
        let refused = given.finish().unwrap_err();
        assert_eq!(refused.message, "unrecognized field odd");
    }

    #[test]
    fn wrong_values_are_named() {
        for (value, told) in [
            (
                json!({"port": 0}),
                "field port: 0 is no port, allowed are 1 to 65535",
            ),
            (
                json!({"port": "x"}),
                "field port: \"x\" is not a whole number",
            ),
            (json!({"port": {}}), "field port: {} is not a whole number"),
        ] {
            assert_eq!(fields(value).port("port").unwrap_err().message, told);
        }
        assert!(check_name("a/b").is_err());
        assert!(check_name(" ").is_ok());
    }
}
