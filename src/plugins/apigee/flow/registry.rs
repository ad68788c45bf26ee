//! The programs that serve, for proxies that call each other inside the process.
//!
//! Programs register when they are linked; they are found by the names of their place, or by the id of the instance that
//! a route leads to. Nothing is kept alive here.

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::RwLock;
use uuid::Uuid;

use crate::plugins::apigee::flow::program::Program;

/// Entries looked at before dead ones are swept out.
const SWEEP_EVERY: usize = 256;

/// Organisation, environment, proxy, endpoint.
type Name = (String, String, String, String);

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_name: AHashMap<Name, Weak<Program>>,
    by_id: AHashMap<Uuid, Weak<Program>>,
}

impl Registry {
    pub(crate) fn register(&self, program: &Arc<Program>) {
        let mut inner = self.inner.write();
        if inner.by_id.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            inner.by_id.retain(|_, program| program.strong_count() > 0);
            inner
                .by_name
                .retain(|_, program| program.strong_count() > 0);
        }
        let place = &program.place;
        let name = (
            place.organization.clone(),
            place.environment.clone(),
            place.proxy.clone(),
            program.plan.endpoint.clone(),
        );
        inner.by_name.insert(name, Arc::downgrade(program));
        inner.by_id.insert(program.id, Arc::downgrade(program));
    }

    /// The program of an endpoint in the environment of `beside`.
    pub(crate) fn named(
        &self,
        beside: &Program,
        proxy: &str,
        endpoint: &str,
    ) -> Option<Arc<Program>> {
        let place = &beside.place;
        let name = (
            place.organization.clone(),
            place.environment.clone(),
            proxy.to_owned(),
            endpoint.to_owned(),
        );
        self.inner.read().by_name.get(&name)?.upgrade()
    }

    /// The program of an instance.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Program>> {
        self.inner.read().by_id.get(&id)?.upgrade()
    }
}
