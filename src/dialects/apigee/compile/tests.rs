#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;
use crate::dialects::apigee::entities::{
    Deployment, Keystore, KeystoreAlias, Reference, RevisionFile, Stamp, TargetServer, VirtualHost,
};
use crate::dialects::apigee::program::{Program, RouteTo, Way};
use crate::model::route::PathCondition;

struct World(EntitySet);

impl World {
    fn new() -> Self {
        let mut set = EntitySet::new();
        for (name, tls) in [("default", false), ("secure", true)] {
            set.put(
                &["o", "test", name],
                &VirtualHost::built_in(name, tls, Stamp::default()),
            );
        }
        Self(set)
    }

    fn file(mut self, kind: &str, name: &str, path: &str, text: &str) -> Self {
        self.0.put(
            &["o", kind, name, "1", path],
            &RevisionFile::of(text.as_bytes()),
        );
        self
    }

    fn deploy(mut self, kind: &str, name: &str) -> Self {
        let deployment = Deployment {
            base_path: "/".to_owned(),
            retires_at_ms: None,
            stamp: Stamp::default(),
        };
        self.0.put(&["o", "test", kind, name, "1"], &deployment);
        self
    }

    fn compiled(&self) -> (Plan, Vec<String>) {
        let (plan, findings) = compile_all(&self.0, &Options::default());
        (plan, findings.iter().map(ToString::to_string).collect())
    }
}

fn programs(plan: &Plan) -> Vec<crate::dialects::apigee::program::ProxyProgram> {
    let configs = plan.pipelines.values().filter_map(|pipeline| {
        let instance = &pipeline.steps[0].base.as_ref().unwrap().instance;
        match serde_json::from_value(instance.config.clone()).unwrap() {
            Program::Proxy(program) => Some(*program),
            Program::Nothing { .. } => None,
        }
    });
    configs.collect()
}

const PROXY: &str = "<ProxyEndpoint name='default'><HTTPProxyConnection><BasePath>/weather</BasePath></HTTPProxyConnection>\
    <RouteRule name='r'><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>";

fn target(inside: &str) -> String {
    format!(
        "<TargetEndpoint name='default'><HTTPTargetConnection>{inside}</HTTPTargetConnection></TargetEndpoint>"
    )
}

#[test]
fn a_proxy_becomes_routes_a_program_and_a_forward() {
    let world = World::new()
        .file("apis", "weather", "proxies/default.xml", PROXY)
        .file(
            "apis",
            "weather",
            "targets/default.xml",
            &target("<URL>https://a.test/api</URL>"),
        )
        .deploy("apis", "weather");
    let (plan, findings) = world.compiled();
    assert_eq!(findings, [] as [&str; 0]);
    assert_eq!(plan.routes.len(), 2, "on default and secure");
    let route = plan.routes.values().next().unwrap();
    let paths = &route.matchers[0].paths;
    assert_eq!(
        *paths,
        PathCondition::Regexes(vec!["^/weather(?:/|$)".to_owned()])
    );
    let forward = plan.forwards.values().next().unwrap();
    assert_eq!((&*forward.host, forward.port), ("a.test", 443));
    assert_eq!(
        forward.tls.verify,
        Some(true),
        "verified unless Edge's ways are asked for"
    );
    let program = &programs(&plan)[0];
    assert!(!program.handling.holds_request && !program.handling.holds_response);
    assert!(
        program.handling.why[0].contains("streams"),
        "{:?}",
        program.handling.why
    );
    assert!(matches!(program.routes[0].to, RouteTo::Target(_)));
}

#[test]
fn what_is_missing_is_told_and_does_not_serve() {
    let balanced = target("<LoadBalancer><Server name='gone'/></LoadBalancer>");
    let proxy = PROXY.replace("<BasePath>", "<VirtualHost>nowhere</VirtualHost><BasePath>");
    let world = World::new()
        .file("apis", "weather", "proxies/default.xml", &proxy)
        .file("apis", "weather", "targets/default.xml", &balanced)
        .deploy("apis", "weather");
    let (plan, findings) = world.compiled();
    assert!(plan.routes.is_empty());
    for expected in [
        "has no virtual host 'nowhere'",
        "has no target server 'gone'",
    ] {
        assert!(
            findings.iter().any(|it| it.contains(expected)),
            "{expected}: {findings:#?}"
        );
    }
}

#[test]
fn target_servers_become_a_cluster() {
    let server = |host: &str| TargetServer {
        name: host.to_owned(),
        host: format!("{host}.test"),
        port: 81,
        is_enabled: true,
        tls: None,
        stamp: Stamp::default(),
    };
    let balancer = "<LoadBalancer><Algorithm>Weighted</Algorithm><Server name='a'><Weight>1</Weight></Server>\
        <Server name='b'><Weight>3</Weight><IsFallback>true</IsFallback></Server><MaxFailures>5</MaxFailures></LoadBalancer>";
    let mut world = World::new()
        .file("apis", "weather", "proxies/default.xml", PROXY)
        .file("apis", "weather", "targets/default.xml", &target(balancer))
        .deploy("apis", "weather");
    for name in ["a", "b"] {
        world.0.put(&["o", "test", name], &server(name));
    }
    let (plan, findings) = world.compiled();
    assert_eq!(findings, [] as [&str; 0]);
    let cluster = plan.clusters.values().next().unwrap();
    let endpoints: Vec<_> = cluster
        .endpoints
        .iter()
        .map(|it| (&*it.host, it.weight, it.rank))
        .collect();
    assert_eq!(endpoints, [("a.test", 1, 0), ("b.test", 3, 1)]);
    assert_eq!(cluster.health.eject_for_ms, Some(300_000));
    assert_eq!(plan.forwards.values().next().unwrap().retries, 1);
    let before = world.0.clone();
    let options = Options::default();
    let mut changed = server("a");
    changed.port = 82;
    let change = world.0.put(&["o", "test", "a"], &changed);
    let (delta, _) = compile((&before, &options), (&world.0, &options), &[change]);
    assert_eq!(delta.clusters.len(), 1);
    assert!(
        delta.routes.is_empty(),
        "routes do not change with a server"
    );
}

