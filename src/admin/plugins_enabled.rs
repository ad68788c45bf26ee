//! `GET /plugins/enabled`: the plugins that instances may be made of.

use serde_json::json;

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::state::Admin;

/// Lists the names.
pub(super) fn show(admin: &Admin, _: &Call) -> Outcome {
    let names: Vec<&str> = admin
        .catalog
        .iter()
        .map(|plugin| plugin.name)
        .filter(|name| admin.settings.general.plugins.includes(name))
        .collect();
    Ok(Answer::ok(&json!({ "enabled_plugins": names })))
}
