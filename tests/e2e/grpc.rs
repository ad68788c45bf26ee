//! gRPC with real clients and servers: unary calls, streams, trailers, and the gateway's own errors.

use serde_json::{Value, json};

use crate::harness::{Authority, Gateway, Origin, Program, curl, python_client};

/// A gateway before a gRPC server, with h2 in plain text and over TLS.
fn before(port: u16, more: Value) -> Gateway {
    let mut service = json!({
        "name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": port,
        "routes": [{"name": "grpc", "protocols": ["grpc", "grpcs"], "paths": ["/test.Echo"]}],
    });
    for (key, value) in more.as_object().expect("fields") {
        service[key] = value.clone();
    }
    Gateway::builder()
        .debug_headers()
        .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 http2 ssl")
        .declarative(&json!({"_format_version": "3.0", "services": [service]}).to_string())
        .start()
}

#[track_caller]
fn check(gateway: &Gateway, name: &str) -> String {
    let output = python_client("grpc_client.py", &[&gateway.proxy().to_string(), name]);
    assert!(output.ends_with("good\n"), "{output}");
    output
}

#[test]
fn unary_calls_pass_with_metadata_and_trailers() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    check(&gateway, "unary");
    let metadata = check(&gateway, "metadata");
    let seen: Value = serde_json::from_str(metadata.lines().next().expect("a line")).expect("JSON");
    assert_eq!(seen["x-mine"], "1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-kong-request-id"].as_str().map(str::len), Some(32));
}

#[test]
fn streams_flow_in_both_directions_message_by_message() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    check(&gateway, "streams");
}

#[test]
fn errors_of_the_server_reach_the_client_with_their_message() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    check(&gateway, "errors");
}

#[test]
fn calls_pass_over_tls() {
    let mut server = Program::start("grpc_server.py", &[]);
    let authority = Authority::new();
    let pair = authority.issue(&["grpc.test"]);
    let gateway = Gateway::builder()
        .declarative(
            &json!({
                "_format_version": "3.0",
                "certificates": [{"cert": pair.certificate, "key": pair.key, "snis": [{"name": "grpc.test"}]}],
                "services": [{
                    "name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": server.port(),
                    "routes": [{"name": "grpcs", "protocols": ["grpcs"], "paths": ["/test.Echo"]}],
                }],
            })
            .to_string(),
        )
        .start();
    let root = gateway.folder().join("root.pem");
    std::fs::write(&root, authority.pem()).expect("a file");
    let root = root.to_str().expect("UTF-8");
    for name in ["unary", "streams", "errors", "binary", "interop"] {
        let target = gateway.tls().to_string();
        let output = python_client("grpc_client.py", &[&target, name, root, "grpc.test"]);
        assert!(output.ends_with("good\n"), "{output}");
    }
}

#[test]
fn an_upstream_over_tls_is_called() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        ("certificate.pem", &pair.certificate),
        ("key.pem", &pair.key),
    ]
    .map(|(name, pem)| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).expect("a file");
        file.display().to_string()
    });
    let mut server = Program::start("grpc_server.py", &[&files[0], &files[1]]);
    let port = server.port();
    let gateway = before(port, json!({"protocol": "grpcs", "host": "localhost"}));
    for name in ["unary", "streams", "errors", "binary", "interop"] {
        check(&gateway, name);
    }
}

#[test]
fn binary_metadata_and_the_interop_cases_pass() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    for name in ["binary", "interop"] {
        check(&gateway, name);
    }
}

#[test]
fn a_client_that_gives_up_ends_its_call_at_the_server() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    let target = gateway.proxy().to_string();
    let waits = |name: &str, server: &mut Program| {
        let client = Program::start("grpc_client.py", &[&target, name]);
        assert_eq!(server.line(), "waiting", "{name}");
        client
    };
    for name in ["cancel_unary", "cancel_stream"] {
        let mut client = waits(name, &mut server);
        client.tell("give up");
        assert_eq!(client.line(), "good");
        assert_eq!(server.line(), "cancelled", "{name}");
    }
    // Not even a farewell.
    drop(waits("cancel_unary", &mut server));
    assert_eq!(server.line(), "cancelled");
    check(&gateway, "deadlines");
    assert_eq!(server.line(), "waiting");
    assert_eq!(server.line(), "cancelled");
    // The connection to the server is none the worse.
    check(&gateway, "unary");
}

#[test]
fn a_slow_reader_of_a_stream_slows_the_server_and_fills_no_memory() {
    /// 256 MiB in all; on the way are windows of both connections and buffers of four sockets.
    const MESSAGES_MAX: usize = 1024;
    const GROWTH_KIB_MAX: u64 = 96 * 1024;
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    check(&gateway, "unary");
    let before = resident_kib(gateway.pid());
    let target = gateway.proxy().to_string();
    let mut client = Program::start("grpc_client.py", &[&target, "slow_reader"]);
    let sent: usize = client.line().parse().expect("a number");
    let after = resident_kib(gateway.pid());
    assert!(
        sent < MESSAGES_MAX,
        "{sent} messages of 64 KiB were taken in"
    );
    let growth = after.saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    client.tell("go on");
    assert_eq!(client.line(), "good");
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn a_call_without_a_route_is_a_grpc_error() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    let output = check(&gateway, "no_route");
    assert!(
        output.contains("no Route matched with those values"),
        "{output}"
    );
}

#[test]
fn a_dead_upstream_is_a_grpc_error() {
    let gateway = before(Origin::refused().port(), json!({"retries": 0}));
    let output = check(&gateway, "one_error");
    assert!(
        output.starts_with("UNAVAILABLE") || output.starts_with("INTERNAL"),
        "{output}"
    );
}

#[test]
fn a_refusing_plugin_is_a_grpc_error() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({"plugins": [{"name": "key-auth"}]}));
    let output = check(&gateway, "one_error");
    assert!(
        output.starts_with("UNAUTHENTICATED No API key found in request"),
        "{output}"
    );
}

#[test]
fn a_grpc_route_refuses_what_is_not_grpc() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port(), json!({}));
    let url = format!("http://{}/test.Echo/Unary", gateway.proxy());
    let answer = curl(&[
        "--http2-prior-knowledge",
        "-i",
        "-X",
        "POST",
        "-d",
        "x",
        &url,
    ]);
    assert!(answer.starts_with("HTTP/2 415"), "{answer}");
    assert!(
        answer.contains("Non-gRPC request matched gRPC route"),
        "{answer}"
    );
    let answer = gateway
        .request("POST", "/test.Echo/Unary")
        .header("Content-Type", "application/grpc")
        .body("x")
        .send();
    let answer = answer.expect_status(426);
    assert!(
        answer.text().contains("Please use HTTP2 protocol"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("Upgrade"), Some("HTTP/2"));
}
