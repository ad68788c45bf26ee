//! The store of a single node: an SQLite file in write-ahead mode under the prefix.
//!
//! One process owns it, guarded by a lock file beside it that the system releases even after `kill -9`. A commit is one
//! transaction with `synchronous = FULL`: when it returns, the log is on disk. A process that dies in between leaves a
//! torn log tail, which the next one ignores; so a change is there wholly or not at all.
//!
//! Hand-over between an old and a new process (`sallyport upgrade`):
//!
//! 1. the new process opens with [`Ownership::Follow`]: it reads beside the old one, which still writes;
//! 2. the old process stops taking Admin requests, finishes its queue and closes its store, which releases the lock;
//! 3. the new process owns the store as soon as it claims it (its control plane is refreshed), at its first commit at
//!    the latest. Either waits for the lock at most [`HAND_OVER_PATIENCE`]. If the old process committed after the new
//!    one had loaded, a first commit without refresh is refused as a conflict, upon which the control plane reloads and
//!    checks again.

use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use super::lock::PrefixLock;
use super::{Contents, Edit, Row, Store, StoreError, Watch};

/// The file under the prefix.
pub const FILE_NAME: &str = "store.sqlite";
/// The lock file under the prefix.
pub const LOCK_NAME: &str = "store.lock";
/// Longest wait for the previous process to let go.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// Tells our files from other SQLite files: `SALY` in ASCII.
const APPLICATION_ID: u32 = 0x5341_4c59;
/// The newest format; a program migrates older ones when it owns the file.
const FORMAT: u32 = 1;
/// Longest wait for a reader's or checkpoint's lock inside SQLite.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// Who may write while this process has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This process, from the start. Refused while another one owns the prefix.
    Own,
    /// The process that is about to be replaced, until it lets go.
    Follow,
}

/// The store; see the module.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    lock_path: PathBuf,
    connection: Mutex<Connection>,
    ownership: Mutex<Owned>,
    node_id: Uuid,
}

/// Where this process stands towards the lock.
#[derive(Debug)]
enum Owned {
    NotYet,
    Yes { _lock: PrefixLock },
    NoMore,
}

impl EmbeddedStore {
    /// Opens the store under `prefix`, making folder and file when there are none, and checks that it is ours, of a
    /// known format and sound.
    pub fn open(prefix: &Path, ownership: Ownership) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(prefix)
            .map_err(|source| StoreError::File {
                path: prefix.display().to_string(),
                action: "make the folder ('prefix')",
                source,
            })?;
        let lock_path = prefix.join(LOCK_NAME);
        let ownership = match ownership {
            Ownership::Own => Owned::Yes {
                _lock: PrefixLock::take(&lock_path)?,
            },
            Ownership::Follow => Owned::NotYet,
        };
        let path = prefix.join(FILE_NAME);
        let connection = connect(&path)?;
        let node_id = prepare(&connection, &path)?;
        Ok(Self {
            path,
            lock_path,
            connection: Mutex::new(connection),
            ownership: Mutex::new(ownership),
            node_id,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes the owner as soon as the previous process lets go. Does nothing when it already is. Blocks at most
    /// `patience`.
    pub fn take_over(&self, patience: Duration) -> Result<(), StoreError> {
        let mut ownership = self.ownership.lock();
        match *ownership {
            Owned::Yes { .. } => Ok(()),
            Owned::NoMore => Err(StoreError::Closed {
                path: self.path.display().to_string(),
            }),
            Owned::NotYet => {
                *ownership = Owned::Yes {
                    _lock: PrefixLock::await_turn(&self.lock_path, patience)?,
                };
                Ok(())
            }
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError + '_ {
        move |source| database(&self.path, action, source)
    }
}

impl Store for EmbeddedStore {
    fn load(&self) -> Result<Contents, StoreError> {
        let mut connection = self.connection.lock();
        let read = |connection: &mut Connection| -> rusqlite::Result<Contents> {
            // One transaction, so that revision and rows are of one moment even while another process commits.
            let transaction = connection.transaction()?;
            let revision = revision(&transaction)?;
            let mut kinds: Vec<Arc<str>> = Vec::new();
            let mut statement =
                transaction.prepare("SELECT kind, id, revision, json FROM entities")?;
            let mut found = statement.query([])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let kind = row.get_ref(0)?.as_str()?;
                let kind = match kinds.iter().find(|known| known.as_ref() == kind) {
                    Some(known) => known.clone(),
                    None => {
                        let kind: Arc<str> = kind.into();
                        kinds.push(kind.clone());
                        kind
                    }
                };
                rows.push(Row {
                    kind,
                    id: row.get(1).map(Uuid::from_bytes)?,
                    revision: row.get(2).map(from_signed)?,
                    json: row.get_ref(3)?.as_str()?.into(),
                });
            }
            Ok(Contents { revision, rows })
        };
        read(&mut connection).map_err(self.failed("read the entities"))
    }

    fn commit(&self, expected: u64, edits: &[Edit]) -> Result<u64, StoreError> {
        let mut connection = self.connection.lock();
        self.claim()?;
        let found = revision(&connection).map_err(self.failed("read the revision"))?;
        if found != expected {
            return Err(StoreError::Conflict { expected, found });
        }
        let next = expected + 1;
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            // Rolled back when dropped before the commit.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut put = transaction.prepare_cached(
                    "INSERT INTO entities (kind, id, revision, json) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (kind, id) DO UPDATE SET revision = ?3, json = ?4",
                )?;
                let mut delete = transaction
                    .prepare_cached("DELETE FROM entities WHERE kind = ?1 AND id = ?2")?;
                for edit in edits {
                    let id = edit.id.as_bytes();
                    match &edit.json {
                        Some(json) => put.execute(params![
                            edit.kind.as_ref(),
                            id,
                            to_signed(next),
                            json.as_ref()
                        ])?,
                        None => delete.execute(params![edit.kind.as_ref(), id])?,
                    };
                }
                transaction
                    .prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'revision'")?
                    .execute([to_signed(next)])?;
            }
            transaction.commit()
        };
        write(&mut connection).map_err(self.failed("commit"))?;
        Ok(next)
    }

    /// Only the owner commits, so there is no news.
    fn watch(&self, _from: u64) -> Option<Watch> {
        None
    }

    fn claim(&self) -> Result<(), StoreError> {
        self.take_over(HAND_OVER_PATIENCE)
    }

    fn close(&self) {
        // A commit under way ends first: nobody else may own the file before.
        let _connection = self.connection.lock();
        *self.ownership.lock() = Owned::NoMore;
    }

    fn node_id(&self) -> Uuid {
        self.node_id
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Keys and passwords are inside: nobody else may read it. SQLite gives its companion files the same mode.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::File {
            path: path.display().to_string(),
            action: "open it",
            source,
        })?;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_PATIENCE)?;
        // The first statement that reads the file: says so when it is no database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        Ok(connection)
    };
    open().map_err(|source| database(path, "open the store", source))
}

