//! Signed tokens between bundles and PyJWT, in both directions, and sets of keys that somebody serves.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boring::bn::BigNumRef;
use boring::ec::{EcGroup, EcKey};
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use serde_json::{Value, json};

use crate::apigee_tools::{gateway, tool, write};
use crate::harness::{Gateway, Origin, Reply, Response, python_client};

const SECRET: &str = "a-secret-of-32-bytes-0123456789ab";

fn flow(name: &str, request: &[&str], response: &[&str]) -> String {
    let steps = |names: &[&str]| -> String {
        let all = names.iter();
        all.map(|name| format!("<Step><Name>{name}</Name></Step>"))
            .collect()
    };
    format!(
        "<Flow name=\"{name}\"><Condition>proxy.pathsuffix = \"/{name}\"</Condition>\
         <Request>{}</Request><Response>{}</Response></Flow>",
        steps(request),
        steps(response)
    )
}

fn policy(folder: &Path, kind: &str, name: &str, body: &str) {
    write(
        folder,
        &format!("apiproxy/policies/{name}.xml"),
        &format!("<{kind} name=\"{name}\">{body}</{kind}>"),
    );
}

/// Keys as files and as texts.
struct Keys {
    folder: tempfile::TempDir,
    rsa: PKey<Private>,
    ec: PKey<Private>,
}

impl Keys {
    fn new() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let keys = Self {
            folder: tempfile::tempdir().expect("a folder"),
            rsa: PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key"),
            ec: PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key"),
        };
        for (name, key) in [("rsa", &keys.rsa), ("ec", &keys.ec)] {
            keys.save(name, &key.private_key_to_pem_pkcs8().expect("PEM"));
            let public = format!("{name}.pub");
            keys.save(&public, &key.public_key_to_pem().expect("PEM"));
        }
        keys.save("secret", SECRET.as_bytes());
        keys
    }

    fn save(&self, name: &str, text: &[u8]) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("a path").to_owned()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    fn sign(&self, algorithm: &str, key: &str, id: &str, claims: &Value) -> String {
        let (key, claims) = (self.path(key), claims.to_string());
        let token = python_client("jwt_client.py", &["sign", algorithm, &key, id, &claims]);
        token.trim().to_owned()
    }

    /// The set with the public RSA key under this identifier.
    fn set(&self, id: &str) -> String {
        let rsa = self.rsa.rsa().expect("RSA");
        let number = |number: &BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
        json!({"keys": [{"kty": "RSA", "use": "sig", "kid": id, "n": number(rsa.n()), "e": number(rsa.e())}]})
            .to_string()
    }
}

/// A proxy that makes and checks tokens, deployed with apigeetool.
fn deployed(keys: &Keys, jwks: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "apiproxy/jwt.xml", "<APIProxy name=\"jwt\"/>");
    let flows = [
        flow("make-rsa", &["MakeRsa"], &["Show"]),
        flow("make-ec", &["MakeEc"], &["Show"]),
        flow("make-secret", &["MakeSecret"], &["Show"]),
        flow("check-secret", &["CheckSecret"], &["Tell"]),
        flow("check-set", &["CheckSet"], &["TellSet"]),
        flow("decode", &["Decode"], &["TellDecoded"]),
    ]
    .concat();
    write(
        folder,
        "apiproxy/proxies/default.xml",
        &format!(
            "<ProxyEndpoint name=\"default\"><PreFlow><Request><Step><Name>Keys</Name></Step></Request></PreFlow>\
             <Flows>{flows}</Flows><HTTPProxyConnection><BasePath>/jwt</BasePath><VirtualHost>default</VirtualHost>\
             </HTTPProxyConnection><RouteRule name=\"none\"/></ProxyEndpoint>"
        ),
    );
    let variable = |name: &str, value: &str| {
        format!("<AssignVariable><Name>{name}</Name><Value>{value}</Value></AssignVariable>")
    };
    let variables = [
        variable("private.rsa", &keys.text("rsa")),
        variable("private.ec", &keys.text("ec")),
        variable("private.secret", SECRET),
    ]
    .concat();
    policy(folder, "AssignMessage", "Keys", &variables);
    let claims = "<Subject>ann</Subject><Issuer>sallyport</Issuer><Audience>app</Audience><Id/><ExpiresIn>1h</ExpiresIn>\
        <AdditionalClaims><Claim name=\"admin\" type=\"boolean\">true</Claim></AdditionalClaims><OutputVariable>token</OutputVariable>";
    for (name, algorithm, key) in [
        (
            "MakeRsa",
            "PS256",
            "<PrivateKey><Value ref=\"private.rsa\"/><Id>1</Id></PrivateKey>",
        ),
        (
            "MakeEc",
            "ES256",
            "<PrivateKey><Value ref=\"private.ec\"/></PrivateKey>",
        ),
        (
            "MakeSecret",
            "HS256",
            "<SecretKey><Value ref=\"private.secret\"/></SecretKey>",
        ),
    ] {
        let body = format!("<Algorithm>{algorithm}</Algorithm>{key}{claims}");
        policy(folder, "GenerateJWT", name, &body);
    }
    policy(
        folder,
        "VerifyJWT",
        "CheckSecret",
        "<Algorithm>HS256</Algorithm><SecretKey><Value ref=\"private.secret\"/></SecretKey><Issuer>py</Issuer>",
    );
    policy(
        folder,
        "VerifyJWT",
        "CheckSet",
        &format!(
            "<Algorithm>RS256</Algorithm><PublicKey><JWKS uri=\"{jwks}\"/></PublicKey><Audience>me</Audience>"
        ),
    );
    policy(folder, "DecodeJWT", "Decode", "");
    let show = |name: &str, text: &str| {
        let body = format!("<Set><Payload contentType=\"text/plain\">{text}</Payload></Set>");
        policy(folder, "AssignMessage", name, &body);
    };
    show("Show", "{token}");
    show(
        "Tell",
        "{jwt.CheckSecret.claim.subject} {jwt.CheckSecret.valid}",
    );
    show(
        "TellSet",
        "{jwt.CheckSet.claim.subject} {jwt.CheckSet.header.kid}",
    );
    show("TellDecoded", "{jwt.Decode.decoded.claim.sub}");
    let gateway = gateway();
    let deploy = ["deployproxy", "-e", "test", "-n", "jwt", "-d", "."];
    tool(&gateway, folder, &deploy);
    gateway
}

