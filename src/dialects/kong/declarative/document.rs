//! From text to a tree: YAML or JSON, with limits on depth, aliases and size, and the place of what is wrong.

use std::fmt;

use md5::{Digest, Md5};
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Longest document in bytes.
pub const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub const DEPTH_MAX: usize = 100;
/// Values that aliases may add beyond one for each byte of text.
const ALIASED_VALUES_MAX: usize = 1_000_000;
/// Bytes of text that aliases may add beyond four times the document.
const ALIASED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// YAML; JSON is nearly a part of it.
    Yaml,
    /// JSON.
    Json,
}

impl Syntax {
    /// What a file name's ending says.
    pub fn of_file_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "yml" | "yaml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// What the text looks like.
    pub fn of_text(text: &str) -> Self {
        match text.trim_start().starts_with('{') {
            true => Self::Json,
            false => Self::Yaml,
        }
    }
}

/// Why a text is no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, counted from 1; none when the text as a whole is refused.
    pub line: Option<u32>,
    /// Column, counted from 1.
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl SyntaxError {
    fn whole(message: impl Into<String>) -> Self {
        Self {
            line: None,
            column: None,
            message: message.into(),
        }
    }
}

/// Reads a document's text. An empty one is null.
///
/// # Errors
///
/// Where the text stops being YAML or JSON, or exceeds a limit.
pub fn parse_text(text: &str, syntax: Syntax) -> Result<Value, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(SyntaxError::whole(format!(
            "document is longer than {TEXT_BYTES_MAX} bytes"
        )));
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let mut budget = Budget {
        values: text.len().saturating_add(ALIASED_VALUES_MAX),
        bytes: text
            .len()
            .saturating_mul(4)
            .saturating_add(ALIASED_BYTES_MAX),
        merges: syntax == Syntax::Yaml,
    };
    let node = Node {
        budget: &mut budget,
        depth: 0,
    };
    match syntax {
        Syntax::Yaml => node
            .deserialize(serde_yaml_ng::Deserializer::from_str(text))
            .map_err(yaml_error),
        Syntax::Json => {
            let mut json = serde_json::Deserializer::from_str(text);
            let value = node.deserialize(&mut json).map_err(json_error)?;
            json.end().map_err(json_error)?;
            Ok(value)
        }
    }
}

/// The hash by which clients tell whether a document is loaded already: MD5 of the text, 32 hex digits.
pub fn text_hash(text: &str) -> String {
    use fmt::Write;
    let mut hash = String::with_capacity(32);
    for byte in Md5::digest(text.as_bytes()) {
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// The hash of a document that came as a tree, not as text.
pub fn tree_hash(document: &Value) -> String {
    text_hash(&document.to_string())
}

fn yaml_error(error: serde_yaml_ng::Error) -> SyntaxError {
    let place = error.location();
    let number = |number: usize| u32::try_from(number).ok();
    let text = error.to_string();
    // The text ends with the place, which stands in front here.
    let message = match text.rfind(" at line ") {
        Some(end) if place.is_some() => text.get(..end).unwrap_or(&text).to_owned(),
        _ => text,
    };
    SyntaxError {
        line: place.as_ref().and_then(|place| number(place.line())),
        column: place.as_ref().and_then(|place| number(place.column())),
        message,
    }
}

fn json_error(error: serde_json::Error) -> SyntaxError {
    let text = error.to_string();
    let message = match text.rfind(" at line ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    };
    SyntaxError {
        line: u32::try_from(error.line()).ok(),
        column: u32::try_from(error.column()).ok(),
        message,
    }
}

/// What is left to spend on one document.
struct Budget {
    values: usize,
    bytes: usize,
    /// `<<` merges mappings.
    merges: bool,
}

impl Budget {
    fn spend<E: de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        let (Some(values), Some(bytes)) =
            (self.values.checked_sub(1), self.bytes.checked_sub(bytes))
        else {
            return Err(E::custom(
                "document is too large once its aliases are replaced by what they stand for",
            ));
        };
        (self.values, self.bytes) = (values, bytes);
        Ok(())
    }
}

struct Node<'b> {
    budget: &'b mut Budget,
    depth: usize,
}

impl Node<'_> {
    fn child<E: de::Error>(&mut self) -> Result<Node<'_>, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Node {
            budget: &mut *self.budget,
            depth,
        })
    }

    fn text<E: de::Error>(&mut self, text: &str) -> Result<Value, E> {
        self.budget.spend(text.len())?;
        Ok(Value::String(text.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, number, boolean, null, list or mapping")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.budget.spend(0)?;
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(E::custom("number is not finite")),
        }
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<Value, E> {
        self.text(value)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.child()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(Key {
            budget: &mut *self.budget,
            taken: &map,
        })? {
            let value = entries.next_value_seed(self.child()?)?;
            if self.budget.merges && key == "<<" {
                merged.push(value);
            } else {
                map.insert(key, value);
            }
        }
        for value in merged {
            merge(&mut map, value)?;
        }
        Ok(Value::Object(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(de::Error::custom(
            "tags such as '!name' have no meaning here",
        ))
    }
}

/// Adds what `<<` names; keys of the mapping itself win, then those of the mapping named first.
fn merge<E: de::Error>(into: &mut Map<String, Value>, value: Value) -> Result<(), E> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) => list.into_iter().try_for_each(|value| match value {
            Value::Object(_) => merge(into, value),
            _ => Err(E::custom("'<<' needs mappings")),
        }),
        _ => Err(E::custom("'<<' needs a mapping or a list of mappings")),
    }
}

