//! Where clusters call for probes: those that are new, changed their plan, or changed their addresses.

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::runtime::cluster::Cluster;
use crate::runtime::live::Live;

/// The calls not yet answered: at most one for each cluster, the newest.
#[derive(Default)]
pub struct Attention {
    calls: Mutex<AHashMap<Uuid, Weak<Cluster>>>,
    called: Notify,
}

impl Attention {
    /// The one of this process.
    pub fn of(live: &Live) -> Arc<Self> {
        live.keep("attention", Self::default)
    }

    pub(super) fn call(&self, cluster: Uuid, caller: &Weak<Cluster>) {
        self.calls.lock().insert(cluster, Weak::clone(caller));
        self.called.notify_one();
    }

    /// Waits for calls and takes them all. To be asked by one task only.
    pub async fn calls(&self) -> AHashMap<Uuid, Weak<Cluster>> {
        loop {
            let calls = std::mem::take(&mut *self.calls.lock());
            if !calls.is_empty() {
                return calls;
            }
            self.called.notified().await;
        }
    }
}
