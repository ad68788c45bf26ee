//! What is not an entity, or not only.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Api, Reply, endpoint, id};
use crate::admin::node::ClusterHealth;
use crate::admin::{page, status_listener};

#[tokio::test]
async fn the_root_tells_versions_and_bound_listeners() {
    let api = Api::new();
    api.made("/plugins", json!({"name": "key-auth"})).await;
    let root = api.get("/").await.expect(200);
    assert_eq!(root["version"], "3.10.0");
    assert_eq!(root["sallyport"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(root["hostname"], "gate");
    assert_eq!(root["pids"]["master"], 42);
    assert_eq!(root["plugins"]["enabled_in_cluster"], json!(["key-auth"]));
    assert!(root["plugins"]["available_on_server"]["key-auth"]["priority"].is_i64());
    assert_eq!(root["configuration"]["database"], "embedded");
    assert_eq!(root["configuration"]["proxy_listeners"][0]["port"], 40001);
    assert_eq!(
        root["configuration"]["proxy_listeners"][0]["listener"],
        "127.0.0.1:40001 ssl"
    );
    let enabled = api.get("/plugins/enabled").await.expect(200);
    assert!(
        enabled["enabled_plugins"]
            .as_array()
            .unwrap()
            .contains(&json!("key-auth"))
    );
}

#[tokio::test]
async fn status_shows_counters_and_the_revision() {
    let api = Api::new();
    let status = api.get("/status?unit=k&scale=0").await.expect(200);
    assert_eq!(status["server"]["total_requests"], 7);
    assert_eq!(status["database"]["reachable"], true);
    assert_eq!(status["configuration"]["revision"], 3);
    let size = status["memory"]["workers_lua_vms"][0]["http_allocated_gc"]
        .as_str()
        .unwrap();
    assert!(size.ends_with(" KiB"), "{size}");
    api.get("/status?unit=x").await.expect(400);
    let status = Api::db_less().get("/status").await.expect(200);
    assert_eq!(status["configuration_hash"], "0".repeat(32));
    assert!(status.get("database").is_none());
    assert_eq!(
        api.get("/metrics").await.header("content-type"),
        "text/plain; charset=UTF-8"
    );
    assert_eq!(api.get("/timers").await.expect(200)["worker"]["count"], 1);
}

#[tokio::test]
async fn schemas_describe_and_check() {
    let api = Api::new();
    let services = api.get("/schemas/services").await.expect(200);
    let host = services["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|field| field.get("host"))
        .unwrap();
    assert_eq!(
        (&host["type"], &host["required"]),
        (&json!("string"), &json!(true))
    );
    let plugin = api.get("/schemas/plugins/key-auth").await.expect(200);
    let config = plugin["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|field| field.get("config"))
        .unwrap();
    assert_eq!(config["type"], "record");
    assert!(config["fields"].to_string().contains("key_names"));
    let legacy = api.get("/plugins/schema/key-auth").await.expect(200);
    assert_eq!(legacy["fields"], config["fields"]);
    assert!(
        api.get("/schemas/vaults/env")
            .await
            .expect(200)
            .to_string()
            .contains("prefix")
    );
    for (path, message) in [
        ("/schemas/x", "No entity named 'x'"),
        ("/schemas/plugins/x", "No plugin named 'x'"),
        ("/schemas/vaults/x", "No vault named 'x'"),
    ] {
        assert_eq!(api.get(path).await.expect(404)["message"], message);
    }
    for (path, body, status) in [
        (
            "/schemas/services/validate",
            json!({"host": "h", "url": "http://x"}),
            200,
        ),
        ("/schemas/services/validate", json!({"name": "h"}), 400),
        (
            "/schemas/services/validate",
            json!({"host": "h", "x": 1}),
            400,
        ),
        (
            "/schemas/plugins/validate",
            json!({"name": "rate-limiting", "config": {"minute": 5}}),
            200,
        ),
        (
            "/schemas/plugins/validate",
            json!({"name": "rate-limiting", "config": {"minute": "x"}}),
            400,
        ),
        ("/schemas/plugins/validate", json!({"name": "none"}), 400),
        ("/schemas/consumers/validate", json!({"username": "a"}), 200),
        ("/schemas/consumers/validate", json!({}), 400),
        ("/schemas/routes/validate", json!({"paths": ["/"]}), 200),
        ("/schemas/routes/validate", json!({"paths": ["x"]}), 400),
        (
            "/schemas/vaults/validate",
            json!({"name": "env", "prefix": "my-env"}),
            200,
        ),
    ] {
        let answer = api.post(path, body.clone()).await.expect(status);
        match status {
            200 => assert_eq!(answer["message"], "schema validation successful"),
            _ => assert_eq!(answer["code"], 2, "{path} {body}"),
        }
    }
    api.form(
        "POST",
        "/schemas/plugins/validate",
        "name=rate-limiting&config.minute=5",
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn endpoints_are_listed() {
    let api = Api::new();
    let all = api.get("/endpoints").await.expect(200);
    let paths: Vec<&str> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    for path in [
        "/",
        "/acls",
        "/services/{services}/routes/{routes}",
        "/status",
        "/key-sets/{key_sets}/keys",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert_eq!(paths[0], "/");
}

#[tokio::test]
async fn the_openapi_document_covers_every_endpoint() {
    let api = Api::new();
    let document = api.get("/openapi.json").await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let listed = api.get("/endpoints").await.expect(200);
    let mut operations = std::collections::BTreeSet::new();
    for path in listed["data"].as_array().unwrap() {
        let item = &document["paths"][path.as_str().unwrap()];
        assert!(item.is_object(), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                let id = operation["operationId"].as_str().unwrap();
                assert!(operations.insert(id.to_owned()), "{id} twice");
                assert!(operation["responses"].is_object());
            }
        }
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["services"]["properties"]["port"]["maximum"], 65535);
    assert_eq!(schemas["services"]["properties"]["url"]["writeOnly"], true);
    assert!(schemas["plugin-config.key-auth"]["properties"]["key_names"].is_object());
    // Every reference leads somewhere.
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn log_levels_change() {
    let api = Api::new();
    let path = "/debug/node/log-level";
    assert_eq!(
        api.get(path).await.expect(200)["message"],
        "log level: notice"
    );
    let put = |level: &str| format!("{path}/{level}");
    assert_eq!(
        api.ask("PUT", &put("debug"), "", "").await.expect(200)["message"],
        "log level changed"
    );
    assert_eq!(
        api.ask("PUT", &put("debug"), "", "").await.expect(200)["message"],
        "log level is already debug"
    );
    assert_eq!(
        api.ask("PUT", &put("loud"), "", "").await.expect(400)["message"],
        "unknown log level: loud"
    );
    api.ask("PUT", "/debug/cluster/log-level/info?timeout=x", "", "")
        .await
        .expect(400);
    api.ask("PUT", "/debug/cluster/log-level/info?timeout=10", "", "")
        .await
        .expect(200);
    Api::db_less()
        .ask("PUT", &put("info"), "", "")
        .await
        .expect(405);
}

#[tokio::test]
async fn caches_are_empty() {
    let api = Api::new();
    api.get("/cache/x").await.expect(404);
    api.delete("/cache/x").await.expect(204);
    api.delete("/cache").await.expect(204);
}

#[tokio::test]
async fn targets_have_health() {
    let api = Api::new();
    let upstream = api.made("/upstreams", json!({"name": "u.test"})).await;
    let target = api
        .made(
            "/upstreams/u.test/targets",
            json!({"target": "127.0.0.1:9000"}),
        )
        .await;
    for (checked, healthy, addresses, health) in [
        (false, true, true, "HEALTHCHECKS_OFF"),
        (true, true, true, "HEALTHY"),
        (true, false, true, "UNHEALTHY"),
        (false, true, false, "DNS_ERROR"),
    ] {
        let mut endpoint = endpoint(&target, healthy);
        if !addresses {
            endpoint.addresses.clear();
        }
        *api.node.health.lock() = Some(ClusterHealth {
            checked,
            healthy,
            endpoints: vec![endpoint],
        });
        let answer = api.get("/upstreams/u.test/health").await.expect(200);
        assert_eq!(answer["data"][0]["health"], health);
        assert_eq!(answer["data"][0]["target"], "127.0.0.1:9000");
        if addresses {
            assert_eq!(answer["data"][0]["data"]["addresses"][0]["ip"], "127.0.0.1");
            assert_eq!(answer["data"][0]["data"]["weight"]["total"], 100);
        }
        assert!(answer["node_id"].is_string());
        let whole = api
            .get("/upstreams/u.test/health?balancer_health=1")
            .await
            .expect(200);
        assert_eq!(whole["data"]["id"], upstream["id"]);
    }
    for path in [
        "/upstreams/u.test/targets/127.0.0.1:9000/healthy",
        "/upstreams/u.test/targets/127.0.0.1:9000/127.0.0.1:9000/unhealthy",
    ] {
        let answer = api.ask("PUT", path, "", "").await.expect(400);
        assert_eq!(
            answer["message"],
            "health checks are not supported by this version"
        );
    }
    api.ask("PUT", "/upstreams/u.test/targets/none:1/healthy", "", "")
        .await
        .expect(404);
}

#[tokio::test]
async fn consumers_join_and_leave_groups() {
    let api = Api::new();
    let ann = api.made("/consumers", json!({"username": "ann"})).await;
    api.made("/consumers", json!({"username": "bob"})).await;
    api.made("/consumer_groups", json!({"name": "gold"})).await;
    let made = api
        .made(
            "/consumer_groups/gold/consumers",
            json!({"consumer": "ann"}),
        )
        .await;
    assert_eq!(made["consumer_group"]["name"], "gold");
    assert_eq!(made["consumers"][0]["id"], ann["id"]);
    api.post(
        "/consumer_groups/gold/consumers",
        json!({"consumer": "ann"}),
    )
    .await
    .expect(409);
    api.post(
        "/consumer_groups/gold/consumers",
        json!({"consumer": "none"}),
    )
    .await
    .expect(404);
    api.post("/consumer_groups/gold/consumers", json!({}))
        .await
        .expect(400);
    api.made("/consumers/bob/consumer_groups", json!({"group": "gold"}))
        .await;
    let group = api.get("/consumer_groups/gold").await.expect(200);
    assert_eq!(group["consumers"].as_array().unwrap().len(), 2);
    assert_eq!(group["plugins"], json!([]));
    let group = api
        .get("/consumer_groups/gold?list_consumers=false")
        .await
        .expect(200);
    assert!(group.get("consumers").is_none());
    let groups = api.get("/consumers/bob/consumer_groups").await.expect(200);
    assert_eq!(groups["consumer_groups"][0]["name"], "gold");
    api.get("/consumer_groups/gold/consumers/ann")
        .await
        .expect(200);
    api.delete("/consumer_groups/gold/consumers/ann")
        .await
        .expect(204);
    api.delete("/consumer_groups/gold/consumers/ann")
        .await
        .expect(404);
    api.delete("/consumers/bob/consumer_groups")
        .await
        .expect(204);
    assert_eq!(
        api.get("/consumer_groups/gold/consumers").await.expect(200)["consumers"],
        json!([])
    );
    let plugin = api
        .made(
            "/consumer_groups/gold/plugins",
            json!({"name": "rate-limiting", "config": {"minute": 5}}),
        )
        .await;
    assert_eq!(
        api.get("/consumer_groups/gold").await.expect(200)["plugins"][0]["id"],
        plugin["id"]
    );
}

#[tokio::test]
async fn certificates_answer_to_server_names() {
    let api = Api::new();
    let now = crate::admin::crud::now_millis() / 1000;
    let [_, pair] = crate::base::self_signed::default_pairs(now).unwrap();
    let (certificate, key) = (pair.certificate, pair.key);
    let body = format!(
        "cert={}&key={}&snis=b.test,a.test",
        crate::admin::crud::escape(&certificate),
        crate::admin::crud::escape(&key)
    );
    let made = api.form("POST", "/certificates", &body).await.expect(201);
    assert_eq!(made["snis"], json!(["a.test", "b.test"]));
    assert_eq!(api.get("/certificates/a.test").await.expect(200), made);
    assert_eq!(
        api.get("/certificates/a.test/snis").await.expect(200)["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let changed = api
        .json(
            "PATCH",
            "/certificates/b.test",
            &json!({"snis": ["b.test"]}),
        )
        .await
        .expect(200);
    assert_eq!(changed["snis"], json!(["b.test"]));
    let put = json!({"cert": certificate, "key": key, "snis": ["d.test"]});
    let joined = api
        .json("PUT", "/certificates/c.test", &put)
        .await
        .expect(200);
    assert_eq!(joined["snis"], json!(["c.test", "d.test"]));
    let taken = json!({"cert": certificate, "key": key, "snis": ["c.test"]});
    assert!(
        api.post("/certificates", taken).await.expect(400)["fields"]["snis"]
            .as_str()
            .unwrap()
            .contains("already associated")
    );
    let dropped = api
        .json(
            "PUT",
            "/certificates/c.test",
            &json!({"cert": certificate, "key": key}),
        )
        .await
        .expect(200);
    assert_eq!(dropped["snis"], json!([]));
    api.delete("/certificates/c.test").await.expect(404);
    api.delete(&format!("/certificates/{}", id(&made)))
        .await
        .expect(204);
}

#[tokio::test]
async fn the_status_listener_reads_and_drains() {
    let api = Api::db_less();
    let router = status_listener::router(api.admin.clone(), "gate");
    let ask = async |method: &str, path: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "scraped.by.monitoring")
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        Reply::of(router.clone().oneshot(request).await.unwrap()).await
    };
    assert_eq!(
        ask("GET", "/status/ready", "").await.expect(503)["message"],
        "no configuration available (empty configuration present)"
    );
    api.admin.adopt_document(&"1".repeat(32));
    assert_eq!(
        ask("GET", "/status/ready", "").await.expect(200)["message"],
        "ready"
    );
    ask("GET", "/status", "").await.expect(200);
    assert_eq!(ask("GET", "/metrics", "").await.status, 200);
    ask("GET", "/services", "").await.expect(404);
    ask("POST", "/status/ready", "{\"status\":\"x\"}")
        .await
        .expect(400);
    ask("POST", "/status/ready", "{\"status\":\"draining\"}")
        .await
        .expect(204);
    assert_eq!(
        ask("GET", "/status/ready", "").await.expect(503)["message"],
        "draining"
    );
}

#[tokio::test]
async fn the_page_is_alone_and_only_reads() {
    let api = Api::new();
    let guard = crate::admin::guard::Guard::new("gate");
    let router = page::router(api.admin.clone(), guard);
    let ask = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        Reply::of(router.clone().oneshot(request).await.unwrap()).await
    };
    let page = ask("GET", "/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert!(!page.text.contains("/*style*/") && !page.text.contains("/*script*/"));
    assert_eq!(
        ask("GET", "/api/services").await.expect(200)["data"],
        Value::Array(vec![])
    );
    ask("GET", "/api/").await.expect(200);
    ask("GET", "/api/status/ready").await.expect(200);
    ask("POST", "/api/services").await.expect(405);
    ask("DELETE", "/api/services/x").await.expect(405);
}
