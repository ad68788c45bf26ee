//! gRPC-Web: browsers' calls over HTTP/1.1 to a real gRPC server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::{Gateway, Origin, Program, Response};

fn before(port: u16) -> Gateway {
    Gateway::with(
        &json!({
            "_format_version": "3.0",
            "services": [{
                "name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": port, "retries": 0,
                "routes": [{"name": "web", "protocols": ["http", "https"], "paths": ["/test.Echo"]}],
                "plugins": [{"name": "grpc-web", "config": {"allow_origin_header": "https://a.test"}}],
            }],
        })
        .to_string(),
    )
}

#[test]
fn messages_in_json_are_translated_by_a_proto_file() {
    let source = |path: &str| format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let mut server = Program::start("library_server.py", &[&source("src/plugins/shared/proto")]);
    let proto = source("tests/e2e/clients/library.proto");
    let gateway = Gateway::with(
        &json!({
            "_format_version": "3.0",
            "services": [{
                "name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": server.port(),
                "routes": [{"name": "web", "protocols": ["http"], "paths": ["/library.v1.Library"]}],
                "plugins": [{"name": "grpc-web", "config": {"proto": proto}}],
            }],
        })
        .to_string(),
    );
    let call = |method: &str, kind: &str, body: Vec<u8>| {
        gateway
            .request("POST", &format!("/library.v1.Library/{method}"))
            .header("Content-Type", kind)
            .body(body)
            .send()
    };
    let kind = "application/grpc-web+json";
    let body = framed(br#"{"name":"shelves/1","view":{"full":true}}"#);
    let answer = call("GetShelf", kind, body.clone()).expect_status(200);
    assert_eq!(answer.header("Content-Type"), Some(kind));
    let (messages, trailers) = frames(&answer.body);
    let shelf: serde_json::Value = serde_json::from_slice(&messages[0]).expect("JSON");
    assert_eq!(
        (&shelf["name"], &shelf["theme"]),
        (&json!("shelves/1"), &json!("full"))
    );
    assert!(trailers.contains("grpc-status: 0"), "{trailers}");
    let books = framed(br#"{"parent":"p","count":300}"#);
    let answer = call("ListBooks", kind, books).expect_status(200);
    let (messages, _) = frames(&answer.body);
    assert_eq!(messages.len(), 300);
    assert_eq!(messages[299], br#"{"title":"p 299","number":299}"#);
    let answer = call("GetShelf", kind, framed(br#"{"name":"missing"}"#)).expect_status(200);
    let (messages, trailers) = frames(&answer.body);
    assert!(
        messages.is_empty() && trailers.contains("grpc-status: 5"),
        "{trailers}"
    );
    let text = STANDARD.encode(&body).into_bytes();
    call("GetShelf", "application/grpc-web-text+json", text).expect_status(200);
    // Protobuf is still understood.
    call("GetShelf", "application/grpc-web", framed(b"\x0a\x01x")).expect_status(200);
    for (method, body) in [
        ("GetShelf", framed(b"{")),
        ("GetShelf", body[..body.len() - 1].to_vec()),
        ("GetShelf", b"\x01\0\0\0\0".to_vec()),
        ("Nothing", body.clone()),
    ] {
        call(method, kind, body).expect_status(400);
    }
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// The messages in a body, and the text of its trailers.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    loop {
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        let payload = body[5..5 + length].to_vec();
        if body[0] == 0x80 {
            assert_eq!(body.len(), 5 + length, "trailers are last");
            return (messages, String::from_utf8(payload).expect("UTF-8"));
        }
        assert_eq!(body[0], 0);
        messages.push(payload);
        body = &body[5 + length..];
    }
}

fn call(gateway: &Gateway, method: &str, kind: &str, body: Vec<u8>) -> Response {
    gateway
        .request("POST", &format!("/test.Echo/{method}"))
        .header("Content-Type", kind)
        .body(body)
        .send()
}

#[test]
fn unary_and_streaming_calls_come_with_their_trailers_in_the_body() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port());
    let kind = "application/grpc-web+proto";
    for size in [0, 5, 300_000] {
        let answer = call(&gateway, "Unary", kind, framed(&vec![b'x'; size])).expect_status(200);
        assert_eq!(answer.header("Content-Type"), Some(kind));
        assert_eq!(
            answer.header("Access-Control-Allow-Origin"),
            Some("https://a.test")
        );
        let (messages, trailers) = frames(&answer.body);
        assert!(messages == [vec![b'x'; size]], "{size}");
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
        assert!(trailers.contains("x-trailer: yes\r\n"), "{trailers}");
    }
    let answer = call(&gateway, "Count", kind, framed(b"500")).expect_status(200);
    let (messages, _) = frames(&answer.body);
    assert_eq!(messages.len(), 500);
    assert_eq!(messages[499], b"499");
}

#[test]
fn base64_is_taken_and_given() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port());
    let body = STANDARD.encode(framed(b"text"));
    let kind = "application/grpc-web-text";
    let answer = call(&gateway, "Unary", kind, body.into_bytes()).expect_status(200);
    assert_eq!(answer.header("Content-Type"), Some(kind));
    let text = answer.text();
    let mut decoded = Vec::new();
    let mut start = 0;
    for end in (4..=text.len()).step_by(4) {
        if text[..end].ends_with('=') || end == text.len() {
            decoded.extend(STANDARD.decode(&text[start..end]).expect("base64"));
            start = end;
        }
    }
    let (messages, trailers) = frames(&decoded);
    assert_eq!(messages, [b"text"]);
    assert!(trailers.contains("grpc-status: 0"), "{trailers}");
    call(&gateway, "Unary", kind, b"!!!!".to_vec()).expect_status(400);
}

#[test]
fn failures_have_a_status_in_the_body_and_strangers_are_refused() {
    let mut server = Program::start("grpc_server.py", &[]);
    let gateway = before(server.port());
    let kind = "application/grpc-web";
    let answer = call(&gateway, "Fail", kind, framed(b"x")).expect_status(200);
    let (messages, trailers) = frames(&answer.body);
    assert!(messages.is_empty());
    assert!(trailers.contains("grpc-status: 10\r\n"), "{trailers}");
    call(&gateway, "Unary", "application/json", b"{}".to_vec()).expect_status(400);
    let preflight = gateway
        .request("OPTIONS", "/test.Echo/Unary")
        .send()
        .expect_status(200);
    assert_eq!(
        preflight.header("Access-Control-Allow-Methods"),
        Some("POST")
    );
    let dead = before(Origin::refused().port());
    call(&dead, "Unary", kind, framed(b"x")).expect_status(502);
}
