//! Plugins that limit, answer and change traffic: rate-limiting, request-termination, cors, the transformers,
//! correlation-id; and which instance of a plugin runs. Through both drivers.

use serde_json::{Value, json};

use crate::harness::{
    Client, Driver, Gateway, Origin, Reply, Response, for_both_drivers, with_plugins,
};

fn behind(driver: Driver, origin: &Origin, plugins: &Value) -> Gateway {
    Gateway::builder()
        .driver(driver)
        .declarative(&with_plugins(&origin.url(), plugins).to_string())
        .start()
}

#[test]
fn a_limit_counts_down_and_then_refuses() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let plugins = json!([{"name": "rate-limiting", "config": {"hour": 3, "day": 100, "policy": "local"}}]);
        let gateway = behind(driver, &origin, &plugins);
        for left in ["2", "1", "0"] {
            let answer = gateway.get("/").send().expect_status(200);
            assert_eq!(answer.header("X-RateLimit-Limit-Hour"), Some("3"));
            assert_eq!(answer.header("X-RateLimit-Remaining-Hour"), Some(left));
            assert_eq!(answer.header("X-RateLimit-Limit-Day"), Some("100"));
            assert_eq!(answer.header("RateLimit-Limit"), Some("3"));
            assert_eq!(answer.header("RateLimit-Remaining"), Some(left));
            let reset: u64 = answer
                .header("RateLimit-Reset")
                .expect("a reset")
                .parse()
                .expect("seconds");
            assert!((1..=3600).contains(&reset));
        }
        let refused = gateway.get("/").send().expect_status(429);
        assert_eq!(refused.message(), "API rate limit exceeded");
        assert_eq!(refused.header("X-RateLimit-Remaining-Hour"), Some("0"));
        assert_eq!(
            refused.header("Retry-After"),
            refused.header("RateLimit-Reset")
        );
        assert_eq!(origin.received().len(), 3);
    });
}

#[test]
fn limits_are_counted_for_each_header_value_or_address() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let config = json!({"hour": 1, "policy": "local", "limit_by": "header", "header_name": "X-Tenant", "hide_client_headers": true});
        let gateway = behind(
            driver,
            &origin,
            &json!([{"name": "rate-limiting", "config": config}]),
        );
        for tenant in ["a", "b"] {
            let answer = gateway
                .get("/")
                .header("X-Tenant", tenant)
                .send()
                .expect_status(200);
            assert_eq!(answer.header("RateLimit-Limit"), None);
            gateway
                .get("/")
                .header("X-Tenant", tenant)
                .send()
                .expect_status(429);
        }
        gateway.get("/").send().expect_status(200);
        gateway.get("/").send().expect_status(429);
    });
}

#[test]
fn a_limit_is_exact_under_concurrency() {
    let origin = Origin::echo();
    let plugins = json!([{"name": "rate-limiting", "config": {"hour": 50, "policy": "local"}}]);
    let gateway = behind(Driver::Exchange, &origin, &plugins);
    let passed: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..10)
            .map(|_| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let mut client = Client::connect(gateway.proxy());
                    (0..10)
                        .filter(|_| {
                            client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
                        })
                        .count()
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a count"))
            .sum()
    });
    assert_eq!(passed, 50);
}

#[test]
fn counters_survive_a_configuration_change() {
    let origin = Origin::echo();
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create("/services", json!({"name": "s", "url": origin.url()}));
    admin.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    admin.create(
        "/services/s/plugins",
        json!({"name": "rate-limiting", "config": {"hour": 2, "policy": "local"}}),
    );
    gateway.get("/").send().expect_status(200);
    admin.create("/services", json!({"name": "unrelated", "host": "h"}));
    gateway.get("/").send().expect_status(200);
    admin.create(
        "/services/unrelated/routes",
        json!({"paths": ["/unrelated"]}),
    );
    gateway.get("/").send().expect_status(429);
}

