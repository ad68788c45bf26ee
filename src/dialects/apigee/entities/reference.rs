//! References: names for keystores that can be pointed elsewhere while proxies run.

use serde::{Deserialize, Serialize};

use super::{Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// How a name is marked as that of a reference.
pub const SCHEME: &str = "ref://";

/// A reference of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub name: String,
    /// The name of the keystore.
    pub refers: String,
    /// Always `KeyStore`, in the client's spelling.
    pub resource_type: String,
    #[serde(default)]
    pub description: String,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Reference {
    const KIND: Kind = Kind::Reference;
}

impl Reference {
    /// Reads a body; whether the keystore exists is for the caller to see.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let reference = Self {
            name: fields.name()?,
            refers: fields.needed("refers")?,
            resource_type: fields
                .text("resourceType")?
                .unwrap_or_else(|| "KeyStore".to_owned()),
            description: fields.text("description")?.unwrap_or_default(),
            stamp,
        };
        fields.ignore(&[]);
        fields.finish()?;
        let kind = &reference.resource_type;
        if !["KeyStore", "TrustStore"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known))
        {
            return Err(ApiError::field(
                "resourceType",
                format!("'{kind}' is not supported, allowed are KeyStore and TrustStore"),
            ));
        }
        Ok(reference)
    }
}
