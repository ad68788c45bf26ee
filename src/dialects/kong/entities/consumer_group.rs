//! Consumer groups and who is in them.

use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, UniqueSet};
use crate::config_record;

config_record! {
    /// A group of consumers that plugins may address together. Kong: `consumer_groups`.
    pub struct ConsumerGroup {
        /// The id of the group.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The name of the group.
        name: String = name().required(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

config_record! {
    /// A consumer's membership of a group. Kong: `consumer_group_consumers`.
    pub struct ConsumerGroupMember {
        /// The id of the membership.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The group.
        consumer_group: Reference = foreign("consumer_groups").required(),
        /// The member.
        consumer: Reference = foreign("consumers").required(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    EntityDefinition::new(
        EntityKind::ConsumerGroup,
        "consumer_group",
        ConsumerGroup::schema(),
    )
    .endpoint_key(&["name"])
}

/// Memberships have no collection of their own: the Admin API shows them as consumers of a group and back.
pub(super) fn member_definition(_: RouterFlavor) -> EntityDefinition {
    EntityDefinition::new(
        EntityKind::ConsumerGroupMember,
        "consumer_group_consumer",
        ConsumerGroupMember::schema(),
    )
    .path(None)
    .link(
        "consumer_group",
        EntityKind::ConsumerGroup,
        OnDelete::Cascade,
        None,
    )
    .link("consumer", EntityKind::Consumer, OnDelete::Cascade, None)
    .unique(UniqueSet::of(&["consumer_group", "consumer"]))
}
