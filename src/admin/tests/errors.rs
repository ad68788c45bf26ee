//! Every way of being refused.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Api, id};

#[tokio::test]
async fn refusals_have_their_codes_and_texts() {
    let api = Api::new();
    let service = api
        .made("/services", json!({"name": "s", "host": "h"}))
        .await;
    api.made("/services/s/routes", json!({"name": "r", "paths": ["/"]}))
        .await;
    let absent = Uuid::from_u128(1);
    let service_id = id(&service);
    for (method, path, body, status, code, message) in [
        ("GET", "/ca_certificates/x", json!(null), 400, 1, "invalid primary key: '{id=\"expected a valid UUID\"}'".to_owned()),
        ("POST", "/services", json!({"name": "t"}), 400, 2, "schema violation (host: required field missing)".to_owned()),
        ("POST", "/services", json!({"id": service_id, "host": "h"}), 400, 3, format!("primary key violation on key '{{id=\"{service_id}\"}}'")),
        ("POST", "/routes", json!({"paths": ["/"], "service": {"id": absent}}), 400, 4, format!("the foreign key '{{id=\"{absent}\"}}' does not reference an existing 'services' entity.")),
        ("DELETE", "/services/s", json!(null), 400, 4, "an existing 'routes' entity references this 'services' entity".to_owned()),
        ("POST", "/services", json!({"name": "s", "host": "h"}), 409, 5, "UNIQUE violation detected on '{name=\"s\"}'".to_owned()),
        ("PATCH", &format!("/services/{absent}"), json!({}), 404, 6, format!("could not find the entity with primary key '{{id=\"{absent}\"}}'")),
        ("PATCH", "/services/none", json!({}), 404, 6, "could not find the entity with '{name=\"none\"}'".to_owned()),
        ("GET", "/services?offset=%25", json!(null), 400, 7, "'%' is not a valid offset: bad base64 encoding".to_owned()),
        ("GET", "/services?size=x", json!(null), 400, 9, "size must be a number".to_owned()),
        ("GET", "/services?size=0", json!(null), 400, 9, "size must be an integer between 1 and 1000".to_owned()),
        ("GET", "/services?size=1001", json!(null), 400, 9, "size must be an integer between 1 and 1000".to_owned()),
        ("GET", "/services?tags=a,b/c", json!(null), 400, 11, "invalid option (tags: invalid filter syntax)".to_owned()),
        ("GET", "/services?tags=", json!(null), 400, 11, "invalid option (tags: cannot be null)".to_owned()),
        ("POST", "/routes", json!({"paths": ["/"], "service": {"name": "x"}}), 400, 13, "foreign key unresolved (service.name: the foreign key cannot be resolved with '{name=\"x\"}' for an existing 'services' entity)".to_owned()),
    ] {
        let reply = if body.is_null() {
            api.ask(method, path, "", "").await
        } else {
            api.json(method, path, &body).await
        };
        let answer = reply.expect(status);
        assert_eq!(answer["code"], code, "{method} {path}: {answer}");
        assert_eq!(answer["message"], message, "{method} {path}");
    }
    let put = api
        .json("PUT", "/services/a%20b", &json!({"host": "h"}))
        .await
        .expect(400);
    assert_eq!(
        (&put["code"], &put["name"]),
        (&json!(10), &json!("invalid unique name"))
    );
    let certificate = api
        .get(&format!("/certificates/{absent}"))
        .await
        .expect(404);
    assert_eq!(certificate["code"], 6);
    let name = api.get("/certificates/none.test").await.expect(404);
    assert_eq!(name, json!({"message": "SNI not found"}));
    let second = json!({"name": "key-auth", "service": {"id": service_id}});
    api.made("/plugins", second.clone()).await;
    let answer = api.post("/plugins", second).await.expect(409);
    assert_eq!(
        answer["message"],
        format!(
            "UNIQUE violation detected on '{{consumer=null,name=\"key-auth\",route=null,service={{id=\"{service_id}\"}}}}'"
        )
    );
    let unknown = api
        .post("/plugins", json!({"name": "opa"}))
        .await
        .expect(400);
    assert_eq!(
        unknown["fields"]["name"],
        "plugin 'opa' not enabled; add it to the 'plugins' configuration property"
    );
}

