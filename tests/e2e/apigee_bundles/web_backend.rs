//! `web-backend`: several services in one page, sessions and answers remembered, the last good page when one is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::{Organization, Origin, Reply, Request};

struct Web {
    organization: Organization,
    sessions: Origin,
    catalogue: Origin,
    weather: Origin,
    news_is_down: Arc<AtomicBool>,
    _news: Origin,
}

impl Web {
    fn new() -> Self {
        let organization = Organization::new();
        let json_type = [("Content-Type", "application/json")];
        let sessions = Origin::answering(move |request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            match (request.target.as_str(), body.as_str()) {
                ("/check", "{\"sid\":\"s1\"}") => {
                    Reply::new(200, &json_type, "{\"user\":{\"name\":\"Ada\"}}")
                }
                ("/check", "{\"sid\":\"s2\"}") => {
                    Reply::new(200, &json_type, "{\"user\":{\"name\":\"Bob\"}}")
                }
                _ => Reply::new(200, &json_type, "{}"),
            }
        });
        let news_is_down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&news_is_down);
        let news = Origin::answering(move |request| match is_down.load(Ordering::SeqCst) {
            true => Reply::nothing(),
            false => {
                let news =
                    json!([{"title": "one"}, {"title": format!("seen at {}", request.target)}]);
                Reply::new(200, &json_type, news.to_string())
            }
        });
        let weather = Origin::answering(|_| {
            Reply::new(
                200,
                &[("Content-Type", "text/xml")],
                "<weather degrees='21'/>",
            )
        });
        let counter = AtomicUsize::new(0);
        let catalogue = Origin::answering(move |request| {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let status = if request.target.contains("missing") {
                404
            } else {
                200
            };
            let volatile = if request.target.contains("volatile") {
                "yes"
            } else {
                "no"
            };
            let by = request.header("X-Asked-By").unwrap_or_default();
            Reply::new(
                status,
                &[("X-Volatile", volatile)],
                format!("{number} for {by}"),
            )
        });
        for (name, origin) in [
            ("sessions", &sessions),
            ("news", &news),
            ("weather", &weather),
            ("catalogue", &catalogue),
        ] {
            organization.target_server(name, origin);
        }
        organization.add("caches", json!({"name": "sessions"}));
        organization.deploy("web-backend");
        Self {
            organization,
            sessions,
            catalogue,
            weather,
            news_is_down,
            _news: news,
        }
    }

    fn get(&self, path: &str, session: &str) -> Request {
        let gateway = &self.organization.gateway;
        gateway
            .get(&format!("/web{path}"))
            .header("Cookie", &format!("a=b; sid={session}; c=d"))
    }
}

#[test]
fn pages_are_made_of_services_and_remembered() {
    let web = Web::new();
    let gateway = &web.organization.gateway;
    let nobody = gateway.get("/web/home").send().expect_status(302);
    assert_eq!(
        (nobody.header("Location"), nobody.text().as_str()),
        (Some("/sign-in?back=/home"), "")
    );
    web.get("/home", "unknown").send().expect_status(302);
    let page =
        json!({"hello": "Ada", "headlines": ["one", "seen at /news?for=Ada"], "degrees": 21});
    let first = web.get("/home", "s1").send().expect_status(200);
    assert_eq!(
        (first.json(), first.header("X-Session")),
        (page.clone(), Some("false"))
    );
    let asked = web.sessions.received().len();
    let second = web.get("/home", "s1").send().expect_status(200);
    assert_eq!(
        (second.json(), second.header("X-Session")),
        (page.clone(), Some("true"))
    );
    assert_eq!(
        web.sessions.received().len(),
        asked,
        "the session is remembered"
    );
    // What was good is shown when a service is down, to those who saw it.
    web.news_is_down.store(true, Ordering::SeqCst);
    let stale = web.get("/home", "s1").send().expect_status(200);
    assert_eq!(
        (stale.json(), stale.header("Warning")),
        (page, Some("110 - stale"))
    );
    let sorry = web.get("/home", "s2").send().expect_status(503);
    assert_eq!(sorry.json(), json!({"sorry": "ExecutionFailed"}));
    // Signing out forgets the session here.
    let out = gateway
        .request("DELETE", "/web/session")
        .header("Cookie", "sid=s1")
        .send();
    out.expect_status(204);
    let asked = web.sessions.received().len();
    web.get("/home", "s1").send().expect_status(200);
    assert_eq!(web.sessions.received().len(), asked + 1);
    assert!(!web.weather.received().is_empty());
    // An administrator forgets all of them.
    web.organization
        .act("POST", "e/test/caches/sessions/entries?action=clear");
    web.get("/home", "s1").send().expect_status(200);
    assert_eq!(web.sessions.received().len(), asked + 2);
}

#[test]
fn answers_of_the_catalogue_are_kept() {
    let web = Web::new();
    let ask = |path: &str, session: &str| web.get(path, session).send();
    let first = ask("/catalogue/chairs?page=1", "s1").expect_status(200);
    assert_eq!(
        (first.text().as_str(), first.header("X-Cache")),
        ("1 for Ada", Some("false"))
    );
    let again = ask("/catalogue/chairs?page=1", "s2").expect_status(200);
    assert_eq!(
        (again.text().as_str(), again.header("X-Cache")),
        ("1 for Ada", Some("true"))
    );
    assert_eq!(again.header("X-Fresh"), first.header("X-Fresh"));
    assert_eq!(web.catalogue.received().len(), 1);
    assert_eq!(
        ask("/catalogue/chairs?page=2", "s1")
            .expect_status(200)
            .text(),
        "2 for Ada"
    );
    let fresh = web
        .get("/catalogue/chairs?page=1", "s2")
        .header("Cache-Control", "no-cache")
        .send();
    assert_eq!(fresh.expect_status(200).text(), "3 for Bob");
    assert_eq!(ask("/catalogue/chairs?page=1", "s1").text(), "3 for Bob");
    let german = web
        .get("/catalogue/chairs?page=1", "s1")
        .header("Accept-Language", "de")
        .send();
    assert_eq!(
        german.text(),
        "4 for Ada",
        "another language is another entry"
    );
    for (path, texts) in [
        ("/catalogue/volatile", ["5 for Ada", "6 for Ada"]),
        ("/catalogue/missing", ["7 for Ada", "8 for Ada"]),
    ] {
        assert_eq!(
            [ask(path, "s1").text(), ask(path, "s1").text()],
            texts,
            "{path}"
        );
    }
}
