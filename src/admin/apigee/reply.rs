//! What a call is answered with, in the form that the client asked for.

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::dialects::apigee::beans::xml_of;
use crate::dialects::apigee::error::ApiError;

const REVISION: HeaderName = HeaderName::from_static("x-sallyport-revision");

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    content: Content,
    revision: Option<u64>,
}

#[derive(Debug)]
enum Content {
    Nothing,
    /// A value, with the name of its root element in XML.
    Value(Value, &'static str),
    /// Bytes of a type, perhaps to be saved under a name.
    Bytes(Bytes, &'static str, Option<String>),
}

impl Reply {
    /// A value with a status.
    pub(super) fn new(status: u16, root: &'static str, value: Value) -> Self {
        Self {
            status,
            content: Content::Value(value, root),
            revision: None,
        }
    }

    /// 200 with a value.
    pub(super) fn ok(root: &'static str, value: Value) -> Self {
        Self::new(200, root, value)
    }

    /// 201 with what was made.
    pub(super) fn created(root: &'static str, value: Value) -> Self {
        Self::new(201, root, value)
    }

    /// 204.
    pub(super) fn nothing() -> Self {
        Self {
            status: 204,
            content: Content::Nothing,
            revision: None,
        }
    }

    /// 200 with bytes.
    pub(super) fn bytes(kind: &'static str, bytes: Vec<u8>, file: Option<String>) -> Self {
        Self {
            status: 200,
            content: Content::Bytes(bytes.into(), kind, file),
            revision: None,
        }
    }

    /// Says which revision of the configuration holds what was written.
    pub(super) fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The answer for an error.
    pub(super) fn of_error(error: &ApiError) -> Self {
        if error.is_failure() {
            tracing::error!(%error, "a management request failed");
        }
        Self::new(error.status, "Error", error.to_json())
    }

    /// The HTTP response.
    pub(super) fn into_response(self, head: bool, wants_xml: bool) -> Response<Body> {
        let (kind, bytes, file) = match self.content {
            Content::Nothing => ("", Bytes::new(), None),
            Content::Value(value, root) if wants_xml => {
                ("application/xml", xml_of(root, &value).into(), None)
            }
            Content::Value(value, _) => ("application/json", value.to_string().into(), None),
            Content::Bytes(bytes, kind, file) => (kind, bytes, file),
        };
        let length = bytes.len();
        let mut response = Response::new(if head {
            Body::empty()
        } else {
            Body::from(bytes)
        });
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(file) = file
            && let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""))
        {
            headers.insert(CONTENT_DISPOSITION, value);
        }
        if let Some(revision) = self.revision {
            headers.insert(REVISION, HeaderValue::from(revision));
        }
        response
    }
}

/// Whether the client asked for XML and not for JSON.
pub(super) fn wants_xml(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut kinds = accepted
        .split(',')
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    // The first of the two that is named counts; anything else means JSON.
    kinds.find_map(|kind| match kind {
        "application/json" | "*/*" => Some(false),
        "application/xml" | "text/xml" => Some(true),
        _ => None,
    }) == Some(true)
}
