//! `GET /consumers?custom_id=…`: looking for a consumer by the name that another system gave it.

use http::{Method, StatusCode};

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::crud::{self, Operation, Place, Verb};
use super::state::Admin;
use super::table::{Endpoint, Pending};
use crate::dialects::kong::entities::EntityKind;
use std::sync::Arc;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::at("/consumers").waits(
        Method::GET,
        "List 'consumers' entities, or the one with a 'custom_id'",
        list,
    )]
}

fn list(admin: Arc<Admin>, call: Call) -> Pending {
    Box::pin(async move {
        match call.query.get("custom_id") {
            None => {
                let operation = Operation {
                    verb: Verb::Read,
                    kind: EntityKind::Consumer,
                    place: Place::Collection { below: None },
                };
                crud::run(&admin, operation, &call).await
            }
            Some(_) => by_custom_id(&admin, call.argument("custom_id").unwrap_or_default()),
        }
    })
}

fn by_custom_id(admin: &Admin, custom_id: &str) -> Outcome {
    if custom_id.is_empty() {
        return Err(Answer::bad_request("custom_id must be an unempty string"));
    }
    let set = admin.control.kong();
    let rows: Vec<_> = set
        .find_unique(EntityKind::Consumer, "custom_id", custom_id)
        .cloned()
        .into_iter()
        .collect();
    let text = crud::join(&set, admin, &rows, None);
    Ok(Answer::json_text(StatusCode::OK, text))
}
