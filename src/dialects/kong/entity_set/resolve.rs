//! How paths and links address rows: by id, or by the endpoint key of their kind.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::index::{linked, positions, unique_value};
use super::{EntitySet, Row};
use crate::dialects::kong::entities::{EntityDefinition, EntityKind, normal_target};
use crate::dialects::kong::error::ApiError;

/// How one row is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// By its id.
    Id(Uuid),
    /// By the endpoint key of its kind.
    Name(String),
}

impl RowKey {
    /// Reads the (percent-decoded) part of a path that addresses a row.
    ///
    /// # Errors
    ///
    /// Code 1 when the text is no UUID and the kind has no endpoint key.
    pub fn read(definition: &EntityDefinition, text: &str) -> Result<Self, ApiError> {
        if text.len() == 36
            && let Ok(id) = Uuid::try_parse(text)
        {
            return Ok(Self::Id(id));
        }
        match definition.endpoint_key {
            None => Err(ApiError::not_a_uuid()),
            Some("target") => Ok(Self::Name(
                normal_target(text).unwrap_or_else(|| text.to_owned()),
            )),
            Some(_) => Ok(Self::Name(text.to_owned())),
        }
    }

    /// The error that there is no such row (code 6), as PATCH answers it.
    pub fn not_found(&self, definition: &EntityDefinition) -> ApiError {
        match self {
            Self::Id(id) => ApiError::not_found(&id.to_string()),
            Self::Name(name) => {
                ApiError::not_found_by(definition.endpoint_key.unwrap_or("id"), name)
            }
        }
    }
}

impl EntitySet {
    /// The row addressed by a key; `parent` narrows keys that are unique only within their parent (targets, groups).
    pub fn find(&self, kind: EntityKind, key: &RowKey, parent: Option<Uuid>) -> Option<&Arc<Row>> {
        let name = match key {
            RowKey::Id(id) => return self.row(kind, *id),
            RowKey::Name(name) => name,
        };
        let definition = kind.definition();
        let field = definition.endpoint_key?;
        let Some(scope) = definition.endpoint_key_scope else {
            return self.find_unique(kind, field, name);
        };
        // The pair of both is a unique set of the kind.
        let mut fields = Map::new();
        fields.insert(field.to_owned(), Value::from(name.as_str()));
        fields.insert(scope.to_owned(), json!({ "id": parent? }));
        let (position, set) = positions(&definition.unique_sets)
            .find(|(_, set)| set.fields.contains(&field) && set.fields.contains(&scope))?;
        let id = self
            .unique
            .get(&(kind, position, unique_value(set, &fields)?))?;
        self.row(kind, *id)
    }

    /// The row with this value in a unique field (`custom_id`, `name`, `key`…).
    pub fn find_unique(&self, kind: EntityKind, field: &str, value: &str) -> Option<&Arc<Row>> {
        let position = u8::try_from(kind.definition().unique_field(field)?).ok()?;
        let id = self.unique.get(&(kind, position, Arc::from(value)))?;
        self.row(kind, *id)
    }

    /// The certificate that a server name (exactly as written in the SNI) leads to.
    pub fn certificate_of_sni(&self, name: &str) -> Option<&Arc<Row>> {
        let sni = self.find_unique(EntityKind::Sni, "name", name)?;
        let id = linked(&sni.fields(), "certificate")?;
        self.row(EntityKind::Certificate, id)
    }
}
