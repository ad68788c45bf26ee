//! Creating, reading, replacing, changing, removing.

use serde_json::{Value, json};

use super::{Api, id};

#[tokio::test]
async fn the_newcomers_curl_sequence() {
    let api = Api::new();
    let service = api
        .form(
            "POST",
            "/services/",
            "name=foo-service&url=http://httpbin.test/anything",
        )
        .await;
    assert_eq!(
        service.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(
        service.header("server"),
        concat!("sallyport/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(service.header("access-control-allow-origin"), "*");
    assert!(!service.header("x-kong-admin-latency").is_empty());
    assert_eq!(service.header("x-sallyport-revision"), "1");
    let service = service.expect(201);
    assert_eq!(service["host"], "httpbin.test");
    assert_eq!(service["path"], "/anything");
    assert_eq!(service["port"], 80);
    assert_eq!(service["client_certificate"], Value::Null);
    assert!(!service.to_string().contains("url"));

    let body = format!(
        "hosts[]=example.test&hosts[]=b.test&paths[]=/foo&service.id={}",
        id(&service)
    );
    let route = api.form("POST", "/routes/", &body).await.expect(201);
    assert_eq!(route["hosts"], json!(["example.test", "b.test"]));
    assert_eq!(route["service"], json!({"id": id(&service)}));
    assert_eq!(route["protocols"], json!(["http", "https"]));
    assert_eq!(route["regex_priority"], 0);

    let refused = api
        .form("POST", "/routes", "paths[]=/a&sources[1].ip=10.0.0.1")
        .await;
    assert_eq!(
        refused.expect(400),
        json!({
            "code": 2,
            "fields": {"sources": "cannot set 'sources' when 'protocols' is 'http' or 'https'"},
            "message": "schema violation (sources: cannot set 'sources' when 'protocols' is 'http' or 'https')",
            "name": "schema violation",
        })
    );
    assert_eq!(refused.header("x-sallyport-revision"), "2");
    let listed = api.get("/services/foo-service/routes").await.expect(200);
    assert_eq!(listed["data"][0]["id"], route["id"]);
    assert_eq!(listed["next"], Value::Null);
    let plugin = api
        .form(
            "POST",
            "/services/foo-service/plugins",
            "name=rate-limiting&config.minute=5&config.policy=local",
        )
        .await
        .expect(201);
    assert_eq!(plugin["config"]["minute"], 5);
    assert_eq!(plugin["service"]["id"], service["id"]);
}

#[tokio::test]
async fn items_live_and_die() {
    let api = Api::new();
    let made = api
        .form("PUT", "/services/one", "host=h.test")
        .await
        .expect(200);
    assert_eq!(made["name"], "one");
    let path = format!("/services/{}", id(&made));
    assert_eq!(api.get(&path).await.expect(200), made);
    assert_eq!(api.get("/services/one/").await.expect(200), made);
    assert_eq!(api.get("/default/services/one").await.expect(200), made);

    let changed = api
        .form("PATCH", "/services/one", "port=8080&tags=a")
        .await
        .expect(200);
    assert_eq!(changed["port"], 8080);
    assert_eq!(changed["host"], "h.test");
    assert_eq!(changed["tags"], json!(["a"]));
    let replaced = api
        .json("PUT", &path, &json!({"host": "i.test"}))
        .await
        .expect(200);
    assert_eq!(replaced["id"], made["id"]);
    assert_eq!(replaced["port"], 80);
    assert_eq!(replaced["name"], Value::Null);

    let head = api.ask("HEAD", &path, "", "").await;
    assert_eq!(head.status, 200);
    assert!(head.text.is_empty());
    assert_ne!(head.header("content-length"), "0");

    api.delete(&path).await.expect(204);
    api.delete(&path).await.expect(204);
    assert_eq!(
        api.get(&path).await.expect(404),
        json!({"message": "Not found"})
    );
}

#[tokio::test]
async fn keys_in_paths_are_decoded() {
    let api = Api::new();
    api.made("/consumers", json!({"username": "a/b ü"})).await;
    let found = api.get("/consumers/a%2Fb%20%C3%BC").await.expect(200);
    assert_eq!(found["username"], "a/b ü");
    let key = api
        .post("/consumers/a%2Fb%20%C3%BC/key-auth", json!({"key": "k1"}))
        .await
        .expect(201);
    assert_eq!(api.get("/key-auths/k1").await.expect(200)["id"], key["id"]);
    let consumer = api.get("/key-auths/k1/consumer").await.expect(200);
    assert_eq!(consumer["id"], found["id"]);
}

#[tokio::test]
async fn linked_rows_are_read_made_and_changed() {
    let api = Api::new();
    api.made("/routes", json!({"name": "r", "paths": ["/"]}))
        .await;
    api.get("/routes/r/service").await.expect(404);
    api.delete("/routes/r/service").await.expect(404);
    api.json("PATCH", "/routes/r/service", &json!({"port": 1}))
        .await
        .expect(404);
    let service = api
        .json(
            "PUT",
            "/routes/r/service",
            &json!({"name": "s", "host": "h"}),
        )
        .await
        .expect(200);
    assert_eq!(api.get("/routes/r/service").await.expect(200), service);
    assert_eq!(
        api.get("/routes/r").await.expect(200)["service"]["id"],
        service["id"]
    );
    let changed = api
        .form("PATCH", "/routes/r/service", "port=81")
        .await
        .expect(200);
    assert_eq!(changed["port"], 81);
    let replaced = api
        .json("PUT", "/routes/r/service", &json!({"host": "i"}))
        .await
        .expect(200);
    assert_eq!(
        (&replaced["id"], &replaced["port"]),
        (&service["id"], &json!(80))
    );
    api.delete("/routes/r/service").await.expect(405);
    api.get("/routes/none/service").await.expect(404);
    api.get("/snis/x/certificate").await.expect(404);
}

#[tokio::test]
async fn nested_items_belong_to_their_parent() {
    let api = Api::new();
    let one = api
        .made("/services", json!({"name": "one", "host": "h"}))
        .await;
    api.made("/services", json!({"name": "two", "host": "h"}))
        .await;
    let route = api
        .made("/services/one/routes", json!({"name": "r", "paths": ["/"]}))
        .await;
    assert_eq!(route["service"]["id"], one["id"]);
    assert_eq!(api.get("/services/one/routes/r").await.expect(200), route);
    api.get("/services/two/routes/r").await.expect(404);
    api.json("PATCH", "/services/two/routes/r", &json!({"paths": ["/x"]}))
        .await
        .expect(404);
    api.json("PUT", "/services/two/routes/r", &json!({"paths": ["/x"]}))
        .await
        .expect(404);
    api.delete("/services/two/routes/r").await.expect(404);
    let changed = api
        .form("PATCH", "/services/one/routes/r", "paths=/x")
        .await
        .expect(200);
    assert_eq!(changed["paths"], json!(["/x"]));
    let new = "/services/one/routes/b".to_owned();
    let put = api
        .json("PUT", &new, &json!({"paths": ["/b"]}))
        .await
        .expect(200);
    assert_eq!(
        (&put["name"], &put["service"]["id"]),
        (&json!("b"), &one["id"])
    );
    api.delete("/services/one/routes/r").await.expect(204);
    api.delete("/services/one/routes/r").await.expect(404);
    api.get("/services/none/routes").await.expect(404);
    api.post("/services/none/routes", json!({"paths": ["/"]}))
        .await
        .expect(404);
}

#[tokio::test]
async fn targets_are_addressed_below_their_upstream() {
    let api = Api::new();
    api.made("/upstreams", json!({"name": "u.test"})).await;
    let target = api
        .form(
            "POST",
            "/upstreams/u.test/targets",
            "target=127.0.0.1&weight=5",
        )
        .await
        .expect(201);
    assert_eq!(target["target"], "127.0.0.1:8000");
    api.form("POST", "/upstreams/u.test/targets", "target=127.0.0.1:8000")
        .await
        .expect(409);
    assert_eq!(
        api.get("/upstreams/u.test/targets/127.0.0.1:8000")
            .await
            .expect(200),
        target
    );
    assert_eq!(
        api.get("/upstreams/u.test/targets/all").await.expect(200)["data"][0],
        target
    );
    let unknown = uuid::Uuid::from_u128(9);
    let put = format!("/upstreams/u.test/targets/{unknown}");
    api.json("PUT", &put, &json!({"target": "a:1"}))
        .await
        .expect(404);
    let changed = api
        .form(
            "PATCH",
            "/upstreams/u.test/targets/127.0.0.1:8000",
            "weight=0",
        )
        .await
        .expect(200);
    assert_eq!(changed["weight"], 0);
    api.get("/targets").await.expect(404);
    api.delete(&format!("/upstreams/u.test/targets/{}", id(&target)))
        .await
        .expect(204);
    api.delete("/upstreams/u.test/targets/127.0.0.1:8000")
        .await
        .expect(404);
}

#[tokio::test]
async fn groups_and_credentials_below_consumers() {
    let api = Api::new();
    api.made("/consumers", json!({"username": "ann"})).await;
    api.made("/consumers/ann/acls", json!({"group": "staff"}))
        .await;
    assert_eq!(
        api.get("/consumers/ann/acls/staff").await.expect(200)["group"],
        "staff"
    );
    let refused = api.get("/acls/staff").await.expect(400);
    assert_eq!(
        refused["message"],
        "invalid primary key: '{id=\"expected a valid UUID\"}'"
    );
    let basic = api
        .form(
            "POST",
            "/consumers/ann/basic-auth",
            "username=ann&password=secret",
        )
        .await
        .expect(201);
    assert_eq!(basic["password"].as_str().unwrap().len(), 40);
    let key = api
        .form("POST", "/consumers/ann/key-auth", "ttl=100")
        .await
        .expect(201);
    assert!(key["ttl"].as_u64().unwrap() <= 100, "{key}");
    assert_eq!(key["key"].as_str().unwrap().len(), 32);
    let listed = api.get("/key-auths").await.expect(200);
    assert!(
        listed["data"][0]["ttl"].as_u64().unwrap() <= 100,
        "{listed}"
    );
    let put = format!("/consumers/ann/key-auth/{}", uuid::Uuid::from_u128(5));
    api.json("PUT", &put, &json!({"key": "k5"}))
        .await
        .expect(200);
    api.delete("/consumers/ann").await.expect(204);
    assert_eq!(api.get("/key-auths").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn forms_change_plugins_without_naming_them() {
    let api = Api::new();
    let plugin = api
        .form("POST", "/plugins", "name=rate-limiting&config.minute=5")
        .await
        .expect(201);
    let path = format!("/plugins/{}", id(&plugin));
    let changed = api
        .form("PATCH", &path, "config.minute=10&enabled=false")
        .await
        .expect(200);
    assert_eq!(changed["config"]["minute"], 10);
    assert_eq!(changed["enabled"], false);
    api.form(
        "PATCH",
        &format!("/plugins/{}", uuid::Uuid::from_u128(7)),
        "enabled=false",
    )
    .await
    .expect(404);
}
