//! What passes through: bodies both ways, and the connections on both sides. Each test runs through both drivers.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Client, Driver, Gateway, Origin, Reply, eventually, for_both_drivers, one_service,
};

fn all_routes() -> Value {
    json!([{"name": "all", "paths": ["/"]}])
}

/// A gateway with one route for everything to this origin.
fn before(origin: &Origin, driver: Driver) -> Gateway {
    Gateway::builder()
        .driver(driver)
        .declarative(&one_service(&origin.url(), &all_routes()))
        .start()
}

#[test]
fn answers_without_a_body_keep_the_connection() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/head" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            "/204" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
            "/304" => {
                Reply::raw("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n")
            }
            _ => Reply::ok("body"),
        });
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.read_response_to("HEAD").expect_status(200);
        assert_eq!(head.header("Content-Length"), Some("1234"));
        let empty = client
            .exchange("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect_status(204);
        assert_eq!(empty.header("Transfer-Encoding"), None);
        let same = client
            .exchange("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect_status(304);
        assert_eq!(same.header("ETag"), Some("\"x\""));
        let full = client
            .exchange("GET /full HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect_status(200);
        assert_eq!(full.text(), "body");
    });
}

/// An origin that sends `first`, and `second` only when the test says so.
fn two_part_origin(first: &'static str, second: &'static str) -> (Origin, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let origin = Origin::conversing(move |mut stream, _| {
        use std::io::{Read, Write};
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(first.as_bytes());
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
        let _ = stream.write_all(second.as_bytes());
        // Held open until the gateway has seen it all.
        let _ = stream.read(&mut request);
    });
    (origin, go)
}

#[test]
fn chunks_arrive_as_they_are_sent() {
    for_both_drivers(|driver| {
        let (origin, go) = two_part_origin(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            "6\r\nsecond\r\n0\r\n\r\n",
        );
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, _) = client
            .try_read_head()
            .expect("the head comes before the end");
        assert_eq!(status, 200);
        assert_eq!(client.read_chunk().expect("the first chunk"), b"first");
        go.send(()).expect("the origin waits");
        assert_eq!(client.read_chunk().expect("the second chunk"), b"second");
        assert!(client.read_chunk().expect("the end").is_empty());
    });
}

#[test]
fn a_trickled_body_with_a_length_is_not_held_back() {
    for_both_drivers(|driver| {
        let (origin, go) = two_part_origin(
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst",
            "second",
        );
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
            .try_read_head()
            .expect("the head comes before the end");
        assert_eq!(client.read_exactly(5).expect("the first part"), b"first");
        go.send(()).expect("the origin waits");
        assert_eq!(client.read_exactly(6).expect("the rest"), b"second");
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_complete() {
    for_both_drivers(|driver| {
        let origin =
            Origin::answering(|_| Reply::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close());
        let gateway = before(&origin, driver);
        let answer = gateway.get("/").send().expect_status(200);
        assert_eq!(answer.text(), "until the end");
    });
}

#[test]
fn a_body_that_breaks_off_is_not_passed_for_a_whole_one() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/length" => {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").then_close()
            }
            _ => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")
                .then_close(),
        });
        let gateway = before(&origin, driver);
        for target in ["/length", "/chunked"] {
            let answer = gateway.get(target).try_send();
            assert!(
                answer.as_ref().map_or(true, |answer| answer.status == 502),
                "{target}: {answer:?}"
            );
        }
    });
}

#[test]
fn bodies_of_every_size_come_through_in_both_directions() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| Reply::ok(&request.body));
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        for size in [
            0,
            1,
            1000,
            8 * 1024,
            64 * 1024,
            64 * 1024 + 1,
            1024 * 1024,
            5 * 1024 * 1024,
        ] {
            let body: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut request =
                format!("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
                    .into_bytes();
            request.extend_from_slice(&body);
            // The origin answers at its own pace: writing and reading must not wait for each other.
            let answer = client.exchange(request).expect_status(200);
            assert!(
                answer.body == body,
                "{size} bytes came back as {}",
                answer.body.len()
            );
        }
    });
}

