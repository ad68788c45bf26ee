#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::dialects::kong::entities::{EntityKind, WriteContext};
use crate::dialects::kong::entity_set::RowKey;
use crate::model::catalog::PluginInfo;
use crate::model::schema::{Record, integer};

const OPTIONS: Options = Options {
    flavor: RouterFlavor::TraditionalCompatible,
    mesh: false,
};

fn catalog() -> Catalog {
    let limits = Record::new(vec![integer().named("minute")]);
    Catalog::new([
        PluginInfo::new("rate-limiting", 910, limits.clone()),
        PluginInfo::new("key-auth", 1250, limits),
    ])
}

/// A write like one of the Admin API.
#[derive(Debug, Clone)]
enum Operation {
    Put(EntityKind, &'static str, Value),
    Patch(EntityKind, &'static str, Value),
    Delete(EntityKind, &'static str),
}

use EntityKind::*;
use Operation::*;

fn id_of(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

fn link(name: &str) -> Value {
    json!({ "id": id_of(name) })
}

/// Runs a write; a refused one changes nothing.
fn run(set: &mut EntitySet, catalog: &Catalog, operation: &Operation) -> bool {
    let mut next = 0;
    let mut new_id = || {
        next += 1;
        Uuid::from_u128(next)
    };
    let mut context = WriteContext {
        now_millis: 1_700_000_000_000,
        flavor: OPTIONS.flavor,
        catalog,
        new_id: &mut new_id,
        already_transformed: false,
    };
    let fields = |value: &Value| -> Map<String, Value> { value.as_object().unwrap().clone() };
    let mut trial = set.clone();
    let done = match operation {
        Put(kind, name, value) if set.row(*kind, id_of(name)).is_none() => {
            let mut fields = fields(value);
            fields.insert("id".into(), json!(id_of(name)));
            trial.create(*kind, fields, &mut context).map(|_| ())
        }
        Put(kind, name, value) => {
            let key = RowKey::Id(id_of(name));
            let written = trial.upsert(*kind, &key, None, fields(value), &mut context);
            written.map(|_| ())
        }
        Patch(kind, name, value) => {
            let key = RowKey::Id(id_of(name));
            let written = trial.patch(*kind, &key, None, fields(value), &mut context);
            written.map(|_| ())
        }
        Delete(kind, name) => trial
            .delete(*kind, &RowKey::Id(id_of(name)), None)
            .map(|_| ()),
    };
    if done.is_ok() {
        *set = trial;
    }
    done.is_ok()
}

/// Writes that reach every rule of the table in `changes`.
fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for (service, hosts) in [
        ("s1", ["plain.test", "pool.test"]),
        ("s2", ["other.test", "pool.test"]),
    ] {
        for host in hosts {
            all.push(Put(
                Service,
                service,
                json!({"name": service, "host": host}),
            ));
        }
        all.push(Patch(Service, service, json!({"enabled": false})));
        all.push(Patch(Service, service, json!({"enabled": true})));
        all.push(Patch(
            Service,
            service,
            json!({"ca_certificates": null, "retries": 1}),
        ));
        all.push(Delete(Service, service));
    }
    for (route, path) in [("r1", "/a"), ("r2", "/b"), ("r3", "/c")] {
        for service in [json!(null), link("s1"), link("s2")] {
            all.push(Put(
                Route,
                route,
                json!({"paths": [path], "service": service}),
            ));
        }
        all.push(Delete(Route, route));
    }
    for (upstream, names) in [
        ("u1", ["pool.test", "spare.test"]),
        ("u2", ["spare.test", "plain.test"]),
    ] {
        for name in names {
            all.push(Put(Upstream, upstream, json!({"name": name})));
        }
        let hashing = json!({"algorithm": "consistent-hashing", "hash_on": "ip"});
        all.push(Patch(Upstream, upstream, hashing));
        all.push(Delete(Upstream, upstream));
    }
    for (target, address) in [("t1", "10.0.0.1:80"), ("t2", "pool-member.test")] {
        for upstream in ["u1", "u2"] {
            all.push(Put(
                Target,
                target,
                json!({"target": address, "upstream": link(upstream)}),
            ));
            all.push(Delete(Target, target));
        }
    }
    for (plugin, scope) in [
        ("p1", json!({})),
        ("p2", json!({"service": link("s1")})),
        ("p3", json!({"route": link("r1")})),
        ("p4", json!({"consumer": link("c1"), "route": link("r1")})),
        ("p5", json!({"consumer_group": link("g1")})),
        ("p6", json!({"route": link("r2"), "service": link("s2")})),
    ] {
        for (name, minute) in [("rate-limiting", 1), ("key-auth", 2)] {
            let mut fields = scope.clone();
            fields["name"] = json!(name);
            fields["config"] = json!({"minute": minute});
            all.push(Put(Plugin, plugin, fields));
        }
        all.push(Patch(Plugin, plugin, json!({"enabled": false})));
        all.push(Delete(Plugin, plugin));
    }
    for (consumer, name) in [("c1", "alice"), ("c2", "bob")] {
        all.push(Put(Consumer, consumer, json!({"username": name})));
        all.push(Delete(Consumer, consumer));
    }
    all.push(Put(ConsumerGroup, "g1", json!({"name": "gold"})));
    all.push(Put(ConsumerGroup, "g1", json!({"name": "silver"})));
    all.push(Delete(ConsumerGroup, "g1"));
    let member = json!({"consumer": link("c1"), "consumer_group": link("g1")});
    all.push(Put(ConsumerGroupMember, "m1", member));
    all.push(Delete(ConsumerGroupMember, "m1"));
    all.push(Put(
        Acl,
        "a1",
        json!({"group": "x", "consumer": link("c1")}),
    ));
    all.push(Delete(Acl, "a1"));
    all.push(Put(
        KeyAuthCredential,
        "k1",
        json!({"key": "one", "consumer": link("c1")}),
    ));
    all.push(Put(
        KeyAuthCredential,
        "k1",
        json!({"key": "two", "consumer": link("c2")}),
    ));
    all.push(Delete(KeyAuthCredential, "k1"));
    all
}

/// Certificates take too long to make in every case of a property; theirs are added where a test needs them.
fn certificate_operations() -> Vec<Operation> {
    let pairs = crate::base::self_signed::default_pairs(1_700_000_000).unwrap();
    let mut all = Vec::new();
    for pair in &pairs {
        let fields = json!({"cert": pair.certificate, "key": pair.key});
        all.push(Put(Certificate, "cert1", fields));
    }
    all.push(Put(
        Sni,
        "n1",
        json!({"name": "a.test", "certificate": link("cert1")}),
    ));
    let service =
        json!({"host": "x.test", "protocol": "https", "client_certificate": link("cert1")});
    all.push(Put(Service, "s9", service));
    let upstream = json!({"name": "x.test", "client_certificate": link("cert1")});
    all.push(Put(Upstream, "u9", upstream));
    let fields = json!({"cert": pairs[1].certificate, "key": pairs[1].key});
    all.push(Patch(Certificate, "cert1", fields));
    all.push(Patch(Sni, "n1", json!({"name": "b.test"})));
    all.push(Delete(Upstream, "u9"));
    all.push(Delete(Service, "s9"));
    all.push(Delete(Certificate, "cert1"));
    all
}

/// Compiles step by step, `batch` writes to a step, and compares with a whole compile after each.
fn check(operations: &[Operation], batch: usize) -> usize {
    let catalog = catalog();
    let mut built = EntitySet::new();
    let (mut plan, _) = compile_all(&built, &catalog, &OPTIONS);
    let mut set = built.clone();
    let mut done = 0;
    for operations in operations.chunks(batch) {
        for operation in operations {
            done += usize::from(run(&mut set, &catalog, operation));
        }
        let changes = EntitySet::difference(&built, &set);
        let (delta, _) = compile(&built, &set, &changes, &catalog, &OPTIONS);
        plan.apply(&delta);
        let (whole, _) = compile_all(&set, &catalog, &OPTIONS);
        assert_eq!(plan, whole, "after {operations:#?}");
        built = set.clone();
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn deltas_add_up_to_a_whole_compile(
        chosen in prop::collection::vec(prop::sample::select(operations()), 1..80),
        batch in 1_usize..6,
    ) {
        check(&chosen, batch);
    }
}

#[test]
fn every_operation_in_turn() {
    let all = operations();
    assert!(check(&all, 1) > all.len() / 2);
    check(&all, 7);
}

#[test]
fn certificates_reach_whoever_shows_them() {
    let all = certificate_operations();
    assert_eq!(check(&all, 1), all.len());
}

fn built(operations: &[Operation]) -> (Plan, Vec<Diagnostic>) {
    let mut set = EntitySet::new();
    let catalog = catalog();
    for operation in operations {
        assert!(run(&mut set, &catalog, operation), "{operation:?}");
    }
    compile_all(&set, &catalog, &OPTIONS)
}

#[test]
fn a_host_leads_to_the_upstream_of_its_name() {
    let service = Put(Service, "s", json!({"host": "pool.test", "port": 8080}));
    let upstream = Put(Upstream, "u", json!({"name": "pool.test"}));
    let (plain, _) = built(std::slice::from_ref(&service));
    let cluster = &plain.clusters[&plain.forwards[&id_of("s")].cluster];
    assert_eq!((cluster.named, cluster.endpoints[0].port), (false, 8080));
    let (named, _) = built(&[service, upstream]);
    assert_eq!(named.forwards[&id_of("s")].cluster, id_of("u"));
    assert_eq!(named.clusters.keys().collect::<Vec<_>>(), [&id_of("u")]);
}

#[test]
fn routes_of_a_service_that_is_off_are_absent() {
    let operations = [
        Put(Service, "s", json!({"host": "h.test", "enabled": false})),
        Put(Route, "r", json!({"paths": ["/"], "service": link("s")})),
    ];
    let (plan, findings) = built(&operations);
    assert!(plan.routes.is_empty());
    assert_eq!(findings, []);
}

#[test]
fn what_cannot_serve_is_told_and_the_rest_serves() {
    let vault = "{vault://env/pem}";
    let operations = [
        Put(Service, "s", json!({"host": "h.test"})),
        Put(Certificate, "cert1", json!({"cert": vault, "key": vault})),
        Put(
            Sni,
            "n1",
            json!({"name": "a.test", "certificate": link("cert1")}),
        ),
    ];
    let (plan, findings) = built(&operations);
    assert_eq!(plan.forwards.len(), 1);
    assert!(plan.certificates.is_empty());
    let text = findings[0].to_string();
    assert!(
        text.contains("vault references are not supported"),
        "{text}"
    );
}
