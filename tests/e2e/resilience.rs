//! What must not disturb anybody: noise on the wire, changes and reloads under traffic, slow and rude clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Authority, Client, Driver, Gateway, Origin, Reply, eventually, for_both_drivers, one_service,
    with_plugins,
};

fn all_routes() -> Value {
    json!([{"name": "all", "paths": ["/"]}])
}

#[test]
fn noise_on_every_port_harms_nobody() {
    let origin = Origin::answering(|_| Reply::ok("fine"));
    let gateway = Gateway::builder()
        .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 http2 ssl")
        .declarative(&one_service(&origin.url(), &all_routes()))
        .start();
    let admin = gateway.admin().address;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for number in 0..150_usize {
        let mut bytes: Vec<u8> = (0..number * 7).map(|_| rand::random()).collect();
        match number % 5 {
            0 => bytes.splice(0..0, preface.iter().copied()).for_each(drop),
            1 => bytes.splice(0..0, *b"GET / HTTP/1.1\r\n").for_each(drop),
            2 => bytes
                .splice(
                    0..0,
                    *b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                )
                .for_each(drop),
            // The beginning of a TLS handshake record.
            3 => bytes
                .splice(0..0, [22, 3, 1, 2, 0, 1, 0, 1, 252])
                .for_each(drop),
            _ => {}
        }
        for address in [gateway.proxy(), gateway.tls(), admin, gateway.status()] {
            let mut client = Client::connect(address);
            let _ = client.try_send(&bytes);
            if number % 2 == 0 {
                client.reset();
            }
        }
    }
    gateway.get("/").send().expect_status(200);
    gateway.get_tls("a.test", "/").send().expect_status(200);
    gateway.admin().get("/").expect_status(200);
}

#[test]
fn changes_disturb_no_request() {
    let origin = Origin::answering(|_| Reply::ok("x"));
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create("/services", json!({"name": "s", "url": origin.url()}));
    admin.create(
        "/services/s/routes",
        json!({"name": "r", "paths": ["/steady"]}),
    );
    let (stop, good) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.proxy());
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.exchange("GET /steady HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(answer.status, 200);
                    good.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 0..30 {
            let path = format!("/route-{number}");
            let body = json!({"name": format!("r{number}"), "paths": [path]});
            admin.create("/services/s/routes", body);
            let plugin =
                json!({"name": "rate-limiting", "config": {"hour": 100_000, "policy": "local"}});
            admin.create(&format!("/routes/r{number}/plugins"), plugin);
            if number % 3 == 0 {
                admin
                    .delete(&format!("/routes/r{number}"))
                    .expect_status(204);
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(good.load(Ordering::SeqCst) > 30);
}

#[test]
fn a_reload_takes_a_good_file_and_refuses_a_bad_one() {
    let origin = Origin::answering(|_| Reply::ok("x"));
    let routes = |path: &str| one_service(&origin.url(), &json!([{"name": "r", "paths": [path]}]));
    let gateway = Gateway::with(&routes("/one"));
    gateway.get("/one").send().expect_status(200);
    let file = gateway.folder().join("kong.yml");
    std::fs::write(&file, routes("/two")).expect("a file");
    let reloaded = gateway.run(&["reload"]);
    assert!(
        reloaded.status.success(),
        "{}",
        String::from_utf8_lossy(&reloaded.stderr)
    );
    eventually("the new file serves", || {
        (gateway.get("/two").send().status == 200).then_some(())
    });
    gateway.get("/one").send().expect_status(404);
    std::fs::write(&file, "_format_version: \"3.0\"\nservices: [{name: x}]\n").expect("a file");
    let refused = gateway.run(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("required field missing"), "{errors}");
    gateway.get("/two").send().expect_status(200);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_understood() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("proxy_listen", "127.0.0.1:0 http2, 127.0.0.1:0 ssl")
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let mut client = Client::connect(gateway.proxy());
        // Shorter than the preface of HTTP/2, for which the same port waits too.
        for byte in b"GET /x HTTP/1.0\r\n\r\n" {
            client.send([*byte]);
        }
        assert_eq!(
            client.read_response().expect_status(200).echoed_target(),
            "/x"
        );
        let mut client = Client::connect(gateway.proxy());
        for byte in b"POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" {
            client.send([*byte]);
        }
        let answer = client.read_response().expect_status(200);
        assert_eq!(answer.json()["body"], "abc");
    });
}

#[test]
fn a_retry_adds_headers_once() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let mut text = with_plugins(
            "http://pool.test",
            &json!([{"name": "request-transformer", "config": {"add": {"headers": ["x-once:1"]}, "append": {"headers": ["x-more:2"]}}}]),
        );
        text["upstreams"] = json!([{"name": "pool.test", "targets": [
            {"target": Origin::refused().to_string()},
            {"target": origin.address.to_string()},
        ]}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        for _ in 0..6 {
            let answer = gateway.get("/").send().expect_status(200);
            assert_eq!(answer.echoed("x-once"), ["1"]);
            assert_eq!(answer.echoed("x-more"), ["2"]);
            assert_eq!(answer.echoed("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(answer.echoed_one("host"), Some(origin.address.to_string()));
        }
    });
}

#[test]
fn an_address_as_upstream_is_checked_against_the_addresses_of_its_certificate() {
    for_both_drivers(|driver| {
        let authority = Authority::new();
        let id = "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f20";
        let ask = |names: &[&str]| {
            let origin = Origin::answering_tls(&authority.issue(names), Reply::echo);
            let text = json!({
                "_format_version": "3.0",
                "ca_certificates": [{"id": id, "cert": authority.pem()}],
                "services": [{
                    "name": "s", "url": format!("https://{}", origin.address), "tls_verify": true,
                    "ca_certificates": [id], "retries": 0, "routes": all_routes(),
                }],
            });
            let gateway = Gateway::builder()
                .driver(driver)
                .declarative(&text.to_string())
                .start();
            gateway.get("/").send().status
        };
        assert_eq!(ask(&["somebody.test", "127.0.0.1"]), 200);
        assert_eq!(ask(&["somebody.test", "10.0.0.1"]), 502);
    });
}

#[test]
fn a_slow_reader_gets_everything_and_slows_nobody_else() {
    for_both_drivers(|driver| {
        let body = Arc::new("y".repeat(8 * 1024 * 1024));
        let shared = body.clone();
        let origin = Origin::answering(move |request| match request.target.as_str() {
            "/large" => Reply::ok(shared.as_bytes()),
            _ => Reply::ok("quick"),
        });
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let mut slow = Client::connect(gateway.proxy());
        slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        slow.try_read_head().expect("a head");
        for _ in 0..50 {
            assert_eq!(
                gateway.get("/quick").send().expect_status(200).text(),
                "quick"
            );
        }
        let received = slow.read_exactly(body.len()).expect("all of it");
        assert!(received == body.as_bytes());
    });
}

#[test]
fn every_worker_serves() {
    let origin = Origin::answering(|_| Reply::ok("x").delayed(Duration::from_millis(50)));
    let gateway = Gateway::builder()
        .driver(Driver::Exchange)
        .setting("workers", "4")
        .declarative(&one_service(&origin.url(), &all_routes()))
        .start();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| gateway.get("/").send().expect_status(200));
        }
    });
    assert_eq!(origin.received().len(), 40);
}
