//! What a request pays for plugins: the access phase, the response's head and the log phase of pipelines with 0, 1, 3 and 5
//! plugins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "benches"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::{Value, json};
use uuid::Uuid;

use sallyport::base::secret::Secret;
use sallyport::model::plan::{
    CredentialPlan, InstancePlan, PathJoining, PipelineKey, PrincipalPlan, Protocol, ProtocolSet,
    RoutePlan, Scope,
};
use sallyport::model::serving::{
    AccessLogFormat, ClientAddressPlan, GatewayHeadersPlan, ServingPlan, UpstreamPoolPlan,
};
use sallyport::plugins;
use sallyport::plugins::kong::renderer::{ErrorTemplates, KongRenderer};
use sallyport::runtime::certificates::CertificateTable;
use sallyport::runtime::client::{Client, ClientOptions};
use sallyport::runtime::connection::Connection;
use sallyport::runtime::contract::{Flow, LinkContext, Phases};
use sallyport::runtime::directory::Directory;
use sallyport::runtime::exchange::Exchange;
use sallyport::runtime::live::Live;
use sallyport::runtime::pipeline::{Instance, Pipeline, Ranked, Step};
use sallyport::runtime::resolver::{Resolver, ResolverOptions};
use sallyport::runtime::router::Router;
use sallyport::runtime::serving::Serving;
use sallyport::runtime::slots::Slots;
use sallyport::runtime::snapshot::{Credential, Principal, Route, Snapshot};

/// The allocator of the program: most of what header edits cost is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plugins in running order, each set a start of the next.
const SETS: &[(&str, &[&str])] = &[
    ("0 plugins", &[]),
    ("1 plugin", &["correlation-id"]),
    (
        "3 plugins",
        &["correlation-id", "key-auth", "rate-limiting"],
    ),
    (
        "5 plugins",
        &[
            "correlation-id",
            "cors",
            "key-auth",
            "rate-limiting",
            "prometheus",
        ],
    ),
];

fn config(plugin: &str) -> Value {
    match plugin {
        "rate-limiting" => json!({"minute": 1_000_000_000}),
        "prometheus" => {
            json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true})
        }
        _ => json!({}),
    }
}

fn pipeline(live: &Arc<Live>, names: &[&str]) -> Pipeline {
    let table = plugins::table();
    let mut pipeline = Pipeline::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let resolver = Resolver::start(ResolverOptions::default(), runtime.handle()).unwrap();
    let client = Client::new(Arc::clone(&resolver), ClientOptions::default());
    let serving = serving();
    for name in names {
        let entry = table.iter().find(|entry| entry.info.name == *name).unwrap();
        let Value::Object(config) = config(name) else {
            unreachable!("configurations are objects");
        };
        let plan = Arc::new(InstancePlan {
            id: Uuid::new_v4(),
            plugin: (*name).into(),
            config: Value::Object(entry.info.config.fill(config)),
            scope: Scope::default(),
            protocols: ProtocolSet::default(),
        });
        let context = LinkContext {
            live,
            resolver: &resolver,
            prefix: Path::new("."),
            client: &client,
            serving: &serving,
        };
        let plugin = (entry.link)(&plan, &context).unwrap();
        let instance = Arc::new(Instance {
            phases: plugin.phases(),
            needs: plugin.needs(),
            plugin,
            plan,
        });
        pipeline.phases = pipeline.phases.with(instance.phases);
        pipeline.steps.push(Step {
            base: Some(Ranked { rank: 12, instance }),
            by_principal: Default::default(),
            by_group: Default::default(),
        });
    }
    pipeline
}

fn serving() -> Arc<Serving> {
    let serving = ServingPlan {
        trusted: Vec::new(),
        client_address: ClientAddressPlan {
            header: "x-real-ip".into(),
            recursive: false,
        },
        request_headers_max: 100,
        response_headers_max: 100,
        query_arguments_max: 100,
        request_body_bytes_max: 0,
        held_body_bytes_max: 1 << 20,
        client_idle_seconds: 65,
        tunnel_idle_seconds: None,
        client_head_ms: 10_000,
        client_body_bytes_per_second: 0,
        listener_connections_max: 0,
        address_connections_max: 0,
        client_requests_max: 10_000,
        retry_percent: 20,
        upstream_pool: UpstreamPoolPlan {
            idle_per_peer_max: 512,
            requests_max: 10_000,
            idle_seconds: 60,
        },
        headers: GatewayHeadersPlan::default(),
        error_type: "text/plain".into(),
        trust_anchors: "".into(),
        client_certificate: None,
        port_map: Vec::new(),
        access_log: AccessLogFormat::Combined,
    };
    Arc::new(Serving::link(serving).unwrap())
}

