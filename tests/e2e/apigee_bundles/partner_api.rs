//! `partner-api`: partners sign their tokens with keys of their own, and get sessions signed by the gateway.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Organization, Origin, Request};

const KEY: &str = "a-key-of-the-partner-with-32-bytes";
const OWN: &str = "the-gateways-own-key-with-32-bytes!";

/// A token with these claims, signed with HS256.
fn token(key: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(signed.as_bytes());
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("JSON")
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("a time").as_secs()).expect("a number")
}

fn claims(further: Value) -> Value {
    let mut claims = json!({"iss": "acme", "sub": "acme-shop", "aud": "partners.example.com",
        "exp": now() + 600, "kind": "partner", "region": "us", "scope": "reports orders"});
    for (name, value) in further.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn partners() -> (Organization, Origin) {
    let (organization, origin) = (Organization::new(), Origin::echo());
    organization.target_server("reports", &origin);
    organization.map("partner-keys", true, &[("acme", KEY), ("own", OWN)]);
    organization.deploy("partner-api");
    (organization, origin)
}

fn with(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

#[test]
fn partners_are_known_by_their_signatures() {
    let (organization, origin) = partners();
    let gateway = &organization.gateway;
    let good = token(KEY, &claims(json!({})));
    let report = with(gateway.get("/partners/reports/today?region=us"), &good)
        .send()
        .expect_status(200);
    assert_eq!(report.echoed_target(), "/reports/today?region=us");
    let onward = report.echoed_one("Authorization").expect("a token");
    let onward = claims_of(onward.strip_prefix("Bearer ").expect("a bearer"));
    assert_eq!(onward["sub"], "acme-shop");
    assert!(
        onward["exp"]
            .as_i64()
            .is_some_and(|exp| (now()..=now() + 61).contains(&exp)),
        "{onward}"
    );
    assert_eq!(
        (report.header("X-Partner"), report.header("X-Left")),
        (Some("acme-shop"), Some("99"))
    );
    let refused = |token: &str, status: u16| {
        let answer = with(gateway.get("/partners/reports/today?region=us"), token).send();
        answer.expect_status(status).json()["error"]
            .as_str()
            .expect("an error")
            .to_owned()
    };
    assert_eq!(
        refused(
            &token("another-key-that-is-long-enough-too", &claims(json!({}))),
            401
        ),
        "invalid token"
    );
    assert_eq!(
        refused(&token(KEY, &claims(json!({"exp": now() - 60}))), 401),
        "invalid token"
    );
    assert_eq!(
        refused(&token(KEY, &claims(json!({"aud": "others"}))), 401),
        "invalid token"
    );
    assert_eq!(
        refused(&token(KEY, &claims(json!({"kind": "guest"}))), 401),
        "invalid token"
    );
    assert_eq!(
        refused(&token(KEY, &claims(json!({"iss": "nobody"}))), 401),
        "unknown partner"
    );
    assert_eq!(refused("nonsense", 401), "no token");
    assert_eq!(
        refused(&token(KEY, &claims(json!({"region": "eu"}))), 403),
        "not your region"
    );
    assert_eq!(
        refused(&token(KEY, &claims(json!({"scope": "orders"}))), 403),
        "scope"
    );
    assert_eq!(origin.received().len(), 1);
    // A little too late is in time.
    let late = token(KEY, &claims(json!({"exp": now() - 3})));
    with(gateway.get("/partners/reports/today?region=us"), &late)
        .send()
        .expect_status(200);
}

#[test]
fn sessions_are_signed_by_the_gateway() {
    let (organization, _origin) = partners();
    let gateway = &organization.gateway;
    let good = token(KEY, &claims(json!({})));
    let made = with(
        gateway.request("POST", "/partners/session?region=us"),
        &good,
    )
    .body("")
    .send()
    .expect_status(201);
    let session = made.json()["token"].as_str().expect("a token").to_owned();
    let told = claims_of(&session);
    for (name, value) in [
        ("sub", json!("acme-shop")),
        ("iss", json!("gateway")),
        ("aud", json!(["session", "partners"])),
        ("region", json!("us")),
        ("level", json!(3)),
        ("trial", json!(false)),
    ] {
        assert_eq!(told[name], value, "{name}: {told}");
    }
    assert!(
        told["jti"].as_str().is_some_and(|id| id.len() == 36),
        "{told}"
    );
    let who = |session: Option<&str>| {
        let request = with(gateway.get("/partners/whoami?region=us"), &good);
        let request = match session {
            Some(session) => request.header("X-Session", session),
            None => request,
        };
        request.send().expect_status(200).json()
    };
    assert_eq!(
        who(None),
        json!({"partner": "acme-shop", "session": "none", "level": "0"})
    );
    assert_eq!(
        who(Some(&session)),
        json!({"partner": "acme-shop", "session": "true", "level": "3"})
    );
    assert_eq!(who(Some(&good))["session"], "false");
    let (head, _) = session.rsplit_once('.').expect("three parts");
    assert_eq!(who(Some(&format!("{head}.AAAA")))["session"], "false");
}
