//! TLS in which both sides show certificates of one authority, replaced while connections run.
//!
//! Owns the contexts that a certificate and a set of roots make together, and the cell from which every handshake takes
//! the current ones. Chains are verified by the TLS library, purpose and name constraints included; whom a certificate
//! speaks for is told by a [`PeerJudge`], within the handshake. Refuses to know where certificates come from and who may
//! call whom. Start at [`MutualTls::build`] and [`MutualCell`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use arc_swap::ArcSwapOption;
use boring::error::ErrorStack;
use boring::ex_data::Index;
use boring::ssl::{
    AlpnError, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode, SslVersion, select_next_proto,
};
use boring::stack::Stack;
use boring::x509::store::{X509Store, X509StoreBuilder};
use boring::x509::verify::X509VerifyFlags;
use boring::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyError};
use pingora_core::utils::tls::CertKey;
use tokio::sync::watch;

use crate::base::certificate::{self, Purpose};
use crate::base::pem::KeyPair;

pub mod peer;
pub mod refusal;
pub mod secured;

pub use peer::{
    Admission, DialTarget, Dialer, Peer, PeerAuthority, PeerJudge, PeerNames, Review, Verdict,
};
pub use refusal::{Refusal, RefusalCounts};
pub use secured::{Secured, SecuredCounts};

/// TLS 1.2 ciphers: forward secrecy and authenticated encryption only.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
/// Names of a certificate that are looked at.
const NAMES_MAX: usize = 16;

/// Which protocols a side names by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// None: the bytes are the application's own.
    Nothing,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and HTTP/1.1 for those who lack it.
    Http2,
}

impl Offer {
    /// In wire form.
    fn protocols(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::Http1 => b"\x08http/1.1",
            Self::Http2 => b"\x02h2\x08http/1.1",
        }
    }
}

/// Certificates that end a chain.
pub struct Roots {
    certificates: Vec<X509>,
    store: X509Store,
}

/// One certificate of our own with the roots of everybody else's: what a handshake needs. Immutable.
pub struct MutualTls {
    /// Differs between any two of a process; connections made with another one are not to be reused.
    generation: u64,
    pair: KeyPair,
    roots: Arc<Roots>,
    stream: SslContext,
    http1: SslContext,
    http2: SslContext,
    client: SslContext,
    /// `pair` in the form that Pingora's connector wants.
    shown: Arc<CertKey>,
}

/// What became of judging a peer, kept with its TLS state.
struct Judged {
    judge: Arc<dyn PeerJudge>,
    outcome: OnceLock<Result<Arc<Peer>, Refusal>>,
}

/// Where the TLS library keeps [`Judged`] for each connection.
static JUDGED: LazyLock<Option<Index<Ssl, Judged>>> = LazyLock::new(|| Ssl::new_ex_index().ok());
/// Where it tells which connection a certificate is verified for.
static CONNECTION: LazyLock<Option<Index<X509StoreContext, SslRef>>> =
    LazyLock::new(|| X509StoreContext::ssl_idx().ok());

impl Roots {
    /// Roots that are trusted, each for itself. Repeated ones count once.
    pub fn new(certificates: Vec<X509>) -> Result<Self, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        let mut kept: Vec<X509> = Vec::new();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for certificate in certificates {
            let der = certificate.to_der()?;
            if seen.contains(&der) {
                continue;
            }
            store.add_cert(&certificate)?;
            seen.push(der);
            kept.push(certificate);
        }
        // A root need not be signed by itself: what is named is trusted.
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN);
        Ok(Self {
            certificates: kept,
            store: store.build(),
        })
    }

    /// The certificates, each once.
    pub fn certificates(&self) -> &[X509] {
        &self.certificates
    }

    /// Does a chain end here, with every certificate valid at this moment?
    pub fn verify(&self, pair: &KeyPair) -> Result<(), String> {
        let failed = |error: ErrorStack| error.to_string();
        let mut chain = Stack::new().map_err(failed)?;
        for certificate in &pair.chain {
            chain.push(certificate.clone()).map_err(failed)?;
        }
        let mut context = X509StoreContext::new().map_err(failed)?;
        let verdict = context
            .init(&self.store, &pair.leaf, &chain, |context| {
                let accepted = context.verify_cert()?;
                Ok((accepted, context.verify_result()))
            })
            .map_err(failed)?;
        match verdict {
            (true, Ok(())) => Ok(()),
            (_, Err(reason)) => Err(reason.error_string().to_owned()),
            (false, Ok(())) => Err("verification failed".to_owned()),
        }
    }
}