fn snapshot() -> Arc<Snapshot> {
    let principal = Uuid::new_v4();
    let mut directory = Directory::default();
    directory.put_principal(Arc::new(Principal::new(Arc::new(PrincipalPlan {
        id: principal,
        username: Some("alice".into()),
        custom_id: None,
        groups: Vec::new(),
        acl_groups: Vec::new(),
        description: "{}".into(),
    }))));
    directory.put_credential(Arc::new(Credential::new(Arc::new(CredentialPlan {
        id: Uuid::new_v4(),
        kind: "key-auth".into(),
        key: Secret::new("key-of-alice"),
        principal,
        secret: None,
        expires_at: None,
    }))));
    Arc::new(Snapshot {
        revision: 1,
        router: Router::default(),
        stream_router: Router::default(),
        passthrough_router: Router::default(),
        global_stream_pipeline: Arc::default(),
        routes: Slots::default(),
        global_pipeline: Arc::default(),
        directory,
        certificates: CertificateTable::new(None),
        authorities: Default::default(),
        certificate_requests: Default::default(),
        clusters: Default::default(),
        forwards: Default::default(),
        serving: serving(),
        renderer: Arc::new(KongRenderer::new(
            ErrorTemplates::default(),
            "text/plain",
            "w",
        )),
    })
}

fn route(pipeline: Pipeline) -> Arc<Route> {
    Arc::new(Route {
        plan: Arc::new(RoutePlan {
            id: Uuid::new_v4(),
            name: Some("route".into()),
            matchers: Vec::new(),
            protocols: ProtocolSet::of(&[Protocol::Http]),
            https_redirect_status: 426,
            strip_path: true,
            path_joining: PathJoining::Slash,
            preserve_host: false,
            request_buffering: true,
            response_buffering: true,
            forward: None,
            pipeline: PipelineKey::default(),
            description: "{}".into(),
        }),
        pipeline: Arc::new(pipeline),
        forward: None,
    })
}

/// The phases as the engine runs them; answers with what it used, so that freeing it is not measured.
fn run(mut exchange: Exchange, mut head: ResponseHeader) -> (Exchange, ResponseHeader) {
    let Some(route) = exchange.route.clone() else {
        return (exchange, head);
    };
    for step in &route.pipeline.steps {
        let Some(instance) = step.choose(&exchange.identity) else {
            continue;
        };
        if instance.phases.has(Phases::ACCESS) {
            let flow = instance.plugin.access(&mut exchange);
            assert!(matches!(flow, Flow::Continue));
        }
        exchange.chosen.push(instance.clone());
    }
    // The engine writes these straight to the wire.
    std::hint::black_box(std::mem::take(&mut exchange.response_fields));
    let chosen = exchange.chosen.clone();
    for instance in &chosen {
        if instance.phases.has(Phases::HEADER_FILTER) {
            instance.plugin.header_filter(&mut exchange, &mut head);
        }
    }
    exchange.status = 200;
    for instance in &chosen {
        if instance.phases.has(Phases::LOG) {
            instance.plugin.log(&exchange);
        }
    }
    (exchange, head)
}

fn pipelines(criterion: &mut Criterion) {
    let live = Arc::new(Live::default());
    let snapshot = snapshot();
    let connection = Arc::new(Connection::new(
        "192.0.2.1:40000".parse().unwrap(),
        "192.0.2.9:8000".parse().unwrap(),
        8000,
        false,
    ));
    let mut group = criterion.benchmark_group("pipeline");
    for (name, plugins) in SETS {
        let route = route(pipeline(&live, plugins));
        let message = || {
            let mut request = RequestHeader::build("GET", b"/path?query=1", None).unwrap();
            request.insert_header("Host", "gateway.test").unwrap();
            request.insert_header("User-Agent", "bench").unwrap();
            request.insert_header("Accept", "*/*").unwrap();
            request.insert_header("apikey", "key-of-alice").unwrap();
            let mut exchange = Exchange::new(
                snapshot.clone(),
                connection.clone(),
                request.into(),
                Instant::now(),
            );
            exchange.route = Some(route.clone());
            (exchange, ResponseHeader::build(200, None).unwrap())
        };
        group.bench_function(*name, |bencher| {
            bencher.iter_batched(
                message,
                |(exchange, head)| black_box(run(exchange, head)),
                // Few at a time: thousands of exchanges at once would measure cache misses that no request pays.
                BatchSize::NumIterations(32),
            );
        });
    }
    group.finish();
}

criterion_group!(benches, pipelines);
criterion_main!(benches);
