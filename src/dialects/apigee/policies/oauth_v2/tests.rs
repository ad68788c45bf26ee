//! What bundles write, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::super::test_support::read;
use super::*;

fn policy(body: &str) -> String {
    format!("<OAuthV2 name='o'>{body}</OAuthV2>")
}

#[test]
fn reads_what_a_token_endpoint_writes() {
    let (config, findings, bodies) = read::<Config>(&policy(
        "<Operation>GenerateAccessToken</Operation><ExpiresIn ref='life'>3600000</ExpiresIn>\
         <RefreshTokenExpiresIn>-1</RefreshTokenExpiresIn>\
         <SupportedGrantTypes><GrantType>client_credentials</GrantType><GrantType>password</GrantType></SupportedGrantTypes>\
         <GrantType>request.queryparam.grant_type</GrantType><GenerateResponse/>\
         <Attributes><Attribute name='tier' ref='t' display='false'>gold</Attribute></Attributes>",
    ));
    assert!(findings.is_empty(), "{findings:?}");
    let config = config.unwrap();
    assert_eq!(config.operation, Operation::GenerateAccessToken);
    assert_eq!(config.expires_in_ms, 3_600_000);
    assert_eq!(config.expires_in_reference.as_deref(), Some("life"));
    assert_eq!(config.refresh_expires_in_ms, NEVER);
    assert_eq!(
        config.grant_types,
        [GrantType::ClientCredentials, GrantType::Password]
    );
    assert_eq!(config.locations.grant_type, "request.queryparam.grant_type");
    assert_eq!(config.locations.user_name, "request.formparam.username");
    assert_eq!(config.response, Some(Format::Json));
    assert!(!config.attributes[0].display);
    assert!(bodies.request && bodies.response);
}

#[test]
fn checks_look_at_no_body() {
    let (config, findings, bodies) = read::<Config>(&policy(
        "<Operation>VerifyAccessToken</Operation><Scope>READ  WRITE</Scope><GenerateResponse enabled='false'/>",
    ));
    assert!(findings.is_empty(), "{findings:?}");
    let config = config.unwrap();
    assert_eq!(config.scopes, ["READ", "WRITE"]);
    assert_eq!((config.response, bodies), (None, Bodies::NONE));
}

#[test]
fn refuses_what_edge_refuses() {
    for (body, word) in [
        ("", "OperationRequired"),
        ("<Operation>Nothing</Operation>", "InvalidOperation"),
        (
            "<Operation>GenerateJWTAccessToken</Operation>",
            "GenerateJWTAccessToken is not supported",
        ),
        (
            "<Operation>GenerateAccessToken</Operation><ExpiresIn>0</ExpiresIn>",
            "InvalidValueForExpiresIn",
        ),
        (
            "<Operation>GenerateAccessToken</Operation><RefreshTokenExpiresIn>x</RefreshTokenExpiresIn>",
            "InvalidValueForRefreshTokenExpiresIn",
        ),
        (
            "<Operation>GenerateAccessToken</Operation><SupportedGrantTypes><GrantType>magic</GrantType></SupportedGrantTypes>",
            "InvalidGrantType",
        ),
        (
            "<Operation>VerifyAccessToken</Operation><ExpiresIn>1000</ExpiresIn>",
            "ExpiresInNotApplicableForOperation",
        ),
        (
            "<Operation>GenerateAuthorizationCode</Operation><RefreshTokenExpiresIn>1000</RefreshTokenExpiresIn>",
            "RefreshTokenExpiresInNotApplicableForOperation",
        ),
        (
            "<Operation>VerifyAccessToken</Operation><SupportedGrantTypes/>",
            "GrantTypesNotApplicableForOperation",
        ),
        (
            "<Operation>InvalidateToken</Operation>",
            "TokenValueRequired",
        ),
        (
            "<Operation>InvalidateToken</Operation><Tokens><Token type='accesstoken'/></Tokens>",
            "TokenValueRequired",
        ),
    ] {
        let (_, findings, _) = read::<Config>(&policy(body));
        let found = findings
            .iter()
            .any(|one| one.is_error() && one.to_string().contains(word));
        assert!(found, "{body}: {findings:?}");
    }
}
