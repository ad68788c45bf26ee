//! A table of shared parts addressed by small numbers, cheap to copy with a few changes.
//!
//! The router's index refers to routes by slot, so that a route can be relinked without touching the index.

use std::sync::Arc;

/// Slots in one chunk: a change copies one chunk of pointers.
const CHUNK_SLOTS: usize = 256;

/// A sparse table `u32 -> Arc<T>`. Cloning copies one pointer for every 256 slots.
pub struct Slots<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    free: Vec<u32>,
    len: usize,
}

type Chunk<T> = Vec<Option<Arc<T>>>;

impl<T> Slots<T> {
    /// The part in this slot.
    pub fn at(&self, slot: u32) -> Option<&Arc<T>> {
        let slot = slot as usize;
        self.chunks
            .get(slot / CHUNK_SLOTS)?
            .get(slot % CHUNK_SLOTS)?
            .as_ref()
    }

    /// Puts a part into a free slot and tells which.
    pub fn insert(&mut self, part: Arc<T>) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.put(slot, Some(part));
            return slot;
        }
        let needs_chunk = self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.len() == CHUNK_SLOTS);
        if needs_chunk {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK_SLOTS)));
        }
        let index = self.chunks.len() - 1;
        match self.chunks.last_mut() {
            Some(chunk) => {
                let chunk = unshare(chunk);
                chunk.push(Some(part));
                // Slots are numbered up to the number of configured routes, far below u32's range.
                u32::try_from(index * CHUNK_SLOTS + chunk.len() - 1).unwrap_or(u32::MAX)
            }
            None => u32::MAX,
        }
    }

    /// Replaces the part in a slot that is in use.
    pub fn replace(&mut self, slot: u32, part: Arc<T>) {
        self.put(slot, Some(part));
    }

    /// Empties a slot that is in use.
    pub fn remove(&mut self, slot: u32) {
        self.put(slot, None);
        self.free.push(slot);
        self.len -= 1;
    }

    /// Number of slots in use.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All parts, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    fn put(&mut self, slot: u32, part: Option<Arc<T>>) {
        let slot = slot as usize;
        if let Some(chunk) = self.chunks.get_mut(slot / CHUNK_SLOTS)
            && let Some(place) = unshare(chunk).get_mut(slot % CHUNK_SLOTS)
        {
            *place = part;
        }
    }
}

/// `Arc::make_mut`, without asking `T` to be `Clone`.
fn unshare<T>(chunk: &mut Arc<Chunk<T>>) -> &mut Chunk<T> {
    Arc::make_mut(chunk)
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            free: self.free.clone(),
            len: self.len,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn copies_do_not_see_later_changes() {
        let mut slots = Slots::default();
        let numbers: Vec<u32> = (0..1000).map(|n| slots.insert(Arc::new(n))).collect();
        let before = slots.clone();
        slots.replace(numbers[700], Arc::new(-1));
        slots.remove(numbers[3]);
        assert_eq!(**before.at(700).unwrap(), 700);
        assert_eq!(**slots.at(700).unwrap(), -1);
        assert!(slots.at(3).is_none());
        assert_eq!(slots.len(), 999);
        assert_eq!(slots.insert(Arc::new(5)), 3);
        assert_eq!(slots.iter().count(), 1000);
    }
}
