//! Upstreams with their targets become [`ClusterPlan`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::certificate::{client_certificate, subject, unreadable};
use super::health::health_plan;
use crate::dialects::consul::mesh_name::MeshName;
use crate::dialects::kong::entities::{EntityKind, Target, Upstream};
use crate::dialects::kong::entity_set::{Change, EntitySet, Row};
use crate::model::Diagnostic;
use crate::model::plan::{BalancePlan, ClusterPlan, EndpointPlan, HashInput};
use crate::model::schema::Host;

/// Edits of clusters: `None` for those that are gone.
pub type ClusterEdits = BTreeMap<Uuid, Option<Arc<ClusterPlan>>>;

/// What makes an upstream one of services of the mesh: its targets name them, or without targets its own name does.
pub const MESH_TAG: &str = "consul-connect";
/// Weight of the only service of an upstream without targets.
const MESH_WEIGHT: u32 = 100;
/// The path of a cookie that is made, where the upstream names none.
const COOKIE_PATH: &str = "/";

/// The clusters of upstreams that the changes touch, compiled from `after`. The clusters of services without upstream
/// come with their services: [`super::forward::compile_forwards`].
pub fn compile_clusters(
    after: &EntitySet,
    changes: &[Change],
    mesh: bool,
) -> (ClusterEdits, Vec<Diagnostic>) {
    let mut touched = BTreeSet::new();
    for change in changes {
        match change.kind {
            EntityKind::Upstream => {
                touched.insert(change.id);
            }
            EntityKind::Target => {
                let rows = change.before.iter().chain(&change.after);
                let targets = rows.filter_map(|row| row.parse::<Target>().ok());
                touched.extend(targets.map(|target| target.upstream.id));
            }
            EntityKind::Certificate => {
                let users = after.children(EntityKind::Upstream, "client_certificate", change.id);
                touched.extend(users.map(|row| row.id));
            }
            _ => {}
        }
    }
    let mut findings = Vec::new();
    let edits = touched
        .into_iter()
        .map(|id| {
            let plan = after.row(EntityKind::Upstream, id).and_then(|row| {
                match cluster(after, row, mesh, &mut findings) {
                    Ok(plan) => Some(Arc::new(plan)),
                    Err(finding) => {
                        findings.push(finding);
                        None
                    }
                }
            });
            (id, plan)
        })
        .collect();
    (edits, findings)
}

/// A host as it is resolved and shown: without the brackets of an IPv6 address.
pub(super) fn bare_host(host: Host) -> Arc<str> {
    match host {
        Host::Ip(address) => address.to_string().into(),
        Host::Name(name) => name.into(),
    }
}

fn cluster(
    set: &EntitySet,
    row: &Row,
    mesh: bool,
    findings: &mut Vec<Diagnostic>,
) -> Result<ClusterPlan, Diagnostic> {
    let upstream: Upstream = row.parse().map_err(|error| unreadable(row, &error))?;
    let tags = upstream.tags.as_deref().unwrap_or_default();
    let tagged = mesh && tags.iter().any(|tag| tag == MESH_TAG);
    let roster = |name: &str| -> Result<Option<Arc<str>>, Diagnostic> {
        match MeshName::of_host(name).filter(|_| mesh) {
            Some(name) => Ok(Some(name.to_string().into())),
            None if !tagged => Ok(None),
            None => match MeshName::of_service(name) {
                Some(name) => Ok(Some(name.to_string().into())),
                None => Err(Diagnostic::error(
                    "bad-mesh-name",
                    subject(row),
                    format!(
                        "'{name}' is not the name of a service of the mesh, which the tag '{MESH_TAG}' makes it"
                    ),
                )),
            },
        }
    };
    let mut endpoints = Vec::new();
    for row in set.children(EntityKind::Target, "upstream", row.id) {
        let target: Target = row.parse().map_err(|error| unreadable(row, &error))?;
        let (host, port) = target.host_and_port().ok_or_else(|| {
            Diagnostic::error(
                "bad-target",
                subject(row),
                format!("'{}' is not a host with an optional port", target.target),
            )
        })?;
        let host = bare_host(host);
        endpoints.push(EndpointPlan {
            id: row.id,
            roster: roster(&host)?,
            host,
            port,
            weight: target.weight,
            rank: 0,
        });
    }
    if tagged && endpoints.is_empty() {
        // The upstream's own name is that of the service.
        endpoints.push(EndpointPlan {
            id: row.id,
            roster: roster(&upstream.name)?,
            host: upstream.name.as_str().into(),
            port: 80,
            weight: MESH_WEIGHT,
            rank: 0,
        });
    }
    let mut health = health_plan(&upstream.healthchecks);
    if health.probe.is_some() && endpoints.iter().any(|it| it.roster.is_some()) {
        findings.push(Diagnostic::warning(
            "mesh-probes",
            subject(row),
            "services of the mesh are not probed: their health is the agent's to tell",
        ));
        health.probe = None;
    }
    Ok(ClusterPlan {
        id: row.id,
        endpoints,
        balance: balance(row, &upstream)?,
        health,
        host_header: upstream.host_header.map(Arc::from),
        use_srv_name: upstream.use_srv_name.unwrap_or(false),
        client_certificate: client_certificate(set, upstream.client_certificate)?,
        name: upstream.name.into(),
        named: true,
        exchanges_max: None,
    })
}

