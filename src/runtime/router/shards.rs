//! A hash map for configurations that change one key at a time: copies share everything that did not change.
//!
//! It is a fixed number of sorted vectors behind two layers of `Arc`. Cloning the map costs one counter; changing one
//! key of a shared map copies the list of shards and one shard, some microseconds at 100,000 keys. A plain hash map
//! would have to be copied whole.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

/// log₂ of the number of shards: 1024 shards of about 100 keys at 100,000 keys.
const SHARD_BITS: u32 = 10;

#[derive(Debug)]
pub(super) struct ShardMap<K, V> {
    /// Empty until the first key, then `1 << SHARD_BITS` long.
    shards: Arc<Vec<Shard<K, V>>>,
    hasher: RandomState,
    length: usize,
}

type Shard<K, V> = Arc<Vec<Item<K, V>>>;

#[derive(Debug, Clone)]
struct Item<K, V> {
    /// The items of a shard are sorted by this.
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Clone for ShardMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            hasher: self.hasher.clone(),
            length: self.length,
        }
    }
}

impl<K, V> Default for ShardMap<K, V> {
    fn default() -> Self {
        Self {
            shards: Arc::default(),
            hasher: RandomState::new(),
            length: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone + Default> ShardMap<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn find<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if self.length == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(shard_number(hash))?;
        let at = position(shard, hash, key).ok()?;
        shard.get(at).map(|item| &item.value)
    }

    /// Changes the value of `key`, which starts as the default where it is absent.
    pub(super) fn change(&mut self, key: K, change: impl FnOnce(&mut V)) {
        let hash = self.hasher.hash_one(&key);
        let shards = Arc::make_mut(&mut self.shards);
        if shards.is_empty() {
            shards.resize(1 << SHARD_BITS, Arc::default());
        }
        let Some(shard) = shards.get_mut(shard_number(hash)).map(Arc::make_mut) else {
            return;
        };
        match position::<K, V, K>(shard, hash, &key) {
            Ok(at) => {
                if let Some(item) = shard.get_mut(at) {
                    change(&mut item.value);
                }
            }
            Err(at) => {
                let mut value = V::default();
                change(&mut value);
                shard.insert(at, Item { hash, key, value });
                self.length += 1;
            }
        }
    }

    /// Changes the value of `key`, if there is one, and drops it when `keep` says no.
    pub(super) fn change_or_drop<Q: ?Sized + Eq + Hash>(
        &mut self,
        key: &Q,
        keep: impl FnOnce(&mut V) -> bool,
    ) where
        K: Borrow<Q>,
    {
        if self.find(key).is_none() {
            return;
        }
        let hash = self.hasher.hash_one(key);
        let Some(shard) = Arc::make_mut(&mut self.shards)
            .get_mut(shard_number(hash))
            .map(Arc::make_mut)
        else {
            return;
        };
        if let Ok(at) = position(shard, hash, key)
            && let Some(item) = shard.get_mut(at)
            && !keep(&mut item.value)
        {
            shard.remove(at);
            self.length -= 1;
        }
    }
}

fn shard_number(hash: u64) -> usize {
    // The shift leaves SHARD_BITS bits.
    usize::try_from(hash >> (u64::BITS - SHARD_BITS)).unwrap_or(0)
}

/// Where the key is, or where it belongs.
fn position<K: Borrow<Q>, V, Q: ?Sized + Eq>(
    shard: &[Item<K, V>],
    hash: u64,
    key: &Q,
) -> Result<usize, usize> {
    let first = shard.partition_point(|item| item.hash < hash);
    let same_hash = shard
        .get(first..)
        .unwrap_or_default()
        .iter()
        .take_while(|item| item.hash == hash);
    for (offset, item) in same_hash.enumerate() {
        if item.key.borrow() == key {
            return Ok(first + offset);
        }
    }
    Err(first)
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

    #[test]
    fn a_copy_keeps_what_the_original_changes() {
        let mut map: ShardMap<Arc<[u8]>, u32> = ShardMap::default();
        for number in 0..5000_u32 {
            map.change(number.to_le_bytes().as_slice().into(), |value| {
                *value = number
            });
        }
        let copy = map.clone();
        for number in 0..2500_u32 {
            map.change_or_drop(number.to_le_bytes().as_slice(), |_| false);
        }
        map.change(4000_u32.to_le_bytes().as_slice().into(), |value| {
            *value += 1
        });
        assert_eq!((map.len(), copy.len()), (2500, 5000));
        for number in 0..5000_u32 {
            let key = number.to_le_bytes();
            assert_eq!(copy.find(key.as_slice()), Some(&number));
            let expected = (number >= 2500).then_some(if number == 4000 { 4001 } else { number });
            assert_eq!(map.find(key.as_slice()).copied(), expected);
        }
    }
}
