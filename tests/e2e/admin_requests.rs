//! The Admin API as a protocol: bodies of every form, lists and tags, methods, what it tells about itself, and how
//! soon a change serves.

use serde_json::{Value, json};

use crate::harness::{Gateway, Request, Response};

#[track_caller]
fn assert_error(response: &Response, status: u16, code: i64, name: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let error = response.json();
    assert_eq!(error["code"], code, "{error}");
    assert_eq!(error["name"], name, "{error}");
    assert_eq!(error["message"], message, "{error}");
}

#[test]
fn forms_and_multipart_bodies_mean_the_same_as_json() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin
        .post_form(
            "/services",
            "name=s&host=h.test&port=81&tags[]=a&tags[]=b&enabled=true",
        )
        .expect_status(201);
    let service = admin.get("/services/s").json();
    assert_eq!(
        (&service["port"], &service["tags"], &service["enabled"]),
        (&json!(81), &json!(["a", "b"]), &json!(true))
    );
    let route = admin
        .post_form(
            "/services/s/routes",
            "name=r&hosts=a.test,b.test&paths[1]=/one&paths[2]=/two&headers.x-v[]=1&protocols=http",
        )
        .expect_status(201)
        .json();
    assert_eq!(route["hosts"], json!(["a.test", "b.test"]));
    assert_eq!(route["paths"], json!(["/one", "/two"]));
    assert_eq!(route["headers"], json!({"x-v": ["1"]}));
    assert_eq!(route["protocols"], json!(["http"]));
    let plugin = admin
        .post_form(
            "/routes/r/plugins",
            "name=rate-limiting&config.minute=5&config.policy=local",
        )
        .expect_status(201)
        .json();
    assert_eq!(plugin["config"]["minute"], 5);
    let unset = admin
        .write(admin.request("PATCH", "/routes/r").form("name="))
        .expect_status(200)
        .json();
    assert_eq!(unset["name"], Value::Null);
    let body = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nmulti\r\n\
        --x\r\nContent-Disposition: form-data; name=\"host\"\r\n\r\nm.test\r\n--x--\r\n";
    let request = admin
        .request("POST", "/services")
        .header("Content-Type", "multipart/form-data; boundary=x")
        .body(body);
    assert_eq!(
        admin.write(request).expect_status(201).json()["name"],
        "multi"
    );
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let post = |content_type: &str, body: &str| {
        let request = admin.request("POST", "/services");
        let request = if content_type.is_empty() {
            request
        } else {
            request.header("Content-Type", content_type)
        };
        request.body(body).send()
    };
    let answer = post("application/json", "{\"name\": ").expect_status(400);
    assert_eq!(answer.json(), json!({"message": "Cannot parse JSON body"}));
    post("text/xml", "<a/>").expect_status(415);
    post("", "name=x").expect_status(415);
    post("application/json", "[1]").expect_status(400);
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    post("application/json", &deep).expect_status(400);
    let wide = format!("a{}=1", "[a]".repeat(5000));
    let status = post("application/x-www-form-urlencoded", &wide).status;
    assert_eq!(status, 400);
    post(
        "application/json",
        &format!("\"{}\"", "x".repeat(11 * 1024 * 1024)),
    )
    .expect_status(413);
    admin.get("/services").expect_status(200);
}

