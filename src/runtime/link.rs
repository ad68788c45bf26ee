//! From plan to snapshot: regexes compiled, plugins built, clusters attached to their live state.
//!
//! The linker keeps what it linked. A delta relinks what it names and what refers to that, and the next snapshot shares
//! everything else with the one before: with a hundred thousand routes a change of one costs microseconds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use ahash::{AHashMap, AHashSet};
use uuid::Uuid;

use crate::model::plan::{
    Candidate, ClusterPlan, ForwardPlan, InstancePlan, PipelineKey, PipelinePlan, PlanDelta,
    Protocol, ProtocolSet, RoutePlan, StepPlan,
};
use crate::model::{Diagnostic, SourceRef};
use crate::runtime::authorities::Authority;
use crate::runtime::certificates::ServerCertificate;
use crate::runtime::client::Client;
use crate::runtime::cluster::Cluster;
use crate::runtime::contract::{LinkContext, LinkPlugin, PluginEntry, Renderer};
use crate::runtime::live::Live;
use crate::runtime::pipeline::{Instance, Pipeline, Ranked, Step};
use crate::runtime::resolver::Resolver;
use crate::runtime::retry_budget::RetryBudget;
use crate::runtime::router::Router;
use crate::runtime::serving::Serving;
use crate::runtime::snapshot::{Credential, Forward, Principal, Route, Snapshot};
use crate::runtime::unlinkable::Unlinkable;
use crate::runtime::upstream_tls::UpstreamTls;

mod asking;

use asking::Wishes;

/// Keeps everything linked so far, and links deltas onto it.
pub struct Linker {
    live: Arc<Live>,
    resolver: Arc<Resolver>,
    client: Arc<Client>,
    plugins: BTreeMap<&'static str, LinkPlugin>,
    prefix: PathBuf,
    snapshot: Snapshot,
    clusters: AHashMap<Uuid, Arc<Cluster>>,
    forwards: AHashMap<Uuid, LinkedForward>,
    pipelines: AHashMap<PipelineKey, Arc<Pipeline>>,
    /// Held by pipelines alone, so that what nobody runs any more ends with the last snapshot that has it.
    instances: AHashMap<Uuid, Weak<Instance>>,
    routes: AHashMap<Uuid, LinkedRoute>,
    credentials: AHashMap<Uuid, Arc<Credential>>,
    /// Who refers to what: these are relinked when it changes.
    forwards_of_cluster: AHashMap<Uuid, AHashSet<Uuid>>,
    routes_of_forward: AHashMap<Uuid, AHashSet<Uuid>>,
    routes_of_pipeline: AHashMap<PipelineKey, AHashSet<Uuid>>,
    /// Pipelines that want certificates of clients.
    wishes: AHashMap<PipelineKey, Wishes>,
    /// Must [`Linker::link_requests`] look again?
    asking_changed: bool,
}

struct LinkedForward {
    plan: Arc<ForwardPlan>,
    /// `None` while its cluster is missing or its TLS settings cannot be used.
    forward: Option<Arc<Forward>>,
}

struct LinkedRoute {
    plan: Arc<RoutePlan>,
    slot: u32,
}

/// What a linker starts from.
pub struct LinkerParts {
    pub live: Arc<Live>,
    pub resolver: Arc<Resolver>,
    pub client: Arc<Client>,
    pub plugins: Vec<PluginEntry>,
    /// Folder for relative paths in plugin configurations.
    pub prefix: PathBuf,
    /// The empty snapshot that serves until the first build.
    pub snapshot: Snapshot,
}

impl Linker {
    pub fn new(parts: LinkerParts) -> Self {
        let plugins = parts.plugins.into_iter();
        Self {
            live: parts.live,
            resolver: parts.resolver,
            client: parts.client,
            plugins: plugins.map(|entry| (entry.info.name, entry.link)).collect(),
            prefix: parts.prefix,
            snapshot: parts.snapshot,
            clusters: AHashMap::new(),
            forwards: AHashMap::new(),
            pipelines: AHashMap::new(),
            instances: AHashMap::new(),
            routes: AHashMap::new(),
            credentials: AHashMap::new(),
            forwards_of_cluster: AHashMap::new(),
            routes_of_forward: AHashMap::new(),
            routes_of_pipeline: AHashMap::new(),
            wishes: AHashMap::new(),
            asking_changed: false,
        }
    }

