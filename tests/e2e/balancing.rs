//! Where requests go among several targets: algorithms, health, retries, names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Driver, Gateway, NameServer, NginxOrigin, Origin, Reply, eventually, for_both_drivers,
};

/// An origin that answers with its name and a status that the test may change.
struct Target {
    origin: Origin,
    status: Arc<AtomicU16>,
}

impl Target {
    fn named(name: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let answered = Arc::clone(&status);
        let origin = Origin::answering(move |_| {
            Reply::new(answered.load(Ordering::SeqCst), &[("X-Target", name)], name)
        });
        Self { origin, status }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn address(&self) -> String {
        self.origin.address.to_string()
    }
}

/// A gateway with a service over an upstream of these targets; the route takes everything.
fn balanced(gateway: &Gateway, upstream: Value, service: Value, targets: &[(String, u32)]) {
    let admin = gateway.admin();
    let mut fields = json!({"name": "pool.test"});
    merge(&mut fields, upstream);
    admin.create("/upstreams", fields);
    for (target, weight) in targets {
        let fields = json!({"target": target, "weight": weight});
        admin.create("/upstreams/pool.test/targets", fields);
    }
    let mut fields = json!({"name": "s", "host": "pool.test"});
    merge(&mut fields, service);
    admin.create("/services", fields);
    admin.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

fn even(targets: &[&Target]) -> Vec<(String, u32)> {
    targets.iter().map(|it| (it.address(), 100)).collect()
}

/// Which target answered how many of so many requests; other answers count by their status.
fn answers(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        let answer = gateway.get("/").send();
        let who = match answer.header("X-Target") {
            Some(name) => format!("{name} {}", answer.status),
            None => answer.status.to_string(),
        };
        *answers.entry(who).or_default() += 1;
    }
    answers
}

fn who_answers(gateway: &Gateway) -> String {
    let answer = gateway.get("/").send().expect_status(200);
    answer.header("X-Target").expect("a name").to_owned()
}

/// The health of each target, by its address.
fn health(gateway: &Gateway) -> BTreeMap<String, String> {
    let shown = gateway.admin().get("/upstreams/pool.test/health");
    let shown = shown.expect_status(200).json();
    let targets = shown["data"].as_array().expect("targets").iter();
    targets
        .map(|target| {
            let text = |name: &str| target[name].as_str().expect("a text").to_owned();
            (text("target"), text("health"))
        })
        .collect()
}

fn becomes(gateway: &Gateway, target: &Target, state: &str) {
    eventually(&format!("the target is {state}"), || {
        (health(gateway)[&target.address()] == state).then_some(())
    });
}

#[test]
fn traffic_ejects_a_failing_target_until_an_administrator_brings_it_back() {
    for_both_drivers(|driver| {
        let (good, bad) = (Target::named("good"), Target::named("bad"));
        let gateway = Gateway::builder().driver(driver).start();
        let passive = json!({"passive": {"unhealthy": {"http_failures": 3}}});
        let upstream = json!({"healthchecks": passive});
        balanced(&gateway, upstream, json!({}), &even(&[&good, &bad]));
        assert_eq!(health(&gateway)[&good.address()], "HEALTHY");
        bad.says(500);
        let before = answers(&gateway, 12);
        assert_eq!(before.get("bad 500"), Some(&3), "{before:?}");
        assert_eq!(health(&gateway)[&bad.address()], "UNHEALTHY");
        bad.says(200);
        assert_eq!(
            answers(&gateway, 6),
            BTreeMap::from([("good 200".into(), 6)])
        );
        let metrics = gateway.metrics();
        assert!(
            metrics.contains(
                r#"sallyport_upstream_health_changes_total{state="unhealthy",upstream="pool.test"} 1"#
            ),
            "{metrics}"
        );
        let path = format!("/upstreams/pool.test/targets/{}", bad.address());
        let admin = gateway.admin();
        admin
            .request("PUT", &format!("{path}/healthy"))
            .send()
            .expect_status(204);
        assert_eq!(answers(&gateway, 6).len(), 2);
        // One address of it, by hand.
        let one = format!("{path}/{}/unhealthy", bad.address());
        admin.request("PUT", &one).send().expect_status(204);
        assert_eq!(answers(&gateway, 6).len(), 1);
        let view = admin
            .get("/upstreams/pool.test/health?balancer_health=1")
            .json();
        assert_eq!(view["data"]["balancer_health"], "HEALTHY");
        assert_eq!(view["data"]["details"]["weight"]["available"], 100);
        let all = admin.get("/upstreams/pool.test/targets/all").json();
        assert_eq!(all["data"].as_array().map(Vec::len), Some(2));
    });
}

#[test]
fn probes_find_the_sick_and_bring_them_back() {
    let (good, sick) = (Target::named("good"), Target::named("sick"));
    let gateway = Gateway::builder().start();
    let active = json!({
        "http_path": "/alive",
        "headers": {"X-Probe": ["yes"]},
        "healthy": {"interval": 0.1, "successes": 2},
        "unhealthy": {"interval": 0.1, "http_failures": 2, "tcp_failures": 1, "timeouts": 1},
    });
    let upstream = json!({"healthchecks": {"active": active}});
    balanced(&gateway, upstream, json!({}), &even(&[&good, &sick]));
    let probe = eventually("a probe", || {
        let received = sick.origin.received();
        received.into_iter().find(|it| it.target == "/alive")
    });
    assert_eq!(probe.header("host"), Some(&*sick.address()));
    assert_eq!(probe.header("x-probe"), Some("yes"));
    sick.says(503);
    becomes(&gateway, &sick, "UNHEALTHY");
    assert_eq!(
        answers(&gateway, 6),
        BTreeMap::from([("good 200".into(), 6)])
    );
    sick.says(200);
    becomes(&gateway, &sick, "HEALTHY");
    assert_eq!(answers(&gateway, 6).len(), 2);
    // All down: nobody is asked.
    good.says(500);
    sick.says(500);
    becomes(&gateway, &good, "UNHEALTHY");
    becomes(&gateway, &sick, "UNHEALTHY");
    let answer = gateway.get("/").send().expect_status(503);
    assert!(
        answer
            .text()
            .contains("failure to get a peer from the ring-balancer"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_dead_nginx_costs_no_request_and_returns_when_it_is_back() {
    let one = NginxOrigin::serving(&[("file", b"1")]);
    let two = NginxOrigin::serving(&[("file", b"2")]);
    let gateway = Gateway::builder().start();
    let active = json!({
        "type": "tcp",
        "healthy": {"interval": 0.1, "successes": 1},
        "unhealthy": {"interval": 0.1, "tcp_failures": 1},
    });
    let targets = [
        (one.address.to_string(), 100),
        (two.address.to_string(), 100),
    ];
    let upstream = json!({"healthchecks": {"active": active}});
    balanced(&gateway, upstream, json!({}), &targets);
    let bodies = |count: usize| -> Vec<String> {
        let answers = (0..count).map(|_| gateway.get("/file").send().expect_status(200));
        answers.map(|answer| answer.text()).collect()
    };
    assert!(bodies(4).contains(&"2".to_owned()));
    let address = two.address;
    drop(two);
    assert!(bodies(20).iter().all(|body| body == "1"));
    eventually("the dead one is found", || {
        (health(&gateway)[&address.to_string()] == "UNHEALTHY").then_some(())
    });
    let _back = std::net::TcpListener::bind(address).expect("its port");
    eventually("it is back", || {
        (health(&gateway)[&address.to_string()] == "HEALTHY").then_some(())
    });
}

#[test]
fn too_little_healthy_weight_refuses_all() {
    let (one, two) = (Target::named("one"), Target::named("two"));
    let gateway = Gateway::builder().start();
    let checks = json!({"threshold": 50, "passive": {"unhealthy": {"tcp_failures": 1}}});
    let upstream = json!({"healthchecks": checks});
    balanced(&gateway, upstream, json!({}), &even(&[&one, &two]));
    gateway.get("/").send().expect_status(200);
    let admin = gateway.admin();
    let path = format!("/upstreams/pool.test/targets/{}", one.address());
    admin
        .request("PUT", &format!("{path}/unhealthy"))
        .send()
        .expect_status(204);
    // Half is not more than half.
    gateway.get("/").send().expect_status(503);
    let view = admin
        .get("/upstreams/pool.test/health?balancer_health=1")
        .json();
    assert_eq!(view["data"]["balancer_health"], "UNHEALTHY");
    admin
        .request("PUT", &format!("{path}/healthy"))
        .send()
        .expect_status(204);
    gateway.get("/").send().expect_status(200);
}

#[test]
fn a_cookie_keeps_a_client_at_its_target_also_while_that_is_drained() {
    let (one, two) = (Target::named("one"), Target::named("two"));
    let gateway = Gateway::builder().start();
    let upstream = json!({
        "algorithm": "sticky-sessions", "sticky_sessions_cookie": "stick",
        "sticky_sessions_cookie_path": "/shop",
        "healthchecks": {"passive": {"unhealthy": {"http_failures": 1}}},
    });
    balanced(&gateway, upstream, json!({}), &even(&[&one, &two]));
    let first = gateway.get("/").send();
    let home = first.header("X-Target").expect("a target").to_owned();
    let set = first.header("Set-Cookie").expect("a cookie").to_owned();
    assert!(
        set.ends_with("; Path=/shop; SameSite=Lax; HttpOnly"),
        "{set}"
    );
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let stays = || {
        for _ in 0..6 {
            let answer = gateway.get("/").header("Cookie", &cookie).send();
            assert_eq!(answer.header("X-Target"), Some(&*home));
            assert_eq!(answer.header("Set-Cookie"), None);
        }
    };
    stays();
    assert_eq!(answers(&gateway, 6).len(), 2, "others go anywhere");
    let leaving = if home == "one" { &one } else { &two };
    let admin = gateway.admin();
    let path = format!("/upstreams/pool.test/targets/{}", leaving.address());
    admin.patch(&path, json!({"weight": 0})).expect_status(200);
    stays();
    assert_eq!(answers(&gateway, 6).len(), 1);
    admin.delete(&path).expect_status(204);
    let moved = gateway.get("/").header("Cookie", &cookie).send();
    assert_ne!(moved.header("X-Target"), Some(&*home));
    assert!(
        moved
            .header("Set-Cookie")
            .is_some_and(|new| !new.starts_with(&cookie))
    );
}

#[test]
fn least_connections_avoids_the_busy_target() {
    let quick = Target::named("quick");
    let hold = Arc::new(Mutex::new(()));
    let held = hold.lock().unwrap();
    let (arrived, at_slow) = mpsc::channel();
    let first = AtomicBool::new(true);
    let slow = Origin::answering({
        let hold = Arc::clone(&hold);
        move |_| {
            if first.swap(false, Ordering::SeqCst) {
                let _ = arrived.send(());
                drop(hold.lock().unwrap());
            }
            Reply::new(200, &[("X-Target", "slow")], "slow")
        }
    });
    let gateway = Gateway::builder().start();
    let targets = [(quick.address(), 100), (slow.address.to_string(), 100)];
    let upstream = json!({"algorithm": "least-connections"});
    balanced(&gateway, upstream, json!({}), &targets);
    std::thread::scope(|scope| {
        // One client asks until its request hangs at the slow target.
        scope.spawn(|| while who_answers(&gateway) != "slow" {});
        at_slow.recv().unwrap();
        // An exchange counts until a moment after its answer: then both have one, and the turn decides.
        let to_quick = (0..50).filter(|_| who_answers(&gateway) == "quick").count();
        drop(held);
        assert!(to_quick > 35, "{to_quick} of 50 to the idle target");
    });
}

#[test]
fn a_weight_of_zero_gets_nothing_and_changes_count_at_once() {
    let (one, two) = (Target::named("one"), Target::named("two"));
    let gateway = Gateway::builder().start();
    let targets = [(one.address(), 300), (two.address(), 100)];
    balanced(&gateway, json!({}), json!({}), &targets);
    let shares = answers(&gateway, 40);
    assert_eq!((shares["one 200"], shares["two 200"]), (30, 10));
    let path = format!("/upstreams/pool.test/targets/{}", one.address());
    let drained = gateway.admin().patch(&path, json!({"weight": 0}));
    drained.expect_status(200);
    assert_eq!(
        answers(&gateway, 8),
        BTreeMap::from([("two 200".into(), 8)])
    );
}

#[test]
fn what_was_written_is_sent_again_only_if_that_does_no_harm() {
    for_both_drivers(|driver| {
        let resetting = Origin::answering(|_| Reply::raw("").then_reset());
        let good = Origin::echo();
        let gateway = Gateway::builder().driver(driver).start();
        let targets = [
            (resetting.address.to_string(), 100),
            (good.address.to_string(), 100),
        ];
        balanced(&gateway, json!({}), json!({"retries": 1}), &targets);
        let body = "x".repeat(20_000);
        for _ in 0..6 {
            let answer = gateway.request("PUT", "/again").body(body.clone()).send();
            let echoed = answer.expect_status(200).json();
            assert_eq!(echoed["body"].as_str().map(str::len), Some(20_000));
        }
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(gateway.request("POST", "/once").body("one").send().status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 502, 502, 502]);
        let posts = |origin: &Origin| {
            let received = origin.received();
            received.iter().filter(|it| it.method == "POST").count()
        };
        assert_eq!((posts(&good), posts(&resetting)), (3, 3));
    });
}

#[test]
fn a_frozen_target_costs_time_but_no_request() {
    for_both_drivers(|driver| {
        let frozen = Origin::answering(|_| Reply::ok("late").delayed(Duration::from_secs(30)));
        let good = Target::named("good");
        let gateway = Gateway::builder().driver(driver).start();
        let upstream = json!({"healthchecks": {"passive": {"unhealthy": {"timeouts": 1}}}});
        let service = json!({"read_timeout": 300});
        let targets = [(frozen.address.to_string(), 100), (good.address(), 100)];
        balanced(&gateway, upstream, service, &targets);
        assert_eq!(
            answers(&gateway, 10),
            BTreeMap::from([("good 200".into(), 10)])
        );
        assert_eq!(health(&gateway)[&frozen.address.to_string()], "UNHEALTHY");
        assert_eq!(frozen.received().len(), 1);
    });
}

#[test]
fn retries_of_a_service_that_fails_are_limited() {
    let dead = Origin::answering(|_| Reply::nothing());
    let gateway = Gateway::builder().driver(Driver::Exchange).start();
    let targets = [(dead.address.to_string(), 100)];
    balanced(&gateway, json!({}), json!({"retries": 20}), &targets);
    for _ in 0..40 {
        gateway.get("/").send().expect_status(502);
    }
    // A hundred retries in ten seconds are always allowed, and a fifth of the requests.
    let received = dead.received().len();
    assert!((140..=150).contains(&received), "{received}");
}

#[test]
fn names_bring_addresses_ports_and_weights() {
    let (one, two) = (Target::named("one"), Target::named("two"));
    let six = Target::named("six");
    let names = NameServer::start();
    let gateway = Gateway::builder()
        .setting("dns_resolver", &names.address.to_string())
        .start();
    names.addresses("n1.test", 0, &["127.0.0.1"]);
    // Weights count also when the answer says that it must not be kept.
    names.services(
        "srv.test",
        0,
        &[
            (30, one.origin.port(), "n1.test"),
            (10, two.origin.port(), "n1.test"),
        ],
    );
    balanced(
        &gateway,
        json!({}),
        json!({}),
        &[("srv.test:80".to_owned(), 5)],
    );
    eventually("the name is known", || {
        (gateway.get("/").send().status == 200).then_some(())
    });
    let shares = answers(&gateway, 40);
    assert_eq!((shares["one 200"], shares["two 200"]), (30, 10));
    names.services("srv.test", 0, &[(1, two.origin.port(), "n1.test")]);
    eventually("the change is followed", || {
        (answers(&gateway, 4) == BTreeMap::from([("two 200".into(), 4)])).then_some(())
    });
    let admin = gateway.admin();
    admin.delete("/upstreams/pool.test/targets/srv.test:80");
    // A name that has only an IPv6 address is asked for that, too.
    names.addresses("six.test", 60, &["::ffff:127.0.0.1"]);
    let target = format!("six.test:{}", six.origin.port());
    admin.create("/upstreams/pool.test/targets", json!({"target": target}));
    eventually("an address of version 6", || {
        (gateway.get("/").send().header("X-Target") == Some("six")).then_some(())
    });
}

#[test]
fn a_change_of_the_hosts_file_is_noticed() {
    let good = Target::named("good");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hosts");
    std::fs::write(&file, "192.0.2.1 moving.test\n").expect("a file");
    let gateway = Gateway::builder()
        .setting("dns_hostsfile", &file.display().to_string())
        .setting("dns_resolver", "127.0.0.1:9")
        .start();
    let target = format!("moving.test:{}", good.origin.port());
    let service = json!({"connect_timeout": 100, "retries": 0});
    balanced(&gateway, json!({}), service, &[(target, 100)]);
    assert_ne!(gateway.get("/").send().status, 200);
    std::fs::write(&file, "127.0.0.1 moving.test other.test\n").expect("a file");
    eventually("the new address is used", || {
        (gateway.get("/").send().status == 200).then_some(())
    });
}

#[test]
fn a_broken_service_record_harms_nobody() {
    let good = Target::named("good");
    let names = NameServer::start();
    let gateway = Gateway::builder()
        .setting("dns_resolver", &names.address.to_string())
        .start();
    names.addresses("fine.test", 60, &["127.0.0.1"]);
    // Cut short; nobody offers this; a port that is none; a name that points to itself; nothing but noise.
    names.broken_service("short.test", &[0, 1, 0]);
    names.services("root.test", 60, &[(1, 80, ".")]);
    names.services("portless.test", 60, &[(1, 0, "fine.test")]);
    names.broken_service("loop.test", &[0, 1, 0, 1, 0, 80, 0xc0, 0x0c]);
    names.rubbish("noise.test", &[0xc0, 0xff, 0xff, 0xff, 0, 0, 1]);
    let broken = ["short", "root", "portless", "loop", "noise"];
    let mut targets: Vec<(String, u32)> = broken
        .iter()
        .map(|name| (format!("{name}.test:80"), 100))
        .collect();
    targets.push((good.address(), 100));
    balanced(&gateway, json!({}), json!({}), &targets);
    eventually("all are looked up", || {
        let health = health(&gateway);
        let wrong = broken
            .iter()
            .filter(|name| health[&format!("{name}.test:80")] == "DNS_ERROR");
        (wrong.count() == broken.len()).then_some(())
    });
    assert_eq!(
        answers(&gateway, 10),
        BTreeMap::from([("good 200".into(), 10)])
    );
}
