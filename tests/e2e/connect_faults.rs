//! Consul Connect beside a scripted agent that fails in every way: what can be served is served, and what is wrong is told.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::consul::{
    LeafKind, MeshAuthority, Running, TRUST_DOMAIN, free_ports, sallyport,
};
use crate::harness::{Origin, Reply, Request, eventually};

/// How long a question is held at most; proxies ask for less.
const HELD_MAX: Duration = Duration::from_secs(90);
/// How long an answer takes that does not come: longer than anybody waits for a short one.
const NEVER: Duration = Duration::from_secs(100);

/// What is wrong with the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// It accepts and says nothing.
    Hangs,
    /// 500, with an index that does not count.
    Fails,
    /// Half of each answer.
    Breaks,
    /// 403.
    Forbids,
    /// Nothing is left of lists, since the token may not see it.
    Filters,
    /// Held questions are answered at once, and nothing has changed.
    Wakes,
}

struct Facts {
    fault: Fault,
    /// Grows with each change; smaller again after the history was replaced.
    index: u64,
    /// By path, with the index of the last change.
    known: BTreeMap<String, (Value, u64)>,
}

/// An agent of a later release: intentions can be watched, and answers say when something was left out.
struct FakeAgent {
    origin: Origin,
    shared: Arc<(Mutex<Facts>, Condvar)>,
}

