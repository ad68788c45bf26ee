//! Upstreams that refuse, stall, break or lie: statuses, bodies, retries, balancing over targets.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Authority, Driver, Gateway, Origin, Reply, eventually, for_both_drivers, one_service,
};

const BAD_GATEWAY: &str = "An invalid response was received from the upstream server";
const TIMED_OUT: &str = "The upstream server is timing out";

fn gateway(driver: Driver, configuration: &Value) -> Gateway {
    Gateway::builder()
        .debug_headers()
        .driver(driver)
        .declarative(&configuration.to_string())
        .start()
}

/// One service with these fields over `url`, and a route for everything.
fn service(url: &str, fields: Value) -> Value {
    let mut service =
        json!({"name": "origin", "url": url, "routes": [{"name": "all", "paths": ["/"]}]});
    for (key, value) in fields.as_object().expect("fields") {
        service[key] = value.clone();
    }
    json!({"_format_version": "3.0", "services": [service]})
}

#[test]
fn a_refused_connection_gives_502_in_the_layers_own_shape() {
    for_both_drivers(|driver| {
        let address = Origin::refused();
        let url = format!("http://{address}");
        let gateway = gateway(driver, &service(&url, json!({"retries": 0})));
        let answer = gateway.get("/").send().expect_status(502);
        let id = answer
            .header("X-Kong-Request-Id")
            .expect("a request id")
            .to_owned();
        assert_eq!(
            answer.header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.text(), format!("{BAD_GATEWAY}\nrequest_id: {id}\n"));
        assert!(
            answer.header("X-Kong-Proxy-Latency").is_some(),
            "it reached the balancer"
        );
        assert!(answer.header("Via").is_some());
        let answer = gateway.get("/").header("Accept", "application/json").send();
        assert_eq!(answer.expect_status(502).message(), BAD_GATEWAY);
        let upstream = format!("\"upstream\":\"{address}\"");
        eventually("a log line with the upstream's address", || {
            gateway.said().contains(&upstream).then_some(())
        });
        // An error of the upstream leaves the client's connection as it was, or says that it closes.
        let answer = gateway.request("HEAD", "/").send().expect_status(502);
        assert!(answer.body.is_empty());
    });
}

#[test]
fn an_origin_that_breaks_off_or_talks_nonsense_gives_502() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/close" => Reply::nothing(),
            "/reset" => Reply::raw("").then_reset(),
            "/half" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Le").then_close(),
            "/status" => Reply::raw("HTTP/1.1 banana\r\n\r\n").then_close(),
            "/lengths" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").then_close(),
            _ => Reply::raw("\u{0}\u{1}\u{2}nonsense\r\n\r\n").then_close(),
        });
        let gateway = gateway(driver, &service(&origin.url(), json!({"retries": 0})));
        for target in [
            "/close", "/reset", "/half", "/status", "/lengths", "/binary",
        ] {
            let answer = gateway.get(target).send();
            assert_eq!(answer.status, 502, "{target}: {}", answer.text());
            assert!(
                answer.text().starts_with(BAD_GATEWAY),
                "{target}: {}",
                answer.text()
            );
        }
    });
}

#[test]
fn a_silent_origin_gives_504_after_the_read_timeout() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::ok("late").delayed(Duration::from_secs(5)));
        let fields = json!({"read_timeout": 200, "retries": 0});
        let gateway = gateway(driver, &service(&origin.url(), fields));
        // Whoever waited for the origin would pass on its 200.
        let answer = gateway.get("/").send().expect_status(504);
        assert!(answer.text().starts_with(TIMED_OUT), "{}", answer.text());
    });
}

#[test]
fn the_read_timeout_counts_between_reads_not_in_total() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| {
            Reply::chunked(&["a", "b", "c", "d", "e"]).paced(Duration::from_millis(200))
        });
        let gateway = gateway(
            driver,
            &service(&origin.url(), json!({"read_timeout": 600})),
        );
        assert_eq!(gateway.get("/").send().expect_status(200).text(), "abcde");
    });
}

#[test]
fn idempotent_requests_are_retried_and_others_are_not_once_written() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| {
            if request.connection == 0 {
                return Reply::nothing();
            }
            Reply::ok("second try")
        });
        let first = gateway(driver, &service(&origin.url(), json!({"retries": 1})));
        assert_eq!(
            first.get("/").send().expect_status(200).text(),
            "second try"
        );
        assert_eq!(origin.received().len(), 2);

        let origin = Origin::answering(|_| Reply::nothing());
        let gateway = gateway(driver, &service(&origin.url(), json!({"retries": 3})));
        gateway
            .request("POST", "/")
            .body("once")
            .send()
            .expect_status(502);
        assert_eq!(
            origin.received().len(),
            1,
            "a POST that was written is not sent again"
        );
        gateway.get("/").send().expect_status(502);
        assert_eq!(
            origin.received().len(),
            5,
            "a GET is tried retries + 1 times"
        );
        gateway
            .request("PUT", "/")
            .body("again")
            .send()
            .expect_status(502);
        assert_eq!(origin.received().len(), 9, "so is a PUT with its body");
        assert!(
            origin
                .received()
                .iter()
                .skip(5)
                .all(|request| request.body == b"again")
        );
    });
}

