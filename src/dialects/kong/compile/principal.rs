//! Who may call: consumers with their groups become [`PrincipalPlan`]s, their keys and passwords [`CredentialPlan`]s.
//!
//! Start with [`compile_principals`] and [`compile_credentials`]; both take changes and cost what these touch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::base::secret::Secret;
use crate::dialects::kong::entities::{
    Acl, BasicAuthCredential, Consumer, ConsumerGroup, ConsumerGroupMember, EntityKind,
    KeyAuthCredential, MtlsAuthCredential, Reference,
};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::model::plan::{CredentialPlan, PrincipalPlan};
use crate::model::{Diagnostic, SourceRef};

/// Kong: the plugin `key-auth`.
pub const KEY_AUTH: &str = "key-auth";
/// Kong: the plugin `basic-auth`.
pub const BASIC_AUTH: &str = "basic-auth";

/// Kong Enterprise: the plugin `mtls-auth`.
pub const MTLS_AUTH: &str = "mtls-auth";

/// Kong Enterprise: the plugin `header-cert-auth`.
pub const HEADER_CERT_AUTH: &str = "header-cert-auth";

/// Edits of principals: `None` for those that are gone.
pub type PrincipalEdits = BTreeMap<Uuid, Option<Arc<PrincipalPlan>>>;
/// Edits of credentials: `None` for those that are gone.
pub type CredentialEdits = BTreeMap<Uuid, Option<Arc<CredentialPlan>>>;

/// The principals that the changes touch, compiled from `after`: consumers that changed, and members of groups that did.
pub fn compile_principals(
    after: &EntitySet,
    changes: &[Change],
) -> (PrincipalEdits, Vec<Diagnostic>) {
    let mut touched = BTreeSet::new();
    for change in changes {
        match change.kind {
            EntityKind::Consumer => {
                touched.insert(change.id);
            }
            EntityKind::Acl | EntityKind::ConsumerGroupMember => {
                let rows = change.before.iter().chain(&change.after);
                touched.extend(rows.filter_map(|row| consumer_of(row)));
            }
            EntityKind::ConsumerGroup => {
                let members =
                    after.children(EntityKind::ConsumerGroupMember, "consumer_group", change.id);
                touched.extend(members.filter_map(|row| consumer_of(row)));
            }
            _ => {}
        }
    }
    let mut findings = Vec::new();
    let edits = touched
        .into_iter()
        .map(|id| {
            let plan = after
                .row(EntityKind::Consumer, id)
                .and_then(|row| principal(after, row, &mut findings));
            (id, plan)
        })
        .collect();
    (edits, findings)
}

/// The credentials that changed.
pub fn compile_credentials(changes: &[Change]) -> (CredentialEdits, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let mut edits = CredentialEdits::new();
    for change in changes {
        let compile: fn(&Row) -> Result<CredentialPlan, serde_json::Error> = match change.kind {
            EntityKind::KeyAuthCredential => key_auth,
            EntityKind::BasicAuthCredential => basic_auth,
            EntityKind::MtlsAuthCredential => mtls_auth,
            EntityKind::HeaderCertAuthCredential => header_cert_auth,
            _ => continue,
        };
        let plan = change.after.as_ref().and_then(|row| {
            compile(row)
                .map(Arc::new)
                .map_err(|error| findings.push(unreadable(row, &error)))
                .ok()
        });
        edits.insert(change.id, plan);
    }
    (edits, findings)
}

fn consumer_of(row: &Row) -> Option<Uuid> {
    #[derive(serde::Deserialize)]
    struct Linked {
        consumer: Reference,
    }
    row.parse::<Linked>().ok().map(|linked| linked.consumer.id)
}

