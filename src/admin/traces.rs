//! `GET /traces`: what requests with the header `Sallyport-Trace` did, step by step; the newest first.

use serde_json::json;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;

/// Shows the traces that this node keeps. With `?request_id=ID` only that request's.
pub(super) fn show(admin: &Admin, call: &Call) -> Outcome {
    let wanted = call.argument("request_id");
    let is_wanted = |trace: &serde_json::Value| {
        wanted.is_none_or(|id| trace.get("request_id").and_then(|it| it.as_str()) == Some(id))
    };
    let traces = admin.node.traces().into_iter();
    let shown: Vec<_> = traces.filter(is_wanted).collect();
    Ok(Answer::ok(&json!({ "data": shown })))
}