/// Checks an existing file, lays out an empty one, and returns the node id.
fn prepare(connection: &Connection, path: &Path) -> Result<Uuid, StoreError> {
    let failed = |action: &'static str| move |source| database(path, action, source);
    let application_id = connection
        .query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0))
        .map_err(failed("read the application id"))?
        .cast_unsigned();
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed("read the layout"))?;
    if application_id != APPLICATION_ID && (application_id != 0 || tables != 0) {
        return Err(StoreError::Foreign {
            path: path.display().to_string(),
            found: application_id,
        });
    }
    if tables == 0 {
        lay_out(connection).map_err(failed("lay out the store"))?;
    }
    let format: Option<u32> = connection
        .query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed("read the format"))?;
    match format {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(StoreError::TooNew {
                path: path.display().to_string(),
                found,
                known: FORMAT,
            });
        }
        _ => {
            return Err(StoreError::Damaged {
                path: path.display().to_string(),
                finding: "no known store format".to_owned(),
            });
        }
    }
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed("check the store"))?;
    if finding != "ok" {
        return Err(StoreError::Damaged {
            path: path.display().to_string(),
            finding,
        });
    }
    let node_id: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'node_id'", [], |row| {
            row.get(0)
        })
        .map_err(failed("read the node id"))?;
    Uuid::parse_str(&node_id).map_err(|_| StoreError::Damaged {
        path: path.display().to_string(),
        finding: format!("node id '{node_id}' is no UUID"),
    })
}

/// Makes the tables in one transaction, so that a process killed here leaves an empty file and not half a layout. Two
/// processes that start at once (one of them following) both succeed.
fn lay_out(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION_ID};
         CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS entities (
             kind TEXT NOT NULL,
             id BLOB NOT NULL,
             revision INTEGER NOT NULL,
             json TEXT NOT NULL,
             PRIMARY KEY (kind, id)
         );
         INSERT OR IGNORE INTO meta VALUES
             ('format', {FORMAT}), ('node_id', '{}'), ('revision', 0);
         COMMIT;",
        Uuid::new_v4()
    ))
}

fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = 'revision'")?
        .query_row([], |row| row.get(0).map(from_signed))
}

/// SQLite counts signed; a revision never gets near the sign bit.
fn to_signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn from_signed(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// Broken files get their own message: everything else is a failed operation.
fn database(path: &Path, action: &'static str, source: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.display().to_string();
    match source.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => StoreError::Damaged {
            path,
            finding: source.to_string(),
        },
        _ => StoreError::Database {
            path,
            action,
            source,
        },
    }
}

#[cfg(test)]
mod tests;
