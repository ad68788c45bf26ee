//! Where entities are kept for good: one row per entity, and a revision that counts the commits.
//!
//! Owns the contract every store fulfils ([`Store`]) and its two implementations that need no other machine:
//! [`embedded`], a file under the prefix, and [`memory`], which keeps nothing. A store refuses to know what the rows
//! mean: schemas, uniqueness and references are checked on the entity set in memory before a commit. Shaped so that a
//! store shared by several nodes fits: commits are conditional on the revision they were computed from, and commits of
//! other nodes arrive through a watch.

pub mod embedded;
mod lock;
pub mod memory;
mod news;

use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

pub use news::{News, Watch};

/// One stored entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is, as its dialect names the table.
    pub kind: Arc<str>,
    /// Unique within its kind.
    pub id: Uuid,
    /// The revision of the commit that wrote it last.
    pub revision: u64,
    /// The whole entity, compact JSON.
    pub json: Arc<str>,
}

/// One edit of a commit. A commit names each (kind, id) at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What it is, as its dialect names the table.
    pub kind: Arc<str>,
    /// Unique within its kind.
    pub id: Uuid,
    /// The new content as compact JSON; `None` deletes the row. Deleting what is absent is no error.
    pub json: Option<Arc<str>>,
}

/// Everything a store holds, as of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The newest commit contained; 0 for a store never written to.
    pub revision: u64,
    /// All rows, in no particular order.
    pub rows: Vec<Row>,
}

/// A store of entity rows. The control plane calls it from threads of its own, so methods may block.
pub trait Store: Send + Sync + 'static {
    /// Reads everything as of one moment.
    fn load(&self) -> Result<Contents, StoreError>;

    /// Applies all edits or none, and only if the newest revision still is `expected`. When it returns, the edits
    /// outlive a crash of the process and of the machine (as far as the store is durable at all). Returns the new
    /// revision, greater than `expected`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] when somebody else committed since `expected`: load, check again, retry.
    fn commit(&self, expected: u64, edits: &[Edit]) -> Result<u64, StoreError>;

    /// Tells of every commit after `from`, by whomever. `None` when this process is the only one that ever commits, so
    /// that there is no news to wait for.
    fn watch(&self, from: u64) -> Option<Watch>;

    /// Becomes the one that may commit, as soon as a predecessor lets go. Does nothing where it already may, or where
    /// several processes may. Blocks for a bounded time.
    fn claim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lets go of the store for good, so that another process may own it. Later commits fail.
    fn close(&self) {}

    /// A random id that stays with the store's node, for clients that ask which node answered.
    fn node_id(&self) -> Uuid;

    /// A word for messages and for `GET /`.
    fn name(&self) -> &'static str;
}

/// Why a store could not do what was asked. The text holds no cause: walk [`std::error::Error::source`].
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody committed since the revision that the caller knew.
    #[error("store changed meanwhile: expected revision {expected}, found {found}")]
    Conflict {
        /// What the caller computed from.
        expected: u64,
        /// What the store holds.
        found: u64,
    },
    /// Another process uses the same prefix.
    #[error(
        "{path}: in use by another process{holder}, stop that one first or give this one another 'prefix'"
    )]
    InUse {
        /// The lock file.
        path: String,
        /// ` (pid N)` when known.
        holder: String,
    },
    /// The previous owner did not let go in time during a hand-over.
    #[error("{path}: the previous process still writes, try again")]
    HandOverPending {
        /// The lock file.
        path: String,
    },
    /// This process has let go of the store.
    #[error("{path}: closed, the process is stopping")]
    Closed {
        /// The file.
        path: String,
    },
    /// The folder or file cannot be made or opened.
    #[error("{path}: cannot {action}")]
    File {
        /// The file.
        path: String,
        /// What was tried.
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// It is a database, but not one of ours.
    #[error(
        "{path}: not a store of this program (application id {found:#010x}), move it away or choose another 'prefix'"
    )]
    Foreign {
        /// The file.
        path: String,
        /// The application id found.
        found: u32,
    },
    /// Written by a newer program.
    #[error(
        "{path}: has store format {found}, this program reads up to {known}: start the newer program, or move the file away and import an export of it"
    )]
    TooNew {
        /// The file.
        path: String,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The file is broken.
    #[error(
        "{path}: damaged ({finding}), restore it from a backup or move it away together with its '-wal' file to start empty"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What the check said.
        finding: String,
    },
    /// The database refused.
    #[error("{path}: cannot {action}")]
    Database {
        /// The file.
        path: String,
        /// What was tried.
        action: &'static str,
        #[source]
        source: rusqlite::Error,
    },
}
