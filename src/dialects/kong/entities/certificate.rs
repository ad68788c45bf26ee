//! Certificates shown to clients and upstreams.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, RouterFlavor};
use crate::base::pem::{self, KeyPair, PemError};
use crate::config_record;
use crate::model::schema::{FieldErrors, array, custom, is_reference, mutually_required, string};

config_record! {
    /// A certificate with its key. Kong: `certificates`.
    pub struct Certificate {
        /// The id of the certificate.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The certificate chain in PEM form.
        cert: String = string().required().referenceable().validated_by(check_certificate),
        /// The private key in PEM form.
        key: String = string().required().referenceable().encrypted().validated_by(check_key),
        /// A second chain with a key of another type.
        cert_alt: Option<String> = string().referenceable().validated_by(check_certificate),
        /// The key of the second chain.
        key_alt: Option<String> = string().referenceable().encrypted().validated_by(check_key),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

/// The shorthand that lists the server names of a certificate.
pub const SNIS: &str = "snis";

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let schema = Certificate::schema()
        .check(mutually_required(&["cert_alt", "key_alt"]))
        .check(custom(&["cert", "key"], |row| {
            check_pair(row, "cert", "key")
        }))
        .check(custom(&["cert_alt", "key_alt"], |row| {
            check_pair(row, "cert_alt", "key_alt")
        }))
        .check(custom(&["cert", "key", "cert_alt", "key_alt"], check_types));
    let mut definition = EntityDefinition::new(EntityKind::Certificate, "certificate", schema);
    definition.shorthands.push(
        array(string().validated_by(super::sni::check_wildcard_host))
            .comma_separated()
            .named(SNIS)
            .described("The server names that the certificate serves."),
    );
    definition
}

fn check_certificate(value: &Value) -> Result<(), String> {
    match value.as_str().map(pem::parse_certificates) {
        Some(Err(error)) => Err(format!("invalid certificate: {error}")),
        _ => Ok(()),
    }
}

fn check_key(value: &Value) -> Result<(), String> {
    match value.as_str().map(pem::parse_key) {
        Some(Err(error)) => Err(format!("invalid key: {error}")),
        _ => Ok(()),
    }
}

/// The pair of two fields, unless a part stands in a vault, where nobody can look now.
fn pair(row: &Map<String, Value>, cert: &str, key: &str) -> Option<Result<KeyPair, PemError>> {
    let text = |field: &str| {
        row.get(field)
            .and_then(Value::as_str)
            .filter(|text| !is_reference(text))
    };
    Some(KeyPair::parse(text(cert)?, text(key)?))
}

fn check_pair(row: &Map<String, Value>, cert: &str, key: &str) -> Result<(), FieldErrors> {
    match pair(row, cert, key) {
        Some(Err(error)) => Err(FieldErrors::whole(error.to_string())),
        _ => Ok(()),
    }
}

fn check_types(row: &Map<String, Value>) -> Result<(), FieldErrors> {
    match (pair(row, "cert", "key"), pair(row, "cert_alt", "key_alt")) {
        (Some(Ok(first)), Some(Ok(second))) if first.kind == second.kind => {
            Err(FieldErrors::whole(
                "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), \
                 the provided certificates were both of the same type",
            ))
        }
        _ => Ok(()),
    }
}
