//! SNIs: which certificate a TLS handshake gets.

use serde_json::Value;
use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor};
use crate::config_record;
use crate::model::schema::{names_a_port, parse_address};

config_record! {
    /// A server name and the certificate that serves it. Kong: `snis`.
    pub struct Sni {
        /// The id of the SNI.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The server name, with `*` at the left or right end, or `*` alone.
        name: String = string().required().unique().validated_by(check_wildcard_host),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
        /// The certificate.
        certificate: Reference = foreign("certificates").required(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    EntityDefinition::new(EntityKind::Sni, "sni", Sni::schema())
        .endpoint_key(&["name"])
        .link(
            "certificate",
            EntityKind::Certificate,
            OnDelete::Cascade,
            Some("snis"),
        )
}

/// A host name, not an address, without port, with at most one `*` at either end.
pub(super) fn check_wildcard_host(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    if let Some(at) = text.find('*')
        && at != 0
        && at + 1 != text.len()
    {
        return Err("wildcard must be leftmost or rightmost character".into());
    }
    if text.matches('*').count() > 1 {
        return Err("only one wildcard must be specified".into());
    }
    let named = text.replace('*', "wildcard");
    match parse_address(&named) {
        None if names_a_port(&named) => Err("must not have a port".into()),
        None => Err(format!("invalid value: {text}")),
        Some(address) if address.host.is_ip() => Err("must not be an IP".into()),
        Some(address) if address.port.is_some() => Err("must not have a port".into()),
        Some(_) => Ok(()),
    }
}
