//! Vaults: where `{vault://PREFIX/…}` references are read.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, RouterFlavor};
use crate::config_record;
use crate::model::schema::{FieldErrors, Record};

/// The vaults of this build; a prefix may not take one of these names.
pub const INSTALLED: &[&str] = &["env"];

config_record! {
    /// A named vault. Kong: `vaults`.
    pub struct Vault {
        /// The id of the vault.
        id: Uuid = id(),
        /// The name of the vault in references.
        prefix: String = string().required().unique()
            .matching("^[a-z][a-z0-9-]*[a-z0-9]+$", is_prefix).not_one_of(INSTALLED),
        /// The kind of vault.
        name: String = string().required(),
        /// What it holds.
        description: Option<String> = string(),
        /// The configuration of the kind.
        config: Option<Map<String, Value>> = abstract_record(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

config_record! {
    /// The configuration of a vault of the kind `env`.
    pub struct EnvVaultConfig {
        /// Put before the name of each environment variable.
        prefix: Option<String> = string().matching("^[%a_-][%a%d_-]*$", is_variable_prefix),
    }
}

/// The description of the configuration of a kind of vault; `None` when it is not installed.
pub fn config_schema(name: &str) -> Option<Record> {
    match name {
        "env" => Some(EnvVaultConfig::schema()),
        _ => None,
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(EntityKind::Vault, "vault", Vault::schema())
        .endpoint_key(&["prefix"]);
    definition.complete = Some(|vault, _, _| {
        let schema = vault
            .get("name")
            .and_then(Value::as_str)
            .and_then(config_schema);
        if let Some(schema) = schema {
            let config = match vault.get_mut("config").map(Value::take) {
                Some(Value::Object(config)) => Value::Object(schema.fill(config)),
                None | Some(Value::Null) => Value::Object(schema.fill(Map::new())),
                Some(other) => other,
            };
            vault.insert("config".into(), config);
        }
    });
    definition.verify = Some(|_, vault, _| {
        let Some(name) = vault.get("name").and_then(Value::as_str) else {
            return FieldErrors::new();
        };
        let Some(schema) = config_schema(name) else {
            return FieldErrors::one("name", format!("vault '{name}' is not installed"));
        };
        let mut errors = FieldErrors::new();
        if let Some(Value::Object(config)) = vault.get("config")
            && let Err(found) = schema.validate(config)
        {
            errors.add_tree("config", found.into_json());
        }
        errors
    });
    definition
}

fn is_prefix(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_variable_prefix(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
