//! Keys: public or private keys that plugins refer to.

use serde_json::Value;
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, UniqueSet};
use crate::base::pem;
use crate::config_record;
use crate::model::schema::{
    FieldErrors, at_least_one_of, custom, is_reference, mutually_exclusive,
};

config_record! {
    /// A key pair in PEM form.
    pub struct KeyPem {
        /// The private key.
        private_key: Option<String> = string().referenceable().encrypted().validated_by(check_private_key),
        /// The public key.
        public_key: Option<String> = string().referenceable().validated_by(check_public_key),
    }
}

config_record! {
    /// A key. Kong: `keys`.
    pub struct Key {
        /// The id of the key.
        id: Uuid = id(),
        /// The set that it belongs to.
        set: Option<Reference> = foreign("key_sets"),
        /// The name of the key.
        name: Option<String> = string().unique(),
        /// The key id that tokens carry.
        kid: String = string().required(),
        /// The key as a JSON Web Key in a string.
        jwk: Option<String> = string().referenceable().encrypted(),
        /// The key in PEM form.
        pem: Option<KeyPem> = KeyPem::schema_kind(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let schema = Key::schema()
        .check(mutually_exclusive(&["jwk", "pem"]))
        .check(at_least_one_of(&["jwk", "pem"]))
        .check(custom(&["jwk", "pem", "kid"], |key| {
            check_key(
                key.get("jwk").unwrap_or(&Value::Null),
                key.get("pem").unwrap_or(&Value::Null),
                key.get("kid").unwrap_or(&Value::Null),
            )
            .map_err(FieldErrors::whole)
        }));
    EntityDefinition::new(EntityKind::Key, "key", schema)
        .endpoint_key(&["name"])
        .link("set", EntityKind::KeySet, OnDelete::Cascade, Some("keys"))
        .unique(UniqueSet::with_null(&["kid", "set"]))
}

fn check_key(jwk: &Value, pem: &Value, kid: &Value) -> Result<(), String> {
    if let Some(text) = jwk.as_str().filter(|text| !is_reference(text)) {
        let Ok(jwk) = serde_json::from_str::<Value>(text) else {
            return Err("could not json decode jwk string".into());
        };
        if jwk.get("kid") != Some(kid) {
            return Err("kid in jwk.kid must be equal to keys.kid".into());
        }
        if jwk.get("kty").and_then(Value::as_str).is_none() {
            return Err("could not load JWK, likely not a valid key".into());
        }
    }
    if pem.is_object()
        && ["private_key", "public_key"]
            .iter()
            .all(|part| pem.get(part).is_none_or(Value::is_null))
    {
        return Err("need to supply a PEM formatted public and/or private key.".into());
    }
    Ok(())
}

fn check_private_key(value: &Value) -> Result<(), String> {
    match value.as_str().map(pem::parse_key) {
        Some(Err(error)) => Err(format!("could not load the private key: {error}")),
        _ => Ok(()),
    }
}

fn check_public_key(value: &Value) -> Result<(), String> {
    match value.as_str().map(pem::parse_public_key) {
        Some(Err(error)) => Err(format!("could not load the public key: {error}")),
        _ => Ok(()),
    }
}
