//! Deployments: which revisions an environment runs.

use serde::{Deserialize, Serialize};

use super::{Entity, Kind, Stamp};

/// A deployed revision; its key says which one, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Put before the base paths of the bundle; `/` for nothing.
    pub base_path: String,
    /// Another revision has taken over, and this one is listed until then (milliseconds since 1970). It gets no new
    /// requests; those that it had end in their own time.
    #[serde(default)]
    pub retires_at_ms: Option<i64>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl Entity for Deployment {
    const KIND: Kind = Kind::Deployment;
}
