//! Targets to forwards and clusters: where they are, how they are balanced, how long they may take.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use uuid::Uuid;

use super::{Surroundings, id, tls};
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::bundle::{
    Algorithm, Balancer, Connection, Files, HealthMonitor, HttpMonitor, HttpTarget, Monitor,
    ScriptTarget, TargetProperties, TlsInfo, split_resource,
};
use crate::dialects::apigee::entities::TargetServer;
use crate::dialects::apigee::program::{DynamicTls, HttpWay, ScriptWay, ServerName, Way};
use crate::dialects::apigee::script_files;
use crate::dialects::apigee::template::Template;
use crate::dialects::apigee::url::UrlParts;
use crate::dialects::apigee::xml::{Findings, boolean_of};
use crate::model::balance::{
    HttpProbePlan, ProbeKind, ProbePlan, ProbeTlsPlan, StatusPlan, Thresholds, TrafficPlan,
};
use crate::model::plan::{
    BalancePlan, ClusterPlan, EndpointPlan, ForwardPlan, HealthPlan, Plan, Protocol,
    UpstreamTlsPlan,
};

/// Weight of an endpoint where none is written.
const WEIGHT: u32 = 1;
/// Probes of one cluster under way at once.
const PROBES: u32 = 10;

/// What a target is compiled with.
pub(super) struct Place<'a> {
    pub(super) surroundings: &'a Surroundings<'a>,
    /// What makes its ids its own: proxy, endpoint, name.
    pub(super) parts: Vec<&'a str>,
    /// Where it is written.
    pub(super) at: &'a SourceRef,
}

impl Place<'_> {
    fn id(&self, what: &str) -> Uuid {
        let place = [
            self.surroundings.organization,
            self.surroundings.environment,
        ];
        let parts: Vec<&str> = place
            .into_iter()
            .chain(self.parts.iter().copied())
            .chain([what])
            .collect();
        id(&parts)
    }

    fn name(&self) -> String {
        self.parts.join("/")
    }
}

/// The way out of a target endpoint or callout.
pub(super) fn way(
    place: &Place<'_>,
    connection: &Connection,
    files: &Files,
    plan: &mut Plan,
    findings: &mut Findings,
) -> Option<Way> {
    match connection {
        Connection::Local(local) => Some(Way::Local(local.clone())),
        Connection::Http(target) => Some(Way::Http(Box::new(http(place, target, plan, findings)?))),
        Connection::Script(target) => {
            let way = script(place, target, files, findings)?;
            Some(Way::Script(Box::new(way)))
        }
    }
}

/// A program of the bundle, with all its files.
fn script(
    place: &Place<'_>,
    target: &ScriptTarget,
    files: &Files,
    findings: &mut Findings,
) -> Option<ScriptWay> {
    let at = || place.at.clone().about("<ScriptTarget>");
    let options = place.surroundings.options;
    if let Some(reason) = &options.node_missing {
        let message = format!("the program {} cannot run: {reason}", target.resource);
        findings.error("node", at(), message);
        return None;
    }
    let (_, main) = split_resource(&target.resource)?;
    let mut collected = match script_files::collect(files) {
        Ok(collected) => collected,
        Err(reason) => {
            findings.error("resource", at(), reason);
            return None;
        }
    };
    if !collected.contains_key(main) {
        let shared = place.surroundings.resource(files, "node", main);
        let Some(shared) = shared else {
            let message = format!(
                "there is no resource {} in the bundle, the environment or the organisation",
                target.resource
            );
            findings.error("unknown-resource", at(), message);
            return None;
        };
        collected.insert(main.to_owned(), shared.to_vec());
    }
    let encoded = collected.into_iter();
    let encoded = encoded.map(|(path, bytes)| (path, STANDARD.encode(bytes)));
    Some(ScriptWay {
        node: match options.node.as_str() {
            "" => "node".to_owned(),
            node => node.to_owned(),
        },
        main: main.to_owned(),
        files: encoded.collect(),
        environment: target.environment.clone(),
        arguments: target.arguments.clone(),
        http: HttpWay {
            url: Some("http://localhost/".to_owned()),
            path: None,
            forward: place.id("forward"),
            is_dynamic: false,
            properties: target.properties.clone(),
            tls: None,
            expected_name: None,
            servers: BTreeMap::new(),
        },
    })
}

