//! A store that keeps nothing: for `database = off`, where documents are the only truth, and for tests.
//!
//! Several control planes may share one; they then see each other's commits like the nodes of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::news::Announcer;
use super::{Contents, Edit, Row, Store, StoreError, Watch};

/// The store; see the module.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    announcer: Announcer,
    node_id: Uuid,
    keeps_rows: bool,
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    rows: BTreeMap<(Arc<str>, Uuid), Row>,
}

impl MemoryStore {
    /// A store for one control plane: counts revisions, keeps no rows (the entity set is the only copy).
    pub fn forgetful() -> Self {
        Self::new(false)
    }

    /// A store that several control planes of this process share.
    pub fn shared() -> Self {
        Self::new(true)
    }

    fn new(keeps_rows: bool) -> Self {
        Self {
            inner: Mutex::default(),
            announcer: Announcer::default(),
            node_id: Uuid::new_v4(),
            keeps_rows,
        }
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Contents, StoreError> {
        let inner = self.inner.lock();
        Ok(Contents {
            revision: inner.revision,
            rows: inner.rows.values().cloned().collect(),
        })
    }

    fn commit(&self, expected: u64, edits: &[Edit]) -> Result<u64, StoreError> {
        let mut inner = self.inner.lock();
        if inner.revision != expected {
            return Err(StoreError::Conflict {
                expected,
                found: inner.revision,
            });
        }
        inner.revision += 1;
        let revision = inner.revision;
        if self.keeps_rows {
            for edit in edits {
                let key = (edit.kind.clone(), edit.id);
                match &edit.json {
                    Some(json) => {
                        let row = Row {
                            kind: edit.kind.clone(),
                            id: edit.id,
                            revision,
                            json: json.clone(),
                        };
                        inner.rows.insert(key, row);
                    }
                    None => {
                        inner.rows.remove(&key);
                    }
                }
            }
            // Still under the lock, so that watchers hear commits in their order.
            self.announcer.announce(revision, edits);
        }
        Ok(revision)
    }

    fn watch(&self, from: u64) -> Option<Watch> {
        if !self.keeps_rows {
            return None;
        }
        let inner = self.inner.lock();
        Some(self.announcer.watch(inner.revision > from))
    }

    fn node_id(&self) -> Uuid {
        self.node_id
    }

    fn name(&self) -> &'static str {
        "off"
    }
}
