//! `token-server`: every grant, and an API that asks for tokens with scopes.

use serde_json::{Value, json};

use crate::harness::{Organization, Origin, Request, Response};

struct Server {
    organization: Organization,
    key: String,
    secret: String,
    origin: Origin,
}

impl Server {
    fn new() -> Self {
        let (organization, origin) = (Organization::new(), Origin::echo());
        organization.target_server("notes", &origin);
        organization.map("users", true, &[("ada", "pass:word")]);
        organization.product("Notes", json!({"scopes": ["read", "write", "admin"], "quota": "7", "quotaInterval": "1", "quotaTimeUnit": "day"}));
        organization.developer("dev@example.com", "De", "Veloper");
        let (key, secret) = organization.app("dev@example.com", "notebook", &["Notes"]);
        organization.deploy("token-server");
        Self {
            organization,
            key,
            secret,
            origin,
        }
    }

    fn post(&self, path: &str, form: &str) -> Response {
        let form = format!(
            "{form}&client_id={}&client_secret={}",
            self.key, self.secret
        );
        self.organization
            .gateway
            .request("POST", path)
            .form(&form)
            .send()
    }

    #[track_caller]
    fn token(&self, form: &str) -> Value {
        let answer = self.post("/oauth/accesstoken", form).expect_status(200);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        answer.json()
    }

    fn call(&self, method: &str, token: &str) -> Response {
        let request: Request = self.organization.gateway.request(method, "/notes/1");
        let request = request.header("Authorization", &format!("Bearer {token}"));
        if method == "GET" {
            request.send()
        } else {
            request.body("x").send()
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn clients_get_tokens_with_scopes() {
    let server = Server::new();
    let answer = server.token("grant_type=client_credentials&scope=read&tier=gold");
    assert_eq!(
        (text(&answer, "scope"), text(&answer, "tier")),
        ("read", "gold")
    );
    assert!(answer.get("hidden").is_none());
    let token = text(&answer, "access_token");
    let read = server.call("GET", token).expect_status(200);
    for (name, value) in [
        ("X-Client", Some(server.key.as_str())),
        ("X-Developer", Some("dev@example.com")),
        ("X-Scope", Some("read")),
        ("X-Tier", Some("gold")),
        ("Authorization", None),
    ] {
        assert_eq!(read.echoed_one(name).as_deref(), value, "{name}");
    }
    assert_eq!(
        (read.header("X-Grant"), read.header("X-Left")),
        (Some("client_credentials"), Some("6"))
    );
    let scope = server.call("POST", token).expect_status(403);
    assert_eq!(scope.json(), json!({"error": "insufficient_scope"}));
    let writing = server.token("grant_type=client_credentials&scope=write");
    server
        .call("POST", text(&writing, "access_token"))
        .expect_status(200);
    let guess = server.call("GET", "guess").expect_status(401);
    assert_eq!(
        guess.json(),
        json!({"error": "invalid_token", "fault": "invalid_access_token"})
    );
    assert_eq!(
        guess.header("WWW-Authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    let none = server
        .organization
        .gateway
        .get("/notes/1")
        .send()
        .expect_status(401);
    assert_eq!(none.json()["fault"], "InvalidAccessToken");
    let gateway = &server.organization.gateway;
    let stranger = gateway
        .request("POST", "/oauth/accesstoken")
        .form("grant_type=client_credentials&client_id=x&client_secret=y");
    let stranger = stranger.send().expect_status(401);
    assert_eq!(stranger.json(), json!({"error": "invalid_client"}));
    let json_body = gateway
        .request("POST", "/oauth/accesstoken")
        .json(&json!({}))
        .send()
        .expect_status(415);
    assert_eq!(json_body.json(), json!({"error": "invalid_request"}));
    let grant = server
        .post("/oauth/accesstoken", "grant_type=magic")
        .expect_status(400);
    assert_eq!(grant.json(), json!({"error": "unsupported_grant_type"}));
    assert_eq!(server.origin.received().len(), 2);
    let revoked = server
        .post("/oauth/revoke", &format!("token={token}"))
        .expect_status(200);
    assert_eq!(revoked.json(), json!({"revoked": true}));
    server.call("GET", token).expect_status(401);
}

#[test]
fn users_and_codes_become_tokens() {
    let server = Server::new();
    let wrong = server
        .post(
            "/oauth/accesstoken",
            "grant_type=password&username=ada&password=x",
        )
        .expect_status(400);
    assert_eq!(wrong.json(), json!({"error": "invalid_grant"}));
    let answer =
        server.token("grant_type=password&username=ada&password=pass%3Aword&scope=read%20write");
    server
        .call("POST", text(&answer, "access_token"))
        .expect_status(200);
    let refresh = text(&answer, "refresh_token").to_owned();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let second = server.token(&form);
    assert_eq!(text(&second, "refresh_count"), "1");
    server
        .call("GET", text(&second, "access_token"))
        .expect_status(200);
    let again = server.post("/oauth/accesstoken", &form);
    assert!(
        again.status >= 400,
        "a refresh token is used once: {}",
        again.text()
    );
    let gateway = &server.organization.gateway;
    let path = format!(
        "/oauth/authorize?response_type=code&client_id={}&redirect_uri=https://app.test/back&scope=read&state=s%201",
        server.key
    );
    let sent = gateway.get(&path).send().expect_status(302);
    let location = sent.header("Location").expect("a location").to_owned();
    let query = location
        .strip_prefix("https://app.test/back?")
        .unwrap_or_else(|| panic!("{location}"));
    let code = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("code="))
        .expect("a code");
    assert!(
        query.contains("state=s%201") || query.contains("state=s+1"),
        "{query}"
    );
    let form =
        format!("grant_type=authorization_code&code={code}&redirect_uri=https://app.test/back");
    let answer = server.token(&form);
    server
        .call("GET", text(&answer, "access_token"))
        .expect_status(200);
    let twice = server.post("/oauth/accesstoken", &form);
    assert!(twice.status >= 400, "a code is used once: {}", twice.text());
}
