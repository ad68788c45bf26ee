//! What a configuration costs: loading a document, compiling it, linking it, and one change among many routes.
//!
//! The last one is promised: with 100,000 routes an Admin API write serves within 100 ms. Besides compile and link it
//! pays one commit to the store, which the disk decides.
#![allow(clippy::unwrap_used, missing_docs, reason = "benches")]

use std::collections::BTreeMap;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sallyport::dialects::kong::compile::serving::{ServingFiles, compile_serving};
use sallyport::dialects::kong::compile::{Options, compile, compile_all};
use sallyport::dialects::kong::declarative::{Document, load};
use sallyport::dialects::kong::entities::{EntityKind, RouterFlavor, WriteContext};
use sallyport::dialects::kong::entity_set::{EntitySet, RowKey};
use sallyport::model::catalog::Catalog;
use sallyport::model::plan::{Plan, PlanDelta};
use sallyport::plugins;
use sallyport::plugins::kong::renderer::{ErrorTemplates, KongRenderer};
use sallyport::runtime::certificates::CertificateTable;
use sallyport::runtime::client::{Client, ClientOptions};
use sallyport::runtime::link::{Linker, LinkerParts};
use sallyport::runtime::live::Live;
use sallyport::runtime::pipeline::Pipeline;
use sallyport::runtime::resolver::{Resolver, ResolverOptions};
use sallyport::runtime::router::Router;
use sallyport::runtime::serving::Serving;
use sallyport::runtime::slots::Slots;
use sallyport::runtime::snapshot::Snapshot;
use sallyport::settings::Settings;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const OPTIONS: Options = Options {
    mesh: false,
    flavor: RouterFlavor::TraditionalCompatible,
};
const ROUTES_PER_SERVICE: usize = 10;

/// A document with this many routes, each with a host and a path of its own, and a rate limit at every service.
fn document(routes: usize) -> Document {
    let route = |number: usize| {
        json!({
            "name": format!("route-{number}"),
            "hosts": [format!("host-{number}.test")],
            "paths": [format!("/path-{number}")],
        })
    };
    let service = |number: usize| {
        let first = number * ROUTES_PER_SERVICE;
        let routes: Vec<Value> = (first..first + ROUTES_PER_SERVICE).map(route).collect();
        json!({
            "name": format!("service-{number}"),
            "host": format!("10.{}.{}.1", number / 256 % 256, number % 256),
            "routes": routes,
            "plugins": [{"name": "rate-limiting", "config": {"minute": 5, "policy": "local"}}],
        })
    };
    let services: Vec<Value> = (0..routes / ROUTES_PER_SERVICE).map(service).collect();
    let mut root = Map::new();
    root.insert("_format_version".into(), "3.0".into());
    root.insert("services".into(), services.into());
    Document::from_tree(root)
}

fn with_context<T>(catalog: &Catalog, run: impl FnOnce(&mut WriteContext<'_>) -> T) -> T {
    let mut new_id = Uuid::new_v4;
    run(&mut WriteContext {
        now_millis: 1_700_000_000_000,
        flavor: OPTIONS.flavor,
        catalog,
        new_id: &mut new_id,
        already_transformed: false,
    })
}

fn entities(catalog: &Catalog, routes: usize) -> EntitySet {
    with_context(catalog, |context| {
        let loaded = load(document(routes), context, &mut |_, _| {});
        loaded.unwrap().entities
    })
}

/// A linker with nothing linked.
fn linker(runtime: &tokio::runtime::Runtime) -> Linker {
    let (settings, _) = Settings::parse(None, &[]).unwrap();
    let serving = compile_serving(&settings, &ServingFiles::default(), "bench/0");
    let renderer = KongRenderer::new(ErrorTemplates::default(), "text/plain", "default");
    let resolver = Resolver::start(ResolverOptions::default(), runtime.handle()).unwrap();
    Linker::new(LinkerParts {
        live: Arc::new(Live::default()),
        client: Client::new(Arc::clone(&resolver), ClientOptions::default()),
        resolver,
        plugins: plugins::table(),
        prefix: std::env::temp_dir(),
        snapshot: Snapshot {
            revision: 0,
            router: Router::default(),
            stream_router: Router::default(),
            passthrough_router: Router::default(),
            global_stream_pipeline: Arc::default(),
            routes: Slots::default(),
            global_pipeline: Arc::new(Pipeline::default()),
            directory: Default::default(),
            certificates: CertificateTable::new(None),
            authorities: Default::default(),
            certificate_requests: Default::default(),
            clusters: imbl::OrdMap::new(),
            forwards: Default::default(),
            serving: Arc::new(Serving::link(serving).unwrap()),
            renderer: Arc::new(renderer),
        },
    })
}

/// The delta that makes a plan from nothing.
fn whole(plan: &Plan) -> PlanDelta {
    fn all<K: Ord + Clone, V: Clone>(parts: &BTreeMap<K, V>) -> BTreeMap<K, Option<V>> {
        let parts = parts.iter();
        parts
            .map(|(key, part)| (key.clone(), Some(part.clone())))
            .collect()
    }
    PlanDelta {
        routes: all(&plan.routes),
        forwards: all(&plan.forwards),
        clusters: all(&plan.clusters),
        pipelines: all(&plan.pipelines),
        principals: all(&plan.principals),
        credentials: all(&plan.credentials),
        certificates: all(&plan.certificates),
        authorities: all(&plan.authorities),
    }
}

fn benches(criterion: &mut Criterion) {
    let catalog = plugins::catalog();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(10);
    group.bench_function("load/1k", |bencher| {
        let load = |document| {
            with_context(&catalog, |context| {
                load(document, context, &mut |_, _| {}).unwrap()
            })
        };
        bencher.iter_batched(|| document(1_000), load, BatchSize::PerIteration);
    });
    for (name, routes) in [("1k", 1_000), ("100k", 100_000)] {
        let mut set = entities(&catalog, routes);
        group.bench_function(format!("compile/{name}"), |bencher| {
            bencher.iter(|| compile_all(&set, &catalog, &OPTIONS));
        });
        let (plan, _) = compile_all(&set, &catalog, &OPTIONS);
        let everything = whole(&plan);
        group.bench_function(format!("link/{name}"), |bencher| {
            bencher.iter_batched(
                || linker(&runtime),
                |mut linker| linker.apply(&everything, 1),
                BatchSize::PerIteration,
            );
        });
        let mut linker = linker(&runtime);
        let mut serving = linker.apply(&everything, 1);
        let key = RowKey::Name("route-7".to_owned());
        let mut revision = 1;
        group.bench_function(format!("one change/{name}"), |bencher| {
            bencher.iter(|| {
                revision += 1;
                let mut after = set.clone();
                let mut fields = Map::new();
                fields.insert("paths".into(), json!([format!("/changed-{revision}")]));
                let written = with_context(&catalog, |context| {
                    after.patch(EntityKind::Route, &key, None, fields, context)
                });
                let changes = written.unwrap().changes;
                let (delta, _) = compile(&set, &after, &changes, &catalog, &OPTIONS);
                // The snapshot before goes on serving meanwhile, so what it shares is copied.
                serving = linker.apply(&delta, revision);
                set = after;
            });
        });
        drop(serving);
    }
    group.finish();
}

criterion_group!(configuration, benches);
criterion_main!(configuration);