fn call(gateway: &Gateway, path: &str, token: &str) -> Response {
    gateway
        .get(&format!("/jwt/{path}"))
        .header("Authorization", &format!("Bearer {token}"))
        .send()
}

#[track_caller]
fn fault(answer: Response, name: &str) {
    let answer = answer.expect_status(401).json();
    let code = format!("steps.jwt.{name}");
    assert_eq!(answer["fault"]["detail"]["errorcode"], code);
}

#[test]
fn others_accept_what_a_bundle_signs() {
    let keys = Keys::new();
    let gateway = deployed(&keys, "https://nowhere.test/");
    for (path, algorithm, key) in [
        ("make-rsa", "PS256", "rsa.pub"),
        ("make-ec", "ES256", "ec.pub"),
        ("make-secret", "HS256", "secret"),
    ] {
        let answer = gateway.get(&format!("/jwt/{path}")).send();
        let token = answer.expect_status(200).text();
        let key = keys.path(key);
        let told = python_client("jwt_client.py", &["verify", algorithm, &key, "app", &token]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let claims = &told["claims"];
        for (name, value) in [
            ("sub", json!("ann")),
            ("iss", json!("sallyport")),
            ("aud", json!("app")),
            ("admin", json!(true)),
        ] {
            assert_eq!(claims[name], value, "{path} {name}");
        }
        let life = claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat");
        assert_eq!(life, 3600);
    }
}

#[test]
fn a_bundle_judges_what_others_sign() {
    let keys = Keys::new();
    let served = Arc::new(Mutex::new(keys.set("1")));
    let server = {
        let served = Arc::clone(&served);
        Origin::answering(move |_| Reply::ok(served.lock().expect("the set").as_str()))
    };
    let gateway = deployed(&keys, &format!("{}/keys", server.url()));
    let claims = json!({"sub": "bob", "iss": "py", "aud": "me"});
    let good = keys.sign("HS256", "secret", "", &claims);
    let answer = call(&gateway, "check-secret", &good).expect_status(200);
    assert_eq!(answer.text(), "bob true");
    let decoded = call(&gateway, "decode", &good).expect_status(200);
    assert_eq!(decoded.text(), "bob");
    let old = keys.sign(
        "HS256",
        "secret",
        "",
        &json!({"iss": "py", "exp": 1_000_000_000}),
    );
    fault(call(&gateway, "check-secret", &old), "TokenExpired");
    let other = keys.sign("HS256", "secret", "", &json!({"iss": "somebody"}));
    fault(call(&gateway, "check-secret", &other), "JwtIssuerMismatch");
    let wider = keys.sign("HS512", "secret", "", &claims);
    fault(call(&gateway, "check-secret", &wider), "AlgorithmMismatch");
    fault(call(&gateway, "check-secret", "foobar"), "InvalidToken");
    fault(call(&gateway, "decode", "foobar"), "FailedToDecode");
    // By a set of keys that is fetched once for many calls.
    let signed = keys.sign("RS256", "rsa", "1", &claims);
    for _ in 0..5 {
        let answer = call(&gateway, "check-set", &signed).expect_status(200);
        assert_eq!(answer.text(), "bob 1");
    }
    assert_eq!(server.received().len(), 1);
    let unnamed = keys.sign("RS256", "rsa", "", &claims);
    fault(call(&gateway, "check-set", &unnamed), "KeyIdMissing");
    let unknown = keys.sign("RS256", "rsa", "2", &claims);
    fault(call(&gateway, "check-set", &unknown), "NoMatchingPublicKey");
    let wrong = keys.sign("RS256", "rsa", "1", &json!({"sub": "bob", "aud": "you"}));
    fault(call(&gateway, "check-set", &wrong), "JwtAudienceMismatch");
}

#[test]
fn keys_that_cannot_be_fetched_refuse() {
    let keys = Keys::new();
    let gateway = deployed(&keys, &format!("http://{}/keys", Origin::refused()));
    let signed = keys.sign("RS256", "rsa", "1", &json!({"aud": "me"}));
    fault(call(&gateway, "check-set", &signed), "KeyParsingFailed");
}