/// A target reached over HTTP.
pub(super) fn http(
    place: &Place<'_>,
    target: &HttpTarget,
    plan: &mut Plan,
    findings: &mut Findings,
) -> Option<HttpWay> {
    let mut way = HttpWay {
        url: target.url.clone(),
        path: target.path.clone(),
        forward: place.id("forward"),
        is_dynamic: false,
        properties: target.properties.clone(),
        tls: None,
        expected_name: expected_name(target.tls.as_ref()),
        servers: BTreeMap::new(),
    };
    if let Some(balancer) = &target.balancer {
        balanced(place, target, balancer, &mut way, plan, findings);
        return Some(way);
    }
    let url = target.url.as_deref()?;
    let fixed = Template::parse(url).ok()?.fixed().map(str::to_owned);
    let info = target.tls.clone().unwrap_or_default();
    let parts = match fixed {
        Some(url) => match UrlParts::parse(&url) {
            Ok(parts) => Some(parts),
            Err(reason) => {
                findings.error("url", place.at.clone().about("<URL>"), reason);
                return None;
            }
        },
        None => None,
    };
    way.is_dynamic = parts.is_none();
    if let Some(parts) = &parts
        && let Some(enabled) = info.enabled.as_deref().and_then(boolean_of)
        && enabled != parts.secure
    {
        findings.warning(
            "no-effect",
            place.at.clone().about("<SSLInfo>"),
            format!(
                "<Enabled> has no effect against the URL's scheme {}",
                parts.scheme()
            ),
        );
    }
    if info.is_dynamic() {
        let found = tls::combinations(place.surroundings, &info, place.at, findings);
        way.tls = Some(dynamic_tls(place, target, &info, &found, plan));
        return Some(way);
    }
    let tls = tls::fixed(place.surroundings, &info, place.at, findings);
    let cluster = match &parts {
        Some(parts) => plain_cluster(place, parts),
        None => no_cluster(place.id("cluster")),
    };
    let secure = parts.as_ref().is_none_or(|parts| parts.secure);
    let host = parts.map(|parts| (parts.host, parts.port));
    let forward = forward(
        place,
        way.forward,
        &cluster,
        secure,
        host,
        &target.properties,
        tls,
    );
    insert(plan, forward, cluster);
    Some(way)
}

fn expected_name(info: Option<&TlsInfo>) -> Option<String> {
    Some(info?.common_name.as_ref()?.name.clone())
}

fn insert(plan: &mut Plan, forward: ForwardPlan, cluster: ClusterPlan) {
    plan.clusters.insert(cluster.id, Arc::new(cluster));
    plan.forwards.insert(forward.id, Arc::new(forward));
}

/// Forwards that stand for what settings with variables come to; hosts are known at run time.
fn dynamic_tls(
    place: &Place<'_>,
    target: &HttpTarget,
    info: &TlsInfo,
    found: &BTreeMap<String, Option<UpstreamTlsPlan>>,
    plan: &mut Plan,
) -> DynamicTls {
    let mut forwards = BTreeMap::new();
    for (key, tls) in found {
        let cluster = no_cluster(place.id(&format!("cluster {key}")));
        let id = place.id(&format!("forward {key}"));
        let settings = tls.clone().unwrap_or_default();
        let secure = tls.is_some();
        let forward = forward(
            place,
            id,
            &cluster,
            secure,
            None,
            &target.properties,
            settings,
        );
        insert(plan, forward, cluster);
        forwards.insert(key.clone(), id);
    }
    DynamicTls {
        info: info.clone(),
        forwards,
    }
}

