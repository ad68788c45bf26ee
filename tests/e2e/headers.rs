//! What the origin and the client learn from headers. Each test runs through both drivers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Driver, Gateway, Origin, Reply, for_both_drivers, one_service};

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
fn the_origin_learns_who_asked_and_how() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let routes = json!([{"name": "p", "paths": ["/prefix"]}]);
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&one_service(&origin.url(), &routes))
            .start();
        let echo = gateway
            .get("/prefix/%66oo?q=1")
            .host("client.test:1234")
            .header("X-Forwarded-For", "1.2.3.4")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "liar.test")
            .header("X-Kong-Request-Id", "mine")
            .header("Via", "1.0 before")
            .header("X-Custom_Under", "kept")
            .send()
            .expect_status(200);
        let port = gateway.proxy().port().to_string();
        for (name, expected) in [
            ("x-real-ip", Some("127.0.0.1")),
            ("x-forwarded-for", Some("1.2.3.4, 127.0.0.1")),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-host", Some("client.test")),
            ("x-forwarded-port", Some(port.as_str())),
            ("x-forwarded-path", Some("/prefix/%66oo")),
            ("x-forwarded-prefix", Some("/prefix")),
            ("x-custom_under", Some("kept")),
            ("connection", Some("keep-alive")),
        ] {
            assert_eq!(echo.echoed_one(name).as_deref(), expected, "{name}");
        }
        let via = echo.echoed_one("via").expect("Via");
        assert!(via.starts_with("1.0 before, 1.1 sallyport/"), "{via}");
        let id = echo.echoed_one("x-kong-request-id").expect("a request id");
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(echo.header("X-Kong-Request-Id"), Some(id.as_str()));
        assert_eq!(echo.echoed_target(), "/foo?q=1");
    });
}

#[test]
fn a_trusted_proxy_keeps_its_forwarded_headers() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = Gateway::builder()
            .driver(driver)
            .setting("trusted_ips", "127.0.0.0/8")
            .setting("real_ip_header", "X-Forwarded-For")
            .setting("real_ip_recursive", "on")
            .declarative(&one_service(&origin.url(), &all_routes()))
            .start();
        let echo = gateway
            .get("/a")
            .header("X-Forwarded-For", "9.9.9.9, 127.0.0.7")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "outer.test")
            .header("X-Forwarded-Port", "443")
            .header("X-Forwarded-Path", "/outer")
            .header("X-Forwarded-Prefix", "/pre")
            .send()
            .expect_status(200);
        for (name, expected) in [
            ("x-real-ip", "9.9.9.9"),
            ("x-forwarded-for", "9.9.9.9, 127.0.0.7, 127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.test"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-path", "/outer"),
            ("x-forwarded-prefix", "/pre"),
        ] {
            assert_eq!(echo.echoed_one(name).as_deref(), Some(expected), "{name}");
        }
    });
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| {
            let headers = request.headers.iter().map(|(name, _)| name.to_lowercase());
            let seen = headers.collect::<Vec<_>>().join(",");
            Reply::new(
                200,
                &[
                    ("Connection", "keep-alive, X-Secret-Hop"),
                    ("X-Secret-Hop", "1"),
                    ("Keep-Alive", "timeout=5"),
                    ("Upgrade", "h2c"),
                    ("Server", "scripted/1"),
                    ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
                    ("Set-Cookie", "a=1"),
                    ("Set-Cookie", "b=2"),
                ],
                seen,
            )
        });
        let gateway = before(&origin, driver);
        let answer = gateway
            .get("/")
            .header("Connection", "keep-alive, X-Mine")
            .header("X-Mine", "1")
            .header("Keep-Alive", "timeout=9")
            .header("Proxy-Connection", "keep-alive")
            .header("Proxy", "http://evil")
            .header("TE", "gzip")
            .header("Proxy-Authorization", "Basic eA==")
            .send()
            .expect_status(200);
        let seen = answer.text();
        let seen: Vec<&str> = seen.split(',').collect();
        for gone in ["x-mine", "keep-alive", "proxy-connection", "proxy", "te"] {
            assert!(!seen.contains(&gone), "{gone} in {seen:?}");
        }
        assert!(seen.contains(&"proxy-authorization"));
        for gone in ["X-Secret-Hop", "Keep-Alive", "Upgrade"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert_eq!(answer.all("Server"), ["scripted/1"]);
        // Pingora's own path replaces the origin's date by the current one.
        assert_eq!(answer.all("Date").len(), 1);
        assert_eq!(answer.all("Set-Cookie"), ["a=1", "b=2"]);
    });
}

#[test]
fn a_proxied_answer_tells_its_latencies() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| Reply::ok("x").delayed(Duration::from_millis(120)));
        let gateway = before(&origin, driver);
        let answer = gateway.get("/").send().expect_status(200);
        let latency = |name: &str| -> u64 {
            let value = answer.header(name).unwrap_or_else(|| panic!("no {name}"));
            value.parse().expect("milliseconds")
        };
        assert!(latency("X-Kong-Upstream-Latency") >= 119);
        assert!(latency("X-Kong-Proxy-Latency") < 100);
        assert_eq!(answer.header("X-Kong-Response-Latency"), None);
        assert!(
            answer
                .header("Via")
                .is_some_and(|via| via.starts_with("1.1 sallyport/"))
        );
        assert!(
            answer
                .header("Server")
                .is_some_and(|server| server.starts_with("sallyport/"))
        );
    });
}

#[test]
fn the_headers_setting_chooses_what_is_added() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| {
            let added = request.header("x-kong-request-id").is_some();
            Reply::new(201, &[], if added { "with" } else { "without" })
        });
        let text = one_service(&origin.url(), &all_routes());
        let bare = Gateway::builder()
            .driver(driver)
            .setting("headers", "off")
            .setting("headers_upstream", "off")
            .declarative(&text)
            .start();
        let answer = bare.get("/").send().expect_status(201);
        assert_eq!(answer.text(), "without");
        for (name, _) in &answer.headers {
            let lower = name.to_ascii_lowercase();
            assert!(
                !lower.starts_with("x-kong") && lower != "via" && lower != "server",
                "{name}"
            );
        }
        let status = Gateway::builder()
            .driver(driver)
            .setting("headers", "X-Kong-Upstream-Status")
            .declarative(&text)
            .start();
        let answer = status.get("/").send().expect_status(201);
        assert_eq!(answer.header("X-Kong-Upstream-Status"), Some("201"));
        assert_eq!(answer.header("X-Kong-Upstream-Latency"), None);
    });
}
