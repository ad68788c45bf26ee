//! Who made and who changed an entity, and when.

use serde::{Deserialize, Serialize};

/// Who made and who changed an entity, and when. Part of most answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The user name of the administrator.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub last_modified_at: i64,
    /// The user name of the administrator.
    pub last_modified_by: String,
}

impl Stamp {
    /// The fields as answers show them.
    pub(super) const FIELDS: [&str; 4] =
        ["createdAt", "createdBy", "lastModifiedAt", "lastModifiedBy"];

    /// Of something new.
    pub fn new(now_ms: i64, user: &str) -> Self {
        Self {
            created_at: now_ms,
            created_by: user.to_owned(),
            last_modified_at: now_ms,
            last_modified_by: user.to_owned(),
        }
    }

    /// The stamp after a change.
    #[must_use]
    pub fn touched(&self, now_ms: i64, user: &str) -> Self {
        Self {
            last_modified_at: now_ms,
            last_modified_by: user.to_owned(),
            ..self.clone()
        }
    }
}
