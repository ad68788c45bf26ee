//! `governed-api`: shared flows guard, stamp and audit; flow hooks put two of them around every proxy.

use serde_json::json;

use crate::harness::{Organization, Origin};

const FLOWS: [&str; 6] = [
    "sf-trace",
    "sf-stamp",
    "sf-target",
    "sf-audit",
    "sf-security",
    "sf-errors",
];

fn governed() -> (Organization, Origin, String, String) {
    let (organization, origin) = (Organization::new(), Origin::echo());
    organization.target_server("governed", &origin);
    for flow in FLOWS {
        organization.deploy_shared_flow(flow);
    }
    let roles = |roles: &str| json!([{"name": "roles", "value": roles}]);
    organization.product("All", json!({}));
    organization.developer("root@example.com", "Root", "R");
    organization.developer("ada@example.com", "Ada", "L");
    let app = |email: &str, name: &str, wanted: &str| {
        let app = organization.add_to_organization(
            &format!("developers/{email}/apps"),
            json!({"name": name, "apiProducts": ["All"], "attributes": roles(wanted)}),
        );
        app["credentials"][0]["consumerKey"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let root = app("root@example.com", "console", "user,admin");
    let user = app("ada@example.com", "phone", "user");
    organization.deploy("governed-api");
    for (point, flow) in [
        ("PreProxyFlowHook", "sf-trace"),
        ("PreTargetFlowHook", "sf-target"),
        ("PostProxyFlowHook", "sf-stamp"),
    ] {
        organization.put(
            &format!("flowhooks/{point}"),
            json!({"sharedFlow": flow, "continueOnError": false}),
        );
    }
    (organization, origin, root, user)
}

#[test]
fn shared_flows_and_hooks_work_together() {
    let (organization, origin, root, user) = governed();
    let gateway = &organization.gateway;
    let answer = gateway
        .get(&format!("/governed/things?key={user}&x=1"))
        .header("X-Internal", "1")
        .header("X-Correlation", "c-7")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/things?x=1");
    assert_eq!(answer.echoed_one("X-Internal"), None);
    assert_eq!(
        answer.echoed_one("X-Target-Name").as_deref(),
        Some("default")
    );
    for (name, value) in [
        ("X-Correlation", "c-7"),
        ("X-Caller", "governed-api/default@test"),
        ("X-Audited", "no"),
        ("X-Role", "any"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let role = gateway
        .get(&format!("/governed/admin/x?key={user}"))
        .send()
        .expect_status(403);
    assert_eq!(
        (role.text().as_str(), role.header("X-Error")),
        ("not your role", Some("governed.raisefault"))
    );
    let admin = gateway
        .get(&format!("/governed/admin/x?key={root}"))
        .send()
        .expect_status(200);
    assert_eq!(admin.header("X-Audited"), Some("root@example.com:/admin/x"));
    assert!(
        admin
            .header("X-Correlation")
            .is_some_and(|it| it == admin.echoed_one("X-Correlation").unwrap())
    );
    let api = gateway.admin();
    let audit = api
        .get("/v1/o/acme/e/test/keyvaluemaps/audit/entries/root@example.com")
        .json();
    assert_eq!(audit["value"], "/admin/x");
    let missing = gateway
        .get("/governed/things")
        .header("X-Correlation", "c-8")
        .send()
        .expect_status(401);
    assert_eq!(
        missing.json(),
        json!({"kind": "governed.key", "correlation": "c-8"})
    );
    let hook = gateway
        .get(&format!("/governed/x?key={user}"))
        .header("X-Target", "refused")
        .send();
    assert_eq!(hook.expect_status(409).text(), "refused by the hook");
    assert_eq!(origin.received().len(), 2);
    let unknown = gateway
        .get(&format!("/governed/missing?key={user}"))
        .send()
        .expect_status(500);
    assert_eq!(unknown.json()["kind"], "governed.sharedflownotfound");
}

#[test]
fn shared_flows_change_below_running_proxies() {
    let (organization, _origin, _root, user) = governed();
    let gateway = &organization.gateway;
    let api = gateway.admin();
    let path = format!("/governed/things?key={user}");
    // A shared flow at a hook stays as long as it is there.
    let stays = api
        .request(
            "DELETE",
            "/v1/o/acme/e/test/sharedflows/sf-stamp/revisions/1/deployments",
        )
        .send();
    stays.expect_status(400);
    organization.act("DELETE", "e/test/flowhooks/PostProxyFlowHook");
    assert_eq!(
        gateway
            .get(&path)
            .send()
            .expect_status(200)
            .header("X-Caller"),
        None
    );
    organization.act(
        "DELETE",
        "e/test/sharedflows/sf-security/revisions/1/deployments",
    );
    let gone = gateway.get(&path).send().expect_status(500);
    assert_eq!(gone.header("X-Error"), Some("governed.sharedflownotfound"));
    organization.deploy_shared_flow("sf-security");
    gateway.get(&path).send().expect_status(200);
}
