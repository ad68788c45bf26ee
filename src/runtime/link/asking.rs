//! Which clients are asked for a certificate, found from the pipelines that want one and the routes that run these.

use std::sync::Arc;

use super::Linker;
use crate::model::plan::{PipelineKey, PlanDelta, Protocol, ProtocolSet, RoutePlan};
use crate::runtime::certificate_requests::{CertificateRequest, CertificateRequests};
use crate::runtime::pipeline::Pipeline;

/// What a pipeline's instances want: those that run for every request, and those of its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    global: Vec<CertificateRequest>,
    own: Vec<CertificateRequest>,
}

impl Wishes {
    fn of(pipeline: &Pipeline) -> Option<Self> {
        let mut wishes = Self::default();
        let instances = pipeline.steps.iter().flat_map(|step| step.instances());
        for ranked in instances {
            if let Some(request) = ranked.instance.plugin.certificate_request() {
                let scope = &ranked.instance.plan.scope;
                match scope.route.is_none() && scope.forward.is_none() {
                    true => wishes.global.push(request),
                    false => wishes.own.push(request),
                }
            }
        }
        (!wishes.global.is_empty() || !wishes.own.is_empty()).then_some(wishes)
    }
}

impl Linker {
    /// Notes whether a pipeline wants certificates.
    pub(super) fn note_wishes(&mut self, key: PipelineKey, pipeline: Option<&Pipeline>) {
        let wishes = pipeline.and_then(Wishes::of);
        if wishes.as_ref() == self.wishes.get(&key) {
            return;
        }
        self.asking_changed = true;
        match wishes {
            Some(wishes) => self.wishes.insert(key, wishes),
            None => self.wishes.remove(&key),
        };
    }

    /// Notes that a route may have changed who is asked; called with its old and its new plan.
    pub(super) fn note_asking_route(&mut self, plan: &RoutePlan) {
        self.asking_changed |= self.wishes.contains_key(&plan.pipeline);
    }

    /// Finds anew who is asked, if something changed that decides it.
    pub(super) fn link_requests(&mut self, delta: &PlanDelta) {
        if !delta.authorities.is_empty() && !self.wishes.is_empty() {
            self.asking_changed = true;
        }
        if !std::mem::take(&mut self.asking_changed) {
            return;
        }
        let authorities = &self.snapshot.authorities;
        let mut requests = CertificateRequests::default();
        for (key, wishes) in &self.wishes {
            if *key == PipelineKey::default() {
                for request in &wishes.global {
                    requests.ask_everyone(request, authorities);
                }
            }
            if wishes.own.is_empty() {
                continue;
            }
            let routes = self.routes_of_pipeline.get(key).into_iter().flatten();
            for route in routes.filter_map(|id| self.routes.get(id)) {
                ask_for(&route.plan, wishes, &mut requests, authorities);
            }
        }
        self.snapshot.certificate_requests = Arc::new(requests);
    }
}

fn ask_for(
    route: &RoutePlan,
    wishes: &Wishes,
    requests: &mut CertificateRequests,
    authorities: &crate::runtime::authorities::Authorities,
) {
    const TLS: [Protocol; 4] = [
        Protocol::Https,
        Protocol::Grpcs,
        Protocol::Tls,
        Protocol::Wss,
    ];
    if !route.protocols.intersects(ProtocolSet::of(&TLS)) {
        return;
    }
    for request in &wishes.own {
        if !request.server_names.is_empty() {
            for name in &request.server_names {
                requests.ask(name, request, authorities);
            }
            continue;
        }
        for matcher in &route.matchers {
            if matcher.snis.is_empty() {
                requests.ask_everyone(request, authorities);
            }
            for name in &matcher.snis {
                requests.ask(name, request, authorities);
            }
        }
    }
}
