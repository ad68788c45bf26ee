//! Ids for entities that a document gives none, the same at every load of the same document. Kong: declarative configuration.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::dialects::kong::entities::{EntityDefinition, EntityKind};

/// The namespace under which every table has its own.
const NAMESPACE: Uuid = Uuid::from_u128(0xfd02801f_0957_4a15_a55a_c8d9606f30b5);
/// What stands for the only workspace.
const WORKSPACE: &str = "*";

/// The id that follows from an entity's own fields; `None` when nothing identifies it. `fields` are as written;
/// `parent` is the entity around it, with the link that leads there.
pub(super) fn derived_id(
    definition: &EntityDefinition,
    fields: &Map<String, Value>,
    parent: Option<(&str, Uuid)>,
) -> Option<Uuid> {
    let name = match identifying_fields(definition.kind) {
        Some(identifying) => compound_name(definition, fields, parent, identifying)?,
        None => {
            let key = definition.endpoint_key?;
            fields.get(key)?.as_str()?.to_owned()
        }
    };
    let table = Uuid::new_v5(&NAMESPACE, definition.table().as_bytes());
    Some(Uuid::new_v5(&table, name.as_bytes()))
}

/// The fields that together identify an entity of a kind whose endpoint key does not.
fn identifying_fields(kind: EntityKind) -> Option<&'static [&'static str]> {
    Some(match kind {
        EntityKind::Plugin => &["name", "route", "service", "consumer"],
        EntityKind::Target => &["upstream", "target"],
        EntityKind::Acl => &["consumer", "group"],
        EntityKind::ConsumerGroupMember => &["consumer_group", "consumer"],
        EntityKind::KeyAuthCredential => &["key"],
        EntityKind::MtlsAuthCredential | EntityKind::HeaderCertAuthCredential => {
            &["subject_name", "ca_certificate"]
        }
        EntityKind::BasicAuthCredential => &["username"],
        EntityKind::Key => &["kid", "set"],
        EntityKind::Vault => &["prefix"],
        _ => return None,
    })
}

/// `TABLE:*:VALUE:VALUE…`, links as written, absent ones empty.
fn compound_name(
    definition: &EntityDefinition,
    fields: &Map<String, Value>,
    parent: Option<(&str, Uuid)>,
    identifying: &[&str],
) -> Option<String> {
    let mut name = format!("{}:{WORKSPACE}", definition.table());
    let mut push = |text: &str| {
        name.push(':');
        name.push_str(text);
    };
    for field in identifying {
        match (fields.get(*field), parent) {
            (Some(Value::String(text)), _) => push(text),
            (Some(Value::Object(link)), _) => {
                push(link.values().find_map(Value::as_str).unwrap_or_default());
            }
            (Some(_), _) => {}
            (None, Some((link, id))) if link == *field => push(&id.to_string()),
            (None, _) => {
                let required = definition
                    .schema
                    .field(field)
                    .is_some_and(|field| field.required || field.auto);
                if required {
                    return None;
                }
                push("");
            }
        }
    }
    // Groups are not among the fields above so that plugins without one keep the ids that they have elsewhere.
    if definition.kind == EntityKind::Plugin {
        let group = match (fields.get("consumer_group"), parent) {
            (Some(Value::String(text)), _) => Some(text.clone()),
            (None, Some(("consumer_group", id))) => Some(id.to_string()),
            _ => None,
        };
        if let Some(group) = group {
            push(&group);
        }
    }
    Some(name)
}
