//! Plugins that decide who may pass: key-auth, basic-auth, acl, ip-restriction. Through both drivers.

use serde_json::{Value, json};

use crate::harness::{Driver, Gateway, Origin, for_both_drivers, with_plugins};

/// Two consumers with keys, passwords and groups, and these plugins on one service.
fn guarded(driver: Driver, origin: &Origin, plugins: &Value) -> Gateway {
    let mut text = with_plugins(&origin.url(), plugins);
    text["consumers"] = json!([
        {
            "id": "0e9b4c43-7f0a-4f4c-9e0a-0c5d2b1f4a01", "username": "alice", "custom_id": "A1",
            "keyauth_credentials": [{"key": "alice-key"}],
            "basicauth_credentials": [{"username": "alice", "password": "open sesame"}],
            "acls": [{"group": "staff"}, {"group": "admins"}],
        },
        {"username": "bob", "keyauth_credentials": [{"key": "bob-key"}], "acls": [{"group": "guests"}]},
        {"username": "anonymous"},
    ]);
    Gateway::builder()
        .driver(driver)
        .declarative(&text.to_string())
        .start()
}

#[test]
fn a_key_is_taken_from_header_query_or_body() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let plugins = json!([{"name": "key-auth", "config": {"key_names": ["apikey", "x-key"], "key_in_body": true}}]);
        let gateway = guarded(driver, &origin, &plugins);
        for request in [
            gateway.get("/").header("apikey", "alice-key"),
            gateway.get("/").header("X-Key", "alice-key"),
            gateway.get("/?a=1&apikey=alice-key"),
            gateway.request("POST", "/").form("b=2&apikey=alice-key"),
            gateway
                .request("POST", "/")
                .json(&json!({"apikey": "alice-key"})),
        ] {
            let answer = request.send().expect_status(200);
            assert_eq!(
                answer.echoed_one("x-consumer-username").as_deref(),
                Some("alice")
            );
            assert_eq!(
                answer.echoed_one("x-consumer-custom-id").as_deref(),
                Some("A1")
            );
            assert_eq!(
                answer.echoed_one("x-consumer-id").as_deref(),
                Some("0e9b4c43-7f0a-4f4c-9e0a-0c5d2b1f4a01")
            );
            assert_eq!(
                answer
                    .echoed_one("x-credential-identifier")
                    .map(|id| id.len()),
                Some(36)
            );
            assert_eq!(answer.echoed_one("x-anonymous-consumer"), None);
        }
    });
}

#[test]
fn a_missing_or_wrong_key_gets_401_in_kongs_words() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = guarded(driver, &origin, &json!([{"name": "key-auth"}]));
        let missing = gateway.get("/").send().expect_status(401);
        assert_eq!(missing.message(), "No API key found in request");
        assert_eq!(missing.header("WWW-Authenticate"), Some("Key"));
        assert!(missing.json()["request_id"].is_string());
        assert!(missing.header("X-Kong-Response-Latency").is_some());
        assert_eq!(missing.header("X-Kong-Upstream-Latency"), None);
        let wrong = gateway
            .get("/")
            .header("apikey", "nobody")
            .send()
            .expect_status(401);
        assert_eq!(wrong.message(), "Unauthorized");
        let twice = gateway
            .get("/?apikey=alice-key&apikey=bob-key")
            .send()
            .expect_status(401);
        assert_eq!(twice.message(), "Duplicate API key found");
        assert_eq!(origin.received().len(), 0);
    });
}

#[test]
fn identity_headers_of_clients_do_not_get_through() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = guarded(driver, &origin, &json!([{"name": "key-auth"}]));
        let answer = gateway
            .get("/")
            .header("apikey", "bob-key")
            .header("X-Consumer-Username", "alice")
            .header("X-Consumer-Custom-Id", "A1")
            .header("X-Anonymous-Consumer", "true")
            .send()
            .expect_status(200);
        assert_eq!(
            answer.echoed_one("x-consumer-username").as_deref(),
            Some("bob")
        );
        assert_eq!(answer.echoed_one("x-consumer-custom-id"), None);
        assert_eq!(answer.echoed_one("x-anonymous-consumer"), None);
    });
}