#[test]
fn chunked_uploads_arrive_whole() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| {
            // One framing, never both, whatever the gateway chose.
            let framings = ["content-length", "transfer-encoding"];
            let count = framings
                .iter()
                .filter(|name| request.header(name).is_some())
                .count();
            assert!(count <= 1 && (count == 1 || request.body.is_empty()));
            Reply::ok(&request.body)
        });
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut expected = Vec::new();
        for index in 0..200 {
            let part = format!("{index}-").repeat(index + 1);
            expected.extend_from_slice(part.as_bytes());
            client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        }
        client.send("0\r\n\r\n");
        let answer = client.read_response().expect_status(200);
        assert!(
            answer.body == expected,
            "{} of {} bytes",
            answer.body.len(),
            expected.len()
        );
        let again = client.exchange("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        again.expect_status(200);
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| Reply::ok(&request.body));
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client
            .send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        let (status, _) = client.try_read_head().expect("an interim answer");
        assert_eq!(status, 100);
        client.send("data");
        assert_eq!(client.read_response().expect_status(200).text(), "data");
    });
}

#[test]
fn an_early_hint_does_not_confuse_the_answer() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| {
            Reply::raw(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )
        });
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = client.read_response();
        if answer.status == 103 {
            answer = client.read_response();
        }
        assert_eq!(answer.expect_status(200).text(), "ok");
    });
}

#[test]
fn a_client_that_leaves_frees_the_origin() {
    for_both_drivers(|driver| {
        let (report, left) = mpsc::channel();
        let report = Mutex::new(report);
        let origin = Origin::conversing(move |mut stream, _| {
            use std::io::Read;
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = report.lock().unwrap().send("asked");
            // No answer: the end of the connection is what is waited for.
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            let _ = report.lock().unwrap().send("left");
        });
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let wait = Duration::from_secs(10);
        assert_eq!(left.recv_timeout(wait), Ok("asked"));
        client.reset();
        assert_eq!(
            left.recv_timeout(wait),
            Ok("left"),
            "the origin is still busy"
        );
    });
}

#[test]
fn connections_to_the_origin_are_kept_and_reused() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        for _ in 0..20 {
            gateway.get("/").send().expect_status(200);
        }
        // One for each worker at most.
        assert!(
            origin.connections() <= 2,
            "{} connections",
            origin.connections()
        );
    });
}

#[test]
fn a_connection_that_the_origin_closed_meanwhile_fails_no_request() {
    for_both_drivers(|driver| {
        // Announces keep-alive, then closes: what an idle timeout of the origin looks like.
        let origin = Origin::answering(|_| Reply::ok("fine").then_close());
        let gateway = before(&origin, driver);
        for number in 0..30 {
            let answer = gateway.get("/").send();
            assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
        }
    });
}

#[test]
fn a_client_connection_survives_gateway_made_answers() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let mut text: Value = serde_json::from_str(&one_service(
            &origin.url(),
            &json!([
                {"name": "open", "paths": ["/open"]},
                {"name": "locked", "paths": ["/locked"], "plugins": [{"name": "key-auth"}]},
                {"name": "limited", "paths": ["/limited"], "plugins": [{"name": "rate-limiting", "config": {"hour": 1, "policy": "local"}}]},
            ]),
        ))
        .unwrap();
        text["_comment"] = json!("one connection for all of this");
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        let mut client = Client::connect(gateway.proxy());
        for (path, status) in [
            ("/nowhere", 404),
            ("/locked", 401),
            ("/open", 200),
            ("/limited", 200),
            ("/limited", 429),
            ("/nowhere", 404),
            ("/open", 200),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.exchange(request).status, status, "{path}");
        }
        // A refused upload must not leave its body in the way.
        client.send("POST /locked HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.read_response().expect_status(401);
        client
            .exchange("GET /open HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect_status(200);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        let requests: String = (0..5)
            .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .collect();
        client.send(requests);
        for number in 0..5 {
            let answer = client.read_response().expect_status(200);
            assert_eq!(answer.echoed_target(), format!("/{number}"));
        }
    });
}

