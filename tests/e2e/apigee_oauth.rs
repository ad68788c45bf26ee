//! Tokens as clients get and use them: a token server deployed with Apigee's own tool, an app made through the management
//! API, and calls of what is protected.

use std::path::Path;

use serde_json::{Value, json};

use crate::apigee_tools::{gateway, tool, write};
use crate::harness::{Gateway, Origin, Request, Response};

const ORGANIZATION: &str = "/v1/organizations/acme";

/// `<OAuthV2 name>` with these elements.
fn policy(folder: &Path, name: &str, body: &str) {
    write(
        folder,
        &format!("apiproxy/policies/{name}.xml"),
        &format!("<OAuthV2 name=\"{name}\">{body}</OAuthV2>"),
    );
}

fn flow(path: &str, policy: &str) -> String {
    format!(
        "<Flow name=\"{path}\"><Condition>proxy.pathsuffix = \"/{path}\"</Condition>\
         <Request><Step><Name>{policy}</Name></Step></Request></Flow>"
    )
}

/// The proxy `oauth`: everything about tokens, without a target.
fn token_server(folder: &Path) {
    write(folder, "apiproxy/oauth.xml", "<APIProxy name=\"oauth\"/>");
    let flows: String = [
        ("accesstoken", "Generate"),
        ("refresh", "Refresh"),
        ("authorize", "Authorize"),
        ("revoke", "Revoke"),
        ("info", "Info"),
    ]
    .iter()
    .map(|(path, policy)| flow(path, policy))
    .collect();
    write(
        folder,
        "apiproxy/proxies/default.xml",
        &format!(
            "<ProxyEndpoint name=\"default\"><Flows>{flows}</Flows><HTTPProxyConnection><BasePath>/oauth</BasePath>\
             <VirtualHost>default</VirtualHost></HTTPProxyConnection><RouteRule name=\"none\"/></ProxyEndpoint>"
        ),
    );
    policy(
        folder,
        "Generate",
        "<Operation>GenerateAccessToken</Operation><ExpiresIn>1800000</ExpiresIn>\
         <SupportedGrantTypes><GrantType>client_credentials</GrantType><GrantType>password</GrantType>\
         <GrantType>authorization_code</GrantType></SupportedGrantTypes>\
         <Attributes><Attribute name=\"tier\">gold</Attribute></Attributes><GenerateResponse enabled=\"true\"/>",
    );
    policy(
        folder,
        "Refresh",
        "<Operation>RefreshAccessToken</Operation><GenerateResponse enabled=\"true\"/>",
    );
    policy(
        folder,
        "Authorize",
        "<Operation>GenerateAuthorizationCode</Operation><ClientId>request.queryparam.client_id</ClientId>\
         <ResponseType>request.queryparam.response_type</ResponseType><RedirectUri>request.queryparam.redirect_uri</RedirectUri>\
         <Scope>request.queryparam.scope</Scope><State>request.queryparam.state</State><GenerateResponse enabled=\"true\"/>",
    );
    policy(
        folder,
        "Revoke",
        "<Operation>InvalidateToken</Operation>\
         <Tokens><Token type=\"accesstoken\" cascade=\"true\">request.formparam.token</Token></Tokens>",
    );
    write(
        folder,
        "apiproxy/policies/Info.xml",
        "<GetOAuthV2Info name=\"Info\"><AccessToken ref=\"request.queryparam.token\"/></GetOAuthV2Info>",
    );
}

/// The proxy `shop`: asks the origin on behalf of calls with a token, and tells it who calls.
fn shop(folder: &Path, origin: &Origin) {
    write(folder, "apiproxy/shop.xml", "<APIProxy name=\"shop\"/>");
    write(
        folder,
        "apiproxy/proxies/default.xml",
        "<ProxyEndpoint name=\"default\"><PreFlow><Request><Step><Name>Verify</Name></Step><Step><Name>Quota</Name></Step>\
         <Step><Name>Tell</Name></Step></Request></PreFlow>\
         <Flows><Flow name=\"write\"><Condition>request.verb = \"POST\"</Condition>\
         <Request><Step><Name>VerifyWrite</Name></Step></Request></Flow></Flows>\
         <HTTPProxyConnection><BasePath>/shop</BasePath><VirtualHost>default</VirtualHost></HTTPProxyConnection>\
         <RouteRule name=\"default\"><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>",
    );
    write(
        folder,
        "apiproxy/targets/default.xml",
        &format!(
            "<TargetEndpoint name=\"default\"><HTTPTargetConnection><URL>{}</URL></HTTPTargetConnection></TargetEndpoint>",
            origin.url()
        ),
    );
    policy(folder, "Verify", "<Operation>VerifyAccessToken</Operation>");
    policy(
        folder,
        "VerifyWrite",
        "<Operation>VerifyAccessToken</Operation><Scope>WRITE</Scope>",
    );
    write(
        folder,
        "apiproxy/policies/Quota.xml",
        "<Quota name=\"Quota\"><UseQuotaConfigInAPIProduct stepName=\"Verify\"/><Identifier ref=\"client_id\"/></Quota>",
    );
    write(
        folder,
        "apiproxy/policies/Tell.xml",
        "<AssignMessage name=\"Tell\"><Set><Headers><Header name=\"X-Who\">{developer.email} {developer.app.name} \
         {apiproduct.name} {accesstoken.tier} {scope} {ratelimit.Quota.allowed.count}</Header></Headers></Set></AssignMessage>",
    );
}

