//! Has a certificate been revoked? Asked of OCSP responders and of lists of revoked certificates, and remembered.
//!
//! Owns the questions, the verification of answers and a cache. Refuses to know what follows from an answer, or from
//! none. Start at [`Revocation::status`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use boring::x509::X509;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::base::certificate::RevocationSources;
use crate::model::plan::UpstreamTlsPlan;
use crate::runtime::client::{Client, Limits};
use crate::runtime::clock;
use crate::runtime::live::Live;
use crate::runtime::upstream_tls::{Trust, UpstreamTls};

mod list;
pub mod ocsp;
mod signature;

use list::RevokedList;

/// Certificates whose status is remembered; the oldest answer gives way.
const REMEMBERED_MAX: usize = 10_000;
/// Lists that are remembered.
const LISTS_MAX: usize = 32;
/// Longest answer of an OCSP responder, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest list of revoked certificates, in bytes.
const LIST_BYTES_MAX: usize = 8 << 20;
/// Clocks may differ by so much, in seconds.
const CLOCK_SKEW_SECONDS: i64 = 300;
/// An answer that names no end is used so long, in seconds.
const ENDLESS_SECONDS: i64 = 3_600;

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
}

/// Asks and remembers. Shared by all that check revocation.
pub struct Revocation {
    client: Arc<Client>,
    tls: Arc<UpstreamTls>,
    known: Mutex<AHashMap<[u8; 32], Known>>,
    lists: Mutex<AHashMap<String, Arc<RevokedList>>>,
}

struct Known {
    status: Result<Status, Arc<str>>,
    at: Instant,
}

/// How to ask.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// For one question.
    pub timeout: Duration,
    /// How long answers, and failures to get one, are remembered.
    pub remember: Duration,
}

impl Revocation {
    /// The one that all users of this client and trust share.
    pub fn shared(client: &Arc<Client>, trust: &Trust, live: &Live) -> Result<Arc<Self>, String> {
        // Answers are signed; the connection needs no more trust than any other request of the gateway's.
        let plan = UpstreamTlsPlan {
            verify: Some(false),
            ..UpstreamTlsPlan::default()
        };
        let tls = UpstreamTls::link(&plan, None, trust, live)?;
        Ok(live.keep("revocation", || Self {
            client: Arc::clone(client),
            tls,
            known: Mutex::default(),
            lists: Mutex::default(),
        }))
    }

    /// The status of a certificate that `issuer` has signed. `Err` when nobody could be asked, or gave no good answer.
    pub async fn status(
        &self,
        certificate: &X509,
        issuer: &X509,
        asking: &Asking,
    ) -> Result<Status, Arc<str>> {
        let failed = |error: boring::error::ErrorStack| Arc::from(error.to_string());
        let der = certificate.to_der().map_err(failed)?;
        let issuer_der = issuer.to_der().map_err(failed)?;
        let key: [u8; 32] = Sha256::new()
            .chain_update(&der)
            .chain_update(&issuer_der)
            .finalize()
            .into();
        if let Some(known) = self.known.lock().get(&key)
            && known.at.elapsed() < asking.remember
        {
            return known.status.clone();
        }
        let status = self
            .ask(&der, &issuer_der, issuer, asking)
            .await
            .map_err(Arc::from);
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX && !known.contains_key(&key) {
            known.retain(|_, known| known.at.elapsed() < asking.remember);
            if known.len() >= REMEMBERED_MAX
                && let Some(oldest) = known
                    .iter()
                    .min_by_key(|(_, known)| known.at)
                    .map(|(key, _)| *key)
            {
                known.remove(&oldest);
            }
        }
        known.insert(
            key,
            Known {
                status: status.clone(),
                at: Instant::now(),
            },
        );
        status
    }

    async fn ask(
        &self,
        der: &[u8],
        issuer_der: &[u8],
        issuer: &X509,
        asking: &Asking,
    ) -> Result<Status, String> {
        let sources = RevocationSources::of(der);
        if sources.responders.is_empty() && sources.lists.is_empty() {
            return Err(
                "the certificate names neither an OCSP responder nor a list of revoked ones"
                    .to_owned(),
            );
        }
        let mut failures = Vec::new();
        for url in &sources.responders {
            match self
                .ask_responder(url, der, issuer_der, asking.timeout)
                .await
            {
                Ok(answer) => return Ok(answer.status),
                Err(reason) => failures.push(format!("{url}: {reason}")),
            }
        }
        for url in &sources.lists {
            match self.ask_list(url, issuer_der, issuer, asking.timeout).await {
                Ok(list) => return list.status(der),
                Err(reason) => failures.push(format!("{url}: {reason}")),
            }
        }
        Err(failures.join("; "))
    }

    /// Asks one OCSP responder. The answer is verified and current.
    pub async fn ask_responder(
        &self,
        url: &str,
        der: &[u8],
        issuer_der: &[u8],
        timeout: Duration,
    ) -> Result<ocsp::Answer, String> {
        let question = ocsp::question(der, issuer_der)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/ocsp-request")
            .header(ACCEPT, "application/ocsp-response")
            .body(Bytes::from(question))
            .map_err(|error| error.to_string())?;
        let answer = self.fetch(request, ANSWER_BYTES_MAX, timeout).await?;
        let now = clock::unix_seconds(Instant::now());
        ocsp::read(answer, der, issuer_der, now)
    }

    async fn ask_list(
        &self,
        url: &str,
        issuer_der: &[u8],
        issuer: &X509,
        timeout: Duration,
    ) -> Result<Arc<RevokedList>, String> {
        let now = clock::unix_seconds(Instant::now());
        let known = self.lists.lock().get(url).cloned();
        if let Some(list) = known.filter(|list| list.is_current(now) && list.is_of(issuer_der)) {
            return Ok(list);
        }
        let request = Request::builder()
            .uri(url)
            .body(Bytes::new())
            .map_err(|error| error.to_string())?;
        let text = self.fetch(request, LIST_BYTES_MAX, timeout).await?;
        let list = Arc::new(RevokedList::read(&text, issuer_der, issuer, now)?);
        let mut lists = self.lists.lock();
        if lists.len() >= LISTS_MAX && !lists.contains_key(url) {
            lists.retain(|_, list| list.is_current(now));
            if lists.len() >= LISTS_MAX {
                lists.clear();
            }
        }
        lists.insert(url.to_owned(), Arc::clone(&list));
        Ok(list)
    }

    async fn fetch(
        &self,
        request: Request<Bytes>,
        body_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Bytes, String> {
        let limits = Limits {
            connect: timeout,
            total: timeout,
            body_bytes_max,
        };
        let answer = self.client.send_url(&self.tls, request, &limits).await;
        let answer = answer.map_err(|error| error.chain())?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(format!("answered with status {status}")),
        }
    }
}
