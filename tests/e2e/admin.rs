//! The Admin API: every entity, the two kinds of update, references, and the exact errors.

use serde_json::{Value, json};

use crate::harness::{Admin, Authority, Gateway, Response};

/// Creates a service and gives its id.
fn service(admin: &Admin, name: &str) -> String {
    let created = admin.create("/services", json!({"name": name, "host": "example.com"}));
    created["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn assert_error(response: &Response, status: u16, code: i64, name: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let error = response.json();
    assert_eq!(error["code"], code, "{error}");
    assert_eq!(error["name"], name, "{error}");
    assert_eq!(error["message"], message, "{error}");
}

#[test]
fn a_service_has_every_field_with_its_default() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let response = admin.post("/services", json!({"name": "full", "host": "example.com"}));
    assert_eq!(
        response.header("Content-Type"),
        Some("application/json; charset=utf-8")
    );
    assert!(response.header("X-Kong-Admin-Latency").is_some());
    assert!(
        response
            .header("Server")
            .is_some_and(|server| server.starts_with("sallyport/"))
    );
    assert!(response.header("X-Sallyport-Revision").is_some());
    let mut created = response.expect_status(201).json();
    let id = created["id"].take();
    assert_eq!(id.as_str().map(str::len), Some(36));
    let (made, changed) = (created["created_at"].take(), created["updated_at"].take());
    assert!(made.is_u64() && made == changed);
    assert_eq!(
        created,
        json!({
            "id": null, "created_at": null, "updated_at": null, "name": "full", "protocol": "http", "host": "example.com",
            "port": 80, "path": null, "retries": 5, "connect_timeout": 60000, "write_timeout": 60000, "read_timeout": 60000,
            "client_certificate": null, "tls_verify": null, "tls_verify_depth": null, "ca_certificates": null,
            "enabled": true, "tags": null,
        })
    );
    let read = admin.get("/services/full").expect_status(200).json();
    assert_eq!(read["id"], id);
    assert_eq!(
        admin
            .get(&format!("/services/{}", id.as_str().expect("text")))
            .json(),
        read
    );
}

#[test]
fn a_url_is_split_into_its_parts() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    for (url, protocol, host, port, path) in [
        ("http://h.test", "http", "h.test", 80, Value::Null),
        ("https://h.test", "https", "h.test", 443, Value::Null),
        (
            "http://h.test:8080/p/q",
            "http",
            "h.test",
            8080,
            json!("/p/q"),
        ),
        ("https://h.test/", "https", "h.test", 443, json!("/")),
        ("grpc://h.test", "grpc", "h.test", 80, Value::Null),
    ] {
        let created = admin.create("/services", json!({"url": url}));
        assert_eq!(
            (
                &created["protocol"],
                &created["host"],
                &created["port"],
                &created["path"]
            ),
            (&json!(protocol), &json!(host), &json!(port), &path),
            "{url}"
        );
    }
    let refused = admin.post("/services", json!({"url": "http://"}));
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[test]
fn put_replaces_and_patch_merges() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let created = admin.create(
        "/services",
        json!({"name": "s", "host": "one.test", "retries": 9, "tags": ["a"]}),
    );
    let patched = admin
        .patch("/services/s", json!({"port": 81}))
        .expect_status(200)
        .json();
    assert_eq!(
        (&patched["retries"], &patched["port"], &patched["tags"]),
        (&json!(9), &json!(81), &json!(["a"]))
    );
    assert_eq!(patched["id"], created["id"]);
    let replaced = admin
        .put("/services/s", json!({"host": "two.test"}))
        .expect_status(200)
        .json();
    assert_eq!(
        (&replaced["retries"], &replaced["port"], &replaced["tags"]),
        (&json!(5), &json!(80), &Value::Null)
    );
    assert_eq!(
        replaced["id"], created["id"],
        "an existing name keeps its id"
    );
    assert_eq!(replaced["name"], "s");
    let made = admin
        .put("/services/new", json!({"host": "three.test"}))
        .expect_status(200)
        .json();
    assert_eq!(made["name"], "new");
    let id = "1d3f5a60-6d1a-4b0e-9c55-3f0c2a5c7a11";
    let made = admin
        .put(&format!("/services/{id}"), json!({"host": "four.test"}))
        .expect_status(200)
        .json();
    assert_eq!(made["id"], id);
    assert_eq!(made["name"], Value::Null);
    let cleared = admin
        .patch("/services/s", json!({"name": null}))
        .expect_status(200)
        .json();
    assert_eq!(cleared["name"], Value::Null);
}

