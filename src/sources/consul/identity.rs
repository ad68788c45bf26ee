//! Who this service is in the mesh: roots and leaf, kept fresh, swapped into the cell that handshakes read.
//!
//! ```text
//! roots watch ─┐
//!              ├▶ settle: the newest leaf that verifies against the newest roots ─▶ MutualCell
//! leaf watch ──┘
//! ```
//!
//! Owns the order of a rotation: new roots count at once, a new leaf as soon as it verifies, the old leaf until then.
//! Refuses to serve with a leaf that does not verify or has expired. Start at [`MeshIdentity::start`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boring::asn1::Asn1Time;
use boring::x509::{X509, X509Ref};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::client::{AgentAnswer, decode, encode};
use super::watch::{Known, Style, Watch, Watches};
use crate::base::pem::{KeyPair, parse_certificates};
use crate::dialects::consul::answers;
use crate::runtime::mutual::{MutualCell, MutualTls, Roots};

/// How often it is looked whether time has made a certificate useless.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Certificates in all roots together; more are a mistake.
const ROOTS_MAX: usize = 256;
/// A leaf that ends sooner is told about in the log.
const EXPIRY_WARNING_SECONDS: i64 = 600;

/// The roots of the mesh, parsed.
pub struct MeshRoots {
    pub trust_domain: String,
    pub roots: Arc<Roots>,
    pems: Vec<String>,
}

impl PartialEq for MeshRoots {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.pems == other.pems
    }
}

/// A leaf with its key, parsed.
pub struct MeshLeaf {
    pair: KeyPair,
    uri: String,
    pem: String,
}

impl PartialEq for MeshLeaf {
    /// The key belongs to the certificate.
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

/// What is known about the identity now.
#[derive(Debug, Clone, Default)]
pub struct IdentityFacts {
    /// Why it cannot be used; none when it can.
    pub trouble: Option<String>,
    /// Empty before the first roots.
    pub trust_domain: String,
    pub roots: usize,
    /// The SPIFFE URI of the leaf in use.
    pub uri: String,
    /// Unix seconds from which and until which the leaf in use is valid.
    pub valid: Option<(i64, i64)>,
    /// Identities put into use since the start.
    pub rotations: u64,
}

/// The identity of one service.
pub struct MeshIdentity {
    pub service: String,
    cell: Arc<MutualCell>,
    facts: Arc<watch::Sender<Arc<IdentityFacts>>>,
    task: AbortHandle,
}

impl Drop for MeshIdentity {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The watch of the roots, one for everybody.
pub fn watch_roots(watches: &Watches) -> Arc<Watch<MeshRoots>> {
    watches.watch("/v1/agent/connect/ca/roots", Style::Index, decode_roots)
}

impl MeshIdentity {
    /// Watches roots and leaf from now on. Must be called within a runtime.
    pub fn start(watches: &Watches, service: &str) -> Arc<Self> {
        let roots = watch_roots(watches);
        let target = format!("/v1/agent/connect/ca/leaf/{}", encode(service));
        let leaf = watches.watch(&target, Style::Index, decode_leaf);
        let cell = Arc::new(MutualCell::default());
        let first = IdentityFacts {
            trouble: Some("the agent has not answered yet".to_owned()),
            ..IdentityFacts::default()
        };
        let facts = Arc::new(watch::Sender::new(Arc::new(first)));
        let keeper = Keeper {
            service: service.to_owned(),
            roots,
            leaf,
            cell: Arc::clone(&cell),
            facts: Arc::clone(&facts),
            serving: None,
            told: None,
            warned: false,
        };
        let task = tokio::spawn(keeper.run()).abort_handle();
        Arc::new(Self {
            service: service.to_owned(),
            cell,
            facts,
            task,
        })
    }

    /// From where handshakes take certificates.
    pub fn cell(&self) -> &Arc<MutualCell> {
        &self.cell
    }

    /// What is known now.
    pub fn facts(&self) -> Arc<IdentityFacts> {
        Arc::clone(&self.facts.borrow())
    }

    /// Tells when something else is known.
    pub fn changes(&self) -> watch::Receiver<Arc<IdentityFacts>> {
        self.facts.subscribe()
    }

    /// Waits until it can be used.
    pub async fn ready(&self) {
        let mut changes = self.cell.changes();
        // The sender lives as long as the cell.
        let _ = changes.wait_for(|generation| *generation != 0).await;
    }
}

/// The task behind an identity.
struct Keeper {
    service: String,
    roots: Arc<Watch<MeshRoots>>,
    leaf: Arc<Watch<MeshLeaf>>,
    cell: Arc<MutualCell>,
    facts: Arc<watch::Sender<Arc<IdentityFacts>>>,
    /// What the cell holds.
    serving: Option<Serving>,
    /// The trouble that the log knows about.
    told: Option<String>,
    warned: bool,
}

struct Serving {
    roots: Arc<MeshRoots>,
    leaf: Arc<MeshLeaf>,
}

impl Keeper {
    async fn run(mut self) {
        let mut roots = self.roots.changes();
        let mut leaf = self.leaf.changes();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            // The senders are held by the watches above.
            tokio::select! {
                _ = roots.changed() => {}
                _ = leaf.changed() => {}
                _ = looks.tick() => {}
            }
            self.settle();
        }
    }

    /// Chooses what counts from now on.
    fn settle(&mut self) {
        let (roots, leaf) = (self.roots.known(), self.leaf.known());
        match self.choose(&roots, &leaf) {
            Ok((roots, leaf)) => {
                let unchanged = self.serving.as_ref().is_some_and(|serving| {
                    Arc::ptr_eq(&serving.roots, &roots) && Arc::ptr_eq(&serving.leaf, &leaf)
                });
                if !unchanged {
                    self.install(roots, leaf);
                }
                self.watch_expiry();
            }
            Err(trouble) => self.give_up(trouble, &roots),
        }
    }