/// The key of a mapping: text, or what reads like one.
struct Key<'b> {
    budget: &'b mut Budget,
    /// Refused here and not by the mapping, so that the error tells the place of the key.
    taken: &'b Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        self.budget.spend(value.len())?;
        match self.taken.contains_key(value) {
            true => Err(E::custom(format!("duplicate key '{value}'"))),
            false => Ok(value.to_owned()),
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        self.visit_str(&value.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let yaml = "a: &x {b: [1, 2.5, yes, null]}\nc: *x\nd:\n  <<: *x\n  e: 'on'\n1: true\n";
        let expected = json!({
            "a": {"b": [1, 2.5, "yes", null]},
            "c": {"b": [1, 2.5, "yes", null]},
            "d": {"e": "on", "b": [1, 2.5, "yes", null]},
            "1": true,
        });
        assert_eq!(parse_text(yaml, Syntax::Yaml).unwrap(), expected);
        let json = expected.to_string();
        assert_eq!(parse_text(&json, Syntax::Json).unwrap(), expected);
        assert_eq!(parse_text(&json, Syntax::Yaml).unwrap(), expected);
        assert_eq!(parse_text(" \n", Syntax::Yaml).unwrap(), Value::Null);
    }

    #[test]
    fn errors_tell_the_place() {
        let cases = [
            (Syntax::Yaml, "a: 1\nb: [", Some(3), "expected"),
            (Syntax::Yaml, "a: 1\na: 2", Some(2), "duplicate key 'a'"),
            (Syntax::Yaml, "a: !env X", Some(1), "tags"),
            (Syntax::Yaml, "a: .inf", Some(1), "not finite"),
            (
                Syntax::Yaml,
                "a: 1\n---\nb: 2",
                None,
                "more than one document",
            ),
            (Syntax::Yaml, "[a]: 1", Some(1), "a text as key"),
            (Syntax::Json, "{\n \"a\": }", Some(2), "expected value"),
            (Syntax::Json, "{} {}", Some(1), "trailing characters"),
        ];
        for (syntax, text, line, message) in cases {
            let error = parse_text(text, syntax).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error}");
            if line.is_some() {
                assert_eq!(error.line, line, "{text}: {error}");
            }
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let below = level - 1;
            laughs.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{below}"); 9].join(", ")
            ));
        }
        assert!(parse_text(&laughs, Syntax::Yaml).is_err());
        let wide = format!(
            "a: &a {}\nb: [{}]",
            "x".repeat(100_000),
            vec!["*a"; 2000].join(",")
        );
        let error = parse_text(&wide, Syntax::Yaml).unwrap_err();
        assert!(error.message.contains("aliases"), "{error}");
        for deep in [
            format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
            format!("{}1{}", "{\"a\":".repeat(101), "}".repeat(101)),
        ] {
            assert!(parse_text(&deep, Syntax::Json).is_err());
            assert!(parse_text(&deep, Syntax::Yaml).is_err());
        }
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        assert_eq!(text_hash("abc"), "900150983cd24fb0d6963f7d28e17f72");
    }
}
