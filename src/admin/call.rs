//! A request as handlers see it: decoded path, decoded query, whole body.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::body::{BODY_BYTES_MAX, Fields, Format, Payload};
use super::form::parse_form;

/// Longest wait for a whole request body.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// How much of a body that is too large is still read, in bytes.
const DISCARDED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;

/// The workspace that open source knows; a path may start with it.
const WORKSPACE: &str = "default";

/// One request.
#[derive(Debug, Default)]
pub struct Call {
    /// The method; `HEAD` arrives here as `GET`.
    pub method: Method,
    /// What stood in the placeholders of the endpoint's path, in order, percent-decoded.
    pub keys: Vec<String>,
    /// The query arguments, decoded like a form.
    pub query: Map<String, Value>,
    pub headers: HeaderMap,
    pub payload: Payload,
}

impl Call {
    /// The key in the placeholder at `index`, counted from zero; empty if the endpoint has fewer.
    pub fn key(&self, index: usize) -> &str {
        self.keys.get(index).map_or("", String::as_str)
    }

    /// A query argument that is a single text.
    pub fn argument(&self, name: &str) -> Option<&str> {
        match self.query.get(name) {
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(list)) => list.last().and_then(Value::as_str),
            _ => None,
        }
    }

    /// Whether a query argument is switched on: `1`, `true`, `on` or `yes`.
    pub fn switch(&self, name: &str) -> bool {
        self.argument(name).is_some_and(is_on)
    }

    /// The body as fields.
    pub async fn fields(&self) -> Result<Fields, Answer> {
        self.payload.fields().await
    }
}

/// Whether a text means "on" in a query or form.
pub fn is_on(text: &str) -> bool {
    matches!(text, "1" | "true" | "on" | "yes")
}

/// The segments of a path, percent-decoded; `None` when one is not UTF-8.
///
/// A trailing slash is dropped, and so is the name of the one workspace in front of anything.
pub fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    let mut segments = path
        .split('/')
        .map(|segment| {
            percent_encoding::percent_decode_str(segment)
                .decode_utf8()
                .ok()
                .map(|text| text.into_owned())
        })
        .collect::<Option<Vec<_>>>()?;
    if segments.len() > 1 && segments.first().is_some_and(|first| first == WORKSPACE) {
        segments.remove(0);
    }
    Some(segments)
}

/// The query arguments.
pub fn query(parts: &Parts) -> Result<Map<String, Value>, Answer> {
    parse_form(parts.uri.query().unwrap_or_default().as_bytes())
        .map_err(|error| Answer::bad_request(&error.to_string()))
}

/// Reads the whole body, within limits of size and time.
pub async fn read_payload(headers: &HeaderMap, body: Body) -> Result<Payload, Answer> {
    let format = Format::of(headers)?;
    match tokio::time::timeout(BODY_PATIENCE, read_whole(body)).await {
        Ok(Ok(bytes)) => Ok(Payload { bytes, format }),
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err(Answer::message(
            StatusCode::REQUEST_TIMEOUT,
            "the request body did not arrive in time",
        )),
    }
}

/// Reads a body to its end. What is too large is read on and thrown away for a while: a client that still sends would
/// see a reset connection instead of the answer.
async fn read_whole(mut body: Body) -> Result<Bytes, Answer> {
    let mut bytes = BytesMut::new();
    let mut total = 0_usize;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| Answer::bad_request("the request body ended early"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        total = total.saturating_add(data.len());
        if total > DISCARDED_BYTES_MAX {
            break;
        }
        if total > BODY_BYTES_MAX {
            bytes = BytesMut::new();
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if total > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes.freeze())
}

fn too_large() -> Answer {
    Answer::message(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request body is larger than 10 MiB",
    )
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

    #[test]
    fn paths_split_and_decode() {
        for (path, expected) in [
            ("/", Some(vec![])),
            ("/services", Some(vec!["services"])),
            ("/services/", Some(vec!["services"])),
            (
                "/consumers/a%2Fb/key-auth",
                Some(vec!["consumers", "a/b", "key-auth"]),
            ),
            ("/default/services", Some(vec!["services"])),
            ("/default", Some(vec!["default"])),
            ("/a//b", Some(vec!["a", "", "b"])),
            ("/a+b", Some(vec!["a+b"])),
            ("/%ff", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(segments(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn bodies_have_a_limit() {
        let headers = HeaderMap::new();
        for (length, admitted) in [
            (BODY_BYTES_MAX, true),
            (BODY_BYTES_MAX + 1, false),
            (DISCARDED_BYTES_MAX + 1, false),
        ] {
            let body = Body::from(vec![b'x'; length]);
            match read_payload(&headers, body).await {
                Ok(payload) => assert!(admitted && payload.bytes.len() == length),
                Err(answer) => assert!(!admitted && answer.status == 413),
            }
        }
    }
}
