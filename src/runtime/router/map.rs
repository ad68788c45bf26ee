//! A hash map for configurations that change one key at a time: copies share everything that did not change.
//!
//! It is a tree over the bits of the hash. Cloning the map costs one counter; changing one key of a shared map copies the
//! nodes on the way down, each a few cache lines. A plain hash map would have to be copied whole.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;

/// How many bits of the hash choose a child.
const CHILD_BITS: u32 = 4;
const CHILDREN: usize = 1 << CHILD_BITS;
/// A leaf that would grow beyond this becomes a branch, unless the bits are used up.
const LEAF_ITEMS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct SharedMap<K, V> {
    root: Arc<Tree<K, V>>,
    hasher: RandomState,
    length: usize,
}

#[derive(Debug, Clone)]
enum Tree<K, V> {
    Leaf(Vec<Item<K, V>>),
    Branch([Option<Arc<Tree<K, V>>>; CHILDREN]),
}

#[derive(Debug, Clone)]
struct Item<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: Arc::clone(&self.root),
            hasher: self.hasher.clone(),
            length: self.length,
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self {
            root: Arc::default(),
            hasher: RandomState::new(),
            length: 0,
        }
    }
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl<K, V> SharedMap<K, V> {
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
        let mut tree = &*self.root;
        let mut level = 0;
        loop {
            match tree {
                Tree::Branch(children) => {
                    tree = children.get(child_number(hash, level))?.as_deref()?
                }
                Tree::Leaf(items) => {
                    let is_wanted =
                        |item: &&Item<K, V>| item.hash == hash && item.key.borrow() == key;
                    return items.iter().find(is_wanted).map(|item| &item.value);
                }
            }
            level += 1;
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone + Default> SharedMap<K, V> {
    /// Changes the value of `key`, which starts as the default where it is absent.
    pub(super) fn change(&mut self, key: K, change: impl FnOnce(&mut V)) {
        let hash = self.hasher.hash_one(&key);
        let mut tree = Arc::make_mut(&mut self.root);
        let mut level = 0;
        loop {
            tree.split_if_full(hash, &key, level);
            match tree {
                Tree::Branch(children) => {
                    let Some(child) = children.get_mut(child_number(hash, level)) else {
                        return;
                    };
                    tree = Arc::make_mut(child.get_or_insert_default());
                }
                Tree::Leaf(items) => {
                    match items
                        .iter_mut()
                        .find(|item| item.hash == hash && item.key == key)
                    {
                        Some(item) => change(&mut item.value),
                        None => {
                            let mut value = V::default();
                            change(&mut value);
                            items.push(Item { hash, key, value });
                            self.length += 1;
                        }
                    }
                    return;
                }
            }
            level += 1;
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
        // A key that is absent must not cost a copy.
        if self.find(key).is_some() {
            let hash = self.hasher.hash_one(key);
            let before = self.length;
            let root = Arc::make_mut(&mut self.root);
            root.change_or_drop(hash, 0, key, keep, &mut self.length);
            if self.length < before && root.is_vacant() {
                *root = Tree::default();
            }
        }
    }
}

impl<K: Clone, V: Clone> Tree<K, V> {
    /// Makes a branch of a leaf that has no room for a key that it does not have.
    fn split_if_full(&mut self, hash: u64, key: &K, level: u32)
    where
        K: Eq,
    {
        let Self::Leaf(items) = self else {
            return;
        };
        let is_full = items.len() >= LEAF_ITEMS_MAX && level < u64::BITS / CHILD_BITS;
        if !is_full
            || items
                .iter()
                .any(|item| item.hash == hash && item.key == *key)
        {
            return;
        }
        let mut leaves: [Vec<Item<K, V>>; CHILDREN] = Default::default();
        for item in std::mem::take(items) {
            if let Some(leaf) = leaves.get_mut(child_number(item.hash, level)) {
                leaf.push(item);
            }
        }
        *self =
            Self::Branch(leaves.map(|leaf| (!leaf.is_empty()).then(|| Arc::new(Self::Leaf(leaf)))));
    }

    fn change_or_drop<Q: ?Sized + Eq>(
        &mut self,
        hash: u64,
        level: u32,
        key: &Q,
        keep: impl FnOnce(&mut V) -> bool,
        length: &mut usize,
    ) where
        K: Borrow<Q>,
    {
        match self {
            Self::Leaf(items) => {
                if let Some(at) = items
                    .iter()
                    .position(|item| item.hash == hash && item.key.borrow() == key)
                    && let Some(item) = items.get_mut(at)
                    && !keep(&mut item.value)
                {
                    items.swap_remove(at);
                    *length -= 1;
                }
            }
            Self::Branch(children) => {
                if let Some(place) = children.get_mut(child_number(hash, level))
                    && let Some(child) = place.as_mut().map(Arc::make_mut)
                {
                    child.change_or_drop(hash, level + 1, key, keep, length);
                    if child.is_vacant() {
                        *place = None;
                    }
                }
            }
        }
    }

    fn is_vacant(&self) -> bool {
        match self {
            Self::Leaf(items) => items.is_empty(),
            Self::Branch(children) => children.iter().all(Option::is_none),
        }
    }
}

/// Which child the hash goes to. Beyond the last bits there are only leaves.
fn child_number(hash: u64, level: u32) -> usize {
    let bits = hash.checked_shr(level * CHILD_BITS).unwrap_or(0);
    // The mask leaves CHILD_BITS bits.
    usize::try_from(bits & (CHILDREN as u64 - 1)).unwrap_or(0)
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
        let mut map: SharedMap<Vec<u8>, u32> = SharedMap::default();
        for number in 0..5000_u32 {
            map.change(number.to_le_bytes().to_vec(), |value| *value = number);
        }
        let copy = map.clone();
        for number in 0..2500_u32 {
            map.change_or_drop(number.to_le_bytes().as_slice(), |_| false);
        }
        map.change(4000_u32.to_le_bytes().to_vec(), |value| *value += 1);
        map.change_or_drop(b"absent".as_slice(), |_| false);
        assert_eq!((map.len(), copy.len()), (2500, 5000));
        for number in 0..5000_u32 {
            let key = number.to_le_bytes();
            assert_eq!(copy.find(key.as_slice()), Some(&number));
            let expected = (number >= 2500).then_some(if number == 4000 { 4001 } else { number });
            assert_eq!(map.find(key.as_slice()).copied(), expected);
        }
        for number in 2500..5000_u32 {
            map.change_or_drop(number.to_le_bytes().as_slice(), |_| false);
        }
        assert!(map.is_empty() && map.root.is_vacant());
    }

    /// A key whose hash is always the same.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Colliding(u32);

    impl Hash for Colliding {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }

    #[test]
    fn collisions_end_in_one_leaf() {
        let mut map: SharedMap<Colliding, u32> = SharedMap::default();
        for number in 0..50 {
            map.change(Colliding(number), |value| *value = number);
        }
        for number in (0..50).step_by(2) {
            map.change_or_drop(&Colliding(number), |_| false);
        }
        for number in 0..50 {
            assert_eq!(
                map.find(&Colliding(number)).copied(),
                (number % 2 == 1).then_some(number)
            );
        }
    }
}
