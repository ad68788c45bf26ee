//! `GET /timers`: tasks that wait for a moment.

use serde_json::json;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;

/// Counts the timers of this process, which is one worker.
pub(super) fn show(admin: &Admin, _: &Call) -> Outcome {
    let (running, pending) = admin.node.timers();
    Ok(Answer::ok(&json!({
        "worker": { "id": 0, "count": 1 },
        "stats": { "sys": { "running": running, "pending": pending, "waiting": pending, "total": running + pending } },
    })))
}
