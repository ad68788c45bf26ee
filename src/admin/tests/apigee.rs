//! The management API of Apigee: statuses, shapes and rules, without the network.

use std::io::{Cursor, Write};

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{Api, Reply};

const O: &str = "/v1/organizations/acme";
const E: &str = "/v1/o/acme/e/test";

fn api() -> Api {
    Api::with_settings("apigee_organization = \"acme\"\napigee_environments = \"test,prod\"\n")
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn proxy_zip(path: &str) -> Vec<u8> {
    let endpoint = format!(
        "<ProxyEndpoint name='default'><HTTPProxyConnection><BasePath>{path}</BasePath>\
         <VirtualHost>default</VirtualHost></HTTPProxyConnection><RouteRule name='none'/></ProxyEndpoint>"
    );
    zip(&[
        ("apiproxy/p.xml", "<APIProxy name='p'/>"),
        ("apiproxy/proxies/default.xml", &endpoint),
    ])
}

impl Api {
    async fn bytes(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn import(&self, name: &str, path: &str) -> Value {
        let at = format!("{O}/apis?action=import&name={name}");
        self.bytes("POST", &at, "application/octet-stream", proxy_zip(path))
            .await
            .expect(201)
    }

    async fn xml(&self, method: &str, path: &str, body: &str) -> Reply {
        self.ask(method, path, "application/xml", body).await
    }
}

#[tokio::test]
async fn the_organization_and_its_environments_exist_from_the_start() {
    let api = api();
    let shown = api.get(O).await.expect(200);
    assert_eq!(shown["environments"], json!(["prod", "test"]));
    assert_eq!(
        shown["properties"]["property"][0],
        json!({"name": "features.isCpsEnabled", "value": "true"})
    );
    let hosts = api.get(&format!("{E}/virtualhosts")).await.expect(200);
    assert_eq!(hosts, json!(["default", "secure"]));
    let missing = api.get("/v1/o/other/apis").await.expect(404);
    assert_eq!(missing["contexts"], json!([]));
    assert!(missing["code"].is_string());
    api.get(&format!("{O}/e/none/caches")).await.expect(404);
    api.get(&format!("{O}/nonsense")).await.expect(404);
    api.get(&format!("{O}/stats")).await.expect(501);
    let environments = format!("{O}/environments");
    api.post(&environments, json!({"name": "new"}))
        .await
        .expect(201);
    api.post(&environments, json!({"name": "new"}))
        .await
        .expect(409);
    api.delete(&format!("{environments}/new")).await.expect(200);
}

#[tokio::test]
async fn the_reference_examples_of_references_work() {
    let api = api();
    let at = format!("{E}/references");
    let body = |store: &str| {
        format!(
            "<ResourceReference name=\"keystoreref\">\n    <Refers>{store}</Refers>\n    \
             <ResourceType>KeyStore</ResourceType>\n</ResourceReference>"
        )
    };
    let dangling = api.xml("POST", &at, &body("k1")).await.expect(400);
    assert_eq!(
        dangling["code"],
        "messaging.config.beans.InvalidKeyStoreReference"
    );
    for store in ["k1", "k2"] {
        let made = api
            .xml(
                "POST",
                &format!("{E}/keystores"),
                &format!("<KeyStore name=\"{store}\"/>"),
            )
            .await
            .expect(201);
        assert_eq!(made["aliases"], json!([]));
    }
    let made = api.xml("POST", &at, &body("k1")).await.expect(201);
    assert_eq!(made["refers"], "k1");
    let one = format!("{at}/keystoreref");
    assert_eq!(api.get(&one).await.expect(200)["resourceType"], "KeyStore");
    let moved = api.xml("PUT", &one, &body("k2")).await.expect(200);
    assert_eq!(moved["refers"], "k2");
    api.delete(&format!("{E}/keystores/k2")).await.expect(400);
    api.delete(&format!("{E}/keystores/k1")).await.expect(200);
    let gone = api.delete(&one).await.expect(200);
    assert_eq!(gone["name"], "keystoreref");
    let missing = api.get(&one).await.expect(404);
    assert_eq!(
        missing["code"],
        "messaging.config.beans.ResourceReferenceDoesNotExist"
    );
    let asked = Request::get(format!("{E}/keystores")).header("accept", "application/xml");
    let reply = api.send(asked.body(Body::empty()).unwrap()).await;
    assert!(reply.text.contains("<Item>k2</Item>"), "{}", reply.text);
}

#[tokio::test]
async fn bundles_are_imported_exported_and_deleted() {
    let api = api();
    let made = api.import("p", "/x").await;
    assert_eq!(made["name"], "p");
    assert_eq!(made["revision"], "1");
    assert_eq!(made["basepaths"], json!(["/x"]));
    assert_eq!(api.import("p", "/x").await["revision"], "2");
    let shown = api.get(&format!("{O}/apis/p")).await.expect(200);
    assert_eq!(shown["revision"], json!(["1", "2"]));
    assert_eq!(shown["metaData"]["subType"], "Proxy");
    let at = format!("{O}/apis?action=import&name=q");
    for (body, told) in [
        (
            zip(&[("x/y.xml", "<a/>")]),
            "Bundle is invalid. Empty bundle.",
        ),
        (b"nothing".to_vec(), "Bundle is invalid. It is no ZIP"),
        (
            zip(&[("apiproxy/proxies/default.xml", "<ProxyEndpoint name='d'>")]),
            "Bundle is invalid. proxies/default.xml",
        ),
    ] {
        let refused = api
            .bytes("POST", &at, "application/octet-stream", body)
            .await
            .expect(400);
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with(told), "{message}");
    }
    api.post(&at, json!({})).await.expect(415);
    api.get(&format!("{O}/apis/q")).await.expect(404);
    let exported = api
        .router_reply(&format!("{O}/apis/p/revisions/2?format=bundle"))
        .await;
    assert_eq!(exported.0, 200);
    assert!(exported.1.starts_with("attachment; filename=\"p_rev2_"));
    api.delete(&format!("{O}/apis/p")).await.expect(200);
    let missing = api.get(&format!("{O}/apis/p")).await.expect(404);
    assert_eq!(
        missing["message"],
        "APIProxy named p does not exist in organization acme"
    );
}

impl Api {
    /// Status and file name of an answer whose body is no text.
    async fn router_reply(&self, path: &str) -> (u16, String) {
        use tower::ServiceExt;
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let file = response.headers().get("content-disposition");
        let file = file.map_or("", |value| value.to_str().unwrap()).to_owned();
        (response.status().as_u16(), file)
    }
}

#[tokio::test]
async fn pieces_arrive_one_by_one() {
    let api = api();
    let at = format!("{O}/apis?action=import&validate=false&name=p");
    let empty = zip(&[("apiproxy/p.xml", "<APIProxy name='p'/>")]);
    api.bytes("POST", &at, "application/octet-stream", empty)
        .await
        .expect(201);
    let revision = format!("{O}/apis/p/revisions/1");
    let kind = "application/octet-stream";
    let resource = format!("{revision}/resources?type=jsc&name=lib/a.js");
    api.bytes("POST", &resource, kind, b"x".to_vec())
        .await
        .expect(201);
    let bad = format!("{revision}/resources?type=jsc&name=../a.js");
    api.bytes("POST", &bad, kind, b"x".to_vec())
        .await
        .expect(400);
    let policies = format!("{revision}/policies");
    api.xml("POST", &policies, "<AssignMessage name='A b'/>")
        .await
        .expect(201);
    let refused = api
        .xml("POST", &policies, "<AssignMessage name='A'")
        .await
        .expect(400);
    assert!(refused["message"].as_str().unwrap().contains(":1: "));
    assert_eq!(api.get(&policies).await.expect(200), json!(["A b"]));
    let one = format!("{policies}/A%20b");
    assert_eq!(
        api.get(&one).await.expect(200)["policyType"],
        "AssignMessage"
    );
    let endpoint = "<ProxyEndpoint name='default'><HTTPProxyConnection><BasePath>/x</BasePath>\
                    <VirtualHost>default</VirtualHost></HTTPProxyConnection><RouteRule name='r'/></ProxyEndpoint>";
    let proxies = format!("{revision}/proxies?name=default");
    api.xml("POST", &proxies, endpoint).await.expect(201);
    let shown = api
        .get(&format!("{revision}/proxies/default"))
        .await
        .expect(200);
    assert_eq!(shown["connection"]["basePath"], "/x");
    assert_eq!(shown["connection"]["virtualHost"], json!(["default"]));
    let whole = api.get(&revision).await.expect(200);
    assert_eq!(whole["resources"], json!(["jsc://lib/a.js"]));
    api.delete(&one).await.expect(200);
    api.get(&one).await.expect(404);
    let raw = api.get(&format!("{revision}/resources/jsc/lib/a.js")).await;
    assert_eq!((raw.status, raw.text.as_str()), (200, "x"));
}

#[tokio::test]
async fn revisions_are_deployed_replaced_and_undeployed() {
    let api = api();
    api.import("p", "/x").await;
    api.import("p", "/x").await;
    api.import("q", "/x").await;
    let deploy =
        |name: &str, revision: u32| format!("{E}/apis/{name}/revisions/{revision}/deployments");
    let answer = api.form("POST", &deploy("p", 1), "").await.expect(200);
    assert_eq!(answer["aPIProxy"], "p");
    assert_eq!(answer["state"], "deployed");
    assert_eq!(answer["server"][0]["status"], "deployed");
    assert_eq!(answer["configuration"]["basePath"], "/");
    let refused = api.form("POST", &deploy("p", 2), "").await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("conflicts with existing deployment path"),
        "{message}"
    );
    let elsewhere = api.form("POST", &deploy("q", 1), "override=true").await;
    elsewhere.expect(400);
    api.form("POST", &deploy("p", 2), "override=true&delay=60")
        .await
        .expect(200);
    let listed = api
        .get(&format!("{E}/apis/p/deployments"))
        .await
        .expect(200);
    assert_eq!(listed["revision"].as_array().unwrap().len(), 2);
    let everywhere = api
        .get(&format!("{O}/apis/p/deployments"))
        .await
        .expect(200);
    assert_eq!(everywhere["environment"][0]["name"], "test");
    api.delete(&format!("{O}/apis/p")).await.expect(400);
    let form = "action=undeploy&revision=2&env=test";
    let answer = api
        .form("POST", &format!("{O}/apis/p/deployments"), form)
        .await
        .expect(200);
    assert_eq!(answer["state"], "undeployed");
    let again = api.delete(&deploy("p", 2)).await.expect(400);
    assert_eq!(again["code"], "distribution.RevisionNotDeployed");
    let not = api
        .get(&format!("{E}/apis/q/deployments"))
        .await
        .expect(400);
    assert_eq!(not["code"], "distribution.ApplicationNotDeployed");
}