#[test]
fn what_is_absent_is_404_and_its_deletion_204() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let missing = admin.get("/services/nothing").expect_status(404);
    assert_eq!(missing.json(), json!({"message": "Not found"}));
    admin.delete("/services/nothing").expect_status(204);
    let answer = admin.patch("/services/nothing", json!({"port": 1}));
    assert_error(
        &answer,
        404,
        6,
        "not found",
        "could not find the entity with '{name=\"nothing\"}'",
    );
    let id = "1d3f5a60-6d1a-4b0e-9c55-3f0c2a5c7a12";
    let answer = admin.patch(&format!("/services/{id}"), json!({"port": 1}));
    assert_error(
        &answer,
        404,
        6,
        "not found",
        &format!("could not find the entity with primary key '{{id=\"{id}\"}}'"),
    );
    service(&admin, "s");
    admin.delete("/services/s").expect_status(204);
    admin.get("/services/s").expect_status(404);
    for path in ["/no-such-thing", "/services/s/no-such-thing", "/targets"] {
        let answer = admin.get(path).expect_status(404);
        assert_eq!(answer.json(), json!({"message": "Not found"}), "{path}");
    }
}

#[test]
fn schema_violations_name_every_field() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let answer = admin.post("/services", json!({"name": "s"}));
    assert_error(
        &answer,
        400,
        2,
        "schema violation",
        "schema violation (host: required field missing)",
    );
    assert_eq!(
        answer.json()["fields"],
        json!({"host": "required field missing"})
    );
    let answer = admin.post(
        "/services",
        json!({"host": "h", "port": 99999, "surprise": 1}),
    );
    assert_error(
        &answer,
        400,
        2,
        "schema violation",
        "2 schema violations (port: value should be between 0 and 65535; surprise: unknown field)",
    );
    let answer = admin.post("/services", json!({"host": "h", "protocol": "gopher"}));
    let fields = &answer.expect_status(400).json()["fields"];
    assert!(
        fields["protocol"]
            .as_str()
            .is_some_and(|text| text.starts_with("expected one of: ")),
        "{fields}"
    );
    let answer = admin.post("/services", json!({"host": "h", "path": "no-slash"}));
    assert_eq!(
        answer.expect_status(400).json()["fields"],
        json!({"path": "should start with: /"})
    );
    let answer = admin.post(
        "/services",
        json!({"host": "h", "protocol": "tcp", "path": "/x"}),
    );
    assert_error(
        &answer,
        400,
        2,
        "schema violation",
        "2 schema violations (failed conditional validation given value of field 'protocol'; path: value must be null)",
    );
    assert_eq!(
        answer.json()["fields"],
        json!({"@entity": ["failed conditional validation given value of field 'protocol'"], "path": "value must be null"})
    );
    let answer = admin.post("/services", json!({"host": "h", "retries": "many"}));
    assert_eq!(
        answer.expect_status(400).json()["fields"],
        json!({"retries": "expected an integer"})
    );
}

