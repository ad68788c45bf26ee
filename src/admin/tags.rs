//! `/tags`: which entities carry which tags.

use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud;
use super::state::Admin;
use super::table::Endpoint;
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::Tagged;
use crate::dialects::kong::error::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/tags").shows("List tags with the entities that carry them", list_all),
        Endpoint::at("/tags/{tag}").shows("List the entities that carry a tag", list_one),
    ]
}

fn list_all(admin: &Admin, call: &Call) -> Outcome {
    list(admin, call, None)
}

fn list_one(admin: &Admin, call: &Call) -> Outcome {
    let tag = call.key(0);
    let sound = |c: char| !matches!(c, ',' | '/') && (!c.is_ascii() || (' '..='~').contains(&c));
    if !tag.chars().all(sound) {
        return Err(Answer::bad_request(&format!(
            "invalid tag '{tag}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
        )));
    }
    list(admin, call, Some(tag))
}

fn list(admin: &Admin, call: &Call, tag: Option<&str>) -> Outcome {
    let size = crud::size(call)?;
    let after = call.argument("offset").map(decode).transpose()?;
    let set = admin.control.kong();
    // One more than asked for tells whether there is a next page.
    let mut found = set.tagged(tag, after.as_ref(), size + 1);
    let more = found.len() > size;
    found.truncate(size);
    let data: Vec<Value> = found
        .iter()
        .map(|tagged| {
            json!({
                "entity_name": tagged.kind.table(),
                "entity_id": tagged.id,
                "tag": &*tagged.tag,
            })
        })
        .collect();
    let Some(last) = found.last().filter(|_| more) else {
        return Ok(Answer::ok(&json!({ "data": data, "next": null })));
    };
    let path = match tag {
        None => "/tags".to_owned(),
        Some(tag) => format!("/tags/{}", crud::escape(tag)),
    };
    let next = crud::Next {
        offset: encode(last),
        path,
        call: Some(call),
    };
    Ok(Answer::ok(&json!({
        "data": data,
        "next": next.url(),
        "offset": next.offset,
    })))
}

/// An offset is the id, the table and the tag of the last entry.
fn encode(tagged: &Tagged) -> String {
    let mut bytes = tagged.id.as_bytes().to_vec();
    bytes.extend_from_slice(tagged.kind.table().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(tagged.tag.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(offset: &str) -> Result<Tagged, ApiError> {
    let bytes = crud::decode_offset(offset)?;
    let parse = || {
        let (id, rest) = bytes.split_at_checked(16)?;
        let text = std::str::from_utf8(rest).ok()?;
        let (table, tag) = text.split_once('\0')?;
        Some(Tagged {
            tag: tag.into(),
            kind: EntityKind::from_table(table)?,
            id: Uuid::from_slice(id).ok()?,
        })
    };
    parse().ok_or_else(|| ApiError::invalid_offset(offset, "not an offset of this list"))
}
