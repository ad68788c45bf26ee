//! Bundles of flows as a team has them: folders under `tests/e2e/bundles`, sent as archives to the management API of a
//! running gateway, and what they need around them.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{Gateway, GatewayBuilder, Origin, Request, Response};

/// The organisation `acme` with its environment `test` on a gateway.
pub(crate) struct Organization {
    pub(crate) gateway: Gateway,
}

const E: &str = "/v1/organizations/acme/environments/test";
const O: &str = "/v1/organizations/acme";

impl Organization {
    /// On a gateway with an empty store.
    pub(crate) fn new() -> Self {
        Self::on(Gateway::builder())
    }

    /// On a gateway with further settings.
    pub(crate) fn on(builder: GatewayBuilder) -> Self {
        let gateway = builder
            .setting("apigee_organization", "acme")
            .setting("apigee_environments", "test")
            .setting("apigee_trace_token", "show-me")
            .start();
        Self { gateway }
    }

    /// POSTs to a path below the environment; it must succeed.
    #[track_caller]
    pub(crate) fn add(&self, path: &str, body: Value) -> Value {
        self.send("POST", &format!("{E}/{path}"), &body).json()
    }

    /// POSTs to a path below the organisation; it must succeed.
    #[track_caller]
    pub(crate) fn add_to_organization(&self, path: &str, body: Value) -> Value {
        self.send("POST", &format!("{O}/{path}"), &body).json()
    }