#[test]
fn routes_are_checked_in_kongs_words() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    for (route, fields) in [
        (
            json!({"name": "r"}),
            json!({"@entity": ["must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'"]}),
        ),
        (
            json!({"protocols": ["http"]}),
            json!({"@entity": ["must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'"]}),
        ),
        (
            json!({"protocols": ["tcp"], "paths": ["/"]}),
            json!({"paths": "cannot set 'paths' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"}),
        ),
        (
            json!({"protocols": ["grpc"], "paths": ["/"], "strip_path": true}),
            json!({"strip_path": "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"}),
        ),
        (
            json!({"protocols": ["http"], "snis": ["a.test"]}),
            json!({"snis": "length must be 0"}),
        ),
    ] {
        let answer = admin
            .post("/routes", route.clone())
            .expect_status(400)
            .json();
        for (name, text) in fields.as_object().expect("fields") {
            assert_eq!(&answer["fields"][name], text, "{route}: {answer}");
        }
    }
    for (path, part) in [
        (
            "no-slash",
            "should start with: / (fixed path) or ~/ (regex path)",
        ),
        ("/a//b", "must not have empty segments"),
        ("~/(unclosed", "invalid regex: '/(unclosed'"),
        ("/a/../b", "non-normalized path, consider use '/b' instead"),
    ] {
        let answer = admin
            .post("/routes", json!({"paths": [path]}))
            .expect_status(400);
        assert!(answer.text().contains(part), "{path}: {}", answer.text());
    }
    for (host, part) in [
        ("*.a.*", "invalid wildcard: must have at most one wildcard"),
        (
            "a.*.b",
            "invalid wildcard: must be placed at leftmost or rightmost label",
        ),
    ] {
        let answer = admin
            .post("/routes", json!({"hosts": [host]}))
            .expect_status(400);
        assert!(answer.text().contains(part), "{host}: {}", answer.text());
    }
    let answer = admin
        .post("/routes", json!({"headers": {"Host": ["a"]}}))
        .expect_status(400);
    assert!(
        answer.text().contains("cannot contain 'host' header"),
        "{}",
        answer.text()
    );
    let answer = admin
        .post(
            "/routes",
            json!({"paths": ["/"], "protocols": ["http", "tcp"]}),
        )
        .expect_status(400);
    assert!(
        answer.text().contains("mutually exclusive"),
        "{}",
        answer.text()
    );
}

#[test]
fn names_and_references_are_kept_consistent() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let id = service(&admin, "s");
    let answer = admin.post("/services", json!({"name": "s", "host": "h"}));
    assert_error(
        &answer,
        409,
        5,
        "unique constraint violation",
        "UNIQUE violation detected on '{name=\"s\"}'",
    );
    assert_eq!(answer.json()["fields"], json!({"name": "s"}));
    let answer = admin.post("/services", json!({"id": id, "host": "h"}));
    assert_error(
        &answer,
        400,
        3,
        "primary key violation",
        &format!("primary key violation on key '{{id=\"{id}\"}}'"),
    );
    let absent = "1d3f5a60-6d1a-4b0e-9c55-3f0c2a5c7a13";
    let answer = admin.post(
        "/routes",
        json!({"paths": ["/"], "service": {"id": absent}}),
    );
    assert_error(
        &answer,
        400,
        4,
        "foreign key violation",
        &format!(
            "the foreign key '{{id=\"{absent}\"}}' does not reference an existing 'services' entity."
        ),
    );
    let answer = admin.post(
        "/routes",
        json!({"paths": ["/"], "service": {"name": "nobody"}}),
    );
    assert_eq!(answer.expect_status(400).json()["code"], 13);
    admin.create(
        "/routes",
        json!({"name": "r", "paths": ["/"], "service": {"name": "s"}}),
    );
    let answer = admin.delete("/services/s");
    assert_error(
        &answer,
        400,
        4,
        "foreign key violation",
        "an existing 'routes' entity references this 'services' entity",
    );
    assert_eq!(answer.json()["fields"], json!({"@referenced_by": "routes"}));
    admin.create("/services/s/plugins", json!({"name": "key-auth"}));
    admin.delete("/routes/r").expect_status(204);
    admin.delete("/services/s").expect_status(204);
    assert_eq!(
        admin.get("/plugins").json()["data"],
        json!([]),
        "plugins go with their service"
    );
    let answer = admin.get("/services/not%20a%20name");
    answer.expect_status(404);
    let answer = admin.get("/ca_certificates/not-a-uuid").expect_status(400);
    assert_eq!(
        answer.json()["fields"],
        json!({"id": "expected a valid UUID"})
    );
    // Plugins have a key of their own, `instance_name`.
    admin.get("/plugins/no-such-instance").expect_status(404);
}

