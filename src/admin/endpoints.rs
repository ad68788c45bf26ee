//! `GET /endpoints`: every path of this listener.

use serde_json::{Value, json};

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::special;
use super::state::Admin;

/// Lists the paths, sorted by segment.
pub(super) fn list(admin: &Admin, _: &Call) -> Outcome {
    let table = special::table(admin.entities);
    let mut paths: Vec<String> = table.iter().map(|endpoint| endpoint.path()).collect();
    paths.sort_by(|one, two| one.split('/').cmp(two.split('/')));
    let data: Vec<Value> = paths.into_iter().map(Value::String).collect();
    Ok(Answer::ok(&json!({ "data": data })))
}
