//! Credentials of the plugins `mtls-auth` and `header-cert-auth`: which consumer a name in a client certificate stands for.

use uuid::Uuid;

use super::{EntityDefinition, EntityKind, OnDelete, Reference, RouterFlavor, UniqueSet};
use crate::config_record;

config_record! {
    /// A name in client certificates that stands for a consumer. Kong Enterprise: `mtls_auth_credentials`.
    pub struct MtlsAuthCredential {
        /// The id of the credential.
        id: Uuid = id(),
        /// When it was made, in seconds since 1970.
        created_at: i64 = timestamp(),
        /// When it was last written, in seconds since 1970.
        updated_at: i64 = timestamp(),
        /// The consumer that calls with the certificate.
        consumer: Reference = foreign("consumers").required(),
        /// A subject alternative name, or the common name, of the certificate.
        subject_name: String = string().required(),
        /// The authority that must have issued the certificate; any trusted one without it.
        ca_certificate: Option<Reference> = foreign("ca_certificates"),
        /// Strings for grouping and filtering.
        tags: Option<Vec<String>> = tags(),
    }
}

pub(super) fn definition(_: RouterFlavor) -> EntityDefinition {
    define(
        EntityKind::MtlsAuthCredential,
        "mtls_auth_credential",
        "mtls-auths",
        "mtls-auth",
    )
}

/// The same for the plugin `header-cert-auth`. Kong Enterprise: `header_cert_auth_credentials`.
pub(super) fn header_definition(_: RouterFlavor) -> EntityDefinition {
    define(
        EntityKind::HeaderCertAuthCredential,
        "header_cert_auth_credential",
        "header-cert-auths",
        "header-cert-auth",
    )
}

fn define(
    kind: EntityKind,
    singular: &'static str,
    path: &'static str,
    nested: &'static str,
) -> EntityDefinition {
    EntityDefinition::new(kind, singular, MtlsAuthCredential::schema())
        .path(Some(path))
        .link(
            "consumer",
            EntityKind::Consumer,
            OnDelete::Cascade,
            Some(nested),
        )
        .link(
            "ca_certificate",
            EntityKind::CaCertificate,
            OnDelete::Cascade,
            None,
        )
        .unique(UniqueSet::with_null(&["subject_name", "ca_certificate"]))
}