#[test]
fn nested_endpoints_fill_in_the_parent() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let id = service(&admin, "s");
    service(&admin, "other");
    let route = admin.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    assert_eq!(route["service"], json!({"id": id}));
    assert_eq!(
        admin.get("/services/s/routes").json()["data"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        admin.get("/services/s/routes/r").expect_status(200).json()["name"],
        "r"
    );
    admin.get("/services/other/routes/r").expect_status(404);
    admin.delete("/services/other/routes/r").expect_status(404);
    assert_eq!(
        admin.get("/routes/r/service").expect_status(200).json()["name"],
        "s"
    );
    admin
        .patch("/routes/r/service", json!({"retries": 1}))
        .expect_status(200);
    assert_eq!(admin.get("/services/s").json()["retries"], 1);
    admin.delete("/routes/r/service").expect_status(405);
    admin
        .post("/services/nobody/routes", json!({"paths": ["/"]}))
        .expect_status(404);
    let plugin = admin.create("/routes/r/plugins", json!({"name": "key-auth"}));
    assert_eq!(plugin["route"]["id"], route["id"]);
    assert_eq!(plugin["config"]["key_names"], json!(["apikey"]));
    assert_eq!(
        plugin["protocols"],
        json!(["grpc", "grpcs", "http", "https"])
    );
    let again = admin.post("/routes/r/plugins", json!({"name": "key-auth"}));
    assert_eq!(again.expect_status(409).json()["code"], 5);
    let unknown = admin
        .post("/plugins", json!({"name": "no-such-plugin"}))
        .expect_status(400);
    let text =
        "plugin 'no-such-plugin' not enabled; add it to the 'plugins' configuration property";
    assert_eq!(unknown.json()["fields"], json!({"name": text}));
    let bad = admin
        .post(
            "/plugins",
            json!({"name": "rate-limiting", "config": {"minute": -1}}),
        )
        .expect_status(400);
    assert!(
        bad.json()["fields"]["config"]["minute"].is_string(),
        "{}",
        bad.text()
    );
}

#[test]
fn every_kind_of_entity_is_created_read_changed_listed_and_deleted() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let certificate = admin.create(
        "/certificates",
        json!({"cert": pair.certificate, "key": pair.key}),
    );
    let service = service(&admin, "s");
    let consumer = admin.create("/consumers", json!({"username": "c"}))["id"].clone();
    let upstream = admin.create("/upstreams", json!({"name": "u.test"}))["id"].clone();
    let set = admin.create("/key-sets", json!({"name": "set"}))["id"].clone();
    let jwk = json!({"kty": "oct", "kid": "kid", "k": "c2VjcmV0"}).to_string();
    let upstream_targets = format!("/upstreams/{}/targets", upstream.as_str().expect("text"));
    for (collection, body, change) in [
        ("/services", json!({"host": "x"}), json!({"port": 1})),
        (
            "/routes",
            json!({"paths": ["/"], "service": {"id": service}}),
            json!({"strip_path": false}),
        ),
        (
            "/consumers",
            json!({"custom_id": "x"}),
            json!({"username": "renamed"}),
        ),
        (
            "/consumer_groups",
            json!({"name": "gold"}),
            json!({"tags": ["t"]}),
        ),
        (
            "/plugins",
            json!({"name": "cors"}),
            json!({"enabled": false}),
        ),
        (
            "/snis",
            json!({"name": "one.test", "certificate": {"id": certificate["id"]}}),
            json!({"tags": ["t"]}),
        ),
        (
            "/ca_certificates",
            json!({"cert": authority.pem()}),
            json!({"tags": ["t"]}),
        ),
        (
            "/upstreams",
            json!({"name": "v.test"}),
            json!({"slots": 100}),
        ),
        (
            upstream_targets.as_str(),
            json!({"target": "1.2.3.4:80"}),
            json!({"weight": 7}),
        ),
        (
            "/vaults",
            json!({"name": "env", "prefix": "my-env"}),
            json!({"description": "d"}),
        ),
        ("/key-sets", json!({"name": "more"}), json!({"tags": ["t"]})),
        (
            "/keys",
            json!({"name": "k", "kid": "kid", "set": {"id": set}, "jwk": jwk}),
            json!({"tags": ["t"]}),
        ),
        (
            "/key-auths",
            json!({"key": "secret", "consumer": {"id": consumer}}),
            json!({"tags": ["t"]}),
        ),
        (
            "/basic-auths",
            json!({"username": "b", "password": "p", "consumer": {"id": consumer}}),
            json!({"tags": ["t"]}),
        ),
        (
            "/acls",
            json!({"group": "g", "consumer": {"id": consumer}}),
            json!({"tags": ["t"]}),
        ),
    ] {
        let created = admin.create(collection, body);
        let id = created["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{collection}: {created}"));
        let path = format!("{collection}/{id}");
        let mut read = admin.get(&path).expect_status(200).json();
        if collection == "/consumer_groups" {
            // Shown with its members and plugins around it.
            read = read["consumer_group"].take();
        }
        assert_eq!(read["id"], created["id"], "{collection}");
        let changed = admin.patch(&path, change.clone()).expect_status(200).json();
        for (name, value) in change.as_object().expect("fields") {
            assert_eq!(&changed[name], value, "{collection}");
        }
        let list = admin.get(collection).expect_status(200).json();
        let listed = list["data"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|one| one["id"] == created["id"]);
        assert!(listed, "{collection}: {list}");
        assert_eq!(list["next"], Value::Null, "{collection}");
        admin.delete(&path).expect_status(204);
        admin.get(&path).expect_status(404);
    }
}

