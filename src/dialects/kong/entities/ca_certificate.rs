//! Certificates of authorities that upstreams are verified against.

use serde_json::Value;
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, Plugin, RouterFlavor, Service, UniqueSet};
use crate::base::pem::{self, PemError};
use crate::config_record;
use crate::dialects::kong::error::ApiError;
use crate::model::schema::FieldErrors;

config_record! {
    /// The certificate of an authority. Kong: `ca_certificates`.
    pub struct CaCertificate {
        /// The id of the certificate.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The certificate in PEM form; exactly one.
        cert: String = string().required().validated_by(check_certificate),
        /// The hexadecimal SHA-256 of the certificate; computed.
        cert_digest: String = string().unique(),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    let mut definition = EntityDefinition::new(
        EntityKind::CaCertificate,
        "ca_certificate",
        CaCertificate::schema(),
    )
    .unique(UniqueSet::of(&["cert_digest"]));
    definition.complete = Some(|row, _, context| {
        let digest = row
            .get("cert")
            .and_then(Value::as_str)
            .and_then(|text| pem::check_authority(text, context.now_millis / 1000).ok());
        if let Some(digest) = digest {
            row.insert("cert_digest".into(), digest.into());
        }
    });
    definition.verify = Some(|_, row, context| {
        let verdict = row
            .get("cert")
            .and_then(Value::as_str)
            .map(|text| pem::check_authority(text, context.now_millis / 1000));
        match verdict {
            // The rule of the field has said so.
            None | Some(Ok(_) | Err(PemError::NoCertificate | PemError::BadCertificate { .. })) => {
                FieldErrors::new()
            }
            Some(Err(error)) => FieldErrors::whole(error.to_string()),
        }
    });
    definition.before_delete = Some(|set, id| {
        let text = id.to_string();
        for row in set.rows(EntityKind::Service) {
            // Most services name no authority: the cheap look first.
            if !row.json.contains(&text) {
                continue;
            }
            let uses = row.parse::<Service>().is_ok_and(|service| {
                service
                    .ca_certificates
                    .is_some_and(|authorities| authorities.contains(&id))
            });
            if uses {
                return Err(ApiError::referenced_by_others(format!(
                    "ca certificate {id} is still referenced by services (id = {})",
                    row.id
                )));
            }
        }
        for row in set.rows(EntityKind::Plugin) {
            if !row.json.contains(&text) {
                continue;
            }
            let uses = row.parse::<Plugin>().is_ok_and(|plugin| {
                let named = plugin.config.get("ca_certificates");
                let mut named = named.and_then(Value::as_array).into_iter().flatten();
                named.any(|named| named.as_str() == Some(text.as_str()))
            });
            if uses {
                return Err(ApiError::referenced_by_others(format!(
                    "ca certificate {id} is still referenced by plugins (id = {})",
                    row.id
                )));
            }
        }
        Ok(())
    });
    definition
}

fn check_certificate(value: &Value) -> Result<(), String> {
    match value.as_str().map(pem::parse_certificates) {
        Some(Err(error)) => Err(format!("invalid certificate: {error}")),
        _ => Ok(()),
    }
}