/// Two targets under one upstream, and a service over it.
fn upstream(targets: &[(String, u32)], fields: Value) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(target, weight)| json!({"target": target, "weight": weight}))
        .collect();
    let mut upstream = json!({"name": "pool.test", "targets": targets});
    for (key, value) in fields.as_object().expect("fields") {
        upstream[key] = value.clone();
    }
    let mut configuration = service("http://pool.test", json!({}));
    configuration["upstreams"] = json!([upstream]);
    configuration
}

#[test]
fn a_refusing_target_is_passed_over_even_for_a_post() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let targets = [
            (origin.address.to_string(), 100),
            (Origin::refused().to_string(), 100),
        ];
        let gateway = gateway(driver, &upstream(&targets, json!({})));
        for number in 0..20 {
            let method = if number % 2 == 0 { "GET" } else { "POST" };
            let answer = gateway.request(method, "/").body("x").send();
            assert_eq!(answer.status, 200, "{method} {number}: {}", answer.text());
        }
    });
}

#[test]
fn weights_divide_the_requests() {
    let (heavy, light, idle) = (Origin::echo(), Origin::echo(), Origin::echo());
    let targets = [
        (heavy.address.to_string(), 300),
        (light.address.to_string(), 100),
        (idle.address.to_string(), 0),
    ];
    let gateway = gateway(Driver::Exchange, &upstream(&targets, json!({})));
    for _ in 0..80 {
        gateway.get("/").send().expect_status(200);
    }
    assert_eq!(idle.received().len(), 0, "weight 0 receives nothing");
    assert_eq!((heavy.received().len(), light.received().len()), (60, 20));
}

#[test]
fn a_hash_sends_the_same_value_to_the_same_target() {
    let origins = [Origin::echo(), Origin::echo(), Origin::echo()];
    let targets: Vec<(String, u32)> = origins
        .iter()
        .map(|origin| (origin.address.to_string(), 100))
        .collect();
    let fields =
        json!({"algorithm": "consistent-hashing", "hash_on": "header", "hash_on_header": "X-User"});
    let gateway = gateway(Driver::Exchange, &upstream(&targets, fields));
    let mut used = std::collections::HashSet::new();
    for user in 0..30 {
        let ask = || {
            let answer = gateway
                .get("/")
                .header("X-User", &format!("user-{user}"))
                .send();
            answer
                .expect_status(200)
                .echoed_one("host")
                .expect("a host")
        };
        let first = ask();
        for _ in 0..3 {
            assert_eq!(ask(), first, "user {user}");
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 3, "thirty users reach all targets");
}

#[test]
fn an_upstream_without_targets_gives_503() {
    for_both_drivers(|driver| {
        let gateway = gateway(driver, &upstream(&[], json!({})));
        let answer = gateway
            .get("/")
            .header("Accept", "application/json")
            .send()
            .expect_status(503);
        assert_eq!(
            answer.message(),
            "failure to get a peer from the ring-balancer"
        );
    });
}

#[test]
fn a_name_that_does_not_resolve_gives_503() {
    let gateway = gateway(
        Driver::Exchange,
        &service("http://no-such-host.invalid", json!({})),
    );
    let answer = gateway
        .get("/")
        .header("Accept", "application/json")
        .send()
        .expect_status(503);
    assert_eq!(answer.message(), "name resolution failed");
}

#[test]
fn a_name_from_the_hosts_file_resolves() {
    let origin = Origin::echo();
    let url = format!("http://localhost:{}", origin.port());
    let gateway = gateway(Driver::Exchange, &service(&url, json!({})));
    let answer = gateway.get("/").send().expect_status(200);
    assert_eq!(
        answer.echoed_one("host"),
        Some(format!("localhost:{}", origin.port()))
    );
}

#[test]
fn the_upstreams_host_header_is_sent() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let targets = [(origin.address.to_string(), 100)];
        let fields = json!({"host_header": "inner.test"});
        let gateway = gateway(driver, &upstream(&targets, fields));
        let answer = gateway.get("/").send().expect_status(200);
        let expected = format!("inner.test:{}", origin.port());
        assert_eq!(answer.echoed_one("host"), Some(expected));
    });
}

