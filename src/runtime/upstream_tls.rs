//! TLS towards upstreams: what to verify, whom to trust, what to show, ready for connections.
//!
//! Owns the linked form of [`UpstreamTlsPlan`] and the trust that holds where a plan names none. Refuses to know how a
//! connection is made and pooled: it hands out an [`Ssl`] for each connection, the parts that Pingora's connector wants,
//! and one number that tells which connections may be shared. Start at [`UpstreamTls::link`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use boring::error::ErrorStack;
use boring::ssl::{Ssl, SslContext, SslMethod, SslRef, SslVerifyMode, SslVersion};
use boring::stack::Stack;
use boring::x509::store::{X509Store, X509StoreBuilder};
use boring::x509::verify::{X509CheckFlags, X509VerifyParamRef};
use boring::x509::{X509, X509StoreContext};
use pingora_core::utils::tls::CertKey;
use sha2::{Digest, Sha256};

use crate::base::pem::{KeyPair, parse_certificates};
use crate::model::plan::{KeyPairPlan, UpstreamTlsPlan};
use crate::runtime::live::Live;

/// Longest chain of intermediates where the plan does not say.
const VERIFY_DEPTH: u8 = 1;

/// Where systems keep the certificates that they trust, the usual places first.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another bundle; as OpenSSL has it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";
/// Largest bundle that is read, in bytes.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// Trust for upstreams whose plan names no authorities: configured anchors, or the system's.
pub struct Trust {
    pem: Arc<str>,
    fingerprint: [u8; 32],
    anchors: OnceLock<Result<Anchors, String>>,
}

/// Certificates that end a chain.
#[derive(Clone)]
struct Anchors {
    certificates: Arc<Box<[X509]>>,
    store: X509Store,
}

impl Trust {
    /// Trust in these PEM certificates; an empty text is the system's trust, read when it is first needed.
    pub fn link(pem: &Arc<str>) -> Result<Arc<Self>, String> {
        let trust = Self {
            pem: Arc::clone(pem),
            fingerprint: Sha256::digest(pem.as_bytes()).into(),
            anchors: OnceLock::new(),
        };
        if !pem.is_empty() {
            trust.anchors()?;
        }
        Ok(Arc::new(trust))
    }

    fn anchors(&self) -> Result<Anchors, String> {
        let read = || {
            if self.pem.is_empty() {
                let (path, text) = system_bundle()?;
                Anchors::parse(&[text.into()])
                    .map_err(|error| format!("trusted certificates of {}: {error}", path.display()))
            } else {
                Anchors::parse(&[Arc::clone(&self.pem)])
                    .map_err(|error| format!("trusted certificates: {error}"))
            }
        };
        self.anchors.get_or_init(read).clone()
    }
}

impl Anchors {
    fn parse(pems: &[Arc<str>]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for pem in pems {
            certificates.extend(parse_certificates(pem).map_err(|error| error.to_string())?);
        }
        let store = || {
            let mut store = X509StoreBuilder::new()?;
            for certificate in &certificates {
                store.add_cert(certificate)?;
            }
            Ok(store.build())
        };
        let store = store().map_err(|error: ErrorStack| error.to_string())?;
        Ok(Self {
            certificates: Arc::new(certificates.into_boxed_slice()),
            store,
        })
    }
}

