//! Certificates, authorities, keys and vaults.

use serde_json::json;

use super::refused;
use crate::base::self_signed::{Algorithm, PemPair, SelfSigned};
use crate::dialects::kong::entities::*;
use crate::dialects::kong::entity_set::testing::{NOW_SECONDS, World};

#[test]
fn vault_key_and_sni_rules() {
    let mut world = World::new();
    for (kind, given, expected) in [
        (
            EntityKind::Vault,
            json!({"prefix": "env", "name": "env"}),
            json!({"prefix": "must not be one of: env"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "Env-1", "name": "env"}),
            json!({"prefix": "invalid value: Env-1"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "hcv"}),
            json!({"name": "vault 'hcv' is not installed"}),
        ),
        (
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "env", "config": {"x": 1}}),
            json!({"config": {"x": "unknown field"}}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1"}),
            json!({"@entity": ["at least one of these fields must be non-empty: 'jwk', 'pem'"]}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "jwk": "{\"kid\":\"2\",\"kty\":\"oct\"}"}),
            json!({"@entity": ["kid in jwk.kid must be equal to keys.kid"]}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "pem": {"public_key": "x"}}),
            json!({"pem": {"public_key": "could not load the public key: no public key found, expected PEM text with '-----BEGIN PUBLIC KEY-----'"}}),
        ),
        (
            EntityKind::Key,
            json!({"kid": "1", "pem": {}}),
            json!({"@entity": ["need to supply a PEM formatted public and/or private key."]}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "a.*.b"}),
            json!({"name": "wildcard must be leftmost or rightmost character", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "*.a.*"}),
            json!({"name": "only one wildcard must be specified", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "1.2.3.4"}),
            json!({"name": "must not be an IP", "certificate": "required field missing"}),
        ),
        (
            EntityKind::Sni,
            json!({"name": "a.test:443"}),
            json!({"name": "must not have a port", "certificate": "required field missing"}),
        ),
    ] {
        refused(&mut world, kind, given, expected);
    }
    let row = world
        .create(
            EntityKind::Vault,
            json!({"prefix": "my-env", "name": "env", "config": {"prefix": "APP_"}}),
        )
        .unwrap();
    row.parse::<Vault>().unwrap();
    let set = world.id_of(EntityKind::KeySet, json!({"name": "set"}));
    let key = json!({"kid": "1", "jwk": "{\"kid\":\"1\",\"kty\":\"oct\"}", "set": {"id": set}});
    world
        .create(EntityKind::Key, key.clone())
        .unwrap()
        .parse::<Key>()
        .unwrap();
    assert_eq!(
        world.create(EntityKind::Key, key).unwrap_err().status(),
        409
    );
}

fn made(algorithm: Algorithm, authority: bool, days: u32) -> PemPair {
    SelfSigned {
        algorithm,
        common_name: "a.test",
        dns_names: &["a.test"],
        addresses: &[],
        authority,
        not_before: NOW_SECONDS - 2 * 86_400,
        days,
    }
    .generate()
    .unwrap()
}

#[test]
fn certificate_rules() {
    let mut world = World::new();
    let first = made(Algorithm::EcdsaP256, false, 30);
    let second = made(Algorithm::EcdsaP256, false, 30);
    let third = made(Algorithm::Rsa2048, false, 30);
    for (given, message) in [
        (
            json!({"cert": first.certificate, "key": second.key}),
            "schema violation (certificate does not match key)",
        ),
        (
            json!({"cert": first.certificate, "key": first.key, "cert_alt": second.certificate}),
            "schema violation (all or none of these fields must be set: 'cert_alt', 'key_alt')",
        ),
        (
            json!({"cert": first.certificate, "key": first.key, "cert_alt": second.certificate, "key_alt": second.key}),
            "schema violation (certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), \
             the provided certificates were both of the same type)",
        ),
    ] {
        let error = world.create(EntityKind::Certificate, given).unwrap_err();
        assert_eq!(error.message, message);
    }
    let error = world
        .create(EntityKind::Certificate, json!({"cert": "x", "key": "y"}))
        .unwrap_err();
    assert!(
        error.message.contains("cert: invalid certificate: ")
            && error.message.contains("key: invalid key: "),
        "{error}"
    );
    for given in [
        json!({"cert": first.certificate, "key": first.key, "cert_alt": third.certificate, "key_alt": third.key}),
        json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}"}),
    ] {
        world
            .create(EntityKind::Certificate, given)
            .unwrap()
            .parse::<Certificate>()
            .unwrap();
    }
}

#[test]
fn authority_rules() {
    let mut world = World::new();
    let good = made(Algorithm::EcdsaP256, true, 30);
    let two = format!("{0}{0}", good.certificate);
    for (cert, message) in [
        (two, "please submit only one certificate at a time"),
        (
            made(Algorithm::EcdsaP256, true, 1).certificate,
            "certificate expired, \"Not After\" time is in the past",
        ),
        (
            made(Algorithm::EcdsaP256, false, 30).certificate,
            "certificate does not appear to be a CA because it is missing the \"CA\" basic constraint",
        ),
    ] {
        refused(
            &mut world,
            EntityKind::CaCertificate,
            json!({ "cert": cert }),
            json!({ "@entity": [message] }),
        );
    }
    let id = world.id_of(EntityKind::CaCertificate, json!({"cert": good.certificate}));
    let service = world.id_of(
        EntityKind::Service,
        json!({"host": "h", "protocol": "https", "ca_certificates": [id]}),
    );
    let error = world.delete(EntityKind::CaCertificate, &id).unwrap_err();
    assert_eq!(
        (error.code as u8, error.message),
        (
            19,
            format!("ca certificate {id} is still referenced by services (id = {service})")
        )
    );
}