#[test]
fn later_plugins_see_the_identity_in_the_head() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let rename = json!({"rename": {"headers": ["X-Consumer-Username:X-Who"]}});
        let plugins = json!([
            {"name": "key-auth"},
            {"name": "request-transformer", "config": rename},
        ]);
        let gateway = guarded(driver, &origin, &plugins);
        let asked = gateway.get("/").header("apikey", "bob-key");
        let answer = asked.header("X-Consumer-Username", "alice").send();
        let answer = answer.expect_status(200);
        assert_eq!(answer.echoed_one("x-who").as_deref(), Some("bob"));
        assert_eq!(answer.echoed_one("x-consumer-username"), None);
        assert!(answer.echoed_one("x-consumer-id").is_some());
    });
}

#[test]
fn hidden_credentials_do_not_reach_the_origin() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let key = guarded(
            driver,
            &origin,
            &json!([{"name": "key-auth", "config": {"hide_credentials": true}}]),
        );
        let answer = key
            .get("/")
            .header("apikey", "alice-key")
            .send()
            .expect_status(200);
        assert_eq!(answer.echoed_one("apikey"), None);
        let answer = key
            .get("/p?x=1&apikey=alice-key&y=2")
            .send()
            .expect_status(200);
        assert_eq!(answer.echoed_target(), "/p?x=1&y=2");
        let basic = guarded(
            driver,
            &origin,
            &json!([{"name": "basic-auth", "config": {"hide_credentials": true}}]),
        );
        let answer = basic
            .get("/")
            .header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")
            .send()
            .expect_status(200);
        assert_eq!(answer.echoed_one("authorization"), None);
    });
}

#[test]
fn a_password_is_checked() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = guarded(driver, &origin, &json!([{"name": "basic-auth"}]));
        let good = gateway
            .get("/")
            .header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")
            .send()
            .expect_status(200);
        assert_eq!(
            good.echoed_one("x-consumer-username").as_deref(),
            Some("alice")
        );
        assert_eq!(
            good.echoed_one("x-credential-identifier").as_deref(),
            Some("alice")
        );
        for value in [
            "Basic YWxpY2U6d3Jvbmc=",
            "Basic !!!",
            "Basic",
            "Bearer x",
            "Basic bm9ib2R5Og==",
        ] {
            let bad = gateway
                .get("/")
                .header("Authorization", value)
                .send()
                .expect_status(401);
            assert_eq!(bad.message(), "Unauthorized", "{value}");
            assert_eq!(
                bad.header("WWW-Authenticate"),
                Some("Basic realm=\"service\""),
                "{value}"
            );
        }
        gateway.get("/").send().expect_status(401);
    });
}

#[test]
fn an_anonymous_consumer_lets_everybody_in() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let gateway = guarded(
            driver,
            &origin,
            &json!([
                {"name": "key-auth", "config": {"anonymous": "anonymous"}},
                {"name": "basic-auth", "config": {"anonymous": "anonymous"}},
            ]),
        );
        let nobody = gateway.get("/").send().expect_status(200);
        assert_eq!(
            nobody.echoed_one("x-anonymous-consumer").as_deref(),
            Some("true")
        );
        assert_eq!(
            nobody.echoed_one("x-consumer-username").as_deref(),
            Some("anonymous")
        );
        let by_key = gateway
            .get("/")
            .header("apikey", "bob-key")
            .send()
            .expect_status(200);
        assert_eq!(
            by_key.echoed_one("x-consumer-username").as_deref(),
            Some("bob")
        );
        assert_eq!(by_key.echoed_one("x-anonymous-consumer"), None);
        let by_password = gateway
            .get("/")
            .header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")
            .send()
            .expect_status(200);
        assert_eq!(
            by_password.echoed_one("x-consumer-username").as_deref(),
            Some("alice")
        );
        let broken = guarded(
            driver,
            &origin,
            &json!([{"name": "key-auth", "config": {"anonymous": "no-one"}}]),
        );
        let answer = broken.get("/").send().expect_status(500);
        assert_eq!(
            answer.message(),
            "anonymous consumer no-one is configured but doesn't exist"
        );
    });
}

