//! Environments: where revisions are deployed.

use serde::{Deserialize, Serialize};

use super::{Attribute, Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// An environment of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub properties: Properties,
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// Free properties, which the management API wraps once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    #[serde(default)]
    pub property: Vec<Attribute>,
}

impl Properties {
    /// Reads `properties`.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut properties = Self::default();
        let Some(mut wrapper) = fields.object("properties")? else {
            return Ok(properties);
        };
        for mut one in wrapper.objects("property")? {
            let name = one.needed("name")?;
            let value = one.text("value")?.or(one.text("content")?);
            one.finish()?;
            let value = value.unwrap_or_default();
            Attribute::set(&mut properties.property, Attribute { name, value })?;
        }
        wrapper.finish()?;
        Ok(properties)
    }
}

impl Entity for Environment {
    const KIND: Kind = Kind::Environment;
}

impl Environment {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        fields.ignore(&["displayName", "state"]);
        let environment = Self {
            name: fields.name()?,
            description: fields.text("description")?.unwrap_or_default(),
            properties: Properties::read(&mut fields)?,
            stamp,
        };
        fields.finish()?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !environment.name.chars().all(allowed) {
            return Err(ApiError::field(
                "name",
                "may hold letters, digits, '-', '_' and '.' only",
            ));
        }
        Ok(environment)
    }
}
