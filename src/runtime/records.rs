//! Records: small texts under a table and a key that outlive the process and change with traffic, such as issued tokens.
//!
//! Owns the contract, and the index that answers every look-up from memory. Refuses to know where records are kept for
//! good (that is for whoever implements [`Records`]) and what the texts mean. What the configuration consists of is no
//! record.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::RwLock;

/// Most records of a node; further ones are refused.
pub const RECORDS_MAX: usize = 2_000_000;
/// Longest table and key together, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 512 * 1024;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub text: Arc<str>,
    /// Milliseconds since 1970 from which on it counts as gone.
    pub expires_at_ms: Option<i64>,
}

/// Why a record could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Table and key, or the text, are too long.
    #[error("a record has at most {KEY_BYTES_MAX} bytes of key and {TEXT_BYTES_MAX} bytes of text")]
    TooLong,
    /// There are too many.
    #[error("there are {RECORDS_MAX} records already")]
    Full,
    /// The store failed; nothing has changed.
    #[error("records cannot be stored: {0}")]
    Store(String),
}

/// One edit: a new record, or none in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub table: Arc<str>,
    pub key: Arc<str>,
    pub record: Option<Record>,
}

/// Where records are. Reading never waits; writing answers when the record is kept for good.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// The index of everything.
    fn index(&self) -> &RecordIndex;

    /// Writes all edits or none.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; nothing has changed then.
    async fn write(&self, edits: Vec<Edit>) -> Result<(), RecordError>;
}

/// The records in memory, ordered by table and key.
#[derive(Debug, Default)]
pub struct RecordIndex {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_name: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Record>>,
    count: usize,
}

impl RecordIndex {
    /// The record under a key, unless its time is over.
    pub fn find(&self, table: &str, key: &str) -> Option<Record> {
        let tables = self.tables.read();
        let record = tables.by_name.get(table)?.get(key)?;
        (!is_over(record, now_ms)).then(|| record.clone())
    }

