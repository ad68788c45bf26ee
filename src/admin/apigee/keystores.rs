//! Keystores and their aliases: certificates with keys, and trusted certificates.

use boring::hash::MessageDigest;
use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Part};
use super::collection::{self, Collection, anything};
use super::environments::user_of_store;
use super::reply::Reply;
use crate::base::certificate_pair::{Subject, decrypt_key, facts, from_pkcs12, signing_request};
use crate::base::pem::{KeyPair, parse_certificates};
use crate::base::self_signed::PemPair;
use crate::dialects::apigee::entities::fields::check_name;
use crate::dialects::apigee::entities::{Fields, Keystore, KeystoreAlias, Kind, Reference, Stamp};
use crate::dialects::apigee::entity_set::EntitySet;
use crate::dialects::apigee::error::ApiError;

static KEYSTORES: Collection<Keystore> = Collection {
    root: "KeyStore",
    read: Keystore::read,
    name: |store| &store.name,
    stamp: |store| &mut store.stamp,
    show,
    check: anything,
    check_delete: |set, key, store| {
        let [organization, environment, ..] = key else {
            return Ok(());
        };
        let reference = set
            .all::<Reference>(&[organization, environment])
            .find(|(_, reference)| reference.refers == store.name)
            .map(|(key, _)| format!("ResourceReference {}", key.last()));
        let user = reference.or_else(|| user_of_store(set, organization, environment, &store.name));
        match user {
            Some(user) => Err(ApiError::in_use(format!(
                "KeyStore {} is used by {user}",
                store.name
            ))),
            None => Ok(()),
        }
    },
};

/// Days that a self-signed certificate is valid when nobody says.
const DAYS_DEFAULT: i64 = 365;
const DAYS_MAX: i64 = 36_500;

fn aliases(set: &EntitySet, key: &[&str]) -> Vec<KeystoreAlias> {
    set.all::<KeystoreAlias>(key)
        .map(|(_, alias)| alias)
        .collect()
}

fn show(set: &EntitySet, key: &[&str], store: &Keystore) -> Value {
    let aliases = aliases(set, key);
    let shown: Vec<Value> = aliases
        .iter()
        .map(|alias| {
            let mut shown = json!({
                "aliasName": alias.name,
                "cert": alias.certificate_name(),
            });
            if let (Some(fields), Some(_)) = (shown.as_object_mut(), &alias.key) {
                fields.insert("key".to_owned(), alias.name.clone().into());
            }
            shown
        })
        .collect();
    let certs: Vec<String> = aliases
        .iter()
        .map(KeystoreAlias::certificate_name)
        .collect();
    let keys: Vec<&str> = aliases
        .iter()
        .filter(|alias| alias.key.is_some())
        .map(|alias| alias.name.as_str())
        .collect();
    json!({"aliases": shown, "certs": certs, "keys": keys, "name": store.name})
}

/// Answers calls below `/environments/E/keystores`.
pub(super) async fn answer(
    call: &Call,
    environment: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    let parents = [call.organization.as_str(), environment];
    let [store, word, below @ ..] = rest else {
        // A keystore has nothing that could be changed.
        if rest.len() == 1 && call.method != Method::GET && call.method != Method::DELETE {
            return Err(call.unknown());
        }
        // Whatever it held goes with it.
        if let ([store], &Method::DELETE) = (rest, &call.method) {
            return delete(call, environment, store).await;
        }
        return collection::answer(call, &KEYSTORES, &parents, rest).await;
    };
    let key = [parents[0], parents[1], store];
    let set = call.set();
    let _: Keystore = collection::find(&set, &key)?;
    match (*word, below) {
        ("aliases", []) if call.method == Method::GET => {
            let names: Vec<String> = aliases(&set, &key)
                .into_iter()
                .map(|alias| alias.name)
                .collect();
            Ok(Reply::ok("List", json!(names)))
        }
        ("aliases" | "certs" | "keys", []) if call.method == Method::POST => {
            let (name, pair) = read_pair(call).await?;
            write(call, &key, &name, pair, false).await
        }
        ("certs", []) if call.method == Method::GET => {
            let names: Vec<String> = aliases(&set, &key)
                .iter()
                .map(KeystoreAlias::certificate_name)
                .collect();
            Ok(Reply::ok("List", json!(names)))
        }
        ("certs", [name]) if call.method == Method::GET => {
            let all = aliases(&set, &key);
            let found = all.iter().find(|alias| alias.certificate_name() == *name);
            let found = found.ok_or_else(|| missing(name, store))?;
            Ok(Reply::ok("Certificate", show_certificates(call, found)?))
        }
        ("aliases", [name, what @ ..]) => {
            let alias_key = [key[0], key[1], key[2], name];
            let known: Option<KeystoreAlias> = set.find(&alias_key);
            let known = known.ok_or_else(|| missing(name, store))?;
            one(call, &key, &known, what).await
        }
        _ => Err(call.unknown()),
    }
}

