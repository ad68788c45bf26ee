//! The calls that well-known clients make, in their order.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Api;

#[tokio::test]
async fn deck_syncs_dumps_and_resets() {
    let api = Api::new();
    assert!(
        api.get("/").await.expect(200)["version"]
            .as_str()
            .unwrap()
            .starts_with("3.")
    );
    api.get("/tags").await.expect(200);
    api.get("/workspaces/default").await.expect(404);
    for path in [
        "/services",
        "/routes",
        "/plugins",
        "/certificates",
        "/snis",
        "/ca_certificates",
        "/consumers",
        "/upstreams",
        "/key-auths",
        "/basic-auths",
        "/acls",
        "/consumer_groups",
        "/vaults",
        "/keys",
        "/key-sets",
    ] {
        let page = api
            .get(&format!("{path}?size=1000&tags=a,b"))
            .await
            .expect(200);
        assert_eq!(page, json!({"data": [], "next": null}), "{path}");
    }
    // Optional entities: not there, and said so in a way that decK takes for "not supported".
    for path in [
        "/hmac-auths",
        "/jwts",
        "/oauth2",
        "/licenses",
        "/partials",
        "/rbac/roles",
    ] {
        assert_eq!(
            api.get(&format!("{path}?size=1000")).await.status,
            404,
            "{path}"
        );
    }
    assert_eq!(api.get("/filter-chains?size=1000").await.status, 400);

    // Creation, by ids of decK's own.
    let ids: Vec<Uuid> = (1..=8).map(Uuid::from_u128).collect();
    let put = async |path: String, body: Value| {
        let answer = api.json("PUT", &path, &body).await.expect(200);
        assert_eq!(answer["id"], path.rsplit('/').next().unwrap(), "{path}");
        answer
    };
    put(
        format!("/services/{}", ids[0]),
        json!({"name": "s", "host": "h", "port": 80, "protocol": "http", "tags": ["a"]}),
    )
    .await;
    put(
        format!("/routes/{}", ids[1]),
        json!({"name": "r", "paths": ["/"], "service": {"id": ids[0]}}),
    )
    .await;
    put(format!("/consumers/{}", ids[2]), json!({"username": "ann"})).await;
    put(
        format!("/consumers/ann/key-auth/{}", ids[3]),
        json!({"key": "k"}),
    )
    .await;
    put(
        format!("/consumers/ann/basic-auth/{}", ids[4]),
        json!({"username": "ann", "password": "x"}),
    )
    .await;
    put(
        format!("/consumers/ann/acls/{}", ids[5]),
        json!({"group": "g"}),
    )
    .await;
    put(
        format!("/plugins/{}", ids[6]),
        json!({"name": "key-auth", "route": {"id": ids[1]}, "enabled": true}),
    )
    .await;
    put(format!("/upstreams/{}", ids[7]), json!({"name": "u.test"})).await;
    let target = json!({"id": Uuid::from_u128(9), "target": "127.0.0.1:80", "weight": 1});
    let path = format!("/upstreams/{}/targets", ids[7]);
    api.json("PUT", &format!("{path}/{}", Uuid::from_u128(9)), &target)
        .await
        .expect(404);
    api.post(&path, target).await.expect(201);

    // A second sync with the same objects changes only time stamps.
    let before = api.get(&format!("/services/{}", ids[0])).await.expect(200);
    let after = put(format!("/services/{}", ids[0]), before.clone()).await;
    for (name, value) in before.as_object().unwrap() {
        if name != "updated_at" {
            assert_eq!(&after[name], value, "{name}");
        }
    }

    for path in [
        format!("/plugins/{}", ids[6]),
        format!("/consumers/{}/key-auth/{}", ids[2], ids[3]),
        format!("/upstreams/{}/targets/{}", ids[7], Uuid::from_u128(9)),
        format!("/upstreams/{}", ids[7]),
        format!("/routes/{}", ids[1]),
        format!("/services/{}", ids[0]),
        format!("/consumers/{}", ids[2]),
    ] {
        assert_eq!(api.delete(&path).await.status, 204, "{path}");
    }
    for path in [
        "/schemas/services",
        "/schemas/plugins/key-auth",
        "/schemas/routes",
    ] {
        api.get(path).await.expect(200);
    }
}

#[tokio::test]
async fn the_ingress_controller_configures_a_db_less_node() {
    let api = Api::db_less();
    let root = api.get("/").await.expect(200);
    assert_eq!(root["configuration"]["database"], "off");
    assert_eq!(
        root["configuration"]["router_flavor"],
        "traditional_compatible"
    );
    assert!(root["configuration"]["stream_listeners"].is_array());
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "host": "h", "routes": [{"name": "r", "paths": ["/"]}]}],
        "upstreams": [{"name": "u.test", "targets": [{"target": "10.0.0.1:80"}]}],
    });
    api.post("/config?check_hash=1&flatten_errors=1", document)
        .await
        .expect(201);
    assert_ne!(
        api.get("/status").await.expect(200)["configuration_hash"],
        "0".repeat(32)
    );
    let empty = json!({"_format_version": "3.0"});
    api.post("/config?check_hash=1&flatten_errors=1", empty)
        .await
        .expect(201);
    assert_eq!(api.get("/services").await.expect(200)["data"], json!([]));
    assert_ne!(
        api.get("/status").await.expect(200)["configuration_hash"],
        "0".repeat(32)
    );
}
