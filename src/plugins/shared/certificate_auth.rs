//! Callers who prove themselves with a certificate: verification, revocation, and who the certificate stands for.
//!
//! Two plugins share it: one takes the certificate from the TLS connection, the other from a header that a trusted proxy
//! has set. What differs is where the certificate comes from; that they know, this does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use uuid::Uuid;

use super::headers::set_request;
use super::identity::{Anonymous, authenticate};
use crate::base::certificate::{AlternativeNames, common_name, distinguished_name};
use crate::base::secret::Secret;
use crate::dialects::kong::compile::principal::certificate_key;
use crate::model::plan::CredentialPlan;
use crate::runtime::authorities::{TrustSet, VerifiedChain};
use crate::runtime::client_certificate::ClientCertificate;
use crate::runtime::contract::{Flow, LinkContext};
use crate::runtime::exchange::Exchange;
use crate::runtime::fault::Fault;
use crate::runtime::revocation::{Asking, Revocation, Status};
use crate::runtime::snapshot::{Credential, Principal, Snapshot};

const DN: &str = "X-Client-Cert-Dn";
const SAN: &str = "X-Client-Cert-San";
const DN_KEY: HeaderName = HeaderName::from_static("x-client-cert-dn");
const SAN_KEY: HeaderName = HeaderName::from_static("x-client-cert-san");

/// What callers without a certificate are told.
pub(crate) const ABSENT: &str = "No required TLS certificate was sent";
/// What callers are told whose certificate is not accepted. Kong tells no reason; it is in the log.
const REFUSED: &str = "TLS certificate failed verification";
/// Names of principals that are remembered for one instance.
const REMEMBERED_MAX: usize = 10_000;

/// What came of the verification of a certificate: left in the exchange for its log entry.
pub(crate) struct Verification(pub(crate) Result<(), String>);

/// What happens when revocation cannot be found out. Kong: `revocation_check_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum RevocationMode {
    /// Nobody is asked.
    Skip,
    /// Only certificates that are known to be revoked are refused.
    IgnoreCaError,
    /// Only certificates that are known not to be revoked are accepted.
    Strict,
}

/// What of a certificate names a group. Kong: `authenticated_group_by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(crate) enum GroupBy {
    #[serde(rename = "CN")]
    CommonName,
    #[serde(rename = "DN")]
    DistinguishedName,
}

/// By which of its names a principal may be found. Kong: `consumer_by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerBy {
    Username,
    CustomId,
}

/// The rules of one instance.
pub(crate) struct Rules {
    /// The mechanism under which names are looked up.
    pub(crate) kind: &'static str,
    pub(crate) authorities: Vec<Uuid>,
    pub(crate) partial_chains: bool,
    /// Accept every verified certificate, and do not look for a principal.
    pub(crate) skip_consumer_lookup: bool,
    pub(crate) consumer_by: Vec<ConsumerBy>,
    pub(crate) group_by: Option<GroupBy>,
    pub(crate) anonymous: Option<String>,
    pub(crate) default_consumer: Option<String>,
    pub(crate) revocation: RevocationMode,
    pub(crate) asking: Asking,
    /// How long a principal that was found by its name is remembered.
    pub(crate) remember: Duration,
}

/// Verifies certificates and finds who they stand for.
pub(crate) struct CertificateAuth {
    rules: Rules,
    /// Tells this instance's verdicts from those of others.
    number: u64,
    trust: ArcSwapOption<Trust>,
    revocation: Option<Arc<Revocation>>,
    anonymous: Option<Anonymous>,
    default_consumer: Option<Anonymous>,
    found: Mutex<AHashMap<Box<str>, Found>>,
}

struct Trust {
    generation: u64,
    set: TrustSet,
}

/// A principal found by name, or that there was none in a revision.
struct Found {
    principal: Option<Uuid>,
    revision: u64,
    at: Instant,
}

