//! Tokens through their lives, among one app with one product.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value as Json, json};

use super::super::test_support::{config, scope_in, text};
use super::*;
use crate::dialects::apigee::message::{FORM, Message};
use crate::plugins::apigee::flow::scope::RESPONSE;
use crate::plugins::test_support::World;

struct House {
    world: World,
}

impl House {
    /// An app `app` with the key `k` and the secret `s`, for the product `P` with two scopes under `/shop/items`.
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with facts changed.
    fn with(change: impl FnOnce(&mut Json)) -> Self {
        let house = Self {
            world: World::new(),
        };
        house.facts(change)
    }

    /// The same tokens among changed facts.
    fn facts(self, change: impl FnOnce(&mut Json)) -> Self {
        let stamp =
            json!({"createdAt": 1, "createdBy": "a", "lastModifiedAt": 1, "lastModifiedBy": "a"});
        let mut facts = json!({
            "key": {"consumerKey": "k", "consumerSecret": "s", "developerId": "d", "app": "app", "status": "approved",
                "apiProducts": [{"apiproduct": "P", "status": "approved"}], "scopes": [], "attributes": [],
                "issuedAt": 0, "expiresAt": -1},
            "app": {"appId": "app-id", "name": "app", "developerId": "d", "callbackUrl": "https://app.test/cb",
                "status": "approved", "scopes": [], "attributes": [{"name": "tier", "value": "gold"}], "keys": ["k"]},
            "developer": {"developerId": "d", "email": "d@x", "firstName": "", "lastName": "", "userName": "dd",
                "status": "active", "attributes": []},
            "products": [{"name": "P", "displayName": "P", "approvalType": "auto", "proxies": ["p"],
                "environments": ["e"], "apiResources": ["/items/**"], "scopes": ["READ", "WRITE"],
                "quota": "7", "quotaInterval": "1", "quotaTimeUnit": "minute", "attributes": []}],
        });
        for part in ["app", "developer"] {
            for (name, value) in stamp.as_object().unwrap() {
                facts[part][name] = value.clone();
            }
        }
        for (name, value) in stamp.as_object().unwrap() {
            facts["products"][0][name] = value.clone();
        }
        change(&mut facts);
        Self {
            world: self
                .world
                .credential("app-key/o", "k", "key-k", Some("s"))
                .described("key-k", &facts.to_string()),
        }
    }

    fn policy(&self, body: &str) -> OAuth {
        let live = &self.world.live;
        let config = config(&format!("<OAuthV2 name='o'>{body}</OAuthV2>"));
        OAuth::build("o", config, KeyTable::of(live), TokenStore::of(live))
    }

    fn form(&self, form: &str) -> Scope {
        let mut request = Message::request();
        request.path = "/shop/token".to_owned();
        request.add_header("Content-Type", FORM).unwrap();
        request.content = form.to_owned().into();
        scope_in(&self.world, request)
    }

    /// Runs a policy on a form.
    async fn post(&self, body: &str, form: &str) -> (Scope, Result<Next, PolicyFault>) {
        let mut scope = self.form(form);
        let policy = self.policy(body);
        let outcome = policy.run(&mut scope).await;
        let outcome = policy.end(&mut scope, outcome);
        (scope, outcome)
    }

    /// The JSON that a policy answers a form with, or the fault's name.
    async fn ask(&self, body: &str, form: &str) -> Result<Json, String> {
        let (scope, outcome) = self.post(body, form).await;
        outcome.map_err(|fault| fault.name.to_string())?;
        let response = scope.message(RESPONSE).expect("a response");
        Ok(serde_json::from_slice(&response.content).unwrap())
    }

    /// Calls `/shop/items/1` with a token.
    fn call(&self, body: &str, token: &str) -> (Scope, Result<Next, PolicyFault>) {
        self.call_at("/shop/items/1", body, token)
    }