    /// Links a delta. Parts that cannot be linked are reported and do not serve; the rest does.
    pub fn apply(&mut self, delta: &PlanDelta, revision: u64) -> (Arc<Snapshot>, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let mut stale_forwards: AHashSet<Uuid> = delta.forwards.keys().copied().collect();
        let mut stale_routes: AHashSet<Uuid> = AHashSet::new();

        for (id, edit) in &delta.clusters {
            self.link_cluster(*id, edit.as_ref(), &mut findings);
            stale_forwards.extend(self.forwards_of_cluster.get(id).into_iter().flatten());
        }
        for (id, edit) in &delta.forwards {
            self.register_forward(*id, edit.as_ref());
        }
        for id in &stale_forwards {
            self.link_forward(id, &mut findings);
            stale_routes.extend(self.routes_of_forward.get(id).into_iter().flatten());
        }
        for (key, edit) in &delta.pipelines {
            self.link_pipeline(*key, edit.as_deref(), &mut findings);
            stale_routes.extend(self.routes_of_pipeline.get(key).into_iter().flatten());
        }
        self.link_routes(delta, stale_routes, &mut findings);
        self.link_directory(delta);
        self.link_certificates(delta, &mut findings);
        self.link_authorities(delta, &mut findings);
        self.link_requests(delta);
        if !delta.pipelines.is_empty() {
            self.instances
                .retain(|_, instance| instance.strong_count() > 0);
        }
        self.snapshot.revision = revision;
        (Arc::new(self.snapshot.clone()), findings)
    }

    /// Takes over settings that may change while running. Forwards are relinked: trust and the client certificate
    /// that stand in for missing ones may have changed.
    pub fn reload(
        &mut self,
        serving: Arc<Serving>,
        renderer: Arc<dyn Renderer>,
    ) -> (Arc<Snapshot>, Vec<Diagnostic>) {
        self.snapshot.serving = serving;
        self.snapshot.renderer = renderer;
        let mut findings = Vec::new();
        let mut stale_routes = AHashSet::new();
        for cluster in self.clusters.values() {
            if let Err(error) = cluster.link_probes(&self.snapshot.serving, &self.live) {
                let subject = format!("cluster \"{}\"", cluster.plan.name);
                findings.push(unlinkable(subject, error));
            }
        }
        for id in self.forwards.keys().copied().collect::<Vec<_>>() {
            self.link_forward(&id, &mut findings);
            stale_routes.extend(self.routes_of_forward.get(&id).into_iter().flatten());
        }
        self.link_routes(&PlanDelta::default(), stale_routes, &mut findings);
        (Arc::new(self.snapshot.clone()), findings)
    }