impl CertificateAuth {
    pub(crate) fn link(rules: Rules, context: &LinkContext<'_>) -> Result<Self, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let revocation = match rules.revocation {
            RevocationMode::Skip => None,
            _ => Some(Revocation::shared(
                context.client,
                &context.serving.trust,
                context.live,
            )?),
        };
        Ok(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            trust: ArcSwapOption::empty(),
            revocation,
            anonymous: rules.anonymous.clone().map(Anonymous::new),
            default_consumer: rules.default_consumer.clone().map(Anonymous::new),
            found: Mutex::default(),
            rules,
        })
    }

    /// Has authentication to wait for others?
    pub(crate) fn waits(&self) -> bool {
        self.revocation.is_some()
    }

    /// Authenticates without asking about revocation.
    pub(crate) fn access(
        &self,
        exchange: &mut Exchange,
        shown: Option<Arc<ClientCertificate>>,
    ) -> Flow {
        if self.is_done(exchange) {
            return Flow::Continue;
        }
        let outcome = match self.verify(exchange, shown) {
            Ok((shown, chain)) => {
                exchange.stash(Verification(Ok(())));
                self.identify(exchange, &shown, &chain)
            }
            Err(refusal) => Err(refusal),
        };
        self.conclude(exchange, outcome)
    }

    /// Authenticates; waits for answers about revocation.
    pub(crate) async fn access_async(
        &self,
        exchange: &mut Exchange,
        shown: Option<Arc<ClientCertificate>>,
    ) -> Flow {
        if self.is_done(exchange) {
            return Flow::Continue;
        }
        let outcome = match self.verify(exchange, shown) {
            Ok((shown, chain)) => match self.check_revocation(&shown, &chain).await {
                Ok(()) => {
                    exchange.stash(Verification(Ok(())));
                    self.identify(exchange, &shown, &chain)
                }
                Err(refusal) => {
                    exchange.stash(Verification(Err(
                        "revoked, or not known not to be".to_owned()
                    )));
                    Err(refusal)
                }
            },
            Err(refusal) => Err(refusal),
        };
        self.conclude(exchange, outcome)
    }

    /// Has another plugin authenticated the request, where either one will do?
    fn is_done(&self, exchange: &Exchange) -> bool {
        self.anonymous.is_some() && exchange.identity.credential.is_some()
    }

    fn conclude(&self, exchange: &mut Exchange, outcome: Result<(), &'static str>) -> Flow {
        let Err(message) = outcome else {
            return Flow::Continue;
        };
        match &self.anonymous {
            Some(anonymous) => match anonymous.attach(exchange) {
                Ok(()) => Flow::Continue,
                Err(fault) => Flow::Fault(fault),
            },
            None => Flow::fault(Fault::refuse(StatusCode::UNAUTHORIZED, message)),
        }
    }

    fn verify(
        &self,
        exchange: &mut Exchange,
        shown: Option<Arc<ClientCertificate>>,
    ) -> Result<(Arc<ClientCertificate>, VerifiedChain), &'static str> {
        // Nobody but this plugin may tell the upstream what a certificate says.
        exchange.request.remove_header(&DN_KEY);
        exchange.request.remove_header(&SAN_KEY);
        let shown = shown.ok_or(ABSENT)?;
        let trust = self.trust(&exchange.snapshot).map_err(|reason| {
            tracing::error!(%reason, "client certificates cannot be verified");
            exchange.stash(Verification(Err(reason)));
            REFUSED
        })?;
        // Instances and generations are counted far below these widths.
        let number = self.number << 40 | (trust.generation & ((1 << 40) - 1));
        let chain = shown
            .verify(number, &trust.set, exchange.started)
            .map_err(|reason| {
                tracing::debug!(%reason, "client certificate refused");
                exchange.stash(Verification(Err(reason)));
                REFUSED
            })?;
        Ok((shown, chain))
    }

    /// Trust as of this snapshot; built anew when authorities have changed.
    fn trust(&self, snapshot: &Snapshot) -> Result<Arc<Trust>, String> {
        let generation = snapshot.authorities.generation();
        if let Some(known) = self.trust.load_full()
            && known.generation == generation
        {
            return Ok(known);
        }
        let (ids, partial) = (&self.rules.authorities, self.rules.partial_chains);
        let set = snapshot.authorities.trust(ids, partial)?;
        if set.is_empty() {
            tracing::warn!(
                "none of the configured ca certificates exists: no client certificate is accepted"
            );
        }
        let trust = Arc::new(Trust { generation, set });
        self.trust.store(Some(Arc::clone(&trust)));
        Ok(trust)
    }

    async fn check_revocation(
        &self,
        shown: &ClientCertificate,
        chain: &VerifiedChain,
    ) -> Result<(), &'static str> {
        let Some(revocation) = &self.revocation else {
            return Ok(());
        };
        let strict = self.rules.revocation == RevocationMode::Strict;
        let Some(issuer) = chain.issuer() else {
            // The certificate itself is trusted, and nobody stands above it who could take it back.
            return if strict { Err(REFUSED) } else { Ok(()) };
        };
        match revocation
            .status(&shown.leaf, issuer, &self.rules.asking)
            .await
        {
            Ok(Status::Good) => Ok(()),
            Ok(Status::Revoked) => {
                tracing::debug!(serial = ?shown.serial_number(), "client certificate is revoked");
                Err(REFUSED)
            }
            Err(reason) => {
                tracing::warn!(%reason, strict, "revocation of a client certificate is unknown");
                if strict { Err(REFUSED) } else { Ok(()) }
            }
        }
    }

    fn identify(
        &self,
        exchange: &mut Exchange,
        shown: &ClientCertificate,
        chain: &VerifiedChain,
    ) -> Result<(), &'static str> {
        let names = AlternativeNames::of(&shown.leaf);
        if self.rules.skip_consumer_lookup {
            self.tell(exchange, shown, &names);
            return Ok(());
        }
        let subjects: Vec<String> = names.texts().chain(common_name(&shown.leaf)).collect();
        if let Some(credential) = self.mapped(&exchange.snapshot, &subjects, chain.authority) {
            let principal = exchange.snapshot.principal(&credential.plan.principal);
            let principal = principal.cloned().ok_or(REFUSED)?;
            let identifier = credential.id_value().clone();
            authenticate(exchange, principal, credential, identifier);
            return Ok(());
        }
        let named = subjects
            .iter()
            .find_map(|subject| self.named(&exchange.snapshot, subject, exchange.started));
        let stand_in = || {
            let configured = self.default_consumer.as_ref()?;
            configured.find(&exchange.snapshot)
        };
        let principal = named.or_else(stand_in).ok_or(REFUSED)?;
        let credential = Arc::new(Credential::new(Arc::new(CredentialPlan {
            id: principal.plan.id,
            kind: self.rules.kind.into(),
            key: Secret::new(subjects.first().map_or("", String::as_str)),
            principal: principal.plan.id,
            secret: None,
            expires_at: None,
        })));
        let identifier = credential.id_value().clone();
        authenticate(exchange, principal, credential, identifier);
        Ok(())
    }

    /// Tells the upstream, and later steps, what the certificate says.
    fn tell(&self, exchange: &mut Exchange, shown: &ClientCertificate, names: &AlternativeNames) {
        let subject = distinguished_name(shown.leaf.subject_name());
        let group = match self.rules.group_by {
            Some(GroupBy::CommonName) => common_name(&shown.leaf),
            Some(GroupBy::DistinguishedName) => subject.clone(),
            None => None,
        };
        exchange.identity.groups.extend(group.map(Arc::from));
        let value = |text: String| HeaderValue::try_from(text).ok();
        if let Some(value) = subject.and_then(value) {
            set_request(&mut exchange.request, DN, value);
        }
        let names: Vec<String> = names.texts().collect();
        if let Some(value) = Some(names.join(","))
            .filter(|it| !it.is_empty())
            .and_then(value)
        {
            set_request(&mut exchange.request, SAN, value);
        }
    }

    /// The credential that names the certificate: first one for its authority, then one for any.
    fn mapped(
        &self,
        snapshot: &Snapshot,
        subjects: &[String],
        authority: Option<Uuid>,
    ) -> Option<Arc<Credential>> {
        let of = |authority: Option<Uuid>| {
            subjects.iter().find_map(|subject| {
                let key = certificate_key(subject, authority);
                snapshot.credential(self.rules.kind, &key).cloned()
            })
        };
        authority
            .and_then(|authority| of(Some(authority)))
            .or_else(|| of(None))
    }

    /// The principal that has this name.
    fn named(&self, snapshot: &Snapshot, name: &str, now: Instant) -> Option<Arc<Principal>> {
        if self.rules.consumer_by.is_empty() {
            return None;
        }
        let mut found = self.found.lock();
        if let Some(known) = found.get(name) {
            let fresh = now.saturating_duration_since(known.at) < self.rules.remember;
            match known.principal {
                None if known.revision == snapshot.revision => return None,
                Some(id) if fresh => {
                    // It may have been renamed or removed meanwhile.
                    let principal = snapshot.principal(&id);
                    if let Some(principal) = principal.filter(|it| self.is_called(it, name)) {
                        return Some(Arc::clone(principal));
                    }
                }
                _ => {}
            }
        }
        let principal = snapshot
            .directory
            .principal_where(|principal| self.is_called(principal, name))
            .cloned();
        if found.len() >= REMEMBERED_MAX {
            found.clear();
        }
        let remembered = Found {
            principal: principal.as_ref().map(|principal| principal.plan.id),
            revision: snapshot.revision,
            at: now,
        };
        found.insert(name.into(), remembered);
        principal
    }

    fn is_called(&self, principal: &Principal, name: &str) -> bool {
        self.rules.consumer_by.iter().any(|by| {
            let own = match by {
                ConsumerBy::Username => &principal.plan.username,
                ConsumerBy::CustomId => &principal.plan.custom_id,
            };
            own.as_deref() == Some(name)
        })
    }
}
