//! A request to the management API: who asks, for which organisation, with which body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use super::super::body::{Format, Payload};
use super::super::form::parse_form;
use super::super::state::Admin;
use crate::control::Moment;
use crate::dialects::apigee::beans::fields_of_xml;
use crate::dialects::apigee::entities::{Fields, Kind, Stamp};
use crate::dialects::apigee::entity_set::{Change, EntitySet};
use crate::dialects::apigee::error::ApiError;
use crate::dialects::apigee::lifecycle;
use crate::runtime::records::RecordError;

/// Longest wait until what was written serves.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
/// Most parts of a multipart body.
const PARTS_MAX: usize = 32;
/// Who changed something when nobody says a name.
const NOBODY: &str = "admin";

/// A request; see the module.
pub(super) struct Call {
    pub(super) admin: Arc<Admin>,
    pub(super) method: Method,
    /// The organisation in the path; empty for the list of all.
    pub(super) organization: String,
    /// The user of the credentials, for stamps.
    pub(super) user: String,
    path: String,
    /// Arguments of the query, then fields of a form.
    parameters: Map<String, Value>,
    headers: HeaderMap,
    payload: Payload,
}

/// A part of a multipart body.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The error for a body that could not be read.
pub(super) fn refused_body(status: StatusCode) -> ApiError {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the request body is larger than 10 MiB",
        StatusCode::REQUEST_TIMEOUT => "the request body did not arrive in time",
        _ => "the request body cannot be read",
    };
    ApiError::new(
        status.as_u16(),
        "messaging.config.beans.InvalidRequest",
        message,
    )
}

impl Call {
    /// A call of these parts.
    pub(super) fn new(
        admin: Arc<Admin>,
        parts: Parts,
        organization: String,
        payload: Payload,
    ) -> Result<Self, ApiError> {
        let wrong = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
        let mut parameters = parse_form(parts.uri.query().unwrap_or_default().as_bytes())
            .map_err(|error| wrong(&error))?;
        if payload.format == Format::Form {
            let form = parse_form(&payload.bytes).map_err(|error| wrong(&error))?;
            parameters.extend(form);
        }
        Ok(Self {
            admin,
            method: parts.method,
            organization,
            user: user_of(&parts.headers),
            path: parts.uri.path().to_owned(),
            parameters,
            headers: parts.headers,
            payload,
        })
    }

    /// The entities as of now.
    pub(super) fn set(&self) -> Arc<EntitySet> {
        self.admin.control.apigee()
    }

