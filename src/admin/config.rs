//! `/config`: the whole configuration as one document, when there is no database.
//!
//! A document replaces everything at once; a refused one changes nothing. One load runs at a time.

use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::body::{Format, parse_json, parse_multipart, unsupported};
use super::call::{Call, is_on};
use super::crud;
use super::form::parse_form;
use super::state::Admin;
use super::table::{Endpoint, Pending};
use crate::dialects::kong::declarative::{
    Document, DocumentError, Syntax, export_yaml, load, loaded_entities, text_hash,
};
use crate::dialects::kong::entities::WriteContext;
use crate::dialects::kong::entity_set::EntitySet;

/// What a client is told to wait before the next attempt, in seconds.
const RETRY_SECONDS: &str = "60";

/// The hash while nothing is loaded.
const NO_HASH: &str = "00000000000000000000000000000000";

/// The declarative document in force.
pub(super) struct Loaded {
    hash: parking_lot::Mutex<String>,
    /// Held while a document is being loaded.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Loaded {
    fn default() -> Self {
        Self {
            hash: parking_lot::Mutex::new(NO_HASH.to_owned()),
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

impl Loaded {
    /// The hash of the document in force, 32 hex digits; all zero while there is none.
    pub(super) fn hash(&self) -> String {
        self.hash.lock().clone()
    }

    /// Whether a document was loaded at all.
    pub(super) fn is_any(&self) -> bool {
        *self.hash.lock() != NO_HASH
    }

    /// Remembers the document that is in force now.
    pub(super) fn adopt(&self, hash: &str) {
        hash.clone_into(&mut self.hash.lock());
    }
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/config")
            .shows(
                "Show the whole configuration as a declarative document",
                show,
            )
            .waits(
                Method::POST,
                "Replace the whole configuration by a declarative document",
                |admin, call| Box::pin(async move { replace(admin, call).await }) as Pending,
            ),
    ]
}

fn refuse_with_database(admin: &Admin) -> Result<(), Answer> {
    if admin.is_db_less() {
        return Ok(());
    }
    Err(Answer::bad_request(
        "this endpoint is only available when Kong is configured to not use a database",
    ))
}

fn show(admin: &Admin, _: &Call) -> Outcome {
    refuse_with_database(admin)?;
    let set = admin.control.kong();
    match export_yaml(&set, crud::now_millis()) {
        Ok(text) => Ok(Answer::ok(&json!({ "config": text }))),
        Err(reason) => {
            tracing::error!(reason, "cannot write the configuration as YAML");
            Err(Answer::unexpected())
        }
    }
}

/// What a client sent to `/config`.
struct Sent {
    document: Source,
    check_hash: bool,
    flatten_errors: bool,
}

enum Source {
    /// A text, to be read in this syntax.
    Text(String, Syntax),
    /// A JSON body that is the document itself.
    Tree(Box<Document>),
}

async fn sent(call: &Call) -> Result<Sent, Answer> {
    let payload = &call.payload;
    let missing = || {
        Answer::json(
            StatusCode::BAD_REQUEST,
            &DocumentError::Missing.to_json(false),
        )
    };
    let as_text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Answer::bad_request("the configuration is not valid UTF-8"))
    };
    let mut fields = match &payload.format {
        _ if payload.bytes.is_empty() => return Err(missing()),
        Format::Yaml => {
            return Ok(Sent {
                document: Source::Text(as_text(&payload.bytes)?, Syntax::Yaml),
                check_hash: call.switch("check_hash"),
                flatten_errors: call.switch("flatten_errors"),
            });
        }
        Format::Json => parse_json(&payload.bytes)?,
        Format::Form => {
            parse_form(&payload.bytes).map_err(|error| Answer::bad_request(&error.to_string()))?
        }
        Format::Multipart(boundary) => parse_multipart(payload.bytes.clone(), boundary).await?,
        Format::Unnamed | Format::Other => return Err(unsupported()),
    };
    let mut switch = |name: &str| {
        let given = match fields.shift_remove(name) {
            Some(Value::String(text)) => is_on(&text),
            Some(Value::Bool(on)) => on,
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        };
        given || call.switch(name)
    };
    let (check_hash, flatten_errors) = (switch("check_hash"), switch("flatten_errors"));
    let document = match fields.shift_remove("config") {
        Some(Value::String(text)) if !text.trim().is_empty() => {
            let syntax = Syntax::of_text(&text);
            Source::Text(text, syntax)
        }
        // A document without its version is still meant as one; the loader says what is missing.
        None if payload.format == Format::Json && !fields.is_empty() => {
            Source::Tree(Box::new(Document::from_tree(fields)))
        }
        _ => return Err(missing()),
    };
    Ok(Sent {
        document,
        check_hash,
        flatten_errors,
    })
}

async fn replace(admin: Arc<Admin>, call: Call) -> Outcome {
    refuse_with_database(&admin)?;
    let sent = sent(&call).await?;
    let Ok(_turn) = admin.loaded.turn.try_lock() else {
        return Err(Answer::message(
            StatusCode::TOO_MANY_REQUESTS,
            "Currently loading previous configuration",
        )
        .with_header(RETRY_AFTER, RETRY_SECONDS));
    };
    if sent.check_hash
        && let Source::Text(text, _) = &sent.document
        && text_hash(text) == admin.loaded.hash()
    {
        return Ok(Answer::empty(StatusCode::NOT_MODIFIED));
    }
    let flatten_errors = sent.flatten_errors;
    let shared = admin.clone();
    // A large document keeps a thread busy for seconds; others must still be answered.
    let reading = tokio::task::spawn_blocking(move || read(&shared, sent.document));
    let loaded = match reading.await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            return Err(Answer::json(status, &error.to_json(flatten_errors)));
        }
        Err(_) => return Err(Answer::unexpected()),
    };
    let entities = loaded.entities.clone();
    let ((), revision) = admin
        .control
        .write_kong(move |set, _| {
            let changes = EntitySet::difference(set, &entities);
            *set = entities.clone();
            Ok(((), changes))
        })
        .await?;
    admin.loaded.adopt(&loaded.hash);
    let body = loaded_entities(&loaded.entities);
    Ok(Answer::json(StatusCode::CREATED, &body).at_revision(revision))
}

fn read(
    admin: &Admin,
    source: Source,
) -> Result<crate::dialects::kong::declarative::Loaded, DocumentError> {
    let document = match source {
        Source::Text(text, syntax) => Document::parse(&text, syntax)?,
        Source::Tree(document) => *document,
    };
    let mut new_id = Uuid::new_v4;
    let mut context = WriteContext {
        now_millis: crud::now_millis(),
        catalog: &admin.catalog,
        flavor: admin.flavor(),
        new_id: &mut new_id,
        already_transformed: false,
    };
    let mut loaded = load(document, &mut context, &mut |_, _| {})?;
    // Only loads write while there is no database, and one load runs at a time.
    loaded.keep_unchanged(&admin.control.kong());
    Ok(loaded)
}