#[test]
fn consumers_have_credentials_and_groups_under_them() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let answer = admin.post("/consumers", json!({}));
    assert_eq!(
        answer.expect_status(400).json()["fields"],
        json!({"@entity": ["at least one of these fields must be non-empty: 'custom_id', 'username'"]})
    );
    let consumer = admin.create(
        "/consumers",
        json!({"username": "alice", "custom_id": "A-1"}),
    );
    let made = admin.create("/consumers/alice/key-auth", json!({}));
    assert_eq!(
        made["key"].as_str().map(str::len),
        Some(32),
        "a key is made when none is given"
    );
    assert_eq!(made["consumer"]["id"], consumer["id"]);
    let basic = admin.create(
        "/consumers/alice/basic-auth",
        json!({"username": "al", "password": "secret"}),
    );
    assert_eq!(
        basic["password"].as_str().map(str::len),
        Some(40),
        "hashed: {basic}"
    );
    admin.create("/consumers/alice/acls", json!({"group": "admins"}));
    assert_eq!(
        admin
            .get("/consumers/alice/acls/admins")
            .expect_status(200)
            .json()["group"],
        "admins"
    );
    let found = admin.get("/consumers?custom_id=A-1").json();
    assert_eq!(found["data"][0]["username"], "alice");
    assert_eq!(
        admin.get("/consumers?custom_id=none").json()["data"],
        json!([])
    );
    let duplicate = admin.post("/consumers/alice/key-auth", json!({"key": made["key"]}));
    assert_eq!(duplicate.expect_status(409).json()["code"], 5);
    admin.create("/consumer_groups", json!({"name": "gold"}));
    admin
        .post(
            "/consumer_groups/gold/consumers",
            json!({"consumer": "alice"}),
        )
        .expect_status(201);
    let group = admin.get("/consumer_groups/gold").expect_status(200).json();
    assert_eq!(group["consumer_group"]["name"], "gold");
    assert_eq!(group["consumers"][0]["username"], "alice");
    admin
        .delete("/consumer_groups/gold/consumers/alice")
        .expect_status(204);
    admin.delete("/consumers/alice").expect_status(204);
    assert_eq!(
        admin.get("/key-auths").json()["data"],
        json!([]),
        "credentials go with their consumer"
    );
}