    /// An argument of the query, or a field of a form.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        match self.parameters.get(name) {
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(list)) => list.last().and_then(Value::as_str),
            _ => None,
        }
    }

    /// Whether an argument says `true`.
    pub(super) fn switch(&self, name: &str) -> bool {
        self.parameter(name)
            .is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// The fields of a JSON or XML body, or of a form.
    pub(super) fn fields(&self) -> Result<Fields, ApiError> {
        let bytes = &self.payload.bytes;
        let fields = match self.payload.format {
            Format::Json => json_fields(bytes)?,
            Format::Form => {
                let form = parse_form(bytes);
                form.map_err(|error| ApiError::bad_request(error.to_string()))?
            }
            Format::Unnamed if bytes.is_empty() => Map::new(),
            _ if self.is_xml() => fields_of_xml(bytes)?,
            _ if bytes.is_empty() => Map::new(),
            _ => return Err(self.wrong_type("application/json and application/xml")),
        };
        Ok(Fields::new(fields))
    }

    /// The fields of a body whose name may stand in the path or query instead.
    pub(super) fn named_fields(&self, name: Option<&str>) -> Result<Fields, ApiError> {
        let mut fields = self.fields()?;
        if let Some(name) = name {
            match fields.text("name")? {
                Some(other) if other != name => {
                    return Err(ApiError::field(
                        "name",
                        format!("is '{other}', but the address says '{name}'"),
                    ));
                }
                _ => fields.set("name", name),
            }
        }
        Ok(fields)
    }

    /// The media type without parameters, lower case.
    fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok());
        let essence = text.unwrap_or_default().split(';').next();
        essence.unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn is_xml(&self) -> bool {
        matches!(self.media_type().as_str(), "application/xml" | "text/xml")
    }

    /// 415 that says what is taken.
    pub(super) fn wrong_type(&self, allowed: &str) -> ApiError {
        ApiError::new(
            415,
            "messaging.config.beans.UnsupportedMediaType",
            format!(
                "media type '{}' is not taken here, allowed are {allowed}",
                self.media_type()
            ),
        )
    }

    /// The bytes of a body that is a file: as it is, or the only file of a form.
    pub(super) async fn file(&self) -> Result<Bytes, ApiError> {
        match &self.payload.format {
            Format::Multipart(_) => {
                let mut parts = self.parts().await?.into_iter();
                match (parts.next(), parts.next()) {
                    (Some(part), None) => Ok(part.bytes),
                    (first, _) => {
                        // Forms of browsers may carry fields beside the file.
                        let rest = self.parts().await?;
                        rest.into_iter()
                            .find(|part| part.name == "file")
                            .or(first)
                            .map(|part| part.bytes)
                            .ok_or_else(|| ApiError::bad_request("the form holds no file"))
                    }
                }
            }
            Format::Json | Format::Form | Format::Yaml => {
                Err(self.wrong_type("application/octet-stream and multipart/form-data"))
            }
            Format::Unnamed | Format::Other => Ok(self.payload.bytes.clone()),
        }
    }

    /// The bytes of a body whatever its type, which is checked to be one of XML when `xml` says so.
    pub(super) fn raw(&self, xml: bool) -> Result<Bytes, ApiError> {
        let media_type = self.media_type();
        let taken = media_type.is_empty() || media_type == "application/octet-stream";
        if xml && !self.is_xml() && !taken {
            return Err(self.wrong_type("application/xml"));
        }
        Ok(self.payload.bytes.clone())
    }

    /// Whether the answer is to be XML.
    pub(super) fn wants_xml(&self) -> bool {
        super::reply::wants_xml(&self.headers)
    }

    /// Whether the body is a multipart form.
    pub(super) fn is_multipart(&self) -> bool {
        matches!(self.payload.format, Format::Multipart(_))
    }

    /// The parts of a multipart body.
    pub(super) async fn parts(&self) -> Result<Vec<Part>, ApiError> {
        let Format::Multipart(boundary) = &self.payload.format else {
            return Err(self.wrong_type("multipart/form-data"));
        };
        let wrong = |error: multer::Error| {
            ApiError::bad_request(format!("the multipart body cannot be read: {error}"))
        };
        // The body is whole already, so its size is bounded; the stream is only the shape that the parser wants.
        let stream = Body::from(self.payload.bytes.clone()).into_data_stream();
        let mut multipart = multer::Multipart::new(stream, boundary);
        let mut parts = Vec::new();
        while let Some(field) = multipart.next_field().await.map_err(wrong)? {
            if parts.len() >= PARTS_MAX {
                return Err(ApiError::bad_request(format!(
                    "the multipart body has more than {PARTS_MAX} parts"
                )));
            }
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.map_err(wrong)?;
            parts.push(Part { name, bytes });
        }
        Ok(parts)
    }

    /// Writes to the entities; see `ControlPlane::write`.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<(T, u64), ApiError>
    where
        T: Send + 'static,
        F: FnMut(&mut EntitySet, &Moment) -> Result<(T, Vec<Change>), ApiError> + Send + 'static,
    {
        self.may_write()?;
        self.admin.control.write_apigee(operation).await
    }

    /// Refuses writes while files are the whole configuration.
    pub(super) fn may_write(&self) -> Result<(), ApiError> {
        if self.admin.is_db_less() {
            return Err(ApiError::new(
                405,
                "messaging.config.beans.ReadOnly",
                "cannot change anything when not using a database, see 'database' and 'apigee_bundles'",
            ));
        }
        Ok(())
    }

    /// Makes sure that the configured organisation and environments exist.
    pub(super) async fn found_organization(&self) -> Result<(), ApiError> {
        let general = &self.admin.settings.apigee;
        let (name, environments) = (
            general.apigee_organization.0.clone(),
            general.apigee_environments.0.clone(),
        );
        let set = self.set();
        let founded = set.has(Kind::Organization, &[&name])
            && environments
                .iter()
                .all(|environment| set.has(Kind::Environment, &[&name, environment]));
        // An environment that was deleted on purpose comes back when it is configured: the settings say it exists.
        if founded {
            return Ok(());
        }
        let written = self.admin.control.write_apigee(move |set, moment| {
            let stamp = Stamp::new(moment.unix_ms(), NOBODY);
            Ok(((), lifecycle::found(set, &name, &environments, &stamp)))
        });
        written.await.map(|_| ())
    }

    /// Waits until a revision of the configuration serves, within bounds.
    pub(super) async fn serves(&self, revision: u64) -> Result<(), ApiError> {
        let mut serving = self.admin.node.serving();
        let wait = serving.wait_for(|serving| serving.is_some_and(|serving| serving >= revision));
        match tokio::time::timeout(SERVE_PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::failure("the builder has ended")),
            Err(_) => Err(ApiError::failure(format!(
                "revision {revision} does not serve after {} s",
                SERVE_PATIENCE.as_secs()
            ))),
        }
    }

    /// 404 for an address that leads nowhere.
    pub(super) fn unknown(&self) -> ApiError {
        ApiError::missing(
            "messaging.config.beans.ResourceDoesNotExist",
            format!("there is no {} {}", self.method, self.path),
        )
    }

    /// 501 for calls of Apigee that this program does not have.
    pub(super) fn unsupported(&self) -> ApiError {
        ApiError::new(
            501,
            "messaging.config.beans.NotSupported",
            format!("{} {} is not supported", self.method, self.path),
        )
    }

    /// 404 for an environment that does not exist.
    pub(super) fn needs_environment(&self, environment: &str) -> Result<(), ApiError> {
        if self
            .set()
            .has(Kind::Environment, &[&self.organization, environment])
        {
            return Ok(());
        }
        Err(lifecycle::environment_missing(
            &self.organization,
            environment,
        ))
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Store(reason) => Self::failure(reason),
            other => Self::bad_request(other.to_string()),
        }
    }
}

fn json_fields(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::bad_request("the JSON body is no object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "the JSON body cannot be read: {error}"
        ))),
    }
}

/// The name in Basic credentials. They were checked, or are of no account.
fn user_of(headers: &HeaderMap) -> String {
    let name = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| {
            base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()
        })
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.split(':').next().map(str::to_owned));
    name.filter(|name| !name.is_empty() && name.len() <= 255)
        .unwrap_or_else(|| NOBODY.to_owned())
}
