//! Form bodies and query strings as trees: `a.b=1` nests, `a[]=x` appends, `a[2]=x` orders, a repeated key collects.
//!
//! Pure text work: every value stays a text, the schemas give types later (`Record::coerce`). Start at [`parse_form`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use thiserror::Error;

/// Most fields of one form; a body of single-letter fields would otherwise cost far more memory than bytes.
pub const FORM_FIELDS_MAX: usize = 10_000;

/// Deepest nesting of one key.
pub const FORM_DEPTH_MAX: usize = 32;

/// Longest key, in bytes after decoding.
pub const FORM_KEY_BYTES_MAX: usize = 1_024;

/// Greatest index in `a[N]`.
pub const FORM_INDEX_MAX: u32 = 100_000;

/// Why a form cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormError {
    #[error("too many form fields: at most {FORM_FIELDS_MAX} are allowed")]
    TooManyFields,
    #[error("form field name is too long: at most {FORM_KEY_BYTES_MAX} bytes are allowed")]
    KeyTooLong,
    #[error("form field '{0}' nests too deeply: at most {FORM_DEPTH_MAX} levels are allowed")]
    TooDeep(String),
    #[error("form field '{0}' has an index out of range: 1 to {FORM_INDEX_MAX} are allowed")]
    IndexOutOfRange(String),
    #[error("form field '{0}' is given both as a value and as a record or list")]
    Conflict(String),
    #[error("form field '{0}' is not valid UTF-8")]
    NotText(String),
}

/// Reads an `application/x-www-form-urlencoded` text into a tree of objects, lists and texts.
///
/// A field without `=` is an empty text. Indexed elements come in the order of their index; gaps close.
pub fn parse_form(text: &[u8]) -> Result<Map<String, Value>, FormError> {
    let mut form = FormBuilder::default();
    for pair in text.split(|byte| *byte == b'&') {
        if pair.is_empty() {
            continue;
        }
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at(at);
        let key = decode(key)?;
        let value = decode(value.get(1..).unwrap_or_default())
            .map_err(|_| FormError::NotText(key.clone()))?;
        form.add(&key, value)?;
    }
    Ok(form.finish())
}

/// Percent-decoding with `+` as space.
fn decode(text: &[u8]) -> Result<String, FormError> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
    String::from_utf8(decoded)
        .map_err(|error| FormError::NotText(String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Collects fields one by one; shared by urlencoded and multipart bodies.
#[derive(Debug, Default)]
pub struct FormBuilder {
    root: OrderedFields,
    fields: usize,
}

/// Fields in the order of their first appearance.
type OrderedFields = Vec<(String, Node)>;

#[derive(Debug)]
enum Node {
    Text(String),
    /// From `a[]=`, or from a key that repeats.
    List(Vec<Node>),
    /// From `a[N]=`.
    Indexed(BTreeMap<u32, Node>),
    Fields(OrderedFields),
}

/// One step of a key.
#[derive(Debug, PartialEq, Eq)]
enum Step<'k> {
    Field(&'k str),
    Append,
    Index(u32),
}

impl FormBuilder {
    /// Adds one field; its key is decoded already.
    pub fn add(&mut self, key: &str, value: String) -> Result<(), FormError> {
        self.fields += 1;
        if self.fields > FORM_FIELDS_MAX {
            return Err(FormError::TooManyFields);
        }
        if key.len() > FORM_KEY_BYTES_MAX {
            return Err(FormError::KeyTooLong);
        }
        let (name, steps) = steps(key)?;
        let slot = match self.root.iter_mut().position(|(known, _)| known == name) {
            Some(at) => self.root.get_mut(at).map(|(_, node)| node),
            None => {
                self.root.push((name.to_owned(), nest(&steps, value)));
                return Ok(());
            }
        };
        match slot {
            Some(slot) => {
                add_to(slot, &steps, value).ok_or_else(|| FormError::Conflict(key.to_owned()))
            }
            None => Ok(()),
        }
    }

    /// The tree.
    pub fn finish(self) -> Map<String, Value> {
        fields_json(self.root)
    }
}

/// Splits `config.x[1].y` into `config` and the steps below it.
fn steps(key: &str) -> Result<(&str, Vec<Step<'_>>), FormError> {
    let end = key.find(['.', '[']).unwrap_or(key.len());
    let (name, mut rest) = key.split_at(end);
    if name.is_empty() {
        // `.a=1` or `[]=1`: nothing to nest in, so the key is taken as it stands.
        return Ok((key, Vec::new()));
    }
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() >= FORM_DEPTH_MAX {
            return Err(FormError::TooDeep(key.to_owned()));
        }
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (field, tail) = after.split_at(end);
            if field.is_empty() {
                return Ok((key, Vec::new()));
            }
            steps.push(Step::Field(field));
            rest = tail;
        } else if let Some((inside, tail)) = rest
            .strip_prefix('[')
            .and_then(|after| after.split_once(']'))
        {
            steps.push(match inside {
                "" => Step::Append,
                digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                    .parse()
                    .ok()
                    .filter(|index| (1..=FORM_INDEX_MAX).contains(index))
                    .map(Step::Index)
                    .ok_or_else(|| FormError::IndexOutOfRange(key.to_owned()))?,
                field => Step::Field(field),
            });
            rest = tail;
        } else {
            // `a[b` or `a[1]b`: not a path, so a plain name.
            return Ok((key, Vec::new()));
        }
    }
    Ok((name, steps))
}

