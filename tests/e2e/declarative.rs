//! Declarative configuration: files at start, `/config` at run time, import and export.

use serde_json::{Value, json};

use crate::harness::{Gateway, Origin, Reply};

/// A file as people write them: YAML, nested entities, references by name, consumers with keys, a regex, a limit.
fn public_file(origin: &Origin) -> String {
    format!(
        r#"
_format_version: "3.0"
_transform: true
_comment: a shop
services:
  - name: catalogue
    url: {url}/catalogue
    tags: [shop]
    routes:
      - name: items
        paths: ["~/items/(?<id>\\d+)$", /items]
        strip_path: false
      - name: search
        hosts: [search.test]
        methods: [GET, POST]
    plugins:
      - name: rate-limiting
        config: {{minute: 3, policy: local}}
  - name: orders
    host: orders.pool
    protocol: http
    routes:
      - name: orders
        paths: [/orders]
        plugins:
          - name: key-auth
            config:
              key_names: [x-api-key]
routes:
  - name: loose
    service: orders
    hosts: [orders.test]
upstreams:
  - name: orders.pool
    targets:
      - target: {address}
        weight: 10
consumers:
  - username: alice
    keyauth_credentials:
      - key: alices-key
    acls:
      - group: staff
plugins:
  - name: correlation-id
    config: {{header_name: X-Correlation, generator: uuid, echo_downstream: true}}
  - name: request-transformer
    consumer: alice
    config:
      add: {{headers: ["x-who:alice"]}}
"#,
        url = origin.url(),
        address = origin.address,
    )
}

#[test]
fn a_public_file_serves_as_a_whole() {
    let origin = Origin::echo();
    let gateway = Gateway::with(&public_file(&origin));
    let answer = gateway.get("/items/42").send().expect_status(200);
    assert_eq!(answer.echoed_target(), "/catalogue/items/42");
    assert_eq!(answer.header("X-Correlation").map(str::len), Some(36));
    assert_eq!(answer.header("X-RateLimit-Remaining-Minute"), Some("2"));
    gateway.get("/orders").send().expect_status(401);
    let answer = gateway
        .get("/orders/1")
        .header("x-api-key", "alices-key")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/1");
    assert_eq!(
        answer.echoed_one("x-consumer-username").as_deref(),
        Some("alice")
    );
    assert_eq!(answer.echoed_one("x-who").as_deref(), Some("alice"));
    let answer = gateway
        .get("/x")
        .host("orders.test")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/x");
    assert_eq!(
        gateway
            .route_of(gateway.get("/").host("search.test"))
            .as_deref(),
        Some("search")
    );
}

#[test]
fn without_a_database_entities_are_read_only() {
    let origin = Origin::echo();
    let gateway = Gateway::with(&public_file(&origin));
    let admin = gateway.admin();
    let services = admin.get("/services").expect_status(200).json();
    assert_eq!(services["data"].as_array().map(Vec::len), Some(2));
    let refused = admin
        .request("POST", "/services")
        .json(&json!({"name": "x", "host": "h"}))
        .send();
    let refused = refused.expect_status(405);
    assert_eq!(refused.json()["code"], 12);
    assert_eq!(
        refused.message(),
        "cannot create 'services' entities when not using a database"
    );
    let refused = admin
        .request("DELETE", "/services/catalogue")
        .send()
        .expect_status(405);
    assert_eq!(refused.json()["code"], 12);
    let status = admin.get("/status").json();
    assert_eq!(
        status["configuration_hash"].as_str().map(str::len),
        Some(32)
    );
}

