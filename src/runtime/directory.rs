//! Principals and credentials, indexed for lookups that never leave memory.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use uuid::Uuid;

use crate::runtime::snapshot::{Credential, Principal};

/// Shards of each map: a change copies one shard.
const SHARDS: usize = 256;

/// Credentials by the value that a caller presents; kinds may share a value.
type CredentialShard = AHashMap<Box<str>, Vec<Arc<Credential>>>;

/// Who may call and what they prove themselves with. Cloning copies 512 pointers; a change copies one shard.
#[derive(Clone)]
pub struct Directory {
    principals: Vec<Arc<AHashMap<Uuid, Arc<Principal>>>>,
    credentials: Vec<Arc<CredentialShard>>,
    hasher: RandomState,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            principals: vec![Arc::default(); SHARDS],
            credentials: vec![Arc::default(); SHARDS],
            hasher: RandomState::new(),
        }
    }
}

impl Directory {
    pub fn principal(&self, id: &Uuid) -> Option<&Arc<Principal>> {
        self.principals.get(self.shard(id))?.get(id)
    }

    /// The principal with this user name or custom id: a scan, for configuration only.
    pub fn principal_named(&self, name: &str) -> Option<&Arc<Principal>> {
        self.principal_where(|principal| {
            principal.plan.username.as_deref() == Some(name)
                || principal.plan.custom_id.as_deref() == Some(name)
        })
    }

    /// The first principal that suits: a scan, whose answer the caller keeps.
    pub fn principal_where(&self, suits: impl Fn(&Principal) -> bool) -> Option<&Arc<Principal>> {
        let mut all = self.principals.iter().flat_map(|shard| shard.values());
        all.find(|principal| suits(principal))
    }

    /// What the mechanism `kind` knows under `key`. Expiry is the caller's to check.
    pub fn credential(&self, kind: &str, key: &str) -> Option<&Arc<Credential>> {
        self.credentials
            .get(self.shard(key))?
            .get(key)?
            .iter()
            .find(|credential| &*credential.plan.kind == kind)
    }

    pub fn put_principal(&mut self, principal: Arc<Principal>) {
        let shard = self.shard(&principal.plan.id);
        if let Some(shard) = self.principals.get_mut(shard) {
            Arc::make_mut(shard).insert(principal.plan.id, principal);
        }
    }

    pub fn remove_principal(&mut self, id: &Uuid) {
        let shard = self.shard(id);
        if let Some(shard) = self.principals.get_mut(shard) {
            Arc::make_mut(shard).remove(id);
        }
    }

    pub fn put_credential(&mut self, credential: Arc<Credential>) {
        let key = credential.plan.key.expose();
        let shard = self.shard(key);
        if let Some(shard) = self.credentials.get_mut(shard) {
            let same_key = Arc::make_mut(shard).entry(key.into()).or_default();
            same_key.retain(|other| other.plan.id != credential.plan.id);
            same_key.push(credential.clone());
        }
    }

    pub fn remove_credential(&mut self, credential: &Credential) {
        let key = credential.plan.key.expose();
        let shard = self.shard(key);
        if let Some(shard) = self.credentials.get_mut(shard) {
            let shard = Arc::make_mut(shard);
            if let Some(same_key) = shard.get_mut(key) {
                same_key.retain(|other| other.plan.id != credential.plan.id);
                if same_key.is_empty() {
                    shard.remove(key);
                }
            }
        }
    }

    fn shard<K: std::hash::Hash + ?Sized>(&self, key: &K) -> usize {
        // The top bits: the map inside a shard uses the others.
        (self.hasher.hash_one(key) >> 56) as usize % SHARDS
    }
}
