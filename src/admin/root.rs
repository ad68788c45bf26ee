//! `GET /`: what this node is, what it can do, how it is set up.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::answer::{Answer, Outcome};
use super::call::Call;
use super::node::{BoundListener, ListenerRole};
use super::state::{Admin, KONG_VERSION, VERSION};
use crate::dialects::kong::entities::EntityKind;

/// Describes the node.
pub(super) fn show(admin: &Admin, _: &Call) -> Outcome {
    let identity = admin.node.identity();
    let listeners = admin.node.listeners();
    let (running, pending) = admin.node.timers();
    let available: Map<String, Value> = admin
        .catalog
        .iter()
        .filter(|plugin| admin.settings.general.plugins.includes(plugin.name))
        .map(|plugin| {
            let about = json!({ "version": plugin.version, "priority": plugin.priority });
            (plugin.name.to_owned(), about)
        })
        .collect();
    Ok(Answer::ok(&json!({
        "tagline": "Welcome to kong",
        "version": KONG_VERSION,
        "edition": "community",
        "hostname": identity.hostname,
        "node_id": identity.node_id,
        // Clients expect the field; there is no Lua in this program.
        "lua_version": "none",
        "timers": { "running": running, "pending": pending },
        "plugins": {
            "available_on_server": available,
            "enabled_in_cluster": configured_plugins(admin),
        },
        "configuration": configuration(admin, &listeners),
        "pids": { "master": identity.pid, "workers": [identity.pid] },
        "sallyport": {
            "version": VERSION,
            "listeners": listeners.iter().map(|listener| {
                json!({ "role": role_name(listener.role), "address": listener.address.to_string() })
            }).collect::<Vec<_>>(),
        },
    })))
}

/// The names of plugins that have an instance.
fn configured_plugins(admin: &Admin) -> BTreeSet<String> {
    let set = admin.control.kong();
    set.rows(EntityKind::Plugin)
        .filter_map(|row| {
            let fields: PluginName = serde_json::from_str(&row.json).ok()?;
            Some(fields.name)
        })
        .collect()
}

#[derive(serde::Deserialize)]
struct PluginName {
    name: String,
}

/// The settings, with the listeners as they were really bound.
fn configuration(admin: &Admin, listeners: &[BoundListener]) -> Map<String, Value> {
    let mut configuration = admin.settings.configuration();
    for (role, name) in [
        (ListenerRole::Proxy, "proxy_listeners"),
        (ListenerRole::Stream, "stream_listeners"),
        (ListenerRole::Admin, "admin_listeners"),
        (ListenerRole::Status, "status_listeners"),
        (ListenerRole::Page, "admin_gui_listeners"),
    ] {
        let bound: Vec<Value> = listeners
            .iter()
            .filter(|listener| listener.role == role)
            .map(describe)
            .collect();
        configuration.insert(name.to_owned(), Value::Array(bound));
    }
    configuration
}

fn describe(listener: &BoundListener) -> Value {
    let mut described = listener.flags.clone();
    let mut text = listener.address.to_string();
    for (name, value) in &listener.flags {
        match value {
            Value::Bool(true) => text.push_str(&format!(" {name}")),
            Value::Number(number) => text.push_str(&format!(" {name}={number}")),
            _ => {}
        }
    }
    described.insert("ip".to_owned(), listener.address.ip().to_string().into());
    described.insert("port".to_owned(), listener.address.port().into());
    described.insert("listener".to_owned(), text.into());
    Value::Object(described)
}

fn role_name(role: ListenerRole) -> &'static str {
    match role {
        ListenerRole::Proxy => "proxy",
        ListenerRole::Stream => "stream",
        ListenerRole::Admin => "admin",
        ListenerRole::Status => "status",
        ListenerRole::Page => "admin_gui",
    }
}
