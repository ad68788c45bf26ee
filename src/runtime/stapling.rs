//! OCSP answers for the gateway's own certificates, fetched in the background and shown in handshakes.
//!
//! A certificate that names a responder, and comes with the certificate of its issuer, gets an answer before it is asked
//! for one; the answer is renewed half-way to its end and shown for as long as it holds. No handshake ever waits for a
//! responder.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::base::certificate::RevocationSources;
use crate::base::pem::KeyPair;
use crate::runtime::clock;
use crate::runtime::revocation::ocsp::Answer;
use crate::runtime::revocation::{Revocation, Status};
use crate::runtime::snapshot::Snapshot;

/// How often it is looked which answers are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure the responder is asked again so much later, in seconds.
const RETRY_SECONDS: i64 = 60;
/// Answers are not renewed more often than this, in seconds.
const RENEWAL_SECONDS_MIN: i64 = 60;
/// Questions under way at once.
const ASKING_MAX: usize = 8;

/// The answer for one certificate.
pub struct Staple {
    responder: String,
    certificate: Vec<u8>,
    issuer: Vec<u8>,
    answer: ArcSwapOption<Answer>,
    /// When to ask next, Unix seconds.
    due: AtomicI64,
}

impl Staple {
    /// A staple to be fetched; `None` where nobody can be asked.
    pub(super) fn of(pair: &KeyPair) -> Option<Arc<Self>> {
        let certificate = pair.leaf.to_der().ok()?;
        let issuer = pair.chain.first()?.to_der().ok()?;
        let responder = RevocationSources::of(&certificate)
            .responders
            .into_iter()
            .next()?;
        Some(Arc::new(Self {
            responder,
            certificate,
            issuer,
            answer: ArcSwapOption::empty(),
            due: AtomicI64::new(0),
        }))
    }

    /// The answer to show now.
    pub(super) fn current(&self) -> Option<Bytes> {
        let answer = self.answer.load();
        let answer = answer.as_ref()?;
        let holds = answer.next_update > clock::unix_seconds(Instant::now());
        holds.then(|| answer.encoded.clone())
    }

    async fn renew(&self, revocation: &Revocation) {
        let (certificate, issuer) = (&self.certificate, &self.issuer);
        let asked = revocation
            .ask_responder(&self.responder, certificate, issuer, TIMEOUT)
            .await;
        let now = clock::unix_seconds(Instant::now());
        let next = match asked {
            Ok(answer) if answer.status == Status::Good => {
                let half = (answer.next_update - now) / 2;
                self.answer.store(Some(Arc::new(answer)));
                half.max(RENEWAL_SECONDS_MIN)
            }
            Ok(_) => {
                tracing::warn!(responder = %self.responder, "a certificate of this gateway is revoked");
                self.answer.store(None);
                RETRY_SECONDS
            }
            Err(reason) => {
                tracing::warn!(responder = %self.responder, %reason, "no OCSP answer to staple");
                RETRY_SECONDS
            }
        };
        self.due.store(now + next, Ordering::Relaxed);
    }
}

/// Keeps the staples of the certificates that serve fresh, for ever.
pub async fn keep_fresh(snapshots: Arc<ArcSwap<Snapshot>>, revocation: Arc<Revocation>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut asking = JoinSet::new();
    loop {
        looks.tick().await;
        while asking.try_join_next().is_some() {}
        let now = clock::unix_seconds(Instant::now());
        let certificates = &snapshots.load_full().certificates;
        for staple in certificates.all().flat_map(|it| it.staples()) {
            if asking.len() >= ASKING_MAX {
                break;
            }
            if staple.due.load(Ordering::Relaxed) > now {
                continue;
            }
            // Not due again while the question is under way.
            let patience = now + RETRY_SECONDS;
            staple.due.store(patience, Ordering::Relaxed);
            let (staple, revocation) = (Arc::clone(staple), Arc::clone(&revocation));
            asking.spawn(async move { staple.renew(&revocation).await });
        }
    }
}