#[test]
fn preflights_pass_when_the_plugin_says_so() {
    let origin = Origin::echo();
    let strict = guarded(Driver::Exchange, &origin, &json!([{"name": "key-auth"}]));
    strict.request("OPTIONS", "/").send().expect_status(401);
    let lenient = guarded(
        Driver::Exchange,
        &origin,
        &json!([{"name": "key-auth", "config": {"run_on_preflight": false}}]),
    );
    lenient.request("OPTIONS", "/").send().expect_status(200);
}

#[test]
fn groups_decide_who_may_consume() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let acl = |config: Value| {
            guarded(
                driver,
                &origin,
                &json!([{"name": "key-auth"}, {"name": "acl", "config": config}]),
            )
        };
        let staff = acl(json!({"allow": ["staff"]}));
        let answer = staff
            .get("/")
            .header("apikey", "alice-key")
            .send()
            .expect_status(200);
        let groups = answer.echoed_one("x-consumer-groups").expect("groups");
        let mut groups: Vec<&str> = groups.split(", ").collect();
        groups.sort_unstable();
        assert_eq!(groups, ["admins", "staff"]);
        let refused = staff
            .get("/")
            .header("apikey", "bob-key")
            .send()
            .expect_status(403);
        assert_eq!(refused.message(), "You cannot consume this service");
        let others = acl(json!({"deny": ["staff"], "hide_groups_header": true}));
        others
            .get("/")
            .header("apikey", "alice-key")
            .send()
            .expect_status(403);
        let answer = others
            .get("/")
            .header("apikey", "bob-key")
            .send()
            .expect_status(200);
        assert_eq!(answer.echoed_one("x-consumer-groups"), None);
        let nobody = guarded(
            driver,
            &origin,
            &json!([{"name": "acl", "config": {"allow": ["staff"]}}]),
        );
        assert_eq!(
            nobody.get("/").send().expect_status(401).message(),
            "Unauthorized"
        );
    });
}

#[test]
fn addresses_decide_who_may_pass() {
    for_both_drivers(|driver| {
        let origin = Origin::echo();
        let restricted = |config: Value| {
            guarded(
                driver,
                &origin,
                &json!([{"name": "ip-restriction", "config": config}]),
            )
        };
        restricted(json!({"allow": ["127.0.0.0/8"]}))
            .get("/")
            .send()
            .expect_status(200);
        let answer = restricted(json!({"allow": ["10.0.0.0/8"]}))
            .get("/")
            .send()
            .expect_status(403);
        assert_eq!(answer.message(), "IP address not allowed: 127.0.0.1");
        restricted(json!({"deny": ["127.0.0.1"], "allow": ["127.0.0.0/8"]}))
            .get("/")
            .send()
            .expect_status(403);
        let own = restricted(json!({"deny": ["127.0.0.1"], "status": 418, "message": "not you"}));
        assert_eq!(own.get("/").send().expect_status(418).message(), "not you");
    });
}

#[test]
fn the_real_address_counts_behind_a_trusted_proxy() {
    let origin = Origin::echo();
    let text = with_plugins(
        &origin.url(),
        &json!([{"name": "ip-restriction", "config": {"deny": ["9.9.9.9"]}}]),
    );
    let gateway = Gateway::builder()
        .setting("trusted_ips", "127.0.0.1")
        .declarative(&text.to_string())
        .start();
    gateway
        .get("/")
        .header("X-Real-IP", "9.9.9.9")
        .send()
        .expect_status(403);
    gateway
        .get("/")
        .header("X-Real-IP", "8.8.8.8")
        .send()
        .expect_status(200);
}
