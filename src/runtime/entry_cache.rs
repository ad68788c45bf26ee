//! Caches of small entries that policies fill and read by name, with a bound on what all of them hold together.
//!
//! Owns tables, their entries, the end of entries and their removal. Refuses to know what entries mean. Where there is no
//! room the oldest entries go: those of the table when its own limit is reached, else the oldest of all tables. Tables are
//! made by configuration, never by traffic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

/// Most bytes of all keys and values.
pub const BYTES_MAX: usize = 256 << 20;
/// Largest entry, key included.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD: usize = 192;
/// Entries whose time may be over that each new one looks at.
const SWEPT_MAX: usize = 4;
/// Tables looked at before unused ones are swept out.
const SWEEP_EVERY: usize = 256;

/// All tables; see the module.
#[derive(Default)]
pub struct EntryCache {
    tables: Mutex<AHashMap<Box<str>, Arc<Table>>>,
    totals: Arc<Totals>,
}

#[derive(Default)]
struct Totals {
    bytes: AtomicUsize,
    /// The number of the next entry: younger ones have higher numbers.
    next_age: AtomicU64,
}

/// One cache by its name.
pub struct Table {
    totals: Arc<Totals>,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Arc<str>, Entry>,
    /// Keys by age.
    ages: BTreeMap<u64, Arc<str>>,
    bytes: usize,
}

struct Entry {
    value: Bytes,
    ends: Option<Instant>,
    age: u64,
}

/// What one table may hold; the cache's own limits count besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Entries. None: no limit of the table's own.
    pub entries_max: Option<usize>,
    /// Bytes of all keys and values. None: no limit of the table's own.
    pub bytes_max: Option<usize>,
    /// Bytes of one value.
    pub value_bytes_max: usize,
}

/// What is under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Value(Bytes),
    /// An entry whose time is over.
    Ended,
    Nothing,
}

fn size(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

impl EntryCache {
    /// The table of this name, made when there is none.
    pub fn table(&self, name: &str) -> Arc<Table> {
        let mut tables = self.tables.lock();
        if let Some(table) = tables.get(name) {
            return Arc::clone(table);
        }
        if tables.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            tables.retain(|_, table| {
                Arc::strong_count(table) > 1 || !table.inner.read().entries.is_empty()
            });
        }
        let table = Arc::new(Table {
            totals: Arc::clone(&self.totals),
            inner: RwLock::default(),
        });
        tables.insert(name.into(), Arc::clone(&table));
        table
    }

    /// Puts a value under a key of a table until `ends`, if at all. False when it is too large to be kept.
    pub fn put(
        &self,
        table: &Table,
        key: &str,
        value: Bytes,
        ends: Option<Instant>,
        limits: &TableLimits,
        now: Instant,
    ) -> bool {
        let size = size(key, &value);
        let fits = size <= ENTRY_BYTES_MAX
            && value.len() <= limits.value_bytes_max
            && limits.bytes_max.is_none_or(|most| size <= most)
            && limits.entries_max != Some(0);
        if !fits {
            table.remove(key);
            return false;
        }
        table.put(key, value, ends, limits, now);
        while self.totals.bytes.load(Ordering::Relaxed) > BYTES_MAX {
            if !self.drop_oldest() {
                break;
            }
        }
        true
    }

    /// Removes entries of a table: one, those whose key begins with a prefix, or all.
    pub fn clear(&self, table: &str, key: Option<&str>, prefix: Option<&str>) {
        let found = self.tables.lock().get(table).cloned();
        let Some(table) = found else { return };
        if let Some(key) = key {
            table.remove(key);
        } else {
            table.remove_below(prefix.unwrap_or_default());
        }
    }

    /// The bytes that all tables hold.
    pub fn bytes(&self) -> usize {
        self.totals.bytes.load(Ordering::Relaxed)
    }

    /// Removes the oldest entry of all tables. False when there is none.
    fn drop_oldest(&self) -> bool {
        let tables: Vec<Arc<Table>> = self.tables.lock().values().cloned().collect();
        let age = |table: &Arc<Table>| table.inner.read().ages.keys().next().copied();
        let oldest = tables
            .iter()
            .filter_map(|table| Some((age(table)?, table)))
            .min_by_key(|(age, _)| *age);
        oldest.is_some_and(|(_, table)| table.drop_oldest())
    }
}

impl Table {
    /// What is under a key.
    pub fn find(&self, key: &str, now: Instant) -> Found {
        match self.inner.read().entries.get(key) {
            None => Found::Nothing,
            Some(entry) if entry.ends.is_some_and(|end| end <= now) => Found::Ended,
            Some(entry) => Found::Value(entry.value.clone()),
        }
    }

    /// Removes an entry. False when there was none.
    pub fn remove(&self, key: &str) -> bool {
        self.change(|inner| inner.remove(key))
    }

    /// Removes all entries whose key begins so. Tells how many.
    pub fn remove_below(&self, prefix: &str) -> usize {
        self.change(|inner| {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let below = inner.entries.range::<str, _>(from).map(|(key, _)| key);
            let keys: Vec<Arc<str>> = below
                .take_while(|key| key.starts_with(prefix))
                .cloned()
                .collect();
            keys.iter().filter(|key| inner.remove(key)).count()
        })
    }

