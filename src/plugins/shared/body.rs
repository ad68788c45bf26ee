//! Request bodies that hold named fields: urlencoded forms, JSON objects, multipart forms.
//!
//! Only top-level fields are seen. A body that cannot be read as what its type announces is left alone.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use serde_json::{Map, Value};

use super::headers::{number, set_request};
use super::query::Arguments;
use crate::runtime::exchange::{Exchange, RequestBody};

/// Fields of a form. What follows is cut off: a form that was left alone could carry past what is to be removed.
const FIELDS_MAX: usize = 1000;

/// A body as named fields, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fields {
    Urlencoded(Arguments),
    Json(Map<String, Value>),
    Multipart(Multipart),
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldText {
    Absent,
    One(Vec<u8>),
    Several,
}

impl Fields {
    /// The fields of the exchange's held body, if its type is one of the three and it can be read.
    pub(crate) fn of(exchange: &Exchange) -> Option<Self> {
        let RequestBody::Held(body) = &exchange.request_body else {
            return None;
        };
        let kind = exchange.request.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        Self::parse(kind, body)
    }

    fn parse(content_type: &str, body: &[u8]) -> Option<Self> {
        let essence = content_type.split(';').next()?.trim();
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::Urlencoded(Arguments::parse(body, FIELDS_MAX)));
        }
        if essence.eq_ignore_ascii_case("application/json") {
            return match serde_json::from_slice(body) {
                Ok(Value::Object(map)) => Some(Self::Json(map)),
                _ => None,
            };
        }
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            return Multipart::parse(content_type, body).map(Self::Multipart);
        }
        None
    }

    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> FieldText {
        let mut found = FieldText::Absent;
        let mut see = |text: Option<&[u8]>| {
            found = match (&found, text) {
                (FieldText::Absent, Some(text)) => FieldText::One(text.to_vec()),
                (FieldText::Absent, None) => FieldText::Absent,
                _ => FieldText::Several,
            };
        };
        match self {
            Self::Urlencoded(arguments) => arguments
                .0
                .iter()
                .filter(|(other, _)| other == name.as_bytes())
                .for_each(|(_, value)| see(value.as_deref())),
            Self::Json(map) => match map.get(name) {
                Some(Value::String(text)) => see(Some(text.as_bytes())),
                Some(Value::Array(_)) => found = FieldText::Several,
                _ => {}
            },
            Self::Multipart(form) => form
                .parts
                .iter()
                .filter(|part| part.name.as_deref() == Some(name))
                .for_each(|part| see(Some(&part.body))),
        }
        found
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Urlencoded(arguments) => arguments.has(name.as_bytes()),
            Self::Json(map) => map.contains_key(name),
            Self::Multipart(form) => form.has(name),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        match self {
            Self::Urlencoded(arguments) => arguments.remove(name.as_bytes()),
            Self::Json(map) => {
                map.shift_remove(name);
            }
            Self::Multipart(form) => form.parts.retain(|part| part.name.as_deref() != Some(name)),
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if !self.has(from) || from == to {
            return;
        }
        match self {
            Self::Urlencoded(arguments) => arguments.rename(from.as_bytes(), to.as_bytes()),
            Self::Json(map) => {
                if let Some(value) = map.shift_remove(from) {
                    map.insert(to.to_owned(), value);
                }
            }
            Self::Multipart(form) => {
                form.parts.retain(|part| part.name.as_deref() != Some(to));
                for part in &mut form.parts {
                    if part.name.as_deref() == Some(from) {
                        *part = Part::text(to, std::mem::take(&mut part.body));
                    }
                }
            }
        }
    }

    /// Leaves one field of this name, with this value.
    pub(crate) fn set(&mut self, name: &str, value: Vec<u8>) {
        match self {
            Self::Urlencoded(arguments) => arguments.set(name.as_bytes(), value),
            Self::Json(map) => {
                map.insert(name.to_owned(), json_text(&value));
            }
            Self::Multipart(form) => {
                let part = Part::text(name, value);
                match form
                    .parts
                    .iter_mut()
                    .find(|part| part.name.as_deref() == Some(name))
                {
                    Some(slot) => *slot = part,
                    None => form.parts.push(part),
                }
            }
        }
    }

    /// Adds another value; multipart forms have no such thing and stay as they are.
    pub(crate) fn append(&mut self, name: &str, value: Vec<u8>) {
        match self {
            Self::Urlencoded(arguments) => arguments.append(name.as_bytes(), value),
            Self::Json(map) => append_json(map, name, json_text(&value)),
            Self::Multipart(_) => {}
        }
    }

    /// The body with these fields.
    pub(crate) fn write(&self) -> Vec<u8> {
        match self {
            Self::Urlencoded(arguments) => arguments.write(),
            // Maps with text keys can always be written.
            Self::Json(map) => serde_json::to_vec(map).unwrap_or_default(),
            Self::Multipart(form) => form.write(),
        }
    }
}

/// Adds a value to a field: what is there becomes a list.
pub(crate) fn append_json(map: &mut Map<String, Value>, name: &str, value: Value) {
    match map.get_mut(name) {
        None | Some(Value::Null) => {
            map.insert(name.to_owned(), Value::Array(vec![value]));
        }
        Some(Value::Array(list)) => list.push(value),
        Some(present) => {
            let first = present.take();
            *present = Value::Array(vec![first, value]);
        }
    }
}

fn json_text(value: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(value).into_owned())
}

/// Puts another body in the place of the client's, with its length.
pub(crate) fn replace(exchange: &mut Exchange, body: impl Into<Bytes>) {
    let body = body.into();
    let head = &mut exchange.request;
    head.remove_header(&TRANSFER_ENCODING);
    set_request(head, CONTENT_LENGTH, number(body.len() as u64));
    exchange.request_body = RequestBody::Held(body);
}

