//! WebSocket routes whose messages the gateway reads: protocols `ws` and `wss`, plugins in both directions, and bad frames.

use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, GatewayBuilder, Origin, Program, Reply, curl, python_client,
};

const HANDSHAKE: &str = "GET /ws/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A gateway before an echoing server: a route of messages under `/ws`, a tunnel of bytes under `/raw`.
fn before(port: u16, plugins: Value) -> Gateway {
    configured(port, plugins).start()
}

fn configured(port: u16, plugins: Value) -> GatewayBuilder {
    let text = json!({
        "_format_version": "3.0",
        "services": [
            {"name": "frames", "protocol": "ws", "host": "127.0.0.1", "port": port, "path": "/",
             "routes": [
                {"name": "ws", "protocols": ["ws", "wss"], "paths": ["/ws"], "plugins": plugins},
                {"name": "secure", "protocols": ["wss"], "paths": ["/secure"]}]},
            {"name": "bytes", "url": format!("http://127.0.0.1:{port}/"),
             "routes": [{"name": "raw", "paths": ["/raw"]}]},
        ],
    });
    Gateway::builder()
        .setting("proxy_listen", "127.0.0.1:0, 127.0.0.1:0 http2 ssl")
        .debug_headers()
        .declarative(&text.to_string())
}

#[track_caller]
fn check(gateway: &Gateway, path: &str, arguments: &[&str]) -> String {
    let address = gateway.proxy();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut all = vec![host.as_str(), port.as_str(), path];
    all.extend(arguments);
    python_client("websocket_frames.py", &all).trim().to_owned()
}

#[test]
fn messages_pass_both_ways_as_they_were_sent() {
    let mut server = Program::start("websocket_server.py", &[]);
    let gateway = before(server.port(), json!([]));
    assert_eq!(check(&gateway, "/ws/echo", &["echo"]), "good");
    assert_eq!(check(&gateway, "/ws/echo", &["fragments"]), "3456");
    let plain = python_client(
        "websocket_client.py",
        &[&format!("ws://{}/ws", gateway.proxy())],
    );
    assert_eq!(plain.trim(), "good");
    for path in ["ws", "secure"] {
        let url = format!("wss://{}/{path}", gateway.tls());
        assert_eq!(python_client("websocket_client.py", &[&url]).trim(), "good");
    }
}

#[test]
fn what_is_sent_with_the_handshake_is_the_first_of_the_tunnel() {
    let mut server = Program::start("websocket_server.py", &[]);
    let gateway = before(server.port(), json!([]));
    for path in ["/ws/echo", "/raw/echo"] {
        for _ in 0..30 {
            assert_eq!(check(&gateway, path, &["behind"]), "good", "{path}");
        }
    }
}

#[test]
fn bad_frames_are_refused_and_harm_nobody_else() {
    let mut server = Program::start("websocket_server.py", &[]);
    let gateway = before(server.port(), json!([]));
    let address = gateway.proxy();
    let mut beside = Program::start(
        "websocket_frames.py",
        &[
            &address.ip().to_string(),
            &address.port().to_string(),
            "/ws/echo",
            "silent",
        ],
    );
    assert_eq!(beside.line().trim(), "open");
    for (broken, code) in [
        ("opcode", "1002"),
        ("reserved", "1002"),
        ("compressed", "1002"),
        ("unmasked", "1002"),
        ("long_control", "1002"),
        ("fragmented_control", "1002"),
        ("continuation", "1002"),
        ("interleaved", "1002"),
        ("close_code", "1002"),
        ("utf8", "1007"),
        ("huge", "1009"),
        ("over_limit", "1009"),
        ("over_limit_in_pieces", "1009"),
    ] {
        assert_eq!(
            check(&gateway, "/ws/echo", &["broken", broken]),
            code,
            "{broken}"
        );
    }
    assert!(beside.is_running());
    assert_eq!(check(&gateway, "/ws/echo", &["echo"]), "good");
}

#[test]
fn sizes_are_limited_as_configured() {
    let mut server = Program::start("websocket_server.py", &[]);
    let port = server.port();
    let plugin = json!([{"name": "websocket-size-limit", "config": {"client_max_payload": 100}}]);
    let gateway = before(port, plugin);
    assert_eq!(
        check(&gateway, "/ws/echo", &["broken", "over_limit"]),
        "1009"
    );
    assert_eq!(check(&gateway, "/ws/echo", &["fragments"]), "3456");
    assert_eq!(check(&gateway, "/ws/echo", &["bomb"]), "1009");

    let plugin = json!([{"name": "websocket-size-limit",
                         "config": {"client_max_payload": 2 << 20, "upstream_max_payload": 100}}]);
    let gateway = before(port, plugin);
    // What the client may send, the upstream may not echo: the client is told that the other side is gone.
    assert_eq!(
        check(&gateway, "/ws/echo", &["broken", "over_limit"]),
        "1001"
    );
}

