//! Apigee's own tools against a running instance: `apigeetool` and the library `apigee-edge-js`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Gateway, Origin};

/// Where `make test` keeps the tools, or `SALLYPORT_TEST_NODE`.
fn tools() -> PathBuf {
    if let Some(given) = std::env::var_os("SALLYPORT_TEST_NODE") {
        return given.into();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_sallyport"));
    let target = binary.ancestors().nth(2).expect("a target folder");
    let folder = target.join("test-node");
    assert!(
        folder.join("node_modules").is_dir(),
        "no {}: run `make test`, which creates it, or set SALLYPORT_TEST_NODE",
        folder.display()
    );
    folder
}

pub(crate) fn gateway() -> Gateway {
    Gateway::builder()
        .setting("apigee_organization", "acme")
        .setting("apigee_environments", "test,prod")
        .setting("admin_gui_listen", "off")
        .start()
}

/// Runs a command of apigeetool that must succeed; gives what it printed.
#[track_caller]
pub(crate) fn tool(gateway: &Gateway, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("node")
        .arg(tools().join("node_modules/.bin/apigeetool"))
        .arg(arguments[0])
        .args(["-L", &format!("http://{}", gateway.admin().address)])
        .args(["-u", "u", "-p", "p", "-o", "acme", "-j"])
        .args(&arguments[1..])
        .current_dir(folder)
        .output()
        .expect("node runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "apigeetool {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub(crate) fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

/// The proxy `weather` under `/weather`, which asks the origin.
fn weather(folder: &Path, origin: &Origin) {
    write(
        folder,
        "apiproxy/weather.xml",
        "<APIProxy name=\"weather\"/>",
    );
    write(
        folder,
        "apiproxy/proxies/default.xml",
        "<ProxyEndpoint name=\"default\"><HTTPProxyConnection><BasePath>/weather</BasePath>\
         <VirtualHost>default</VirtualHost></HTTPProxyConnection>\
         <RouteRule name=\"default\"><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>",
    );
    write(
        folder,
        "apiproxy/targets/default.xml",
        &format!(
            "<TargetEndpoint name=\"default\"><HTTPTargetConnection><URL>{}/base</URL></HTTPTargetConnection></TargetEndpoint>",
            origin.url()
        ),
    );
}

#[test]
fn apigeetool_deploys_lists_fetches_and_undeploys() {
    let (gateway, origin) = (gateway(), Origin::echo());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    weather(folder, &origin);
    let deploy = ["deployproxy", "-e", "test", "-n", "weather", "-d", "."];
    tool(&gateway, folder, &deploy);
    let answer = gateway.get("/weather/today").send().expect_status(200);
    assert!(answer.echoed_target().starts_with("/base/today"));
    // A second revision takes over.
    tool(&gateway, folder, &deploy);
    let listed = tool(&gateway, folder, &["listdeployments", "-n", "weather"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["deployments"][0]["revision"], 2);
    tool(
        &gateway,
        folder,
        &["fetchproxy", "-n", "weather", "-r", "2", "-f", "out.zip"],
    );
    let fetched = fs::read(folder.join("out.zip")).expect("an archive");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(fetched)).expect("a ZIP");
    assert!(archive.by_name("apiproxy/proxies/default.xml").is_ok());
    tool(
        &gateway,
        folder,
        &["undeploy", "-n", "weather", "-e", "test"],
    );
    gateway.get("/weather/today").send().expect_status(404);
    tool(&gateway, folder, &["delete", "-n", "weather"]);
}

#[test]
fn apigeetool_keeps_shared_flows_servers_maps_and_apps() {
    let gateway = gateway();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    weather(folder, &Origin::echo());
    tool(
        &gateway,
        folder,
        &["deployproxy", "-e", "test", "-n", "any", "-d", "."],
    );
    write(
        folder,
        "sharedflowbundle/s.xml",
        "<SharedFlowBundle name=\"s\"/>",
    );
    write(
        folder,
        "sharedflowbundle/sharedflows/default.xml",
        "<SharedFlow name=\"default\"/>",
    );
    for line in [
        "deploySharedflow -e test -n s -d .",
        "listSharedflowDeployments -n s",
        "attachFlowHook -e test --flowHookName PreProxyFlowHook --sharedFlowName s",
        "detachFlowHook -e test --flowHookName PreProxyFlowHook",
        "createTargetServer -e test --targetServerName t --targetHost h.test --targetPort 80",
        "updateTargetServer -e test --targetServerName t --targetHost i.test --targetPort 81",
        "deleteTargetServer -e test --targetServerName t",
        "createcache -e test -z c",
        "clearCache -e test -z c",
        "createKVMmap -e test --mapName m",
        "addEntryToKVM -e test --mapName m --entryName k --entryValue v",
        "getKVMentry -e test --mapName m --entryName k",
        "createProduct --productName P --productDesc d --proxies any --environments test --approvalType auto --scopes a --quota 10 --quotaInterval 1 --quotaTimeUnit minute",
        "createDeveloper --email a@b.test --firstName A --lastName B --userName ab",
        "createApp --name app --apiProducts P --email a@b.test",
        "createAppKey --developerId a@b.test --appName app --apiProducts P --key K --secret S",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        tool(&gateway, folder, &arguments);
    }
    let app = gateway
        .admin()
        .get("/v1/o/acme/developers/a@b.test/apps/app");
    assert_eq!(app.json()["credentials"][1]["consumerKey"], "K");
    // All of it outlives the process.
    let gateway = gateway.kill().start();
    let app = gateway
        .admin()
        .get("/v1/o/acme/developers/a@b.test/apps/app");
    assert_eq!(app.json()["credentials"][1]["consumerKey"], "K");
    let entry = gateway
        .admin()
        .get("/v1/o/acme/e/test/keyvaluemaps/m/entries/k");
    assert_eq!(entry.json()["value"], "v");
    let flows = gateway
        .admin()
        .get("/v1/o/acme/e/test/sharedflows/s/deployments");
    assert_eq!(flows.json()["revision"][0]["state"], "deployed");
}

#[test]
fn the_library_imports_and_deploys() {
    use std::io::Write;
    let (gateway, origin) = (gateway(), Origin::echo());
    let folder = tempfile::tempdir().expect("a temporary folder");
    weather(folder.path(), &origin);
    let path = folder.path().join("weather.zip");
    let mut writer = zip::ZipWriter::new(fs::File::create(&path).expect("a file"));
    for name in [
        "apiproxy/weather.xml",
        "apiproxy/proxies/default.xml",
        "apiproxy/targets/default.xml",
    ] {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(name, options).expect("an entry");
        let content = fs::read(folder.path().join(name)).expect("a file");
        writer.write_all(&content).expect("content");
    }
    writer.finish().expect("an archive");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/apigee_edge.js");
    let output = Command::new("node")
        .arg(script)
        .arg(format!("http://{}", gateway.admin().address))
        .arg("acme")
        .arg(&path)
        .env("NODE_TOOLS", tools())
        .output()
        .expect("node runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    gateway.get("/weather/now").send().expect_status(200);
}

#[test]
fn the_command_line_deploys_what_it_is_given() {
    let (gateway, origin) = (gateway(), Origin::echo());
    let folder = tempfile::tempdir().expect("a temporary folder");
    weather(folder.path(), &origin);
    let bundle = folder.path().to_str().expect("a path in UTF-8");
    let deployed = gateway.run(&["apigee", "deploy", bundle, "--env", "test"]);
    assert!(deployed.status.success(), "{deployed:?}");
    gateway.get("/weather/now").send().expect_status(200);
    fs::write(
        folder.path().join("apiproxy/targets/default.xml"),
        "<Target",
    )
    .expect("a file");
    let refused = gateway.run(&["apigee", "deploy", bundle]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("targets/default.xml"), "{told}");
    gateway.get("/weather/now").send().expect_status(200);
}
