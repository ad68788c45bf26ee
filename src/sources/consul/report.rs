//! What the metrics page and the status page say about the mesh.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::authority::AuthorizeCounts;
use super::identity::{MeshIdentity, unix_now};
use super::watch::Watches;
use crate::engine::mutual::MutualCounts;
use crate::engine::mutual::outbound::OutboundCounts;
use crate::runtime::mutual::SecuredCounts;

/// Shows one identity and the agent behind it.
pub struct MeshReport {
    pub watches: Arc<Watches>,
    pub identities: Vec<Arc<MeshIdentity>>,
}

impl MeshReport {
    /// Why traffic may not come yet.
    pub fn trouble(&self) -> Option<String> {
        self.identities
            .iter()
            .find_map(|identity| identity.facts().trouble.clone())
    }

    /// Lines in Prometheus' text format.
    pub fn metrics(&self, page: &mut String) {
        let now = unix_now();
        let mut family = |name: &str, help: &str, value: &dyn Fn(&MeshIdentity) -> Option<i64>| {
            // Writing to text cannot fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
            for identity in &self.identities {
                if let Some(value) = value(identity) {
                    let service = label(&identity.service);
                    let _ = writeln!(page, "{name}{{service=\"{service}\"}} {value}");
                }
            }
        };
        family(
            "sallyport_connect_ready",
            "Whether the identity in the mesh can be used",
            &|identity| Some(i64::from(identity.facts().trouble.is_none())),
        );
        family(
            "sallyport_connect_leaf_expires_seconds",
            "Seconds until the leaf certificate in use expires",
            &|identity| Some(identity.facts().valid?.1 - now),
        );
        family(
            "sallyport_connect_leaf_rotations",
            "Identities put into use since the start",
            &|identity| i64::try_from(identity.facts().rotations).ok(),
        );
        family(
            "sallyport_connect_roots",
            "Root certificates that are trusted",
            &|identity| i64::try_from(identity.facts().roots).ok(),
        );
        let _ = writeln!(
            page,
            "# HELP sallyport_connect_watches Questions to the agent that are kept open or repeated\n\
             # TYPE sallyport_connect_watches gauge\nsallyport_connect_watches {}",
            self.watches.count()
        );
        let name = "sallyport_connect_agent_trouble";
        let _ = writeln!(
            page,
            "# HELP {name} Questions without a whole good answer at the moment, by kind\n# TYPE {name} gauge"
        );
        let mut kinds = std::collections::BTreeMap::new();
        for complaint in self.watches.complaints() {
            *kinds.entry(complaint.kind).or_insert(0_u64) += 1;
        }
        for (kind, count) in kinds {
            let _ = writeln!(page, "{name}{{kind=\"{kind}\"}} {count}");
        }
    }

    /// An object for the status page.
    pub fn status(&self) -> Value {
        let identities: Vec<Value> = self
            .identities
            .iter()
            .map(|identity| {
                let facts = identity.facts();
                json!({
                    "service": identity.service,
                    "ready": facts.trouble.is_none(),
                    "trouble": facts.trouble,
                    "uri": facts.uri,
                    "trust_domain": facts.trust_domain,
                    "roots": facts.roots,
                    "valid_after": facts.valid.map(|(from, _)| from),
                    "valid_before": facts.valid.map(|(_, until)| until),
                    "rotations": facts.rotations,
                })
            })
            .collect();
        let complaints = self.watches.complaints();
        let complaints: Vec<Value> = complaints
            .iter()
            .map(|complaint| {
                json!({
                    "question": complaint.question,
                    "kind": complaint.kind,
                    "what": complaint.what,
                    "seconds": complaint.since.map(|since| since.as_secs()),
                })
            })
            .collect();
        json!({
            "agent": self.watches.client().options().address.to_string(),
            "identities": identities,
            "watches": self.watches.count(),
            "agent_trouble": complaints,
        })
    }
}

