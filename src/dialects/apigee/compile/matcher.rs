//! Which requests a proxy endpoint gets: its base path on its virtual hosts.
//!
//! Among the endpoints of this dialect the longest base path wins, counted in segments, and among equals the one whose
//! first segment that differs is literal. A virtual host with names of its own wins over one that takes any. Where a
//! route of another dialect matches the same request, that one wins: its precedences are greater by construction.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::{Surroundings, id, tls};
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::entities::VirtualHost;
use crate::dialects::apigee::entities::virtual_host;
use crate::dialects::apigee::program::{ClientCertificates, PLUGIN, Program};
use crate::dialects::apigee::xml::Findings;
use crate::model::plan::{
    AuthorityPlan, Candidate, CertificatePlan, InstancePlan, PathJoining, PipelineKey,
    PipelinePlan, Plan, Protocol, ProtocolSet, RoutePlan, Scope, StepPlan,
};
use crate::model::route::{
    self, AddressPattern, HostPattern, MatcherPlan, NamePattern, PathCondition, Precedence,
};

/// Added to the rank of virtual hosts with names, and of those with a port.
const NAMED: u64 = 1 << 17;
const WITH_PORT: u64 = 1 << 16;

/// The matcher for a base path on a virtual host.
pub(super) fn matcher(host: &VirtualHost, base_path: &str, route: Uuid) -> MatcherPlan {
    let segments: Vec<&str> = base_path.split('/').filter(|it| !it.is_empty()).collect();
    let literal = segments
        .iter()
        .take(64)
        .enumerate()
        .fold(0, |mask, (at, segment)| {
            if *segment == "*" {
                mask
            } else {
                mask | 1 << (63 - at)
            }
        });
    let names = host.hosts();
    let port = own_port(host);
    // Above the answer for what no proxy wants, which has the same path as a proxy at the root.
    let mut rank = segments.len() as u64 + 1;
    if !names.is_empty() {
        rank += NAMED;
    }
    if port.is_some() {
        rank += WITH_PORT;
    }
    let protocol = match host.is_tls() {
        true => route::Protocol::Https,
        false => route::Protocol::Http,
    };
    MatcherPlan {
        precedence: Precedence {
            rank,
            detail: literal,
            id: route,
            ..Precedence::default()
        },
        protocols: route::ProtocolSet::from_iter([protocol]),
        hosts: names
            .iter()
            .map(|name| HostPattern {
                name: NamePattern::parse(name),
                port: None,
            })
            .collect(),
        paths: paths(&segments),
        destinations: port
            .map(|port| AddressPattern {
                network: None,
                port: Some(port),
            })
            .into_iter()
            .collect(),
        ..MatcherPlan::default()
    }
}

/// The two that exist from the start stand for listeners whatever their port, also after they were written to.
fn own_port(host: &VirtualHost) -> Option<u16> {
    match [virtual_host::PLAIN, virtual_host::SECURE].contains(&host.name.as_str()) {
        true => None,
        false => host.port.parse().ok(),
    }
}

/// What a virtual host demands of its clients; the authorities that it trusts become part of the plan.
pub(super) fn clients(
    surroundings: &Surroundings<'_>,
    host: &VirtualHost,
    plan: &mut Plan,
    findings: &mut Findings,
) -> Option<ClientCertificates> {
    let info = host.tls.as_ref()?;
    if !info.enabled || !info.client_auth_enabled {
        return None;
    }
    let mut demanded = ClientCertificates {
        unverified: info.ignore_validation_errors,
        server_names: host.hosts(),
        ..ClientCertificates::default()
    };
    let trusted = match &info.trust_store {
        Some(store) => tls::authorities(surroundings, store),
        None if demanded.unverified => Ok(Vec::new()),
        None => Err("ClientAuthEnabled needs a <TrustStore>".to_owned()),
    };
    match trusted {
        Err(reason) => {
            let at = SourceRef::subject(format!("virtual host \"{}\"", host.name));
            findings.error("trust-store", at, reason);
        }
        Ok(certificates) => {
            for certificate in certificates {
                let id = id(&["authority", &certificate]);
                demanded.authorities.push(id);
                let certificate = certificate.into();
                plan.authorities
                    .insert(id, Arc::new(AuthorityPlan { id, certificate }));
            }
        }
    }
    Some(demanded)
}

/// Whole segments, `*` one that is not empty.
fn paths(segments: &[&str]) -> PathCondition {
    if segments.is_empty() {
        return PathCondition::Any;
    }
    let mut pattern = String::from("^");
    for segment in segments {
        pattern.push('/');
        match *segment {
            "*" => pattern.push_str("[^/]+"),
            segment => escape(segment, &mut pattern),
        }
    }
    pattern.push_str("(?:/|$)");
    PathCondition::Regexes(vec![pattern])
}

/// Characters with a meaning in expressions stand for themselves.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        if !character.is_ascii_alphanumeric()
            && !matches!(character, '_' | '%' | '~')
            && character.is_ascii()
        {
            into.push('\\');
        }
        into.push(character);
    }
}

