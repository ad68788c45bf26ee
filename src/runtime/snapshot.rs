//! The configuration as the engine runs it: linked, immutable, swapped whole.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use uuid::Uuid;

use crate::model::plan::{ClusterPlan, CredentialPlan, ForwardPlan, PrincipalPlan, RoutePlan};
use crate::runtime::authorities::Authorities;
use crate::runtime::certificate_requests::CertificateRequests;
use crate::runtime::certificates::CertificateTable;
use crate::runtime::cluster::Cluster;
use crate::runtime::contract::{LinkContext, Renderer};
use crate::runtime::directory::Directory;
use crate::runtime::pipeline::Pipeline;
use crate::runtime::retry_budget::RetryBudget;
use crate::runtime::router::Router;
use crate::runtime::serving::Serving;
use crate::runtime::slots::Slots;
use crate::runtime::told::FieldSet;
use crate::runtime::upstream_tls::UpstreamTls;

/// Everything a request needs, as of one revision. Parts are shared with the snapshots before and after.
#[derive(Clone)]
pub struct Snapshot {
    /// The newest store revision contained.
    pub revision: u64,
    /// From request facts to a slot of `routes`.
    pub router: Router,
    /// The same for streams.
    pub stream_router: Router,
    /// The routes of `stream_router` that leave TLS unopened, once more: listeners of requests look here, and only when
    /// there is one.
    pub passthrough_router: Router,
    pub routes: Slots<Route>,
    /// Runs for requests without a route.
    pub global_pipeline: Arc<Pipeline>,
    /// The same for streams.
    pub global_stream_pipeline: Arc<Pipeline>,
    pub directory: Directory,
    pub certificates: CertificateTable,
    /// Authorities that steps may trust with the certificates of clients.
    pub authorities: Authorities,
    /// Which clients are asked for a certificate.
    pub certificate_requests: Arc<CertificateRequests>,
    /// Forwards by id, for steps that choose one; routes hold theirs.
    pub forwards: imbl::OrdMap<Uuid, Arc<Forward>>,
    /// Clusters by id, for those who show health; requests reach them through their forward.
    pub clusters: imbl::OrdMap<Uuid, Arc<Cluster>>,
    pub serving: Arc<Serving>,
    pub renderer: Arc<dyn Renderer>,
}

/// A route linked.
pub struct Route {
    pub plan: Arc<RoutePlan>,
    pub pipeline: Arc<Pipeline>,
    pub forward: Option<Arc<Forward>>,
}

/// A forward linked.
pub struct Forward {
    pub plan: Arc<ForwardPlan>,
    pub cluster: Arc<Cluster>,
    /// Counts tries beyond the first.
    pub retries: Arc<RetryBudget>,
    /// Present when the forward's protocol runs in TLS.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A principal linked.
pub struct Principal {
    pub plan: Arc<PrincipalPlan>,
    /// See [`Principal::told`].
    told: OnceLock<Arc<FieldSet>>,
}

/// A credential linked.
pub struct Credential {
    pub plan: Arc<CredentialPlan>,
    /// Its id as a header value, made when it is needed for the first time.
    id_value: OnceLock<HeaderValue>,
}

impl Principal {
    pub fn new(plan: Arc<PrincipalPlan>) -> Self {
        Self {
            plan,
            told: OnceLock::new(),
        }
    }

    /// What upstreams are told about it: made, by whoever tells it, when it is needed for the first time.
    pub fn told(&self, make: impl FnOnce(&PrincipalPlan) -> FieldSet) -> &Arc<FieldSet> {
        self.told.get_or_init(|| Arc::new(make(&self.plan)))
    }
}

impl Credential {
    pub fn new(plan: Arc<CredentialPlan>) -> Self {
        Self {
            plan,
            id_value: OnceLock::new(),
        }
    }

    /// Its id as a header value.
    pub fn id_value(&self) -> &HeaderValue {
        self.id_value.get_or_init(|| id_value(&self.plan.id))
    }
}

/// The text of an id as a header value.
pub fn id_value(id: &Uuid) -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    // Digits and dashes always make a header value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Forward {
    /// Links a forward that no plan holds, for targets that only requests bring to light. The caller shares it between
    /// requests: it resolves names, and its TLS settings are what makes connections reusable.
    pub fn link_alone(
        plan: Arc<ForwardPlan>,
        cluster: Arc<ClusterPlan>,
        context: &LinkContext<'_>,
    ) -> Result<Arc<Self>, String> {
        let tls = match plan.protocol.is_tls() {
            false => None,
            true => Some(UpstreamTls::link(
                &plan.tls,
                cluster.client_certificate.as_ref(),
                &context.serving.trust,
                context.live,
            )?),
        };
        let cluster = Cluster::link(cluster, context.live, context.resolver)?;
        cluster.link_probes(context.serving, context.live)?;
        let retries = context.live.keep(plan.id.to_string(), RetryBudget::default);
        Ok(Arc::new(Self {
            plan,
            cluster,
            retries,
            tls,
        }))
    }
}

impl Snapshot {
    /// The principal with this id.
    pub fn principal(&self, id: &Uuid) -> Option<&Arc<Principal>> {
        self.directory.principal(id)
    }

    /// The credential that this mechanism knows under `key`, not looking at its expiry.
    pub fn credential(&self, kind: &str, key: &str) -> Option<&Arc<Credential>> {
        self.directory.credential(kind, key)
    }
}