    fn call_at(&self, path: &str, body: &str, token: &str) -> (Scope, Result<Next, PolicyFault>) {
        let mut request = Message::request();
        request.path = path.to_owned();
        if !token.is_empty() {
            request
                .add_header("Authorization", &format!("Bearer {token}"))
                .unwrap();
        }
        let mut scope = scope_in(&self.world, request);
        let policy = self.policy(&format!("<Operation>VerifyAccessToken</Operation>{body}"));
        let outcome = policy.verify(&mut scope);
        let outcome = policy.end(&mut scope, outcome);
        (scope, outcome)
    }

    /// The name of the fault of such a call; empty when it passes.
    fn called(&self, token: &str) -> String {
        let fault = self.call("", token).1.err();
        fault.map_or_else(String::new, |fault| fault.name.to_string())
    }
}

const CLIENT: &str = "<Operation>GenerateAccessToken</Operation><GenerateResponse enabled='true'/>\
    <SupportedGrantTypes><GrantType>client_credentials</GrantType><GrantType>password</GrantType>\
    <GrantType>authorization_code</GrantType></SupportedGrantTypes>";
const REFRESH: &str = "<Operation>RefreshAccessToken</Operation><GenerateResponse enabled='true'/>";
const ASK: &str = "grant_type=client_credentials&client_id=k&client_secret=s";
const PASSWORD: &str =
    "grant_type=password&username=u&password=p&client_id=k&client_secret=s&scope=READ";

#[tokio::test]
async fn client_credentials_bring_a_token_in_edges_shape() {
    let house = House::new();
    let answer = house.ask(CLIENT, ASK).await.unwrap();
    let names: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        [
            "refresh_token_expires_in",
            "api_product_list",
            "api_product_list_json",
            "organization_name",
            "developer.email",
            "token_type",
            "issued_at",
            "client_id",
            "access_token",
            "application_name",
            "scope",
            "expires_in",
            "refresh_count",
            "status"
        ]
    );
    for (name, value) in [
        ("refresh_token_expires_in", "0"),
        ("api_product_list", "[P]"),
        ("organization_name", "o"),
        ("developer.email", "d@x"),
        ("token_type", "BearerToken"),
        ("client_id", "k"),
        ("application_name", "app-id"),
        ("scope", "READ WRITE"),
        ("expires_in", "1799"),
        ("status", "approved"),
    ] {
        assert_eq!(answer[name], value, "{name}");
    }
    assert_eq!(answer["api_product_list_json"], json!(["P"]));
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(token.len(), 28);
    let (scope, outcome) = house.call("<Scope>WRITE ADMIN</Scope>", token);
    assert!(outcome.is_ok());
    for (name, value) in [
        ("apiproduct.name", "P"),
        ("apiproduct.developer.quota.limit", "7"),
        ("oauthv2accesstoken.o.apiproduct.developer.quota.limit", "7"),
        ("developer.email", "d@x"),
        ("developer.app.name", "app"),
        ("app.tier", "gold"),
        ("client_id", "k"),
        ("scope", "READ WRITE"),
        ("grant_type", "client_credentials"),
        ("oauthV2.o.failed", "false"),
    ] {
        assert_eq!(text(&scope, name).as_deref(), Some(value), "{name}");
    }
    // Nothing but the digest is kept.
    let table = crate::dialects::apigee::oauth::TokenKind::Access.table("o");
    let kept = house.world.live.records().index().list(&table, None, 9);
    assert!(!format!("{kept:?}").contains(token));
}

