//! TLS towards upstreams: what to verify, whom to trust, what to show, ready for connections.
//!
//! Owns the linked form of [`UpstreamTlsPlan`] and the trust that holds where a plan names none. Refuses to know how a
//! connection is made and pooled: it hands out an [`Ssl`] for each connection, the parts that Pingora's connector wants,
//! and one number that tells which connections may be shared. Start at [`UpstreamTls::link`].

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use boring::error::ErrorStack;
use boring::ex_data::Index;
use boring::ssl::{
    Ssl, SslAlert, SslContext, SslMethod, SslRef, SslVerifyError, SslVerifyMode, SslVersion,
};
use boring::x509::X509;
use pingora_core::utils::tls::CertKey;
use sha2::{Digest, Sha256};

use crate::base::pem::KeyPair;
use crate::model::plan::{KeyPairPlan, PeerRule, TlsVersion, UpstreamTlsPlan};
use crate::runtime::live::Live;

mod judge;
mod trust;

pub use trust::{Trust, system_bundle};

use judge::Judge;
use trust::Anchors;

/// Longest chain of intermediates where the plan does not say.
const VERIFY_DEPTH: u8 = 1;

/// Where a handshake leaves why it refused its peer.
static REFUSAL: LazyLock<Option<Index<Ssl, String>>> = LazyLock::new(|| Ssl::new_ex_index().ok());

/// TLS towards the upstreams of a forward. Forwards with the same settings share one.
pub struct UpstreamTls {
    context: SslContext,
    /// `None` accepts every peer.
    judge: Option<Arc<Judge>>,
    client: Option<Arc<CertKey>>,
    /// Are versions or ciphers chosen, which Pingora's connector cannot do?
    restricted: bool,
    identity: u64,
}

impl UpstreamTls {
    /// Builds what connections of this plan need, or finds it where another forward has the same.
    ///
    /// `inherited` is the client certificate that counts when the plan has none: the cluster's, else the global one.
    /// The error says what is wrong with which certificate.
    pub fn link(
        plan: &UpstreamTlsPlan,
        inherited: Option<&Arc<KeyPairPlan>>,
        trust: &Trust,
        live: &Live,
    ) -> Result<Arc<Self>, String> {
        let client = plan.client_certificate.as_ref().or(inherited);
        let digest = digest(plan, client.map(|pair| &**pair), trust);
        let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        live.try_keep(key, || Self::build(plan, client, trust, &digest))
    }

    fn build(
        plan: &UpstreamTlsPlan,
        client: Option<&Arc<KeyPairPlan>>,
        trust: &Trust,
        digest: &[u8; 32],
    ) -> Result<Self, String> {
        let anchors = match (plan.verify.unwrap_or(false), plan.authorities.as_slice()) {
            (false, _) => None,
            (true, []) => Some(trust.anchors()?),
            (true, authorities) => Some(
                Anchors::parse(authorities).map_err(|error| format!("ca certificate: {error}"))?,
            ),
        };
        let client = client
            .map(|pair| KeyPair::parse(&pair.certificate, pair.key.expose()))
            .transpose()
            .map_err(|error| format!("client certificate: {error}"))?;
        let judge = anchors.map(|anchors| {
            Arc::new(Judge {
                anchors,
                depth: plan.verify_depth.unwrap_or(VERIFY_DEPTH),
                rule: plan.peer.clone(),
            })
        });
        let context = context(plan, client.as_ref())?;
        let client = client.map(|pair| {
            // Pingora wants at least one certificate, the leaf first.
            let mut certificates = vec![pair.leaf];
            certificates.extend(pair.chain);
            Arc::new(CertKey::new(certificates, pair.key))
        });
        let identity = digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self {
            context,
            judge,
            client,
            restricted: !plan.versions.is_empty() || !plan.ciphers.is_empty(),
            identity,
        })
    }

    /// A connection's TLS state, ready to connect; its handshake fails where the peer is not accepted, and
    /// [`UpstreamTls::refusal`] tells why.
    ///
    /// `name` is the upstream's host name without port, or its IP address: it is sent as server name (names only) and
    /// checked against the certificate. `protocols` are offered by ALPN in wire form (`\x02h2\x08http/1.1`); empty offers
    /// none. Verification of names without a name is refused: it would accept any certificate of any trusted authority.
    pub fn connection(&self, name: &str, protocols: &[u8]) -> Result<Ssl, String> {
        let failed = |error: ErrorStack| format!("cannot set up TLS towards '{name}': {error}");
        let name = plain_name(name);
        let mut ssl = Ssl::new(&self.context).map_err(failed)?;
        if !name.is_empty() && name.parse::<IpAddr>().is_err() {
            ssl.set_hostname(name).map_err(failed)?;
        }
        match &self.judge {
            None => ssl.set_verify(SslVerifyMode::NONE),
            Some(judge) => {
                judge.can_judge(name)?;
                let (judge, name) = (Arc::clone(judge), name.to_owned());
                ssl.set_custom_verify_callback(SslVerifyMode::PEER, move |ssl| {
                    judge.check(ssl, &name).map_err(|reason| {
                        if let Some(index) = *REFUSAL {
                            ssl.set_ex_data(index, reason);
                        }
                        SslVerifyError::Invalid(SslAlert::BAD_CERTIFICATE)
                    })
                });
            }
        }
        if !protocols.is_empty() {
            ssl.set_alpn_protos(protocols).map_err(failed)?;
        }
        Ok(ssl)
    }

    /// Why a handshake of [`UpstreamTls::connection`] refused its peer; `None` when it failed for another reason.
    pub fn refusal(ssl: &SslRef) -> Option<&str> {
        ssl.ex_data((*REFUSAL)?).map(String::as_str)
    }

    /// Does a peer after a handshake meet all that [`UpstreamTls::connection`] demands? For connections that another
    /// connector made, which can check neither depth nor addresses nor rules other than names.
    pub fn check_peer(&self, ssl: &SslRef, name: &str) -> Result<(), String> {
        match &self.judge {
            None => Ok(()),
            Some(judge) => {
                let name = plain_name(name);
                judge.can_judge(name)?;
                judge.check(ssl, name)
            }
        }
    }

    /// Is the upstream's certificate verified?
    pub fn verifies(&self) -> bool {
        self.judge.is_some()
    }

    /// Are versions or ciphers prescribed? Only [`UpstreamTls::connection`] can keep to them.
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// The trust anchors in Pingora's form; present when the certificate is verified.
    pub fn authorities(&self) -> Option<&Arc<Box<[X509]>>> {
        self.judge.as_ref().map(|judge| &judge.anchors.certificates)
    }

    /// The client certificate in Pingora's form.
    pub fn client_certificate(&self) -> Option<&Arc<CertKey>> {
        self.client.as_ref()
    }

    /// Everything here that makes a connection unfit for another forward, hashed: verification, depth, rule, trust,
    /// versions, ciphers and client certificate. Equal settings give equal numbers. Names and application protocols are
    /// not in it.
    pub fn identity(&self) -> u64 {
        self.identity
    }
}

