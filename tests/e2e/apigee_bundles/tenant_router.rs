//! `tenant-router`: where requests go is written in key-value maps, by an administrator or by another endpoint.

use serde_json::json;

use crate::harness::{Organization, Origin, Request};

fn router() -> (Organization, Origin) {
    let (organization, origin) = (Organization::new(), Origin::echo());
    let host = origin.address.to_string();
    organization.map(
        "tenants",
        false,
        &[
            ("acme__host", &host),
            ("acme__root", "root/of"),
            ("acme__limit", "3"),
            ("late__host", &host),
            ("late__state", "suspended"),
            ("moon__host", &host),
            ("moon__state", "dark"),
            ("bare__host", &host),
        ],
    );
    organization.map(
        "tenant-secrets",
        true,
        &[
            ("admin.user", "root"),
            ("admin.password", "p:w"),
            ("acme__user", "gateway"),
            ("acme__password", "s3cret"),
        ],
    );
    organization.deploy("tenant-router");
    (organization, origin)
}

#[test]
fn tenants_have_their_own_backends() {
    let (organization, origin) = router();
    let gateway = &organization.gateway;
    let answer = gateway
        .get("/tenants/acme/a%20b/c?d=e")
        .send()
        .expect_status(200);
    assert_eq!(answer.echoed_target(), "/root/of/a%20b/c?d=e");
    // gateway:s3cret
    assert_eq!(
        answer.echoed_one("Authorization").as_deref(),
        Some("Basic Z2F0ZXdheTpzM2NyZXQ=")
    );
    assert_eq!(
        (answer.header("X-Tenant"), answer.header("X-Left")),
        (Some("acme"), Some("2"))
    );
    let weighted = gateway
        .get("/tenants/acme")
        .header("X-Weight", "2")
        .send()
        .expect_status(200);
    assert_eq!(weighted.echoed_target(), "/root/of");
    assert_eq!(weighted.header("X-Left"), Some("0"));
    let over = gateway.get("/tenants/acme").send().expect_status(429);
    assert_eq!(
        over.json()["fault"],
        json!({"faultstring": "Rate limit quota violation. Quota limit  exceeded. Identifier : acme",
            "detail": {"errorcode": "policies.ratelimit.QuotaViolation"}})
    );
    let unknown = gateway.get("/tenants/nobody/x").send().expect_status(404);
    assert_eq!(
        unknown.json(),
        json!({"error": "unknown tenant", "tenant": "nobody"})
    );
    assert_eq!(
        gateway.get("/tenants").send().expect_status(404).text(),
        "which tenant?"
    );
    let late = gateway.get("/tenants/late").send().expect_status(402);
    assert_eq!(late.json(), json!({"error": "suspended"}));
    let dark = gateway.get("/tenants/moon/x").send().expect_status(200);
    assert_eq!(
        (dark.text().as_str(), dark.header("X-Tenant")),
        ("", Some("moon"))
    );
    // Without credentials the policy fails, as it says it must.
    let bare = gateway.get("/tenants/bare").send().expect_status(500);
    assert_eq!(
        bare.json()["fault"]["detail"]["errorcode"],
        "steps.basicauthentication.UnresolvedVariable"
    );
    assert_eq!(origin.received().len(), 2);
    // Secrets are not shown, neither by the API nor by traces.
    let admin = gateway.admin();
    let shown = admin
        .get("/v1/o/acme/e/test/keyvaluemaps/tenant-secrets")
        .text();
    assert!(
        !shown.contains("s3cret") && shown.contains("*****"),
        "{shown}"
    );
    gateway
        .get("/tenants/moon")
        .header("Sallyport-Trace", "show-me")
        .send()
        .expect_status(200);
    gateway
        .get("/tenants/bare")
        .header("Sallyport-Trace", "show-me")
        .send()
        .expect_status(500);
    let traces = admin.get("/traces").text();
    assert!(!traces.contains("s3cret"), "{traces}");
}

#[test]
fn entries_are_written_by_requests_and_kept() {
    let (organization, origin) = router();
    // root:p:w
    let as_admin = |request: Request| request.header("Authorization", "Basic cm9vdDpwOnc=");
    let gateway = &organization.gateway;
    let who = gateway.get("/tenant-admin/new").send().expect_status(401);
    assert_eq!(
        who.header("WWW-Authenticate"),
        Some("Basic realm=\"tenants\"")
    );
    let broken = gateway
        .get("/tenant-admin/new")
        .header("Authorization", "Bearer x")
        .send();
    broken.expect_status(401);
    gateway
        .get("/tenant-admin/new")
        .header("Authorization", "Basic cm9vdDp4")
        .send()
        .expect_status(403);
    let none = as_admin(gateway.get("/tenant-admin/new"))
        .send()
        .expect_status(404);
    assert_eq!(none.json(), json!({"error": "no entry"}));
    let entry = json!({"host": origin.address.to_string(), "state": "dark"});
    let written = as_admin(gateway.request("PUT", "/tenant-admin/new").json(&entry))
        .send()
        .expect_status(204);
    assert_eq!(written.header("X-Change"), Some("none/new"));
    let shown = as_admin(gateway.get("/tenant-admin/new"))
        .send()
        .expect_status(200);
    assert_eq!(shown.json(), entry);
    gateway.get("/tenants/new").send().expect_status(200);
    // What the administrators' API shows is the same, and it outlives the process.
    let admin = gateway.admin();
    let value = admin
        .get("/v1/o/acme/e/test/keyvaluemaps/tenants/entries/new__state")
        .json();
    assert_eq!(value["value"], "dark");
    let gateway = organization.gateway.kill().start();
    let shown = as_admin(gateway.get("/tenant-admin/new"))
        .send()
        .expect_status(200);
    assert_eq!(shown.json(), entry);
    let gone = as_admin(gateway.request("DELETE", "/tenant-admin/new"))
        .send()
        .expect_status(200);
    assert_eq!(gone.json(), json!({"removed": "new"}));
    gateway.get("/tenants/new").send().expect_status(404);
}