#[tokio::test]
async fn the_protocol_has_its_own_refusals() {
    let api = Api::new();
    for (method, path, content_type, body, status, answer) in [
        ("GET", "/nothing", "", "", 404, r#"{"message":"Not found"}"#),
        (
            "GET",
            "/services//",
            "",
            "",
            404,
            r#"{"message":"Not found"}"#,
        ),
        (
            "GET",
            "/workspaces/default",
            "",
            "",
            404,
            r#"{"message":"Not found"}"#,
        ),
        (
            "DELETE",
            "/services",
            "",
            "",
            405,
            r#"{"message":"Method not allowed"}"#,
        ),
        (
            "POST",
            "/status",
            "",
            "",
            405,
            r#"{"message":"Method not allowed"}"#,
        ),
        ("POST", "/services", "text/plain", "x", 415, ""),
        ("POST", "/services", "", "x", 415, ""),
        (
            "POST",
            "/services",
            "application/json",
            "{",
            400,
            r#"{"message":"Cannot parse JSON body"}"#,
        ),
        (
            "GET",
            "/services?a=1&a.b=2",
            "",
            "",
            400,
            r#"{"message":"form field 'a.b' is given both as a value and as a record or list"}"#,
        ),
        (
            "GET",
            "/filter-chains",
            "",
            "",
            400,
            r#"{"message":"this endpoint is only available when wasm is enabled"}"#,
        ),
        (
            "GET",
            "/clustering/status",
            "",
            "",
            400,
            r#"{"message":"this endpoint is only available when Kong is configured to run as Control Plane for the cluster"}"#,
        ),
        (
            "GET",
            "/config",
            "",
            "",
            400,
            r#"{"message":"this endpoint is only available when Kong is configured to not use a database"}"#,
        ),
        (
            "GET",
            "/status/dns",
            "",
            "",
            501,
            r#"{"message":"not implemented with the legacy DNS client"}"#,
        ),
    ] {
        let reply = api.ask(method, path, content_type, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        assert_eq!(reply.text, answer, "{method} {path}");
        assert!(
            reply.header("server").starts_with("sallyport/"),
            "{method} {path}"
        );
    }
    let request = Request::post("/services")
        .header("content-type", "application/json")
        .body(Body::from(vec![b' '; 11 << 20]))
        .unwrap();
    assert_eq!(api.send(request).await.status, 413);
    let request = Request::post("/services")
        .header("content-type", "application/json")
        .header("content-type", "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(api.send(request).await.status, 400);
}

#[tokio::test]
async fn options_tell_what_is_allowed() {
    let api = Api::new();
    for (path, allowed) in [
        ("/services", "GET, HEAD, OPTIONS, POST"),
        ("/services/x", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/", "GET, HEAD, OPTIONS"),
    ] {
        let reply = api.ask("OPTIONS", path, "", "").await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("allow"), allowed, "{path}");
        assert_eq!(reply.header("access-control-allow-methods"), allowed);
        assert_eq!(reply.header("access-control-allow-headers"), "Content-Type");
    }
    api.ask("OPTIONS", "/nothing", "", "").await.expect(404);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let api = Api::new();
    for (name, value) in [("host", "evil.test"), ("origin", "http://evil.test")] {
        let request = Request::get("/services")
            .header(name, value)
            .body(Body::empty())
            .unwrap();
        let reply = api.send(request).await;
        assert_eq!(reply.status, 403, "{name}");
        assert_eq!(reply.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn without_a_database_entities_are_not_written() {
    let api = Api::db_less();
    let absent = Uuid::from_u128(1);
    for (method, path, message) in [
        (
            "POST",
            "/services".to_owned(),
            "cannot create 'services' entities when not using a database",
        ),
        (
            "PUT",
            format!("/services/{absent}"),
            "cannot create or update 'services' entities when not using a database",
        ),
        (
            "PUT",
            "/services/x".to_owned(),
            "cannot create or update 'services' entities by 'name' when not using a database",
        ),
        (
            "PATCH",
            format!("/routes/{absent}"),
            "cannot update 'routes' entities when not using a database",
        ),
        (
            "DELETE",
            "/consumers/ann".to_owned(),
            "cannot remove 'consumers' entities by 'username' when not using a database",
        ),
    ] {
        let answer = match method {
            "DELETE" => api.delete(&path).await,
            _ => api.json(method, &path, &json!({"host": "h"})).await,
        };
        let answer = answer.expect(405);
        assert_eq!(answer["code"], 12);
        assert_eq!(answer["name"], "operation unsupported");
        assert_eq!(answer["message"], message, "{method} {path}");
    }
    assert_eq!(
        api.get("/services").await.expect(200),
        json!({"data": [], "next": Value::Null})
    );
}