#[test]
fn a_request_is_terminated_as_told() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let ending = |config: Value| {
            behind(
                driver,
                &origin,
                &json!([{"name": "request-termination", "config": config}]),
            )
        };
        let plain = ending(json!({})).get("/").send().expect_status(503);
        assert_eq!(plain.text(), r#"{"message":"Service unavailable"}"#);
        let message = ending(json!({"status_code": 418, "message": "short"}))
            .get("/")
            .send()
            .expect_status(418);
        assert_eq!(message.text(), r#"{"message":"short"}"#);
        let body =
            json!({"status_code": 200, "content_type": "text/html", "body": "<p>closed</p>"});
        let body = ending(body).get("/").send().expect_status(200);
        assert_eq!(body.text(), "<p>closed</p>");
        assert_eq!(body.header("Content-Type"), Some("text/html"));
        let triggered = ending(json!({"trigger": "x-stop", "status_code": 451}));
        triggered.get("/").send().expect_status(200);
        triggered
            .get("/")
            .header("X-Stop", "1")
            .send()
            .expect_status(451);
        triggered.get("/?x-stop=1").send().expect_status(451);
        let echo = ending(json!({"echo": true}))
            .get("/a?b=1")
            .send()
            .expect_status(503)
            .json();
        assert_eq!(echo["matched_route"]["name"], "all", "{echo}");
    });
}

#[test]
fn a_preflight_is_answered_here() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let config = json!({"origins": ["http://one.test", "http://two.test"], "methods": ["GET", "POST"], "headers": ["X-A"], "credentials": true, "max_age": 600});
        let gateway = behind(
            driver,
            &origin,
            &json!([{"name": "cors", "config": config}]),
        );
        let preflight = |from: &str| -> Response {
            gateway
                .request("OPTIONS", "/")
                .header("Origin", from)
                .header("Access-Control-Request-Method", "GET")
                .send()
                .expect_status(200)
        };
        let answer = preflight("http://two.test");
        assert!(answer.body.is_empty());
        assert_eq!(
            answer.header("Access-Control-Allow-Origin"),
            Some("http://two.test")
        );
        assert_eq!(
            answer.header("Access-Control-Allow-Methods"),
            Some("GET,POST")
        );
        assert_eq!(answer.header("Access-Control-Allow-Headers"), Some("X-A"));
        assert_eq!(
            answer.header("Access-Control-Allow-Credentials"),
            Some("true")
        );
        assert_eq!(answer.header("Access-Control-Max-Age"), Some("600"));
        assert_eq!(
            preflight("http://three.test").header("Access-Control-Allow-Origin"),
            None
        );
        assert_eq!(origin.received().len(), 0);
        let actual = gateway
            .get("/")
            .header("Origin", "http://one.test")
            .send()
            .expect_status(200);
        assert_eq!(
            actual.header("Access-Control-Allow-Origin"),
            Some("http://one.test")
        );
        assert_eq!(actual.header("Vary"), Some("Origin"));
        assert_eq!(origin.received().len(), 1);
    });
}

#[test]
fn cors_headers_of_the_origin_are_replaced() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|_| {
            Reply::new(
                200,
                &[("Access-Control-Allow-Origin", "http://old.test")],
                "x",
            )
        });
        let gateway = behind(
            driver,
            &origin,
            &json!([{"name": "cors", "config": {"exposed_headers": ["X-B"]}}]),
        );
        let answer = gateway
            .get("/")
            .header("Origin", "http://any.test")
            .send()
            .expect_status(200);
        assert_eq!(answer.all("Access-Control-Allow-Origin"), ["*"]);
        assert_eq!(answer.header("Access-Control-Expose-Headers"), Some("X-B"));
        assert_eq!(answer.header("Vary"), None);
    });
}

#[test]
fn requests_are_transformed_in_the_documented_order() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let config = json!({
            "http_method": "PUT",
            "remove": {"headers": ["x-gone"], "querystring": ["gone"]},
            "rename": {"headers": ["x-old:x-new"], "querystring": ["old:new"]},
            "replace": {"headers": ["x-there:replaced", "x-absent:never"], "querystring": ["there:replaced"], "uri": "/fixed/$(uri_captures['id'])"},
            "add": {"headers": ["x-added:1", "x-there:not"], "querystring": ["added:$(headers['x-name'])"]},
            "append": {"headers": ["x-there:more"], "querystring": ["added:2"]},
        });
        let text = json!({
            "_format_version": "3.0",
            "services": [{"name": "s", "url": origin.url(), "routes": [{"name": "r", "paths": ["~/user/(?<id>\\d+)"]}],
                          "plugins": [{"name": "request-transformer", "config": config}]}],
        });
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        let answer = gateway
            .get("/user/77?gone=1&old=2&there=3")
            .header("X-Gone", "1")
            .header("X-Old", "old")
            .header("X-There", "before")
            .header("X-Name", "named")
            .send()
            .expect_status(200);
        let json = answer.json();
        assert_eq!(json["method"], "PUT");
        let target = answer.echoed_target();
        assert!(target.starts_with("/fixed/77?"), "{target}");
        for part in ["new=2", "there=replaced", "added=named", "added=2"] {
            assert!(target.contains(part), "{part} in {target}");
        }
        assert!(!target.contains("gone"), "{target}");
        assert!(answer.echoed("x-gone").is_empty());
        assert_eq!(answer.echoed("x-new"), ["old"]);
        assert_eq!(answer.echoed("x-there"), ["replaced", "more"]);
        assert_eq!(answer.echoed("x-added"), ["1"]);
        assert!(answer.echoed("x-absent").is_empty());
    });
}

