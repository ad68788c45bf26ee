//! What a handler answers, before the server adds the headers that every answer has.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// The type of JSON answers.
pub const JSON: &str = "application/json; charset=utf-8";

/// A handler's result: either way an answer; `Err` lets a handler leave early.
pub type Outcome = Result<Answer, Answer>;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    content_type: Option<&'static str>,
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The store revision that a write made.
    pub revision: Option<u64>,
}

impl Answer {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            body: Bytes::new(),
            headers: Vec::new(),
            revision: None,
        }
    }

    /// A body of another type than JSON.
    pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: Some(content_type),
            body: body.into(),
            ..Self::empty(status)
        }
    }

    /// JSON text that is already written.
    pub fn json_text(status: StatusCode, text: String) -> Self {
        Self::text(status, JSON, text)
    }

    /// A JSON value, written compactly.
    pub fn json(status: StatusCode, value: &Value) -> Self {
        Self::json_text(status, value.to_string())
    }

    /// `{"message":"…"}`.
    pub fn message(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "message": message }))
    }

    /// 200 with a JSON value.
    pub fn ok(value: &Value) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// The plain 404.
    pub fn not_found() -> Self {
        Self::message(StatusCode::NOT_FOUND, "Not found")
    }

    /// The plain 405.
    pub fn method_not_allowed() -> Self {
        Self::message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
    }

    /// 400 with a message.
    pub fn bad_request(message: &str) -> Self {
        Self::message(StatusCode::BAD_REQUEST, message)
    }

    /// The answer for what should not happen; the cause goes to the log, not to the client.
    pub fn unexpected() -> Self {
        Self::message(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred",
        )
    }

    /// Says which revision the write made.
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Adds a header; text that no header can hold is left out.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The HTTP response. For `HEAD` the body is left out while its length still tells.
    pub fn into_response(self, head: bool) -> Response<Body> {
        let length = self.body.len();
        let mut response = Response::new(if head {
            Body::empty()
        } else {
            Body::from(self.body)
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if self.status != StatusCode::NO_CONTENT && self.status != StatusCode::NOT_MODIFIED {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }

    /// The body, for tests and for handlers that wrap others.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}
