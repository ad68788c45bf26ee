//! `mtls-auth`: callers present a certificate in the TLS handshake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::config_record;
use crate::model::catalog::PluginInfo;
use crate::model::plan::InstancePlan;
use crate::plugins::shared::certificate_auth::{
    CertificateAuth, ConsumerBy, GroupBy, RevocationMode, Rules,
};
use crate::plugins::shared::configuration::{PROXY_UNSUPPORTED, no_proxy, read};
use crate::runtime::certificate_requests::CertificateRequest;
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::contract::{Flow, LinkContext, Needs, Phases, Plugin, PluginEntry};
use crate::runtime::exchange::Exchange;
use crate::runtime::revocation::Asking;

/// The mechanism under which credentials are looked up.
const KIND: &str = "mtls-auth";

config_record! {
    /// Authenticates callers by the certificate that they show in the TLS handshake.
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
        /// Tell clients the names of `ca_certificates` in the handshake, so that they choose a fitting certificate.
        send_ca_dn: Option<bool> = boolean().default(false),
        /// Id or user name of the consumer for valid certificates that stand for no other consumer.
        default_consumer: Option<String> = string(),
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

/// The line in the table of plugins.
pub(crate) fn entry() -> PluginEntry {
    PluginEntry {
        info: PluginInfo::new("mtls-auth", 1600, Config::schema())
            .without_consumer()
            .credentials(&["mtls_auth_credentials"])
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
    let named = match config.send_ca_dn {
        Some(true) => config.ca_certificates.clone(),
        _ => Vec::new(),
    };
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
    Ok(Arc::new(MtlsAuth {
        auth: CertificateAuth::link(rules, context)?,
        request: CertificateRequest {
            authorities: named,
            ..CertificateRequest::default()
        },
    }))
}

pub(super) fn milliseconds(number: Option<f64>) -> Duration {
    let seconds = number.unwrap_or(0.0) / 1000.0;
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

struct MtlsAuth {
    auth: CertificateAuth,
    request: CertificateRequest,
}

#[async_trait]
impl Plugin for MtlsAuth {
    fn phases(&self) -> Phases {
        match self.auth.waits() {
            true => Phases::ACCESS_ASYNC,
            false => Phases::ACCESS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn certificate_request(&self) -> Option<CertificateRequest> {
        Some(self.request.clone())
    }

    fn access(&self, exchange: &mut Exchange) -> Flow {
        let shown = shown(exchange);
        self.auth.access(exchange, shown)
    }

    async fn access_async(&self, exchange: &mut Exchange) -> Flow {
        let shown = shown(exchange);
        self.auth.access_async(exchange, shown).await
    }
}

fn shown(exchange: &Exchange) -> Option<Arc<ClientCertificate>> {
    exchange.connection.tls.get()?.client_certificate.clone()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use serde_json::json;

    use super::*;
    use crate::plugins::test_support::{Issuer, Message, World, refusal};

    fn certificate(pair: &crate::base::self_signed::PemPair) -> Arc<ClientCertificate> {
        let mut all = crate::base::pem::parse_certificates(&pair.certificate).unwrap();
        Arc::new(ClientCertificate::new(all.remove(0), all))
    }

    #[test]
    fn finds_who_a_certificate_stands_for() {
        let (issuer, stranger) = (Issuer::new("ours"), Issuer::new("theirs"));
        let key = crate::dialects::kong::compile::principal::certificate_key;
        let mapped = key("mapped.test", Some(issuer.id));
        let elsewhere = key("elsewhere.test", Some(stranger.id));
        let world = World::new()
            .authority(&issuer)
            .principal("alice", &[])
            .principal("by-name.test", &[])
            .principal("guest", &[])
            .credential(KIND, &mapped, "alice", None)
            .credential(KIND, &elsewhere, "alice", None)
            .credential(KIND, &key("any.test", None), "alice", None);
        let ours = json!({"ca_certificates": [issuer.id], "revocation_check_mode": "SKIP"});
        let with = |field: &str, value: serde_json::Value| {
            let mut config = ours.clone();
            config[field] = value;
            config
        };
        let failed = Some("TLS certificate failed verification");
        let cases = [
            (ours.clone(), Some((&issuer, "mapped.test")), Ok("alice")),
            (ours.clone(), Some((&issuer, "any.test")), Ok("alice")),
            (
                ours.clone(),
                Some((&issuer, "by-name.test")),
                Ok("by-name.test"),
            ),
            (ours.clone(), Some((&issuer, "elsewhere.test")), Err(failed)),
            (ours.clone(), Some((&issuer, "nobody.test")), Err(failed)),
            (ours.clone(), Some((&stranger, "mapped.test")), Err(failed)),
            (
                ours.clone(),
                None,
                Err(Some("No required TLS certificate was sent")),
            ),
            (
                with("consumer_by", json!(["custom_id"])),
                Some((&issuer, "by-name.test")),
                Err(failed),
            ),
            (
                with("default_consumer", json!("guest")),
                Some((&issuer, "nobody.test")),
                Ok("guest"),
            ),
            (
                with("default_consumer", json!("guest")),
                Some((&stranger, "nobody.test")),
                Err(failed),
            ),
            (with("anonymous", json!("guest")), None, Ok("guest")),
            (
                with("ca_certificates", json!([Uuid::from_u128(9)])),
                Some((&issuer, "mapped.test")),
                Err(failed),
            ),
        ];
        for (config, shown, expected) in cases {
            let plugin = world.link(entry(), config.clone());
            let shown = shown.map(|(issuer, name)| certificate(&issuer.issue(name)));
            let mut exchange = world.secure_exchange(Message::get("/"), shown);
            let flow = plugin.access(&mut exchange);
            match expected {
                Ok(name) => {
                    assert_eq!(refusal(&flow), None, "{config}");
                    let headers = &exchange.request.headers;
                    assert_eq!(headers["x-consumer-username"], name, "{config}");
                }
                Err(message) => {
                    let expected = message.map(|text| (401, text.to_owned()));
                    assert_eq!(refusal(&flow), expected, "{config}");
                }
            }
        }
    }

    #[test]
    fn tells_names_and_groups_without_looking_for_a_consumer() {
        let issuer = Issuer::new("ours");
        let world = World::new().authority(&issuer);
        for (by, group) in [("CN", "a.test"), ("DN", "CN=a.test,O=Sallyport")] {
            let plugin = world.link(
                entry(),
                json!({
                    "ca_certificates": [issuer.id], "revocation_check_mode": "SKIP",
                    "skip_consumer_lookup": true, "authenticated_group_by": by,
                }),
            );
            let shown = Some(certificate(&issuer.issue("a.test")));
            let message = Message::get("/").header("x-client-cert-dn", "CN=forged");
            let mut exchange = world.secure_exchange(message, shown);
            assert_eq!(refusal(&plugin.access(&mut exchange)), None);
            let headers = &exchange.request.headers;
            assert_eq!(headers["x-client-cert-dn"], "CN=a.test,O=Sallyport");
            assert_eq!(headers["x-client-cert-san"], "a.test");
            assert_eq!(&*exchange.identity.groups[0], group);
        }
    }

    #[test]
    fn asks_by_name_of_authority_only_when_told() {
        let issuer = Issuer::new("ours");
        let world = World::new().authority(&issuer);
        for (send, expected) in [(false, vec![]), (true, vec![issuer.id])] {
            let config = json!({"ca_certificates": [issuer.id], "send_ca_dn": send});
            let plugin = world.link(entry(), config);
            let request = plugin.certificate_request().unwrap();
            assert_eq!(request.authorities, expected);
        }
        let refused = world.refused(
            entry(),
            json!({"ca_certificates": [issuer.id], "http_proxy_host": "p.test"}),
        );
        let text = refused.to_string();
        assert!(text.contains("proxy is not supported"), "{text}");
    }
}
