//! Certificates with their server names become [`CertificatePlan`]s; certificates that others refer to become key pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::base::secret::Secret;
use crate::dialects::kong::entities::{CaCertificate, Certificate, EntityKind, Reference, Sni};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::model::plan::{AuthorityPlan, CertificatePlan, KeyPairPlan};
use crate::model::schema::is_reference;
use crate::model::{Diagnostic, SourceRef};

/// Edits of server certificates: `None` for those that are gone or have no server name.
pub type CertificateEdits = BTreeMap<Uuid, Option<Arc<CertificatePlan>>>;

/// The server certificates that the changes touch, compiled from `after`.
pub fn compile_certificates(
    after: &EntitySet,
    changes: &[Change],
) -> (CertificateEdits, Vec<Diagnostic>) {
    let mut touched = BTreeSet::new();
    for change in changes {
        match change.kind {
            EntityKind::Certificate => {
                touched.insert(change.id);
            }
            EntityKind::Sni => {
                let rows = change.before.iter().chain(&change.after);
                let snis = rows.filter_map(|row| row.parse::<Sni>().ok());
                touched.extend(snis.map(|sni| sni.certificate.id));
            }
            _ => {}
        }
    }
    let mut findings = Vec::new();
    let edits = touched
        .into_iter()
        .map(|id| {
            let plan = after.row(EntityKind::Certificate, id).and_then(|row| {
                match certificate(after, row) {
                    Ok(plan) => plan,
                    Err(finding) => {
                        findings.push(finding);
                        None
                    }
                }
            });
            (id, plan.map(Arc::new))
        })
        .collect();
    (edits, findings)
}

/// Edits of authorities: `None` for those that are gone.
pub type AuthorityEdits = BTreeMap<Uuid, Option<Arc<AuthorityPlan>>>;

/// The authorities that changed.
pub fn compile_authorities(changes: &[Change]) -> (AuthorityEdits, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let edits = changes
        .iter()
        .filter(|change| change.kind == EntityKind::CaCertificate)
        .map(|change| {
            let plan = change.after.as_ref().and_then(|row| {
                row.parse::<CaCertificate>()
                    .map_err(|error| {
                        let at = SourceRef::subject(format!("{} \"{}\"", row.kind, row.id));
                        let message = format!("cannot be read: {error}");
                        findings.push(Diagnostic::error("unreadable-row", at, message));
                    })
                    .ok()
            });
            let plan = plan.map(|authority| {
                Arc::new(AuthorityPlan {
                    id: change.id,
                    certificate: authority.cert.into(),
                })
            });
            (change.id, plan)
        })
        .collect();
    (edits, findings)
}

/// The key pair that a row refers to, if it refers to one. The first pair counts: an upstream is shown one.
pub(super) fn client_certificate(
    set: &EntitySet,
    reference: Option<Reference>,
) -> Result<Option<Arc<KeyPairPlan>>, Diagnostic> {
    let Some(row) = reference.and_then(|link| set.row(EntityKind::Certificate, link.id)) else {
        return Ok(None);
    };
    let certificate: Certificate = row.parse().map_err(|error| unreadable(row, &error))?;
    key_pair(row, &certificate.cert, &certificate.key).map(|pair| Some(Arc::new(pair)))
}

/// The finding that a stored row does not have the form of its kind.
pub(super) fn unreadable(row: &Row, error: &serde_json::Error) -> Diagnostic {
    Diagnostic::error(
        "unreadable-row",
        subject(row),
        format!("cannot be read: {error}"),
    )
}

/// The row as a finding names it.
pub(super) fn subject(row: &Row) -> SourceRef {
    SourceRef::subject(format!("{} \"{}\"", row.kind, row.id))
}

fn certificate(set: &EntitySet, row: &Row) -> Result<Option<CertificatePlan>, Diagnostic> {
    let mut server_names: Vec<Arc<str>> = set
        .snis_of(row.id)
        .into_iter()
        .map(|name| name.to_ascii_lowercase().into())
        .collect();
    server_names.sort();
    server_names.dedup();
    // Client certificates only: nothing would ever show it to a client.
    if server_names.is_empty() {
        return Ok(None);
    }
    let certificate: Certificate = row.parse().map_err(|error| unreadable(row, &error))?;
    let mut pairs = vec![key_pair(row, &certificate.cert, &certificate.key)?];
    if let (Some(cert), Some(key)) = (&certificate.cert_alt, &certificate.key_alt) {
        pairs.push(key_pair(row, cert, key)?);
    }
    Ok(Some(CertificatePlan {
        id: row.id,
        pairs,
        server_names,
    }))
}

fn key_pair(row: &Row, certificate: &str, key: &str) -> Result<KeyPairPlan, Diagnostic> {
    if is_reference(certificate) || is_reference(key) {
        return Err(Diagnostic::error(
            "unsupported-reference",
            subject(row),
            "vault references are not supported for certificates by this version",
        )
        .with_hint("write the certificate and its key as PEM text"));
    }
    Ok(KeyPairPlan {
        certificate: certificate.into(),
        key: Secret::new(key),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json;

    use super::super::testing::{difference, id, put};
    use super::*;

    fn world() -> EntitySet {
        let mut set = EntitySet::new();
        let fields = json!({"cert": "C", "key": "K", "cert_alt": "C2", "key_alt": "K2"});
        put(&mut set, EntityKind::Certificate, "web", fields);
        let fields = json!({"cert": "C", "key": "K"});
        put(&mut set, EntityKind::Certificate, "client", fields);
        let fields = json!({"cert": "{vault://env/cert}", "key": "K"});
        put(&mut set, EntityKind::Certificate, "vault", fields);
        for (name, certificate) in [("B.test", "web"), ("*.a.test", "web"), ("v.test", "vault")] {
            let fields = json!({"name": name, "certificate": {"id": id(certificate)}});
            put(&mut set, EntityKind::Sni, name, fields);
        }
        set
    }

    #[test]
    fn gathers_pairs_and_names() {
        let set = world();
        let (edits, findings) = compile_certificates(&set, &difference(&set));
        assert_eq!(edits.len(), 3);
        assert_eq!(edits[&id("client")], None);
        assert_eq!(edits[&id("vault")], None);
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["unsupported-reference"]);
        let web = edits[&id("web")].clone().unwrap();
        assert_eq!(web.server_names, ["*.a.test".into(), "b.test".into()]);
        let keys: Vec<&str> = web.pairs.iter().map(|pair| pair.key.expose()).collect();
        assert_eq!(keys, ["K", "K2"]);
    }

    #[test]
    fn a_name_touches_both_certificates_that_it_moves_between() {
        let mut set = world();
        let fields = json!({"name": "B.test", "certificate": {"id": id("client")}});
        let moved = put(&mut set, EntityKind::Sni, "B.test", fields);
        let (edits, _) = compile_certificates(&set, &[moved]);
        let names = |name| edits[&id(name)].clone().unwrap().server_names.clone();
        assert_eq!(names("client"), ["b.test".into()]);
        assert_eq!(names("web"), ["*.a.test".into()]);
        let gone = set.take(EntityKind::Sni, id("B.test")).unwrap();
        assert_eq!(
            compile_certificates(&set, &[gone]).0,
            BTreeMap::from([(id("client"), None)])
        );
    }
}
