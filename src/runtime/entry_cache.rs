//! A cache of small entries that policies fill and read by name, with a bound on what all of them hold together.
//!
//! Owns entries, their end and their removal. Refuses to know what they mean. When there is no room the oldest entries
//! of the shard go.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;

/// Most bytes of all keys and values.
pub const BYTES_MAX: usize = 256 << 20;
/// Largest entry, key included.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
const SHARDS: usize = 16;
/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD: usize = 128;

/// The cache; see the module.
pub struct EntryCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    entries: AHashMap<Box<str>, Entry>,
    /// Keys by age.
    ages: BTreeMap<u64, Box<str>>,
    next_age: u64,
    bytes: usize,
}

struct Entry {
    value: Bytes,
    ends: Option<Instant>,
    age: u64,
}

impl Default for EntryCache {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// The name of an entry: its table, then its key.
fn place(table: &str, key: &str) -> String {
    format!("{table}\u{1f}{key}")
}

impl EntryCache {
    fn shard(&self, place: &str) -> Option<&Mutex<Shard>> {
        let hash = usize::try_from(self.hasher.hash_one(place) >> 32).unwrap_or(0);
        self.shards.get(hash % SHARDS)
    }

    /// The value under a key, unless its time is over.
    pub fn find(&self, table: &str, key: &str, now: Instant) -> Option<Bytes> {
        let place = place(table, key);
        let mut shard = self.shard(&place)?.lock();
        let entry = shard.entries.get(place.as_str())?;
        if entry.ends.is_some_and(|end| end <= now) {
            shard.remove(&place);
            return None;
        }
        Some(entry.value.clone())
    }

    /// Puts a value in until `ends`, if at all. False when it is too large to be kept.
    pub fn put(&self, table: &str, key: &str, value: Bytes, ends: Option<Instant>) -> bool {
        let place = place(table, key);
        let size = place.len() + value.len() + ENTRY_OVERHEAD;
        let Some(shard) = self.shard(&place).filter(|_| size <= ENTRY_BYTES_MAX) else {
            return false;
        };
        let mut shard = shard.lock();
        shard.remove(&place);
        while shard.bytes + size > BYTES_MAX / SHARDS {
            let Some(oldest) = shard.ages.values().next().cloned() else {
                break;
            };
            shard.remove(&oldest);
        }
        let age = shard.next_age;
        shard.next_age += 1;
        shard.bytes += size;
        let key: Box<str> = place.into();
        shard.ages.insert(age, key.clone());
        shard.entries.insert(key, Entry { value, ends, age });
        true
    }

    /// Removes entries of a table: one, those whose key begins with a prefix, or all.
    pub fn clear(&self, table: &str, key: Option<&str>, prefix: Option<&str>) {
        if let Some(key) = key {
            let place = place(table, key);
            if let Some(shard) = self.shard(&place) {
                shard.lock().remove(&place);
            }
            return;
        }
        let begin = place(table, prefix.unwrap_or_default());
        for shard in &self.shards {
            let mut shard = shard.lock();
            let keys = shard.entries.keys().filter(|key| key.starts_with(&begin));
            let keys: Vec<Box<str>> = keys.cloned().collect();
            for key in keys {
                shard.remove(&key);
            }
        }
    }
}

impl Shard {
    fn remove(&mut self, place: &str) {
        if let Some(entry) = self.entries.remove(place) {
            self.ages.remove(&entry.age);
            self.bytes = self
                .bytes
                .saturating_sub(place.len() + entry.value.len() + ENTRY_OVERHEAD);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_are_found_until_they_end_or_are_cleared() {
        let cache = EntryCache::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        cache.put("c", "a", "1".into(), None);
        cache.put("c", "ab", "2".into(), Some(now + second));
        cache.put("d", "a", "3".into(), None);
        assert_eq!(cache.find("c", "a", now).as_deref(), Some(&b"1"[..]));
        assert!(cache.find("c", "ab", now).is_some());
        assert!(cache.find("c", "ab", now + second).is_none());
        cache.put("c", "ab", "2".into(), None);
        cache.clear("c", None, Some("ab"));
        assert!(cache.find("c", "ab", now).is_none());
        assert!(cache.find("c", "a", now).is_some());
        cache.clear("c", None, None);
        assert!(cache.find("c", "a", now).is_none());
        assert!(cache.find("d", "a", now).is_some());
        cache.clear("d", Some("a"), None);
        assert!(cache.find("d", "a", now).is_none());
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let cache = EntryCache::default();
        let now = Instant::now();
        let large = Bytes::from(vec![0; ENTRY_BYTES_MAX - 1024]);
        assert!(!cache.put("c", "x", vec![0; ENTRY_BYTES_MAX].into(), None));
        for number in 0..200 {
            assert!(cache.put("c", &number.to_string(), large.clone(), None));
        }
        let kept = (0..200)
            .filter(|number: &i32| cache.find("c", &number.to_string(), now).is_some())
            .count();
        assert!(kept * large.len() <= BYTES_MAX);
        assert!(cache.find("c", "199", now).is_some());
        assert!(cache.find("c", "0", now).is_none());
    }
}
