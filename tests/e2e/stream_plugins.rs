//! Plugins on streams: who may connect, what is logged and counted.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener};

use serde_json::{Value, json};

use crate::harness::{Gateway, eventually, tls_stream};
use crate::streams::{connect, document, echo, echoes, gateway, is_closed, plain_route, service};

fn plugin(name: &str, config: Value) -> Value {
    json!({"name": name, "config": config, "protocols": ["tcp", "tls"]})
}

#[test]
fn addresses_are_refused_and_every_stream_is_logged_and_counted() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let collected = collector.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("streams.log");
    let routes = json!([
        plain_route(),
        {
            "name": "refused", "protocols": ["tls"], "snis": ["refused.test"],
            "plugins": [{"name": "ip-restriction", "config": {"deny": ["127.0.0.1"]}}],
        },
    ]);
    let origin = echo();
    let mut declarative = document(json!([service("tcp", origin, routes)]));
    declarative["plugins"] = json!([
        plugin("tcp-log", json!({"host": "127.0.0.1", "port": collected.port()})),
        plugin("file-log", json!({"path": file.display().to_string()})),
        plugin("prometheus", json!({
            "status_code_metrics": true, "bandwidth_metrics": true, "latency_metrics": true,
        })),
        // For requests only: streams are not its business.
        {"name": "request-termination"},
    ]);
    let gateway = gateway(&declarative);
    let mut stream = connect(gateway.stream());
    echoes(&mut stream, "hello");
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(stream));
    let mut entries = BufReader::new(collector.accept().unwrap().0).lines();
    let mut next = || -> Value { serde_json::from_str(&entries.next().unwrap().unwrap()).unwrap() };
    let entry = next();
    for (pointer, expected) in [
        ("/session/received", json!(5)),
        ("/session/sent", json!(5)),
        ("/session/status", json!(200)),
        ("/session/server_port", json!(gateway.stream().port())),
        ("/session/tls", Value::Null),
        ("/upstream/received", json!(5)),
        ("/client_ip", json!("127.0.0.1")),
        ("/route/name", json!("plain")),
        ("/service/port", json!(origin.port())),
        ("/tries/0/port", json!(origin.port())),
        ("/request", Value::Null),
    ] {
        let found = entry.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{pointer} of {entry}");
    }
    drop(tls_stream(gateway.stream_tls(), Some("refused.test"), b""));
    let entry = next();
    assert_eq!(entry["session"]["status"], 403, "{entry}");
    assert_eq!(entry["session"]["tls"]["client_verify"], "NONE", "{entry}");
    assert_eq!(entry["upstream"], Value::Null, "{entry}");
    // Nobody's route: the global instances are told.
    tls_stream_refused(&gateway);
    let entry = next();
    assert_eq!(entry["session"]["status"], 500, "{entry}");
    assert_eq!(entry["route"], Value::Null, "{entry}");

    let logged = eventually("three lines in the file", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        (text.lines().count() == 3).then_some(text)
    });
    assert!(logged.contains("\"status\":403"), "{logged}");
    let metrics = gateway.metrics();
    let name = format!("tcp-{}", origin.port());
    for line in [
        format!(
            "kong_stream_sessions_total{{code=\"200\",route=\"plain\",service=\"{name}\",source=\"service\",workspace=\"default\"}} 1"
        ),
        format!(
            "kong_stream_sessions_total{{code=\"403\",route=\"refused\",service=\"{name}\",source=\"kong\",workspace=\"default\"}} 1"
        ),
        format!(
            "kong_session_duration_ms_count{{route=\"plain\",service=\"{name}\",workspace=\"default\"}} 1"
        ),
        format!(
            "kong_bandwidth_bytes{{consumer=\"\",direction=\"ingress\",route=\"plain\",service=\"{name}\",workspace=\"default\"}} 5"
        ),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// A handshake for a name without a route, which is not answered.
fn tls_stream_refused(gateway: &Gateway) {
    let connector = boring::ssl::SslConnector::builder(boring::ssl::SslMethod::tls()).unwrap();
    let stream = connect(gateway.stream_tls());
    assert!(connector.build().connect("unknown.test", stream).is_err());
}

#[test]
fn plugins_for_requests_are_refused_on_streams() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create(
        "/services",
        json!({"name": "s", "protocol": "tcp", "host": "127.0.0.1", "port": 1}),
    );
    admin.create(
        "/services/s/routes",
        json!({"name": "r", "protocols": ["tcp"], "sources": [{"port": 1}]}),
    );
    for (plugin, message) in [
        (
            json!({"name": "key-auth"}),
            "must match the associated route's protocols",
        ),
        (
            json!({"name": "file-log", "config": {"path": "/tmp/x"}}),
            "must match the associated route's protocols",
        ),
        (
            json!({"name": "key-auth", "protocols": ["tcp"]}),
            "expected one of: ",
        ),
    ] {
        let answer = admin.post("/routes/r/plugins", plugin).expect_status(400);
        assert!(answer.text().contains(message), "{}", answer.text());
    }
    for plugin in [
        json!({"name": "ip-restriction", "config": {"allow": ["127.0.0.1"]}}),
        json!({"name": "file-log", "protocols": ["tcp"], "config": {"path": "/tmp/x"}}),
        json!({"name": "tcp-log", "protocols": ["tcp"], "config": {"host": "127.0.0.1", "port": 9}}),
        json!({"name": "prometheus", "protocols": ["tcp"]}),
    ] {
        admin.post("/routes/r/plugins", plugin).expect_status(201);
    }
}
