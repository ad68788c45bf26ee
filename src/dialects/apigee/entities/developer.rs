//! Developers: who owns apps.

use serde::{Deserialize, Serialize};

use super::{Attribute, Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// A developer of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Developer {
    pub developer_id: String,
    /// As the client wrote it; compared without regard to case.
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub user_name: String,
    /// `active` or `inactive`: the keys of inactive developers are refused.
    pub status: String,
    pub attributes: Vec<Attribute>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Developer {
    const KIND: Kind = Kind::Developer;

    fn alias(&self) -> Option<String> {
        Some(self.email.to_lowercase())
    }
}

impl Developer {
    /// Reads a body. `known` is the entity that it changes: what the body leaves out stays.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(
        mut fields: Fields,
        known: Option<&Self>,
        new_id: String,
        stamp: Stamp,
    ) -> Result<Self, ApiError> {
        let mut text = |name: &str, known: Option<&String>| -> Result<String, ApiError> {
            match (fields.text(name)?.filter(|text| !text.is_empty()), known) {
                (Some(text), _) => Ok(text),
                (None, Some(known)) => Ok(known.clone()),
                (None, None) => Err(ApiError::field(name, "is missing, it must not be empty")),
            }
        };
        let developer = Self {
            email: text("email", known.map(|known| &known.email))?,
            first_name: text("firstName", known.map(|known| &known.first_name))?,
            last_name: text("lastName", known.map(|known| &known.last_name))?,
            user_name: text("userName", known.map(|known| &known.user_name))?,
            developer_id: known.map_or(new_id, |known| known.developer_id.clone()),
            status: known.map_or_else(|| "active".to_owned(), |known| known.status.clone()),
            attributes: match fields.attributes()? {
                Some(attributes) => attributes,
                None => known.map_or_else(Vec::new, |known| known.attributes.clone()),
            },
            stamp,
        };
        fields.ignore(&[
            "developerId",
            "apps",
            "companies",
            "organizationName",
            "status",
            "appFamily",
        ]);
        fields.finish()?;
        let sound = developer
            .email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            && !developer
                .email
                .chars()
                .any(|c| c.is_control() || c.is_whitespace() || c == '/');
        if !sound {
            return Err(ApiError::field(
                "email",
                format!("'{}' is no e-mail address", developer.email),
            ));
        }
        Ok(developer)
    }

    /// Whether keys of its apps are honoured.
    pub fn is_active(&self) -> bool {
        self.status == "active"
    }
}
