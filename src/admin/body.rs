//! Request bodies: which types are taken, and how each becomes one tree of fields.
//!
//! Knows no entity: values of forms stay texts, and the reader of an entity asks its schema for types when
//! [`Fields::typed`] is false.

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::form::{FormBuilder, parse_form};

/// Largest request body, in bytes (Kong: the Admin API's `client_max_body_size`).
pub const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// The body of a request, whole and not yet read.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// The bytes as they came.
    pub bytes: Bytes,
    /// The type that the client named.
    pub format: Format,
}

/// What a body claims to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// No Content-Type at all.
    #[default]
    Unnamed,
    Json,
    Form,
    /// Multipart with its boundary.
    Multipart(String),
    Yaml,
    /// Anything else.
    Other,
}

/// A body as fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    /// The fields as the client named them.
    pub values: Map<String, Value>,
    /// Whether the values have the client's own types (JSON), or are texts that a schema must interpret (forms).
    pub typed: bool,
}

impl Format {
    /// Reads the Content-Type; two of them are an error.
    pub fn of(headers: &HeaderMap) -> Result<Self, Answer> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let Some(value) = values.next() else {
            return Ok(Self::Unnamed);
        };
        if values.next().is_some() {
            return Err(Answer::bad_request("expected only one Content-Type header"));
        }
        let Ok(text) = value.to_str() else {
            return Ok(Self::Other);
        };
        let essence = text.split(';').next().unwrap_or_default().trim();
        Ok(match essence.to_ascii_lowercase().as_str() {
            "" => Self::Unnamed,
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "multipart/form-data" => match multer::parse_boundary(text) {
                Ok(boundary) => Self::Multipart(boundary),
                Err(_) => Self::Other,
            },
            "application/yaml" | "text/yaml" | "application/x-yaml" | "text/x-yaml" => Self::Yaml,
            _ => Self::Other,
        })
    }
}

impl Payload {
    /// Reads the body as fields; refuses types that entities do not come in.
    pub async fn fields(&self) -> Result<Fields, Answer> {
        match &self.format {
            Format::Unnamed if self.bytes.is_empty() => Ok(Fields {
                typed: true,
                ..Fields::default()
            }),
            Format::Json => Ok(Fields {
                values: parse_json(&self.bytes)?,
                typed: true,
            }),
            Format::Form => Ok(Fields {
                values: parse_form(&self.bytes)
                    .map_err(|error| Answer::bad_request(&error.to_string()))?,
                typed: false,
            }),
            Format::Multipart(boundary) => Ok(Fields {
                values: parse_multipart(self.bytes.clone(), boundary).await?,
                typed: false,
            }),
            Format::Unnamed | Format::Yaml | Format::Other => Err(unsupported()),
        }
    }
}

/// 415 without a body.
pub fn unsupported() -> Answer {
    Answer::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// Reads a JSON object; nothing at all counts as an empty one.
pub fn parse_json(bytes: &[u8]) -> Result<Map<String, Value>, Answer> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) | Err(_) => Err(Answer::bad_request("Cannot parse JSON body")),
    }
}

/// Reads a multipart form; the contents of files are values like any other.
pub async fn parse_multipart(bytes: Bytes, boundary: &str) -> Result<Map<String, Value>, Answer> {
    // The body is whole already, so its size is bounded; the stream is only the shape that the parser wants.
    let stream = Body::from(bytes).into_data_stream();
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut form = FormBuilder::default();
    let refuse = |error: &dyn std::fmt::Display| {
        Answer::bad_request(&format!("Cannot parse multipart body: {error}"))
    };
    loop {
        let part = match multipart.next_field().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(error) => return Err(refuse(&error)),
        };
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(refuse(&"a part has no name"));
        };
        let bytes = part.bytes().await.map_err(|error| refuse(&error))?;
        let text = String::from_utf8(bytes.into())
            .map_err(|_| refuse(&format_args!("the value of '{name}' is not valid UTF-8")))?;
        form.add(&name, text)
            .map_err(|error| Answer::bad_request(&error.to_string()))?;
    }
    Ok(form.finish())
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

    fn payload(content_type: &str, body: &str) -> Payload {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        Payload {
            bytes: body.to_owned().into(),
            format: Format::of(&headers).unwrap(),
        }
    }

    #[tokio::test]
    async fn reads_json_forms_and_multipart() {
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"snis\"\r\n\r\na.test,b.test\r\n\
                         --b\r\nContent-Disposition: form-data; name=\"cert\"; filename=\"c.pem\"\r\n\
                         Content-Type: application/octet-stream\r\n\r\nPEM\n\r\n--b--\r\n";
        for (content_type, body, expected, typed) in [
            ("application/json", r#"{"a":1}"#, json!({"a": 1}), true),
            ("Application/JSON; charset=utf-8", "", json!({}), true),
            ("", "", json!({}), true),
            (
                "application/x-www-form-urlencoded",
                "a[]=1",
                json!({"a": ["1"]}),
                false,
            ),
            (
                "multipart/form-data; boundary=b",
                multipart,
                json!({"snis": "a.test,b.test", "cert": "PEM\n"}),
                false,
            ),
        ] {
            let fields = payload(content_type, body).fields().await.unwrap();
            assert_eq!(Value::Object(fields.values), expected, "{content_type}");
            assert_eq!(fields.typed, typed, "{content_type}");
        }
    }

    #[tokio::test]
    async fn refuses_other_types_and_broken_bodies() {
        for (content_type, body, status, answer) in [
            ("", "x", 415, ""),
            ("text/plain", "x", 415, ""),
            ("application/yaml", "a: 1", 415, ""),
            ("multipart/form-data", "x", 415, ""),
            (
                "application/json",
                "{",
                400,
                r#"{"message":"Cannot parse JSON body"}"#,
            ),
            (
                "application/json",
                "[1]",
                400,
                r#"{"message":"Cannot parse JSON body"}"#,
            ),
        ] {
            let refused = payload(content_type, body).fields().await.unwrap_err();
            assert_eq!(refused.status, status, "{content_type} {body}");
            assert_eq!(refused.body(), answer.as_bytes());
        }
        let mut two = HeaderMap::new();
        two.append(CONTENT_TYPE, "application/json".parse().unwrap());
        two.append(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(Format::of(&two).unwrap_err().status, 400);
        let truncated = payload("multipart/form-data; boundary=b", "--b\r\nContent-Disp")
            .fields()
            .await;
        assert_eq!(truncated.unwrap_err().status, 400);
    }
}
