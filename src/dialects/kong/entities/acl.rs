//! Groups of the plugin `acl`.

use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, UniqueSet};
use crate::config_record;

config_record! {
    /// A consumer's membership of an access control group. Kong: `acls`.
    pub struct Acl {
        /// The id of the membership.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The member.
        consumer: Reference = foreign("consumers").required(),
        /// The name of the group.
        group: String = string().required(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(EntityKind::Acl, "acl", Acl::schema())
        .link(
            "consumer",
            EntityKind::Consumer,
            OnDelete::Cascade,
            Some("acls"),
        )
        .unique(UniqueSet::of(&["consumer", "group"]));
    definition.endpoint_key = Some("group");
    definition.endpoint_key_scope = Some("consumer");
    definition
}