#[test]
fn lists_are_paged_to_the_end() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    for number in 0..25 {
        let body = json!({"name": format!("s{number}"), "host": "h"});
        admin
            .request("POST", "/services")
            .json(&body)
            .send()
            .expect_status(201);
    }
    let mut seen = Vec::new();
    let mut next = Some("/services?size=10".to_owned());
    let mut pages = 0;
    while let Some(path) = next {
        let page = admin.get(&path).expect_status(200).json();
        seen.extend(
            page["data"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| one["id"].to_string()),
        );
        pages += 1;
        next = page["next"].as_str().map(str::to_owned);
        assert_eq!(next.is_some(), page.get("offset").is_some(), "{page}");
    }
    assert_eq!(pages, 3);
    assert!(
        seen.windows(2).all(|pair| pair[0] < pair[1]),
        "ordered by id, none twice"
    );
    assert_eq!(seen.len(), 25);
    let answer = admin.get("/services?size=1001");
    assert_error(
        &answer,
        400,
        9,
        "invalid size",
        "size must be an integer between 1 and 1000",
    );
    let answer = admin.get("/services?size=x");
    assert_error(&answer, 400, 9, "invalid size", "size must be a number");
    let answer = admin.get("/services?offset=%21").expect_status(400);
    assert_eq!(answer.json()["code"], 7);
}

#[test]
fn tags_filter_lists() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    for (name, tags) in [
        ("ab", json!(["a", "b"])),
        ("a", json!(["a"])),
        ("none", json!([])),
    ] {
        admin.create(
            "/services",
            json!({"name": name, "host": "h", "tags": tags}),
        );
    }
    let names = |query: &str| {
        let list = admin
            .get(&format!("/services?tags={query}"))
            .expect_status(200)
            .json();
        let mut names: Vec<String> = list["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names("a"), "a ab");
    assert_eq!(names("a,b"), "ab");
    assert_eq!(names("a/b"), "a ab");
    assert_eq!(names("zzz"), "");
    assert_eq!(
        admin.get("/services?tags=a,b/c").expect_status(400).json()["code"],
        11
    );
    let tags = admin.get("/tags").expect_status(200).json();
    assert_eq!(tags["data"].as_array().map(Vec::len), Some(3), "{tags}");
    let tagged = admin.get("/tags/b").expect_status(200).json();
    assert_eq!(tagged["data"][0]["entity_name"], "services");
}

#[test]
fn methods_and_options_are_told() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let answer = admin
        .request("OPTIONS", "/services")
        .send()
        .expect_status(204);
    assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS, POST"));
    let answer = admin
        .request("DELETE", "/services")
        .send()
        .expect_status(405);
    assert_eq!(answer.json(), json!({"message": "Method not allowed"}));
    admin.request("HEAD", "/services").send().expect_status(200);
    admin.get("/services/").expect_status(200);
}

#[test]
fn information_endpoints_say_what_clients_read() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let root = admin.get("/").expect_status(200).json();
    assert_eq!(root["version"], "3.10.0");
    assert_eq!(root["tagline"], "Welcome to kong");
    assert_eq!(root["sallyport"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        root["configuration"]["router_flavor"],
        "traditional_compatible"
    );
    assert!(
        root["plugins"]["available_on_server"]["key-auth"]["priority"].is_number(),
        "{root}"
    );
    let enabled = admin.get("/plugins/enabled").expect_status(200).json();
    let enabled = enabled["enabled_plugins"]
        .as_array()
        .expect("a list")
        .clone();
    for name in [
        "key-auth",
        "basic-auth",
        "acl",
        "ip-restriction",
        "cors",
        "rate-limiting",
        "request-termination",
        "request-transformer",
        "response-transformer",
        "correlation-id",
        "file-log",
        "prometheus",
    ] {
        assert!(enabled.contains(&json!(name)), "{name}");
        let schema = admin
            .get(&format!("/schemas/plugins/{name}"))
            .expect_status(200)
            .json();
        assert!(schema["fields"].is_array(), "{name}: {schema}");
    }
    for entity in [
        "services",
        "routes",
        "consumers",
        "plugins",
        "certificates",
        "snis",
        "upstreams",
        "targets",
        "vaults",
        "keys",
        "key_sets",
        "ca_certificates",
    ] {
        let schema = admin
            .get(&format!("/schemas/{entity}"))
            .expect_status(200)
            .json();
        assert!(
            schema["fields"]
                .as_array()
                .is_some_and(|fields| !fields.is_empty()),
            "{entity}"
        );
    }
    let missing = admin.get("/schemas/nothing").expect_status(404);
    assert_eq!(missing.message(), "No entity named 'nothing'");
    let missing = admin.get("/schemas/plugins/nothing").expect_status(404);
    assert_eq!(missing.message(), "No plugin named 'nothing'");
    let endpoints = admin.get("/endpoints").expect_status(200).json();
    let endpoints = endpoints["data"].as_array().expect("a list").clone();
    assert!(endpoints.contains(&json!("/services")) && endpoints.len() > 40);
    let status = admin.get("/status").expect_status(200).json();
    assert_eq!(status["database"]["reachable"], true);
    assert!(status["server"]["total_requests"].is_number());
    assert!(status["configuration"]["revision"].is_u64());
    let openapi = admin.get("/openapi.json").expect_status(200).json();
    assert!(openapi["paths"]["/services"]["post"].is_object());
    let valid = admin
        .request("POST", "/schemas/services/validate")
        .json(&json!({"host": "h"}))
        .send();
    assert_eq!(
        valid.expect_status(200).message(),
        "schema validation successful"
    );
    let invalid = admin
        .request("POST", "/schemas/services/validate")
        .json(&json!({"port": 1}))
        .send();
    assert_eq!(invalid.expect_status(400).json()["code"], 2);
    let invalid = admin
        .request("POST", "/schemas/plugins/validate")
        .json(&json!({"name": "rate-limiting", "config": {}}))
        .send();
    invalid.expect_status(400);
}