#[test]
fn references_lead_to_keystores() {
    let info = "<URL>https://a.test</URL><SSLInfo><Enabled>true</Enabled><ClientAuthEnabled>true</ClientAuthEnabled>\
        <KeyStore>ref://keystoreref</KeyStore><KeyAlias>k</KeyAlias></SSLInfo>";
    let mut world = World::new()
        .file("apis", "weather", "proxies/default.xml", PROXY)
        .file("apis", "weather", "targets/default.xml", &target(info))
        .deploy("apis", "weather");
    let (_, findings) = world.compiled();
    assert!(
        findings[0].contains("has no reference 'keystoreref'"),
        "{findings:?}"
    );
    let stamp = Stamp::default;
    for store in ["one", "two"] {
        world.0.put(
            &["o", "test", store],
            &Keystore {
                name: store.to_owned(),
                stamp: stamp(),
            },
        );
        let alias = KeystoreAlias {
            name: "k".to_owned(),
            certificate: format!("certificate of {store}"),
            key: Some("key".to_owned()),
            stamp: stamp(),
        };
        world.0.put(&["o", "test", store, "k"], &alias);
    }
    let shown = |world: &World| {
        let (plan, findings) = world.compiled();
        assert_eq!(findings, [] as [&str; 0]);
        let forward = plan.forwards.values().next().unwrap().clone();
        forward
            .tls
            .client_certificate
            .as_ref()
            .unwrap()
            .certificate
            .to_string()
    };
    for store in ["one", "two"] {
        let reference = Reference {
            name: "keystoreref".to_owned(),
            refers: store.to_owned(),
            resource_type: "KeyStore".to_owned(),
            description: String::new(),
            stamp: stamp(),
        };
        world.0.put(&["o", "test", "keystoreref"], &reference);
        assert_eq!(shown(&world), format!("certificate of {store}"));
    }
}

#[test]
fn shared_flows_come_along_and_must_not_call_themselves() {
    let proxy = PROXY.replace(
        "<HTTPProxyConnection>",
        "<PreFlow><Request><Step><Name>Call</Name></Step></Request></PreFlow><HTTPProxyConnection>",
    );
    let call = |to: &str| {
        format!("<FlowCallout name='Call'><SharedFlowBundle>{to}</SharedFlowBundle></FlowCallout>")
    };
    let flow = "<SharedFlow name='default'><Step><Name>Call</Name></Step></SharedFlow>";
    let world = World::new()
        .file("apis", "weather", "proxies/default.xml", &proxy)
        .file("apis", "weather", "policies/c.xml", &call("one"))
        .file(
            "apis",
            "weather",
            "targets/default.xml",
            &target("<URL>http://a.test</URL>"),
        )
        .deploy("apis", "weather");
    let (plan, findings) = world.compiled();
    assert!(
        findings[0].contains("shared flow 'one' is not deployed"),
        "{findings:?}"
    );
    assert_eq!(plan.routes.len(), 2, "a warning forbids nothing");
    let world = world
        .file("sharedflows", "one", "sharedflows/default.xml", flow)
        .file("sharedflows", "one", "policies/c.xml", &call("two"))
        .deploy("sharedflows", "one")
        .file("sharedflows", "two", "sharedflows/default.xml", flow)
        .file("sharedflows", "two", "policies/c.xml", &call("one"))
        .deploy("sharedflows", "two");
    let (plan, findings) = world.compiled();
    assert!(
        findings.iter().any(|it| it.contains("calls itself")),
        "{findings:?}"
    );
    assert!(plan.routes.is_empty());
}

#[test]
fn hosts_that_depend_on_requests_are_dynamic() {
    let world = World::new()
        .file("apis", "weather", "proxies/default.xml", PROXY)
        .file(
            "apis",
            "weather",
            "targets/default.xml",
            &target("<URL>https://{request.queryparam.host}/x</URL>"),
        )
        .deploy("apis", "weather");
    let (plan, findings) = world.compiled();
    assert_eq!(findings, [] as [&str; 0]);
    let Way::Http(way) = &programs(&plan)[0].targets["default"].way else {
        panic!("not HTTP");
    };
    assert!(way.is_dynamic);
    assert!(plan.forwards.contains_key(&way.forward));
}

#[test]
fn a_proxy_at_the_root_comes_before_the_answer_for_nobody() {
    let world = World::new()
        .file(
            "apis",
            "all",
            "proxies/default.xml",
            &PROXY.replace("/weather", "/"),
        )
        .file(
            "apis",
            "all",
            "targets/default.xml",
            &target("<URL>http://a.test</URL>"),
        )
        .deploy("apis", "all");
    let options = Options {
        is_alone: true,
        ..Options::default()
    };
    let (plan, _) = compile_all(&world.0, &options);
    let mut ranks: Vec<(bool, u64)> = plan
        .routes
        .values()
        .map(|route| {
            let name = route.name.as_deref().unwrap_or_default();
            let rank = route.matchers[0].precedence.rank;
            (name.starts_with("no proxy"), rank)
        })
        .collect();
    ranks.sort_unstable();
    ranks.dedup();
    assert_eq!(ranks, [(false, 1), (true, 0)]);
}