    /// Replaces something below the environment; it must succeed.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: Value) -> Value {
        self.send("PUT", &format!("{E}/{path}"), &body).json()
    }

    /// Does something without a body, such as `?action=revoke`.
    #[track_caller]
    pub(crate) fn act(&self, method: &str, path: &str) -> Response {
        let admin = self.gateway.admin();
        self.done(admin.request(method, &format!("{O}/{path}")))
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        let admin = self.gateway.admin();
        self.done(admin.request(method, path).json(body))
    }

    #[track_caller]
    fn done(&self, request: Request) -> Response {
        let response = request.send();
        assert!(response.status < 300, "{}", response.text());
        // Entries of maps and caches are no configuration: they count at once.
        if response.header("X-Sallyport-Revision").is_some() {
            self.gateway.admin().await_revision(&response);
        }
        response
    }

    /// A keystore with these aliases; those without a key are trusted certificates.
    #[track_caller]
    pub(crate) fn keystore(&self, name: &str, aliases: &[(&str, &str, Option<&str>)]) {
        self.add("keystores", json!({"name": name}));
        let admin = self.gateway.admin();
        for (alias, certificate, key) in aliases {
            let mut body = String::new();
            let parts = [("certFile", Some(*certificate)), ("keyFile", *key)];
            for (part, text) in parts {
                if let Some(text) = text {
                    body.push_str(&format!(
                        "--part\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{part}.pem\"\r\n\
                         Content-Type: application/octet-stream\r\n\r\n{text}\r\n"
                    ));
                }
            }
            body.push_str("--part--\r\n");
            let path = format!("{E}/keystores/{name}/aliases?alias={alias}&format=keycertfile");
            let request = admin
                .request("POST", &path)
                .header("Content-Type", "multipart/form-data; boundary=part")
                .body(body);
            let response = admin.write(request);
            assert!(response.status < 300, "{alias}: {}", response.text());
        }
    }

    /// A target server of this name at an origin.
    #[track_caller]
    pub(crate) fn target_server(&self, name: &str, origin: &Origin) {
        let server =
            json!({"name": name, "host": "127.0.0.1", "port": origin.port(), "isEnabled": true});
        self.add("targetservers", server);
    }

    /// A key-value map of the environment.
    #[track_caller]
    pub(crate) fn map(&self, name: &str, encrypted: bool, entries: &[(&str, &str)]) {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let map = json!({"name": name, "encrypted": encrypted, "entry": entries});
        self.add("keyvaluemaps", map);
    }

    /// Writes an entry that is there already.
    #[track_caller]
    pub(crate) fn set_entry(&self, map: &str, name: &str, value: &str) {
        self.add(
            &format!("keyvaluemaps/{map}/entries/{name}"),
            json!({"name": name, "value": value}),
        );
    }

    /// A product, with further fields.
    #[track_caller]
    pub(crate) fn product(&self, name: &str, further: Value) {
        let mut product = json!({
            "name": name, "displayName": name, "approvalType": "auto",
            "environments": ["test"], "proxies": [], "apiResources": [], "scopes": [],
        });
        for (field, value) in further.as_object().expect("an object") {
            product[field] = value.clone();
        }
        self.add_to_organization("apiproducts", product);
    }

    /// A developer.
    #[track_caller]
    pub(crate) fn developer(&self, email: &str, first: &str, last: &str) {
        self.add_to_organization(
            "developers",
            json!({"email": email, "firstName": first, "lastName": last, "userName": first}),
        );
    }

    /// An app of a developer with these products: its key and secret.
    #[track_caller]
    pub(crate) fn app(&self, email: &str, name: &str, products: &[&str]) -> (String, String) {
        let app = self.add_to_organization(
            &format!("developers/{email}/apps"),
            json!({"name": name, "apiProducts": products, "callbackUrl": "https://app.test/back"}),
        );
        let credential = &app["credentials"][0];
        let text = |field: &str| credential[field].as_str().expect("a text").to_owned();
        (text("consumerKey"), text("consumerSecret"))
    }

    /// Imports the proxy of this folder and deploys it.
    #[track_caller]
    pub(crate) fn deploy(&self, name: &str) {
        self.deploy_kind("apis", name);
    }

    /// Imports the shared flow of this folder and deploys it.
    #[track_caller]
    pub(crate) fn deploy_shared_flow(&self, name: &str) {
        self.deploy_kind("sharedflows", name);
    }

    #[track_caller]
    fn deploy_kind(&self, kind: &str, name: &str) {
        let imported = self.import(kind, name, zip_folder(&folder(name)));
        let imported = imported.expect_status(201).json();
        let revision = imported["revision"]
            .as_str()
            .expect("a revision")
            .to_owned();
        self.deploy_revision(kind, name, &revision)
            .expect_status(200);
    }

    /// Sends an archive.
    #[track_caller]
    pub(crate) fn import(&self, kind: &str, name: &str, archive: Vec<u8>) -> Response {
        let admin = self.gateway.admin();
        let path = format!("{O}/{kind}?action=import&name={name}&validate=true");
        let request = admin
            .request("POST", &path)
            .header("Content-Type", "application/octet-stream")
            .body(archive);
        admin.write(request)
    }

    /// Deploys a revision in place of the one that runs.
    #[track_caller]
    pub(crate) fn deploy_revision(&self, kind: &str, name: &str, revision: &str) -> Response {
        let admin = self.gateway.admin();
        let path = format!("{E}/{kind}/{name}/revisions/{revision}/deployments");
        admin.post_form(&path, "override=true&delay=0")
    }
}

/// The folder of a bundle in the repository.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/bundles")
        .join(name)
}

fn zip_folder(folder: &Path) -> Vec<u8> {
    let mut files = Vec::new();
    walk(folder, String::new(), &mut files);
    assert!(!files.is_empty(), "no bundle in {}", folder.display());
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    zip_files(&files)
}

fn walk(folder: &Path, below: String, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            walk(&entry.path(), format!("{name}/"), files);
        } else {
            files.push((name, fs::read(entry.path()).expect("a file")));
        }
    }
}

/// An archive of files by their paths.
pub(crate) fn zip_files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let options = SimpleFileOptions::default();
        writer.start_file(*name, options).expect("an entry");
        writer.write_all(content).expect("content");
    }
    writer.finish().expect("an archive").into_inner()
}
