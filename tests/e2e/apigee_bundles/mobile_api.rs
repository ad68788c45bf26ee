//! `mobile-api`: keys, quotas of products and of classes, versions of the application, preflight requests.

use serde_json::json;

use crate::harness::{Organization, Origin, Reply, Request};

fn catalogue() -> Origin {
    Origin::answering(
        |request| match (request.method.as_str(), request.target.as_str()) {
            ("GET", target) if target.starts_with("/catalogue/items/") => {
                let body = json!({"product": {
                    "titles": [{"text": "A \"blue\" chair"}, {"text": "Ein Stuhl"}],
                    "prices": [{"currency": "USD", "amount": 20}, {"currency": "EUR", "amount": 19.5}],
                    "tags": ["wood", "blue"], "stock": [1, 2, 3],
                }});
                let headers = [
                    ("Content-Type", "application/json"),
                    ("X-Powered-By", "steam"),
                    ("Server", "old"),
                ];
                Reply::new(200, &headers, body.to_string())
            }
            ("GET", "/catalogue/broken") => Reply::new(500, &[], "secret details"),
            _ => Reply::echo(request),
        },
    )
}

struct Mobile {
    organization: Organization,
    origin: Origin,
    gold: String,
    silver: String,
}

impl Mobile {
    fn new() -> Self {
        let (organization, origin) = (Organization::new(), catalogue());
        organization.target_server("catalogue", &origin);
        organization.deploy("mobile-api");
        organization.map("mobile-config", false, &[("minimum__major", "3")]);
        let tier = |name: &str| json!([{"name": "tier", "value": name}, {"name": "access", "value": "public"}]);
        organization.product(
            "Gold",
            json!({"quota": "4", "quotaInterval": "1", "quotaTimeUnit": "month", "attributes": tier("gold"),
                "proxies": ["mobile-api"], "apiResources": ["/items", "/items/**"]}),
        );
        organization.product("Silver", json!({"attributes": tier("silver")}));
        organization.developer("ada@example.com", "Ada", "Lovelace");
        let (gold, _) = organization.app("ada@example.com", "phone", &["Gold"]);
        let (silver, _) = organization.app("ada@example.com", "watch", &["Silver"]);
        Self {
            organization,
            origin,
            gold,
            silver,
        }
    }

    fn get(&self, path: &str, key: &str) -> Request {
        let gateway = &self.organization.gateway;
        gateway
            .get(&format!("/mobile/v1{path}"))
            .header("X-API-Key", key)
    }
}

#[test]
fn a_key_opens_what_its_product_says() {
    let mobile = Mobile::new();
    let gateway = &mobile.organization.gateway;
    let missing = gateway
        .get("/mobile/v1/items")
        .header("Origin", "https://a.test")
        .send()
        .expect_status(401);
    assert_eq!(
        missing.header("Access-Control-Allow-Origin"),
        Some("https://a.test")
    );
    assert_eq!(
        missing.header("WWW-Authenticate"),
        Some("Key realm=\"mobile\"")
    );
    assert_eq!(
        missing.json(),
        json!({"error": "invalid_key", "fault": "FailedToResolveAPIKey",
            "message": "Failed to resolve API Key variable request.header.x-api-key"})
    );
    let unknown = mobile.get("/items", "nonsense").send().expect_status(401);
    assert_eq!(unknown.json()["fault"], "InvalidApiKey");
    let list = mobile
        .get("/items?size=5&apikey=x&q=a%20b", &mobile.gold)
        .header("User-Agent", "AcmeShop/3.14 (iOS; iPhone 12)")
        .header("Cookie", "session=1")
        .send()
        .expect_status(200);
    let target = list.echoed_target();
    let (path, query) = target.split_once('?').unwrap();
    assert_eq!(path, "/catalogue/items");
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["limit=5", "page=1", "q=a%20b"]);
    for (name, value) in [
        ("X-Client-Id", Some(mobile.gold.as_str())),
        ("X-Developer", Some("Ada Lovelace <ada@example.com>")),
        ("X-App", Some("phone")),
        ("X-Plan", Some("Gold:gold")),
        ("X-Platform", Some("iOS")),
        ("X-API-Key", None),
        ("Cookie", None),
    ] {
        assert_eq!(list.echoed_one(name).as_deref(), value, "{name}");
    }
    assert_eq!(list.header("Cache-Control"), Some("private, max-age=10"));
    assert_eq!(list.header("X-RateLimit-Limit"), Some("4"));
    assert_eq!(list.header("X-RateLimit-Remaining"), Some("3"));
    // The product names its resources.
    let outside = mobile.get("/other", &mobile.gold).send().expect_status(401);
    assert_eq!(outside.json()["fault"], "InvalidApiKeyForGivenResource");
    let unknown = mobile
        .get("/other", &mobile.silver)
        .send()
        .expect_status(404);
    assert_eq!(
        unknown.json(),
        json!({"error": "not_found", "path": "/other"})
    );
    let verb = gateway
        .request("DELETE", "/mobile/v1/items/7")
        .header("x-api-key", &mobile.silver)
        .send();
    let verb = verb.expect_status(405);
    assert_eq!(
        (verb.header("Allow"), verb.text().as_str()),
        (
            Some("GET, POST"),
            "{\"error\":\"method_not_allowed\",\"verb\":\"DELETE\"}"
        )
    );
    // A revoked app is out at once.
    mobile.organization.act(
        "POST",
        "developers/ada@example.com/apps/watch?action=revoke",
    );
    let revoked = mobile
        .get("/items", &mobile.silver)
        .send()
        .expect_status(401);
    assert_eq!(revoked.json()["fault"], "invalid_client-app_not_approved");
    mobile.organization.act(
        "POST",
        "developers/ada@example.com/apps/watch?action=approve",
    );
    mobile
        .get("/items", &mobile.silver)
        .send()
        .expect_status(200);
}

