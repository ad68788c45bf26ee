//! Key-value maps. Their entries change with traffic and live in the record store; here is what they are.

use serde::{Deserialize, Serialize};

use super::{Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::error::ApiError;

/// A key-value map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyValueMap {
    pub name: String,
    /// Values are sealed at rest and masked in answers.
    pub encrypted: bool,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for KeyValueMap {
    const KIND: Kind = Kind::KeyValueMap;
}

/// Where a map can be seen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapScope<'a> {
    /// By everything in the organisation.
    Organization,
    /// By what an environment runs.
    Environment(&'a str),
    /// By one proxy.
    Proxy(&'a str),
    /// By one policy of a proxy.
    Policy(&'a str, &'a str),
}

impl MapScope<'_> {
    /// The scope as it stands in keys.
    pub fn key(self) -> String {
        match self {
            Self::Organization => String::new(),
            Self::Environment(name) => format!("environments/{name}"),
            Self::Proxy(name) => format!("apis/{name}"),
            Self::Policy(proxy, policy) => format!("apis/{proxy}/policies/{policy}"),
        }
    }
}

/// The table of the record store that tells, under the name of a map's table, that there is such a map.
pub const MAPS_TABLE: &str = "kvm-maps";
/// What stands there for a map whose values are sealed.
pub const SEALED_MAP: &str = "sealed";

/// The table of the record store that holds a map's entries.
pub fn entries_table(organization: &str, scope: MapScope<'_>, map: &str) -> String {
    format!("kvm\u{1f}{organization}\u{1f}{}\u{1f}{map}", scope.key())
}

/// A name with its value, as bodies carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapEntry {
    pub name: String,
    pub value: String,
}

impl MapEntry {
    /// Reads one entry.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let entry = Self {
            name: fields.needed("name")?,
            value: fields.text("value")?.unwrap_or_default(),
        };
        fields.finish()?;
        Ok(entry)
    }
}

impl KeyValueMap {
    /// Reads a body: the map and the entries that come with it.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<(Self, Vec<MapEntry>), ApiError> {
        let map = Self {
            name: fields.name()?,
            encrypted: fields.switch("encrypted")?.unwrap_or(false),
            stamp,
        };
        let entries = fields
            .objects("entry")?
            .into_iter()
            .map(MapEntry::read)
            .collect::<Result<_, _>>()?;
        fields.ignore(&[]);
        fields.finish()?;
        Ok((map, entries))
    }
}
