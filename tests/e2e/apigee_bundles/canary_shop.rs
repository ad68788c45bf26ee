//! `canary-shop`: two releases behind one address, chosen by share, header or address, with a way back.

use serde_json::json;

use crate::harness::{Organization, Origin, Reply};

struct Shop {
    organization: Organization,
    stable: [Origin; 2],
    canary: Origin,
    assets: Origin,
}

impl Shop {
    fn new() -> Self {
        let organization = Organization::new();
        let stable = [Origin::echo(), Origin::echo()];
        let canary = Origin::answering(|request| match request.target.as_str() {
            target if target.contains("crash") => Reply::new(500, &[], "stack trace"),
            target if target.contains("old-build") => {
                Reply::new(200, &[("X-Build", "build-99")], "{}")
            }
            target if target.contains("build") => {
                Reply::new(404, &[("X-Build", "build-100")], "{}")
            }
            _ => Reply::echo(request),
        });
        let assets = Origin::echo();
        for (name, origin) in [("stable-1", &stable[0]), ("stable-2", &stable[1])] {
            organization.target_server(name, origin);
        }
        let host = |origin: &Origin| origin.address.to_string();
        organization.map(
            "release",
            false,
            &[
                ("percent", "0"),
                ("maintenance", "off"),
                ("canary.host", &host(&canary)),
                ("stable.host", &host(&stable[0])),
                ("assets.host", &host(&assets)),
            ],
        );
        organization.deploy("canary-shop");
        Self {
            organization,
            stable,
            canary,
            assets,
        }
    }
}

