//! Who is in which consumer group: `/consumer_groups/G/consumers` and `/consumers/C/consumer_groups`.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud::{self, Done, Operation, Place, Refused, Verb};
use super::state::Admin;
use super::table::{Endpoint, Pending};
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::{EntitySet, Row, RowKey};

/// Most members named in one request.
const MEMBERS_MAX: usize = 1_000;

/// One end of the membership, as seen from a path.
#[derive(Clone, Copy)]
struct Side {
    /// What the path is below.
    owner: EntityKind,
    owner_field: &'static str,
    /// What it lists.
    other: EntityKind,
    other_field: &'static str,
    /// The name of the list in answers.
    list: &'static str,
    /// The name of the field in bodies.
    given: &'static str,
}

const GROUP: Side = Side {
    owner: EntityKind::ConsumerGroup,
    owner_field: "consumer_group",
    other: EntityKind::Consumer,
    other_field: "consumer",
    list: "consumers",
    given: "consumer",
};

const CONSUMER: Side = Side {
    owner: EntityKind::Consumer,
    owner_field: "consumer",
    other: EntityKind::ConsumerGroup,
    other_field: "consumer_group",
    list: "consumer_groups",
    given: "group",
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/consumer_groups/{consumer_groups}").shows(
            "Show a consumer group with its members and plugins",
            show_group,
        ),
        Endpoint::at("/consumer_groups/{consumer_groups}/consumers")
            .shows("List the members of a consumer group", |admin, call| {
                list(admin, call, GROUP)
            })
            .waits(
                Method::POST,
                "Add members to a consumer group",
                |admin, call| add(admin, call, GROUP),
            )
            .waits(
                Method::DELETE,
                "Remove all members of a consumer group",
                |admin, call| remove(admin, call, GROUP),
            ),
        Endpoint::at("/consumer_groups/{consumer_groups}/consumers/{consumers}")
            .shows("Show a member of a consumer group", |admin, call| {
                show_other(admin, call, GROUP)
            })
            .waits(
                Method::DELETE,
                "Remove a member of a consumer group",
                |admin, call| remove(admin, call, GROUP),
            ),
        Endpoint::at("/consumers/{consumers}/consumer_groups")
            .shows("List the groups of a consumer", |admin, call| {
                list(admin, call, CONSUMER)
            })
            .waits(Method::POST, "Add a consumer to groups", |admin, call| {
                add(admin, call, CONSUMER)
            })
            .waits(
                Method::DELETE,
                "Remove a consumer from all groups",
                |admin, call| remove(admin, call, CONSUMER),
            ),
        Endpoint::at("/consumers/{consumers}/consumer_groups/{consumer_groups}")
            .shows("Show a group of a consumer", |admin, call| {
                show_other(admin, call, CONSUMER)
            })
            .waits(
                Method::DELETE,
                "Remove a consumer from a group",
                |admin, call| remove(admin, call, CONSUMER),
            ),
    ]
}

/// The members of an owner: the membership row and what it leads to.
fn members(
    set: &EntitySet,
    side: Side,
    owner: Uuid,
) -> impl Iterator<Item = (&Arc<Row>, &Arc<Row>)> {
    set.children(EntityKind::ConsumerGroupMember, side.owner_field, owner)
        .filter_map(move |member| Some((member, set.linked_row(member, side.other_field)?)))
}

fn owner<'s>(
    set: &'s EntitySet,
    admin: &Admin,
    side: Side,
    key: &str,
) -> Result<&'s Arc<Row>, Answer> {
    crud::find(set, admin, side.owner, key)?.ok_or_else(Answer::not_found)
}

fn shown(set: &EntitySet, admin: &Admin, row: &Row) -> Value {
    Value::Object(crud::show(set, admin, row))
}

fn others_json(set: &EntitySet, admin: &Admin, side: Side, owner: Uuid) -> Vec<Value> {
    members(set, side, owner)
        .map(|(_, other)| shown(set, admin, other))
        .collect()
}

fn show_group(admin: &Admin, call: &Call) -> Outcome {
    let set = admin.control.kong();
    let group = owner(&set, admin, GROUP, call.key(0))?;
    let plugins: Vec<Value> = set
        .children(EntityKind::Plugin, "consumer_group", group.id)
        .map(|row| shown(&set, admin, row))
        .collect();
    let mut answer = Map::new();
    answer.insert("consumer_group".into(), shown(&set, admin, group));
    if call.argument("list_consumers") != Some("false") {
        let consumers = others_json(&set, admin, GROUP, group.id);
        answer.insert("consumers".into(), Value::Array(consumers));
    }
    answer.insert("plugins".into(), Value::Array(plugins));
    Ok(Answer::ok(&Value::Object(answer)))
}