/// A multipart form (RFC 7578). Parts that are not edited are written as they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Multipart {
    boundary: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
struct Part {
    name: Option<String>,
    /// Header lines without the empty line.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Part {
    fn text(name: &str, body: Vec<u8>) -> Self {
        // RFC 7578, 4.2 with WHATWG's escapes: nothing in a name may end the quoted text or the line.
        let quoted = name
            .replace('"', "%22")
            .replace('\r', "%0D")
            .replace('\n', "%0A");
        Self {
            name: Some(name.to_owned()),
            head: format!("Content-Disposition: form-data; name=\"{quoted}\"").into_bytes(),
            body,
        }
    }
}

impl Multipart {
    fn parse(content_type: &str, body: &[u8]) -> Option<Self> {
        let boundary = parameter(content_type, "boundary")?;
        if boundary.is_empty() {
            return None;
        }
        let mut delimiter = b"\r\n--".to_vec();
        delimiter.extend_from_slice(boundary.as_bytes());
        let finder = memchr::memmem::Finder::new(&delimiter);
        // The first delimiter has no line end before it.
        let first = delimiter.get(2..)?;
        let mut rest = match body.strip_prefix(first) {
            Some(rest) => rest,
            None => body.get(finder.find(body)? + delimiter.len()..)?,
        };
        let mut parts = Vec::new();
        loop {
            if rest.starts_with(b"--") || parts.len() == FIELDS_MAX {
                break;
            }
            let inside = rest.strip_prefix(b"\r\n")?;
            let end = finder.find(inside)?;
            let part = inside.get(..end)?;
            rest = inside.get(end + delimiter.len()..)?;
            let (head, body) = match part.strip_prefix(b"\r\n") {
                Some(body) => (&b""[..], body),
                None => {
                    let at = memchr::memmem::find(part, b"\r\n\r\n")?;
                    (part.get(..at)?, part.get(at + 4..)?)
                }
            };
            parts.push(Part {
                name: part_name(head),
                head: head.to_vec(),
                body: body.to_vec(),
            });
        }
        Some(Self {
            boundary: boundary.into_bytes(),
            parts,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.parts
            .iter()
            .any(|part| part.name.as_deref() == Some(name))
    }

    fn write(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &self.parts {
            text.extend_from_slice(b"--");
            text.extend_from_slice(&self.boundary);
            text.extend_from_slice(b"\r\n");
            if !part.head.is_empty() {
                text.extend_from_slice(&part.head);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"\r\n");
            text.extend_from_slice(&part.body);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"--");
        text.extend_from_slice(&self.boundary);
        text.extend_from_slice(b"--\r\n");
        text
    }
}

fn part_name(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let line = head.split("\r\n").find(|line| {
        line.get(..20)
            .is_some_and(|start| start.eq_ignore_ascii_case("content-disposition:"))
    })?;
    parameter(line, "name")
}

/// A parameter of a header value, `; name=value` or `; name="value"`.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    while let Some(at) = rest.find(';') {
        rest = rest.get(at + 1..)?.trim_start();
        let Some((key, tail)) = rest.split_once('=') else {
            break;
        };
        let (text, after) = match tail.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (quoted.get(..end)?, quoted.get(end + 1..)?)
            }
            None => {
                let end = tail.find(';').unwrap_or(tail.len());
                (tail.get(..end)?.trim_end(), tail.get(end..)?)
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(text.to_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    const FORM: &str = "--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
        --xx\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f;n\"\r\n\
        Content-Type: text/plain\r\n\r\nline\r\n\r\nline\r\n--xx--\r\n";

    #[test]
    fn multipart_survives_a_round_trip() {
        let form = Fields::parse("multipart/form-data; boundary=xx", FORM.as_bytes()).unwrap();
        assert_eq!(form.text("a"), FieldText::One(b"1".to_vec()));
        assert_eq!(form.text("f"), FieldText::One(b"line\r\n\r\nline".to_vec()));
        assert_eq!(form.write(), FORM.as_bytes());
    }

    #[test]
    fn edits_every_kind_alike() {
        let cases = [
            ("application/x-www-form-urlencoded", "a=1&b=2"),
            ("application/json; charset=utf-8", r#"{"a":"1","b":"2"}"#),
            (
                "multipart/form-data; boundary=\"xx\"",
                "--xx\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--xx\r\nContent-Disposition: form-data; name=b\r\n\r\n2\r\n--xx--",
            ),
        ];
        for (kind, body) in cases {
            let mut fields = Fields::parse(kind, body.as_bytes()).unwrap();
            fields.rename("a", "c");
            fields.remove("b");
            fields.set("d", b"4".to_vec());
            let again = Fields::parse(kind, &fields.write()).unwrap();
            let seen = ["a", "b", "c", "d"].map(|name| again.text(name));
            let one = |text: &str| FieldText::One(text.as_bytes().to_vec());
            assert_eq!(
                seen,
                [FieldText::Absent, FieldText::Absent, one("1"), one("4")],
                "{kind}"
            );
        }
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for (kind, body) in [
            ("application/json", "[1]"),
            ("application/json", "{"),
            ("text/plain", "a=1"),
            ("multipart/form-data", "--xx--"),
            ("multipart/form-data; boundary=xx", "--xx"),
            ("multipart/form-data; boundary=xx", "--xx\r\nno end"),
        ] {
            assert_eq!(Fields::parse(kind, body.as_bytes()), None, "{kind} {body}");
        }
    }
}