fn missing(name: &str, store: &str) -> ApiError {
    Kind::KeystoreAlias.missing(name, format_args!("in KeyStore {store}"))
}

async fn one(
    call: &Call,
    store: &[&str; 3],
    known: &KeystoreAlias,
    what: &[&str],
) -> Result<Reply, ApiError> {
    match (&call.method, what) {
        (&Method::GET, []) => Ok(Reply::ok("Alias", show_alias(call, known)?)),
        (&Method::GET, ["certificate"]) => Ok(Reply::bytes(
            "application/x-pem-file",
            known.certificate.clone().into_bytes(),
            None,
        )),
        (&Method::GET, ["csr"]) => {
            let Some(key) = &known.key else {
                return Err(ApiError::bad_request(format!(
                    "alias {} has no key to sign a request with",
                    known.name
                )));
            };
            let request = signing_request(&known.certificate, key)
                .map_err(|error| ApiError::failure(error.to_string()))?;
            Ok(Reply::bytes(
                "application/x-pem-file",
                request.into_bytes(),
                None,
            ))
        }
        (&Method::PUT, []) => {
            let (_, mut pair) = read_named_pair(call, Some(&known.name)).await?;
            // A new certificate for the key that is there.
            if pair.key.is_none() {
                pair.key.clone_from(&known.key);
            }
            check_pair(call, &pair)?;
            write(call, store, &known.name, pair, true).await
        }
        (&Method::DELETE, []) => {
            let shown = show_alias(call, known)?;
            let key = [store[0], store[1], store[2], &known.name].map(str::to_owned);
            let written = call.write(move |set, _| {
                let key = key.each_ref().map(String::as_str);
                let removed = set.remove(Kind::KeystoreAlias, &key);
                Ok(((), removed.into_iter().collect()))
            });
            let revision = written.await?.1;
            Ok(Reply::ok("Alias", shown).at(revision))
        }
        _ => Err(call.unknown()),
    }
}

/// Certificates and perhaps a key, PEM.
struct Pair {
    certificate: String,
    key: Option<String>,
}

async fn read_pair(call: &Call) -> Result<(String, Pair), ApiError> {
    let (name, pair) = read_named_pair(call, None).await?;
    check_name(&name)?;
    check_pair(call, &pair)?;
    Ok((name, pair))
}

/// What a body brings, in one of its many forms, with the name of the alias.
async fn read_named_pair(call: &Call, known: Option<&str>) -> Result<(String, Pair), ApiError> {
    let given = known.or(call.parameter("alias"));
    if call.parameter("format") == Some("selfsignedcert") {
        return self_signed(call.fields()?, given);
    }
    let (given, parts) = if call.is_multipart() {
        let parts = call.parts().await?;
        let named = text_part(&parts, &["alias"])?;
        (given.map(str::to_owned).or(named), parts)
    } else {
        // The bytes of a PEM text as they are: a certificate.
        let bytes = call.file().await?;
        let name = "certFile".to_owned();
        (given.map(str::to_owned), vec![Part { name, bytes }])
    };
    let name = given.ok_or_else(|| {
        ApiError::bad_request("the parameter alias is needed, it names the alias")
    })?;
    let password = text_part(&parts, &["password"])?
        .or(call.parameter("password").map(str::to_owned))
        .unwrap_or_default();
    let is_file = matches!(call.parameter("format"), Some("pkcs12" | "keycertjar"));
    let pair = if is_file {
        let file = parts.iter().find(|part| part.name == "file");
        let file = file.ok_or_else(|| ApiError::bad_request("the form has no part 'file'"))?;
        // Most files of this name are PKCS #12; a JAR is a ZIP.
        if file.bytes.starts_with(b"PK") {
            return Err(ApiError::bad_request(
                "JAR files are not supported, send certFile and keyFile (format=keycertfile) or PKCS #12",
            ));
        }
        let pair = from_pkcs12(&file.bytes, &password).map_err(ApiError::bad_request)?;
        Pair {
            certificate: pair.certificate,
            key: Some(pair.key),
        }
    } else {
        let certificate = text_part(&parts, &["certFile", "cert", "file"])?
            .ok_or_else(|| ApiError::bad_request("the form has no part 'certFile'"))?;
        let key = text_part(&parts, &["keyFile", "key"])?
            .map(|key| decrypt_key(&key, &password).map_err(ApiError::bad_request))
            .transpose()?;
        Pair { certificate, key }
    };
    Ok((name, pair))
}

