//! `header-cert-auth`: a proxy in front has ended TLS and tells the client's certificate in a header.

use std::sync::Arc;

use ahash::AHashMap;
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use boring::x509::X509;
use http::HeaderName;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::mtls_auth::milliseconds;
use crate::base::pem::parse_certificates;
use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::certificate_auth::{
    CertificateAuth, ConsumerBy, GroupBy, RevocationMode, Rules,
};
use crate::plugins::shared::configuration::{PROXY_UNSUPPORTED, no_proxy, read};
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::contract::{Flow, LinkContext, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::revocation::Asking;

/// The mechanism under which credentials are looked up.
const KIND: &str = "header-cert-auth";
/// Certificates remembered as read from headers; beyond it all are read anew.
const REMEMBERED_MAX: usize = 1_024;
/// Certificates in one header that are looked at.
const CHAIN_MAX: usize = 16;

config_record! {
    /// Authenticates callers by a certificate in a header that a trusted proxy has set.
    pub(crate) struct Config {
        /// Id or user name of the consumer that stands in for callers without a valid certificate; without it they are
        /// refused.
        anonymous: Option<String> = string(),
        /// Whether a consumer is found by its `username`, its `custom_id` or either, when no credential names the
        /// certificate.
        consumer_by: Option<Vec<ConsumerBy>> = array(string().one_of(&["username", "custom_id"]))
            .default(json!(["username", "custom_id"])),
        /// The ids of the CA certificates that callers' certificates must lead to.
        ca_certificates: Vec<Uuid> = array(uuid()).required(),
        /// Seconds that a consumer found by its name is remembered.
        cache_ttl: Option<f64> = number().default(60),
        /// Accept every valid certificate and look for no consumer; the upstream is told the certificate's names in
        /// `X-Client-Cert-Dn` and `X-Client-Cert-San`.
        skip_consumer_lookup: bool = boolean().required().default(false),
        /// Accept a chain that ends at a trusted certificate, whoever signed that.
        allow_partial_chain: bool = boolean().required().default(false),
        /// With `skip_consumer_lookup`: what of the certificate becomes the caller's group, its common name (`CN`) or its
        /// distinguished name (`DN`).
        authenticated_group_by: Option<GroupBy> = string().one_of(&["CN", "DN"]).default("CN"),
        /// Whether it is asked if certificates were revoked: not at all (`SKIP`), refusing revoked ones
        /// (`IGNORE_CA_ERROR`), or refusing those about which no answer can be had too (`STRICT`).
        revocation_check_mode: RevocationMode = string()
            .one_of(&["SKIP", "IGNORE_CA_ERROR", "STRICT"])
            .required()
            .default("IGNORE_CA_ERROR"),
        /// Milliseconds for an answer about revocation.
        http_timeout: Option<f64> = number().default(30_000),
        /// Milliseconds that an answer about revocation is remembered.
        cert_cache_ttl: Option<f64> = number().default(60_000),
        /// Id or user name of the consumer for valid certificates that stand for no other consumer.
        default_consumer: Option<String> = string(),
        /// The header that holds the certificate.
        certificate_header_name: String = header_name().required(),
        /// How it stands there: as PEM, URL-encoded (`url_encoded`), or as the Base64 text of a DER or PEM certificate,
        /// without its frame lines (`base64_encoded`).
        certificate_header_format: Format = string().one_of(&["base64_encoded", "url_encoded"]).required(),
        /// Believe the header only from peers among `trusted_ips`.
        secure_source: bool = boolean().required().default(true),
        /// Not supported: must stay empty.
        http_proxy_host: Option<String> = string().validated_by(no_proxy),
        /// Not supported: must stay empty.
        http_proxy_port: Option<u16> = port().validated_by(no_proxy),
        /// Not supported: must stay empty.
        https_proxy_host: Option<String> = string().validated_by(no_proxy),
        /// Not supported: must stay empty.
        https_proxy_port: Option<u16> = port().validated_by(no_proxy),
    }
}

/// How a certificate stands in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Base64Encoded,
    UrlEncoded,
}

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("header-cert-auth", 1009, Config::schema())
            .without_consumer()
            .credentials(&["header_cert_auth_credentials"])
            .with_messages(),
        link,
    }
}

fn link(plan: &Arc<InstancePlan>, context: &LinkContext<'_>) -> Result<Arc<dyn Plugin>, String> {
    let config: Config = read(plan)?;
    let proxies = [&config.http_proxy_host, &config.https_proxy_host];
    let ports = [config.http_proxy_port, config.https_proxy_port];
    if proxies.iter().any(|host| host.is_some()) || ports.iter().any(Option::is_some) {
        return Err(PROXY_UNSUPPORTED.to_owned());
    }
    let name = &config.certificate_header_name;
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("config.certificate_header_name: '{name}' is not a header name"))?;
    let rules = Rules {
        kind: KIND,
        authorities: config.ca_certificates,
        partial_chains: config.allow_partial_chain,
        skip_consumer_lookup: config.skip_consumer_lookup,
        consumer_by: config.consumer_by.unwrap_or_default(),
        group_by: config.authenticated_group_by,
        anonymous: config.anonymous,
        default_consumer: config.default_consumer,
        revocation: config.revocation_check_mode,
        asking: Asking {
            timeout: milliseconds(config.http_timeout),
            remember: milliseconds(config.cert_cache_ttl),
        },
        remember: milliseconds(config.cache_ttl.map(|seconds| seconds * 1000.0)),
    };
    Ok(Arc::new(HeaderCertAuth {
        auth: CertificateAuth::link(rules, context)?,
        header,
        format: config.certificate_header_format,
        secure_source: config.secure_source,
        read: Mutex::default(),
    }))
}

