//! Key sets: named groups of keys.

use uuid::Uuid;

use super::{EntityDefinition, EntityKind, RouterFlavor};
use crate::config_record;

config_record! {
    /// A group of keys. Kong: `key_sets`.
    pub struct KeySet {
        /// The id of the set.
        id: Uuid = id(),
        /// The name of the set.
        name: Option<String> = string().unique(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    EntityDefinition::new(EntityKind::KeySet, "key_set", KeySet::schema())
        .path(Some("key-sets"))
        .endpoint_key(&["name"])
}