/// What happened on a public listener.
pub fn inbound(page: &mut String, service: &str, counts: &MutualCounts) {
    let service = label(service);
    let mut family = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(
            page,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{service=\"{service}\"}} {value}"
        );
    };
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    family(
        "sallyport_connect_inbound_accepted_total",
        "counter",
        "Callers that were let in",
        load(&counts.accepted),
    );
    family(
        "sallyport_connect_inbound_open",
        "gauge",
        "Connections of callers that are open",
        load(&counts.open),
    );
    family(
        "sallyport_connect_inbound_cut_total",
        "counter",
        "Open connections cut because the caller lost the right",
        load(&counts.cut),
    );
    family(
        "sallyport_connect_inbound_received_bytes_total",
        "counter",
        "Bytes of streams from callers",
        load(&counts.received),
    );
    family(
        "sallyport_connect_inbound_sent_bytes_total",
        "counter",
        "Bytes of streams to callers",
        load(&counts.sent),
    );
    let name = "sallyport_connect_inbound_refused_total";
    let _ = writeln!(
        page,
        "# HELP {name} Callers that were turned away, by reason\n# TYPE {name} counter"
    );
    for (reason, count) in counts.refusals.all() {
        let _ = writeln!(
            page,
            "{name}{{service=\"{service}\",reason=\"{reason}\"}} {count}"
        );
    }
}

/// What the agent was asked about callers.
pub fn questions(page: &mut String, service: &str, counts: &AuthorizeCounts) {
    let name = "sallyport_connect_authorize_total";
    let service = label(service);
    let _ = writeln!(
        page,
        "# HELP {name} Verdicts about callers: asked of the agent, answered from its last answer, failed\n# TYPE {name} counter"
    );
    for (outcome, count) in [
        ("asked", &counts.asked),
        ("cached", &counts.cached),
        ("failed", &counts.failed),
    ] {
        let count = count.load(Relaxed);
        let _ = writeln!(
            page,
            "{name}{{service=\"{service}\",outcome=\"{outcome}\"}} {count}"
        );
    }
}

/// What became of connections to services of the mesh, by upstream.
pub fn secured(page: &mut String, upstreams: &[(&str, &SecuredCounts)]) {
    let name = "sallyport_connect_outbound_connected_total";
    let _ = writeln!(
        page,
        "# HELP {name} Connections that reached their peer\n# TYPE {name} counter"
    );
    for (upstream, counts) in upstreams {
        let (upstream, count) = (label(upstream), counts.connected.load(Relaxed));
        let _ = writeln!(page, "{name}{{upstream=\"{upstream}\"}} {count}");
    }
    let name = "sallyport_connect_outbound_failed_total";
    let _ = writeln!(
        page,
        "# HELP {name} Tries to reach a peer that failed, by reason\n# TYPE {name} counter"
    );
    for (upstream, counts) in upstreams {
        let upstream = label(upstream);
        for (reason, count) in counts.failures.all().filter(|(_, count)| *count > 0) {
            let _ = writeln!(
                page,
                "{name}{{upstream=\"{upstream}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
}

/// A local listener and what happened on it.
pub struct UpstreamCounts<'a> {
    pub upstream: &'a str,
    pub listen: String,
    pub counts: &'a OutboundCounts,
}

/// What happened on local listeners.
pub fn outbound(page: &mut String, upstreams: &[UpstreamCounts<'_>]) {
    let mut family =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&OutboundCounts) -> u64| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for one in upstreams {
                let (upstream, value) = (label(one.upstream), value(one.counts));
                let listen = label(&one.listen);
                let _ = writeln!(
                    page,
                    "{name}{{upstream=\"{upstream}\",listen=\"{listen}\"}} {value}"
                );
            }
        };
    family(
        "sallyport_connect_outbound_connected_total",
        "counter",
        "Connections that reached their peer",
        &|counts| counts.peers.connected.load(Relaxed),
    );
    family(
        "sallyport_connect_outbound_open",
        "gauge",
        "Connections of applications that are open",
        &|counts| counts.open.load(Relaxed),
    );
    family(
        "sallyport_connect_outbound_sent_bytes_total",
        "counter",
        "Bytes of streams to peers",
        &|counts| counts.sent.load(Relaxed),
    );
    family(
        "sallyport_connect_outbound_received_bytes_total",
        "counter",
        "Bytes of streams from peers",
        &|counts| counts.received.load(Relaxed),
    );
    let name = "sallyport_connect_outbound_failed_total";
    let _ = writeln!(
        page,
        "# HELP {name} Tries to reach a peer that failed, by reason\n# TYPE {name} counter"
    );
    for one in upstreams {
        let (upstream, listen) = (label(one.upstream), label(&one.listen));
        let failures = one.counts.peers.failures.all();
        for (reason, count) in failures.filter(|(_, count)| *count > 0) {
            let _ = writeln!(
                page,
                "{name}{{upstream=\"{upstream}\",listen=\"{listen}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
}

fn label(text: &str) -> String {
    text.replace(['"', '\\', '\n'], "_")
}