#[test]
fn shares_headers_and_addresses_choose_the_release() {
    let shop = Shop::new();
    let gateway = &shop.organization.gateway;
    let ask = |headers: &[(&str, &str)]| {
        let mut request = gateway.get("/shop/eu/store/items?x=1");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send();
        (
            answer.status,
            answer.header("X-Release").unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(ask(&[]), (200, "stable; default".to_owned()));
    assert_eq!(
        ask(&[("X-Canary", "always")]),
        (200, "canary; header".to_owned())
    );
    assert_eq!(
        ask(&[("X-Canary", "never")]),
        (200, "stable; header".to_owned())
    );
    let internal = |address: &str| ask(&[("X-Canary", "internal"), ("X-Forwarded-For", address)]);
    assert_eq!(internal("10.1.2.3").1, "canary; header");
    assert_eq!(internal("192.168.7.7").1, "canary; header");
    assert_eq!(internal("192.168.7.8").0, 403);
    let cookie = ("Cookie", "a=b; shopper=ada; c=d");
    assert_eq!(ask(&[cookie]).1, "stable; default");
    shop.organization.set_entry("release", "percent", "100");
    let (_, reason) = ask(&[cookie]);
    assert!(
        reason.starts_with("canary; share ") && reason.ends_with("<100"),
        "{reason}"
    );
    assert_eq!(
        ask(&[("Cookie", "shopper=ada")]).1,
        reason,
        "the same caller is in the same bucket"
    );
    assert_eq!(ask(&[]).1, "stable; default");
    // A third of them, roughly: the hash is the same everywhere.
    shop.organization.set_entry("release", "percent", "30");
    let chosen = (0..60).filter(|number| {
        ask(&[("Cookie", &format!("shopper=user-{number}"))])
            .1
            .starts_with("canary")
    });
    let chosen = chosen.count();
    assert!((6..=30).contains(&chosen), "{chosen} of 60");
    let seen = shop.canary.received();
    assert_eq!(seen[0].target, "/v2/eu/items?x=1");
    assert_eq!(seen[0].header("X-Tag"), Some("canary/canary"));
    assert_eq!(seen[0].header("X-Canary"), None);
}

#[test]
fn the_stable_release_is_spread_by_weight() {
    let shop = Shop::new();
    let gateway = &shop.organization.gateway;
    let mut servers = Vec::new();
    for _ in 0..6 {
        let answer = gateway
            .get("/shop/us/store/a%2Fb")
            .send()
            .expect_status(200);
        assert_eq!(answer.echoed_target(), "/v1/us/a%2Fb");
        assert_eq!(answer.echoed_one("X-Tag").as_deref(), Some("stable/stable"));
        servers.push(answer.header("X-Server").unwrap_or_default().to_owned());
    }
    let first = servers.iter().filter(|name| *name == "stable-1").count();
    assert_eq!((first, servers.len() - first), (2, 4), "{servers:?}");
    let counted = shop.stable.each_ref().map(|origin| origin.received().len());
    assert_eq!(counted, [2, 4]);
    let cookies = gateway.get("/shop/us/store").send().expect_status(200);
    let set = cookies.all("Set-Cookie");
    assert_eq!(set.len(), 2);
    assert!(
        set[0].starts_with("shopper=") && set[0].ends_with("; Path=/shop/us/store; HttpOnly"),
        "{set:?}"
    );
    assert_eq!(set[1], "region=us; Expires=Wed, 21 Oct 2099 07:28:00 GMT");
    gateway.get("/shop/us").send().expect_status(404);
    gateway.get("/shop//store").send().expect_status(404);
}

#[test]
fn a_crashing_canary_falls_back() {
    let shop = Shop::new();
    let gateway = &shop.organization.gateway;
    let always = |path: &str| {
        gateway
            .get(&format!("/shop/eu/store{path}"))
            .header("X-Canary", "always")
            .send()
    };
    let rescued = always("/crash").expect_status(200);
    assert_eq!(rescued.header("X-Fallback"), Some("ErrorResponseCode"));
    assert_eq!(rescued.echoed_target(), "/v1/eu/crash");
    assert_eq!(rescued.echoed_one("X-Tag").as_deref(), Some("fallback"));
    let build = always("/build").expect_status(404);
    assert_eq!(
        build.header("X-New-Build"),
        Some("100"),
        "404 is a success here"
    );
    assert_eq!(
        always("/old-build")
            .expect_status(200)
            .header("X-New-Build"),
        None
    );
    let beta = always("/x?beta=true&q=1").expect_status(200);
    assert_eq!(beta.echoed_target(), "/beta/x?region=eu");
}

#[test]
fn what_needs_no_release_is_answered_without() {
    let shop = Shop::new();
    let gateway = &shop.organization.gateway;
    let health = gateway
        .get("/shop/eu/store/health")
        .send()
        .expect_status(200);
    assert_eq!(
        health.json(),
        json!({"proxy": "canary-shop", "revision": 1, "environment": "test", "percent": "0"})
    );
    assert_eq!(health.header("X-Route"), Some("health"));
    let moved = gateway
        .get("/shop/eu/store/shop12.php")
        .send()
        .expect_status(301);
    assert_eq!(
        moved.header("Location"),
        Some("/shop/eu/store/pages/12?from=php")
    );
    assert_eq!(
        (moved.text().as_str(), moved.header("X-Fault")),
        ("", Some("raised"))
    );
    let asset = gateway
        .get("/shop/eu/store/assets/logo.png?s=2")
        .send()
        .expect_status(200);
    assert_eq!(asset.echoed_target(), "/static/assets/logo.png?v=1&s=2");
    assert_eq!(asset.header("Cache-Control"), Some("public, max-age=86400"));
    assert_eq!(shop.assets.received().len(), 1);
    let checkout = |path: &str, body: &str| gateway.request("POST", path).form(body).send();
    let basket = checkout("/shop/eu/store/checkout/pay", "coupon=a").expect_status(422);
    assert_eq!(basket.json(), json!({"error": "basket"}));
    let paid = checkout(
        "/shop/eu/store/checkout/pay?basket=7&x=y",
        "coupon=a%26b&internal=1&note=hello+you",
    )
    .expect_status(200);
    assert_eq!(paid.echoed_target(), "/v1/eu/checkout/pay");
    let body = paid.json()["body"].as_str().unwrap().to_owned();
    let mut pairs: Vec<&str> = body.split('&').collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["basket=7", "coupon=a%26b", "note=hello+you"]);
    shop.organization.set_entry("release", "maintenance", "On");
    let closed = gateway
        .get("/shop/eu/store/health")
        .send()
        .expect_status(503);
    assert_eq!(
        (closed.text().as_str(), closed.header("Retry-After")),
        ("closed", Some("120"))
    );
    gateway
        .get("/shop/eu/store/health")
        .header("X-Staff", "yes")
        .send()
        .expect_status(200);
}