#[tokio::test]
async fn clients_prove_who_they_are() {
    let house = House::new();
    for (form, name, error) in [
        (
            "client_id=k&client_secret=s",
            "invalid_request",
            "Required param : grant_type",
        ),
        (
            "grant_type=magic&client_id=k&client_secret=s",
            "UnSupportedGrantType",
            "Unsupported grant type : magic",
        ),
        (
            "grant_type=implicit&client_id=k",
            "UnSupportedGrantType",
            "Unsupported grant type : implicit",
        ),
        (
            "grant_type=client_credentials",
            "FailedToResolveClientId",
            "Required param : client_id",
        ),
        (
            "grant_type=client_credentials&client_id=x&client_secret=s",
            "InvalidClientIdentifier",
            "ClientId is Invalid",
        ),
        (
            "grant_type=client_credentials&client_id=k&client_secret=x",
            "InvalidClientIdentifier",
            "Client credentials are invalid",
        ),
        (
            "grant_type=client_credentials&client_id=k",
            "InvalidClientIdentifier",
            "Client credentials are invalid",
        ),
        (
            "grant_type=password&username=u&client_id=k&client_secret=s",
            "invalid_request",
            "Required param : password",
        ),
        (
            "grant_type=client_credentials&client_id=k&client_secret=s&scope=ADMIN",
            "InvalidScope",
            "The requested scope is invalid",
        ),
    ] {
        let (scope, outcome) = house.post(CLIENT, form).await;
        let fault = outcome.expect_err(form);
        assert_eq!(fault.name, name, "{form}");
        let answer = fault.response.expect("an answer");
        let body: Json = serde_json::from_slice(&answer.content).unwrap();
        assert_eq!(body["Error"], error, "{form}");
        assert!(body["ErrorCode"].is_string() && answer.status == fault.status);
        assert_eq!(text(&scope, "oauthV2.o.fault.name").as_deref(), Some(name));
        // Without answers it is a fault like others.
        let silent = CLIENT.replace("enabled='true'", "enabled='false'");
        let fault = house.post(&silent, form).await.1.expect_err(form);
        assert!(fault.response.is_none());
    }
    let mut scope = house.form("grant_type=client_credentials&client_id=x&client_secret=x");
    let policy = house.policy(CLIENT);
    scope
        .set(
            &VariableName::new("request.header.Authorization"),
            "Basic azpz".into(),
        )
        .unwrap();
    assert!(policy.run(&mut scope).await.is_ok(), "Basic comes first");
}

#[tokio::test]
async fn tokens_are_refused_as_edge_refuses_them() {
    let house = House::new();
    let answer = house
        .ask(CLIENT, &format!("{ASK}&scope=READ"))
        .await
        .unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let (_, outcome) = house.call("<Scope>WRITE</Scope>", token);
    let fault = outcome.expect_err("the scope");
    assert_eq!(
        (fault.status, &*fault.code),
        (403, "steps.oauth.v2.InsufficientScope")
    );
    assert_eq!(fault.message, "Required scope(s): WRITE");
    let fault = house
        .call_at("/shop/other", "", token)
        .1
        .expect_err("the path");
    assert_eq!(
        &*fault.code,
        "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound"
    );
    let fault = house.call("", "").1.expect_err("no token");
    assert_eq!(
        (fault.status, &*fault.code),
        (401, "oauth.v2.InvalidAccessToken")
    );
    let challenge = &fault.response.expect("an answer").headers["www-authenticate"];
    assert!(
        challenge
            .to_str()
            .unwrap()
            .starts_with("Bearer realm=\"null\",error=\"invalid_token\"")
    );
    assert_eq!(house.called("guess"), "invalid_access_token");
    assert_eq!(house.called(token), "");
    let house = house.facts(|facts| facts["app"]["status"] = "revoked".into());
    assert_eq!(house.called(token), "invalid_client-app_not_approved");
    let house = house.facts(|facts| facts["key"]["status"] = "revoked".into());
    assert_eq!(house.called(token), "ApiKeyNotApproved");
    let house = house.facts(|facts| facts["app"]["appId"] = "another".into());
    assert_eq!(house.called(token), "invalid_access_token");
    let house = house.facts(|facts| facts["key"]["apiProducts"][0]["status"] = "pending".into());
    assert_eq!(
        house.called(token),
        "InvalidAPICallAsNoApiProductMatchFound"
    );
    let short = CLIENT.replace("<GenerateR", "<ExpiresIn>1</ExpiresIn><GenerateR");
    let house = House::new();
    let answer = house.ask(&short, ASK).await.unwrap();
    while now_is(&answer["issued_at"]) {
        tokio::task::yield_now().await;
    }
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(house.called(token), "access_token_expired");
}

/// Whether the clock still shows a moment.
fn now_is(moment: &Json) -> bool {
    crate::runtime::records::now_ms().to_string() == moment.as_str().unwrap()
}

