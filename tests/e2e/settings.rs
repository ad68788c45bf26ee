//! Settings whose effect a client or an origin sees.

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Origin, Reply, for_both_drivers, one_service, with_plugins};

fn all_routes() -> Value {
    json!([{"name": "all", "paths": ["/"]}])
}

#[test]
fn the_default_error_type_is_used_when_the_client_names_none() {
    for_both_drivers(|driver| {
        let url = format!("http://{}", Origin::refused());
        for (setting, expected) in [
            ("text/plain", "text/plain; charset=utf-8"),
            ("application/json", "application/json; charset=utf-8"),
            ("text/html", "text/html; charset=utf-8"),
        ] {
            let gateway = Gateway::builder()
                .driver(driver)
                .setting("error_default_type", setting)
                .declarative(&one_service(&url, &all_routes()))
                .start();
            let answer = gateway.get("/").send().expect_status(502);
            assert_eq!(answer.header("Content-Type"), Some(expected));
        }
    });
}

#[test]
fn a_full_url_as_request_target_is_forwarded_as_a_path() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let mut client = Client::connect(gateway.proxy());
        let answer =
            client.exchange("GET http://a.test/x/../y?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(answer.expect_status(200).echoed_target(), "/y?q=1");
    });
}

#[test]
fn a_get_with_a_body_keeps_it() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
            let answer = gateway
                .request(method, "/")
                .body("some body")
                .send()
                .expect_status(200);
            let json = answer.json();
            assert_eq!(json["method"], method);
            assert_eq!(json["body"], "some body", "{method}");
        }
    });
}

#[test]
fn pipelined_uploads_stay_apart() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let mut client = Client::connect(gateway.proxy());
        let mut bytes = String::new();
        for number in 0..4 {
            let body = format!("{number}").repeat(number * 10 + 1);
            bytes.push_str(&format!(
                "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
        bytes.push_str("POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        bytes.push_str("GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.send(bytes);
        for number in 0..6_usize {
            let answer = client.try_read_response_to("GET");
            let Ok(answer) = answer else {
                // A server may close after an upload whose end it had to find out itself; never mix bodies up.
                assert!(number >= 5, "request {number} of a pipeline was lost");
                break;
            };
            let answer = answer.expect_status(200);
            assert_eq!(answer.echoed_target(), format!("/{number}"));
            let expected = match number {
                4 => "abc".to_owned(),
                5 => String::new(),
                _ => format!("{number}").repeat(number * 10 + 1),
            };
            assert_eq!(answer.json()["body"], expected);
        }
    });
}

#[test]
fn kongs_own_environment_counts_when_allowed() {
    let origin = Origin::echo();
    let gateway = Gateway::builder()
        .environment("KONG_HEADERS", "off")
        .environment("KONG_NGINX_WORKER_PROCESSES", "1")
        .setting("kong_env", "on")
        .declarative(&one_service(&origin.url(), &all_routes()))
        .start();
    let answer = gateway.get("/").send().expect_status(200);
    assert_eq!(answer.header("Via"), None);
    assert_eq!(answer.header("X-Kong-Request-Id"), None);
}

#[test]
fn a_mapped_port_is_the_one_that_the_origin_learns() {
    let origin = Origin::echo();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    drop(taken);
    let gateway = Gateway::builder()
        .setting(
            "proxy_listen",
            &format!("127.0.0.1:{port}, 127.0.0.1:0 ssl"),
        )
        .setting("port_maps", &format!("80:{port}"))
        .declarative(&one_service(&origin.url(), &all_routes()))
        .start();
    let answer = gateway.get("/").send().expect_status(200);
    assert_eq!(answer.echoed_one("x-forwarded-port").as_deref(), Some("80"));
}

#[test]
fn limits_of_consumers_are_counted_apart_and_tell_their_own_words() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let config = json!({"hour": 1, "policy": "local", "limit_by": "consumer", "error_code": 420, "error_message": "calm down"});
        let mut text = with_plugins(
            &origin.url(),
            &json!([{"name": "key-auth"}, {"name": "rate-limiting", "config": config}]),
        );
        text["consumers"] = json!([
            {"username": "a", "keyauth_credentials": [{"key": "a1"}, {"key": "a2"}]},
            {"username": "b", "keyauth_credentials": [{"key": "b1"}]},
        ]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        let ask = |key: &str| gateway.get("/").header("apikey", key).send();
        ask("a1").expect_status(200);
        let refused = ask("a2").expect_status(420);
        assert_eq!(refused.message(), "calm down");
        ask("b1").expect_status(200);
    });
}

#[test]
fn a_chunked_json_answer_is_transformed_as_a_whole() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| {
            Reply::raw(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\n{\"a\":\r\n4\r\n1,\"b\r\n4\r\n\":2}\r\n0\r\n\r\n",
            )
        });
        let plugins = json!([{"name": "response-transformer", "config": {"remove": {"json": ["a"]}, "add": {"json": ["c:x"]}}}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&with_plugins(&origin.url(), &plugins).to_string())
            .start();
        let answer = gateway.get("/").send().expect_status(200);
        assert_eq!(answer.json(), json!({"b": 2, "c": "x"}));
        gateway.request("HEAD", "/").send().expect_status(200);
    });
}