#[test]
fn request_bodies_are_transformed() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let config = json!({"remove": {"body": ["gone"]}, "rename": {"body": ["old:new"]}, "replace": {"body": ["there:2"]}, "add": {"body": ["added:x"]}});
        let gateway = behind(
            driver,
            &origin,
            &json!([{"name": "request-transformer", "config": config}]),
        );
        let sent = json!({"gone": 1, "old": "o", "there": 1, "kept": [1, {"a": null}]});
        let answer = gateway
            .request("POST", "/")
            .json(&sent)
            .send()
            .expect_status(200)
            .json();
        let body: Value =
            serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
        assert_eq!(
            body,
            json!({"new": "o", "there": "2", "kept": [1, {"a": null}], "added": "x"})
        );
        let answer = gateway
            .request("POST", "/")
            .form("gone=1&old=o&there=1")
            .send()
            .expect_status(200)
            .json();
        let mut pairs: Vec<&str> = answer["body"]
            .as_str()
            .expect("a body")
            .split('&')
            .collect();
        pairs.sort_unstable();
        assert_eq!(pairs, ["added=x", "new=o", "there=2"]);
        let text = gateway
            .request("POST", "/")
            .header("Content-Type", "text/plain")
            .body("gone=1")
            .send();
        assert_eq!(text.expect_status(200).json()["body"], "gone=1");
    });
}

#[test]
fn responses_are_transformed() {
    for_both_drivers(|driver| {
        let origin = Origin::answering(|request| match request.target.as_str() {
            "/json" => Reply::new(
                200,
                &[
                    ("Content-Type", "application/json"),
                    ("X-Gone", "1"),
                    ("X-Old", "o"),
                    ("X-There", "1"),
                ],
                r#"{"gone": 1, "there": 1, "kept": {"deep": true}}"#,
            ),
            _ => Reply::new(
                200,
                &[("Content-Type", "text/plain"), ("X-Gone", "1")],
                "gone",
            ),
        });
        let config = json!({
            "remove": {"headers": ["x-gone"], "json": ["gone"]},
            "rename": {"headers": ["x-old:x-new"]},
            "replace": {"headers": ["x-there:2"], "json": ["there:two"]},
            "add": {"headers": ["x-added:1"], "json": ["added:7"], "json_types": ["number"]},
            "append": {"headers": ["x-there:3"]},
        });
        let gateway = behind(
            driver,
            &origin,
            &json!([{"name": "response-transformer", "config": config}]),
        );
        let answer = gateway.get("/json").send().expect_status(200);
        assert_eq!(
            answer.json(),
            json!({"there": "two", "kept": {"deep": true}, "added": 7})
        );
        assert_eq!(answer.header("X-Gone"), None);
        assert_eq!(answer.header("X-New"), Some("o"));
        assert_eq!(answer.all("X-There"), ["2", "3"]);
        assert_eq!(answer.header("X-Added"), Some("1"));
        let plain = gateway.get("/text").send().expect_status(200);
        assert_eq!(plain.text(), "gone");
        assert_eq!(plain.header("X-Gone"), None);
    });
}

#[test]
fn a_gateway_made_answer_is_transformed_too() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = behind(
            driver,
            &origin,
            &json!([
                {"name": "key-auth"},
                {"name": "response-transformer", "config": {"add": {"headers": ["x-stamp:1"]}}},
            ]),
        );
        let answer = gateway.get("/").send().expect_status(401);
        assert_eq!(answer.header("X-Stamp"), Some("1"));
    });
}

