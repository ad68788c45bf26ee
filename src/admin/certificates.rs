//! `/certificates/K`, where K may also be a server name that the certificate serves.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud::{self, Done, Operation, Place, Verb};
use super::state::Admin;
use super::table::{Endpoint, Pending};
use crate::dialects::kong::entities::{EntityKind, SNIS};
use crate::dialects::kong::entity_set::RowKey;
use crate::dialects::kong::error::ApiError;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/certificates/{certificates}")
            .waits(
                Method::GET,
                "Show a certificate, by id or server name",
                |admin, call| Box::pin(async move { show(&admin, &call) }),
            )
            .waits(
                Method::PUT,
                "Create or replace a certificate, by id or server name",
                replace,
            )
            .waits(
                Method::PATCH,
                "Change fields of a certificate, by id or server name",
                |admin, call| by_name(admin, call, Verb::Update),
            )
            .waits(
                Method::DELETE,
                "Remove a certificate, by id or server name",
                |admin, call| by_name(admin, call, Verb::Remove),
            ),
    ]
}

fn operation(verb: Verb) -> Operation {
    Operation {
        verb,
        kind: EntityKind::Certificate,
        place: Place::Item { below: None },
    }
}

fn is_id(key: &str) -> bool {
    Uuid::try_parse(key).is_ok()
}

fn unknown_name() -> Answer {
    Answer::message(StatusCode::NOT_FOUND, "SNI not found")
}

fn show(admin: &Admin, call: &Call) -> Outcome {
    let set = admin.control.kong();
    let key = call.key(0);
    let row = match Uuid::try_parse(key) {
        Ok(id) => set
            .row(EntityKind::Certificate, id)
            .ok_or_else(|| ApiError::not_found(key))?,
        Err(_) => set.certificate_of_sni(key).ok_or_else(unknown_name)?,
    };
    Ok(Answer::json_text(
        StatusCode::OK,
        crud::render(&set, admin, row),
    ))
}

/// Update and removal: the server name stands for the certificate that it leads to now.
fn by_name(admin: Arc<Admin>, mut call: Call, verb: Verb) -> Pending {
    Box::pin(async move {
        if !is_id(call.key(0)) && !admin.is_db_less() {
            let set = admin.control.kong();
            let row = set
                .certificate_of_sni(call.key(0))
                .ok_or_else(unknown_name)?;
            call.keys = vec![row.id.to_string()];
        }
        crud::run(&admin, operation(verb), &call).await
    })
}

/// Replacement by a server name: the name joins those of the body.
fn replace(admin: Arc<Admin>, call: Call) -> Pending {
    Box::pin(async move {
        if is_id(call.key(0)) {
            return crud::run(&admin, operation(Verb::Replace), &call).await;
        }
        let name = call.key(0).to_owned();
        let fields = call.fields().await?;
        crud::refuse_without_database(&admin, operation(Verb::Replace), &call)?;
        let mut given = fields.values;
        if !fields.typed {
            let definition = admin.entities.definition(EntityKind::Certificate);
            crud::coerce(&admin, definition, &mut given, None);
        }
        if let Some(Value::Array(names)) = given.get_mut(SNIS)
            && !names.iter().any(|known| known.as_str() == Some(&name))
        {
            names.push(name.as_str().into());
        }
        crud::commit(&admin, move |admin, set, context| {
            let id = match set.certificate_of_sni(&name) {
                Some(row) => row.id,
                None => (context.new_id)(),
            };
            let key = RowKey::Id(id);
            let written =
                set.upsert(EntityKind::Certificate, &key, None, given.clone(), context)?;
            let body = crud::render(set, admin, &written.row);
            Ok((Done::ok(body), written.changes))
        })
        .await
    })
}
