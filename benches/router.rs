//! What routing costs: a lookup at 10, 1,000 and 100,000 routes, one changed route, a whole build.
//!
//! Run with `cargo bench --bench router`; the kinds of table are explained at [`Kind`].

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use sallyport::model::route::{HostPattern, MatcherPlan, PathCondition, Precedence, Protocol};
use sallyport::runtime::router::{MatchInput, Router};
use uuid::Uuid;

const SIZES: [u32; 3] = [10, 1_000, 100_000];
/// Requests that a lookup benchmark goes through, so that it does not measure one route in the processor's cache.
const REQUESTS: u32 = 16_384;

/// What tells the routes of a table apart.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A host each.
    Hosts,
    /// A path each, below one prefix, for any host.
    Paths,
    /// Ten paths for each host; every tenth route has a wildcard host, every tenth a regex path, every tenth methods.
    Mixed,
}

const KINDS: [Kind; 3] = [Kind::Hosts, Kind::Paths, Kind::Mixed];

impl Kind {
    fn host(self, number: u32) -> String {
        match self {
            Self::Hosts => format!("host-{number}.example.com"),
            Self::Paths => "any.example.com".to_owned(),
            Self::Mixed => format!("host-{}.example.com", number / 10),
        }
    }

    fn path(self, number: u32) -> String {
        match self {
            Self::Hosts => "/".to_owned(),
            Self::Paths | Self::Mixed => format!("/service/{number}"),
        }
    }

    fn plan(self, number: u32) -> MatcherPlan {
        let host = || vec![HostPattern::parse(&self.host(number))];
        let path = || PathCondition::Prefixes(vec![self.path(number)]);
        let mut plan = MatcherPlan {
            precedence: Precedence {
                id: Uuid::from_u128(u128::from(number)),
                ..Precedence::default()
            },
            ..MatcherPlan::default()
        };
        match self {
            Self::Hosts => plan.hosts = host(),
            Self::Paths => plan.paths = path(),
            Self::Mixed => {
                plan.hosts = host();
                plan.paths = path();
                match number % 10 {
                    0 => plan.hosts = vec![HostPattern::parse(&format!("*.zone-{number}.test"))],
                    1 => {
                        let regex = format!(r"^/service/{number}/(?<id>\d+)");
                        plan.paths = PathCondition::Regexes(vec![regex]);
                    }
                    2 => plan.methods = vec!["GET".to_owned(), "POST".to_owned()],
                    _ => {}
                }
            }
        }
        plan
    }
}

fn plans(kind: Kind, size: u32) -> Vec<[MatcherPlan; 1]> {
    (0..size).map(|number| [kind.plan(number)]).collect()
}

fn build(plans: &[[MatcherPlan; 1]]) -> Router {
    let (router, errors) = Router::build((0..).zip(plans.iter().map(<[_; 1]>::as_slice)));
    assert!(errors.is_empty(), "{errors:?}");
    router
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    let mut headers = HeaderMap::new();
    for name in ["accept", "user-agent", "x-request-id", "cookie"] {
        headers.insert(name, http::HeaderValue::from_static("value"));
    }
    for kind in KINDS {
        for size in SIZES {
            let router = build(&plans(kind, size));
            // A multiplication by an odd number visits the routes in no order that a processor would guess.
            let requests: Vec<(String, String)> = (0..REQUESTS)
                .map(|number| number.wrapping_mul(2_654_435_761) % size)
                .map(|number| (kind.host(number), format!("{}/42/items", kind.path(number))))
                .collect();
            let mut next = requests.iter().cycle();
            group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |bencher| {
                bencher.iter(|| {
                    let (host, path) = next.next()?;
                    let input = MatchInput {
                        protocol: Protocol::Http,
                        method: "GET",
                        host,
                        path: path.as_bytes(),
                        query: b"",
                        headers: (&headers).into(),
                        header_count_max: 100,
                        query_count_max: 100,
                        sni: None,
                        source: None,
                        destination: None,
                        listening_port: 8000,
                        entrance: None,
                    };
                    black_box(router.find(black_box(&input)))
                });
            });
        }
    }
    group.finish();
}

/// One route of a table that a snapshot still uses is replaced, as the builder does it.
fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change one route");
    for kind in KINDS {
        for size in SIZES {
            let plans = plans(kind, size);
            let router = build(&plans);
            let mut numbers = (0..REQUESTS)
                .map(|number| number.wrapping_mul(2_654_435_761) % size)
                .cycle();
            group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |bencher| {
                bencher.iter(|| {
                    let number = numbers.next()?;
                    let plan = plans.get(usize::try_from(number).ok()?)?;
                    let mut changed = router.clone();
                    changed.replace(number, plan).ok()?;
                    Some(changed)
                });
            });
        }
    }
    group.finish();
}

fn whole_build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    for kind in KINDS {
        for size in [1_000, 100_000] {
            let plans = plans(kind, size);
            group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |bencher| {
                bencher.iter_batched(|| (), |()| build(&plans), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup, change, whole_build);
criterion_main!(benches);
