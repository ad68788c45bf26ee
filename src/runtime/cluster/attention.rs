//! Where clusters call for probes: those that are new, changed their plan or their addresses, or whose addresses changed
//! their health.

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::runtime::cluster::{Cluster, Vitals};
use crate::runtime::live::Live;

/// Changes of health remembered for whoever probes; further ones are noticed at the next appointment.
const CHANGED_MAX: usize = 65_536;

/// The calls not yet answered.
#[derive(Default)]
pub struct Attention {
    calls: Mutex<Calls>,
    called: Notify,
}

/// What called.
#[derive(Default)]
pub struct Calls {
    /// The newest form of each cluster that is new or changed.
    pub clusters: AHashMap<Uuid, Weak<Cluster>>,
    /// Addresses whose health changed.
    pub changed: Vec<Arc<Vitals>>,
}

impl Attention {
    /// The one of this process.
    pub fn of(live: &Live) -> Arc<Self> {
        live.keep("attention", Self::default)
    }

    pub(super) fn call(&self, cluster: Uuid, caller: &Weak<Cluster>) {
        let mut calls = self.calls.lock();
        calls.clusters.insert(cluster, Weak::clone(caller));
        drop(calls);
        self.called.notify_one();
    }

    pub(super) fn changed(&self, vitals: Arc<Vitals>) {
        let mut calls = self.calls.lock();
        if calls.changed.len() < CHANGED_MAX {
            calls.changed.push(vitals);
        }
        drop(calls);
        self.called.notify_one();
    }

    /// Waits for calls and takes them all. To be asked by one task only.
    pub async fn calls(&self) -> Calls {
        loop {
            let calls = std::mem::take(&mut *self.calls.lock());
            if !calls.clusters.is_empty() || !calls.changed.is_empty() {
                return calls;
            }
            self.called.notified().await;
        }
    }
}