#[tokio::test]
async fn products_developers_apps_and_keys_belong_together() {
    let api = api();
    let products = format!("{O}/apiproducts");
    for (name, approval) in [("P", "auto"), ("M", "manual")] {
        let body = json!({"name": name, "approvalType": approval, "quota": "10", "proxies": [],
                          "attributes": [{"name": "access", "value": "public"}]});
        api.post(&products, body).await.expect(201);
    }
    let unknown = json!({"name": "X", "approvaltype": "auto"});
    let refused = api.post(&products, unknown).await.expect(400);
    assert_eq!(refused["message"], "unrecognized field approvaltype");
    let developers = format!("{O}/developers");
    let ann = json!({"email": "Ann@x.test", "firstName": "A", "lastName": "B", "userName": "ann"});
    let made = api.post(&developers, ann.clone()).await.expect(201);
    assert_eq!(made["status"], "active");
    let taken = api.post(&developers, ann).await.expect(409);
    assert_eq!(taken["code"], "developer.service.DeveloperAlreadyExists");
    let ann = format!("{developers}/ann@x.test");
    let by_id = format!("{developers}/{}", made["developerId"].as_str().unwrap());
    assert_eq!(api.get(&by_id).await.expect(200)["email"], "Ann@x.test");
    let body = json!({"name": "app", "apiProducts": ["P", "M"], "keyExpiresIn": -1});
    let app = api.post(&format!("{ann}/apps"), body).await.expect(201);
    let key = &app["credentials"][0];
    assert_eq!(key["consumerKey"].as_str().unwrap().len(), 32);
    assert_eq!(key["apiProducts"][1]["status"], "pending");
    assert_eq!(key["expiresAt"], -1);
    let keys = format!("{ann}/apps/app/keys");
    let own = json!({"consumerKey": "k", "consumerSecret": "s"});
    api.post(&format!("{keys}/create"), own.clone())
        .await
        .expect(201);
    api.post(&format!("{keys}/create"), own).await.expect(409);
    let opened = api
        .post(&format!("{keys}/k"), json!({"apiProducts": ["M"]}))
        .await
        .expect(200);
    assert_eq!(opened["apiProducts"][0]["status"], "pending");
    let approve = format!("{keys}/k/apiproducts/M?action=approve");
    assert_eq!(api.form("POST", &approve, "").await.status, 204);
    let shown = api.get(&format!("{keys}/k")).await.expect(200);
    assert_eq!(shown["apiProducts"][0]["status"], "approved");
    assert_eq!(
        api.form("POST", &format!("{keys}/k?action=revoke"), "")
            .await
            .status,
        204
    );
    assert_eq!(
        api.form("POST", &format!("{ann}?action=inactive"), "")
            .await
            .status,
        204
    );
    assert_eq!(api.get(&ann).await.expect(200)["status"], "inactive");
    api.delete(&format!("{products}/M")).await.expect(400);
    let attribute = format!("{products}/P/attributes/access");
    assert_eq!(api.get(&attribute).await.expect(200)["value"], "public");
    let apps = api.get(&format!("{O}/apps")).await.expect(200);
    assert_eq!(apps, json!([app["appId"]]));
    api.delete(&ann).await.expect(200);
    assert_eq!(api.get(&format!("{O}/apps")).await.expect(200), json!([]));
    let missing = api.get(&ann).await.expect(404);
    assert_eq!(missing["code"], "developer.service.DeveloperIdDoesNotExist");
}