fn text_part(parts: &[Part], names: &[&str]) -> Result<Option<String>, ApiError> {
    let Some(part) = parts
        .iter()
        .find(|part| names.contains(&part.name.as_str()))
    else {
        return Ok(None);
    };
    String::from_utf8(part.bytes.to_vec())
        .map(Some)
        .map_err(|_| ApiError::field(&part.name, "is not text, expected PEM"))
}

/// Refuses what is no certificate, does not belong together, or has expired.
fn check_pair(call: &Call, pair: &Pair) -> Result<(), ApiError> {
    let wrong = |error: crate::base::pem::PemError| ApiError::bad_request(error.to_string());
    let certificates = parse_certificates(&pair.certificate).map_err(wrong)?;
    if let Some(key) = &pair.key {
        KeyPair::parse(&pair.certificate, key).map_err(wrong)?;
    }
    if call.switch("ignoreExpiryValidation") {
        return Ok(());
    }
    let now = now_seconds();
    for certificate in &certificates {
        let facts = facts(certificate);
        if facts.not_after < now {
            return Err(ApiError::bad_request(format!(
                "the certificate of {} has expired, ignoreExpiryValidation=true takes it all the same",
                facts.subject
            )));
        }
    }
    Ok(())
}

fn now_seconds() -> i64 {
    crate::runtime::records::now_ms() / 1000
}

fn self_signed(mut fields: Fields, given: Option<&str>) -> Result<(String, Pair), ApiError> {
    let alias = fields.text("alias")?;
    let name = alias.or(given.map(str::to_owned));
    let name = name.ok_or_else(|| ApiError::field("alias", "is missing"))?;
    let mut described = fields
        .object("subject")?
        .ok_or_else(|| ApiError::field("subject", "is missing"))?;
    let mut text =
        |name: &str| -> Result<String, ApiError> { Ok(described.text(name)?.unwrap_or_default()) };
    let subject = Subject {
        common_name: text("commonName")?,
        country: text("countryCode")?,
        state: text("state")?,
        locality: text("locality")?,
        organization: text("org")?,
        unit: text("orgUnit")?,
        email: text("email")?,
    };
    described.finish()?;
    if subject.common_name.is_empty() {
        return Err(ApiError::field("subject.commonName", "is missing"));
    }
    let names = match fields.object("subjectAlternativeDNSNames")? {
        Some(mut wrapper) => wrapper.texts("subjectAlternativeName")?,
        None => Vec::new(),
    };
    let digest = match fields
        .text("sigAlg")?
        .or(fields.text("sig_alg")?)
        .as_deref()
    {
        None | Some("SHA256withRSA") => MessageDigest::sha256(),
        Some("SHA384withRSA") => MessageDigest::sha384(),
        Some("SHA512withRSA") => MessageDigest::sha512(),
        Some(other) => {
            return Err(ApiError::field(
                "sig_alg",
                format!(
                    "'{other}' is not supported, allowed are SHA256withRSA, SHA384withRSA and SHA512withRSA"
                ),
            ));
        }
    };
    let size = fields.number("keySize")?.or(fields.number("key_size")?);
    let bits = match size.unwrap_or(2048) {
        2048 => 2048,
        3072 => 3072,
        4096 => 4096,
        other => {
            return Err(ApiError::field(
                "key_size",
                format!("{other} is not supported, allowed are 2048, 3072 and 4096"),
            ));
        }
    };
    let days = fields
        .number("certValidityInDays")?
        .or(fields.number("cert_validity_in_days")?)
        .unwrap_or(DAYS_DEFAULT);
    fields.finish()?;
    let days = u32::try_from(days)
        .ok()
        .filter(|days| (1..=DAYS_MAX).contains(&i64::from(*days)))
        .ok_or_else(|| {
            ApiError::field(
                "cert_validity_in_days",
                format!("is out of range, allowed are 1 to {DAYS_MAX}"),
            )
        })?;
    let PemPair { certificate, key } = subject
        .self_signed(bits, &names, now_seconds(), days, digest)
        .map_err(|_| ApiError::field("subject", "cannot stand in a certificate"))?;
    Ok((
        name,
        Pair {
            certificate,
            key: Some(key),
        },
    ))
}