#[test]
fn answers_are_made_for_phones() {
    let mobile = Mobile::new();
    let answer = mobile
        .get("/items/a%20b", &mobile.gold)
        .header("User-Agent", "acmeshop/3.1 (Android; Pixel)")
        .send()
        .expect_status(200);
    assert_eq!(mobile.origin.received()[0].target, "/catalogue/items/a%20b");
    assert_eq!(
        answer.json(),
        json!({"id": "a%20b", "title": "A \"blue\" chair", "tags": ["wood", "blue"], "for": "android", "empty": {}}),
    );
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("X-Powered-By"), None);
    assert_ne!(answer.header("Server"), Some("old"));
    let tag = answer.header("ETag").expect("a tag");
    assert!(
        tag.len() == 20 && tag.starts_with("W/\"") && tag.ends_with('"'),
        "{tag}"
    );
    let gateway = &mobile.organization.gateway;
    let add = |body: &str| {
        gateway
            .request("POST", "/mobile/v1/items")
            .header("x-api-key", &mobile.gold)
            .header("Content-Type", "application/json")
            .body(body)
            .send()
    };
    let added = add("{\"name\":\"chair\"}").expect_status(200);
    assert_eq!(added.echoed_one("X-Received").as_deref(), Some("on time"));
    assert!(
        added
            .echoed_one("X-Message")
            .is_some_and(|it| !it.is_empty())
    );
    assert_eq!(added.json()["body"], "{\"name\":\"chair\"}");
    let deep = add("{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}").expect_status(500);
    assert_eq!(
        deep.json(),
        json!({"error": "ExecutionFailed", "status": "500"})
    );
    assert_eq!(deep.header("Vary"), Some("Origin"));
}

#[test]
fn quotas_belong_to_products_classes_and_callers() {
    let mobile = Mobile::new();
    let left = |answer: &crate::harness::Response| {
        answer.header("X-RateLimit-Remaining").map(str::to_owned)
    };
    for expected in ["3", "2", "1", "0"] {
        let answer = mobile.get("/items", &mobile.gold).send().expect_status(200);
        assert_eq!(left(&answer).as_deref(), Some(expected));
    }
    let over = mobile.get("/items", &mobile.gold).send().expect_status(429);
    assert_eq!(
        over.json(),
        json!({"error": "quota", "limit": "4", "failed": "true"})
    );
    assert_eq!(over.header("Retry-After"), Some("60"));
    assert_eq!(over.header("Access-Control-Allow-Origin"), Some("*"));
    // The other product has none: the policy's default counts, for each key by itself.
    let answer = mobile
        .get("/items", &mobile.silver)
        .send()
        .expect_status(200);
    assert_eq!(
        (answer.header("X-RateLimit-Limit"), left(&answer).as_deref()),
        (Some("3"), Some("2"))
    );
    let gateway = &mobile.organization.gateway;
    let write = || {
        let request = gateway
            .request("POST", "/mobile/v1/items")
            .header("x-api-key", &mobile.silver);
        request.json(&json!({"a": 1})).send()
    };
    write().expect_status(200);
    let refused = write().expect_status(429);
    assert_eq!(refused.json()["error"], "quota", "silver may write once");
    // Counters outlive a new revision.
    mobile.organization.deploy("mobile-api");
    mobile.get("/items", &mobile.gold).send().expect_status(429);
}

#[test]
fn settings_change_while_it_runs() {
    let mobile = Mobile::new();
    let ask = |agent: &str| {
        mobile
            .get("/items", &mobile.gold)
            .header("User-Agent", agent)
            .send()
    };
    let old = ask("AcmeShop/2.9 (iOS; iPhone 4)").expect_status(426);
    assert_eq!(
        old.json(),
        json!({"error": "upgrade_required", "yours": "2.9", "platform": "iOS"})
    );
    assert_eq!(old.header("Upgrade-To"), Some("3.0"));
    ask("AcmeShop/10.0").expect_status(200);
    ask("curl/8").expect_status(200);
    mobile
        .organization
        .set_entry("mobile-config", "minimum__major", "11");
    ask("AcmeShop/10.0").expect_status(426);
    mobile.organization.add(
        "keyvaluemaps/mobile-config/entries",
        json!({"name": "spike.rate", "value": "1pm"}),
    );
    // Whether the first one passes depends on when the last one did.
    ask("curl/8");
    let spike = ask("curl/8").expect_status(503);
    assert_eq!(
        spike.json(),
        json!({"error": "spike", "message": "Spike arrest violation. Allowed rate : 1pm"})
    );
    // Preflight requests need no key and reach no target.
    let before = mobile.origin.received().len();
    let preflight = mobile
        .organization
        .gateway
        .request("OPTIONS", "/mobile/v1/items")
        .header("Origin", "https://a.test")
        .header("Access-Control-Request-Method", "GET")
        .send()
        .expect_status(200);
    assert_eq!(
        preflight.header("Access-Control-Allow-Methods"),
        Some("GET, POST")
    );
    assert_eq!(
        preflight.header("Access-Control-Allow-Origin"),
        Some("https://a.test")
    );
    assert_eq!(preflight.text(), "");
    assert_eq!(mobile.origin.received().len(), before);
}
