//! Authorities that steps trust with the certificates of clients, and the verification against some of them.
//!
//! Owns the certificates by id. Refuses to know who trusts whom: a step names ids and gets a [`TrustSet`], which it keeps
//! until [`Authorities::generation`] tells of a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use boring::error::ErrorStack;
use boring::stack::Stack;
use boring::x509::store::{X509Store, X509StoreBuilder};
use boring::x509::verify::X509VerifyFlags;
use boring::x509::{X509, X509Ref, X509StoreContext};
use uuid::Uuid;

use crate::base::certificate::{self, Purpose};
use crate::base::pem::parse_certificates;
use crate::model::plan::AuthorityPlan;

/// One trusted certificate.
pub struct Authority {
    pub id: Uuid,
    pub certificate: X509,
    der: Box<[u8]>,
}

impl Authority {
    /// Reads the plan's certificate.
    pub fn link(plan: &AuthorityPlan) -> Result<Arc<Self>, String> {
        let certificates =
            parse_certificates(&plan.certificate).map_err(|error| error.to_string())?;
        let Ok([certificate]) = <[X509; 1]>::try_from(certificates) else {
            return Err("holds several certificates, one is allowed".to_owned());
        };
        let der = certificate.to_der().map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            id: plan.id,
            certificate,
            der: der.into(),
        }))
    }
}

/// All authorities of a snapshot. Cloning copies a pointer, a change copies the table.
#[derive(Clone, Default)]
pub struct Authorities {
    by_id: Arc<AHashMap<Uuid, Arc<Authority>>>,
    generation: u64,
}

impl Authorities {
    /// A number that no other state of this table has.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The authority with this id.
    pub fn find(&self, id: &Uuid) -> Option<&Arc<Authority>> {
        self.by_id.get(id)
    }

    pub fn insert(&mut self, authority: Arc<Authority>) {
        Arc::make_mut(&mut self.by_id).insert(authority.id, authority);
        self.changed();
    }

    pub fn remove(&mut self, id: &Uuid) {
        if self.by_id.contains_key(id) {
            Arc::make_mut(&mut self.by_id).remove(id);
            self.changed();
        }
    }

    fn changed(&mut self) {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        self.generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    }

    /// Trust in these authorities. Those that are not there trust nobody.
    ///
    /// With `partial_chains` a chain may end at any of them, also at one that another authority has signed.
    pub fn trust(&self, ids: &[Uuid], partial_chains: bool) -> Result<TrustSet, String> {
        let members: Vec<Arc<Authority>> =
            ids.iter().filter_map(|id| self.find(id).cloned()).collect();
        let build = || -> Result<X509Store, ErrorStack> {
            let mut store = X509StoreBuilder::new()?;
            for member in &members {
                store.add_cert(&member.certificate)?;
            }
            Ok(store.build())
        };
        Ok(TrustSet {
            store: build().map_err(|error| format!("trusted certificates: {error}"))?,
            members,
            partial_chains,
        })
    }
}

/// Authorities that are trusted together.
pub struct TrustSet {
    store: X509Store,
    members: Vec<Arc<Authority>>,
    partial_chains: bool,
}

/// A chain that was found good, the leaf first.
#[derive(Clone)]
pub struct VerifiedChain {
    pub certificates: Vec<X509>,
    /// The trusted authority that is nearest to the leaf.
    pub authority: Option<Uuid>,
}

impl VerifiedChain {
    /// The certificate that signed the leaf.
    pub fn issuer(&self) -> Option<&X509> {
        self.certificates.get(1)
    }
}

impl TrustSet {
    /// Is there nobody to trust?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Verifies a client's certificate with the certificates that it sent along. The error says why it is not accepted.
    pub fn verify(&self, leaf: &X509Ref, sent: &[X509]) -> Result<VerifiedChain, String> {
        let failed = |error: ErrorStack| format!("cannot verify a certificate: {error}");
        let mut untrusted = Stack::new().map_err(failed)?;
        for certificate in sent {
            untrusted.push(certificate.clone()).map_err(failed)?;
        }
        let mut context = X509StoreContext::new().map_err(failed)?;
        let mut certificates = Vec::new();
        let verdict = context
            .init(&self.store, leaf, &untrusted, |context| {
                if self.partial_chains {
                    let parameters = context.verify_param_mut();
                    parameters.set_flags(X509VerifyFlags::PARTIAL_CHAIN);
                }
                let accepted = context.verify_cert()?;
                if accepted {
                    let chain = context.chain().into_iter().flatten();
                    certificates = chain.map(ToOwned::to_owned).collect();
                }
                Ok((accepted, context.verify_result()))
            })
            .map_err(failed)?;
        match verdict {
            (true, Ok(())) => {}
            (_, Err(reason)) => return Err(reason.error_string().to_owned()),
            (false, Ok(())) => return Err("verification failed".to_owned()),
        }
        let mut authority = None;
        for certificate in &certificates {
            let der = certificate.to_der().map_err(failed)?;
            if !certificate::allows(&der, Purpose::Client) {
                return Err("unsupported certificate purpose".to_owned());
            }
            if authority.is_none() {
                let member = self.members.iter().find(|it| *it.der == *der);
                authority = member.map(|it| it.id);
            }
        }
        Ok(VerifiedChain {
            certificates,
            authority,
        })
    }
}
