//! Organisations: what everything else belongs to.

use serde::{Deserialize, Serialize};

use super::{Entity, Kind, Stamp};

/// An organisation. The configured one exists from the start; there is no call to make others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    pub name: String,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Organization {
    const KIND: Kind = Kind::Organization;
}
