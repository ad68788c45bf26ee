//! Apps: what calls, in the name of a developer.

use serde::{Deserialize, Serialize};

use super::{Attribute, Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// An app of a developer. Its keys stand in rows of their own, because they are looked up by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    pub app_id: String,
    pub name: String,
    pub developer_id: String,
    #[serde(default)]
    pub callback_url: String,
    /// `approved`, `revoked` or `pending`.
    pub status: String,
    pub scopes: Vec<String>,
    pub attributes: Vec<Attribute>,
    /// Consumer keys, the oldest first.
    pub keys: Vec<String>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for App {
    const KIND: Kind = Kind::App;

    fn alias(&self) -> Option<String> {
        Some(self.app_id.clone())
    }
}

/// A body for an app: its own fields, and what makes a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppBody {
    pub name: Option<String>,
    pub callback_url: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub attributes: Option<Vec<Attribute>>,
    pub api_products: Vec<String>,
    /// Milliseconds that a new key lives; none: for ever.
    pub key_expires_in_ms: Option<i64>,
}

impl AppBody {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let name = if fields.has("name") {
            Some(fields.name()?)
        } else {
            None
        };
        let scopes = fields.has("scopes").then(|| fields.texts("scopes"));
        let body = Self {
            name,
            callback_url: fields.text("callbackUrl")?,
            scopes: scopes.transpose()?,
            attributes: fields.attributes()?,
            api_products: fields.texts("apiProducts")?,
            key_expires_in_ms: fields.number("keyExpiresIn")?.filter(|ms| *ms > 0),
        };
        fields.ignore(&[
            "accessType",
            "appFamily",
            "appId",
            "credentials",
            "developerId",
            "status",
            "appGroup",
        ]);
        fields.finish()?;
        Ok(body)
    }
}
