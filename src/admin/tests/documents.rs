//! `/config` without a database.

use serde_json::json;

use super::Api;

const DOCUMENT: &str = "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://h.test\n  routes:\n  - name: r\n    paths: [/a]\n";

#[tokio::test]
async fn a_document_replaces_everything() {
    let api = Api::db_less();
    let loaded = api.ask("POST", "/config", "text/yaml", DOCUMENT).await;
    assert_ne!(loaded.header("x-sallyport-revision"), "0");
    let loaded = loaded.expect(201);
    assert_eq!(loaded["services"].as_object().unwrap().len(), 1);
    assert_eq!(
        api.get("/routes/r").await.expect(200)["paths"],
        json!(["/a"])
    );
    let hash = api.get("/status").await.expect(200)["configuration_hash"].clone();
    assert_ne!(hash, "0".repeat(32));
    assert_eq!(
        api.ask("POST", "/config?check_hash=1", "text/yaml", DOCUMENT)
            .await
            .status,
        304
    );
    let shown = api.get("/config").await.expect(200);
    assert!(shown["config"].as_str().unwrap().contains("h.test"));
    // What db_export shows can be loaded again, and keeps its ids.
    let again = api
        .post("/config", json!({"config": shown["config"]}))
        .await
        .expect(201);
    assert_eq!(again["services"], loaded["services"]);
    let tree = json!({"_format_version": "3.0", "consumers": [{"username": "ann"}]});
    api.post("/config", tree).await.expect(201);
    api.get("/routes/r").await.expect(404);
    api.get("/consumers/ann").await.expect(200);
}

#[tokio::test]
async fn forms_and_files_carry_documents_too() {
    let api = Api::db_less();
    let form = format!("config={}", crate::admin::crud::escape(DOCUMENT));
    api.form("POST", "/config", &form).await.expect(201);
    let multipart = format!(
        "--b\r\nContent-Disposition: form-data; name=\"config\"; filename=\"kong.yml\"\r\n\r\n{DOCUMENT}\r\n--b--\r\n"
    );
    api.ask(
        "POST",
        "/config",
        "multipart/form-data; boundary=b",
        &multipart,
    )
    .await
    .expect(201);
}

#[tokio::test]
async fn a_bad_document_changes_nothing() {
    let api = Api::db_less();
    api.ask("POST", "/config", "text/yaml", DOCUMENT)
        .await
        .expect(201);
    let bad = json!({"_format_version": "3.0", "services": [{"name": "t"}]});
    let refused = api.post("/config", bad.clone()).await.expect(400);
    assert_eq!(refused["code"], 14);
    assert_eq!(
        refused["fields"],
        json!({"services": [{"host": "required field missing"}]})
    );
    let flattened = api.post("/config?flatten_errors=1", bad).await.expect(400);
    assert_eq!(flattened["flattened_errors"][0]["entity_type"], "service");
    assert_eq!(flattened["flattened_errors"][0]["entity_name"], "t");
    let unparsed = api
        .ask("POST", "/config", "text/yaml", "a: [")
        .await
        .expect(400);
    assert!(
        unparsed["fields"]["error"]
            .as_str()
            .unwrap()
            .starts_with("failed parsing declarative configuration")
    );
    for (content_type, body) in [
        ("application/json", ""),
        ("application/json", "{}"),
        ("text/yaml", ""),
        ("application/x-www-form-urlencoded", "x=1"),
    ] {
        let answer = api
            .ask("POST", "/config", content_type, body)
            .await
            .expect(400);
        assert_eq!(
            answer["message"], "expected a declarative configuration",
            "{content_type} {body}"
        );
    }
    api.ask("POST", "/config", "text/plain", DOCUMENT)
        .await
        .expect(415);
    api.get("/services/s").await.expect(200);
}
