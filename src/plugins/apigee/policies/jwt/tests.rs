//! Tokens made by one policy and read by another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::super::test_support::{config, scope, text};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_secret() -> Scope {
    let mut scope = scope();
    scope.set_own("private.s", SECRET.to_owned());
    scope
}

fn token(kind: &str, body: &str) -> Token {
    Token::build(
        "t",
        config(&format!("<{kind} name='t'>{body}</{kind}>")),
        None,
    )
}

const KEY: &str = "<Algorithm>HS256</Algorithm><SecretKey><Value ref='private.s'/></SecretKey>";

fn generated(scope: &mut Scope, body: &str) -> String {
    let policy = token(
        "GenerateJWT",
        &format!("{KEY}{body}<OutputVariable>token</OutputVariable>"),
    );
    policy.generate(scope).unwrap();
    text(scope, "token").unwrap()
}

/// The name of the fault that a verifying policy ends with; empty when it passes.
fn verified(scope: &mut Scope, body: &str) -> String {
    let policy = token("VerifyJWT", &format!("{KEY}<Source>token</Source>{body}"));
    let fault = policy.verify(scope).err();
    if let Some(fault) = &fault {
        assert_eq!(fault.status, 401);
        assert!(fault.code.starts_with("steps.jwt."));
        assert_eq!(text(scope, "jwt.t.valid").as_deref(), Some("false"));
    }
    fault.map_or_else(String::new, |fault| fault.name.to_string())
}