struct HeaderCertAuth {
    auth: CertificateAuth,
    header: HeaderName,
    format: Format,
    secure_source: bool,
    /// By the digest of the header: most requests show the same few certificates, and verdicts are kept with them.
    read: Mutex<AHashMap<[u8; 32], Arc<ClientCertificate>>>,
}

#[async_trait]
impl Plugin for HeaderCertAuth {
    fn phases(&self) -> Phases {
        match self.auth.waits() {
            true => Phases::ACCESS_ASYNC,
            false => Phases::ACCESS,
        }
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let shown = self.shown(exchange);
        self.auth.access(exchange, shown)
    }

    async fn access_async(&self, exchange: &mut Exchange) -> Flow {
        let shown = self.shown(exchange);
        self.auth.access_async(exchange, shown).await
    }
}

impl HeaderCertAuth {
    /// The certificate in the header, if its sender is to be believed and it can be read.
    fn shown(&self, exchange: &Exchange) -> Option<Arc<ClientCertificate>> {
        if self.secure_source && !exchange.connection.trusted {
            return None;
        }
        let mut values = exchange.request.headers.get_all(&self.header).iter();
        let value = values.next()?.as_bytes();
        // Of two certificates nobody knows which one was verified in front.
        if values.next().is_some() {
            return None;
        }
        let key: [u8; 32] = Sha256::digest(value).into();
        if let Some(known) = self.read.lock().get(&key) {
            return Some(Arc::clone(known));
        }
        let certificate = Arc::new(read_header(value, self.format)?);
        let mut read = self.read.lock();
        if read.len() >= REMEMBERED_MAX {
            read.clear();
        }
        read.insert(key, Arc::clone(&certificate));
        Some(certificate)
    }
}

fn read_header(value: &[u8], format: Format) -> Option<ClientCertificate> {
    let mut certificates = match format {
        Format::UrlEncoded => {
            let text: Vec<u8> = percent_encoding::percent_decode(value).collect();
            parse_certificates(std::str::from_utf8(&text).ok()?).ok()?
        }
        Format::Base64Encoded => {
            let text: Vec<u8> = value
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            let decoded = BASE64_STANDARD.decode(text).ok()?;
            match decoded.starts_with(b"-----BEGIN") {
                true => parse_certificates(std::str::from_utf8(&decoded).ok()?).ok()?,
                false => vec![X509::from_der(&decoded).ok()?],
            }
        }
    };
    certificates.truncate(CHAIN_MAX);
    let leaf = (!certificates.is_empty()).then(|| certificates.remove(0))?;
    Some(ClientCertificate::new(leaf, certificates))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use percent_encoding::NON_ALPHANUMERIC;
    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Issuer, Message, World, refusal};

    #[test]
    fn reads_both_forms_from_trusted_peers_only() {
        let issuer = Issuer::new("ours");
        let world = World::new().authority(&issuer).principal("a.test", &[]);
        let pem = issuer.issue("a.test").certificate;
        let der = parse_certificates(&pem).unwrap()[0].to_der().unwrap();
        let escaped = percent_encoding::utf8_percent_encode(&pem, NON_ALPHANUMERIC).to_string();
        let stranger = Issuer::new("theirs").issue("a.test").certificate;
        let stranger =
            percent_encoding::utf8_percent_encode(&stranger, NON_ALPHANUMERIC).to_string();
        let absent = "No required TLS certificate was sent";
        let cases = [
            ("url_encoded", escaped.clone(), true, true, None),
            ("url_encoded", escaped.clone(), false, true, None),
            ("url_encoded", escaped.clone(), true, false, Some(absent)),
            ("url_encoded", escaped, false, false, None),
            (
                "base64_encoded",
                BASE64_STANDARD.encode(&der),
                true,
                true,
                None,
            ),
            (
                "base64_encoded",
                BASE64_STANDARD.encode(&pem),
                true,
                true,
                None,
            ),
            (
                "base64_encoded",
                "nonsense".into(),
                true,
                true,
                Some(absent),
            ),
            ("url_encoded", "%2D%2D".into(), true, true, Some(absent)),
            (
                "url_encoded",
                stranger,
                true,
                true,
                Some("TLS certificate failed verification"),
            ),
        ];
        for (format, value, secure, trusted, expected) in cases {
            let plugin = world.link(
                entry(),
                json!({
                    "ca_certificates": [issuer.id], "revocation_check_mode": "SKIP",
                    "certificate_header_name": "X-Cert", "certificate_header_format": format,
                    "secure_source": secure,
                }),
            );
            let message = Message::get("/").header("x-cert", &value);
            let mut exchange = world.exchange_from(message, trusted);
            let flow = plugin.access(&mut exchange);
            let expected = expected.map(|text| (401, text.to_owned()));
            assert_eq!(refusal(&flow), expected, "{format} {secure} {trusted}");
        }
    }
}