#[test]
fn the_configuration_is_replaced_as_a_whole_or_not_at_all() {
    let origin = Origin::answering(|_| Reply::ok("ok"));
    let gateway = Gateway::with(r#"{"_format_version": "3.0"}"#);
    let admin = gateway.admin();
    gateway.get("/orders").send().expect_status(404);
    let post = |content_type: &str, body: &str, query: &str| {
        admin.write(
            admin
                .request("POST", &format!("/config{query}"))
                .header("Content-Type", content_type)
                .body(body),
        )
    };
    let text = public_file(&origin);
    let answer = post("text/yaml", &text, "").expect_status(201).json();
    assert_eq!(
        answer["services"].as_object().map(serde_json::Map::len),
        Some(2),
        "{answer}"
    );
    gateway.get("/orders").send().expect_status(401);
    let same = admin
        .request("POST", "/config?check_hash=1")
        .header("Content-Type", "text/yaml")
        .body(text.clone())
        .send();
    same.expect_status(304);

    let bad = r#"{"_format_version": "3.0", "services": [{"name": "nameless"}], "surprise": []}"#;
    let answer = post("application/json", bad, "").expect_status(400).json();
    assert_eq!(answer["code"], 14);
    assert_eq!(answer["name"], "invalid declarative configuration");
    assert_eq!(
        answer["fields"]["services"][0]["host"], "required field missing",
        "{answer}"
    );
    assert_eq!(answer["fields"]["surprise"], "unknown field", "{answer}");
    gateway.get("/orders").send().expect_status(401);

    let flat = post("application/json", bad, "?flatten_errors=1")
        .expect_status(400)
        .json();
    let first = &flat["flattened_errors"][0];
    assert_eq!(first["entity_type"], "service", "{flat}");
    assert_eq!(first["entity_name"], "nameless");
    assert_eq!(
        first["errors"][0],
        json!({"type": "field", "field": "host", "message": "required field missing"})
    );

    let dangling =
        r#"{"_format_version": "3.0", "routes": [{"name": "r", "paths": ["/"], "service": "x"}]}"#;
    let answer = post("application/json", dangling, "")
        .expect_status(400)
        .text();
    assert!(
        answer.contains("invalid reference 'service: x' (no such entry in 'services')"),
        "{answer}"
    );
    let broken = post("text/yaml", "services: [", "")
        .expect_status(400)
        .json();
    assert_eq!(broken["code"], 14);
    let empty = admin
        .request("POST", "/config")
        .header("Content-Type", "application/json")
        .body("{}")
        .send();
    assert_eq!(
        empty.expect_status(400).message(),
        "expected a declarative configuration"
    );
    gateway.get("/orders").send().expect_status(401);

    post(
        "application/json",
        &json!({"config": r#"{"_format_version": "3.0"}"#}).to_string(),
        "",
    )
    .expect_status(201);
    gateway.get("/orders").send().expect_status(404);
    let shown = admin.get("/config").expect_status(200).json();
    assert!(shown["config"].is_string());
}

#[test]
fn ids_stay_the_same_over_reloads() {
    let origin = Origin::echo();
    let text = public_file(&origin);
    let id = |gateway: &Gateway| gateway.admin().get("/services/catalogue").json()["id"].clone();
    assert_eq!(id(&Gateway::with(&text)), id(&Gateway::with(&text)));
}

#[test]
fn old_formats_are_migrated() {
    let origin = Origin::echo();
    for version in ["1.1", "2.1"] {
        let gateway = Gateway::with(
            &json!({
                "_format_version": version,
                "services": [{"name": "s", "url": origin.url(), "routes": [
                    {"name": "regex", "paths": ["/status/\\d+"]},
                    {"name": "plain", "paths": ["/plain%20path"]},
                ]}],
            })
            .to_string(),
        );
        assert_eq!(
            gateway.route_of(gateway.get("/status/12")).as_deref(),
            Some("regex"),
            "{version}"
        );
        assert_eq!(
            gateway.route_of(gateway.get("/plain%20path")).as_deref(),
            Some("plain"),
            "{version}"
        );
    }
}

#[test]
fn a_bad_file_stops_the_start_with_all_its_errors() {
    let text =
        "_format_version: \"3.0\"\nservices:\n- name: a\n- host: b\n  port: 70000\nnonsense: []\n";
    let outcome = Gateway::builder().declarative(text).try_start();
    let (status, errors) = outcome.err().expect("it must not start");
    assert_eq!(status.code(), Some(1));
    for part in [
        "required field missing",
        "value should be between 0 and 65535",
        "nonsense",
        "kong.yml",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
}

#[test]
fn import_and_export_round_trip() {
    let origin = Origin::echo();
    let gateway = Gateway::stored();
    let file = gateway.folder().join("import.yml");
    std::fs::write(&file, public_file(&origin)).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let imported = gateway.run(&["config", "db_import", path]);
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    let seen = crate::harness::eventually("the import serves", || {
        let answer = gateway
            .get("/orders")
            .header("x-api-key", "alices-key")
            .send();
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(seen.echoed_one("x-who").as_deref(), Some("alice"));

    let export = gateway.folder().join("export.yml");
    let path = export.to_str().expect("UTF-8");
    let exported = gateway.run(&["config", "db_export", path]);
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
    let text = std::fs::read_to_string(&export).expect("an export");
    assert!(
        text.contains("_format_version") && text.contains("_transform: false"),
        "{text}"
    );
    let refused = gateway.run(&["config", "db_export", path]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "an existing file is not overwritten"
    );

    let copy = Gateway::with(&text);
    let answer = copy
        .get("/orders")
        .header("x-api-key", "alices-key")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_one("x-who").as_deref(), Some("alice"));
    let services = |gateway: &Gateway| {
        let mut list = gateway.admin().get("/services").json()["data"].take();
        // Loading is an update.
        for service in list.as_array_mut().expect("a list") {
            service["updated_at"].take();
        }
        list
    };
    assert_eq!(services(&gateway), services(&copy));
}

#[test]
fn check_tells_good_from_bad_and_changes_nothing() {
    let origin = Origin::echo();
    let gateway = Gateway::stored();
    let good = gateway.folder().join("good.yml");
    std::fs::write(&good, public_file(&origin)).expect("a file");
    let checked = gateway.run(&["check", good.to_str().expect("UTF-8")]);
    assert_eq!(
        checked.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let bad = gateway.folder().join("bad.yml");
    std::fs::write(
        &bad,
        "_format_version: \"3.0\"\nroutes:\n- name: r\n  sources: [{ip: 1.2.3.4}]\n  paths: [/]\n",
    )
    .expect("a file");
    let checked = gateway.run(&["check", bad.to_str().expect("UTF-8")]);
    assert_eq!(checked.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        errors.contains("cannot set 'sources' when 'protocols' is 'http' or 'https'"),
        "{errors}"
    );
    assert!(errors.contains("bad.yml:"), "{errors}");
    assert_eq!(gateway.admin().get("/services").json()["data"], json!([]));
}

#[test]
fn plan_shows_the_compiled_plan_without_secrets() {
    let origin = Origin::echo();
    let gateway = Gateway::with(&public_file(&origin));
    let planned = gateway.run(&["plan"]);
    assert!(
        planned.status.success(),
        "{}",
        String::from_utf8_lossy(&planned.stderr)
    );
    let text = String::from_utf8_lossy(&planned.stdout).into_owned();
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    assert!(plan.is_object());
    assert!(!text.contains("alices-key"), "secrets are fingerprints");
}
