//! The plan parts of one listener, and what makes a plan with its old parts one with its new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::model::plan::{
    ClusterPlan, ForwardPlan, PipelineKey, PipelinePlan, PlanDelta, RoutePlan,
};

/// What one listener adds to the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parts {
    pub routes: BTreeMap<Uuid, Arc<RoutePlan>>,
    pub forwards: BTreeMap<Uuid, Arc<ForwardPlan>>,
    pub clusters: BTreeMap<Uuid, Arc<ClusterPlan>>,
    pub pipelines: BTreeMap<PipelineKey, Arc<PipelinePlan>>,
}

impl Parts {
    /// Adds what another part of the same listener adds.
    pub fn extend(&mut self, other: Self) {
        self.routes.extend(other.routes);
        self.forwards.extend(other.forwards);
        self.clusters.extend(other.clusters);
        self.pipelines.extend(other.pipelines);
    }

    /// What makes a plan with the parts of `old` one with these.
    pub fn delta_from(&self, old: &Self) -> PlanDelta {
        fn edits<K: Ord + Copy, T: PartialEq>(
            old: &BTreeMap<K, Arc<T>>,
            new: &BTreeMap<K, Arc<T>>,
        ) -> BTreeMap<K, Option<Arc<T>>> {
            let gone = old.keys().filter(|id| !new.contains_key(id));
            let gone = gone.map(|id| (*id, None));
            let made = new.iter().filter(|(id, part)| old.get(id) != Some(*part));
            gone.chain(made.map(|(id, part)| (*id, Some(Arc::clone(part)))))
                .collect()
        }
        PlanDelta {
            routes: edits(&old.routes, &self.routes),
            forwards: edits(&old.forwards, &self.forwards),
            clusters: edits(&old.clusters, &self.clusters),
            pipelines: edits(&old.pipelines, &self.pipelines),
            ..PlanDelta::default()
        }
    }
}
