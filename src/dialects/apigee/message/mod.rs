//! A message: what flows through a proxy, readable and writable by the names of its properties.
//!
//! Owns the data (fields, path, query, body, status) and what `M.header.X`, `M.queryparam.Y.2` and their kin mean. What
//! nobody writes stays byte for byte: path and query are kept raw. Refuses to know which message is current, and how
//! messages get onto the wire. Start at [`Message::read`] and [`Message::write`].

pub mod fields;
pub mod parameters;
mod property;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::variables::Value;
use parameters::Parameters;
pub use property::{Part, Property, Set};

/// What a path written by a policy may not hold as it is.
const PATH_ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');
/// The media type of form parameters.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Request or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Has a verb, path and query.
    Request,
    /// Has a status and reason.
    Response,
}

/// A request or response with its body in memory.
#[derive(Clone, Debug)]
pub struct Message {
    /// Request or response.
    pub kind: MessageKind,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body; empty while it is streamed past.
    pub content: Bytes,
    /// The protocol version.
    pub version: Version,
    /// The method, for requests.
    pub verb: Cow<'static, str>,
    /// The path as on the wire, for requests.
    pub path: String,
    /// The query as on the wire, without `?`; `None` without one. For requests.
    pub query: Option<String>,
    /// For responses.
    pub status: u16,
    /// For responses; `None`: the standard one.
    pub reason: Option<Box<str>>,
}

/// Why a property was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nobody may write it (fault `ImmutableVariable`).
    #[error("'{0}' is read-only")]
    ReadOnly(Box<str>),
    /// The value does not fit (fault `SetVariableFailed`).
    #[error("'{property}' cannot be set: {reason}")]
    Unfit {
        /// What was to be written.
        property: Box<str>,
        /// Why not.
        reason: &'static str,
    },
}

impl Message {
    /// An empty `GET /`.
    pub fn request() -> Self {
        Self {
            kind: MessageKind::Request,
            headers: HeaderMap::new(),
            content: Bytes::new(),
            version: Version::HTTP_11,
            verb: Cow::Borrowed("GET"),
            path: "/".to_owned(),
            query: None,
            status: 0,
            reason: None,
        }
    }

