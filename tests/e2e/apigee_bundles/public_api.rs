//! `public-api`: whatever strangers send, only what is meant goes further.

use serde_json::json;

use crate::harness::{Client, Organization, Origin};

fn public() -> (Organization, Origin) {
    let (organization, origin) = (Organization::new(), Origin::echo());
    organization.target_server("search", &origin);
    organization.deploy("public-api");
    (organization, origin)
}

#[test]
fn good_requests_pass_in_their_usual_form() {
    let (organization, _origin) = public();
    let gateway = &organization.gateway;
    let found = gateway
        .get("/public/search?q=Blue%20CHAIR&page=2&tracking=1")
        .header("Accept", "text/plain")
        .header("X-Secret", "1")
        .header("User-Agent", "Mozilla/5.0")
        .send()
        .expect_status(200);
    let target = found.echoed_target();
    let (path, query) = target.split_once('?').unwrap();
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    assert_eq!(
        (path, pairs),
        (
            "/search",
            vec!["page=2", "q=blue%20chair", "sort=relevance"]
        )
    );
    assert_eq!(found.echoed_one("Accept").as_deref(), Some("text/plain"));
    assert_eq!(
        (found.echoed_one("X-Secret"), found.echoed_one("User-Agent")),
        (None, None)
    );
    assert_eq!(found.echoed_one("X-Anonymous").map(|it| it.len()), Some(12));
    assert_eq!(found.header("X-Content-Type-Options"), Some("nosniff"));
    let page = gateway
        .get("/public/search?q=a&page=101")
        .send()
        .expect_status(400);
    assert_eq!(page.json(), json!({"error": "page", "given": "101"}));
    assert_eq!(
        gateway
            .get("/public/other")
            .send()
            .expect_status(404)
            .json(),
        json!({"error": "nothing_here"})
    );
    let signup = |form: &str| gateway.request("POST", "/public/signup").form(form).send();
    let accepted = signup("email=a%40b.test&consent=yes&age=18").expect_status(200);
    assert_eq!(
        accepted.json()["body"],
        "email=a%40b.test&consent=yes&age=18"
    );
    signup("email=a%40b.test&consent=yes&age=9").expect_status(422);
    signup("email=a%40b.test&consent=no&age=30").expect_status(422);
}

#[test]
fn attacks_are_refused_before_they_go_further() {
    let (organization, origin) = public();
    let gateway = &organization.gateway;
    let refused = |answer: crate::harness::Response, attack: Option<&str>| {
        let answer = answer.expect_status(400);
        assert_eq!(answer.json(), json!({"error": "bad_request"}));
        assert_eq!(answer.header("X-Attack"), attack);
        assert_eq!(
            answer.header("X-Content-Type-Options"),
            Some("nosniff"),
            "the default rule runs too"
        );
    };
    for path in [
        "/public/search?q=1;%20DROP%20table%20users",
        "/public/search?q=1%20or%201=1",
        "/public/search?q=%3Cscript%20src=x%3E",
        "/public/search?q=ok&q=delete",
    ] {
        refused(gateway.get(path).send(), None);
    }
    for path in ["/public/%2e%2e/search?q=a", "/public/../search?q=a"] {
        let elsewhere = gateway.get(path).send().expect_status(404);
        assert_eq!(
            elsewhere.header("X-Content-Type-Options"),
            None,
            "it is no path of this proxy"
        );
    }
    let inside = gateway
        .get("/other/../public/./search?q=a")
        .send()
        .expect_status(200);
    assert!(inside.echoed_target().starts_with("/search?"));
    refused(
        gateway
            .get("/public/search?q=a")
            .header("User-Agent", "sqlmap/1.0")
            .send(),
        None,
    );
    let document = |kind: &str, body: &str| {
        gateway
            .request("POST", "/public/documents")
            .header("Content-Type", kind)
            .body(body)
            .send()
    };
    for body in [
        "{\"a\":[1,2,3,4,5,6]}",
        "{\"a\":{\"b\":{\"c\":{}}}}",
        "{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1}",
        "{\"abcdefghijk\":1}",
        "{\"a\":\"aaaaaaaaaaaaaaaaaaaaa\"}",
        "{\"a\":",
    ] {
        refused(document("application/json", body), Some("json"));
    }
    refused(document("application/json", "{\"comment\":\"<img\"}"), None);
    for body in [
        "<a><b><c><d><e/></d></c></b></a>",
        "<abcdefghijk/>",
        "<a b='1' c='2' d='3'/>",
        "<a>aaaaaaaaaaaaaaaaaaaaa</a>",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        "<a><b></a>",
    ] {
        refused(document("text/xml", body), Some("xml"));
    }
    refused(
        document(
            "application/xml",
            "<doc xmlns='urn:doc'><note>Drop it</note></doc>",
        ),
        None,
    );
    refused(
        gateway
            .request("POST", "/public/signup")
            .form("email=%3Cb%3E&consent=yes&age=20")
            .send(),
        None,
    );
    let long =
        document("application/json", &format!("[{}1]", "1,".repeat(3000))).expect_status(413);
    assert_eq!(long.text(), "too long");
    assert_eq!(origin.received().len(), 1, "nothing of it went further");
    let good = document("application/json", "{\"comment\":\"fine\"}").expect_status(202);
    assert_eq!(good.header("X-Accepted"), Some("true"));
    document("text/xml", "<doc xmlns='urn:doc'><note>fine</note></doc>").expect_status(202);
}

#[test]
fn addresses_methods_and_versions_are_judged() {
    let (organization, origin) = public();
    let gateway = &organization.gateway;
    let from = |address: &str| {
        gateway
            .get("/public/search?q=a")
            .header("X-Forwarded-For", address)
            .send()
    };
    let denied = from("203.0.113.77, 10.0.0.1").expect_status(403);
    assert_eq!(denied.json(), json!({"error": "denied"}));
    from("203.0.113.9").expect_status(200);
    from("2001:db8:1::5").expect_status(403);
    from("2001:db8:2::5").expect_status(200);
    let hidden = gateway
        .get("/public/search?q=a")
        .header("X-Forwarded-For", "198.51.100.1")
        .header("True-Client-IP", "203.0.113.5");
    hidden.send().expect_status(403);
    gateway
        .request("TRACE", "/public/search?q=a")
        .send()
        .expect_status(405);
    let mut client = Client::connect(gateway.proxy());
    let old = client.exchange("GET /public/search?q=a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.status, 505);
    let asked = |origin: &str| {
        gateway
            .request("OPTIONS", "/public/search")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .send()
            .expect_status(200)
    };
    let before = origin.received().len();
    let allowed = asked("https://www.example.com");
    assert_eq!(
        allowed.header("Access-Control-Allow-Origin"),
        Some("https://www.example.com")
    );
    assert_eq!(allowed.header("Access-Control-Max-Age"), Some("3600"));
    assert_eq!(
        asked("https://evil.example").header("Access-Control-Allow-Origin"),
        None
    );
    assert_eq!(origin.received().len(), before);
    let page = gateway
        .get("/public/search?q=a")
        .header("Origin", "https://www.example.com")
        .send();
    assert_eq!(
        page.expect_status(200)
            .header("Access-Control-Expose-Headers"),
        Some("x-accepted")
    );
    let attack = gateway
        .get("/public/search?q=delete")
        .header("Origin", "https://www.example.com")
        .send();
    assert_eq!(
        attack.header("Access-Control-Allow-Origin"),
        Some("https://www.example.com"),
        "also on errors"
    );
}