#[test]
fn messages_are_validated_also_when_compressed() {
    let mut server = Program::start("websocket_server.py", &[]);
    let schema = json!({"type": "object", "required": ["id"]}).to_string();
    let plugin = json!([{"name": "websocket-validator",
        "config": {"client": {"text": {"type": "draft4", "schema": schema}}}}]);
    let gateway = before(server.port(), plugin);
    assert_eq!(check(&gateway, "/ws/echo", &["deflate_opened"]), "1007");
    assert_eq!(
        check(&gateway, "/ws/echo", &["deflate_opened", "not JSON"]),
        "1007"
    );
    let refused = json!({
        "_format_version": "3.0",
        "plugins": [{"name": "websocket-validator",
                     "config": {"client": {"text": {"type": "draft4", "schema": "{"}}}}],
    });
    let failed = Gateway::builder()
        .declarative(&refused.to_string())
        .try_start();
    let (_, errors) = failed.err().expect("a refusal");
    assert!(errors.contains("is not JSON"), "{errors}");
}

#[test]
fn plugins_of_requests_run_only_where_they_are_told_to() {
    let mut server = Program::start("websocket_server.py", &[]);
    let port = server.port();
    let plugins = json!([
        {"name": "key-auth", "protocols": ["ws", "wss"]},
        {"name": "ip-restriction", "protocols": ["http", "ws"], "config": {"deny": ["192.0.2.1"]}},
    ]);
    let gateway = before(port, plugins);
    let handshake = |version: &str| {
        let request = HANDSHAKE.replace("Version: 13", &format!("Version: {version}"));
        Client::connect(gateway.proxy()).exchange(&request)
    };
    handshake("13").expect_status(401);
    let old = handshake("8").expect_status(426);
    assert_eq!(old.header("Sec-WebSocket-Version"), Some("13"));
    let plain = gateway.get("/ws/echo").send().expect_status(426);
    assert_eq!(plain.header("Upgrade"), Some("websocket"));
    let insecure = gateway.get("/secure").send().expect_status(426);
    assert!(insecure.text().contains("HTTPS"), "{}", insecure.text());
    // A plugin for requests does not run on messages, even where its service has both.
    let gateway = configured(port, json!([])).start();
    assert_eq!(check(&gateway, "/ws/echo", &["echo"]), "good");
}

#[test]
fn a_false_proof_of_the_key_is_a_bad_gateway() {
    let origin = Origin::answering(|_| {
        let fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ];
        Reply::new(101, &fields, "")
    });
    let gateway = before(origin.port(), json!([]));
    let handshake = |request: &str| Client::connect(gateway.proxy()).exchange(request);
    handshake(HANDSHAKE).expect_status(502);
    handshake(&HANDSHAKE.replace("dGhl", "d")).expect_status(400);
}

#[test]
fn a_stopping_gateway_closes_with_1001() {
    let mut server = Program::start("websocket_server.py", &[]);
    let mut gateway = configured(server.port(), json!([]))
        .setting("graceful_shutdown_timeout", "1")
        .start();
    let address = gateway.proxy();
    let mut client = Program::start(
        "websocket_frames.py",
        &[
            &address.ip().to_string(),
            &address.port().to_string(),
            "/ws/echo",
            "silent",
        ],
    );
    assert_eq!(client.line().trim(), "open");
    gateway.signal("TERM");
    assert_eq!(client.line().trim(), "1001");
    assert!(gateway.wait().success());
}

#[test]
fn silence_ends_a_tunnel_by_the_key_of_its_own() {
    let mut server = Program::start("websocket_server.py", &[]);
    let gateway = configured(server.port(), json!([]))
        .setting("tunnel_idle_timeout", "1")
        .start();
    assert!(check(&gateway, "/ws/echo", &["silent"]).ends_with("1001"));
}

#[test]
fn clients_of_http2_open_websockets() {
    let mut server = Program::start("websocket_server.py", &[]);
    let gateway = before(server.port(), json!([]));
    for path in ["/ws/echo", "/raw/echo"] {
        let output = python_client(
            "websocket_http2.py",
            &[
                &gateway.tls().ip().to_string(),
                &gateway.tls().port().to_string(),
                path,
            ],
        );
        assert_eq!(output.trim(), "good", "{path}");
    }
    let url = format!("https://{}/ws/echo", gateway.tls());
    let answer = curl(&["-k", "-i", "--http2", &url]);
    assert!(answer.starts_with("HTTP/2 426"), "{answer}");
}