    /// The records of a table after a key, in the order of keys, at most `limit`.
    pub fn list(&self, table: &str, after: Option<&str>, limit: usize) -> Vec<(Arc<str>, Record)> {
        let tables = self.tables.read();
        let Some(table) = tables.by_name.get(table) else {
            return Vec::new();
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        table
            .range::<str, _>((from, Bound::Unbounded))
            .filter(|(_, record)| !is_over(record, now_ms))
            .take(limit)
            .map(|(key, record)| (Arc::clone(key), record.clone()))
            .collect()
    }

    /// How many records there are, those included whose time is over and that have not been swept.
    pub fn len(&self) -> usize {
        self.tables.read().count
    }

    /// How many records a table has, counted as in [`RecordIndex::len`].
    pub fn len_of(&self, table: &str) -> usize {
        self.tables
            .read()
            .by_name
            .get(table)
            .map_or(0, BTreeMap::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does what the edits say. For implementations of [`Records`], once they are kept for good.
    pub fn apply(&self, edits: &[Edit]) {
        let mut tables = self.tables.write();
        for edit in edits {
            tables.apply(edit);
        }
    }

    /// The keys of records whose time is over, at most `limit`: for sweeping.
    pub fn ended(&self, limit: usize) -> Vec<(Arc<str>, Arc<str>)> {
        let now = now_ms();
        let tables = self.tables.read();
        let all = tables.by_name.iter().flat_map(|(name, table)| {
            table
                .iter()
                .filter(|(_, record)| is_over(record, || now))
                .map(move |(key, _)| (Arc::clone(name), Arc::clone(key)))
        });
        all.take(limit).collect()
    }

    /// Refuses edits that are too long or too many.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`], [`RecordError::Full`].
    pub fn check(&self, edits: &[Edit]) -> Result<(), RecordError> {
        let too_long = edits.iter().any(|edit| {
            let text = edit.record.as_ref().map_or(0, |record| record.text.len());
            edit.table.len() + edit.key.len() > KEY_BYTES_MAX || text > TEXT_BYTES_MAX
        });
        if too_long {
            return Err(RecordError::TooLong);
        }
        let new = edits.iter().filter(|edit| edit.record.is_some()).count();
        if self.len().saturating_add(new) > RECORDS_MAX {
            return Err(RecordError::Full);
        }
        Ok(())
    }
}

impl Tables {
    fn apply(&mut self, edit: &Edit) {
        match &edit.record {
            Some(record) => {
                let table = self.by_name.entry(Arc::clone(&edit.table)).or_default();
                if table
                    .insert(Arc::clone(&edit.key), record.clone())
                    .is_none()
                {
                    self.count += 1;
                }
            }
            None => {
                let Some(table) = self.by_name.get_mut(&edit.table) else {
                    return;
                };
                if table.remove(&edit.key).is_some() {
                    self.count -= 1;
                }
                if table.is_empty() {
                    self.by_name.remove(&edit.table);
                }
            }
        }
    }
}

fn is_over(record: &Record, now: impl FnOnce() -> i64) -> bool {
    record.expires_at_ms.is_some_and(|end| end <= now())
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

impl dyn Records {
    /// The record under a key, unless its time is over.
    pub fn find(&self, table: &str, key: &str) -> Option<Record> {
        self.index().find(table, key)
    }

    /// Writes one record in place of the one under its key.
    ///
    /// # Errors
    ///
    /// As [`Records::write`].
    pub async fn put(&self, table: &str, key: &str, record: Record) -> Result<(), RecordError> {
        let record = Some(record);
        self.write(vec![edit(table, key, record)]).await
    }

    /// Removes one record.
    ///
    /// # Errors
    ///
    /// As [`Records::write`].
    pub async fn remove(&self, table: &str, key: &str) -> Result<(), RecordError> {
        self.write(vec![edit(table, key, None)]).await
    }

    /// Removes every record of a table.
    ///
    /// # Errors
    ///
    /// As [`Records::write`].
    pub async fn remove_table(&self, table: &str) -> Result<(), RecordError> {
        let all = self.index().list(table, None, RECORDS_MAX);
        let edits = all.iter().map(|(key, _)| edit(table, key, None));
        self.write(edits.collect()).await
    }
}

fn edit(table: &str, key: &str, record: Option<Record>) -> Edit {
    Edit {
        table: table.into(),
        key: key.into(),
        record,
    }
}

/// Records that end with the process: for configurations without a store, and for tests.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    index: RecordIndex,
}

/// Records swept before each write.
const SWEEP: usize = 64;

#[async_trait]
impl Records for MemoryRecords {
    fn index(&self) -> &RecordIndex {
        &self.index
    }

    async fn write(&self, edits: Vec<Edit>) -> Result<(), RecordError> {
        // A full look costs too much for each write; what is over only takes room until there is little left.
        if self.index.len() >= RECORDS_MAX / 2 {
            let ended = self.index.ended(SWEEP);
            let gone: Vec<Edit> = ended.iter().map(|(t, k)| edit(t, k, None)).collect();
            self.index.apply(&gone);
        }
        self.index.check(&edits)?;
        self.index.apply(&edits);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn record(text: &str, expires_at_ms: Option<i64>) -> Record {
        Record {
            text: text.into(),
            expires_at_ms,
        }
    }

    #[tokio::test]
    async fn records_are_found_listed_and_end() {
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        for (key, text) in [("b", "2"), ("a", "1"), ("c", "3")] {
            records.put("t", key, record(text, None)).await.unwrap();
        }
        records.put("t", "old", record("x", Some(1))).await.unwrap();
        assert_eq!(records.find("t", "a").unwrap().text.as_ref(), "1");
        assert_eq!(records.find("t", "old"), None);
        assert_eq!(records.find("u", "a"), None);
        let keys = |after| -> Vec<String> {
            let listed = records.index().list("t", after, 2);
            listed.into_iter().map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!(keys(None), ["a", "b"]);
        assert_eq!(keys(Some("b")), ["c"]);
        assert_eq!(records.index().ended(9), [("t".into(), "old".into())]);
        records.remove("t", "a").await.unwrap();
        assert_eq!(records.index().len(), 3);
        assert_eq!(
            (records.index().len_of("t"), records.index().len_of("u")),
            (3, 0)
        );
        records.remove_table("t").await.unwrap();
        assert_eq!(records.find("t", "b"), None);
    }

    #[tokio::test]
    async fn records_that_are_too_long_are_refused() {
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(
            records.put("t", "k", record(&long, None)).await,
            Err(RecordError::TooLong)
        );
        assert!(records.index().is_empty());
    }
}