#[test]
fn an_upstream_certificate_is_checked_when_asked() {
    for_both_drivers(|driver| {
        let (good, other) = (Authority::new(), Authority::new());
        let pair = good.issue(&["localhost", "127.0.0.1"]);
        let origin = Origin::answering_tls(&pair, Reply::echo);
        let url = format!("https://localhost:{}", origin.port());
        let configuration = |authority: &Authority, verify: Value| {
            let id = "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f10";
            let mut configuration = service(
                &url,
                json!({"tls_verify": verify, "ca_certificates": [id], "retries": 0}),
            );
            configuration["ca_certificates"] = json!([{"id": id, "cert": authority.pem()}]);
            configuration
        };
        let trusting = gateway(driver, &configuration(&good, json!(true)));
        trusting.get("/").send().expect_status(200);
        let doubting = gateway(driver, &configuration(&other, json!(true)));
        let answer = doubting.get("/").send().expect_status(502);
        assert!(answer.text().starts_with(BAD_GATEWAY));
        let careless = gateway(driver, &configuration(&other, json!(false)));
        careless.get("/").send().expect_status(200);
        let plain = gateway(driver, &service(&url, json!({})));
        let answer = plain.get("/").send().expect_status(200);
        assert_eq!(
            answer.echoed_one("host"),
            Some(format!("localhost:{}", origin.port()))
        );
    });
}

#[test]
fn two_services_with_different_trust_never_share_a_connection() {
    for_both_drivers(|driver| {
        let (good, other) = (Authority::new(), Authority::new());
        let origin = Origin::answering_tls(&good.issue(&["localhost"]), Reply::echo);
        let url = format!("https://localhost:{}", origin.port());
        let ids = [
            "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f10",
            "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f11",
        ];
        let part = |name: &str, id: &str| {
            json!({"name": name, "url": url, "tls_verify": true, "ca_certificates": [id], "retries": 0,
                   "routes": [{"name": name, "paths": [format!("/{name}")]}]})
        };
        let gateway = gateway(
            driver,
            &json!({
                "_format_version": "3.0",
                "ca_certificates": [{"id": ids[0], "cert": good.pem()}, {"id": ids[1], "cert": other.pem()}],
                "services": [part("good", ids[0]), part("bad", ids[1])],
            }),
        );
        for _ in 0..5 {
            gateway.get("/good").send().expect_status(200);
            gateway.get("/bad").send().expect_status(502);
        }
    });
}

#[test]
fn a_client_certificate_is_shown_to_the_origin() {
    for_both_drivers(|driver| {
        let authority = Authority::new();
        let origin = Origin::answering_mutual_tls(
            &authority.issue(&["localhost"]),
            &authority.pem(),
            Reply::echo,
        );
        let client = authority.issue(&["client.test"]);
        let url = format!("https://localhost:{}", origin.port());
        let id = "5b9f3c5e-2f0f-4e43-a1b0-6e9f6a1d3f12";
        let mut configuration = service(&url, json!({"client_certificate": id}));
        configuration["certificates"] =
            json!([{"id": id, "cert": client.certificate, "key": client.key}]);
        gateway(driver, &configuration)
            .get("/")
            .send()
            .expect_status(200);
        let without = gateway(driver, &service(&url, json!({"retries": 0})));
        without.get("/").send().expect_status(502);
    });
}

#[test]
fn a_real_nginx_behind_the_gateway_serves_files() {
    for_both_drivers(|driver| {
        let large: Vec<u8> = (0..3_000_000_u32)
            .map(|index| (index % 253) as u8)
            .collect();
        let nginx =
            crate::harness::NginxOrigin::serving(&[("small.txt", b"hello"), ("large.bin", &large)]);
        let url = format!("http://{}", nginx.address);
        let text = one_service(&url, &json!([{"name": "all", "paths": ["/"]}]));
        let gateway = Gateway::builder().driver(driver).declarative(&text).start();
        assert_eq!(
            gateway.get("/small.txt").send().expect_status(200).text(),
            "hello"
        );
        assert!(gateway.get("/large.bin").send().expect_status(200).body == large);
        let part = gateway
            .get("/large.bin")
            .header("Range", "bytes=10-19")
            .send()
            .expect_status(206);
        assert_eq!(part.body, large[10..20]);
        let tag = gateway
            .get("/small.txt")
            .send()
            .header("ETag")
            .map(str::to_owned)
            .expect("a tag");
        gateway
            .get("/small.txt")
            .header("If-None-Match", &tag)
            .send()
            .expect_status(304);
    });
}