#[test]
fn a_foreign_page_cannot_administer() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let status = |request: Request| request.send().status;
    assert_eq!(
        status(
            admin
                .request("GET", "/services")
                .header("Origin", "http://evil.example")
        ),
        403
    );
    assert_eq!(
        status(admin.request("GET", "/services").host("evil.example")),
        403
    );
    let own = format!("http://{}", admin.address);
    assert_eq!(
        status(admin.request("GET", "/services").header("Origin", &own)),
        200
    );
    let local = format!("localhost:{}", admin.address.port());
    assert_eq!(status(admin.request("GET", "/services").host(&local)), 200);
}

#[test]
fn a_change_serves_at_once() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    admin.create(
        "/services",
        json!({"name": "s", "url": "http://127.0.0.1:1"}),
    );
    admin.create("/services/s/routes", json!({"name": "r", "paths": ["/x"]}));
    assert_eq!(gateway.route_of(gateway.get("/x")).as_deref(), Some("r"));
    admin
        .patch("/routes/r", json!({"paths": ["/y"]}))
        .expect_status(200);
    assert_eq!(gateway.route_of(gateway.get("/x")), None);
    assert_eq!(gateway.route_of(gateway.get("/y")).as_deref(), Some("r"));
    admin.create(
        "/routes/r/plugins",
        json!({"name": "request-termination", "config": {"status_code": 418}}),
    );
    gateway.get("/y").send().expect_status(418);
    admin.delete("/routes/r").expect_status(204);
    gateway.get("/y").send().expect_status(404);
}

#[test]
fn concurrent_writers_lose_nothing() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let admin = &admin;
            scope.spawn(move || {
                for number in 0..10 {
                    let body = json!({"name": format!("w{writer}-{number}"), "host": "h"});
                    admin
                        .request("POST", "/services")
                        .json(&body)
                        .send()
                        .expect_status(201);
                }
            });
        }
    });
    let list = admin.get("/services?size=1000").json();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(80));
    // The same name from everybody: exactly one gets it.
    let won: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..8)
            .map(|_| {
                let admin = &admin;
                scope.spawn(move || {
                    let body = json!({"name": "contested", "host": "h"});
                    admin.request("POST", "/services").json(&body).send().status
                })
            })
            .collect();
        handles
            .into_iter()
            .filter(|_| true)
            .map(|handle| usize::from(handle.join().expect("a status") == 201))
            .sum()
    });
    assert_eq!(won, 1);
}