    /// The snapshot as linked so far, to change parts that no plan describes (the default certificates).
    pub fn snapshot_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }

    /// The linked clusters, for those who show health.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    fn link_cluster(
        &mut self,
        id: Uuid,
        edit: Option<&Arc<ClusterPlan>>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let linked = edit.and_then(|plan| {
            Cluster::link(Arc::clone(plan), &self.live, &self.resolver)
                .and_then(|cluster| {
                    cluster.link_probes(&self.snapshot.serving, &self.live)?;
                    Ok(cluster)
                })
                .map_err(|error| {
                    findings.push(unlinkable(format!("cluster \"{}\"", plan.name), error))
                })
                .ok()
        });
        match linked {
            Some(cluster) => {
                self.snapshot.clusters.insert(id, Arc::clone(&cluster));
                self.clusters.insert(id, cluster);
            }
            None => {
                self.snapshot.clusters.remove(&id);
                self.clusters.remove(&id);
            }
        }
    }

    fn register_forward(&mut self, id: Uuid, edit: Option<&Arc<ForwardPlan>>) {
        if let Some(old) = self.forwards.remove(&id) {
            self.snapshot.forwards.remove(&id);
            unregister(&mut self.forwards_of_cluster, old.plan.cluster, &id);
        }
        if let Some(plan) = edit {
            let plan = Arc::clone(plan);
            self.forwards_of_cluster
                .entry(plan.cluster)
                .or_default()
                .insert(id);
            self.forwards.insert(
                id,
                LinkedForward {
                    plan,
                    forward: None,
                },
            );
        }
    }

    fn link_forward(&mut self, id: &Uuid, findings: &mut Vec<Diagnostic>) {
        let Some(linked) = self.forwards.get_mut(id) else {
            return;
        };
        linked.forward = None;
        self.snapshot.forwards.remove(id);
        let plan = Arc::clone(&linked.plan);
        let subject = || format!("forward \"{}\"", plan.name.as_deref().unwrap_or(&plan.host));
        let Some(cluster) = self.clusters.get(&plan.cluster) else {
            findings.push(unlinkable(subject(), "its cluster cannot be used"));
            return;
        };
        let tls = match plan.protocol.is_tls() {
            false => None,
            true => match self.link_tls(&plan, &cluster.plan) {
                Ok(tls) => Some(tls),
                Err(error) => {
                    findings.push(unlinkable(subject(), error));
                    return;
                }
            },
        };
        let forward = Arc::new(Forward {
            cluster: Arc::clone(cluster),
            retries: self.live.keep(plan.id.to_string(), RetryBudget::default),
            tls,
            plan,
        });
        if let Some(linked) = self.forwards.get_mut(id) {
            self.snapshot.forwards.insert(*id, Arc::clone(&forward));
            linked.forward = Some(forward);
        }
    }

    fn link_tls(
        &self,
        plan: &ForwardPlan,
        cluster: &ClusterPlan,
    ) -> Result<Arc<UpstreamTls>, String> {
        let serving = &self.snapshot.serving;
        let inherited = cluster
            .client_certificate
            .as_ref()
            .or(serving.plan.client_certificate.as_ref());
        UpstreamTls::link(&plan.tls, inherited, &serving.trust, &self.live)
    }

    fn link_pipeline(
        &mut self,
        key: PipelineKey,
        edit: Option<&PipelinePlan>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let linked = edit.map(|plan| {
            let mut pipeline = Pipeline::default();
            for step in &plan.steps {
                let step = self.link_step(step, findings);
                for ranked in step.instances() {
                    pipeline.phases = pipeline.phases.with(ranked.instance.phases);
                    pipeline.needs.request_body |= ranked.instance.needs.request_body;
                    pipeline.needs.request_head |= ranked.instance.needs.request_head;
                }
                pipeline.steps.push(step);
            }
            Arc::new(pipeline)
        });
        if key == PipelineKey::default() {
            self.snapshot.global_pipeline = linked.clone().unwrap_or_default();
        } else if key == PipelineKey::default().of_streams() {
            self.snapshot.global_stream_pipeline = linked.clone().unwrap_or_default();
        }
        self.note_wishes(key, linked.as_deref());
        match linked {
            Some(pipeline) => self.pipelines.insert(key, pipeline),
            None => self.pipelines.remove(&key),
        };
    }

    fn link_step(&mut self, plan: &StepPlan, findings: &mut Vec<Diagnostic>) -> Step {
        let mut rank = |candidate: &Candidate| Ranked {
            rank: candidate.rank,
            instance: self.link_instance(&candidate.instance, findings),
        };
        let base = plan.base.as_ref().map(&mut rank);
        let mut all = |candidates: &BTreeMap<Uuid, Candidate>| {
            candidates
                .iter()
                .map(|(id, candidate)| (*id, rank(candidate)))
                .collect()
        };
        Step {
            base,
            by_principal: all(&plan.by_principal),
            by_group: all(&plan.by_group),
        }
    }

    /// The instance, or one that refuses every request where it cannot be linked.
    fn link_instance(
        &mut self,
        plan: &Arc<InstancePlan>,
        findings: &mut Vec<Diagnostic>,
    ) -> Arc<Instance> {
        let known = self.instances.get(&plan.id).and_then(Weak::upgrade);
        if let Some(instance) = known
            && (Arc::ptr_eq(&instance.plan, plan) || instance.plan == *plan)
        {
            return instance;
        }
        let context = LinkContext {
            live: &self.live,
            resolver: &self.resolver,
            serving: &self.snapshot.serving,
            prefix: &self.prefix,
            client: &self.client,
        };
        let linked = match self.plugins.get(&*plan.plugin) {
            Some(link) => link(plan, &context),
            None => Err("there is no such plugin".to_owned()),
        };
        let plugin = linked.unwrap_or_else(|error| {
            let subject = format!("plugin \"{}\" {}", plan.plugin, plan.id);
            let reason = format!("{subject} cannot run: {error}");
            findings.push(unlinkable(subject, error));
            Arc::new(Unlinkable { reason })
        });
        let instance = Arc::new(Instance {
            phases: plugin.phases(),
            needs: plugin.needs(),
            plugin,
            plan: Arc::clone(plan),
        });
        self.instances.insert(plan.id, Arc::downgrade(&instance));
        instance
    }

    fn link_routes(
        &mut self,
        delta: &PlanDelta,
        stale: AHashSet<Uuid>,
        findings: &mut Vec<Diagnostic>,
    ) {
        for (id, edit) in &delta.routes {
            match edit {
                Some(plan) => self.put_route(plan, findings),
                None => self.remove_route(id),
            }
        }
        for id in stale {
            if delta.routes.contains_key(&id) {
                continue;
            }
            if let Some(linked) = self.routes.get(&id) {
                let route = Arc::new(self.route(&linked.plan));
                self.snapshot.routes.replace(linked.slot, route);
            }
        }
    }

    fn put_route(&mut self, plan: &Arc<RoutePlan>, findings: &mut Vec<Diagnostic>) {
        self.note_asking_route(plan);
        let subject = || format!("route \"{}\"", plan.name.as_deref().unwrap_or("unnamed"));
        let route = Arc::new(self.route(plan));
        let old = self.routes.remove(&plan.id);
        if let Some(old) = &old {
            self.unregister_route(&old.plan);
        }
        let slot = match &old {
            Some(old) => {
                self.snapshot.routes.replace(old.slot, route);
                old.slot
            }
            None => self.snapshot.routes.insert(route),
        };
        let same_place = |old: &RoutePlan| {
            old.matchers == plan.matchers && Routers::of(old) == Routers::of(plan)
        };
        if !old.is_some_and(|old| same_place(&old.plan)) {
            self.remove_matchers(slot);
            let placed = Routers::of(plan)
                .in_snapshot(&mut self.snapshot)
                .try_for_each(|router| router.replace(slot, &plan.matchers));
            if let Err(error) = placed {
                findings.push(unlinkable(subject(), error.to_string()));
                self.remove_matchers(slot);
            }
        }
        if let Some(forward) = plan.forward {
            self.routes_of_forward
                .entry(forward)
                .or_default()
                .insert(plan.id);
        }
        self.routes_of_pipeline
            .entry(plan.pipeline)
            .or_default()
            .insert(plan.id);
        let linked = LinkedRoute {
            plan: Arc::clone(plan),
            slot,
        };
        self.routes.insert(plan.id, linked);
    }

    fn remove_route(&mut self, id: &Uuid) {
        if let Some(old) = self.routes.remove(id) {
            self.unregister_route(&old.plan);
            self.remove_matchers(old.slot);
            self.snapshot.routes.remove(old.slot);
        }
    }

    fn remove_matchers(&mut self, slot: u32) {
        let snapshot = &mut self.snapshot;
        snapshot.router.remove(slot);
        snapshot.stream_router.remove(slot);
        snapshot.passthrough_router.remove(slot);
    }

    fn unregister_route(&mut self, plan: &RoutePlan) {
        self.note_asking_route(plan);
        if let Some(forward) = plan.forward {
            unregister(&mut self.routes_of_forward, forward, &plan.id);
        }
        unregister(&mut self.routes_of_pipeline, plan.pipeline, &plan.id);
    }

    fn route(&self, plan: &Arc<RoutePlan>) -> Route {
        Route {
            pipeline: self
                .pipelines
                .get(&plan.pipeline)
                .cloned()
                .unwrap_or_default(),
            forward: plan
                .forward
                .and_then(|id| self.forwards.get(&id)?.forward.clone()),
            plan: Arc::clone(plan),
        }
    }

    fn link_directory(&mut self, delta: &PlanDelta) {
        let directory = &mut self.snapshot.directory;
        for (id, edit) in &delta.principals {
            match edit {
                Some(plan) => directory.put_principal(Arc::new(Principal::new(Arc::clone(plan)))),
                None => directory.remove_principal(id),
            }
        }
        for (id, edit) in &delta.credentials {
            if let Some(old) = self.credentials.remove(id) {
                directory.remove_credential(&old);
            }
            if let Some(plan) = edit {
                let credential = Arc::new(Credential::new(Arc::clone(plan)));
                directory.put_credential(Arc::clone(&credential));
                self.credentials.insert(*id, credential);
            }
        }
    }

    fn link_authorities(&mut self, delta: &PlanDelta, findings: &mut Vec<Diagnostic>) {
        for (id, edit) in &delta.authorities {
            self.snapshot.authorities.remove(id);
            let Some(plan) = edit else { continue };
            match Authority::link(plan) {
                Ok(authority) => self.snapshot.authorities.insert(authority),
                Err(error) => findings.push(unlinkable(format!("authority {id}"), error)),
            }
        }
    }

    fn link_certificates(&mut self, delta: &PlanDelta, findings: &mut Vec<Diagnostic>) {
        for (id, edit) in &delta.certificates {
            self.snapshot.certificates.remove(id);
            let Some(plan) = edit else { continue };
            match ServerCertificate::link(Arc::clone(plan)) {
                Ok(certificate) => self.snapshot.certificates.insert(certificate),
                Err(error) => findings.push(unlinkable(format!("certificate {id}"), error)),
            }
        }
    }
}

