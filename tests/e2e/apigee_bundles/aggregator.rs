//! `aggregator`: scripts that ask several services, put answers together and edit messages.

use serde_json::json;

use crate::harness::{Organization, Origin, Reply};

struct Pages {
    organization: Organization,
    profiles: Origin,
    orders: Origin,
    _offers: Origin,
}

impl Pages {
    fn new() -> Self {
        let organization = Organization::new();
        let profiles = Origin::answering(|request| match request.target.split('?').next() {
            Some("/v3/profiles/7") => Reply::new(
                200,
                &[("Content-Type", "application/json")],
                "{\"name\":\"Ada\",\"vip\":true}",
            ),
            _ => Reply::new(404, &[], "{}"),
        });
        let orders = Origin::answering(|request| match request.method.as_str() {
            "GET" => {
                let list = json!([{"sku": "a", "price": 1.1, "count": 3}, {"sku": "b", "price": 2}, {"sku": "c", "price": 0.05}]);
                Reply::new(
                    200,
                    &[("Content-Type", "application/json")],
                    list.to_string(),
                )
            }
            _ => Reply::echo(request),
        });
        let offers = Origin::answering(|_| Reply::new(200, &[], "{\"offers\":[1,2,3]}"));
        organization.target_server("profiles", &profiles);
        let host = |origin: &Origin| origin.address.to_string();
        organization.map(
            "services",
            false,
            &[("orders", &host(&orders)), ("offers", &host(&offers))],
        );
        organization.deploy("aggregator");
        Self {
            organization,
            profiles,
            orders,
            _offers: offers,
        }
    }
}

#[test]
fn one_page_comes_of_three_services() {
    let pages = Pages::new();
    let gateway = &pages.organization.gateway;
    for _ in 0..3 {
        let page = gateway
            .get("/pages/customers/7/page")
            .header("X-Page", "p1")
            .send()
            .expect_status(200);
        assert_eq!(
            page.json(),
            json!({"customer": {"id": "7", "name": "Ada"},
                "orders": [{"sku": "a", "price": 1.1, "count": 3}, {"sku": "b", "price": 2}],
                "total": 5.35, "offers": 3, "vip": true, "undeclared": "undefined"}),
        );
        assert_eq!(page.header("X-Names"), Some("a+b"));
        assert_eq!(page.header("X-Offers"), Some("200:3"));
        assert_eq!(page.header("X-Day"), Some("1970-01-01"));
        assert!(
            page.header("Digest")
                .is_some_and(|it| it.starts_with("sha-256=") && it.len() == 52)
        );
        assert_eq!(page.header("Content-MD5").map(str::len), Some(32));
        assert!(
            page.header("X-Started")
                .is_some_and(|it| it.parse::<u64>().is_ok()),
            "{:?}",
            page.headers
        );
    }
    let asked = &pages.profiles.received()[0];
    assert_eq!(
        asked.target,
        "/v3/profiles/7?fields=name%2Cvip%20%26%20more"
    );
    assert_eq!(
        asked.header("X-Page"),
        None,
        "nothing of the inbound request is copied"
    );
    let asked = &pages.orders.received()[0];
    assert_eq!(
        (asked.target.as_str(), asked.header("X-Page")),
        ("/orders?customer=7", Some("p1"))
    );
    let none = gateway
        .get("/pages/customers/8/page")
        .send()
        .expect_status(404);
    assert_eq!(
        none.json(),
        json!({"error": "no customer 8", "callout": "true"})
    );
    let summary = gateway
        .get("/pages/customers/7/summary")
        .send()
        .expect_status(200);
    assert_eq!(summary.json(), json!({"total": 5.35, "skus": ["a", "b"]}));
}

#[test]
fn scripts_edit_what_passes() {
    let pages = Pages::new();
    let gateway = &pages.organization.gateway;
    let order = json!({"lines": [{"sku": "x", "price": 2.5, "count": 2}], "internal": true});
    let answer = gateway
        .request("POST", "/pages/customers/9/orders?secret=1&b=2")
        .json(&order)
        .send()
        .expect_status(201);
    let seen = answer.json();
    assert_eq!(
        (seen["status"].as_i64(), seen["seen"].as_str()),
        (Some(200), Some("application/json"))
    );
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["target"], "/ignored?b=2&traced=yes");
    let body: serde_json::Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
    let lines =
        json!([{"sku": "x", "price": 2.5, "count": 2}, {"sku": "gift", "price": 0, "count": 1}]);
    assert_eq!(body, json!({"lines": lines, "customer": "9"}));
    for (name, value) in [("X-Lines", "2"), ("X-Total", "5"), ("X-Names", "b,traced")] {
        assert_eq!(answer.echoed_one(name).as_deref(), Some(value), "{name}");
    }
    let form = gateway
        .request("POST", "/pages/customers/9/contact")
        .header("X-Several", "one, two")
        .form("name=Ada+L&topic=a%26b")
        .send()
        .expect_status(200);
    assert_eq!(form.text(), "Ada L|2|a&b|one|2|3|0.5|true");
}

#[test]
fn errors_of_scripts_name_file_and_line() {
    let pages = Pages::new();
    let gateway = &pages.organization.gateway;
    let broken = gateway.get("/pages/broken").send().expect_status(500);
    assert_eq!(
        broken.json()["error"],
        "Execution of JS-Broken failed with error: Javascript runtime error: \"ReferenceError: \"notThere\" is not defined. (broken.js:3)\""
    );
    let verb = gateway
        .request("PATCH", "/pages/customers/7/page")
        .body("x")
        .send()
        .expect_status(500);
    assert!(
        verb.json()["error"]
            .as_str()
            .unwrap()
            .contains("verb PATCH is not known here")
    );
    let tolerated = gateway.get("/pages/tolerated").send().expect_status(200);
    assert_eq!(
        tolerated.text(),
        "failed=true fault=ScriptExecutionFailed error=false"
    );
}