fn list(admin: &Admin, call: &Call, side: Side) -> Outcome {
    let set = admin.control.kong();
    let owner = owner(&set, admin, side, call.key(0))?;
    let others = others_json(&set, admin, side, owner.id);
    // Older clients read the list under its name, newer ones under `data`.
    Ok(Answer::ok(
        &json!({ side.list: others, "data": others, "next": null }),
    ))
}

fn show_other(admin: &Admin, call: &Call, side: Side) -> Outcome {
    let set = admin.control.kong();
    let owner = owner(&set, admin, side, call.key(0))?;
    let other = find_other(&set, admin, side, call.key(1))?.ok_or_else(Answer::not_found)?;
    let (_, row) = members(&set, side, owner.id)
        .find(|(_, row)| row.id == other)
        .ok_or_else(Answer::not_found)?;
    Ok(Answer::ok(
        &json!({ side.other_field: shown(&set, admin, row) }),
    ))
}

/// The id of what is to be a member, by id or name.
fn find_other(
    set: &EntitySet,
    admin: &Admin,
    side: Side,
    text: &str,
) -> Result<Option<Uuid>, Answer> {
    Ok(crud::find(set, admin, side.other, text)?.map(|row| row.id))
}

/// The keys named in a body: a text, a record with an id or name, or a list of these.
fn keys_given(fields: &Map<String, Value>, side: Side) -> Result<Vec<String>, Answer> {
    let missing = || {
        Answer::bad_request(&format!(
            "expected '{}': an id or name, or a list of them",
            side.given
        ))
    };
    let key = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Object(record) => ["id", "username", "name"]
            .iter()
            .find_map(|field| record.get(*field)?.as_str())
            .map(str::to_owned)
            .ok_or_else(missing),
        _ => Err(missing()),
    };
    // Both names are taken: clients differ.
    let given = fields
        .get(side.given)
        .or_else(|| fields.get(side.other_field))
        .or_else(|| fields.get(side.list))
        .ok_or_else(missing)?;
    match given {
        Value::Array(list) if list.is_empty() || list.len() > MEMBERS_MAX => Err(missing()),
        Value::Array(list) => list.iter().map(key).collect(),
        one => Ok(vec![key(one)?]),
    }
}

fn refuse_without_database(admin: &Admin, call: &Call, verb: Verb) -> Result<(), Answer> {
    let operation = Operation {
        verb,
        kind: EntityKind::ConsumerGroupMember,
        place: Place::Collection { below: None },
    };
    crud::refuse_without_database(admin, operation, call)
}

fn add(admin: Arc<Admin>, call: Call, side: Side) -> Pending {
    Box::pin(async move {
        let fields = call.fields().await?;
        refuse_without_database(&admin, &call, Verb::Create)?;
        let keys = keys_given(&fields.values, side)?;
        let owner_key = call.key(0).to_owned();
        crud::commit(&admin, move |admin, set, context| {
            let owner_row = owner(set, admin, side, &owner_key)?.clone();
            let mut changes = Vec::new();
            for key in &keys {
                let other = find_other(set, admin, side, key)?.ok_or_else(|| {
                    let message = format!("{} '{key}' not found", side.given);
                    Refused::Answer(Answer::message(StatusCode::NOT_FOUND, &message))
                })?;
                let fields = Map::from_iter([
                    (side.owner_field.to_owned(), json!({ "id": owner_row.id })),
                    (side.other_field.to_owned(), json!({ "id": other })),
                ]);
                let written = set.create(EntityKind::ConsumerGroupMember, fields, context)?;
                changes.extend(written.changes);
            }
            let body = json!({
                side.owner_field: shown(set, admin, &owner_row),
                side.list: others_json(set, admin, side, owner_row.id),
            });
            Ok((
                Done {
                    status: StatusCode::CREATED,
                    body: body.to_string(),
                },
                changes,
            ))
        })
        .await
    })
}

/// Removes one membership, or all of an owner when the path names none.
fn remove(admin: Arc<Admin>, call: Call, side: Side) -> Pending {
    Box::pin(async move {
        refuse_without_database(&admin, &call, Verb::Remove)?;
        let keys = call.keys.clone();
        crud::commit(&admin, move |admin, set, _| {
            let key = |index: usize| keys.get(index).map(String::as_str);
            let owner_id = owner(set, admin, side, key(0).unwrap_or_default())?.id;
            let only = match key(1) {
                None => None,
                Some(text) => {
                    Some(find_other(set, admin, side, text)?.ok_or_else(Answer::not_found)?)
                }
            };
            let gone: Vec<Uuid> = members(set, side, owner_id)
                .filter(|(_, other)| only.is_none_or(|only| only == other.id))
                .map(|(member, _)| member.id)
                .collect();
            if only.is_some() && gone.is_empty() {
                return Err(Answer::not_found().into());
            }
            let mut changes = Vec::new();
            for id in gone {
                let key = RowKey::Id(id);
                changes.extend(set.delete(EntityKind::ConsumerGroupMember, &key, None)?);
            }
            Ok((Done::no_content(), changes))
        })
        .await
    })
}
