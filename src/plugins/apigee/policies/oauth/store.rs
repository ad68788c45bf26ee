//! Where tokens are kept: records, by their digests.
//!
//! Owns reading and writing of tokens, and who may change one while somebody else does: whoever changes or takes a token
//! holds its lock from the look until it is written. Refuses to know why a token is issued or refused.

use std::sync::Arc;

use ahash::RandomState;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, MutexGuard};

use super::refusal::Refusal;
use crate::base::seal::Seal;
use crate::dialects::apigee::oauth::{
    AuthorizationCode, Grant, Issued, Mark, Partner, TOKEN_BYTES_MAX, TOKENS_MAX, TokenKind,
    digest, mark_keys, record_end,
};
use crate::runtime::live::Live;
use crate::runtime::records::{Edit, Record, Records};

/// Length of an access token.
pub(super) const ACCESS_LENGTH: usize = 28;
/// Length of a refresh token, and of a code.
pub(super) const REFRESH_LENGTH: usize = 32;
/// Locks that tokens share.
const LOCKS: usize = 64;

/// The tokens of all organisations.
pub(super) struct TokenStore {
    records: Arc<dyn Records>,
    seal: Seal,
    locks: Arc<Locks>,
}

/// Tokens share them by their digests, so that any number of tokens needs few of them.
struct Locks {
    all: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl TokenStore {
    /// The one of the process.
    pub(super) fn of(live: &Live) -> Self {
        Self {
            records: Arc::clone(live.records()),
            seal: live.seal().clone(),
            locks: live.keep("oauth-locks", || Locks {
                all: (0..LOCKS).map(|_| Mutex::new(())).collect(),
                hasher: RandomState::new(),
            }),
        }
    }

    /// A token by its digest.
    pub(super) fn find(&self, organization: &str, kind: TokenKind, key: &str) -> Option<Issued> {
        self.read(organization, kind, key)
    }

    /// A token by itself.
    pub(super) fn find_token(
        &self,
        organization: &str,
        kind: TokenKind,
        token: &str,
    ) -> Option<Issued> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        self.read(organization, kind, &digest(token))
    }

    /// A code by its digest.
    pub(super) fn find_code(&self, organization: &str, key: &str) -> Option<AuthorizationCode> {
        self.read(organization, TokenKind::Code, key)
    }

    fn read<T: DeserializeOwned>(
        &self,
        organization: &str,
        kind: TokenKind,
        key: &str,
    ) -> Option<T> {
        let record = self.records.find(&kind.table(organization), key)?;
        serde_json::from_str(&record.text).ok()
    }

    /// Whether everything of the grant's app or end user that was issued then has been revoked since.
    pub(super) fn is_marked(
        &self,
        organization: &str,
        kind: TokenKind,
        grant: &Grant,
        issued_at: i64,
    ) -> bool {
        let table = TokenKind::Mark.table(organization);
        if self.records.index().len_of(&table) == 0 {
            return false;
        }
        mark_keys(grant).any(|key| self.find_mark(organization, &key).covers(kind, issued_at))
    }

    /// The mark under a key; one that covers nothing when there is none.
    pub(super) fn find_mark(&self, organization: &str, key: &str) -> Mark {
        self.read(organization, TokenKind::Mark, key)
            .unwrap_or_default()
    }

    /// Holds tokens until they are written. Orders by itself, so that two that want the same ones do not block each other.
    pub(super) async fn lock(&self, keys: &[&str]) -> Vec<MutexGuard<'_, ()>> {
        let mut places: Vec<usize> = keys
            .iter()
            .map(|key| {
                let hash = self.locks.hasher.hash_one(key);
                usize::try_from(hash % LOCKS as u64).unwrap_or_default()
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        let mut held = Vec::with_capacity(places.len());
        for place in places {
            if let Some(lock) = self.locks.all.get(place) {
                held.push(lock.lock().await);
            }
        }
        held
    }

    /// The edit that keeps a token; refused when there are too many.
    pub(super) fn keep(
        &self,
        organization: &str,
        kind: TokenKind,
        key: &str,
        token: &impl Serialize,
        expires_at: i64,
    ) -> Result<Edit, Refusal> {
        let table = kind.table(organization);
        let is_new = self.records.find(&table, key).is_none();
        if is_new && self.records.index().len_of(&table) >= TOKENS_MAX {
            tracing::warn!(
                organization,
                "there are {TOKENS_MAX} tokens already, further ones are refused"
            );
            return Err(Refusal::store("there are too many tokens"));
        }
        let text = serde_json::to_string(token)
            .map_err(|_| Refusal::store("a token cannot be written"))?;
        Ok(Edit {
            table: table.into(),
            key: key.into(),
            record: Some(Record {
                text: text.into(),
                expires_at_ms: record_end(expires_at),
            }),
        })
    }

    /// The edit that forgets a token.
    pub(super) fn forget(&self, organization: &str, kind: TokenKind, key: &str) -> Edit {
        Edit {
            table: kind.table(organization).into(),
            key: key.into(),
            record: None,
        }
    }

    /// Writes all edits or none.
    pub(super) async fn write(&self, edits: Vec<Edit>) -> Result<(), Refusal> {
        self.records.write(edits).await.map_err(|error| {
            tracing::warn!(%error, "tokens cannot be kept");
            Refusal::store(&error.to_string())
        })
    }

    /// What a token keeps of the one that was issued with it.
    pub(super) fn partner(&self, own: &str, token: &str) -> Option<Partner> {
        Some(Partner {
            digest: digest(token),
            sealed: self.seal.seal(own, token)?,
        })
    }

    /// The token that was issued with the one under this digest.
    pub(super) fn open_partner(&self, own: &str, partner: &Partner) -> Option<String> {
        self.seal.open(own, &partner.sealed)
    }
}

/// A new token.
pub(super) fn generate(length: usize) -> String {
    // Seeded by the system, as tokens must be.
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(length)
        .map(char::from)
        .collect()
}