struct House {
    gateway: Gateway,
    key: String,
    secret: String,
}

impl House {
    fn new(origin: &Origin) -> Self {
        let gateway = gateway();
        for (name, write_bundle) in [("oauth", None), ("shop", Some(origin))] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            match write_bundle {
                None => token_server(folder.path()),
                Some(origin) => shop(folder.path(), origin),
            }
            let deploy = ["deployproxy", "-e", "test", "-n", name, "-d", "."];
            tool(&gateway, folder.path(), &deploy);
        }
        let admin = gateway.admin();
        admin.create(
            &format!("{ORGANIZATION}/apiproducts"),
            json!({"name": "P", "approvalType": "auto", "proxies": ["shop"], "environments": ["test"],
                "apiResources": ["/items/**"], "scopes": ["READ", "WRITE"],
                "quota": "50", "quotaInterval": "1", "quotaTimeUnit": "hour"}),
        );
        admin.create(
            &format!("{ORGANIZATION}/developers"),
            json!({"email": "ann@x.test", "firstName": "A", "lastName": "B", "userName": "ann"}),
        );
        let app = admin.create(
            &format!("{ORGANIZATION}/developers/ann@x.test/apps"),
            json!({"name": "app", "apiProducts": ["P"], "callbackUrl": "https://app.test/cb"}),
        );
        let credential = &app["credentials"][0];
        let text = |name: &str| credential[name].as_str().expect("a text").to_owned();
        Self {
            key: text("consumerKey"),
            secret: text("consumerSecret"),
            gateway,
        }
    }

    fn post(&self, path: &str, form: &str) -> Response {
        let form = format!(
            "{form}&client_id={}&client_secret={}",
            self.key, self.secret
        );
        self.gateway.request("POST", path).form(&form).send()
    }

    #[track_caller]
    fn token(&self, form: &str) -> Value {
        let answer = self.post("/oauth/accesstoken", form);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        answer.expect_status(200).json()
    }

    fn call(&self, token: &str) -> Response {
        with(self.gateway.get("/shop/items/1"), token).send()
    }
}

