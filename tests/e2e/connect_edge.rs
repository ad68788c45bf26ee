//! Consul Connect: the gateway itself as a service of the mesh, whose Kong routes lead to others there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::consul::{Agent, LeafKind, MeshAuthority, Running, call_as, free_ports};
use crate::harness::{
    Client, Driver, Gateway, GatewayBuilder, Origin, Program, Traffic, eventually,
    for_both_drivers, python_client,
};

/// A service behind Consul's own proxy.
struct Behind {
    public: u16,
    _proxy: Running,
}

fn behind(agent: &Agent, name: &str, application: u16) -> Behind {
    let [public] = free_ports();
    agent.register(name, application, public, json!({}), &json!([]));
    let proxy = agent.built_in_proxy(&format!("{name}-1"));
    Behind {
        public,
        _proxy: proxy,
    }
}

fn edge(agent: &Agent, document: &Value) -> GatewayBuilder {
    Gateway::builder()
        .setting("consul_service", "edge")
        .setting("consul_http_addr", &agent.address.to_string())
        .declarative(&document.to_string())
}

/// A service with one route, `/NAME`.
fn service(name: &str, host: &str, more: &Value) -> Value {
    let mut service = json!({"name": name, "host": host, "port": 80, "protocol": "http", "retries": 1,
        "routes": [{"name": name, "paths": [format!("/{name}")], "strip_path": false}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        service[key] = value.clone();
    }
    service
}

#[track_caller]
fn serves(gateway: &Gateway, target: &str) {
    eventually(target, || {
        let answer = gateway.get(target).try_send();
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
}

#[test]
fn services_upstreams_and_queries_lead_into_the_mesh() {
    for_both_drivers(through_the_edge);
}

fn through_the_edge(driver: Driver) {
    let agent = Agent::start();
    let db = Origin::echo();
    let behind_db = behind(&agent, "db", db.port());
    // A registration that leads to somebody else's proxy.
    let liar = json!({"Name": "liar", "ID": "liar-1", "Port": 1, "Connect": {"SidecarService": {
        "Port": behind_db.public, "Check": {"Name": "alive", "TTL": "3600s", "Status": "passing"}}}});
    agent.ask("PUT", "/v1/agent/service/register", &liar);
    let query =
        json!({"Name": "find-db", "Service": {"Service": "db", "Failover": {"Datacenters": []}}});
    agent.ask("POST", "/v1/query", &query);
    let correlated =
        json!({"plugins": [{"name": "correlation-id", "config": {"header_name": "X-Seen"}}]});
    let document = json!({
        "_format_version": "3.0",
        "services": [
            service("plain", "db.connect.consul", &correlated),
            service("secure", "DB.connect.consul", &json!({"protocol": "https"})),
            service("named", "db", &json!({})),
            service("targets", "shares", &json!({})),
            service("query", "find-db.query.consul", &json!({})),
            service("liar", "liar.connect.consul", &json!({})),
            service("nobody", "nobody.connect.consul", &json!({})),
        ],
        "upstreams": [
            {"name": "db", "tags": ["consul-connect"]},
            {"name": "shares", "tags": ["consul-connect"], "algorithm": "least-connections",
             "targets": [{"target": "db:80"}, {"target": "nobody:80"}]},
        ],
    });
    let gateway = edge(&agent, &document).driver(driver).start();
    for (target, host) in [
        ("/plain", "db.connect.consul"),
        ("/secure", "DB.connect.consul"),
        ("/named", "db"),
        ("/targets", "db"),
        ("/query", "find-db.query.consul"),
    ] {
        serves(&gateway, target);
        let answer = gateway.get(target).send().expect_status(200);
        assert_eq!(answer.echoed("Host"), [host], "{target}");
        let long = vec![b'x'; 200_000];
        let answer = gateway.request("POST", target).body(long).send();
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
    let answer = gateway.get("/plain").send().expect_status(200);
    assert_eq!(answer.echoed("X-Seen").len(), 1);

    // Connections are kept, each under our identity.
    let before = gateway.metrics();
    for _ in 0..20 {
        gateway.get("/plain").send().expect_status(200);
    }
    let connected = "sallyport_connect_outbound_connected_total{upstream=\"db.connect.consul\"}";
    let count = |page: &str, name: &str| -> u64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    };
    let made = count(&gateway.metrics(), connected) - count(&before, connected);
    assert!(made <= 5, "{made} connections for 20 requests");

    // Somebody else's certificate, and nobody at all.
    let received = db.received().len();
    eventually("the liar is found out", || {
        (gateway.get("/liar").send().status == 502).then_some(())
    });
    assert_eq!(db.received().len(), received);
    let wrong = "sallyport_connect_outbound_failed_total{upstream=\"liar.connect.consul\",reason=\"wrong_service\"}";
    assert!(count(&gateway.metrics(), wrong) > 0);
    assert_eq!(gateway.get("/nobody").send().status, 503);
    let status = gateway.status_page();
    let upstreams = status["connect"]["upstreams"].as_array().expect("a list");
    let of = |name: &str| {
        let found = upstreams.iter().find(|one| one["destination"] == name);
        found.unwrap_or_else(|| panic!("{name} in {status}"))
    };
    assert_eq!(of("db.connect.consul")["instances"], 1);
    assert_eq!(
        of("nobody.connect.consul")["trouble"],
        "there is no healthy instance"
    );

    // Who may not call is told so by the other side.
    let web = Origin::echo();
    agent.intend("edge", "web", "deny");
    let _web = behind(&agent, "web", web.port());
    let denied = json!({"_format_version": "3.0",
        "services": [service("web", "web.connect.consul", &json!({}))]});
    let denied = edge(&agent, &denied).driver(driver).start();
    eventually("the call is denied", || {
        (denied.get("/web").send().status == 502).then_some(())
    });
    assert_eq!(web.received().len(), 0);
}

#[test]
fn tunnels_and_calls_cross_the_mesh() {
    let agent = Agent::start();
    let chat = Origin::conversing(|mut stream, _| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..count]);
        }
    });
    let mut calls = Program::start("grpc_server.py", &[]);
    let _chat = behind(&agent, "chat", chat.port());
    let _calls = behind(&agent, "calls", calls.port());
    let grpc = json!({"name": "calls", "protocol": "grpc", "host": "calls.connect.consul", "port": 80,
        "routes": [{"name": "calls", "protocols": ["grpc", "grpcs"], "paths": ["/test.Echo"]}]});
    let document = json!({"_format_version": "3.0",
        "services": [service("chat", "chat.connect.consul", &json!({})), grpc]});
    let gateway = edge(&agent, &document)
        .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 http2 ssl")
        .start();
    let handshake = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut client = eventually("a tunnel", || {
        let mut client = Client::connect(gateway.proxy());
        client.send(handshake);
        let (status, _) = client.try_read_head().ok()?;
        (status == 101).then_some(client)
    });
    client.send("ping");
    assert_eq!(client.read_exactly(4).expect("an echo"), b"ping");
    for kind in ["unary", "streams", "errors"] {
        let output = python_client("grpc_client.py", &[&gateway.proxy().to_string(), kind]);
        assert!(output.ends_with("good\n"), "{kind}: {output}");
    }
}