    /// An empty response with status 200.
    pub fn response() -> Self {
        Self {
            kind: MessageKind::Response,
            verb: Cow::Borrowed(""),
            path: String::new(),
            status: 200,
            ..Self::request()
        }
    }

    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        self.kind == MessageKind::Request
    }

    /// A property's value; `None` when there is no such thing.
    pub fn read(&self, property: &Property) -> Option<Value<'_>> {
        match property {
            Property::Content => Some(Value::Text(self.text())),
            Property::ContentAsBase64 => Some(STANDARD.encode(&self.content).into()),
            Property::ContentAsUrlSafeBase64 => Some(URL_SAFE_NO_PAD.encode(&self.content).into()),
            Property::Header(name, Part::First) => {
                fields::first(&self.headers, name).map(Value::Text)
            }
            Property::Header(name, Part::Joined) => {
                fields::joined(&self.headers, name).map(Value::Text)
            }
            Property::Header(name, part) => {
                let exists = self.headers.contains_key(name);
                exists
                    .then(|| part_of(fields::values(&self.headers, name), *part))
                    .flatten()
            }
            Property::ImpossibleHeader(_) => None,
            Property::Headers(set) => {
                let names = self.headers.keys().map(|name| Cow::Borrowed(name.as_str()));
                Some(set_of(names.collect(), self.headers.keys_len(), *set))
            }
            Property::QueryParameter(name, part) => {
                let parameters = Parameters(self.query.as_deref()?);
                present(parameters.values(name), *part)
            }
            Property::QueryParameters(set) if self.is_request() => Some(parameters_of(
                Parameters(self.query.as_deref().unwrap_or_default()),
                *set,
            )),
            Property::QueryString if self.is_request() => {
                Some(self.query.as_deref().unwrap_or_default().into())
            }
            Property::FormParameter(name, part) => {
                let form = self.form()?;
                present(Parameters(form).values(name), *part)
            }
            Property::FormParameters(set) => Some(parameters_of(Parameters(self.form()?), *set)),
            Property::FormString => self.form().map(Value::from),
            Property::Verb if self.is_request() => Some(self.verb.as_ref().into()),
            Property::Path if self.is_request() => Some(self.path.as_str().into()),
            Property::Uri if self.is_request() => Some(Value::Text(self.uri())),
            Property::Version => Some(version_text(self.version).into()),
            Property::StatusCode if !self.is_request() => {
                Some(Value::Integer(i32::from(self.status)))
            }
            Property::ReasonPhrase if !self.is_request() => Some(self.reason_text().into()),
            _ => None,
        }
    }

    /// Writes a property; see [`Message::read`] for the names.
    ///
    /// # Errors
    /// When nobody may write it, or the value does not fit.
    pub fn write(&mut self, property: &Property, value: &str) -> Result<(), WriteError> {
        let unfit = |reason| WriteError::Unfit {
            property: property.to_string().into(),
            reason,
        };
        match property {
            Property::Content => self.replace_content(Bytes::from(value.to_owned())),
            Property::Header(name, part) => {
                let value = fields::value_of(value)
                    .ok_or_else(|| unfit("a header holds no line ends or control characters"))?;
                match part {
                    Part::First => drop(self.headers.insert(name, value)),
                    Part::Number(number) if *number > 0 => {
                        fields::set_number(&mut self.headers, name, *number, &value)
                    }
                    _ => return Err(read_only(property)),
                }
            }
            Property::ImpossibleHeader(_) => return Err(unfit("this is not a header's name")),
            Property::QueryParameter(..)
            | Property::QueryString
            | Property::Verb
            | Property::Path
                if !self.is_request() =>
            {
                return Err(unfit("the message is a response"));
            }
            Property::StatusCode | Property::ReasonPhrase if self.is_request() => {
                return Err(unfit("the message is a request"));
            }
            Property::QueryParameter(name, part) => {
                write_parameter(self.query.get_or_insert_default(), name, *part, value)
                    .ok_or_else(|| read_only(property))?;
            }
            Property::FormParameter(name, part) => {
                if !self.headers.contains_key(CONTENT_TYPE) && self.content.is_empty() {
                    self.headers
                        .insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
                }
                let form = self.form().ok_or_else(|| {
                    unfit("the message is not of the type application/x-www-form-urlencoded")
                })?;
                let mut form = form.to_owned();
                write_parameter(&mut form, name, *part, value)
                    .ok_or_else(|| read_only(property))?;
                self.replace_content(Bytes::from(form));
            }
            Property::QueryString => {
                self.query = (!value.is_empty())
                    .then(|| utf8_percent_encode(value, QUERY_ENCODED).to_string());
            }
            Property::Verb => {
                let is_token = http::Method::from_bytes(value.as_bytes()).is_ok();
                if !is_token {
                    return Err(unfit("this is not a method"));
                }
                self.verb = Cow::Owned(value.to_owned());
            }
            Property::Path => {
                let path = utf8_percent_encode(value, PATH_ENCODED).to_string();
                self.path = if path.starts_with('/') {
                    path
                } else {
                    format!("/{path}")
                };
            }
            Property::Version => {
                self.version =
                    version_of(value).ok_or_else(|| unfit("the version is 1.0 or 1.1"))?;
            }
            Property::StatusCode => {
                let status = value
                    .trim()
                    .parse()
                    .ok()
                    .filter(|status| (100..=599).contains(status));
                self.status =
                    status.ok_or_else(|| unfit("a status is a number from 100 to 599"))?;
            }
            Property::ReasonPhrase => {
                if value.contains(|character: char| character.is_control()) {
                    return Err(unfit("a reason holds no control characters"));
                }
                self.reason = Some(value.into());
            }
            _ => return Err(read_only(property)),
        }
        Ok(())
    }

    /// Removes what a property names. Tells whether there was anything.
    ///
    /// # Errors
    /// When the property is not of a kind that can be removed.
    pub fn remove(&mut self, property: &Property) -> Result<bool, WriteError> {
        Ok(match property {
            Property::Content => {
                let had = !self.content.is_empty();
                self.replace_content(Bytes::new());
                had
            }
            Property::Header(name, Part::First) => self.headers.remove(name).is_some(),
            Property::Header(name, Part::Number(number)) => {
                fields::remove_number(&mut self.headers, name, *number)
            }
            Property::QueryParameter(name, part) => {
                let wanted = removable(*part).ok_or_else(|| read_only(property))?;
                let Some(query) = &mut self.query else {
                    return Ok(false);
                };
                let had = parameters::remove(query, name, wanted);
                if query.is_empty() {
                    self.query = None;
                }
                had
            }
            Property::FormParameter(name, part) => {
                let wanted = removable(*part).ok_or_else(|| read_only(property))?;
                let Some(form) = self.form() else {
                    return Ok(false);
                };
                let mut form = form.to_owned();
                let had = parameters::remove(&mut form, name, wanted);
                if had {
                    self.replace_content(Bytes::from(form));
                }
                had
            }
            Property::QueryString => self.query.take().is_some(),
            Property::ReasonPhrase => self.reason.take().is_some(),
            _ => return Err(read_only(property)),
        })
    }

    /// Appends a further value under a header's name.
    ///
    /// # Errors
    /// When the name or value cannot stand in a header.
    pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        let unfit = |reason| WriteError::Unfit {
            property: format!("header.{name}").into(),
            reason,
        };
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unfit("this is not a header's name"))?;
        let value = fields::value_of(value)
            .ok_or_else(|| unfit("a header holds no line ends or control characters"))?;
        self.headers.append(name, value);
        Ok(())
    }

    /// Appends a query parameter.
    pub fn add_query_parameter(&mut self, name: &str, value: &str) {
        parameters::add(self.query.get_or_insert_default(), name, value);
    }

    /// Appends a form parameter to the body.
    ///
    /// # Errors
    /// When the body is of another type.
    pub fn add_form_parameter(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        // Numbers beyond what is there append.
        let property = Property::FormParameter(name.into(), Part::Number(usize::MAX));
        self.write(&property, value)
    }

    /// Replaces the body; a length that the fields tell follows.
    pub fn replace_content(&mut self, content: Bytes) {
        self.headers.remove(TRANSFER_ENCODING);
        if self.headers.contains_key(CONTENT_LENGTH) {
            self.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
        }
        self.content = content;
    }

    /// The body as text, in the character set that its type names: UTF-8 unless ISO-8859-1. What is not valid UTF-8
    /// becomes replacement characters.
    pub fn text(&self) -> Cow<'_, str> {
        if self
            .charset()
            .is_some_and(|name| name.eq_ignore_ascii_case("iso-8859-1"))
            && !self.content.is_ascii()
        {
            return Cow::Owned(self.content.iter().map(|byte| *byte as char).collect());
        }
        String::from_utf8_lossy(&self.content)
    }

    /// The media type of the body without parameters, as written.
    pub fn media_type(&self) -> Option<&str> {
        let value = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        value.split(';').next().map(str::trim)
    }

    fn charset(&self) -> Option<&str> {
        let value = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let parameters = value.split(';').skip(1);
        parameters
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
            .map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// The body as the text of a form, when its type says that it is one.
    pub fn form(&self) -> Option<&str> {
        let is_form = self
            .media_type()
            .is_some_and(|media| media.eq_ignore_ascii_case(FORM));
        // A form is ASCII by its definition; one that is not even UTF-8 has no readable parameters.
        is_form
            .then(|| std::str::from_utf8(&self.content).ok())
            .flatten()
    }

    /// Path and query.
    pub fn uri(&self) -> Cow<'_, str> {
        match &self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(&self.path),
        }
    }

    /// The reason, or the one that belongs to the status.
    pub fn reason_text(&self) -> &str {
        match &self.reason {
            Some(reason) => reason,
            None => http::StatusCode::from_u16(self.status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or_default(),
        }
    }
}

