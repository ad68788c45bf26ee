//! What bundles write, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]
use super::super::test_support::read;
use super::*;

#[test]
fn durations_have_units() {
    for (text, expected) in [
        ("1h", Some(3_600_000)),
        ("30m", Some(1_800_000)),
        (" 60s ", Some(60_000)),
        ("2d", Some(172_800_000)),
        ("500", Some(500)),
        ("500ms", Some(500)),
        ("", None),
        ("h", None),
        ("1y", None),
        ("-1s", None),
        ("99999999999999999999", None),
        ("9999999999999999w", None),
    ] {
        assert_eq!(parse_duration_ms(text), expected, "{text}");
    }
}

const SECRET: &str = "<SecretKey><Value ref='private.s'/></SecretKey>";
const PUBLIC: &str = "<PublicKey><Value ref='public'/></PublicKey>";

#[test]
fn reads_what_bundles_write() {
    let (config, findings, _) = read::<Config>(
        "<GenerateJWT name='g'><Type>Signed</Type><Algorithm>RS256</Algorithm><PrivateKey><Value ref='private.k'/><Password ref='private.p'/>\
         <Id ref='kid'>1</Id></PrivateKey><Subject>s</Subject><Audience>a,b</Audience><Id/><ExpiresIn>1h</ExpiresIn>\
         <AdditionalClaims ref='more'><Claim name='n' ref='x' type='number'>1</Claim><Claim name='l' array='true'>a,b</Claim></AdditionalClaims>\
         <AdditionalHeaders><Claim name='h'>v</Claim></AdditionalHeaders><CriticalHeaders>h</CriticalHeaders>\
         <OutputVariable>out</OutputVariable></GenerateJWT>",
    );
    assert!(findings.is_empty(), "{findings:?}");
    let config = config.unwrap();
    assert!(config.makes_id && config.claims[1].is_list);
    assert_eq!(config.claims[0].kind, ClaimType::Number);
    assert_eq!(config.claims_variable.as_deref(), Some("more"));
    assert_eq!(config.output.as_deref(), Some("out"));
    let (config, findings, _) = read::<Config>(
        "<VerifyJWT name='v'><Algorithm>RS256, PS256</Algorithm><PublicKey><JWKS uri='https://x.test/keys'/></PublicKey>\
         <Issuer>i</Issuer><TimeAllowance>30s</TimeAllowance></VerifyJWT>",
    );
    assert!(findings.is_empty(), "{findings:?}");
    let config = config.unwrap();
    assert_eq!(config.allowance_ms, 30_000);
    assert!(matches!(config.key, Some(Key::KeySetUrl(_))));
    let (config, findings, _) =
        read::<Config>("<DecodeJWT name='d'><Source>request.content</Source></DecodeJWT>");
    assert!(config.is_some() && findings.is_empty());
}

#[test]
fn refuses_what_cannot_be() {
    let verify = |body: &str| format!("<VerifyJWT name='v'>{body}</VerifyJWT>");
    let generate = |body: &str| format!("<GenerateJWT name='v'>{body}</GenerateJWT>");
    let claim = |claim: &str| {
        generate(&format!(
            "<Algorithm>HS256</Algorithm>{SECRET}<AdditionalClaims>{claim}</AdditionalClaims>"
        ))
    };
    for (text, word) in [
        (verify(PUBLIC), "MissingConfigurationElement"),
        (verify(&format!("<Algorithm>EdDSA</Algorithm>{PUBLIC}")), "'EdDSA' is not supported"),
        (verify(&format!("<Algorithm>none</Algorithm>{PUBLIC}")), "'none' is not supported"),
        (verify("<Algorithm>RS256</Algorithm>"), "InvalidKeyConfiguration"),
        (verify(&format!("<Algorithm>RS256</Algorithm>{SECRET}")), "InvalidFamilyForAlgorithm"),
        (verify(&format!("<Algorithm>HS256</Algorithm>{PUBLIC}")), "InvalidFamilyForAlgorithm"),
        (verify(&format!("<Algorithm>HS256,RS256</Algorithm>{SECRET}")), "InvalidFamilyForAlgorithm"),
        (verify("<Algorithm>RS256</Algorithm><PublicKey><JWKS/></PublicKey>"), "InvalidKeyConfiguration"),
        (verify("<Algorithm>RS256</Algorithm><PublicKey><JWKS uri='file:///x'/></PublicKey>"), "https://"),
        (generate("<Algorithms><Key>RSA-OAEP-256</Key></Algorithms>"), "encrypted tokens"),
        (generate(&format!("<Algorithm>HS256,HS512</Algorithm>{SECRET}")), "InvalidValueForElement"),
        (claim("<Claim>x</Claim>"), "MissingNameForAdditionalClaim"),
        (claim("<Claim name='iss'>x</Claim>"), "InvalidNameForAdditionalClaim"),
        (claim("<Claim name='a' type='date'>x</Claim>"), "InvalidTypeForAdditionalClaim"),
        (claim("<Claim name='a' array='yes'>x</Claim>"), "InvalidValueOfArrayAttribute"),
        ("<GenerateJWS name='j'><Algorithm>HS256</Algorithm><SecretKey><Value ref='private.s'/></SecretKey></GenerateJWS>".to_owned(), "needs <Payload>"),
    ] {
        let (config, findings, _) = read::<Config>(&text);
        let found = findings.iter().any(|one| one.is_error() && one.to_string().contains(word));
        assert!(found && config.is_none(), "{text}: {findings:?}");
    }
    let open = SECRET.replace("private.", "");
    let (config, findings, _) =
        read::<Config>(&verify(&format!("<Algorithm>HS256</Algorithm>{open}")));
    assert!(
        config.is_some() && findings.len() == 1,
        "a warning: {findings:?}"
    );
}