#[test]
fn upstreams_have_targets_and_health() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let upstream = admin.create("/upstreams", json!({"name": "pool.test"}));
    assert_eq!(upstream["algorithm"], "round-robin");
    assert_eq!(upstream["slots"], 10000);
    assert_eq!(upstream["healthchecks"]["active"]["concurrency"], 10);
    assert_eq!(
        upstream["healthchecks"]["passive"]["unhealthy"]["http_statuses"],
        json!([429, 500, 503])
    );
    let hashed = admin.create(
        "/upstreams",
        json!({"name": "hash.test", "hash_on": "header", "hash_on_header": "X"}),
    );
    assert_eq!(hashed["algorithm"], "consistent-hashing");
    let target = admin.create(
        "/upstreams/pool.test/targets",
        json!({"target": "127.0.0.1"}),
    );
    assert_eq!(target["target"], "127.0.0.1:8000");
    assert_eq!(target["weight"], 100);
    let twice = admin.post(
        "/upstreams/pool.test/targets",
        json!({"target": "127.0.0.1:8000"}),
    );
    twice.expect_status(409);
    let bad = admin
        .post(
            "/upstreams/pool.test/targets",
            json!({"target": "not valid!"}),
        )
        .expect_status(400);
    assert!(
        bad.text().contains("Invalid target ('not valid!')"),
        "{}",
        bad.text()
    );
    let bad = admin
        .post("/upstreams", json!({"name": "1.2.3.4"}))
        .expect_status(400);
    assert!(
        bad.text().contains("no ip addresses allowed"),
        "{}",
        bad.text()
    );
    let health = admin
        .get("/upstreams/pool.test/health")
        .expect_status(200)
        .json();
    assert_eq!(health["data"][0]["health"], "HEALTHCHECKS_OFF");
    assert_eq!(health["data"][0]["target"], "127.0.0.1:8000");
    for (word, state) in [("unhealthy", "UNHEALTHY"), ("healthy", "HEALTHCHECKS_OFF")] {
        let path = format!("/upstreams/pool.test/targets/127.0.0.1:8000/{word}");
        admin.request("PUT", &path).send().expect_status(204);
        let health = admin.get("/upstreams/pool.test/health").json();
        assert_eq!(health["data"][0]["health"], state, "{health}");
    }
    admin
        .patch(
            "/upstreams/pool.test/targets/127.0.0.1:8000",
            json!({"weight": 5}),
        )
        .expect_status(200);
    admin
        .delete("/upstreams/pool.test/targets/127.0.0.1:8000")
        .expect_status(204);
    assert_eq!(
        admin.get("/upstreams/pool.test/targets").json()["data"],
        json!([])
    );
}

#[test]
fn certificates_carry_their_server_names() {
    let gateway = Gateway::stored();
    let admin = gateway.admin();
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let created = admin.create(
        "/certificates",
        json!({"cert": one.certificate, "key": one.key, "snis": ["b.test", "a.test"]}),
    );
    assert_eq!(created["snis"], json!(["a.test", "b.test"]));
    assert_eq!(
        admin.get("/certificates/a.test").expect_status(200).json()["id"],
        created["id"]
    );
    let mismatch = admin
        .post(
            "/certificates",
            json!({"cert": one.certificate, "key": two.key}),
        )
        .expect_status(400);
    assert!(
        mismatch.text().contains("certificate does not match key"),
        "{}",
        mismatch.text()
    );
    let taken = admin.post(
        "/certificates",
        json!({"cert": two.certificate, "key": two.key, "snis": ["a.test"]}),
    );
    let id = created["id"].as_str().expect("an id");
    let text = format!("a.test already associated with existing certificate '{id}'");
    assert_eq!(taken.expect_status(400).json()["fields"]["snis"], text);
    let path = format!("/certificates/{id}");
    let patched = admin
        .patch(&path, json!({"snis": ["c.test"]}))
        .expect_status(200)
        .json();
    assert_eq!(patched["snis"], json!(["c.test"]));
    admin.get("/snis/a.test").expect_status(404);
    let garbage = admin.post(
        "/certificates",
        json!({"cert": "garbage", "key": "garbage"}),
    );
    assert_eq!(garbage.expect_status(400).json()["code"], 2);
    let leaf = admin
        .post("/ca_certificates", json!({"cert": one.certificate}))
        .expect_status(400);
    assert!(
        leaf.text().contains("does not appear to be a CA"),
        "{}",
        leaf.text()
    );
}