fn balance(row: &Row, upstream: &Upstream) -> Result<BalancePlan, Diagnostic> {
    match (&*upstream.algorithm, &*upstream.hash_on) {
        // Kong turns to round-robin where nothing is hashed.
        ("round-robin", _) | ("consistent-hashing", "none") => Ok(BalancePlan::RoundRobin),
        ("consistent-hashing", _) => Ok(BalancePlan::ConsistentHashing {
            slots: upstream.slots,
            on: hash_input(
                row,
                upstream,
                &upstream.hash_on,
                [
                    &upstream.hash_on_header,
                    &upstream.hash_on_query_arg,
                    &upstream.hash_on_uri_capture,
                ],
            )?,
            fallback: hash_input(
                row,
                upstream,
                &upstream.hash_fallback,
                [
                    &upstream.hash_fallback_header,
                    &upstream.hash_fallback_query_arg,
                    &upstream.hash_fallback_uri_capture,
                ],
            )?,
        }),
        ("least-connections", _) => Ok(BalancePlan::LeastConnections),
        ("latency", _) => Ok(BalancePlan::Latency),
        ("sticky-sessions", _) => Ok(BalancePlan::Sticky {
            cookie: upstream
                .sticky_sessions_cookie
                .as_deref()
                .map(Arc::from)
                .ok_or_else(|| {
                    Diagnostic::error(
                        "missing-sticky-cookie",
                        subject(row),
                        "algorithm 'sticky-sessions' has no 'sticky_sessions_cookie'",
                    )
                })?,
            path: upstream
                .sticky_sessions_cookie_path
                .as_deref()
                .unwrap_or(COOKIE_PATH)
                .into(),
        }),
        (algorithm, _) => Err(Diagnostic::error(
            "unknown-algorithm",
            subject(row),
            format!("unknown algorithm '{algorithm}'"),
        )),
    }
}

