//! Records kept for good: a database file of their own beside the store.
//!
//! Entities are configuration and have one writer; records change with traffic, and an old and a new process write them
//! side by side while one hands over to the other. Hence a file of their own: each process has all records in memory,
//! writes through one thread that shares a disk write between many writers, and looks several times a second whether
//! the other process wrote. Removed records leave a mark for a while, so that the other process learns of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::runtime::records::{Edit, Record, RecordError, RecordIndex, Records, now_ms};

/// The file under the prefix.
pub const FILE_NAME: &str = "records.sqlite";
/// Writes that wait; further ones are refused.
const QUEUE_MAX: usize = 8192;
/// Writes that share one disk write.
const BATCH_MAX: usize = 512;
/// How often the file is looked at for what another process wrote.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often records whose time is over are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Records removed by one sweep.
const SWEEP_MAX: usize = 10_000;
/// How long the mark of a removed record stays.
const MARK_LIFE: Duration = Duration::from_secs(3600);
/// Longest wait for the other process's transaction.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// The records; see the module. Dropping it finishes what is queued.
pub struct DurableRecords {
    index: Arc<RecordIndex>,
    queue: Option<SyncSender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Job {
    edits: Vec<Edit>,
    answer: oneshot::Sender<Result<(), RecordError>>,
}

impl DurableRecords {
    /// Opens, or makes, the file under `prefix` and reads it.
    ///
    /// # Errors
    ///
    /// A text that names the file and what cannot be done.
    pub fn open(prefix: &Path) -> Result<Self, String> {
        let path = prefix.join(FILE_NAME);
        let name = path.display().to_string();
        let failed = |error: rusqlite::Error| format!("{name}: cannot be used: {error}");
        private_file(&path).map_err(|error| format!("{name}: cannot be opened: {error}"))?;
        let connection = open(&path).map_err(failed)?;
        let index = Arc::new(RecordIndex::default());
        let mut writer = Writer {
            connection,
            index: Arc::clone(&index),
            seen: 0,
            version: 0,
        };
        writer.catch_up().map_err(failed)?;
        let (queue, inbox) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("control-records".to_owned())
            .spawn(move || writer.serve(&inbox))
            .map_err(|error| format!("no threads can be started: {error}"))?;
        Ok(Self {
            index,
            queue: Some(queue),
            writer: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for DurableRecords {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.lock().take() {
            // It only ends early by a bug, after which there is nothing to wait for.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Records for DurableRecords {
    fn index(&self) -> &RecordIndex {
        &self.index
    }

    async fn write(&self, edits: Vec<Edit>) -> Result<(), RecordError> {
        if edits.is_empty() {
            return Ok(());
        }
        self.index.check(&edits)?;
        let (answer, answered) = oneshot::channel();
        let stopping = || RecordError::Store("the process is stopping".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopping)?;
        queue
            .try_send(Job { edits, answer })
            .map_err(|refused| match refused {
                TrySendError::Full(_) => {
                    RecordError::Store(format!("{QUEUE_MAX} writes wait already"))
                }
                TrySendError::Disconnected(_) => stopping(),
            })?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

struct Writer {
    connection: Connection,
    index: Arc<RecordIndex>,
    /// The greatest sequence number taken in.
    seen: i64,
    /// What SQLite calls `data_version`: it changes when another process writes.
    version: i64,
}

impl Writer {
    fn serve(mut self, inbox: &Receiver<Job>) {
        let mut swept = Instant::now();
        loop {
            match inbox.recv_timeout(LOOK_EVERY) {
                Ok(first) => {
                    let mut jobs = vec![first];
                    while jobs.len() < BATCH_MAX
                        && let Ok(job) = inbox.try_recv()
                    {
                        jobs.push(job);
                    }
                    self.commit(jobs);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let attempt = self.look().and_then(|()| {
                if swept.elapsed() >= SWEEP_EVERY {
                    swept = Instant::now();
                    self.sweep()?;
                }
                Ok(())
            });
            if let Err(error) = attempt {
                tracing::warn!(%error, "records cannot be looked after");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let edits: Vec<&Edit> = jobs.iter().flat_map(|job| &job.edits).collect();
        let outcome = self.store(&edits).map_err(|error| {
            tracing::error!(%error, "records cannot be stored");
            RecordError::Store(error.to_string())
        });
        if outcome.is_ok() {
            for job in &jobs {
                self.index.apply(&job.edits);
            }
        }
        for job in jobs {
            // Whoever asked may have gone away; the records stand.
            let _ = job.answer.send(outcome.clone());
        }
    }

    fn store(&mut self, edits: &[&Edit]) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut sequence: i64 = transaction
            .prepare_cached("SELECT coalesce(max(sequence), 0) FROM records")?
            .query_row([], |row| row.get(0))?;
        let others = sequence > self.seen;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO records (table_name, key, text, expires_at, sequence) \
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (table_name, key) \
                 DO UPDATE SET text = ?3, expires_at = ?4, sequence = ?5",
            )?;
            let mark_ends = now_ms().saturating_add(millis(MARK_LIFE));
            for edit in edits {
                sequence += 1;
                let (text, ends) = match &edit.record {
                    Some(record) => (Some(record.text.as_ref()), record.expires_at_ms),
                    None => (None, Some(mark_ends)),
                };
                put.execute(params![
                    edit.table.as_ref(),
                    edit.key.as_ref(),
                    text,
                    ends,
                    sequence
                ])?;
            }
        }
        transaction.commit()?;
        // What another process wrote in between is still to be read.
        if !others {
            self.seen = sequence;
        }
        Ok(())
    }

    /// Reads what another process wrote since the last look.
    fn look(&mut self) -> rusqlite::Result<()> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if version != self.version {
            self.version = version;
            self.catch_up()?;
        }
        Ok(())
    }

    fn catch_up(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT table_name, key, text, expires_at, sequence FROM records \
             WHERE sequence > ?1 ORDER BY sequence",
        )?;
        let mut rows = statement.query([self.seen])?;
        let mut edits = Vec::new();
        while let Some(row) = rows.next()? {
            let text: Option<String> = row.get(2)?;
            let expires_at_ms = row.get(3)?;
            edits.push(Edit {
                table: row.get_ref(0)?.as_str()?.into(),
                key: row.get_ref(1)?.as_str()?.into(),
                record: text.map(|text| Record {
                    text: text.into(),
                    expires_at_ms,
                }),
            });
            self.seen = row.get(4)?;
        }
        self.index.apply(&edits);
        Ok(())
    }

    /// Removes records whose time is over, and old marks.
    fn sweep(&mut self) -> rusqlite::Result<()> {
        let ended = self.index.ended(SWEEP_MAX);
        let gone: Vec<Edit> = ended
            .into_iter()
            .map(|(table, key)| Edit {
                table,
                key,
                record: None,
            })
            .collect();
        // Other processes see by themselves that the time of a record is over: no mark is needed.
        self.connection
            .prepare_cached("DELETE FROM records WHERE expires_at <= ?1")?
            .execute([now_ms()])?;
        self.index.apply(&gone);
        Ok(())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Makes the file when there is none. Tokens are inside: nobody else may read it.
fn private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (
             table_name TEXT NOT NULL,
             key TEXT NOT NULL,
             text TEXT,
             expires_at INTEGER,
             sequence INTEGER NOT NULL,
             PRIMARY KEY (table_name, key)
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS records_sequence ON records (sequence);
         CREATE INDEX IF NOT EXISTS records_expires ON records (expires_at);",
    )?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    fn record(text: &str) -> Record {
        Record {
            text: text.into(),
            expires_at_ms: None,
        }
    }

    async fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < deadline, "it never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn records_outlive_the_process_and_reach_its_successor() {
        let prefix = tempfile::tempdir().unwrap();
        let open =
            || -> Arc<dyn Records> { Arc::new(DurableRecords::open(prefix.path()).unwrap()) };
        let first = open();
        first.put("t", "kept", record("1")).await.unwrap();
        first.put("t", "gone", record("2")).await.unwrap();
        let second = open();
        assert_eq!(second.find("t", "kept"), Some(record("1")));
        first.remove("t", "gone").await.unwrap();
        second.put("t", "new", record("3")).await.unwrap();
        until(|| second.find("t", "gone").is_none()).await;
        until(|| first.find("t", "new").is_some()).await;
        drop((first, second));
        let third = open();
        assert_eq!(third.find("t", "kept"), Some(record("1")));
        assert_eq!(third.find("t", "gone"), None);
        assert_eq!(third.index().len(), 2);
    }

    #[tokio::test]
    async fn many_writers_share_a_commit() {
        let prefix = tempfile::tempdir().unwrap();
        let records: Arc<dyn Records> = Arc::new(DurableRecords::open(prefix.path()).unwrap());
        let writes = (0..200).map(|number| {
            let records = Arc::clone(&records);
            tokio::spawn(async move {
                let key = number.to_string();
                records.put("t", &key, record("x")).await
            })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
        assert_eq!(records.index().len(), 200);
    }
}