    fn put(
        &self,
        key: &str,
        value: Bytes,
        ends: Option<Instant>,
        limits: &TableLimits,
        now: Instant,
    ) {
        let age = self.totals.next_age.fetch_add(1, Ordering::Relaxed);
        self.change(|inner| {
            inner.remove(key);
            inner.sweep(now);
            let size = size(key, &value);
            let is_full = |inner: &Inner| {
                let entries = limits
                    .entries_max
                    .is_some_and(|most| inner.entries.len() >= most);
                let bytes = limits
                    .bytes_max
                    .is_some_and(|most| inner.bytes + size > most);
                entries || bytes
            };
            while is_full(inner) && inner.drop_oldest() {}
            let key: Arc<str> = key.into();
            inner.bytes += size;
            inner.ages.insert(age, Arc::clone(&key));
            inner.entries.insert(key, Entry { value, ends, age });
        });
    }

    fn drop_oldest(&self) -> bool {
        self.change(Inner::drop_oldest)
    }

    /// Changes the table, and the total of bytes by what that changed.
    fn change<T>(&self, edit: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.write();
        let before = inner.bytes;
        let outcome = edit(&mut inner);
        let bytes = &self.totals.bytes;
        match inner.bytes.checked_sub(before) {
            Some(more) => bytes.fetch_add(more, Ordering::Relaxed),
            None => bytes.fetch_sub(before - inner.bytes, Ordering::Relaxed),
        };
        outcome
    }
}

impl Inner {
    fn remove(&mut self, key: &str) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.ages.remove(&entry.age);
        self.bytes = self.bytes.saturating_sub(size(key, &entry.value));
        true
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(key) = self.ages.values().next().cloned() else {
            return false;
        };
        self.remove(&key)
    }

    /// Removes some of the oldest entries whose time is over.
    fn sweep(&mut self, now: Instant) {
        let oldest = self.ages.values().take(SWEPT_MAX);
        let over = |key: &&Arc<str>| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|entry| entry.ends.is_some_and(|end| end <= now))
        };
        let keys: Vec<Arc<str>> = oldest.filter(over).cloned().collect();
        for key in keys {
            self.remove(&key);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let bytes = self.inner.get_mut().bytes;
        self.totals.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FREE: TableLimits = TableLimits {
        entries_max: None,
        bytes_max: None,
        value_bytes_max: ENTRY_BYTES_MAX,
    };

    #[test]
    fn entries_are_found_until_they_end_or_are_cleared() {
        let cache = EntryCache::default();
        let (table, other) = (cache.table("c"), cache.table("d"));
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let value = |text: &'static str| Found::Value(text.into());
        cache.put(&table, "a", "1".into(), None, &FREE, now);
        cache.put(&table, "ab", "2".into(), Some(now + second), &FREE, now);
        cache.put(&other, "a", "3".into(), None, &FREE, now);
        assert_eq!(table.find("a", now), value("1"));
        assert_eq!(table.find("ab", now), value("2"));
        assert_eq!(table.find("ab", now + second), Found::Ended);
        assert_eq!(table.find("b", now), Found::Nothing);
        cache.clear("c", None, Some("ab"));
        assert_eq!(table.find("ab", now), Found::Nothing);
        assert_eq!(table.find("a", now), value("1"));
        cache.clear("c", None, None);
        assert_eq!(table.find("a", now), Found::Nothing);
        assert_eq!(other.find("a", now), value("3"));
        cache.clear("d", Some("a"), None);
        assert_eq!(other.find("a", now), Found::Nothing);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn tables_have_limits_of_their_own() {
        let cache = EntryCache::default();
        let table = cache.table("c");
        let now = Instant::now();
        let few = TableLimits {
            entries_max: Some(2),
            value_bytes_max: 4,
            ..FREE
        };
        for key in ["a", "b", "c"] {
            assert!(cache.put(&table, key, "1".into(), None, &few, now));
        }
        assert_eq!(table.find("a", now), Found::Nothing);
        assert_ne!(table.find("b", now), Found::Nothing);
        // One that is too large takes the place of nothing, and the old value under its key is not right any more.
        assert!(!cache.put(&table, "b", "12345".into(), None, &few, now));
        assert_eq!(table.find("b", now), Found::Nothing);
        let small = TableLimits {
            bytes_max: Some(2 * (ENTRY_OVERHEAD + 2)),
            ..FREE
        };
        for key in ["d", "e", "f"] {
            assert!(cache.put(&table, key, "1".into(), None, &small, now));
        }
        assert_eq!(table.find("d", now), Found::Nothing);
        assert_ne!(table.find("f", now), Found::Nothing);
    }

    #[test]
    fn entries_whose_time_is_over_make_room() {
        let cache = EntryCache::default();
        let table = cache.table("c");
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for number in 0..10 {
            let key = format!("old {number}");
            cache.put(&table, &key, "1".into(), Some(later), &FREE, now);
        }
        for number in 0..10 {
            cache.put(&table, &number.to_string(), "1".into(), None, &FREE, later);
        }
        assert_eq!(table.remove_below("old "), 0);
        assert_eq!(table.remove_below(""), 10);
    }

    #[test]
    fn the_oldest_of_all_go_when_there_is_no_room() {
        let cache = EntryCache::default();
        let tables = [cache.table("c"), cache.table("d")];
        let now = Instant::now();
        let large = Bytes::from(vec![0; ENTRY_BYTES_MAX - 1024]);
        let whole = Bytes::from(vec![0; ENTRY_BYTES_MAX]);
        let [first, second] = &tables;
        assert!(!cache.put(first, "x", whole, None, &FREE, now));
        for number in 0..200 {
            let table = if number % 2 == 0 { first } else { second };
            assert!(cache.put(table, &number.to_string(), large.clone(), None, &FREE, now));
        }
        assert!(cache.bytes() <= BYTES_MAX);
        assert_ne!(second.find("199", now), Found::Nothing);
        assert_eq!(first.find("0", now), Found::Nothing);
        assert_eq!(second.find("1", now), Found::Nothing);
    }
}
