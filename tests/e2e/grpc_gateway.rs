//! `grpc-gateway`: JSON over HTTP/1.1 and HTTP/2 to a real gRPC server, by the rules of a `.proto` file.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Program, Response, curl, eventually};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn library() -> String {
    let path = source("tests/e2e/clients/library.proto");
    path.to_str().expect("UTF-8").to_owned()
}

/// The server's own code is made from the gateway's built-in files.
fn server() -> Program {
    let built_in = source("src/plugins/shared/proto");
    Program::start("library_server.py", &[built_in.to_str().expect("UTF-8")])
}

fn document(port: u16, plugins: &Value) -> String {
    json!({
        "_format_version": "3.0",
        "services": [{
            "name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": port, "retries": 0,
            "routes": [{"name": "rest", "protocols": ["http", "https"], "paths": ["/v1"]}],
            "plugins": plugins,
        }],
    })
    .to_string()
}

fn before(port: u16) -> Gateway {
    Gateway::builder()
        .setting("proxy_listen", "127.0.0.1:0 http2")
        .declarative(&document(
            port,
            &json!([{"name": "grpc-gateway", "config": {"proto": library()}}]),
        ))
        .start()
}

fn call(gateway: &Gateway, method: &str, target: &str, body: &str) -> Response {
    let request = gateway.request(method, target);
    match body {
        "" => request.send(),
        body => request
            .header("Content-Type", "application/json")
            .body(body)
            .send(),
    }
}

