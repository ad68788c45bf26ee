//! TLS towards targets, out of `SSLInfo`: keystores, aliases, trust stores and references looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Surroundings;
use crate::base::secret::Secret;
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::bundle::{CommonName, TlsInfo};
use crate::dialects::apigee::entities::{self, Keystore, KeystoreAlias, Reference};
use crate::dialects::apigee::program::DynamicTls;
use crate::dialects::apigee::xml::{Findings, boolean_of};
use crate::model::plan::{KeyPairPlan, PeerRule, TlsVersion, UpstreamTlsPlan};

/// Longest accepted chain of intermediates.
const CHAIN_MAX: u8 = 10;
/// How a name is marked as that of a reference.
const REFERENCE: &str = "ref://";
/// Most settings that one `SSLInfo` with variables may come to.
const COMBINATIONS_MAX: usize = 1_000;

/// Ciphers up to TLS 1.2 that the TLS library has, in the names that Java and IANA use.
const CIPHERS: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
];
/// Those of TLS 1.3, which are always on.
const CIPHERS_1_3: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The same as a target server writes it.
pub(super) fn of_server(info: &entities::TlsInfo) -> TlsInfo {
    TlsInfo {
        enabled: Some(info.enabled.to_string()),
        client_auth: Some(info.client_auth_enabled.to_string()),
        key_store: info.key_store.clone(),
        key_alias: info.key_alias.clone(),
        trust_store: info.trust_store.clone(),
        ignore_validation_errors: info.ignore_validation_errors,
        common_name: info.common_name.as_ref().map(|name| CommonName {
            name: name.value.clone(),
            wildcard: name.wildcard_match,
        }),
        ciphers: info.ciphers.clone(),
        protocols: info.protocols.clone(),
    }
}

/// TLS settings whose texts are fixed.
pub(super) fn fixed(
    surroundings: &Surroundings<'_>,
    info: &TlsInfo,
    at: &SourceRef,
    findings: &mut Findings,
) -> UpstreamTlsPlan {
    let mut told = |result: Result<UpstreamTlsPlan, String>| {
        result.unwrap_or_else(|reason| {
            findings.error("tls", at.clone(), reason);
            UpstreamTlsPlan::default()
        })
    };
    let shows = info.client_auth.as_deref().and_then(boolean_of) == Some(true);
    let client = match (shows, &info.key_store, &info.key_alias) {
        (false, ..) => None,
        (true, Some(store), Some(alias)) => Some((store.as_str(), alias.as_str())),
        (true, ..) => {
            return told(Err(
                "ClientAuthEnabled needs <KeyStore> and <KeyAlias>".to_owned()
            ));
        }
    };
    let trust = info.trust_store.as_deref();
    let mut plan = told(plan(surroundings, info, client, trust));
    plan.ciphers = ciphers(info, at, findings);
    plan.versions = versions(info, at, findings);
    plan
}

/// What settings with variables may come to, by [`DynamicTls::key`]; `None` is plain text.
pub(super) fn combinations(
    surroundings: &Surroundings<'_>,
    info: &TlsInfo,
    at: &SourceRef,
    findings: &mut Findings,
) -> BTreeMap<String, Option<UpstreamTlsPlan>> {
    let stores: Vec<String> = named(surroundings);
    let is_template =
        |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains('{'));
    let mut clients: Vec<(String, String)> = vec![Default::default()];
    let may_show = is_template(&info.client_auth)
        || info.client_auth.as_deref().and_then(boolean_of) == Some(true);
    if may_show {
        let candidates = match &info.key_store {
            Some(store) if !store.contains('{') => vec![store.clone()],
            _ => stores.clone(),
        };
        for store in candidates {
            for alias in aliases(surroundings, &store) {
                if alias.key.is_some() {
                    clients.push((store.clone(), alias.name));
                }
            }
        }
    }
    let trusts = match &info.trust_store {
        None => vec![String::new()],
        Some(store) if !store.contains('{') => vec![store.clone()],
        Some(_) => std::iter::once(String::new()).chain(stores).collect(),
    };
    let mut found = BTreeMap::new();
    found.insert(DynamicTls::key(false, "", "", ""), None);
    if clients.len() * trusts.len() > COMBINATIONS_MAX {
        let message = format!(
            "<SSLInfo> with variables may come to more than {COMBINATIONS_MAX} settings in this environment"
        );
        findings.error("tls", at.clone(), message);
        return found;
    }
    let (ciphers, versions) = (ciphers(info, at, findings), versions(info, at, findings));
    for (store, alias) in &clients {
        for trust in &trusts {
            let client = (!store.is_empty()).then_some((store.as_str(), alias.as_str()));
            let trust_name = (!trust.is_empty()).then_some(trust.as_str());
            // A store without usable certificates is no choice.
            if let Ok(mut plan) = plan(surroundings, info, client, trust_name) {
                plan.ciphers.clone_from(&ciphers);
                plan.versions.clone_from(&versions);
                found.insert(DynamicTls::key(true, store, alias, trust), Some(plan));
            }
        }
    }
    found
}

/// Names of stores, and of references to them.
fn named(surroundings: &Surroundings<'_>) -> Vec<String> {
    let place = [surroundings.organization, surroundings.environment];
    let stores = surroundings
        .set
        .all::<Keystore>(&place)
        .map(|(key, _)| key.last().to_owned());
    let references = surroundings
        .set
        .all::<Reference>(&place)
        .map(|(key, _)| format!("{REFERENCE}{}", key.last()));
    stores.chain(references).collect()
}

