//! `/debug/node/log-level` and `/debug/cluster/log-level`: seeing and changing the log level at run time.

use http::{Method, StatusCode};

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;
use super::table::{Endpoint, Handler};

/// The levels that clients know.
const LEVELS: [&str; 8] = [
    "debug", "info", "notice", "warn", "error", "crit", "alert", "emerg",
];

/// How long a change lasts unless the client says otherwise, in seconds. 0 means for good.
const TIMEOUT_DEFAULT_SECONDS: u64 = 60;

/// The longest that a change may last, in seconds.
const TIMEOUT_MAX_SECONDS: u64 = 365 * 86_400;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::at("/debug/node/log-level").shows("Show the log level of this node", show),
        Endpoint::at("/debug/node/log-level/{log_level}").on(
            Method::PUT,
            "Change the log level of this node",
            Handler::Plain(change),
        ),
        Endpoint::at("/debug/cluster/log-level/{log_level}").on(
            Method::PUT,
            "Change the log level of every node; this store has one node",
            Handler::Plain(change_everywhere),
        ),
    ]
}

fn show(admin: &Admin, _: &Call) -> Outcome {
    let message = format!("log level: {}", admin.node.log_level());
    Ok(Answer::message(StatusCode::OK, &message))
}

fn change_everywhere(admin: &Admin, call: &Call) -> Outcome {
    if admin.is_db_less() {
        return Err(Answer::method_not_allowed());
    }
    change(admin, call)
}

fn change(admin: &Admin, call: &Call) -> Outcome {
    if admin.is_db_less() {
        return Err(Answer::method_not_allowed());
    }
    let level = call.key(0);
    if !LEVELS.contains(&level) {
        return Err(Answer::bad_request(&format!("unknown log level: {level}")));
    }
    let seconds = match call.argument("timeout") {
        None => TIMEOUT_DEFAULT_SECONDS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| *seconds <= TIMEOUT_MAX_SECONDS)
            .ok_or_else(|| Answer::bad_request("timeout must be greater than or equal to 0"))?,
    };
    if admin.node.log_level() == level {
        let message = format!("log level is already {level}");
        return Ok(Answer::message(StatusCode::OK, &message));
    }
    match admin
        .node
        .set_log_level(level, (seconds > 0).then_some(seconds))
    {
        Ok(()) => Ok(Answer::message(StatusCode::OK, "log level changed")),
        Err(reason) => Err(Answer::message(StatusCode::INTERNAL_SERVER_ERROR, &reason)),
    }
}
