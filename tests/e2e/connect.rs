//! Consul Connect: as the proxy of a service, beside a real agent and Consul's own proxy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::consul::{
    Agent, LeafKind, MeshAuthority, TRUST_DOMAIN, call_as, free_ports, sallyport,
};
use crate::harness::{Origin, Reply, Request, Traffic, eventually};

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What is wrong with the answer to a request through a local listener?
fn ask(port: u16) -> Result<(), String> {
    match Request::new(local(port), "GET", "/through").try_send() {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

/// Does a request through a local listener get an answer?
fn answers(port: u16) -> bool {
    ask(port).is_ok()
}

fn upstream(name: &str, port: u16) -> Value {
    json!([{"DestinationName": name, "LocalBindPort": port}])
}

/// `web` behind our proxy, `db` behind Consul's own, each the other's upstream.
struct Pair {
    agent: Agent,
    web: Origin,
    db: Origin,
    /// Local ports: to db through our proxy, to web through Consul's.
    to_db: u16,
    to_web: u16,
    public: u16,
    ours: crate::harness::consul::Running,
    _theirs: crate::harness::consul::Running,
}

impl Pair {
    fn start(config: Value) -> Self {
        let agent = Agent::start();
        let (web, db) = (Origin::echo(), Origin::echo());
        let [public, theirs_public, to_db, to_web] = free_ports();
        agent.register("web", web.port(), public, config, &upstream("db", to_db));
        agent.register(
            "db",
            db.port(),
            theirs_public,
            json!({}),
            &upstream("web", to_web),
        );
        let theirs = agent.built_in_proxy("db-1");
        let ours = agent.sallyport("web-1").ready();
        eventually("both directions work", || {
            (answers(to_db) && answers(to_web)).then_some(())
        });
        Self {
            agent,
            web,
            db,
            to_db,
            to_web,
            public,
            ours,
            _theirs: theirs,
        }
    }
}

#[test]
fn calls_work_both_ways_and_a_deny_cuts_them() {
    let pair = Pair::start(json!({}));
    assert!(
        pair.web
            .received()
            .iter()
            .any(|request| request.target == "/through")
    );
    assert!(
        pair.db
            .received()
            .iter()
            .any(|request| request.target == "/through")
    );

    let mut open = TcpStream::connect(local(pair.to_web)).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    open.write_all(b"GET /open HTTP/1.1\r\nHost: web\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    assert!(open.read(&mut answer).unwrap() > 0);

    let id = pair.agent.intend("db", "web", "deny");
    // How soon is measured by `load-tests mesh`; a loaded machine says nothing about it.
    eventually("new connections are denied", || {
        (!answers(pair.to_web)).then_some(())
    });
    eventually("the open connection is cut", || {
        let kind = match open.read(&mut answer) {
            Ok(0) => return Some(()),
            Ok(_) => return None,
            Err(error) => error.kind(),
        };
        (kind == std::io::ErrorKind::ConnectionReset).then_some(())
    });
    // The other direction is another intention.
    assert!(answers(pair.to_db));
    let refused =
        "sallyport_connect_inbound_refused_total{service=\"web\",reason=\"denied_by_intention\"}";
    assert!(pair.ours.metric(refused) > 0);
    assert!(
        pair.ours
            .metric("sallyport_connect_inbound_cut_total{service=\"web\"}")
            > 0
    );

    pair.agent.ask(
        "DELETE",
        &format!("/v1/connect/intentions/{id}"),
        &Value::Null,
    );
    eventually("it is allowed again", || answers(pair.to_web).then_some(()));
}

#[test]
fn upstreams_come_and_go_with_the_registration() {
    let pair = Pair::start(json!({}));
    let [second] = free_ports();
    let register = |upstreams: &Value| {
        let config = json!({"handshake_timeout_ms": 5000});
        pair.agent
            .register("web", pair.web.port(), pair.public, config, upstreams);
    };
    let both = json!([
        {"DestinationName": "db", "LocalBindPort": pair.to_db},
        {"DestinationName": "db", "LocalBindPort": second},
    ]);
    register(&both);
    eventually("the new upstream serves", || answers(second).then_some(()));

    // What is open when its listener goes may finish.
    let mut open = TcpStream::connect(local(second)).unwrap();
    open.write_all(b"GET /first HTTP/1.1\r\nHost: db\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    assert!(open.read(&mut answer).unwrap() > 0);
    register(&upstream("db", pair.to_db));
    eventually("the removed upstream is closed", || {
        TcpStream::connect(local(second)).is_err().then_some(())
    });
    open.write_all(b"GET /second HTTP/1.1\r\nHost: db\r\n\r\n")
        .unwrap();
    assert!(open.read(&mut answer).unwrap() > 0);
    assert!(answers(pair.to_db));

    // A registration with a mistake changes nothing.
    let config = json!({"bind_port": "many"});
    pair.agent
        .register("web", pair.web.port(), pair.public, config, &json!([]));
    eventually("the mistake is told", || {
        pair.ours
            .log()
            .contains("is not a whole number")
            .then_some(())
    });
    assert!(answers(pair.to_db) && answers(pair.to_web));
}

#[test]
fn every_bad_caller_is_refused_for_its_own_reason() {
    let agent = Agent::start();
    let web = Origin::echo();
    let [public] = free_ports();
    agent.register(
        "web",
        web.port(),
        public,
        json!({"handshake_timeout_ms": 500}),
        &json!([]),
    );
    let ours = agent.sallyport("web-1").ready();
    let kind = |change: fn(&mut LeafKind)| {
        let mut kind = LeafKind::of("db");
        change(&mut kind);
        agent.authority.issue(&kind)
    };
    let foreign = MeshAuthority::new().issue(&LeafKind::of("db"));
    let cases = [
        (
            Some(kind(|kind| kind.expired = true)),
            "certificate_expired",
        ),
        (Some(kind(|kind| kind.uris.clear())), "no_identity"),
        (
            Some(kind(|kind| kind.uris.push("spiffe://x/y".to_owned()))),
            "several_identities",
        ),
        (
            Some(kind(|kind| kind.uris = vec!["https://db".to_owned()])),
            "foreign_identity",
        ),
        (Some(kind(|kind| kind.client = false)), "wrong_purpose"),
        (Some(foreign), "unknown_authority"),
        (None, "no_certificate"),
    ];
    let refused = |reason: &str| {
        let name = format!(
            "sallyport_connect_inbound_refused_total{{service=\"web\",reason=\"{reason}\"}}"
        );
        ours.metric(&name)
    };
    let counted = |reason: &str| {
        eventually(reason, || (refused(reason) == 1).then_some(()));
        let word = format!("\"reason\":\"{reason}\"");
        assert!(ours.log().contains(&word), "{reason}: {}", ours.log());
    };
    for (leaf, reason) in &cases {
        if let Some(mut stream) = call_as(local(public), leaf.as_ref()) {
            // With TLS 1.3 a client learns of the refusal when it reads.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n");
            let mut byte = [0];
            assert!(!matches!(stream.read(&mut byte), Ok(1)), "{reason}");
        }
        counted(reason);
    }
    // Plain HTTP and garbage are no TLS; a hello that does not go on is late; a probe is nothing.
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"[..],
        b"\x00\xff\x00\xff\x00\xff",
    ] {
        let mut stream = TcpStream::connect(local(public)).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read(&mut [0; 64]);
    }
    eventually("no TLS", || (refused("not_tls") == 2).then_some(()));
    let mut slow = TcpStream::connect(local(public)).unwrap();
    slow.write_all(b"\x16\x03\x01").unwrap();
    counted("handshake_timeout");
    drop(TcpStream::connect(local(public)).unwrap());
    assert_eq!(web.received().len(), 0);

    // A good one comes in, and half of it may end before the other.
    let mut good = call_as(local(public), Some(&kind(|_| {}))).expect("a handshake");
    good.write_all(b"GET /good HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = good.read_to_end(&mut answer);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn a_new_authority_loses_no_request() {
    let pair = Pair::start(json!({}));
    let traffic = [pair.to_db, pair.to_web].map(|port| Traffic::start(move || ask(port)));
    for traffic in &traffic {
        traffic.goes_on(1);
    }
    let next = MeshAuthority::new();
    let configuration = json!({"Provider": "consul", "Config": {
        "PrivateKey": next.key_pem(), "RootCert": next.pem(), "LeafCertTTL": "1h",
    }});
    pair.agent
        .ask("PUT", "/v1/connect/ca/configuration", &configuration);
    eventually("the new root is trusted", || {
        (pair.ours.metric("sallyport_connect_roots{service=\"web\"}") == 2).then_some(())
    });
    // The leaf follows within half a minute.
    let until = Instant::now() + Duration::from_secs(45);
    while pair
        .ours
        .metric("sallyport_connect_leaf_rotations{service=\"web\"}")
        < 3
    {
        assert!(Instant::now() < until, "no new leaf");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    // It may have come at once, and what it is good for shows only now.
    for traffic in &traffic {
        traffic.goes_on(100);
    }
    for traffic in traffic {
        traffic.end().expect("nothing is lost");
    }
}

#[test]
fn what_is_known_serves_while_the_agent_is_away() {
    let mut agent = Agent::start();
    let (web, db) = (Origin::echo(), Origin::echo());
    let [web_public, db_public, to_db] = free_ports();
    // Consul's own proxies would ask their agent for each connection: both are ours.
    let register = |agent: &Agent| {
        let http = json!({"protocol": "http"});
        let upstreams = upstream("db", to_db);
        agent.register("web", web.port(), web_public, http.clone(), &upstreams);
        agent.register("db", db.port(), db_public, http, &json!([]));
    };
    register(&agent);
    let db_proxy = agent.sallyport("db-1").ready();
    let web_proxy = agent.sallyport("web-1").ready();
    eventually("calls work", || answers(to_db).then_some(()));

    agent.kill();
    for _ in 0..50 {
        assert!(answers(to_db));
    }
    assert_eq!(db_proxy.readiness(), 200);
    assert_eq!(web_proxy.readiness(), 200);

    agent.restart();
    register(&agent);
    agent.intend("web", "db", "deny");
    eventually("the agent is heard again", || {
        let answer = Request::new(local(to_db), "GET", "/back").try_send();
        answer
            .is_ok_and(|answer| answer.status == 403)
            .then_some(())
    });
}

#[test]
fn exactly_one_registration_is_needed() {
    let agent = Agent::start();
    let mut none = sallyport(agent.address, &["-sidecar-for", "web-1"]);
    assert_eq!(none.ended(), Some(1));
    assert!(
        none.log().contains("No sidecar proxy registered for web-1"),
        "{}",
        none.log()
    );
    for id in ["one", "two"] {
        let body = json!({"Name": "web-proxy", "ID": id, "Kind": "connect-proxy", "Port": 1,
            "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "web-1"}});
        agent.ask("PUT", "/v1/agent/service/register", &body);
    }
    let mut several = sallyport(agent.address, &["-sidecar-for", "web-1"]);
    assert_eq!(several.ended(), Some(1));
    assert!(
        several.log().contains("following IDs: one, two"),
        "{}",
        several.log()
    );
}

#[test]
fn a_proxy_by_hand_registers_and_leads_out() {
    let agent = Agent::start();
    let (web, db) = (Origin::echo(), Origin::echo());
    let [db_public, public, to_db] = free_ports();
    agent.register("db", db.port(), db_public, json!({}), &json!([]));
    let _db = agent.sallyport("db-1").ready();
    let web_proxy = sallyport(
        agent.address,
        &[
            "-service",
            "web",
            "-listen",
            &format!("127.0.0.1:{public}"),
            "-service-addr",
            &web.address.to_string(),
            "-upstream",
            &format!("db:{to_db}"),
            "-register",
        ],
    )
    .ready();
    eventually("the upstream serves", || answers(to_db).then_some(()));
    let registered = agent.ask("GET", "/v1/agent/service/web-proxy", &Value::Null);
    assert_eq!(registered["Kind"], "connect-proxy");
    assert_eq!(registered["Port"], public);
    drop(web_proxy);
}

/// An agent of a later release, as far as a proxy needs it: intentions that look at requests.
fn later_agent(authority: MeshAuthority, application: u16, public: u16) -> Origin {
    let roots = json!({"ActiveRootID": "r", "TrustDomain": TRUST_DOMAIN, "Future": {},
        "Roots": [{"ID": "r", "RootCert": authority.pem(), "Active": true, "IntermediateCerts": null}]});
    let (certificate, key) = authority.issue(&LeafKind::of("web"));
    let leaf = json!({"CertPEM": certificate, "PrivateKeyPEM": key,
        "ServiceURI": format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web")});
    let service = json!({"Kind": "connect-proxy", "ID": "web-proxy", "Service": "web-proxy", "Port": public,
        "Proxy": {"DestinationServiceName": "web", "LocalServicePort": application,
                  "Config": {"bind_address": "127.0.0.1", "protocol": "http"}}});
    let intentions = json!({"web": [{"SourceName": "db", "DestinationName": "web", "Precedence": 9, "Permissions": [
        {"Action": "deny", "HTTP": {"PathPrefix": "/value/supersecret"}},
        {"Action": "deny", "HTTP": {"Header": [{"Name": "x-bad", "Present": true}]}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/value/", "Methods": ["GET"]}},
    ]}]});
    Origin::answering(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let (body, hash): (&Value, &str) = match path {
            "/v1/agent/connect/ca/roots" => (&roots, ""),
            "/v1/agent/connect/ca/leaf/web" => (&leaf, ""),
            "/v1/agent/service/web-proxy" => (&service, "one"),
            "/v1/connect/intentions/match" => (&intentions, ""),
            _ => return Reply::new(404, &[], "unknown"),
        };
        let headers = [
            ("X-Consul-Index", "7"),
            ("X-Consul-ContentHash", hash),
            ("X-Consul-Default-ACL-Policy", "deny"),
        ];
        let reply = Reply::new(200, &headers, body.to_string());
        match request.target.contains("wait=") {
            true => reply.delayed(Duration::from_secs(5)),
            false => reply,
        }
    })
}

#[test]
fn intentions_look_at_requests() {
    let authority = MeshAuthority::new();
    let caller = authority.issue(&LeafKind::of("db"));
    let stranger = authority.issue(&LeafKind::of("stranger"));
    let web = Origin::echo();
    let [public] = free_ports();
    let agent = later_agent(authority, web.port(), public);
    let _ours = sallyport(agent.address, &["-proxy-id", "web-proxy"]).ready();
    let ask = |leaf: &(String, String), method: &str, target: &str, header: &str| {
        let mut stream = call_as(local(public), Some(leaf)).expect("a handshake");
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: web\r\n{header}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    for (method, target, header, status) in [
        ("GET", "/value/open", "", "200"),
        ("POST", "/value/open", "Content-Length: 0\r\n", "403"),
        ("GET", "/other", "", "403"),
        ("GET", "/value/open", "X-Bad: 1\r\n", "403"),
        ("GET", "/value/open", "X_Bad: 1\r\n", "400"),
        ("GET", "/value/supersecret", "", "403"),
        ("GET", "/value//supersecret", "", "403"),
        ("GET", "/value%2Fsupersecret", "", "403"),
        ("GET", "/value/%73upersecret", "", "403"),
        ("GET", "/value\\supersecret", "", "403"),
        ("GET", "/value/supersecret?", "", "403"),
        ("GET", "/value%2Ffoo", "", "200"),
    ] {
        assert_eq!(
            ask(&caller, method, target, header),
            status,
            "{method} {target} {header}"
        );
    }
    // The default of the mesh.
    assert_eq!(ask(&stranger, "GET", "/value/open", ""), "403");
    let targets: Vec<String> = web
        .received()
        .iter()
        .map(|request| request.target.clone())
        .collect();
    assert_eq!(targets, ["/value/open", "/value/foo"]);
}

#[test]
fn kong_routes_answer_callers_in_the_mesh() {
    let agent = Agent::start();
    let origin = Origin::echo();
    let [edge, to_edge, unused] = free_ports();
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "origin", "url": origin.url(), "routes": [{"name": "all", "paths": ["/"]}],
            "plugins": [{"name": "acl", "config": {"allow": ["mesh"]}}]}],
        "consumers": [{"username": "the-shop", "custom_id": "shop", "acls": [{"group": "mesh"}]}],
    });
    let listeners = format!("127.0.0.1:0, 127.0.0.1:{edge} connect");
    let gateway = crate::harness::Gateway::builder()
        .setting("consul_service", "edge")
        .setting("consul_http_addr", &agent.address.to_string())
        .setting("proxy_listen", &listeners)
        .declarative(&document.to_string())
        .start();
    let service =
        json!({"Name": "edge", "Port": edge, "Address": "127.0.0.1", "Connect": {"Native": true}});
    agent.ask("PUT", "/v1/agent/service/register", &service);
    let upstreams = upstream("edge", to_edge);
    agent.register("shop", unused, unused, json!({"bind_port": 0}), &upstreams);
    let _shop = agent.sallyport("shop-1");
    eventually("the edge answers", || answers(to_edge).then_some(()));
    let answer = Request::new(local(to_edge), "GET", "/x")
        .header("X-Consul-Client-Service", "forged")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed("X-Consul-Client-Service"), ["shop"]);
    // Outside the mesh nobody is the shop.
    let outside = gateway
        .get("/x")
        .header("X-Consul-Client-Service", "shop")
        .send();
    assert!(
        outside.status == 401 || outside.status == 403,
        "{}",
        outside.status
    );
    agent.intend("shop", "edge", "deny");
    eventually("the shop is denied", || {
        let answer = Request::new(local(to_edge), "GET", "/x").try_send();
        answer
            .is_ok_and(|answer| answer.status == 403)
            .then_some(())
    });
}