#[test]
fn claims_travel_and_are_told() {
    let mut scope = with_secret();
    scope.set_own("more", r#"{"deep":{"a":1},"iss":"nobody"}"#.to_owned());
    generated(
        &mut scope,
        "<Subject>s</Subject><Issuer>i</Issuer><Audience>a,b</Audience><Id/><ExpiresIn>1h</ExpiresIn>\
         <AdditionalClaims ref='more'><Claim name='n' type='number'>7</Claim><Claim name='l' array='true'>x,y</Claim>\
         <Claim name='yes' type='boolean'>true</Claim></AdditionalClaims>\
         <AdditionalHeaders><Claim name='h'>v</Claim></AdditionalHeaders>",
    );
    let expected = "<Subject>s</Subject><Issuer>i</Issuer><Audience>c, b</Audience>\
        <AdditionalClaims><Claim name='n' type='number'>7</Claim><Claim name='l' array='true'>x,y</Claim></AdditionalClaims>\
        <AdditionalHeaders><Claim name='h'>v</Claim></AdditionalHeaders>";
    assert_eq!(verified(&mut scope, expected), "");
    for (name, value) in [
        ("jwt.t.valid", "true"),
        ("jwt.t.is_expired", "false"),
        ("jwt.t.claim.subject", "s"),
        ("jwt.t.claim.issuer", "i"),
        ("jwt.t.decoded.claim.n", "7"),
        ("jwt.t.decoded.claim.deep", r#"{"a":1}"#),
        ("jwt.t.claim.yes", "true"),
        ("jwt.t.header.algorithm", "HS256"),
        ("jwt.t.header.type", "JWT"),
        ("jwt.t.header.h", "v"),
    ] {
        assert_eq!(text(&scope, name).as_deref(), Some(value), "{name}");
    }
    let id = text(&scope, "jwt.t.claim.jti").unwrap();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    let expiry: i64 = text(&scope, "jwt.t.claim.expiry").unwrap().parse().unwrap();
    assert_eq!(expiry % 1000, 0);
    for (body, fault) in [
        ("<Subject>x</Subject>", "JwtSubjectMismatch"),
        ("<Issuer>x</Issuer>", "JwtIssuerMismatch"),
        ("<Audience>c</Audience>", "JwtAudienceMismatch"),
        ("<Id>x</Id>", "InvalidClaim"),
        (
            "<AdditionalClaims><Claim name='n'>7</Claim></AdditionalClaims>",
            "InvalidClaim",
        ),
        (
            "<AdditionalHeaders><Claim name='h'>w</Claim></AdditionalHeaders>",
            "InvalidClaim",
        ),
        ("<Subject ref='unset'/>", "FailedToResolveVariable"),
        (
            "<Subject ref='unset'/><IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables>",
            "",
        ),
        ("<Subject ref='unset'>s</Subject>", ""),
    ] {
        assert_eq!(verified(&mut scope, body), fault, "{body}");
    }
}

#[test]
fn times_count_with_their_allowance() {
    let mut scope = with_secret();
    let signed = |scope: &mut Scope, claims: String| {
        scope.set_own("claims", claims);
        let policy = token(
            "GenerateJWS",
            &format!("{KEY}<Payload ref='claims'/><OutputVariable>token</OutputVariable>"),
        );
        policy.generate(scope).unwrap();
    };
    let now = crate::runtime::records::now_ms() / 1000;
    for (claims, body, fault) in [
        (format!(r#"{{"exp":{}}}"#, now - 60), "", "TokenExpired"),
        (
            format!(r#"{{"exp":{}}}"#, now - 60),
            "<TimeAllowance>10m</TimeAllowance>",
            "",
        ),
        (
            format!(r#"{{"nbf":{}}}"#, now + 600),
            "",
            "TokenNotYetValid",
        ),
        (
            format!(r#"{{"nbf":{}}}"#, now + 600),
            "<TimeAllowance>20m</TimeAllowance>",
            "",
        ),
        (
            format!(r#"{{"iat":{}}}"#, now + 600),
            "",
            "TokenNotYetValid",
        ),
        (
            format!(r#"{{"iat":{}}}"#, now + 600),
            "<IgnoreIssuedAt>true</IgnoreIssuedAt>",
            "",
        ),
        (r#"{"exp":"soon"}"#.to_owned(), "", "InvalidToken"),
        ("[]".to_owned(), "", "InvalidToken"),
        ("{}".to_owned(), "", ""),
    ] {
        signed(&mut scope, claims.clone());
        assert_eq!(verified(&mut scope, body), fault, "{claims} {body}");
    }
}

#[test]
fn what_is_not_signed_by_the_key_is_refused() {
    let mut scope = with_secret();
    let good = generated(&mut scope, "<Subject>s</Subject>");
    let (signed, _) = good.rsplit_once('.').unwrap();
    // {"alg":"none"} and {}
    let none = "eyJhbGciOiJub25lIn0.e30.";
    for (token, fault) in [
        ("foobar", "InvalidToken"),
        ("a.b.c", "InvalidToken"),
        (none, "AlgorithmMismatch"),
        ("e30.e30.", "NoAlgorithmFoundInHeader"),
        (&*format!("{signed}."), "InvalidToken"),
        (&*format!("{good}x"), "InvalidToken"),
        (&*format!("Bearer {good}"), ""),
        (&*good, ""),
    ] {
        scope.set_own("token", token.to_owned());
        assert_eq!(verified(&mut scope, ""), fault, "{token}");
    }
    scope.set_own("private.s", SECRET.replace('0', "1"));
    assert_eq!(verified(&mut scope, ""), "InvalidToken");
    scope.set_own("private.s", "short".to_owned());
    assert_eq!(verified(&mut scope, ""), "InsufficientKeyLength");
    let two = "<Algorithm>HS384,HS512</Algorithm><SecretKey><Value ref='private.s'/></SecretKey><Source>token</Source>";
    let fault = token("VerifyJWT", two)
        .verify(&mut scope)
        .expect_err("another algorithm");
    assert_eq!(fault.name, "AlgorithmInTokenNotPresentInConfiguration");
    let fault = token("DecodeJWT", "<Source>token</Source>").decode(&mut scope);
    assert!(fault.is_ok(), "decoding asks for no key");
    assert_eq!(
        text(&scope, "jwt.t.decoded.claim.sub").as_deref(),
        Some("s")
    );
    scope.set_own("token", "foobar".to_owned());
    let fault = token("DecodeJWT", "<Source>token</Source>")
        .decode(&mut scope)
        .expect_err("no token");
    assert_eq!((fault.name.as_ref(), fault.status), ("FailedToDecode", 401));
    let fault =
        token("GenerateJWT", &KEY.replace("private.s", "private.unset")).generate(&mut scope);
    assert_eq!(fault.expect_err("no key").status, 500);
}

#[test]
fn critical_headers_have_to_be_known() {
    let mut scope = with_secret();
    generated(
        &mut scope,
        "<AdditionalHeaders><Claim name='h'>v</Claim></AdditionalHeaders><CriticalHeaders>h</CriticalHeaders>",
    );
    for (body, fault) in [
        ("", "UnhandledCriticalHeader"),
        ("<KnownHeaders>g</KnownHeaders>", "UnhandledCriticalHeader"),
        ("<KnownHeaders>g,h</KnownHeaders>", ""),
        ("<IgnoreCriticalHeaders>true</IgnoreCriticalHeaders>", ""),
    ] {
        assert_eq!(verified(&mut scope, body), fault, "{body}");
    }
}

#[test]
fn payloads_may_travel_apart() {
    let mut scope = with_secret();
    scope.set_own("content", "any thing".to_owned());
    let policy = token(
        "GenerateJWS",
        &format!("{KEY}<Payload ref='content'/><DetachContent>true</DetachContent>"),
    );
    policy.generate(&mut scope).unwrap();
    let made = text(&scope, "jws.t.generated_jws").unwrap();
    assert!(made.contains(".."), "{made}");
    let body = format!(
        "{KEY}<Source>jws.t.generated_jws</Source><DetachedContent>content</DetachedContent>"
    );
    let policy = token("VerifyJWS", &body);
    policy.verify(&mut scope).unwrap();
    assert_eq!(text(&scope, "jws.t.payload").as_deref(), Some("any thing"));
    scope.set_own("content", "another".to_owned());
    let fault = policy.verify(&mut scope).expect_err("another payload");
    assert_eq!(fault.code, "steps.jws.InvalidToken");
    let attached = token(
        "VerifyJWS",
        &format!("{KEY}<Source>jws.t.generated_jws</Source>"),
    );
    assert!(attached.verify(&mut scope).is_err());
}

#[test]
fn sets_of_keys_are_searched_by_identifier() {
    let pair = boring::rsa::Rsa::generate(2048).unwrap();
    let number = |number: &boring::bn::BigNumRef| crate::base::jose::encode_part(&number.to_vec());
    let set = format!(
        r#"{{"keys":[{{"kty":"RSA","kid":"1","n":"{}","e":"{}"}}]}}"#,
        number(pair.n()),
        number(pair.e())
    );
    let pair_key = boring::pkey::PKey::from_rsa(pair.clone()).unwrap();
    let pem = String::from_utf8(pair_key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let mut scope = scope();
    scope.set_own("private.k", pem);
    scope.set_own("set", set);
    let verify = "<Algorithm>PS256</Algorithm><PublicKey><JWKS ref='set'/></PublicKey><Source>jwt.t.generated_jwt</Source>";
    for (id, fault) in [
        ("<Id>1</Id>", ""),
        ("<Id>2</Id>", "NoMatchingPublicKey"),
        ("", "KeyIdMissing"),
    ] {
        let body = format!(
            "<Algorithm>PS256</Algorithm><PrivateKey><Value ref='private.k'/>{id}</PrivateKey>"
        );
        token("GenerateJWT", &body).generate(&mut scope).unwrap();
        let policy = token("VerifyJWT", verify);
        let found = policy.verify(&mut scope).err();
        let found = found.map_or_else(String::new, |fault| fault.name.to_string());
        assert_eq!(found, fault, "{id}");
    }
}