#[test]
fn a_new_authority_loses_no_request_at_the_edge() {
    let agent = Agent::start();
    let db = Origin::echo();
    let _db = behind(&agent, "db", db.port());
    let document = json!({"_format_version": "3.0",
        "services": [service("db", "db.connect.consul", &json!({"retries": 0}))]});
    let gateway = edge(&agent, &document).start();
    serves(&gateway, "/db");
    let address = gateway.proxy();
    let mut client = None;
    let mut left = 0;
    let traffic = Traffic::start(move || {
        // A connection serves for twenty requests.
        if left == 0 {
            (client, left) = (None, 20);
        }
        left -= 1;
        let client = client.get_or_insert_with(|| Client::connect(address));
        let answer = client.exchange("GET /db HTTP/1.1\r\nHost: a\r\n\r\n");
        match answer.status {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        }
    });
    traffic.goes_on(1);
    let next = MeshAuthority::new();
    let configuration = json!({"Provider": "consul", "Config": {
        "PrivateKey": next.key_pem(), "RootCert": next.pem(), "LeafCertTTL": "1h",
    }});
    agent.ask("PUT", "/v1/connect/ca/configuration", &configuration);
    let until = Instant::now() + Duration::from_secs(45);
    let rotations = "sallyport_connect_leaf_rotations{service=\"edge\"} 3";
    while !gateway.metrics().contains(rotations) {
        assert!(Instant::now() < until, "no new leaf");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    // It may have come at once, and what it is good for shows only now.
    traffic.goes_on(100);
    traffic.end().expect("nothing is lost");
}

#[test]
fn plain_names_of_consul_resolve_to_addresses_and_ports() {
    let agent = Agent::start();
    let db = Origin::echo();
    let registration = json!({"Name": "db", "Port": db.port(), "Address": "127.0.0.1"});
    agent.ask("PUT", "/v1/agent/service/register", &registration);
    let document = json!({"_format_version": "3.0",
        "services": [
            service("plain", "db.service.consul", &json!({})),
            service("target", "by-dns", &json!({})),
        ],
        "upstreams": [{"name": "by-dns", "targets": [{"target": "db.service.consul:1"}]}],
    });
    let gateway = Gateway::builder()
        .setting("dns_resolver", &agent.dns.to_string())
        .declarative(&document.to_string())
        .start();
    // The port is that of the SRV record.
    serves(&gateway, "/plain");
    serves(&gateway, "/target");
    assert!(db.received().len() >= 2);
}

#[test]
fn an_upgrade_keeps_the_door_for_the_mesh_open() {
    let agent = Agent::start();
    let origin = Origin::echo();
    let [door] = free_ports();
    let document = json!({"_format_version": "3.0", "services": [
        {"name": "all", "url": origin.url(), "routes": [{"name": "all", "paths": ["/"]}]}]});
    let gateway = edge(&agent, &document)
        .setting(
            "proxy_listen",
            &format!("127.0.0.1:0, 127.0.0.1:{door} connect"),
        )
        .start();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, door));
    let leaf = agent.authority.issue(&LeafKind::of("shop"));
    let ask = move || {
        let mut stream = call_as(address, Some(&leaf))?;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).ok()?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    };
    eventually("callers are served", &ask);
    let traffic = Traffic::start(move || ask().ok_or_else(|| "no good answer".to_owned()));
    traffic.goes_on(1);
    let upgraded = gateway.run(&["upgrade"]);
    let told = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    // The old one ends when it has drained.
    let pid = gateway.pid();
    eventually("the old one has gone", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
    let lost = traffic.end();
    let ended = gateway.run(&["stop"]);
    assert!(upgraded.status.success(), "{told}");
    assert!(ended.status.success());
    lost.expect("nothing is lost");
}
