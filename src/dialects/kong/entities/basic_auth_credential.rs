//! Credentials of the plugin `basic-auth`.

use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::definition::Given;
use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, WriteContext};
use crate::config_record;

config_record! {
    /// A name and password of a consumer. Kong: `basicauth_credentials`.
    pub struct BasicAuthCredential {
        /// The id of the credential.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The consumer that calls with it.
        consumer: Reference = foreign("consumers").required(),
        /// The user name.
        username: String = string().required().unique(),
        /// The password; stored and shown as the hexadecimal SHA-1 of password and consumer id.
        password: String = string().required().encrypted(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

impl BasicAuthCredential {
    /// The stored form of a password.
    pub fn hash(password: &str, consumer: &Uuid) -> String {
        let mut hasher = Sha1::new();
        hasher.update(password.as_bytes());
        let mut buffer = Uuid::encode_buffer();
        hasher.update(consumer.hyphenated().encode_lower(&mut buffer).as_bytes());
        hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(
        EntityKind::BasicAuthCredential,
        "basicauth_credential",
        BasicAuthCredential::schema(),
    )
    .path(Some("basic-auths"))
    .endpoint_key(&["username"])
    .link(
        "consumer",
        EntityKind::Consumer,
        OnDelete::Cascade,
        Some("basic-auth"),
    );
    definition.complete = Some(hash_password);
    definition
}

/// Hashes a password that this write brings; one that was stored before is hashed already.
fn hash_password(
    credential: &mut Map<String, Value>,
    given: &Given<'_>,
    context: &mut WriteContext<'_>,
) {
    if context.already_transformed {
        return;
    }
    let consumer = credential
        .get("consumer")
        .and_then(|consumer| consumer.get("id"))
        .and_then(Value::as_str)
        .and_then(|id| Uuid::try_parse(id).ok());
    let password = given.fields.get("password").and_then(Value::as_str);
    if let (Some(consumer), Some(password)) = (consumer, password)
        && !password.is_empty()
    {
        let hash = BasicAuthCredential::hash(password, &consumer);
        credential.insert("password".into(), hash.into());
    }
}