#[test]
fn paths_queries_and_bodies_become_messages_and_answers_json() {
    let mut server = server();
    let gateway = before(server.port());
    let answer = call(
        &gateway,
        "GET",
        "/v1/shelves/a%2Fb?view.full=true&view.fields=x&view.fields=y%20z&unknown=1",
        "",
    )
    .expect_status(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(answer.header("x-initial"), Some("yes"));
    let expected = json!({
        "name": "shelves/a%2Fb", "theme": "full", "places": 1_152_921_504_606_846_976_u64, "mood": "MOOD_UNKNOWN",
        "tags": ["x", "y z"], "made": "2023-11-14T22:13:20Z", "counts": {},
    });
    assert_eq!(answer.json(), expected);
    let answer = call(&gateway, "VIEW", "/v1/shelves/1", "").expect_status(200);
    assert_eq!(answer.json()["name"], "shelves/1");
    let body = r#"{"name":"shelves/2","theme":"sea","mood":"MOOD_CALM","counts":{"a":3},"made":"2026-01-02T03:04:05Z"}"#;
    let answer = call(&gateway, "POST", "/v1/shelves?request_id=r", body).expect_status(200);
    let shelf = answer.json();
    assert_eq!(shelf["theme"], "sea (r)");
    assert_eq!(shelf["mood"], "MOOD_CALM");
    assert_eq!(shelf["counts"], json!({"a": 3}));
    assert_eq!(shelf["made"], "2026-01-02T03:04:05Z");
    let answer = call(
        &gateway,
        "PATCH",
        "/v1/shelves/9",
        r#"{"name":"x","places":"5"}"#,
    );
    let shelf = answer.expect_status(200).json();
    assert_eq!(
        (&shelf["name"], &shelf["places"]),
        (&json!("shelves/9"), &json!(5))
    );
    let answer = call(&gateway, "GET", "/v1/shelves/9:tags?view.fields=t", "");
    assert_eq!(answer.expect_status(200).json(), json!(["t"]));
    let answer = call(&gateway, "DELETE", "/v1/shelves/9", "").expect_status(200);
    assert_eq!(answer.text(), "{}");
    let large = format!(r#"{{"theme":"{}"}}"#, "x".repeat(600_000));
    let answer = call(&gateway, "PATCH", "/v1/shelves/9", &large).expect_status(200);
    assert_eq!(answer.json()["theme"].as_str().map(str::len), Some(600_000));
}

#[test]
fn streams_are_lines_and_bodies_of_many_messages_are_streams() {
    let mut server = server();
    let gateway = before(server.port());
    let answer = call(&gateway, "GET", "/v1/shelves/1/books?count=500", "").expect_status(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let books: Vec<Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(books.len(), 500);
    assert_eq!(books[499], json!({"title": "shelves/1 499", "number": 499}));
    let answer = call(&gateway, "GET", "/v1/shelves/1/books", "").expect_status(200);
    assert_eq!(answer.text(), "");
    let answer = call(
        &gateway,
        "GET",
        "/v1/shelves/1/books?count=5&fail_after=2",
        "",
    );
    let text = answer.expect_status(200).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[2], r#"{"error":{"code":8,"message":"no more"}}"#);
    let body = "{\"book\":{\"number\":1}}\n{\"book\":{\"number\":2},\"shelf\":\"not this\"}\n{\"book\":{\"number\":4}}";
    let answer = call(&gateway, "POST", "/v1/shelves/s/books:add", body).expect_status(200);
    assert_eq!(answer.json(), json!({"count": 7, "last_shelf": "s"}));
}

#[test]
fn failures_have_the_status_of_their_code_wherever_the_upstream_says_it() {
    let mut server = server();
    let gateway = before(server.port());
    let codes = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 500),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ];
    for (code, status) in codes {
        for late in [false, true] {
            let target = format!("/v1/fail/{code}?late={late}&message=m%C3%A4");
            let answer = call(&gateway, "GET", &target, "").expect_status(status);
            assert_eq!(
                answer.json(),
                json!({"code": code, "message": "mä"}),
                "{late}"
            );
            assert_eq!(answer.header("grpc-status"), Some(&*code.to_string()));
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
        }
    }
    let answer = call(&gateway, "GET", "/v1/shelves/missing", "").expect_status(404);
    assert_eq!(answer.json()["message"], "no shelf like that: 100% sure, ä");
}

#[test]
fn what_fits_no_rule_is_refused_with_400() {
    let mut server = server();
    let gateway = before(server.port());
    for (method, target, body, expected) in [
        (
            "GET",
            "/v1/nothing",
            "",
            "failed to transcode .proto file Unknown path \"/v1/nothing\"",
        ),
        (
            "BREW",
            "/v1/shelves/1",
            "",
            "failed to transcode .proto file Unknown method \"BREW\"",
        ),
        (
            "PATCH",
            "/v1/shelves/1",
            "{",
            "the body is not JSON that fits: EOF",
        ),
        (
            "PATCH",
            "/v1/shelves/1",
            r#"{"places":"many"}"#,
            "the body is not JSON that fits: ",
        ),
        (
            "GET",
            "/v1/fail/five",
            "",
            "'five' does not fit field 'code'",
        ),
        (
            "GET",
            "/v1/shelves/1?view=x",
            "",
            "'view' is a message: name one of its fields",
        ),
    ] {
        let answer = call(&gateway, method, target, body).expect_status(400);
        assert!(
            answer.message().starts_with(expected),
            "{}",
            answer.message()
        );
    }
    let preflight = call(&gateway, "OPTIONS", "/v1/shelves/1", "").expect_status(200);
    assert_eq!(preflight.header("Access-Control-Allow-Origin"), Some("*"));
    let dead = before(Origin::refused().port());
    call(&dead, "GET", "/v1/shelves/1", "").expect_status(502);
}

#[test]
fn clients_of_http2_are_served_alike() {
    let mut server = server();
    let gateway = before(server.port());
    let fetch = |target: &str, more: &[&str]| {
        let url = format!("http://{}{target}", gateway.proxy());
        curl(&[&["--http2-prior-knowledge", "-i", &url], more].concat())
    };
    let answer = fetch("/v1/shelves/1?view.full=true", &[]);
    assert!(answer.starts_with("HTTP/2 200"), "{answer}");
    assert!(answer.contains(r#""theme":"full""#), "{answer}");
    let answer = fetch("/v1/shelves/1/books?count=3", &[]);
    assert!(
        answer.ends_with("{\"title\":\"shelves/1 2\",\"number\":2}\n"),
        "{answer}"
    );
    let answer = fetch("/v1/shelves/missing", &[]);
    assert!(answer.starts_with("HTTP/2 404"), "{answer}");
    let answer = fetch("/v1/nothing", &[]);
    assert!(answer.starts_with("HTTP/2 400"), "{answer}");
    assert!(answer.contains("Unknown path"), "{answer}");
    let answer = fetch("/v1/shelves", &["-d", r#"{"theme":"t"}"#]);
    assert!(answer.contains(r#""theme":"t ()""#), "{answer}");
    // Faults of the gateway's own are no gRPC either.
    let dead = before(Origin::refused().port());
    let url = format!("http://{}/v1/shelves/1", dead.proxy());
    let answer = curl(&["--http2-prior-knowledge", "-i", &url]);
    assert!(answer.starts_with("HTTP/2 502"), "{answer}");
}

#[test]
fn the_upstream_gets_what_grpc_wants_and_other_plugins_run() {
    let mut server = server();
    let gateway = Gateway::with(&document(
        server.port(),
        &json!([
            {"name": "grpc-gateway", "config": {"proto": library()}},
            {"name": "request-transformer", "config": {"add": {"headers": ["x-added:1"]}}},
            {"name": "response-transformer", "config": {"add": {"headers": ["x-back:2"]}}},
        ]),
    ));
    let answer = gateway
        .get("/v1/metadata")
        .header("X-Mine", "m")
        .header("grpc-accept-encoding", "gzip")
        .send()
        .expect_status(200);
    assert_eq!(answer.header("x-back"), Some("2"));
    let seen = &answer.json()["metadata"];
    assert_eq!(seen["x-mine"], "m");
    assert_eq!(seen["x-added"], "1");
    assert_eq!(seen["x-forwarded-proto"], "http");
}

#[test]
fn broken_files_are_refused_by_file_and_line_and_harm_nobody() {
    let mut server = server();
    let port = server.port();
    let gateway = Gateway::stored();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let admin = gateway.admin();
    let service = json!({"name": "grpc", "protocol": "grpc", "host": "127.0.0.1", "port": port});
    admin.create("/services", service);
    admin.create(
        "/services/grpc/routes",
        json!({"paths": ["/v1"], "protocols": ["http"]}),
    );
    let refuse = |proto: &str, expected: &str| {
        let body = json!({"name": "grpc-gateway", "config": {"proto": proto}});
        let answer = admin
            .post("/services/grpc/plugins", body)
            .expect_status(400);
        let text = answer.json()["fields"]["config"]["proto"].to_string();
        assert!(text.contains(expected), "{text}");
    };
    refuse(
        &file("a.proto", b"syntax = \"proto3\";\nmassage A {}"),
        "a.proto:2:1: ",
    );
    refuse(
        &file("b.proto", &vec![b' '; 1_100_000]),
        "b.proto: is longer than 1048576 bytes",
    );
    refuse("gone.proto", "gone.proto: there is no such file");
    refuse("/dev/zero", "must end in '.proto'");
    refuse(
        &file("c.proto", b"syntax = \"proto3\"; import \"google/api/annotations.proto\";\nmessage M {} service S {\n rpc A(M) returns (M) { option (google.api.http) = { get: \"/{x}\" }; } }"),
        "c.proto:3: rule of method 'S.A': 'x' is no field of message 'M'",
    );
    let deep = format!("syntax = \"proto3\"; option a = {}", "{a:".repeat(200_000));
    refuse(&file("d.proto", deep.as_bytes()), "nested deeper than 64");
    let body = json!({"name": "grpc-gateway", "config": {"proto": library()}});
    admin
        .post("/services/grpc/plugins", body)
        .expect_status(201);
    let wrong = json!([{"name": "grpc-gateway", "config": {"proto": file("e.proto", b"\n\n}")}}]);
    let (_, said) = Gateway::builder()
        .declarative(&document(port, &wrong))
        .try_start()
        .err()
        .expect("it does not start");
    assert!(
        said.contains("kong.yml:1: ") && said.contains("e.proto:3:1: "),
        "{said}"
    );
    eventually("the rules serve", || {
        (call(&gateway, "GET", "/v1/shelves/1", "").status == 200).then_some(())
    });
}