/// A new node that holds `value` at the end of `steps`.
fn nest(steps: &[Step<'_>], value: String) -> Node {
    let mut node = Node::Text(value);
    for step in steps.iter().rev() {
        node = match step {
            Step::Field(name) => Node::Fields(vec![((*name).to_owned(), node)]),
            Step::Append => Node::List(vec![node]),
            Step::Index(index) => Node::Indexed(BTreeMap::from([(*index, node)])),
        };
    }
    node
}

/// Adds a value below an existing node; `None` when the two do not fit together.
fn add_to(node: &mut Node, steps: &[Step<'_>], value: String) -> Option<()> {
    let Some((step, rest)) = steps.split_first() else {
        match node {
            Node::List(list) => list.push(Node::Text(value)),
            Node::Text(first) => {
                let first = std::mem::take(first);
                *node = Node::List(vec![Node::Text(first), Node::Text(value)]);
            }
            Node::Indexed(_) | Node::Fields(_) => return None,
        }
        return Some(());
    };
    match (step, node) {
        (Step::Append, Node::List(list)) => list.push(nest(rest, value)),
        (Step::Append, node @ Node::Text(_)) => {
            let first = std::mem::replace(node, Node::List(Vec::new()));
            *node = Node::List(vec![first, nest(rest, value)]);
        }
        (Step::Append, Node::Indexed(elements)) => {
            let next = elements.keys().next_back().map_or(1, |last| last + 1);
            elements.insert(next, nest(rest, value));
        }
        (Step::Index(index), Node::Indexed(elements)) => match elements.get_mut(index) {
            Some(element) => return add_to(element, rest, value),
            None => {
                elements.insert(*index, nest(rest, value));
            }
        },
        (Step::Field(name), Node::Fields(fields)) => {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, field)) => return add_to(field, rest, value),
                None => fields.push(((*name).to_owned(), nest(rest, value))),
            }
        }
        _ => return None,
    }
    Some(())
}

fn fields_json(fields: OrderedFields) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, node)| (name, node.into_json()))
        .collect()
}

impl Node {
    fn into_json(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text),
            Self::List(list) => list.into_iter().map(Self::into_json).collect(),
            Self::Indexed(elements) => elements.into_values().map(Self::into_json).collect(),
            Self::Fields(fields) => Value::Object(fields_json(fields)),
        }
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
    fn reads_the_forms_of_curl() {
        for (form, expected) in [
            (
                "name=foo&url=http%3A%2F%2Fx",
                json!({"name": "foo", "url": "http://x"}),
            ),
            ("hosts[]=a&hosts[]=b", json!({"hosts": ["a", "b"]})),
            ("hosts%5B%5D=a", json!({"hosts": ["a"]})),
            (
                "hosts=a&hosts=b&hosts[]=c",
                json!({"hosts": ["a", "b", "c"]}),
            ),
            ("a[2]=y&a[1]=x&a[]=z", json!({"a": ["x", "y", "z"]})),
            (
                "service.id=1&service.name=n",
                json!({"service": {"id": "1", "name": "n"}}),
            ),
            (
                "config.x[1].y=1&config.x[1].z=2&config.x[2].y=3",
                json!({"config": {"x": [{"y": "1", "z": "2"}, {"y": "3"}]}}),
            ),
            ("config[minute]=5", json!({"config": {"minute": "5"}})),
            ("a[].b=1&a[].b=2", json!({"a": [{"b": "1"}, {"b": "2"}]})),
            ("name=&x", json!({"name": "", "x": ""})),
            ("a=1+2%2B3&&b=%C3%BC", json!({"a": "1 2+3", "b": "ü"})),
            (
                "a[b=1&.c=2&a..d=3",
                json!({"a[b": "1", ".c": "2", "a..d": "3"}),
            ),
            (
                "headers.x-a[]=1&headers.x-a[]=2",
                json!({"headers": {"x-a": ["1", "2"]}}),
            ),
        ] {
            assert_eq!(
                Value::Object(parse_form(form.as_bytes()).unwrap()),
                expected,
                "{form}"
            );
        }
    }

    #[test]
    fn refuses_what_would_cost_too_much_or_makes_no_sense() {
        let deep = format!("a{}=1", ".b".repeat(FORM_DEPTH_MAX + 1));
        let many = "a=1&".repeat(FORM_FIELDS_MAX + 1);
        let long = format!("{}=1", "k".repeat(FORM_KEY_BYTES_MAX + 1));
        for form in [
            deep.as_str(),
            &many,
            &long,
            "a[0]=1",
            "a[4294967296]=1",
            "a=1&a.b=2",
            "a.b=1&a=2",
            "a[1]=1&a.x=2",
            "%ff=1",
            "a=%ff",
        ] {
            assert!(parse_form(form.as_bytes()).is_err(), "{form:.40}");
        }
    }
}