impl MutualTls {
    /// Builds the contexts. The error says what the TLS library refuses.
    pub fn build(pair: KeyPair, roots: Arc<Roots>) -> Result<Self, String> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let server = |offer| server_context(&pair, &roots, offer);
        let contexts = || -> Result<_, ErrorStack> {
            Ok((
                server(Offer::Nothing)?,
                server(Offer::Http1)?,
                server(Offer::Http2)?,
                client_context(&pair, &roots)?,
            ))
        };
        let (stream, http1, http2, client) =
            contexts().map_err(|error| format!("cannot set up mutual TLS: {error}"))?;
        let mut certificates = vec![pair.leaf.clone()];
        certificates.extend(pair.chain.iter().cloned());
        let shown = Arc::new(CertKey::new(certificates, pair.key.clone()));
        Ok(Self {
            shown,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            pair,
            roots,
            stream,
            http1,
            http2,
            client,
        })
    }

    /// Which one this is; see the field.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Our own certificates and their key.
    pub fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The roots of everybody else's.
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    /// Our own certificates in Pingora's form.
    pub fn shown(&self) -> &Arc<CertKey> {
        &self.shown
    }

    /// Who is at the other end of a connection that another connector has made, judged as those of
    /// [`MutualTls::connecting`] are: chain, purpose, identity.
    pub fn check_server(&self, ssl: &SslRef, judge: &dyn PeerJudge) -> Result<Peer, Refusal> {
        let failed = |error: ErrorStack| Refusal::Handshake(error.to_string());
        let leaf = ssl.peer_certificate().ok_or(Refusal::NoCertificate)?;
        let mut chain = Stack::new().map_err(failed)?;
        for certificate in ssl.peer_cert_chain().into_iter().flatten() {
            chain.push(certificate.to_owned()).map_err(failed)?;
        }
        let mut context = X509StoreContext::new().map_err(failed)?;
        let verdict = context
            .init(&self.roots.store, &leaf, &chain, |context| {
                let accepted = context.verify_cert()?;
                Ok((accepted, context.verify_result()))
            })
            .map_err(failed)?;
        match verdict {
            (true, Ok(())) => {}
            (_, Err(error)) => return Err(Refusal::of_chain(error)),
            (false, Ok(())) => return Err(Refusal::Chain("verification failed".to_owned())),
        }
        let der = leaf.to_der().map_err(failed)?;
        if !certificate::allows(&der, Purpose::Server) {
            return Err(Refusal::WrongPurpose);
        }
        judge.judge(&names(&leaf))
    }

    /// A connection's TLS state, ready to accept. The client must show a certificate that `judge` takes.
    pub fn accepting(&self, offer: Offer, judge: Arc<dyn PeerJudge>) -> Result<Ssl, String> {
        let context = match offer {
            Offer::Nothing => &self.stream,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
        };
        judged(context, judge)
    }

    /// A connection's TLS state, ready to connect. The server must show a certificate that `judge` takes.
    ///
    /// `server_name` is sent, not compared.
    pub fn connecting(
        &self,
        server_name: Option<&str>,
        offer: Offer,
        judge: Arc<dyn PeerJudge>,
    ) -> Result<Ssl, String> {
        let mut ssl = judged(&self.client, judge)?;
        let failed = |error: ErrorStack| format!("cannot set up mutual TLS: {error}");
        if let Some(name) = server_name {
            ssl.set_hostname(name).map_err(failed)?;
        }
        if offer != Offer::Nothing {
            ssl.set_alpn_protos(offer.protocols()).map_err(failed)?;
        }
        Ok(ssl)
    }

    /// What was found about the peer of a handshake: who it is, or why it was refused. None before its certificate
    /// came.
    pub fn outcome(ssl: &SslRef) -> Option<&Result<Arc<Peer>, Refusal>> {
        ssl.ex_data((*JUDGED)?)?.outcome.get()
    }
}

fn judged(context: &SslContext, judge: Arc<dyn PeerJudge>) -> Result<Ssl, String> {
    let failed = |error: ErrorStack| format!("cannot set up mutual TLS: {error}");
    let index = (*JUDGED).ok_or("cannot set up mutual TLS: the TLS library gives no room")?;
    let mut ssl = Ssl::new(context).map_err(failed)?;
    let judged = Judged {
        judge,
        outcome: OnceLock::new(),
    };
    ssl.set_ex_data(index, judged);
    Ok(ssl)
}

