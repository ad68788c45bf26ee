//! What survives a configuration swap: counters, endpoint health, caches, metrics.
//!
//! Configuration is replaced, state is handed over. A state is kept under its type and a stable key for as long as some
//! snapshot uses it; the next snapshot that asks for the same key gets the same state.

use std::any::{Any, TypeId};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock, Weak};

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::base::seal::Seal;
use crate::runtime::entry_cache::EntryCache;
use crate::runtime::node::Node;
use crate::runtime::records::{MemoryRecords, Records};

/// Entries looked at before dead ones are swept out.
const SWEEP_EVERY: usize = 1024;

type Key = (TypeId, String);

/// The pool of shared states.
#[derive(Default)]
pub struct Live {
    node: Arc<Node>,
    records: OnceLock<Arc<dyn Records>>,
    entries: Arc<EntryCache>,
    seal: OnceLock<Seal>,
    states: Mutex<AHashMap<Key, Weak<dyn Any + Send + Sync>>>,
}

impl Live {
    /// This node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The cache that policies share.
    pub fn entries(&self) -> &Arc<EntryCache> {
        &self.entries
    }

    /// Seals texts that are stored. Until [`Live::keep_seal`] is called its key ends with the process.
    pub fn seal(&self) -> &Seal {
        self.seal.get_or_init(Seal::fleeting)
    }

    /// Says with which key stored texts are sealed, once; later calls change nothing.
    pub fn keep_seal(&self, seal: Seal) {
        // As with records.
        let _ = self.seal.set(seal);
    }

    /// What outlives the process. Until [`Live::keep_records`] is called it lives in memory alone.
    pub fn records(&self) -> &Arc<dyn Records> {
        self.records
            .get_or_init(|| Arc::new(MemoryRecords::default()))
    }

    /// Says where records are kept, once, before the first configuration is linked; later calls change nothing.
    pub fn keep_records(&self, records: Arc<dyn Records>) {
        // A second store would be a mistake of the start-up code, and the first one may be in use.
        let _ = self.records.set(records);
    }

    /// The state kept under `key`, or a new one. It lives as long as the returned `Arc` and its clones.
    pub fn keep<T, F>(&self, key: impl Into<String>, make: F) -> Arc<T>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> T,
    {
        match self.try_keep(key, || Ok::<T, Infallible>(make())) {
            Ok(state) => state,
            Err(never) => match never {},
        }
    }

    /// As [`Live::keep`], for states whose making can fail; nothing is kept then.
    pub fn try_keep<T, E, F>(&self, key: impl Into<String>, make: F) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> Result<T, E>,
    {
        let key = (TypeId::of::<T>(), key.into());
        let mut states = self.states.lock();
        if let Some(state) = states.get(&key).and_then(Weak::upgrade)
            && let Ok(state) = state.downcast::<T>()
        {
            return Ok(state);
        }
        if states.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            states.retain(|_, state| state.strong_count() > 0);
        }
        let state = Arc::new(make()?);
        let shared: Arc<dyn Any + Send + Sync> = state.clone();
        states.insert(key, Arc::downgrade(&shared));
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn hands_over_while_used_and_forgets_afterwards() {
        let live = Live::default();
        let first = live.keep("route-1", || AtomicU32::new(7));
        first.fetch_add(1, Ordering::Relaxed);
        let second = live.keep("route-1", || AtomicU32::new(0));
        assert_eq!(second.load(Ordering::Relaxed), 8);
        drop((first, second));
        let third = live.keep("route-1", || AtomicU32::new(0));
        assert_eq!(third.load(Ordering::Relaxed), 0);
    }
}
