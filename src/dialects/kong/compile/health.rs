//! The `healthchecks` of an upstream become a [`HealthPlan`].

use std::sync::Arc;

use crate::dialects::kong::entities::{ActiveHealthcheck, Healthchecks, PassiveHealthcheck};
use crate::model::plan::{
    HealthPlan, HttpProbePlan, ProbeKind, ProbePlan, ProbeTlsPlan, StatusPlan, Thresholds,
    TrafficPlan, UpstreamTlsPlan,
};

/// Longest chain that a probe accepts; services say theirs, probes cannot.
const VERIFY_DEPTH: u8 = 64;

/// What an upstream's health checks amount to. With all intervals and counters at zero: nothing is checked.
pub(super) fn health_plan(checks: &Healthchecks) -> HealthPlan {
    let active = &checks.active;
    let probes = active.healthy.interval > 0.0 || active.unhealthy.interval > 0.0;
    let failing = &checks.passive.unhealthy;
    let judges = failing.tcp_failures > 0 || failing.timeouts > 0 || failing.http_failures > 0;
    HealthPlan {
        probe: probes.then(|| probe(active)),
        // Successes of traffic count beside probes, too.
        traffic: (probes || judges).then(|| traffic(&checks.passive)),
        eject_for_ms: None,
        available_percent_above: checks.threshold,
    }
}

fn traffic(passive: &PassiveHealthcheck) -> TrafficPlan {
    let statuses = match &*passive.r#type {
        // Looks at connections only.
        "tcp" => StatusPlan::default(),
        _ => StatusPlan {
            good: passive.healthy.http_statuses.clone(),
            bad: passive.unhealthy.http_statuses.clone(),
            others_are_good: false,
        },
    };
    TrafficPlan {
        statuses,
        thresholds: Thresholds {
            successes: passive.healthy.successes,
            connection_failures: passive.unhealthy.tcp_failures,
            timeouts: passive.unhealthy.timeouts,
            bad_statuses: passive.unhealthy.http_failures,
            failures: 0,
        },
    }
}

fn probe(active: &ActiveHealthcheck) -> ProbePlan {
    let tls = matches!(&*active.r#type, "https" | "grpcs").then(|| ProbeTlsPlan {
        tls: UpstreamTlsPlan {
            verify: Some(active.https_verify_certificate),
            verify_depth: Some(VERIFY_DEPTH),
            ..UpstreamTlsPlan::default()
        },
        server_name: active.https_sni.as_deref().map(Arc::from),
    });
    let kind = match &*active.r#type {
        "tcp" => ProbeKind::Connect,
        "grpc" | "grpcs" => ProbeKind::Grpc { service: "".into() },
        _ => ProbeKind::Http(http(active)),
    };
    let every = |seconds: f64| (seconds > 0.0).then(|| milliseconds(seconds));
    ProbePlan {
        kind,
        timeout_ms: milliseconds(active.timeout),
        concurrency: active.concurrency,
        healthy_every_ms: every(active.healthy.interval),
        unhealthy_every_ms: every(active.unhealthy.interval),
        port: None,
        tls,
        thresholds: Thresholds {
            successes: active.healthy.successes,
            connection_failures: active.unhealthy.tcp_failures,
            timeouts: active.unhealthy.timeouts,
            bad_statuses: active.unhealthy.http_failures,
            failures: 0,
        },
    }
}

fn http(active: &ActiveHealthcheck) -> HttpProbePlan {
    let fields = active.headers.iter().flatten();
    HttpProbePlan {
        method: "GET".into(),
        path: active.http_path.as_str().into(),
        headers: fields
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.as_str().into(), value.as_str().into()))
            })
            .collect(),
        body: "".into(),
        statuses: StatusPlan {
            good: active.healthy.http_statuses.clone(),
            bad: active.unhealthy.http_statuses.clone(),
            others_are_good: false,
        },
        expected_headers: Vec::new(),
    }
}

/// At least one; the schema allows at most 65,535 seconds.
fn milliseconds(seconds: f64) -> u32 {
    ((seconds * 1000.0).round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn checks(edit: impl FnOnce(&mut Value)) -> HealthPlan {
        let mut checks = json!({
            "active": {
                "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/",
                "https_verify_certificate": true,
                "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
                "unhealthy": {
                    "interval": 0, "http_statuses": [429, 500], "tcp_failures": 0,
                    "timeouts": 0, "http_failures": 0,
                },
            },
            "passive": {
                "type": "http",
                "healthy": {"http_statuses": [200], "successes": 0},
                "unhealthy": {
                    "http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0,
                    "http_failures": 0,
                },
            },
            "threshold": 0,
        });
        edit(&mut checks);
        health_plan(&serde_json::from_value(checks).unwrap())
    }

    #[test]
    fn checks_nothing_unless_asked_to() {
        assert_eq!(checks(|_| ()), HealthPlan::default());
        assert!(!checks(|it| it["passive"]["healthy"]["successes"] = json!(3)).is_checked());
        for path in [
            "/active/healthy/interval",
            "/active/unhealthy/interval",
            "/passive/unhealthy/tcp_failures",
            "/passive/unhealthy/timeouts",
            "/passive/unhealthy/http_failures",
        ] {
            let plan = checks(|it| *it.pointer_mut(path).unwrap() = json!(1));
            assert!(plan.is_checked(), "{path}");
            assert_eq!(plan.probe.is_some(), path.contains("interval"), "{path}");
        }
    }

    #[test]
    fn says_how_to_probe() {
        let plan = checks(|it| {
            it["active"]["type"] = json!("https");
            it["active"]["https_sni"] = json!("s.test");
            it["active"]["healthy"]["interval"] = json!(0.25);
            it["active"]["unhealthy"]["tcp_failures"] = json!(2);
            it["active"]["headers"] = json!({"x-probe": ["a", "b"]});
            it["threshold"] = json!(55);
        });
        let probe = plan.probe.unwrap();
        assert_eq!(
            (probe.healthy_every_ms, probe.unhealthy_every_ms),
            (Some(250), None)
        );
        assert_eq!(probe.thresholds.connection_failures, 2);
        assert_eq!(probe.tls.unwrap().server_name.as_deref(), Some("s.test"));
        let ProbeKind::Http(http) = probe.kind else {
            panic!("not HTTP");
        };
        assert_eq!(http.headers.len(), 2);
        assert_eq!(http.statuses.bad, [429, 500]);
        assert!((plan.available_percent_above - 55.0).abs() < f64::EPSILON);
        for (word, expected) in [
            ("tcp", ProbeKind::Connect),
            ("grpc", ProbeKind::Grpc { service: "".into() }),
        ] {
            let plan = checks(|it| {
                it["active"]["type"] = json!(word);
                it["active"]["healthy"]["interval"] = json!(1);
            });
            assert_eq!(plan.probe.unwrap().kind, expected);
        }
        let plan = checks(|it| {
            it["passive"]["type"] = json!("tcp");
            it["passive"]["unhealthy"]["tcp_failures"] = json!(1);
        });
        assert_eq!(plan.traffic.unwrap().statuses, StatusPlan::default());
    }
}
