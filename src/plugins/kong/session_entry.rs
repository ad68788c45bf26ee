//! The log entry of a stream: one line of JSON, as Kong's log plugins write it.

use std::time::Instant;

use super::log_entry::{
    Object, consumer, json, number, owner, target, text, tls, tries, unverified,
};
use crate::runtime::clock;
use crate::runtime::session::Session;

/// Appends the entry, without line end. `workspace` is the id of the one workspace.
pub(crate) fn write(session: &Session, workspace: &str, into: &mut Vec<u8>) {
    let mut entry = Object::begin(into);
    let mut part = Object::begin(entry.key("session"));
    if let Some(facts) = session.connection.tls.get() {
        tls(facts, unverified(facts), part.key("tls"));
    }
    number(session.received, part.key("received"));
    number(session.sent, part.key("sent"));
    number(session.status.as_u16().into(), part.key("status"));
    number(session.connection.port.into(), part.key("server_port"));
    part.end();
    if session.connected.is_some() {
        let mut upstream = Object::begin(entry.key("upstream"));
        number(session.sent, upstream.key("received"));
        number(session.received, upstream.key("sent"));
        upstream.end();
    }
    let ended = session.ended.unwrap_or_else(Instant::now);
    let ours = session.connected.unwrap_or(ended);
    let mut latencies = Object::begin(entry.key("latencies"));
    number(session.milliseconds_until(ours), latencies.key("kong"));
    number(session.milliseconds_until(ended), latencies.key("session"));
    latencies.end();
    tries(&session.tries, session.started, entry.key("tries"));
    let client = session.client_address.to_string();
    text(client.as_bytes(), entry.key("client_ip"));
    number(
        clock::unix_milliseconds(session.started),
        entry.key("started_at"),
    );
    owner(&session.identity, &mut entry);
    if let Some(route) = &session.route {
        target(route, &mut entry);
    }
    consumer(&session.identity, &mut entry);
    text(workspace.as_bytes(), entry.key("workspace"));
    text(b"default", entry.key("workspace_name"));
    for (name, value) in &session.notes {
        json(value, entry.key(name));
    }
    entry.end();
}