impl FakeAgent {
    fn start(known: Vec<(&str, Value)>) -> Self {
        let known = known
            .into_iter()
            .map(|(path, value)| (path.to_owned(), (value, 70)));
        let facts = Facts {
            fault: Fault::Nothing,
            index: 70,
            known: known.collect(),
        };
        let shared = Arc::new((Mutex::new(facts), Condvar::new()));
        let state = Arc::clone(&shared);
        let origin = Origin::answering(move |request| answer(&state, &request.target));
        Self { origin, shared }
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    fn set(&self, path: &str, value: Value) {
        self.change(|facts| {
            facts.index += 1;
            let index = facts.index;
            facts.known.insert(path.to_owned(), (value, index));
        });
    }

    fn fault(&self, fault: Fault) {
        self.change(|facts| facts.fault = fault);
    }

    /// Questions so far.
    fn questions(&self) -> usize {
        self.origin.received().len()
    }
}

/// The path, with those parts of the query that say what is asked for.
fn asked(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = query.split('&').find(|part| part.starts_with("name="));
    name.map_or(path.to_owned(), |name| format!("{path}?{name}"))
}

fn answer(state: &(Mutex<Facts>, Condvar), target: &str) -> Reply {
    let parameter = |name: &str| {
        let (_, query) = target.split_once('?')?;
        query.split('&').find_map(|part| part.strip_prefix(name))
    };
    let path = asked(target);
    let mut facts = state.0.lock().unwrap();
    let before = facts.fault;
    // Held until there is something newer; an index from the future is held for nothing, as the real agent does.
    let index: Option<u64> = parameter("index=").and_then(|index| index.parse().ok());
    let hash = parameter("hash=");
    let began = Instant::now();
    if before == Fault::Nothing {
        while began.elapsed() < HELD_MAX && facts.fault == before {
            let Some((_, at)) = facts.known.get(&path) else {
                break;
            };
            let unchanged = match (index, hash) {
                (Some(index), _) => index >= *at,
                (None, Some(hash)) => hash == at.to_string(),
                (None, None) => false,
            };
            if !unchanged {
                break;
            }
            let pause = Duration::from_millis(500);
            (facts, _) = state.1.wait_timeout(facts, pause).unwrap();
        }
    }
    let (fault, index) = (facts.fault, facts.index.to_string());
    let found = facts.known.get(&path).cloned();
    drop(facts);
    let Some((value, at)) = found else {
        return Reply::new(404, &[], "unknown");
    };
    let hash = at.to_string();
    let mut headers = vec![
        ("X-Consul-Index", index.as_str()),
        ("X-Consul-ContentHash", hash.as_str()),
        ("X-Consul-Default-ACL-Policy", "allow"),
    ];
    let body = value.to_string();
    match fault {
        Fault::Nothing | Fault::Wakes => Reply::new(200, &headers, body),
        Fault::Hangs => Reply::nothing().delayed(NEVER),
        Fault::Fails => Reply::new(500, &[("X-Consul-Index", "1")], "No cluster leader"),
        Fault::Breaks => Reply::new(200, &headers, &body[..body.len() / 2]),
        Fault::Forbids => Reply::new(403, &[], "Permission denied"),
        Fault::Filters => {
            headers.push(("X-Consul-Results-Filtered-By-ACLs", "true"));
            let nothing = match (&value, path.contains("intentions")) {
                (Value::Array(_), _) => json!([]),
                (_, true) => json!({"web": null}),
                _ => value,
            };
            Reply::new(200, &headers, nothing.to_string())
        }
    }
}

/// `web` and `db` behind proxies of ours; `web` has a way to `db`, and each request is judged by intentions.
struct Stage {
    agent: FakeAgent,
    db: Origin,
    to_db: u16,
    web_proxy: Running,
    db_proxy: Running,
}

const INTENTIONS: &str = "/v1/connect/intentions/match?name=db";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Stage {
    fn start() -> Self {
        let authority = MeshAuthority::new();
        let (web, db) = (Origin::echo(), Origin::echo());
        let [web_public, db_public, to_db] = free_ports();
        let leaf = |service: &str| {
            let (certificate, key) = authority.issue(&LeafKind::of(service));
            json!({"CertPEM": certificate, "PrivateKeyPEM": key,
                "ServiceURI": format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{service}")})
        };
        let proxy = |service: &str, application: u16, public: u16, upstreams: Value| {
            json!({"Kind": "connect-proxy", "ID": format!("{service}-proxy"), "Service": format!("{service}-proxy"),
                "Port": public, "Proxy": {
                    "DestinationServiceName": service, "LocalServicePort": application, "Upstreams": upstreams,
                    "Config": {"bind_address": "127.0.0.1", "protocol": "http"}}})
        };
        let upstream = json!([{"DestinationName": "db", "LocalBindPort": to_db}]);
        let target = json!({"ID": "db.default.dc1", "Service": "db", "Datacenter": "dc1"});
        let chain = json!({"Chain": {
            "ServiceName": "db", "Namespace": "default", "Datacenter": "dc1", "Protocol": "tcp",
            "StartNode": "resolver:db.default.dc1",
            "Nodes": {"resolver:db.default.dc1": {"Type": "resolver", "Name": "db.default.dc1",
                "Resolver": {"Target": "db.default.dc1"}}},
            "Targets": {"db.default.dc1": target}}});
        let instances = json!([{
            "Node": {"Node": "here", "Address": "127.0.0.1", "Datacenter": "dc1"},
            "Service": {"Kind": "connect-proxy", "ID": "db-proxy", "Service": "db-proxy", "Address": "127.0.0.1",
                "Port": db_public, "Weights": {"Passing": 1, "Warning": 1},
                "Proxy": {"DestinationServiceName": "db"}},
            "Checks": []}]);
        let roots = json!({"ActiveRootID": "r", "TrustDomain": TRUST_DOMAIN, "Roots": [
            {"ID": "r", "RootCert": authority.pem(), "Active": true, "IntermediateCerts": null}]});
        let agent = FakeAgent::start(vec![
            ("/v1/agent/connect/ca/roots", roots),
            ("/v1/agent/connect/ca/leaf/web", leaf("web")),
            ("/v1/agent/connect/ca/leaf/db", leaf("db")),
            (
                "/v1/agent/service/web-proxy",
                proxy("web", web.port(), web_public, upstream),
            ),
            (
                "/v1/agent/service/db-proxy",
                proxy("db", db.port(), db_public, json!([])),
            ),
            (
                "/v1/connect/intentions/match?name=web",
                json!({"web": null}),
            ),
            (INTENTIONS, json!({"db": [allow()]})),
            ("/v1/discovery-chain/db", chain),
            ("/v1/health/connect/db", instances),
        ]);
        let start = |id: &str| sallyport(agent.origin.address, &["-proxy-id", id]).ready();
        let (db_proxy, web_proxy) = (start("db-proxy"), start("web-proxy"));
        let stage = Self {
            agent,
            db,
            to_db,
            web_proxy,
            db_proxy,
        };
        eventually("calls work", || (stage.call() == Some(200)).then_some(()));
        stage
    }

    /// Calls `db` as `web`; the status of the answer.
    fn call(&self) -> Option<u16> {
        let answer = Request::new(local(self.to_db), "GET", "/through").try_send();
        answer.ok().map(|answer| answer.status)
    }

    fn everything_serves(&self, when: &str) {
        for _ in 0..20 {
            assert_eq!(self.call(), Some(200), "{when}");
        }
        assert_eq!(self.web_proxy.readiness(), 200, "{when}");
        assert_eq!(self.db_proxy.readiness(), 200, "{when}");
    }

    /// An intention forbids the call and allows it again, and both are heard.
    fn changes_are_heard(&self, when: &str) {
        let deny = json!({"SourceName": "web", "DestinationName": "db", "Precedence": 9, "Action": "deny"});
        self.agent.set(INTENTIONS, json!({"db": [deny]}));
        eventually(&format!("the deny is heard {when}"), || {
            (self.call() == Some(403)).then_some(())
        });
        self.agent.set(INTENTIONS, json!({"db": [allow()]}));
        eventually(&format!("the allow is heard {when}"), || {
            (self.call() == Some(200)).then_some(())
        });
    }
}

fn allow() -> Value {
    json!({"SourceName": "web", "DestinationName": "db", "Precedence": 9, "Action": "allow"})
}

/// How many questions have this kind of trouble.
fn troubled(proxy: &Running, kind: &str) -> u64 {
    proxy.metric(&format!(
        "sallyport_connect_agent_trouble{{kind=\"{kind}\"}}"
    ))
}

#[test]
fn each_fault_of_the_agent_is_told_apart_and_none_stops_traffic() {
    let stage = Stage::start();
    for (fault, kind, told) in [
        (Fault::Fails, "failing", "the agent answers 500"),
        (
            Fault::Breaks,
            "unreadable",
            "the agent's answer cannot be read",
        ),
        (
            Fault::Forbids,
            "forbidden",
            "the agent refuses the token: Permission denied",
        ),
        (Fault::Hangs, "unreachable", "the agent cannot be asked"),
        (Fault::Filters, "filtered", "the token may not see"),
    ] {
        let when = format!("{fault:?}");
        // Open before and during the fault, which must not cut it.
        let mut kept = TcpStream::connect(local(stage.to_db)).unwrap();
        kept.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut keep = || {
            kept.write_all(b"GET /kept HTTP/1.1\r\nHost: db\r\n\r\n")
                .unwrap();
            let mut answer = [0; 4096];
            let count = kept.read(&mut answer).unwrap();
            assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "{when}");
        };
        keep();
        if fault == Fault::Hangs {
            // A question that is held looks the same: here it is those asked after an error.
            stage.agent.fault(Fault::Fails);
            eventually("a failure", || {
                (troubled(&stage.web_proxy, "failing") > 0).then_some(())
            });
        }
        stage.agent.fault(fault);
        for proxy in [&stage.web_proxy, &stage.db_proxy] {
            eventually(&format!("{when} is noticed"), || {
                (troubled(proxy, kind) > 0).then_some(())
            });
            assert!(proxy.log().contains(told), "{when}: {}", proxy.log());
        }
        stage.everything_serves(&when);
        keep();
        stage.agent.fault(Fault::Nothing);
        stage.changes_are_heard(&format!("after {when}"));
        if fault == Fault::Filters {
            // It was a good answer: the question is held again until there is news.
            continue;
        }
        for proxy in [&stage.web_proxy, &stage.db_proxy] {
            eventually(&format!("{when} is over"), || {
                let page = Request::new(proxy.status_address(), "GET", "/status").send();
                let page: Value = serde_json::from_slice(&page.body).unwrap();
                let trouble = page["connect"]["agent_trouble"].as_array()?;
                trouble.is_empty().then_some(())
            });
        }
    }
    assert!(
        stage.web_proxy.log().contains("the agent answers again"),
        "{}",
        stage.web_proxy.log()
    );
    assert!(stage.db.received().len() > 100);
}

#[test]
fn wake_ups_without_news_are_no_busy_loop() {
    let stage = Stage::start();
    stage.agent.fault(Fault::Wakes);
    let began = Instant::now();
    let before = stage.agent.questions();
    let mut passed = Duration::ZERO;
    while passed < Duration::from_secs(4) {
        assert_eq!(stage.call(), Some(200));
        passed = began.elapsed();
    }
    let questions = stage.agent.questions() - before;
    // Nine watches; each is slowed down to two questions a second. An unhindered one asks thousands of times.
    let most = 9.0 * (20.0 + 3.0 * passed.as_secs_f64());
    assert!(
        (questions as f64) < most,
        "{questions} questions in {passed:?}"
    );
    let log = stage.web_proxy.log();
    assert!(!log.contains("what is known stays"), "{log}");
    stage.agent.fault(Fault::Nothing);
    stage.changes_are_heard("after the wake-ups");
}

#[test]
fn an_index_that_goes_back_is_followed() {
    let stage = Stage::start();
    // The history is replaced by a shorter one; everybody is woken and told its index.
    stage.agent.change(|facts| {
        facts.index = 3;
        for (_, at) in facts.known.values_mut() {
            *at = 3;
        }
        facts.fault = Fault::Wakes;
    });
    eventually("everybody has heard of it", || {
        let questions = stage.agent.origin.received();
        let is_old = |target: &str| target.contains("index=7");
        let asked = questions
            .iter()
            .map(|it| (asked(&it.target), is_old(&it.target)));
        // Whether the last question about each thing was.
        let last: HashMap<_, _> = asked.collect();
        last.values().all(|is_old| !is_old).then_some(())
    });
    stage.agent.fault(Fault::Nothing);
    // Whoever keeps the higher index is held, and hears of nothing for a minute.
    stage.changes_are_heard("in the new history");
    stage.everything_serves("in the new history");
}

#[test]
fn nothing_is_served_before_anything_is_known() {
    let [public] = free_ports();
    let agent = FakeAgent::start(vec![(
        "/v1/agent/service/web-proxy",
        json!({"Kind": "connect-proxy", "ID": "web-proxy", "Service": "web-proxy", "Port": public,
            "Proxy": {"DestinationServiceName": "web", "LocalServicePort": 1,
                "Config": {"bind_address": "127.0.0.1"}}}),
    )]);
    agent.fault(Fault::Fails);
    let proxy = sallyport(agent.origin.address, &["-proxy-id", "web-proxy"]);
    eventually("the agent is asked", || {
        (agent.questions() > 3).then_some(())
    });
    eventually("it is told", || {
        proxy.log().contains("the agent answers 500").then_some(())
    });
    assert!(TcpStream::connect(local(public)).is_err());
}