#[tokio::test]
async fn maps_caches_files_and_servers_are_kept() {
    let api = api();
    let maps = format!("{E}/keyvaluemaps");
    let body = json!({"name": "m", "encrypted": "true", "entry": [{"name": "k", "value": "v"}]});
    let made = api.post(&maps, body).await.expect(201);
    assert_eq!(made["entry"][0]["value"], "*****");
    let kept = api.admin.keeping.records.index();
    let sealed = kept.list(
        &crate::dialects::apigee::entities::key_value_map::entries_table(
            "acme",
            crate::dialects::apigee::entities::MapScope::Environment("test"),
            "m",
        ),
        None,
        9,
    );
    assert!(sealed[0].1.text.starts_with("sealed:"));
    let entries = format!("{maps}/m/entries");
    api.post(&entries, json!({"name": "k2", "value": "w"}))
        .await
        .expect(201);
    api.post(&entries, json!({"name": "k2", "value": "w"}))
        .await
        .expect(409);
    api.post(
        &format!("{entries}/k2"),
        json!({"name": "k2", "value": "x"}),
    )
    .await
    .expect(200);
    api.post(&format!("{entries}/none"), json!({"value": "x"}))
        .await
        .expect(404);
    assert_eq!(
        api.get(&format!("{maps}/m/keys")).await.expect(200),
        json!(["k", "k2"])
    );
    api.post(
        &format!("{maps}/m"),
        json!({"name": "m", "entry": [{"name": "k3", "value": "1"}]}),
    )
    .await
    .expect(200);
    api.delete(&format!("{entries}/k3")).await.expect(200);
    api.delete(&format!("{maps}/m")).await.expect(200);
    let caches = format!("{E}/caches");
    let cache = api
        .post(&format!("{caches}?name=c"), json!({"description": "d"}))
        .await
        .expect(201);
    assert_eq!(cache["name"], "c");
    api.form("POST", &format!("{caches}/c/entries?action=clear"), "")
        .await
        .expect(200);
    let files = format!("{O}/resourcefiles");
    let at = format!("{files}?type=jsc&name=a.js");
    let kind = "application/octet-stream";
    api.bytes("POST", &at, kind, b"1".to_vec())
        .await
        .expect(201);
    api.bytes("POST", &at, kind, b"1".to_vec())
        .await
        .expect(409);
    let one = format!("{files}/jsc/a.js");
    api.bytes("PUT", &one, kind, b"2".to_vec())
        .await
        .expect(200);
    assert_eq!(api.get(&one).await.text, "2");
    let servers = format!("{E}/targetservers");
    let server = json!({"name": "t", "host": "h.test", "port": "8080", "isEnabled": "true",
                        "sSLInfo": {"enabled": "true", "trustStore": "none"}});
    api.post(&servers, server).await.expect(400);
    let server = json!({"name": "t", "host": "h.test", "port": 8080, "isEnabled": true});
    api.post(&servers, server.clone()).await.expect(201);
    api.post(&servers, server).await.expect(409);
    let hook = format!("{E}/flowhooks/PreProxyFlowHook");
    api.json("PUT", &hook, &json!({"sharedFlow": "none"}))
        .await
        .expect(404);
    let db_less = Api::db_less();
    let read_only = db_less
        .post("/v1/o/sallyport/apiproducts", json!({"name": "p"}))
        .await;
    read_only.expect(405);
}