fn plan(
    surroundings: &Surroundings<'_>,
    info: &TlsInfo,
    client: Option<(&str, &str)>,
    trust: Option<&str>,
) -> Result<UpstreamTlsPlan, String> {
    let authorities = match trust {
        Some(store) => trusted(surroundings, store)?,
        None => Vec::new(),
    };
    let verify = !info.ignore_validation_errors
        && (trust.is_some() || !surroundings.options.tls_edge_compatible);
    Ok(UpstreamTlsPlan {
        verify: Some(verify),
        verify_depth: Some(CHAIN_MAX),
        authorities,
        client_certificate: client
            .map(|(store, alias)| key_pair(surroundings, store, alias).map(Arc::new))
            .transpose()?,
        peer: match &info.common_name {
            None => PeerRule::Name,
            Some(common) => PeerRule::CommonName {
                name: common.name.as_str().into(),
                wildcard: common.wildcard,
            },
        },
        ..UpstreamTlsPlan::default()
    })
}

/// The store that a name or a reference stands for.
fn store(surroundings: &Surroundings<'_>, name: &str) -> Result<String, String> {
    let environment = surroundings.environment;
    let store = match name.strip_prefix(REFERENCE) {
        None => name.to_owned(),
        Some(reference) => {
            let found = surroundings
                .set
                .find::<Reference>(&surroundings.key(reference));
            found.map(|found| found.refers).ok_or_else(|| {
                format!("the environment {environment} has no reference '{reference}'")
            })?
        }
    };
    let found = surroundings.set.find::<Keystore>(&surroundings.key(&store));
    match found {
        Some(_) => Ok(store),
        None => Err(format!(
            "the environment {environment} has no keystore '{store}'"
        )),
    }
}

fn aliases(surroundings: &Surroundings<'_>, name: &str) -> Vec<KeystoreAlias> {
    let Ok(store) = store(surroundings, name) else {
        return Vec::new();
    };
    let below = [surroundings.organization, surroundings.environment, &store];
    surroundings
        .set
        .all::<KeystoreAlias>(&below)
        .map(|(_, alias)| alias)
        .collect()
}

/// A certificate with its key.
pub(super) fn key_pair(
    surroundings: &Surroundings<'_>,
    name: &str,
    alias: &str,
) -> Result<KeyPairPlan, String> {
    let store = store(surroundings, name)?;
    let key = [
        surroundings.organization,
        surroundings.environment,
        &store,
        alias,
    ];
    let found = surroundings
        .set
        .find::<KeystoreAlias>(&key)
        .ok_or_else(|| format!("the keystore '{store}' has no alias '{alias}'"))?;
    let private = found.key.ok_or_else(|| {
        format!("the alias '{alias}' of the keystore '{store}' has no private key")
    })?;
    Ok(KeyPairPlan {
        certificate: found.certificate.into(),
        key: Secret::new(private),
    })
}

/// The certificates of a trust store, those of chains one by one.
pub(super) fn authorities(
    surroundings: &Surroundings<'_>,
    name: &str,
) -> Result<Vec<String>, String> {
    const END: &str = "-----END CERTIFICATE-----";
    let texts = trusted(surroundings, name)?;
    let certificates = texts.iter().flat_map(|text| text.split_inclusive(END));
    Ok(certificates
        .map(|text| text.trim().to_owned())
        .filter(|text| text.ends_with(END))
        .collect())
}

fn trusted(surroundings: &Surroundings<'_>, name: &str) -> Result<Vec<Arc<str>>, String> {
    let store = store(surroundings, name)?;
    let certificates: Vec<Arc<str>> = aliases(surroundings, &store)
        .into_iter()
        .map(|alias| alias.certificate.into())
        .collect();
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(format!("the trust store '{store}' holds no certificate")),
    }
}

fn ciphers(info: &TlsInfo, at: &SourceRef, findings: &mut Findings) -> Vec<Arc<str>> {
    let mut known: Vec<Arc<str>> = Vec::new();
    let mut always = false;
    for written in &info.ciphers {
        let name = match written.strip_prefix("SSL_") {
            Some(rest) => format!("TLS_{rest}"),
            None => written.clone(),
        };
        if CIPHERS.contains(&name.as_str()) {
            known.push(name.into());
        } else if CIPHERS_1_3.contains(&name.as_str()) {
            always = true;
        } else {
            let message = format!("the cipher '{written}' is not known here and left out");
            findings.warning("cipher", at.clone(), message);
        }
    }
    if known.is_empty() && !always && !info.ciphers.is_empty() {
        let message = "none of the ciphers is known here".to_owned();
        findings.error("cipher", at.clone(), message);
    }
    known
}

fn versions(info: &TlsInfo, at: &SourceRef, findings: &mut Findings) -> Vec<TlsVersion> {
    let mut known = Vec::new();
    for written in &info.protocols {
        match written.as_str() {
            "TLSv1" | "TLSv1.0" => known.push(TlsVersion::Tls1_0),
            "TLSv1.1" => known.push(TlsVersion::Tls1_1),
            "TLSv1.2" => known.push(TlsVersion::Tls1_2),
            "TLSv1.3" => known.push(TlsVersion::Tls1_3),
            "SSLv2Hello" | "SSLv3" => {
                let message = format!("'{written}' is not spoken any more and left out");
                findings.warning("protocol", at.clone(), message);
            }
            other => {
                let message = format!(
                    "'{other}' is no protocol, allowed are TLSv1, TLSv1.1, TLSv1.2 and TLSv1.3"
                );
                findings.error("protocol", at.clone(), message);
            }
        }
    }
    if known.is_empty() && !info.protocols.is_empty() {
        findings.error(
            "protocol",
            at.clone(),
            "none of the protocols is spoken here",
        );
    }
    known
}