fn context(pair: &KeyPair, roots: &Roots) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_options(SslOptions::NO_RENEGOTIATION);
    // A resumed session would skip the look at the certificate.
    context.set_options(SslOptions::NO_TICKET);
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_cert_store_ref(&roots.store);
    context.set_certificate(&pair.leaf)?;
    for intermediate in &pair.chain {
        context.add_extra_chain_cert(intermediate.clone())?;
    }
    context.set_private_key(&pair.key)?;
    Ok(context)
}

fn server_context(pair: &KeyPair, roots: &Roots, offer: Offer) -> Result<SslContext, ErrorStack> {
    let mut context = context(pair, roots)?;
    let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    context.set_verify_callback(mode, verify);
    if offer != Offer::Nothing {
        let ours = offer.protocols();
        // Without a protocol in common the connection goes on without: it may be HTTP/1.1 all the same.
        context.set_alpn_select_callback(move |_, offered| {
            select_next_proto(ours, offered).ok_or(AlpnError::NOACK)
        });
    }
    Ok(context.build())
}

fn client_context(pair: &KeyPair, roots: &Roots) -> Result<SslContext, ErrorStack> {
    let mut context = context(pair, roots)?;
    context.set_verify_callback(SslVerifyMode::PEER, verify);
    Ok(context.build())
}

/// Called for each certificate of a chain, the leaf last, and for each fault.
fn verify(accepted: bool, context: &mut X509StoreContextRef) -> bool {
    let outcome = look(accepted, context);
    let Some(outcome) = outcome else {
        return true;
    };
    let good = outcome.is_ok();
    let kept = CONNECTION
        .and_then(|index| context.ex_data(index))
        .and_then(|ssl| ssl.ex_data((*JUDGED)?))
        .map(|judged| {
            // The first fault counts: the library goes on for some of them.
            let _ = judged.outcome.set(outcome);
            judged.outcome.get().is_some_and(Result::is_ok)
        });
    if kept == Some(true) {
        return true;
    }
    if good || context.verify_result().is_ok() {
        context.set_error(Err(X509VerifyError::APPLICATION_VERIFICATION));
    }
    false
}

/// What this call settles: nothing while the chain is still being walked.
fn look(accepted: bool, context: &mut X509StoreContextRef) -> Option<Result<Arc<Peer>, Refusal>> {
    if !accepted {
        let refusal = match context.verify_result() {
            Err(error) => Refusal::of_chain(error),
            Ok(()) => Refusal::Chain("verification failed".to_owned()),
        };
        return Some(Err(refusal));
    }
    if context.error_depth() != 0 {
        return None;
    }
    let Some(leaf) = context.current_cert() else {
        return Some(Err(Refusal::NoCertificate));
    };
    let names = names(leaf);
    let judge = CONNECTION
        .and_then(|index| context.ex_data(index))
        .and_then(|ssl| ssl.ex_data((*JUDGED)?))
        .map(|judged| Arc::clone(&judged.judge));
    Some(match judge {
        Some(judge) => judge.judge(&names).map(Arc::new),
        None => Err(Refusal::Chain("nobody judges this connection".to_owned())),
    })
}

fn names(leaf: &X509Ref) -> PeerNames {
    let alternative = leaf.subject_alt_names();
    let uris = alternative.iter().flatten();
    PeerNames {
        uris: uris
            .filter_map(|name| name.uri().map(str::to_owned))
            .take(NAMES_MAX)
            .collect(),
        serial: serial(leaf).unwrap_or_default(),
    }
}

/// The serial number as pairs of lower-case hex digits between colons.
fn serial(leaf: &X509Ref) -> Option<String> {
    let number = leaf.serial_number().to_bn().ok()?;
    let bytes = number.to_vec();
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(match pairs.is_empty() {
        true => "00".to_owned(),
        false => pairs.join(":"),
    })
}

/// The current contexts, none while there are none that can be used. Handshakes take them from here.
pub struct MutualCell {
    current: ArcSwapOption<MutualTls>,
    changes: watch::Sender<u64>,
}

impl Default for MutualCell {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
        }
    }
}

impl MutualCell {
    /// What counts for a handshake that begins now.
    pub fn load(&self) -> Option<Arc<MutualTls>> {
        self.current.load_full()
    }

    /// Replaces it; connections that stand stay as they are.
    pub fn store(&self, tls: Option<Arc<MutualTls>>) {
        let generation = tls.as_ref().map_or(0, |tls| tls.generation);
        self.current.store(tls);
        self.changes.send_replace(generation);
    }

    /// Tells the generation whenever it changes, 0 when there is none.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;