fn context(plan: &UpstreamTlsPlan, client: Option<&KeyPair>) -> Result<SslContext, String> {
    let failed = |error: ErrorStack| format!("cannot set up TLS towards upstreams: {error}");
    let mut context = SslContext::builder(SslMethod::tls()).map_err(failed)?;
    let lowest = plan.versions.iter().min().unwrap_or(&TlsVersion::Tls1_2);
    let highest = plan.versions.iter().max().unwrap_or(&TlsVersion::Tls1_3);
    context
        .set_min_proto_version(Some(version(*lowest)))
        .and_then(|()| context.set_max_proto_version(Some(version(*highest))))
        .map_err(failed)?;
    if !plan.ciphers.is_empty() {
        let list = plan.ciphers.join(":");
        context
            .set_cipher_list(&list)
            .map_err(|_| format!("none of the ciphers '{list}' is known to the TLS library"))?;
    }
    if let Some(pair) = client {
        let mut show = || -> Result<(), ErrorStack> {
            context.set_certificate(&pair.leaf)?;
            for intermediate in &pair.chain {
                context.add_extra_chain_cert(intermediate.clone())?;
            }
            context.set_private_key(&pair.key)
        };
        show().map_err(|error| format!("client certificate: {error}"))?;
    }
    Ok(context.build())
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls1_0 => SslVersion::TLS1,
        TlsVersion::Tls1_1 => SslVersion::TLS1_1,
        TlsVersion::Tls1_2 => SslVersion::TLS1_2,
        TlsVersion::Tls1_3 => SslVersion::TLS1_3,
    }
}

/// Without the brackets of an IPv6 address and the final dot of a name, neither of which stand in certificates.
fn plain_name(name: &str) -> &str {
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.strip_suffix('.').unwrap_or(name)
}

/// Of everything that decides what a connection is.
fn digest(plan: &UpstreamTlsPlan, client: Option<&KeyPairPlan>, trust: &Trust) -> [u8; 32] {
    let verify = plan.verify.unwrap_or(false);
    let mut hasher = Sha256::new();
    // Each part is preceded by its length, so that no two lists of parts run into the same bytes.
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(&[u8::from(verify)]);
    if verify {
        add(&[plan.verify_depth.unwrap_or(VERIFY_DEPTH)]);
        match &plan.peer {
            PeerRule::Name => add(b"name"),
            PeerRule::UriIn(uris) => {
                add(b"uri");
                for uri in uris {
                    add(uri.as_bytes());
                }
            }
            PeerRule::CommonName { name, wildcard } => {
                add(b"common name");
                add(name.as_bytes());
                add(&[u8::from(*wildcard)]);
            }
        }
        add(b"authorities");
        match plan.authorities.as_slice() {
            [] => add(&trust.fingerprint),
            authorities => {
                for authority in authorities {
                    add(authority.as_bytes());
                }
            }
        }
    }
    // Words keep the parts of one list apart from those of the next.
    add(b"versions");
    for version in &plan.versions {
        add(&[*version as u8]);
    }
    add(b"ciphers");
    for cipher in &plan.ciphers {
        add(cipher.as_bytes());
    }
    add(b"client");
    if let Some(client) = client {
        add(client.certificate.as_bytes());
        add(client.key.expose().as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