/// The route of an endpoint on a virtual host.
pub(super) fn route(
    name: String,
    host: &VirtualHost,
    base_path: &str,
    route: Uuid,
    pipeline: PipelineKey,
) -> RoutePlan {
    let description = json!({
        "id": route,
        "name": name,
        "paths": [base_path],
        "hosts": host.host_aliases,
    });
    RoutePlan {
        id: route,
        name: Some(name.into()),
        matchers: vec![matcher(host, base_path, route)],
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
        https_redirect_status: 426,
        strip_path: false,
        path_joining: PathJoining::Slash,
        preserve_host: false,
        request_buffering: true,
        response_buffering: true,
        forward: None,
        pipeline,
        description: description.to_string().into(),
    }
}

/// A pipeline whose one step is a program.
pub(super) fn pipeline(program: Uuid, config: serde_json::Value) -> (PipelineKey, PipelinePlan) {
    let key = PipelineKey {
        route: Some(program),
        ..PipelineKey::default()
    };
    let instance = InstancePlan {
        id: program,
        plugin: PLUGIN.into(),
        config,
        scope: Scope {
            route: Some(program),
            ..Scope::default()
        },
        protocols: ProtocolSet::of(&[Protocol::Http, Protocol::Https]),
    };
    let step = StepPlan {
        plugin: PLUGIN.into(),
        base: Some(Candidate {
            rank: 0,
            instance: Arc::new(instance),
        }),
        by_principal: Default::default(),
        by_group: Default::default(),
    };
    (key, PipelinePlan { steps: vec![step] })
}

/// Answers for requests that no proxy wants: on virtual hosts with names of their own, and everywhere when no other
/// dialect has routes.
pub(super) fn fall_back(surroundings: &Surroundings<'_>, deployed: bool, plan: &mut Plan) {
    if !deployed {
        return;
    }
    let place = [surroundings.organization, surroundings.environment];
    for (_, host) in surroundings.set.all::<VirtualHost>(&place) {
        let any_name = host.hosts().is_empty();
        if any_name && !surroundings.options.is_alone {
            continue;
        }
        let parts = [place[0], place[1], "nothing", &host.name];
        let (program, route_id) = (id(&parts), id(&[&parts.join("\0"), "route"]));
        let nothing = Program::Nothing {
            virtual_host: host.name.clone(),
        };
        let Ok(config) = serde_json::to_value(nothing) else {
            continue;
        };
        let (key, pipeline) = pipeline(program, config);
        let name = format!("no proxy on {}", host.name);
        let mut route = route(name, &host, "/", route_id, key);
        for matcher in &mut route.matchers {
            matcher.precedence.rank -= 1;
        }
        plan.pipelines.insert(key, Arc::new(pipeline));
        plan.routes.insert(route_id, Arc::new(route));
    }
}

/// Certificates of virtual hosts with keystores, shown for their names.
pub(super) fn certificates(
    surroundings: &Surroundings<'_>,
    plan: &mut Plan,
    findings: &mut Findings,
) {
    let place = [surroundings.organization, surroundings.environment];
    for (_, host) in surroundings.set.all::<VirtualHost>(&place) {
        let Some(info) = host.tls.as_ref().filter(|info| info.enabled) else {
            continue;
        };
        let (Some(store), Some(alias)) = (&info.key_store, &info.key_alias) else {
            continue;
        };
        let mut who = String::new();
        // Writing to a text cannot fail.
        let _ = write!(who, "virtual host \"{}\"", host.name);
        let at = SourceRef::subject(who);
        match tls::key_pair(surroundings, store, alias) {
            Ok(pair) => {
                let id = id(&[place[0], place[1], "certificate", &host.name]);
                let names = host.hosts();
                let certificate = CertificatePlan {
                    id,
                    pairs: vec![pair],
                    server_names: match names.is_empty() {
                        true => vec!["*".into()],
                        false => names.into_iter().map(Into::into).collect(),
                    },
                };
                plan.certificates.insert(id, Arc::new(certificate));
            }
            Err(reason) => findings.error("keystore", at, reason),
        }
    }
}

/// The virtual hosts of an endpoint; names that the environment lacks are reported.
pub(super) fn hosts(
    surroundings: &Surroundings<'_>,
    endpoint: &crate::dialects::apigee::bundle::ProxyEndpoint,
    findings: &mut Findings,
) -> Vec<VirtualHost> {
    let find = |name: &str| {
        surroundings
            .set
            .find::<VirtualHost>(&surroundings.key(name))
    };
    if endpoint.virtual_hosts.is_empty() {
        let built_in = [virtual_host::PLAIN, virtual_host::SECURE];
        return built_in.into_iter().filter_map(find).collect();
    }
    let mut hosts = Vec::new();
    for name in &endpoint.virtual_hosts {
        match find(name) {
            Some(host) => hosts.push(host),
            None => findings.error(
                "unknown-virtual-host",
                endpoint.at.clone().about("<VirtualHost>"),
                format!(
                    "the environment {} has no virtual host '{name}'",
                    surroundings.environment
                ),
            ),
        }
    }
    hosts
}