#[tokio::test]
async fn refresh_tokens_are_used_once_unless_they_stay() {
    let house = House::new();
    let first = house.ask(CLIENT, PASSWORD).await.unwrap();
    assert_eq!(first["refresh_token_expires_in"], "63071999");
    assert_eq!(first["refresh_token_status"], "approved");
    let used = first["refresh_token"].as_str().unwrap();
    assert_eq!(used.len(), 32);
    let form = |token: &str| {
        format!("grant_type=refresh_token&refresh_token={token}&client_id=k&client_secret=s")
    };
    let again = form(used);
    let both = tokio::join!(house.ask(REFRESH, &again), house.ask(REFRESH, &again));
    let (second, refused) = match both {
        (Ok(second), Err(refused)) | (Err(refused), Ok(second)) => (second, refused),
        other => panic!("exactly one may pass: {other:?}"),
    };
    assert_eq!(refused, "invalid_refresh_token");
    assert_eq!(
        (&second["refresh_count"], &second["scope"]),
        (&json!("1"), &json!("READ"))
    );
    assert_eq!(house.called(second["access_token"].as_str().unwrap()), "");
    let keeping = format!("{REFRESH}<ReuseRefreshToken>true</ReuseRefreshToken>");
    let kept = second["refresh_token"].as_str().unwrap();
    for count in ["2", "3"] {
        let answer = house.ask(&keeping, &form(kept)).await.unwrap();
        assert_eq!(answer["refresh_token"], kept);
        assert_eq!(answer["refresh_count"], count);
    }
    let more = house
        .ask(REFRESH, &format!("{}&scope=WRITE", form(kept)))
        .await;
    assert_eq!(more.unwrap_err(), "InvalidScope", "a refresh cannot widen");
    let wrong = house
        .ask(
            REFRESH,
            "grant_type=client_credentials&client_id=k&client_secret=s",
        )
        .await;
    assert_eq!(wrong.unwrap_err(), "UnSupportedGrantType");
}

const CODE: &str = "<Operation>GenerateAuthorizationCode</Operation><GenerateResponse enabled='true'/>\
    <Attributes><Attribute name='who'>ann</Attribute><Attribute name='secret' display='false'>x</Attribute></Attributes>";

#[tokio::test]
async fn codes_are_exchanged_once_by_their_client() {
    let house = House::new();
    let form =
        "response_type=code&client_id=k&redirect_uri=https://app.test/cb&scope=READ&state=a%20b";
    let (scope, outcome) = house.post(CODE, form).await;
    outcome.unwrap();
    let code = text(&scope, "oauthv2authcode.o.code").unwrap();
    let response = scope.message(RESPONSE).unwrap();
    assert_eq!(response.status, 302);
    assert_eq!(
        response.headers["location"],
        format!("https://app.test/cb?code={code}&scope=READ&state=a%20b")
    );
    let exchange = |redirect: &str| {
        format!("grant_type=authorization_code&code={code}&client_id=k&client_secret=s{redirect}")
    };
    for redirect in ["", "&redirect_uri=https://evil.test/"] {
        let refused = house.ask(CLIENT, &exchange(redirect)).await;
        assert_eq!(refused.unwrap_err(), "invalid_request");
    }
    let good = exchange("&redirect_uri=https://app.test/cb");
    let both = tokio::join!(house.ask(CLIENT, &good), house.ask(CLIENT, &good));
    let (answer, refused) = match both {
        (Ok(answer), Err(refused)) | (Err(refused), Ok(answer)) => (answer, refused),
        other => panic!("exactly one may pass: {other:?}"),
    };
    assert_eq!(refused, "invalid_request-authorization_code_invalid");
    assert_eq!(
        (&answer["scope"], &answer["who"]),
        (&json!("READ"), &json!("ann"))
    );
    assert!(answer.get("secret").is_none());
    let token = answer["access_token"].as_str().unwrap();
    let (scope, outcome) = house.call("", token);
    assert!(outcome.is_ok());
    assert_eq!(text(&scope, "accesstoken.secret").as_deref(), Some("x"));
}