#[test]
fn a_correlation_id_is_made_kept_and_echoed() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let id = |config: Value| {
            behind(
                driver,
                &origin,
                &json!([{"name": "correlation-id", "config": config}]),
            )
        };
        let gateway =
            id(json!({"header_name": "X-Id", "generator": "uuid", "echo_downstream": true}));
        let answer = gateway.get("/").send().expect_status(200);
        let made = answer.header("X-Id").expect("an id").to_owned();
        assert_eq!(made.len(), 36);
        assert_eq!(answer.echoed_one("x-id"), Some(made.clone()));
        let again = gateway.get("/").send();
        assert_ne!(again.header("X-Id"), Some(made.as_str()));
        let kept = gateway
            .get("/")
            .header("X-Id", "mine")
            .send()
            .expect_status(200);
        assert_eq!(kept.header("X-Id"), Some("mine"));
        assert_eq!(kept.echoed_one("x-id").as_deref(), Some("mine"));
        let counter = id(json!({}));
        let first = counter
            .get("/")
            .send()
            .echoed_one("kong-request-id")
            .expect("an id");
        let (uuid, number) = first.split_once('#').expect("uuid#counter");
        assert_eq!(uuid.len(), 36);
        assert!(number.parse::<u64>().is_ok());
        let tracker = id(json!({"generator": "tracker"}));
        let value = tracker
            .get("/")
            .send()
            .echoed_one("kong-request-id")
            .expect("an id");
        assert_eq!(value.split('-').count(), 6, "{value}");
    });
}

#[test]
fn a_correlation_id_never_stands_twice() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let with = |header: &str| {
            let config = json!({"header_name": header, "generator": "uuid"});
            behind(
                driver,
                &origin,
                &json!([{"name": "correlation-id", "config": config}]),
            )
        };
        // An empty one counts as none.
        let answer = with("X-Trace-ID").get("/").header("x-trace-id", "").send();
        let made = answer.echoed_one("x-trace-id").expect("an id");
        assert_eq!(made.len(), 36);
        // Where the gateway writes a field of this name itself, its word counts.
        let answer = with("X-Kong-Request-ID").get("/").send().expect_status(200);
        let own = answer.header("X-Kong-Request-Id");
        assert_eq!(answer.echoed_one("x-kong-request-id").as_deref(), own);
        let answer = with("X-Forwarded-For").get("/").send().expect_status(200);
        let list = answer.echoed_one("x-forwarded-for").expect("a list");
        assert!(list.ends_with(", 127.0.0.1"), "{list}");
        // A name that the gateway itself asks for.
        let answer = with("Cookie").get("/").send().expect_status(200);
        assert_eq!(answer.echoed_one("cookie").map(|id| id.len()), Some(36));
    });
}

#[test]
fn the_most_specific_instance_of_a_plugin_runs() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let stamp = |value: &str| json!({"name": "request-transformer", "config": {"add": {"headers": [format!("x-stamp:{value}")]}}});
        let with = |mut plugin: Value, key: &str, value: &str| {
            plugin[key] = json!(value);
            plugin
        };
        let text = json!({
            "_format_version": "3.0",
            "services": [
                {"name": "s", "url": origin.url(), "routes": [{"name": "r1", "paths": ["/r1"]}, {"name": "r2", "paths": ["/r2"]}]},
                {"name": "other", "url": origin.url(), "routes": [{"name": "r3", "paths": ["/r3"]}]},
            ],
            "consumers": [
                {"username": "alice", "keyauth_credentials": [{"key": "alice"}]},
                {"username": "bob", "keyauth_credentials": [{"key": "bob"}]},
            ],
            "plugins": [
                {"name": "key-auth", "config": {"anonymous": "bob"}},
                stamp("global"),
                with(stamp("service"), "service", "s"),
                with(stamp("route"), "route", "r1"),
                with(stamp("consumer"), "consumer", "alice"),
                with(with(stamp("consumer-route"), "consumer", "alice"), "route", "r2"),
            ],
        });
        let gateway = Gateway::builder()
            .driver(driver)
            .declarative(&text.to_string())
            .start();
        for (path, key, expected) in [
            ("/r1", "bob", "route"),
            ("/r2", "bob", "service"),
            ("/r3", "bob", "global"),
            ("/r1", "alice", "consumer"),
            ("/r2", "alice", "consumer-route"),
            ("/r3", "alice", "consumer"),
        ] {
            let answer = gateway
                .get(path)
                .header("apikey", key)
                .send()
                .expect_status(200);
            assert_eq!(
                answer.echoed_one("x-stamp").as_deref(),
                Some(expected),
                "{path} {key}"
            );
        }
    });
}

#[test]
fn a_disabled_plugin_does_not_run() {
    let origin = Origin::echo();
    let gateway = behind(
        Driver::Exchange,
        &origin,
        &json!([{"name": "request-termination", "enabled": false}, {"name": "key-auth", "enabled": false}]),
    );
    gateway.get("/").send().expect_status(200);
}
