//! A pipeline linked: plugin instances ready to run, and the choice among them.

use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use crate::model::plan::InstancePlan;
use crate::runtime::contract::{Needs, Phases, Plugin};
use crate::runtime::exchange::Identity;

/// Steps in running order, with the union of what they take part in and need.
#[derive(Default)]
pub struct Pipeline {
    pub steps: Vec<Step>,
    /// Phases that some instance of some step takes part in.
    pub phases: Phases,
    /// What some instance of some step needs.
    pub needs: Needs,
}

/// One plugin name, with every instance that may be the one that runs.
pub struct Step {
    pub base: Option<Ranked>,
    /// Empty for most steps: then identity is not looked at.
    pub by_principal: AHashMap<Uuid, Ranked>,
    pub by_group: AHashMap<Uuid, Ranked>,
}

/// An instance and how specific its scope is; the lowest rank wins.
#[derive(Clone)]
pub struct Ranked {
    pub rank: u8,
    pub instance: Arc<Instance>,
}

/// A plugin instance with its answers to the questions asked at link time.
pub struct Instance {
    pub plan: Arc<InstancePlan>,
    pub plugin: Arc<dyn Plugin>,
    pub phases: Phases,
    pub needs: Needs,
}

impl Step {
    /// The instance that runs for this caller, if any.
    pub fn choose(&self, identity: &Identity) -> Option<&Arc<Instance>> {
        let mut best = self.base.as_ref();
        if let Some(principal) = &identity.principal {
            let own = self.by_principal.get(&principal.plan.id);
            // Groups are sorted by name: the first one wins among equals.
            let groups = principal.plan.groups.iter();
            let of_groups = groups.filter_map(|(_, group)| self.by_group.get(group));
            for candidate in own.into_iter().chain(of_groups) {
                if best.is_none_or(|best| candidate.rank < best.rank) {
                    best = Some(candidate);
                }
            }
        }
        best.map(|ranked| &ranked.instance)
    }
}