#[test]
fn an_http_1_0_client_gets_no_chunks_and_the_end_of_the_connection() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::chunked(&["some", "thing"]));
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        let answer = client
            .exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .expect_status(200);
        assert_eq!(answer.header("Transfer-Encoding"), None);
        assert_eq!(answer.text(), "something");
        assert!(client.is_closed());
    });
}

#[test]
fn connection_close_is_honoured() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        let mut client = Client::connect(gateway.proxy());
        let answer = client.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = answer.expect_status(200);
        assert_eq!(
            answer
                .header("Connection")
                .map(str::to_ascii_lowercase)
                .as_deref(),
            Some("close")
        );
        assert!(client.is_closed());
        assert_eq!(
            answer.echoed_one("connection").as_deref(),
            Some("keep-alive")
        );
    });
}

#[test]
fn answers_of_the_origin_pass_untouched_whatever_their_status() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| {
            let status = request
                .target
                .trim_start_matches('/')
                .parse()
                .unwrap_or(200);
            Reply::new(status, &[("X-Own", "yes")], format!("own {status}"))
        });
        let gateway = before(&origin, driver);
        for status in [
            200, 201, 301, 400, 401, 404, 418, 429, 500, 502, 503, 504, 599,
        ] {
            let answer = gateway
                .get(&format!("/{status}"))
                .send()
                .expect_status(status);
            assert_eq!(answer.text(), format!("own {status}"));
            assert_eq!(answer.header("X-Own"), Some("yes"));
            assert!(answer.header("X-Kong-Upstream-Latency").is_some());
        }
        assert_eq!(origin.received().len(), 13, "an answer is never retried");
    });
}

#[test]
fn a_body_above_the_limit_gets_413() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("client_max_body_size", "1k")
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        gateway
            .request("POST", "/")
            .body("x".repeat(1024))
            .send()
            .expect_status(200);
        let refused = gateway
            .request("POST", "/")
            .body("x".repeat(1025))
            .send()
            .expect_status(413);
        assert!(
            refused
                .text()
                .starts_with("Payload too large\nrequest_id: "),
            "{}",
            refused.text()
        );
        let mut client = Client::connect(gateway.proxy());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = client.try_send(format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(2048)));
        client.read_response().expect_status(413);
        assert_eq!(origin.received().len(), 1, "only the small one arrived");
    });
}

#[test]
fn many_clients_at_once_get_each_their_own_answer() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = before(&origin, driver);
        std::thread::scope(|scope| {
            for number in 0..16 {
                let gateway = &gateway;
                scope.spawn(move || {
                    let mut client = Client::connect(gateway.proxy());
                    for turn in 0..25 {
                        let request = format!(
                            "GET /{number}/{turn} HTTP/1.1\r\nHost: a\r\nX-N: {number}\r\n\r\n"
                        );
                        let answer = client.exchange(request).expect_status(200);
                        assert_eq!(answer.echoed_target(), format!("/{number}/{turn}"));
                        assert_eq!(answer.echoed_one("x-n"), Some(number.to_string()));
                    }
                });
            }
        });
    });
}

#[test]
fn a_client_connection_ends_after_its_number_of_requests() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("keepalive_requests", "3")
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let mut client = Client::connect(gateway.proxy());
        for _ in 0..3 {
            client
                .exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .expect_status(200);
        }
        assert!(client.is_closed());
    });
}

#[test]
fn nothing_is_left_open_when_clients_have_gone() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::ok("x").delayed(Duration::from_secs(2)));
        let gateway = before(&origin, driver);
        for _ in 0..8 {
            let mut client = Client::connect(gateway.proxy());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            eventually("the request arrives", || {
                (origin.open_connections() > 0).then_some(())
            });
            client.reset();
        }
        gateway.get("/").send().expect_status(200);
    });
}