#[tokio::test]
async fn codes_go_to_registered_addresses_alone() {
    let house = House::new();
    for form in [
        "client_id=k&redirect_uri=https://app.test/cb",
        "response_type=token&client_id=k&redirect_uri=https://app.test/cb",
        "response_type=code&client_id=x&redirect_uri=https://app.test/cb",
        "response_type=code&client_id=k&redirect_uri=https://evil.test/cb",
    ] {
        assert!(house.post(CODE, form).await.1.is_err(), "{form}");
    }
    let registered = house.post(CODE, "response_type=code&client_id=k").await.0;
    let location = &registered.message(RESPONSE).unwrap().headers["location"];
    assert!(
        location
            .to_str()
            .unwrap()
            .starts_with("https://app.test/cb?code=")
    );
    let implicit = CODE.replace(
        "GenerateAuthorizationCode",
        "GenerateAccessTokenImplicitGrant",
    );
    let (scope, outcome) = house
        .post(&implicit, "response_type=token&client_id=k&state=s")
        .await;
    outcome.unwrap();
    let location = scope.message(RESPONSE).unwrap().headers["location"]
        .to_str()
        .unwrap()
        .to_owned();
    let (start, rest) = location.split_once("#access_token=").expect("a token");
    assert_eq!(start, "https://app.test/cb");
    assert!(rest.ends_with("&token_type=BearerToken&expires_in=1799&scope=READ%20WRITE&state=s"));
}

#[tokio::test]
async fn tokens_are_revoked_and_approved_with_their_partners() {
    let house = House::new();
    let answer = house.ask(CLIENT, PASSWORD).await.unwrap();
    let (access, refresh) = (
        answer["access_token"].as_str().unwrap(),
        answer["refresh_token"].as_str().unwrap(),
    );
    let change = |operation: &str, kind: &str, cascade: bool| {
        format!(
            "<Operation>{operation}</Operation><Tokens><Token type='{kind}' cascade='{cascade}'>request.formparam.token</Token></Tokens>"
        )
    };
    let form =
        format!("grant_type=refresh_token&refresh_token={refresh}&client_id=k&client_secret=s");
    let keeping = format!("{REFRESH}<ReuseRefreshToken>true</ReuseRefreshToken>");
    for (operation, kind, cascade, token, access_fault, refresh_good) in [
        (
            "InvalidateToken",
            "accesstoken",
            true,
            access,
            "access_token_not_approved",
            false,
        ),
        ("ValidateToken", "accesstoken", false, access, "", false),
        ("ValidateToken", "refreshtoken", false, refresh, "", true),
    ] {
        let (_, outcome) = house
            .post(&change(operation, kind, cascade), &format!("token={token}"))
            .await;
        outcome.unwrap();
        assert_eq!(house.called(access), access_fault, "{operation} {kind}");
        assert_eq!(
            house.ask(&keeping, &form).await.is_ok(),
            refresh_good,
            "{operation} {kind}"
        );
    }
    let policy = change("InvalidateToken", "accesstoken", true);
    for (form, name) in [
        ("token=guess", "invalid_access_token"),
        ("", "FailedToResolveToken"),
    ] {
        let fault = house.post(&policy, form).await.1.expect_err(form);
        assert_eq!(fault.name, name);
    }
}

#[tokio::test]
async fn tokens_of_others_are_taken_when_they_say_so() {
    let house = House::new();
    let body = "<Operation>GenerateAccessToken</Operation><GenerateResponse/>\
        <SupportedGrantTypes><GrantType>client_credentials</GrantType></SupportedGrantTypes>\
        <ExternalAuthorization>true</ExternalAuthorization><ExternalAccessToken>request.formparam.ext</ExternalAccessToken>\
        <StoreToken>true</StoreToken>";
    let form = "grant_type=client_credentials&client_id=k&ext=from-elsewhere";
    let fault = house
        .post(body, form)
        .await
        .1
        .expect_err("nobody allowed it");
    assert_eq!(fault.name, "ExternalAuthorizationFailed");
    let mut scope = house.form(form);
    scope.set_own("oauth_external_authorization_status", true);
    house.policy(body).run(&mut scope).await.unwrap();
    assert_eq!(house.called("from-elsewhere"), "");
    let again = house.policy(body).run(&mut scope).await;
    assert!(again.is_err(), "a token exists once");
}

mod information;