fn forward(
    place: &Place<'_>,
    id: Uuid,
    cluster: &ClusterPlan,
    secure: bool,
    host: Option<(String, u16)>,
    properties: &TargetProperties,
    tls: UpstreamTlsPlan,
) -> ForwardPlan {
    let name = place.name();
    let (host, port) = host.unwrap_or_default();
    let description = json!({ "id": id, "name": name, "host": host, "port": port });
    ForwardPlan {
        id,
        name: Some(name.into()),
        protocol: if secure {
            Protocol::Https
        } else {
            Protocol::Http
        },
        cluster: cluster.id,
        host: host.into(),
        port,
        path: "/".into(),
        retries: 0,
        retry_statuses: Vec::new(),
        connect_timeout_ms: properties.connect_timeout_ms,
        read_timeout_ms: properties.io_timeout_ms,
        write_timeout_ms: properties.io_timeout_ms,
        tls,
        proxy_header: None,
        description: description.to_string().into(),
    }
}

fn endpoint(cluster: Uuid, host: &str, port: u16, weight: u32, rank: u8) -> EndpointPlan {
    EndpointPlan {
        id: Uuid::new_v5(&cluster, format!("{host}:{port}").as_bytes()),
        host: host.into(),
        port,
        weight,
        rank,
        roster: None,
    }
}

fn plain_cluster(place: &Place<'_>, url: &UrlParts) -> ClusterPlan {
    let id = place.id("cluster");
    let endpoints = vec![endpoint(id, &url.host, url.port, WEIGHT, 0)];
    ClusterPlan::plain(id, place.name(), endpoints)
}

/// For forwards whose host is known at run time only.
fn no_cluster(id: Uuid) -> ClusterPlan {
    ClusterPlan::plain(id, "known at run time", Vec::new())
}

fn balanced(
    place: &Place<'_>,
    target: &HttpTarget,
    balancer: &Balancer,
    way: &mut HttpWay,
    plan: &mut Plan,
    findings: &mut Findings,
) {
    let surroundings = place.surroundings;
    let id = place.id("cluster");
    let mut endpoints = Vec::new();
    let mut settings: Option<(bool, Option<TlsInfo>, String)> = None;
    let mut first = None;
    for server in &balancer.servers {
        let at = || {
            place
                .at
                .clone()
                .about(format!("server \"{}\"", server.name))
        };
        let Some(found) = surroundings
            .set
            .find::<TargetServer>(&surroundings.key(&server.name))
        else {
            let message = format!(
                "the environment {} has no target server '{}'",
                surroundings.environment, server.name
            );
            findings.error("unknown-target-server", at(), message);
            continue;
        };
        let own = found.tls.as_ref();
        let secure = own.is_some_and(|info| info.enabled);
        let info = own.filter(|info| info.enabled).map(tls::of_server);
        match &settings {
            None => settings = Some((secure, info, server.name.clone())),
            Some((other, other_info, name)) if *other != secure || *other_info != info => {
                let message = format!(
                    "has other <SSLInfo> than server '{name}', the servers of one balancer need the same"
                );
                findings.error("mixed-tls", at(), message);
            }
            Some(_) => {}
        }
        first.get_or_insert_with(|| (found.host.clone(), found.port));
        let rank = u8::from(server.fallback);
        let endpoint = endpoint(id, &found.host, found.port, server.weight, rank);
        let name = ServerName {
            name: server.name.clone(),
            is_fallback: server.fallback,
        };
        way.servers.insert(endpoint.id, name);
        if server.enabled && found.is_enabled {
            endpoints.push(endpoint);
        }
    }
    let (secure, info, _) = settings.unwrap_or_default();
    let info = match (secure, info) {
        (true, info) => info.or_else(|| target.tls.clone()).unwrap_or_default(),
        (false, _) => TlsInfo::default(),
    };
    way.expected_name = expected_name(Some(&info));
    if info.is_dynamic() {
        findings.error(
            "tls",
            place.at.clone().about("<SSLInfo>"),
            "of a target with a <LoadBalancer> must not hold variables",
        );
    }
    let settings = tls::fixed(surroundings, &info, place.at, findings);
    let count = endpoints.len();
    let cluster = ClusterPlan {
        balance: match balancer.algorithm {
            Algorithm::RoundRobin | Algorithm::Weighted => BalancePlan::RoundRobin,
            Algorithm::LeastConnections => BalancePlan::LeastConnections,
        },
        health: health(balancer, target.monitor.as_ref(), secure, &settings),
        named: true,
        ..ClusterPlan::plain(id, place.name(), endpoints)
    };
    let mut forward = forward(
        place,
        way.forward,
        &cluster,
        secure,
        first,
        &target.properties,
        settings,
    );
    if balancer.retry && count > 1 {
        forward.retries = u16::try_from(count - 1).unwrap_or(u16::MAX);
    }
    insert(plan, forward, cluster);
}