/// What an input word means; `names` are those of header, query argument and capture.
fn hash_input(
    row: &Row,
    upstream: &Upstream,
    input: &str,
    names: [&Option<String>; 3],
) -> Result<HashInput, Diagnostic> {
    let [header, argument, capture] = names;
    let named = |name: &Option<String>| {
        name.as_deref().map(Arc::<str>::from).ok_or_else(|| {
            Diagnostic::error(
                "missing-hash-name",
                subject(row),
                format!("hash input '{input}' has no name"),
            )
        })
    };
    Ok(match input {
        "none" => HashInput::None,
        "consumer" => HashInput::Principal,
        "ip" => HashInput::Address,
        "path" => HashInput::Path,
        "header" => HashInput::Header(named(header)?),
        "query_arg" => HashInput::QueryArgument(named(argument)?),
        "uri_capture" => HashInput::Capture(named(capture)?),
        // One cookie serves both: a fallback of `cookie` uses the first one's name.
        "cookie" => HashInput::Cookie {
            name: named(&upstream.hash_on_cookie)?,
            path: upstream
                .hash_on_cookie_path
                .as_deref()
                .unwrap_or(COOKIE_PATH)
                .into(),
        },
        other => {
            return Err(Diagnostic::error(
                "unknown-hash-input",
                subject(row),
                format!("unknown hash input '{other}'"),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::{Value, json};

    use super::super::testing::{difference, id, put};
    use super::*;

    fn upstream(name: &str, extra: Value) -> Value {
        let mut fields = json!({
            "name": name, "algorithm": "round-robin", "hash_on": "none", "hash_fallback": "none",
            "slots": 10000, "healthchecks": {
                "active": {
                    "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/",
                    "https_verify_certificate": true,
                    "healthy": {"interval": 0, "http_statuses": [200], "successes": 0},
                    "unhealthy": {
                        "interval": 0, "http_statuses": [500], "tcp_failures": 0, "timeouts": 0,
                        "http_failures": 0,
                    },
                },
                "passive": {
                    "type": "http",
                    "healthy": {"http_statuses": [200], "successes": 0},
                    "unhealthy": {
                        "http_statuses": [500], "tcp_failures": 0, "timeouts": 0,
                        "http_failures": 0,
                    },
                },
                "threshold": 0,
            },
        });
        for (field, value) in extra.as_object().unwrap() {
            fields[field] = value.clone();
        }
        fields
    }

    fn target(upstream: &str, target: &str, weight: u32) -> Value {
        json!({"upstream": {"id": id(upstream)}, "target": target, "weight": weight})
    }

    #[test]
    fn gathers_targets() {
        let mut set = EntitySet::new();
        let fields = upstream(
            "u.test",
            json!({"host_header": "h.test", "use_srv_name": true}),
        );
        put(&mut set, EntityKind::Upstream, "u", fields);
        for (text, weight) in [
            ("a.test:80", 100),
            ("[2001:db8::1]:81", 0),
            ("192.0.2.1", 5),
        ] {
            put(
                &mut set,
                EntityKind::Target,
                text,
                target("u", text, weight),
            );
        }
        let (edits, findings) = compile_clusters(&set, &difference(&set), false);
        assert_eq!(findings, []);
        let plan = edits[&id("u")].clone().unwrap();
        let mut endpoints: Vec<_> = plan
            .endpoints
            .iter()
            .map(|endpoint| (&*endpoint.host, endpoint.port, endpoint.weight))
            .collect();
        endpoints.sort();
        let expected = [
            ("192.0.2.1", 8000, 5),
            ("2001:db8::1", 81, 0),
            ("a.test", 80, 100),
        ];
        assert_eq!(endpoints, expected);
        assert_eq!(plan.host_header.as_deref(), Some("h.test"));
        assert!(plan.use_srv_name && plan.named);

        // A target touches its upstream, and so does one that is gone.
        let gone = set.take(EntityKind::Target, id("192.0.2.1")).unwrap();
        let (edits, _) = compile_clusters(&set, &[gone], false);
        assert_eq!(edits[&id("u")].clone().unwrap().endpoints.len(), 2);
        let gone = set.take(EntityKind::Upstream, id("u")).unwrap();
        assert_eq!(compile_clusters(&set, &[gone], false).0[&id("u")], None);
    }

    #[test]
    fn follows_the_client_certificate() {
        let mut set = EntitySet::new();
        let pair = json!({"cert": "C", "key": "K"});
        let change = put(&mut set, EntityKind::Certificate, "c", pair);
        let fields = upstream("u.test", json!({"client_certificate": {"id": id("c")}}));
        put(&mut set, EntityKind::Upstream, "u", fields);
        let (edits, _) = compile_clusters(&set, &[change], false);
        let plan = edits[&id("u")].clone().unwrap();
        assert_eq!(&*plan.client_certificate.clone().unwrap().certificate, "C");
    }

    #[test]
    fn names_what_is_hashed() {
        let header = || HashInput::Header("x-user".into());
        let cookie = || HashInput::Cookie {
            name: "c".into(),
            path: "/p".into(),
        };
        let cases = [
            (
                json!({"hash_on": "consumer", "hash_fallback": "ip"}),
                HashInput::Principal,
                HashInput::Address,
            ),
            (json!({"hash_on": "path"}), HashInput::Path, HashInput::None),
            (
                json!({"hash_on": "header", "hash_on_header": "x-user"}),
                header(),
                HashInput::None,
            ),
            (
                json!({"hash_on": "cookie", "hash_on_cookie": "c", "hash_on_cookie_path": "/p"}),
                cookie(),
                HashInput::None,
            ),
            (
                json!({
                    "hash_on": "query_arg", "hash_on_query_arg": "q", "hash_fallback": "uri_capture",
                    "hash_fallback_uri_capture": "u",
                }),
                HashInput::QueryArgument("q".into()),
                HashInput::Capture("u".into()),
            ),
            (
                json!({
                    "hash_on": "ip", "hash_fallback": "header", "hash_fallback_header": "x-user",
                }),
                HashInput::Address,
                header(),
            ),
        ];
        for (mut extra, on, fallback) in cases {
            extra["algorithm"] = json!("consistent-hashing");
            extra["slots"] = json!(2000);
            let mut set = EntitySet::new();
            put(
                &mut set,
                EntityKind::Upstream,
                "u",
                upstream("u.test", extra),
            );
            let (edits, findings) = compile_clusters(&set, &difference(&set), false);
            assert_eq!(findings, []);
            let expected = BalancePlan::ConsistentHashing {
                slots: 2000,
                on,
                fallback,
            };
            assert_eq!(edits[&id("u")].clone().unwrap().balance, expected);
        }
    }

    #[test]
    fn knows_every_algorithm() {
        let sticky = BalancePlan::Sticky {
            cookie: "c".into(),
            path: "/p".into(),
        };
        let cases = [
            (json!({}), BalancePlan::RoundRobin),
            (
                json!({"algorithm": "consistent-hashing"}),
                BalancePlan::RoundRobin,
            ),
            (
                json!({"algorithm": "least-connections"}),
                BalancePlan::LeastConnections,
            ),
            (json!({"algorithm": "latency"}), BalancePlan::Latency),
            (
                json!({
                    "algorithm": "sticky-sessions", "sticky_sessions_cookie": "c",
                    "sticky_sessions_cookie_path": "/p",
                }),
                sticky,
            ),
        ];
        for (extra, expected) in cases {
            let mut set = EntitySet::new();
            let fields = upstream("u.test", extra);
            put(&mut set, EntityKind::Upstream, "u", fields);
            let (edits, findings) = compile_clusters(&set, &difference(&set), false);
            assert_eq!(findings, []);
            assert_eq!(edits[&id("u")].clone().unwrap().balance, expected);
        }
    }

    #[test]
    fn names_of_the_mesh_lead_to_rosters() {
        let tagged = json!({"tags": ["consul-connect"]});
        let cases = [
            (
                "db",
                tagged.clone(),
                vec![],
                true,
                Some(vec!["db.connect.consul"]),
            ),
            (
                "u",
                tagged.clone(),
                vec!["db:80", "web.connect.dc2.consul"],
                true,
                Some(vec!["db.connect.consul", "web.connect.dc2.consul"]),
            ),
            (
                "u",
                json!({}),
                vec!["q.query.consul:1"],
                true,
                Some(vec!["q.query.consul"]),
            ),
            (
                "u",
                json!({}),
                vec!["q.query.consul:1"],
                false,
                Some(vec![]),
            ),
            ("a.b", tagged, vec![], true, None),
        ];
        for (name, extra, targets, mesh, expected) in cases {
            let mut set = EntitySet::new();
            put(&mut set, EntityKind::Upstream, "u", upstream(name, extra));
            for text in &targets {
                put(&mut set, EntityKind::Target, text, target("u", text, 10));
            }
            let (edits, _) = compile_clusters(&set, &difference(&set), mesh);
            let rosters = edits[&id("u")].as_ref().map(|plan| {
                let rosters = plan.endpoints.iter().filter_map(|it| it.roster.as_deref());
                let mut rosters: Vec<&str> = rosters.collect();
                rosters.sort_unstable();
                rosters
            });
            assert_eq!(rosters, expected, "{name} {targets:?}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let cases = [
            (
                json!({"algorithm": "sticky-sessions"}),
                "missing-sticky-cookie",
            ),
            (
                json!({"algorithm": "consistent-hashing", "hash_on": "header"}),
                "missing-hash-name",
            ),
        ];
        for (extra, code) in cases {
            let mut set = EntitySet::new();
            put(
                &mut set,
                EntityKind::Upstream,
                "u",
                upstream("u.test", extra),
            );
            let (edits, findings) = compile_clusters(&set, &difference(&set), false);
            assert_eq!(edits[&id("u")], None);
            assert_eq!(findings[0].code, code);
        }
    }
}
