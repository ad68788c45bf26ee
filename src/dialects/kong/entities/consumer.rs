//! Consumers: who calls.

use uuid::Uuid;

use super::{EntityDefinition, EntityKind, RouterFlavor, UniqueSet};
use crate::config_record;
use crate::model::schema::at_least_one_of;

config_record! {
    /// Someone who calls services. Kong: `consumers`.
    pub struct Consumer {
        /// The id of the consumer.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The name of the consumer.
        username: Option<String> = string().unique(),
        /// The name of the consumer in another system.
        custom_id: Option<String> = string().unique(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let schema = Consumer::schema().check(at_least_one_of(&["custom_id", "username"]));
    EntityDefinition::new(EntityKind::Consumer, "consumer", schema)
        .endpoint_key(&["username"])
        .unique(UniqueSet::of(&["custom_id"]))
}