fn with(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

#[track_caller]
fn fault(answer: Response, status: u16, code: &str) {
    let answer = answer.expect_status(status).json();
    assert_eq!(answer["fault"]["detail"]["errorcode"], code);
}

#[test]
fn a_client_gets_a_token_and_calls_with_it() {
    let origin = Origin::echo();
    let house = House::new(&origin);
    let answer = house.token("grant_type=client_credentials");
    for (name, value) in [
        ("token_type", "BearerToken"),
        ("expires_in", "1799"),
        ("scope", "READ WRITE"),
        ("organization_name", "acme"),
        ("developer.email", "ann@x.test"),
        ("tier", "gold"),
    ] {
        assert_eq!(answer[name], value, "{name}");
    }
    assert!(answer.get("refresh_token").is_none());
    let token = text(&answer, "access_token").to_owned();
    let called = house.call(&token).expect_status(200);
    assert_eq!(
        called.echoed_one("X-Who").as_deref(),
        Some("ann@x.test app P gold READ WRITE 50")
    );
    // Basic credentials do as well.
    let basic = base64(&format!("{}:{}", house.key, house.secret));
    let request = house.gateway.request("POST", "/oauth/accesstoken");
    let request = request.header("Authorization", &format!("Basic {basic}"));
    request
        .form("grant_type=client_credentials")
        .send()
        .expect_status(200);
    let wrong = house.gateway.request("POST", "/oauth/accesstoken");
    let wrong = wrong.form("grant_type=client_credentials&client_id=x&client_secret=y");
    let refused = wrong.send().expect_status(401).json();
    assert_eq!(
        refused,
        json!({"ErrorCode": "invalid_client", "Error": "ClientId is Invalid"})
    );
    let answer = house.post("/oauth/accesstoken", "grant_type=magic");
    assert_eq!(
        answer.expect_status(400).json()["Error"],
        "Unsupported grant type : magic"
    );
    // What is not covered is refused.
    let nothing = house.gateway.get("/shop/items/1").send();
    assert!(nothing.header("WWW-Authenticate").is_some());
    fault(nothing, 401, "oauth.v2.InvalidAccessToken");
    fault(
        house.call("guess"),
        401,
        "keymanagement.service.invalid_access_token",
    );
    fault(
        with(house.gateway.get("/shop/other"), &token).send(),
        401,
        "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound",
    );
    let reading = house.token("grant_type=client_credentials&scope=READ");
    let reading = text(&reading, "access_token");
    house.call(reading).expect_status(200);
    let writing = |token: &str| {
        let request = with(house.gateway.request("POST", "/shop/items/1"), token);
        request.form("a=1").send()
    };
    fault(writing(reading), 403, "steps.oauth.v2.InsufficientScope");
    writing(&token).expect_status(200);
    // No token is in the log.
    assert!(!house.gateway.said().contains(&token));
}

fn base64(text: &str) -> String {
    use std::process::{Command, Stdio};
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64 runs");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn tokens_outlive_the_process_and_end_with_their_app() {
    let origin = Origin::echo();
    let mut house = House::new(&origin);
    let answer = house.token("grant_type=password&username=u&password=p");
    let (access, refresh) = (
        text(&answer, "access_token").to_owned(),
        text(&answer, "refresh_token").to_owned(),
    );
    house.gateway = house.gateway.kill().start();
    house.call(&access).expect_status(200);
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let second = house
        .post("/oauth/refresh", &form)
        .expect_status(200)
        .json();
    assert_eq!(second["refresh_count"], "1");
    assert_ne!(text(&second, "refresh_token"), refresh);
    let again = house
        .post("/oauth/refresh", &form)
        .expect_status(400)
        .json();
    assert_eq!(again["ErrorCode"], "invalid_request");
    let second = text(&second, "access_token");
    house.call(second).expect_status(200);
    let app = format!("{ORGANIZATION}/developers/ann@x.test/apps/app");
    let admin = house.gateway.admin();
    for (action, status) in [("revoke", 401), ("approve", 200)] {
        admin
            .post_form(&format!("{app}?action={action}"), "")
            .expect_status(204);
        house.call(second).expect_status(status);
    }
    // Revoked by the token server, which stays so after a crash.
    let revoked = house.post("/oauth/revoke", &format!("token={second}"));
    revoked.expect_status(200);
    let code = "keymanagement.service.access_token_not_approved";
    fault(house.call(second), 401, code);
    house.gateway = house.gateway.kill().start();
    fault(house.call(second), 401, code);
    house.call(&access).expect_status(200);
    house.gateway.admin().delete(&app).expect_status(200);
    let code = "keymanagement.service.invalid_access_token";
    fault(house.call(&access), 401, code);
}

#[test]
fn a_code_becomes_a_token_once() {
    let origin = Origin::echo();
    let house = House::new(&origin);
    let ask = |redirect: &str| {
        let path = format!(
            "/oauth/authorize?response_type=code&client_id={}&redirect_uri={redirect}&scope=READ&state=xyz",
            house.key
        );
        house.gateway.get(&path).send()
    };
    let refused = ask("https://evil.test/cb").expect_status(400);
    assert_eq!(refused.header("Location"), None);
    let answer = ask("https://app.test/cb").expect_status(302);
    let location = answer.header("Location").expect("a location").to_owned();
    let query = location
        .strip_prefix("https://app.test/cb?")
        .expect("the registered address");
    let code = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("code="))
        .expect("a code");
    assert!(query.ends_with("&scope=READ&state=xyz"), "{query}");
    let form =
        format!("grant_type=authorization_code&code={code}&redirect_uri=https://app.test/cb");
    let token = house.token(&form);
    assert_eq!(token["scope"], "READ");
    house.call(text(&token, "access_token")).expect_status(200);
    let again = house.post("/oauth/accesstoken", &form).expect_status(400);
    assert_eq!(again.json()["Error"], "Invalid Authorization Code");
}

#[test]
fn operators_look_tokens_up_and_revoke_them() {
    let origin = Origin::echo();
    let house = House::new(&origin);
    let [first, second] = [0, 1].map(|_| {
        let answer = house.token("grant_type=client_credentials");
        text(&answer, "access_token").to_owned()
    });
    let admin = house.gateway.admin();
    let path = |token: &str| format!("{ORGANIZATION}/oauth2/accesstokens/{token}");
    let shown = admin.get(&path(&first)).expect_status(200);
    assert!(!shown.text().contains(&first), "a token is not said again");
    let shown = shown.json();
    assert_eq!(shown["status"], "approved");
    assert_eq!(shown["client_id"], house.key.as_str());
    let delete = admin.request("DELETE", &path(&first));
    delete.send().expect_status(200);
    admin.get(&path(&first)).expect_status(404);
    let code = "keymanagement.service.invalid_access_token";
    fault(house.call(&first), 401, code);
    house.call(&second).expect_status(200);
    let app = text(&shown, "application_name");
    let revoke = format!("{ORGANIZATION}/oauth2/revoke?app={app}");
    let revoke = admin.request("POST", &revoke).form("");
    revoke.send().expect_status(204);
    let code = "keymanagement.service.access_token_not_approved";
    fault(house.call(&second), 401, code);
    assert_eq!(admin.get(&path(&second)).json()["status"], "revoked");
    let info = house.gateway.get(&format!("/oauth/info?token={second}"));
    fault(info.send(), 401, code);
}
