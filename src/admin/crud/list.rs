//! Lists: pages, sizes, offsets, tag filters.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::{Parent, find_parent, now_seconds, render};
use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::Call;
use crate::admin::state::Admin;
use crate::dialects::kong::entities::EntityKind;
use crate::dialects::kong::entity_set::read::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::dialects::kong::entity_set::{EntitySet, PageQuery, Row, TagFilter};
use crate::dialects::kong::error::ApiError;

/// What must be escaped in the parts of a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Answers with a page of a collection.
pub(in crate::admin) fn list(
    admin: &Admin,
    kind: EntityKind,
    below: Option<Parent>,
    call: &Call,
) -> Outcome {
    let set = admin.control.kong();
    let parent = match below {
        None => None,
        Some(parent) => {
            let id = find_parent(&set, admin, parent.kind, call.key(0))?;
            Some((parent.field, id))
        }
    };
    let query = PageQuery {
        size: size(call)?,
        after: offset(call)?,
        parent,
        tags: tags(call)?,
        now_seconds: now_seconds(),
    };
    let page = set.page(kind, &query);
    let path = match below {
        None => format!(
            "/{}",
            admin.entities.definition(kind).path.unwrap_or_default()
        ),
        Some(parent) => nested_path(admin, kind, parent, call.key(0)),
    };
    let next = page.next.map(|last| Next {
        offset: encode_offset(last),
        path,
        call: below.is_none().then_some(call),
    });
    Ok(Answer::json_text(
        StatusCode::OK,
        join(&set, admin, &page.rows, next.as_ref()),
    ))
}

/// A text as part of a URL.
pub(in crate::admin) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

fn nested_path(admin: &Admin, kind: EntityKind, parent: Parent, key: &str) -> String {
    let definition = admin.entities.definition(kind);
    let last = definition
        .nested
        .iter()
        .find(|nested| nested.field == parent.field)
        .map_or("", |nested| nested.path);
    let parent_path = admin
        .entities
        .definition(parent.kind)
        .path
        .unwrap_or_default();
    format!("/{parent_path}/{}/{last}", escape(key))
}

/// Where the next page is.
pub(in crate::admin) struct Next<'c> {
    pub(in crate::admin) offset: String,
    pub(in crate::admin) path: String,
    /// The request whose `size` and `tags` the link repeats.
    pub(in crate::admin) call: Option<&'c Call>,
}

impl Next<'_> {
    pub(in crate::admin) fn url(&self) -> String {
        let mut url = format!("{}?offset={}", self.path, self.offset);
        for name in ["size", "tags"] {
            if let Some(value) = self.call.and_then(|call| call.argument(name)) {
                url.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        url
    }
}

/// Joins the texts of rows to a page.
pub(in crate::admin) fn join(
    set: &EntitySet,
    admin: &Admin,
    rows: &[Arc<Row>],
    next: Option<&Next<'_>>,
) -> String {
    let bytes: usize = rows.iter().map(|row| row.json.len() + 1).sum();
    let mut text = String::with_capacity(bytes + 128);
    text.push_str("{\"data\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&render(set, admin, row));
    }
    match next {
        None => text.push_str("],\"next\":null}"),
        Some(next) => {
            let url = serde_json::Value::from(next.url());
            // An offset is of letters, digits, '-' and '_': nothing to escape.
            text.push_str(&format!(
                "],\"next\":{url},\"offset\":\"{}\"}}",
                next.offset
            ));
        }
    }
    text
}

/// The size of the page that the client asks for.
pub(in crate::admin) fn size(call: &Call) -> Result<usize, ApiError> {
    let Some(text) = call.argument("size") else {
        return Ok(PAGE_SIZE_DEFAULT);
    };
    let number: f64 = text
        .trim()
        .parse()
        .map_err(|_| ApiError::invalid_size("size must be a number"))?;
    if number.fract() != 0.0 || !(1.0..=PAGE_SIZE_MAX as f64).contains(&number) {
        return Err(ApiError::invalid_size(
            "size must be an integer between 1 and 1000",
        ));
    }
    Ok(number as usize)
}

/// The row behind which the page starts.
fn offset(call: &Call) -> Result<Option<Uuid>, ApiError> {
    let Some(text) = call.argument("offset") else {
        return Ok(None);
    };
    let bytes = decode_offset(text)?;
    match Uuid::from_slice(&bytes) {
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(ApiError::invalid_offset(text, "not an offset of this list")),
    }
}

/// The bytes in an offset.
pub(in crate::admin) fn decode_offset(text: &str) -> Result<Vec<u8>, ApiError> {
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| ApiError::invalid_offset(text, "bad base64 encoding"))
}

fn encode_offset(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

fn tags(call: &Call) -> Result<Option<TagFilter>, ApiError> {
    call.argument("tags").map(TagFilter::parse).transpose()
}