/// Failures in a row put a server out; a monitor or time brings it back.
fn health(
    balancer: &Balancer,
    monitor: Option<&HealthMonitor>,
    secure: bool,
    tls: &UpstreamTlsPlan,
) -> HealthPlan {
    if balancer.max_failures == 0 {
        return HealthPlan::default();
    }
    let thresholds = Thresholds {
        successes: 1,
        failures: u16::try_from(balancer.max_failures).unwrap_or(u16::MAX),
        ..Thresholds::default()
    };
    HealthPlan {
        traffic: Some(TrafficPlan {
            statuses: StatusPlan {
                good: Vec::new(),
                bad: balancer.unhealthy_codes.clone(),
                others_are_good: true,
            },
            thresholds,
        }),
        eject_for_ms: match monitor {
            None => Some(u64::from(balancer.disable_seconds) * 1_000),
            Some(_) => None,
        },
        probe: monitor.map(|monitor| probe(monitor, thresholds, secure, tls)),
        ..HealthPlan::default()
    }
}

fn probe(
    monitor: &HealthMonitor,
    thresholds: Thresholds,
    secure: bool,
    tls: &UpstreamTlsPlan,
) -> ProbePlan {
    let every = Some(monitor.interval_seconds.saturating_mul(1_000));
    let mut plan = ProbePlan {
        kind: ProbeKind::Connect,
        timeout_ms: 0,
        concurrency: PROBES,
        healthy_every_ms: every,
        unhealthy_every_ms: every,
        port: None,
        tls: None,
        thresholds,
    };
    match &monitor.monitor {
        Monitor::Tcp {
            connect_timeout_seconds,
            port,
        } => {
            plan.timeout_ms = connect_timeout_seconds.saturating_mul(1_000);
            plan.port = *port;
        }
        Monitor::Http(http) => {
            let seconds = http
                .connect_timeout_seconds
                .saturating_add(http.read_timeout_seconds);
            plan.timeout_ms = seconds.saturating_mul(1_000);
            plan.port = http.port;
            plan.kind = ProbeKind::Http(http_probe(http));
            if http.tls.unwrap_or(secure) {
                let mut settings = match http.uses_server_tls {
                    true => tls.clone(),
                    false => UpstreamTlsPlan {
                        verify: Some(true),
                        ..UpstreamTlsPlan::default()
                    },
                };
                if http.trusts_all {
                    settings.verify = Some(false);
                }
                plan.tls = Some(ProbeTlsPlan {
                    tls: settings,
                    server_name: None,
                });
            }
        }
    }
    plan
}

fn http_probe(http: &HttpMonitor) -> HttpProbePlan {
    let pairs = |list: &[(String, String)]| {
        list.iter()
            .map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())))
            .collect()
    };
    let good = match http.success_codes.is_empty() {
        true => vec![200],
        false => http.success_codes.clone(),
    };
    let bad = (100..600).filter(|status| !good.contains(status)).collect();
    HttpProbePlan {
        method: http.verb.as_str().into(),
        path: http.path.as_str().into(),
        headers: pairs(&http.headers),
        body: http.payload.as_deref().unwrap_or_default().into(),
        statuses: StatusPlan {
            good,
            bad,
            others_are_good: false,
        },
        expected_headers: pairs(&http.success_headers),
    }
}