/// The routers that know a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routers {
    Requests,
    Streams,
    /// Those of streams, and the one for listeners of requests.
    Passthrough,
}

impl Routers {
    fn of(plan: &RoutePlan) -> Self {
        if !plan.protocols.intersects(ProtocolSet::STREAMS) {
            Self::Requests
        } else if plan.protocols.contains(Protocol::TlsPassthrough) {
            Self::Passthrough
        } else {
            Self::Streams
        }
    }

    fn in_snapshot(self, snapshot: &mut Snapshot) -> impl Iterator<Item = &mut Router> {
        let (first, second) = match self {
            Self::Requests => (&mut snapshot.router, None),
            Self::Streams => (&mut snapshot.stream_router, None),
            Self::Passthrough => (
                &mut snapshot.stream_router,
                Some(&mut snapshot.passthrough_router),
            ),
        };
        std::iter::once(first).chain(second)
    }
}

impl Step {
    pub(super) fn instances(&self) -> impl Iterator<Item = &Ranked> {
        self.base
            .iter()
            .chain(self.by_principal.values())
            .chain(self.by_group.values())
    }
}

fn unregister<K: std::hash::Hash + Eq>(index: &mut AHashMap<K, AHashSet<Uuid>>, key: K, id: &Uuid) {
    if let Some(referrers) = index.get_mut(&key) {
        referrers.remove(id);
        if referrers.is_empty() {
            index.remove(&key);
        }
    }
}

fn unlinkable(subject: String, error: impl Into<String>) -> Diagnostic {
    let at = SourceRef {
        subject: subject.into(),
        ..SourceRef::default()
    };
    Diagnostic::error("unlinkable", at, error)
}