async fn write(
    call: &Call,
    store: &[&str; 3],
    name: &str,
    pair: Pair,
    replaces: bool,
) -> Result<Reply, ApiError> {
    let key = [store[0], store[1], store[2], name].map(str::to_owned);
    let (user, name) = (call.user.clone(), name.to_owned());
    let written = call.write(move |set, moment| {
        let key = key.each_ref().map(String::as_str);
        let known: Option<KeystoreAlias> = set.find(&key);
        let stamp = match (known, replaces) {
            (None, true) => return Err(missing(&name, key[2])),
            (None, false) => Stamp::new(moment.unix_ms(), &user),
            (Some(known), true) => known.stamp.touched(moment.unix_ms(), &user),
            // The oldest form brings certificate and key in two calls.
            (Some(known), false) if known.key.is_none() && pair.key.is_some() => known.stamp,
            (Some(_), false) => {
                let place = format!("in KeyStore {}", key[2]);
                return Err(Kind::KeystoreAlias.exists(&name, place));
            }
        };
        let alias = KeystoreAlias {
            name: name.clone(),
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            stamp,
        };
        let change = set.put(&key, &alias);
        Ok((alias, vec![change]))
    });
    let (alias, revision) = written.await?;
    let status = if replaces { 200 } else { 201 };
    Ok(Reply::new(status, "Alias", show_alias(call, &alias)?).at(revision))
}

async fn delete(call: &Call, environment: &str, store: &str) -> Result<Reply, ApiError> {
    let key = [call.organization.as_str(), environment, store].map(str::to_owned);
    let written = call.write(move |set, _| {
        let key = key.each_ref().map(String::as_str);
        let known: Keystore = collection::find(set, &key)?;
        (KEYSTORES.check_delete)(set, &key, &known)?;
        let shown = show(set, &key, &known);
        let mut changes = set.remove_below(Kind::KeystoreAlias, &key);
        changes.extend(set.remove(Kind::Keystore, &key));
        Ok((shown, changes))
    });
    let (shown, revision) = written.await?;
    Ok(Reply::ok("KeyStore", shown).at(revision))
}

fn show_alias(call: &Call, alias: &KeystoreAlias) -> Result<Value, ApiError> {
    Ok(json!({
        "alias": alias.name,
        "certsInfo": show_certificates(call, alias)?,
        "keyName": alias.key.as_ref().map(|_| &alias.name),
        "type": if alias.key.is_some() { "keycert" } else { "cert" },
    }))
}

fn show_certificates(_: &Call, alias: &KeystoreAlias) -> Result<Value, ApiError> {
    let certificates = parse_certificates(&alias.certificate)
        .map_err(|error| ApiError::failure(error.to_string()))?;
    let now = now_seconds();
    let shown: Vec<Value> = certificates
        .iter()
        .map(|certificate| {
            let facts = facts(certificate);
            let valid = (facts.not_before..=facts.not_after).contains(&now);
            json!({
                "expiryDate": facts.not_after * 1000,
                "isValid": if valid { "Yes" } else { "No" },
                "issuer": facts.issuer,
                "serialNumber": facts.serial_number,
                "subject": facts.subject,
                "subjectAlternativeNames": facts.dns_names,
                "validFrom": facts.not_before * 1000,
                "version": 3,
            })
        })
        .collect();
    Ok(json!({"certInfo": shown, "certName": alias.certificate_name()}))
}