/// What a query written as a whole may not hold as it is; everything else of it is the writer's business.
const QUERY_ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

fn read_only(property: &Property) -> WriteError {
    WriteError::ReadOnly(property.to_string().into())
}

fn removable(part: Part) -> Option<Option<usize>> {
    match part {
        Part::First => Some(None),
        Part::Number(number) => Some(Some(number)),
        _ => None,
    }
}

fn write_parameter(raw: &mut String, name: &str, part: Part, value: &str) -> Option<()> {
    match part {
        Part::First => parameters::set(raw, name, value),
        Part::Number(number) if number > 0 => parameters::set_number(raw, name, number, value),
        _ => return None,
    }
    Some(())
}

/// A part of values of which none means unset.
fn present<'a>(values: impl Iterator<Item = Cow<'a, str>>, part: Part) -> Option<Value<'a>> {
    let mut values = values.peekable();
    values.peek()?;
    part_of(values, part)
}

fn part_of<'a>(mut values: impl Iterator<Item = Cow<'a, str>>, part: Part) -> Option<Value<'a>> {
    match part {
        Part::First => values.next().map(Value::Text),
        Part::Number(number) => values.nth(number.checked_sub(1)?).map(Value::Text),
        Part::Count => Some(Value::Integer(values.count() as i32)),
        Part::Values => Some(Value::Collection(
            values.map(|value| Arc::from(value.as_ref())).collect(),
        )),
        Part::Joined => Some(values.collect::<Vec<_>>().join(",").into()),
    }
}

fn parameters_of<'a>(parameters: Parameters<'a>, set: Set) -> Value<'a> {
    set_of(parameters.names(), parameters.count(), set)
}

fn set_of<'a>(names: Vec<Cow<'a, str>>, count: usize, set: Set) -> Value<'a> {
    match set {
        Set::Count => Value::Integer(count as i32),
        Set::Names => Value::Collection(
            names
                .into_iter()
                .map(|name| Arc::from(name.as_ref()))
                .collect(),
        ),
        Set::NamesJoined => names.join(",").into(),
    }
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        Version::HTTP_3 => "3.0",
        _ => "1.1",
    }
}

fn version_of(text: &str) -> Option<Version> {
    match text.trim().trim_start_matches("HTTP/") {
        "1.0" => Some(Version::HTTP_10),
        "1.1" => Some(Version::HTTP_11),
        _ => None,
    }
}