#[tokio::test]
async fn keystores_hold_pairs_and_trusted_certificates() {
    let api = api();
    let stores = format!("{E}/keystores");
    api.post(&stores, json!({"name": "k"})).await.expect(201);
    let aliases = format!("{stores}/k/aliases");
    let body = json!({"alias": "own", "subject": {"commonName": "x.test"}, "key_size": 2048,
                      "subjectAlternativeDNSNames": {"subjectAlternativeName": ["x.test"]}});
    let made = api
        .post(&format!("{aliases}?format=selfsignedcert"), body)
        .await
        .expect(201);
    assert_eq!(made["certsInfo"]["certInfo"][0]["subject"], "CN=x.test");
    let pem = api.get(&format!("{aliases}/own/certificate")).await;
    assert!(pem.text.starts_with("-----BEGIN CERTIFICATE-----"));
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"certFile\"; filename=\"c.pem\"\r\n\r\n{}\r\n--b--\r\n",
        pem.text
    );
    let at = format!("{aliases}?alias=trusted&format=keycertfile");
    let kind = "multipart/form-data; boundary=b";
    let trusted = api
        .bytes("POST", &at, kind, form.into_bytes())
        .await
        .expect(201);
    assert_eq!(trusted["type"], "cert");
    assert_eq!(
        api.get(&aliases).await.expect(200),
        json!(["own", "trusted"])
    );
    let shown = api.get(&format!("{stores}/k")).await.expect(200);
    assert_eq!(shown["keys"], json!(["own"]));
    assert_eq!(shown["certs"], json!(["own-cert", "trusted-cert"]));
    let csr = api.get(&format!("{aliases}/own/csr")).await;
    assert!(csr.text.contains("CERTIFICATE REQUEST"), "{}", csr.text);
    api.delete(&format!("{aliases}/trusted")).await.expect(200);
    api.delete(&format!("{stores}/k")).await.expect(200);
}

#[tokio::test]
async fn passwords_are_traded_for_tokens() {
    let api = api();
    let form = "grant_type=password&username=u&password=p";
    let issued = api.form("POST", "/oauth/token", form).await.expect(200);
    assert_eq!(issued["token_type"], "bearer");
    assert_eq!(issued["expires_in"], 1799);
    let refresh = issued["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    api.form("POST", "/oauth/token", &form).await.expect(200);
    api.form("POST", "/oauth/token", &form).await.expect(400);
}