pub fn system_bundle() -> Result<(PathBuf, String), String> {
    use std::io::Read;

    let paths = match std::env::var_os(BUNDLE_VARIABLE) {
        Some(path) => vec![PathBuf::from(path)],
        None => SYSTEM_BUNDLES.iter().map(PathBuf::from).collect(),
    };
    for path in &paths {
        let mut text = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(BUNDLE_BYTES_MAX).read_to_end(&mut text));
        if read.is_ok() {
            return Ok((path.clone(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Err(format!(
        "cannot read the system's trusted certificates, looked for {}; install them, name a file in {BUNDLE_VARIABLE}, \
         or configure the trusted certificates",
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    ))
}

/// TLS towards the upstreams of a forward. Forwards with the same settings share one.
pub struct UpstreamTls {
    context: SslContext,
    verify: bool,
    depth: u8,
    anchors: Option<Anchors>,
    client: Option<Arc<CertKey>>,
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
        let verify = plan.verify.unwrap_or(false);
        let anchors = match (verify, plan.authorities.as_slice()) {
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
        let depth = plan.verify_depth.unwrap_or(VERIFY_DEPTH);
        let context = context(depth, anchors.as_ref(), client.as_ref())
            .map_err(|error| format!("cannot set up TLS towards upstreams: {error}"))?;
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
            verify,
            depth,
            anchors,
            client,
            identity,
        })
    }

    /// A connection's TLS state, ready to connect.
    ///
    /// `name` is the upstream's host name without port, or its IP address: it is sent as server name (names only) and
    /// checked against the certificate. `protocols` are offered by ALPN in wire form (`\x02h2\x08http/1.1`); empty offers
    /// none. Verification without a name is refused: it would accept any certificate of any trusted authority.
    pub fn connection(&self, name: &str, protocols: &[u8]) -> Result<Ssl, String> {
        let failed = |error: ErrorStack| format!("cannot set up TLS towards '{name}': {error}");
        let name = plain_name(name);
        if self.verify && name.is_empty() {
            return Err(NAMELESS.to_owned());
        }
        let mut ssl = Ssl::new(&self.context).map_err(failed)?;
        if !name.is_empty() && name.parse::<IpAddr>().is_err() {
            ssl.set_hostname(name).map_err(failed)?;
        }
        if self.verify {
            expect_name(ssl.verify_param_mut(), name).map_err(failed)?;
        }
        if !protocols.is_empty() {
            ssl.set_alpn_protos(protocols).map_err(failed)?;
        }
        Ok(ssl)
    }

    /// Does a peer after a handshake meet all that [`UpstreamTls::connection`] demands? For connections that another
    /// connector made, which can check neither depth nor addresses.
    pub fn check_peer(&self, ssl: &SslRef, name: &str) -> Result<(), String> {
        let Some(anchors) = self.anchors.as_ref().filter(|_| self.verify) else {
            return Ok(());
        };
        let name = plain_name(name);
        if name.is_empty() {
            return Err(NAMELESS.to_owned());
        }
        let leaf = ssl
            .peer_certificate()
            .ok_or("the upstream shows no certificate")?;
        let failed = |error: ErrorStack| format!("cannot verify '{name}': {error}");
        let mut chain = Stack::new().map_err(failed)?;
        for certificate in ssl.peer_cert_chain().into_iter().flatten() {
            chain.push(certificate.to_owned()).map_err(failed)?;
        }
        let mut verification = X509StoreContext::new().map_err(failed)?;
        let verdict = verification
            .init(&anchors.store, &leaf, &chain, |context| {
                let parameters = context.verify_param_mut();
                parameters.set_depth(self.depth.into());
                expect_name(parameters, name)?;
                let accepted = context.verify_cert()?;
                Ok((accepted, context.verify_result()))
            })
            .map_err(failed)?;
        match verdict {
            (true, Ok(())) => Ok(()),
            (_, Err(reason)) => Err(format!(
                "the certificate of '{name}' is not accepted: {}",
                reason.error_string()
            )),
            (false, Ok(())) => Err(format!("the certificate of '{name}' is not accepted")),
        }
    }

    /// Is the upstream's certificate verified?
    pub fn verifies(&self) -> bool {
        self.verify
    }

    /// Longest accepted chain of intermediates.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The trust anchors in Pingora's form; present when the certificate is verified.
    pub fn authorities(&self) -> Option<&Arc<Box<[X509]>>> {
        self.anchors.as_ref().map(|anchors| &anchors.certificates)
    }

    /// The client certificate in Pingora's form.
    pub fn client_certificate(&self) -> Option<&Arc<CertKey>> {
        self.client.as_ref()
    }

    /// Everything here that makes a connection unfit for another forward, hashed: verification, depth, trust and client
    /// certificate. Equal settings give equal numbers. Names and protocols are not in it.
    pub fn identity(&self) -> u64 {
        self.identity
    }
}

const NAMELESS: &str = "the upstream's certificate cannot be verified without a host name";

fn context(
    depth: u8,
    anchors: Option<&Anchors>,
    client: Option<&KeyPair>,
) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    match anchors {
        Some(anchors) => {
            context.set_cert_store_ref(&anchors.store);
            context.set_verify_depth(depth.into());
            context.set_verify(SslVerifyMode::PEER);
        }
        None => context.set_verify(SslVerifyMode::NONE),
    }
    if let Some(pair) = client {
        context.set_certificate(&pair.leaf)?;
        for intermediate in &pair.chain {
            context.add_extra_chain_cert(intermediate.clone())?;
        }
        context.set_private_key(&pair.key)?;
    }
    Ok(context.build())
}

/// Demands that the certificate be for this name or address.
fn expect_name(parameters: &mut X509VerifyParamRef, name: &str) -> Result<(), ErrorStack> {
    parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match name.parse::<IpAddr>() {
        Ok(address) => parameters.set_ip(address),
        Err(_) => parameters.set_host(name),
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
        match plan.authorities.as_slice() {
            [] => add(&trust.fingerprint),
            authorities => {
                for authority in authorities {
                    add(authority.as_bytes());
                }
            }
        }
    }
    // Keeps a client certificate apart from an authority.
    add(b"client");
    if let Some(client) = client {
        add(client.certificate.as_bytes());
        add(client.key.expose().as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