    /// The newest roots, and the newest leaf that verifies against them.
    fn choose(
        &self,
        roots: &Known<MeshRoots>,
        leaf: &Known<MeshLeaf>,
    ) -> Result<(Arc<MeshRoots>, Arc<MeshLeaf>), String> {
        let missing = |what: &str, trouble: Option<&super::watch::Trouble>| match trouble {
            Some(trouble) => format!("{what}: {}", trouble.error),
            None => format!("{what}: the agent has not answered yet"),
        };
        let newest = roots
            .value
            .clone()
            .ok_or_else(|| missing("no roots", roots.trouble.as_ref()))?;
        let fresh = leaf
            .value
            .clone()
            .ok_or_else(|| missing("no leaf certificate", leaf.trouble.as_ref()))?;
        let refused = match newest.roots.verify(&fresh.pair) {
            Ok(()) => return Ok((newest, fresh)),
            Err(refused) => refused,
        };
        // The leaf of a new authority may come before its root: the old one goes on.
        if let Some(serving) = &self.serving
            && newest.roots.verify(&serving.leaf.pair).is_ok()
        {
            return Ok((newest, Arc::clone(&serving.leaf)));
        }
        Err(format!(
            "the leaf certificate does not verify against the current roots: {refused}"
        ))
    }

    fn install(&mut self, roots: Arc<MeshRoots>, leaf: Arc<MeshLeaf>) {
        let tls = match MutualTls::build(leaf.pair.clone(), Arc::clone(&roots.roots)) {
            Ok(tls) => tls,
            Err(error) => {
                self.tell(&error);
                return;
            }
        };
        self.cell.store(Some(Arc::new(tls)));
        let before = Arc::clone(&self.facts.borrow());
        self.facts.send_replace(Arc::new(IdentityFacts {
            trouble: None,
            trust_domain: roots.trust_domain.clone(),
            roots: roots.roots.certificates().len(),
            uri: leaf.uri.clone(),
            valid: validity(&leaf.pair.leaf),
            rotations: before.rotations + 1,
        }));
        tracing::info!(
            service = %self.service,
            uri = %leaf.uri,
            roots = roots.roots.certificates().len(),
            intermediates = leaf.pair.chain.len(),
            "identity in use"
        );
        self.serving = Some(Serving { roots, leaf });
        self.told = None;
        self.warned = false;
    }

    /// There is nothing to serve with.
    fn give_up(&mut self, trouble: String, roots: &Known<MeshRoots>) {
        if self.serving.take().is_some() {
            self.cell.store(None);
        }
        let before = Arc::clone(&self.facts.borrow());
        let known = roots.value.as_ref();
        self.facts.send_replace(Arc::new(IdentityFacts {
            trust_domain: known.map_or_else(String::new, |roots| roots.trust_domain.clone()),
            roots: known.map_or(0, |roots| roots.roots.certificates().len()),
            trouble: Some(trouble.clone()),
            uri: String::new(),
            valid: None,
            rotations: before.rotations,
        }));
        self.tell(&trouble);
    }

    fn tell(&mut self, trouble: &str) {
        if self.told.as_deref() != Some(trouble) {
            tracing::warn!(service = %self.service, "no identity in the mesh: {trouble}");
            self.told = Some(trouble.to_owned());
        }
    }

    fn watch_expiry(&mut self) {
        let Some((_, end)) = self.facts.borrow().valid else {
            return;
        };
        let left = end - unix_now();
        if left < EXPIRY_WARNING_SECONDS && !self.warned {
            tracing::warn!(service = %self.service, seconds = left, "the leaf certificate expires soon");
            self.warned = true;
        }
    }
}

/// Unix seconds.
pub(super) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// Unix seconds from which and until which a certificate is valid.
fn validity(certificate: &X509Ref) -> Option<(i64, i64)> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let seconds = |time: &boring::asn1::Asn1TimeRef| {
        let since = epoch.diff(time).ok()?;
        Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
    };
    Some((
        seconds(certificate.not_before())?,
        seconds(certificate.not_after())?,
    ))
}

fn decode_roots(answer: &AgentAnswer) -> Result<MeshRoots, String> {
    let read: answers::Roots = decode(&answer.body)?;
    if read.trust_domain.is_empty() || read.roots.is_empty() {
        return Err("there are no roots: Connect is not enabled or not bootstrapped".to_owned());
    }
    let mut certificates: Vec<X509> = Vec::new();
    let mut pems = Vec::new();
    for root in read.roots {
        let parsed = parse_certificates(&root.root_cert)
            .map_err(|error| format!("root '{}': {error}", root.id))?;
        certificates.extend(parsed);
        if certificates.len() > ROOTS_MAX {
            return Err(format!("more than {ROOTS_MAX} roots"));
        }
        pems.push(root.root_cert);
    }
    let roots = Roots::new(certificates).map_err(|error| error.to_string())?;
    Ok(MeshRoots {
        trust_domain: read.trust_domain,
        roots: Arc::new(roots),
        pems,
    })
}

fn decode_leaf(answer: &AgentAnswer) -> Result<MeshLeaf, String> {
    // The text of the key is overwritten when it is dropped at the end of this function.
    let read: answers::Leaf = decode(&answer.body)?;
    let pair = KeyPair::parse(&read.cert_pem, &read.private_key_pem)
        .map_err(|error| format!("the leaf certificate: {error}"))?;
    Ok(MeshLeaf {
        pair,
        uri: read.service_uri,
        pem: read.cert_pem,
    })
}