fn principal(
    set: &EntitySet,
    row: &Arc<Row>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Arc<PrincipalPlan>> {
    let consumer: Consumer = row
        .parse()
        .map_err(|error| findings.push(unreadable(row, &error)))
        .ok()?;
    let mut acl_groups: Vec<Arc<str>> = set
        .children(EntityKind::Acl, "consumer", row.id)
        .filter_map(|row| row.parse::<Acl>().ok())
        .map(|acl| acl.group.into())
        .collect();
    acl_groups.sort();
    let mut groups: Vec<(Arc<str>, Uuid)> = set
        .children(EntityKind::ConsumerGroupMember, "consumer", row.id)
        .filter_map(|row| row.parse::<ConsumerGroupMember>().ok())
        .filter_map(|member| set.row(EntityKind::ConsumerGroup, member.consumer_group.id))
        .filter_map(|row| row.parse::<ConsumerGroup>().ok())
        .map(|group| (group.name.into(), group.id))
        .collect();
    groups.sort();
    Some(Arc::new(PrincipalPlan {
        id: row.id,
        username: consumer.username.map(Arc::from),
        custom_id: consumer.custom_id.map(Arc::from),
        groups,
        acl_groups,
        description: row.json.clone(),
    }))
}

fn key_auth(row: &Row) -> Result<CredentialPlan, serde_json::Error> {
    let credential: KeyAuthCredential = row.parse()?;
    Ok(CredentialPlan {
        id: row.id,
        kind: KEY_AUTH.into(),
        key: Secret::new(credential.key),
        principal: credential.consumer.id,
        secret: None,
        expires_at: row
            .expires_at
            .map(|end| i64::try_from(end).unwrap_or(i64::MAX)),
    })
}

fn basic_auth(row: &Row) -> Result<CredentialPlan, serde_json::Error> {
    let credential: BasicAuthCredential = row.parse()?;
    Ok(CredentialPlan {
        id: row.id,
        kind: BASIC_AUTH.into(),
        key: Secret::new(credential.username),
        principal: credential.consumer.id,
        secret: Some(Secret::new(credential.password)),
        expires_at: None,
    })
}

/// The key under which a name in certificates is looked up: with the authority that must have issued them, or without.
pub fn certificate_key(subject_name: &str, authority: Option<Uuid>) -> String {
    match authority {
        Some(authority) => format!("{authority} {subject_name}"),
        None => format!("any {subject_name}"),
    }
}

fn mtls_auth(row: &Row) -> Result<CredentialPlan, serde_json::Error> {
    certificate_name(row, MTLS_AUTH)
}

fn header_cert_auth(row: &Row) -> Result<CredentialPlan, serde_json::Error> {
    certificate_name(row, HEADER_CERT_AUTH)
}

fn certificate_name(row: &Row, kind: &str) -> Result<CredentialPlan, serde_json::Error> {
    let credential: MtlsAuthCredential = row.parse()?;
    let authority = credential.ca_certificate.map(|authority| authority.id);
    Ok(CredentialPlan {
        id: row.id,
        kind: kind.into(),
        key: Secret::new(certificate_key(&credential.subject_name, authority)),
        principal: credential.consumer.id,
        secret: None,
        expires_at: None,
    })
}

fn unreadable(row: &Row, error: &serde_json::Error) -> Diagnostic {
    let at = SourceRef::subject(format!("{} \"{}\"", row.kind, row.id));
    Diagnostic::error("unreadable-row", at, format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::{Value, json};

    use super::*;

    fn id(name: &str) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    fn put(set: &mut EntitySet, kind: EntityKind, name: &str, mut fields: Value) -> Change {
        fields["id"] = json!(id(name));
        fields["created_at"] = json!(1);
        fields["updated_at"] = json!(1);
        set.put(Arc::new(
            Row::from_stored(kind, id(name), fields.to_string().into()).unwrap(),
        ))
    }

    fn world() -> EntitySet {
        let mut set = EntitySet::new();
        let consumer = json!({"id": id("alice")});
        put(
            &mut set,
            EntityKind::Consumer,
            "alice",
            json!({"username": "alice"}),
        );
        for group in ["silver", "gold"] {
            let fields = json!({"group": group, "consumer": consumer});
            put(&mut set, EntityKind::Acl, group, fields);
        }
        for group in ["team-b", "team-a"] {
            put(
                &mut set,
                EntityKind::ConsumerGroup,
                group,
                json!({"name": group}),
            );
            let fields = json!({"consumer_group": {"id": id(group)}, "consumer": consumer});
            let name = format!("{group}:alice");
            put(&mut set, EntityKind::ConsumerGroupMember, &name, fields);
        }
        set
    }

    #[test]
    fn gathers_groups() {
        let mut set = world();
        let everything = EntitySet::difference(&EntitySet::new(), &set);
        let (edits, findings) = compile_principals(&set, &everything);
        assert_eq!(findings, []);
        let alice = edits[&id("alice")].clone().unwrap();
        assert_eq!(*alice.acl_groups, ["gold".into(), "silver".into()]);
        let names: Vec<&str> = alice.groups.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["team-a", "team-b"]);

        // Each of these touches the consumer.
        for (kind, name) in [
            (EntityKind::Acl, "gold"),
            (EntityKind::ConsumerGroupMember, "team-a:alice"),
            (EntityKind::Consumer, "alice"),
        ] {
            let change = set.take(kind, id(name)).unwrap();
            let (edits, _) = compile_principals(&set, &[change]);
            assert_eq!(edits.keys().copied().collect::<Vec<_>>(), [id("alice")]);
        }
        let change = put(
            &mut set,
            EntityKind::ConsumerGroup,
            "team-b",
            json!({"name": "renamed"}),
        );
        let (edits, _) = compile_principals(&set, &[change]);
        assert_eq!(edits, BTreeMap::from([(id("alice"), None)]));
    }

    #[test]
    fn compiles_credentials() {
        let mut set = EntitySet::new();
        let consumer = json!({"id": id("alice")});
        let key = put(
            &mut set,
            EntityKind::KeyAuthCredential,
            "key",
            json!({"key": "k", "consumer": consumer, "ttl": 100}),
        );
        let password = put(
            &mut set,
            EntityKind::BasicAuthCredential,
            "password",
            json!({"username": "u", "password": "hash", "consumer": consumer}),
        );
        let gone = set.take(EntityKind::KeyAuthCredential, id("key")).unwrap();
        let (edits, findings) = compile_credentials(&[key, password]);
        assert_eq!(findings, []);
        let key = edits[&id("key")].clone().unwrap();
        assert_eq!((&*key.kind, key.key.expose()), (KEY_AUTH, "k"));
        assert_eq!(key.expires_at, Some(100));
        let password = edits[&id("password")].clone().unwrap();
        assert_eq!(password.key.expose(), "u");
        assert_eq!(password.secret.clone().unwrap().expose(), "hash");
        assert_eq!(compile_credentials(&[gone]).0[&id("key")], None);
    }
}
