//! Credentials of the plugin `key-auth`.

use serde_json::Value;
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor};
use crate::config_record;

config_record! {
    /// An API key of a consumer. Kong: `keyauth_credentials`.
    pub struct KeyAuthCredential {
        /// The id of the credential.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The consumer that calls with the key.
        consumer: Reference = foreign("consumers").required(),
        /// The key; made when none is given.
        key: String = string().required().unique().auto().encrypted(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// Seconds that the key lives on. A row holds the second since 1970 at which it ends.
        ttl: Option<f64> = ttl(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(
        EntityKind::KeyAuthCredential,
        "keyauth_credential",
        KeyAuthCredential::schema(),
    )
    .path(Some("key-auths"))
    .endpoint_key(&["key"])
    .link(
        "consumer",
        EntityKind::Consumer,
        OnDelete::Cascade,
        Some("key-auth"),
    );
    definition.expires = true;
    definition.complete = Some(|credential, _, context| {
        if credential.get("key").is_none_or(Value::is_null) {
            credential.insert("key".into(), context.new_secret().into());
        }
    });
    definition
}
