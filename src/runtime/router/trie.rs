//! A radix trie over path prefixes. Nodes are shared between copies; a change copies the nodes on its way down.

use std::sync::Arc;

use smallvec::SmallVec;

use super::matcher::{Entry, EntryList};

/// Longer keys are cut: an index may find too much, because every entry is checked in full, but never too little.
/// Bounds the depth of the trie and with it the recursion of [`Node::remove`] and of dropping.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// A trie, and each of its nodes. The default is the empty trie.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// What this node adds to its parent's text; of the root, what all keys begin with.
    label: SmallVec<[u8; 24]>,
    /// The entries whose key ends here, best first.
    entries: EntryList,
    /// Sorted by their first byte; their labels are not empty.
    children: Vec<Child>,
}

/// A child and the first byte of its label, so that looking for one touches no other.
#[derive(Debug, Clone)]
struct Child {
    first: u8,
    node: Arc<Node>,
}

impl Node {
    /// Shows `visit` the entries of every key that is a prefix of `path`, shortest key first.
    pub(super) fn visit<'n>(&'n self, path: &[u8], mut visit: impl FnMut(&'n [Entry])) {
        let mut node = self;
        let mut rest = path;
        while let Some(after) = rest.strip_prefix(node.label.as_slice()) {
            if !node.entries.is_empty() {
                visit(&node.entries);
            }
            let Some(child) = after.first().and_then(|first| node.child(*first)) else {
                return;
            };
            node = child;
            rest = after;
        }
    }

    fn child(&self, first: u8) -> Option<&Node> {
        let at = self
            .children
            .binary_search_by_key(&first, |child| child.first)
            .ok()?;
        self.children.get(at).map(|child| &*child.node)
    }

    pub(super) fn insert(&mut self, key: &[u8], entry: Entry) {
        let mut key = key;
        let mut node = self;
        if node.is_vacant() {
            node.label = SmallVec::from_slice(key);
        }
        loop {
            let common = node
                .label
                .iter()
                .zip(key)
                .take_while(|(left, right)| left == right)
                .count();
            if common < node.label.len() {
                node.split(common);
            }
            key = key.get(common..).unwrap_or_default();
            let Some(first) = key.first().copied() else {
                insert_sorted(&mut node.entries, entry);
                return;
            };
            let at = node.children.partition_point(|child| child.first < first);
            if node
                .children
                .get(at)
                .is_none_or(|child| child.first != first)
            {
                let leaf = Node {
                    label: SmallVec::from_slice(key),
                    ..Node::default()
                };
                node.children.insert(
                    at,
                    Child {
                        first,
                        node: Arc::new(leaf),
                    },
                );
            }
            match node.children.get_mut(at) {
                Some(child) => node = Arc::make_mut(&mut child.node),
                None => return,
            }
        }
    }

    /// Takes out the entries of `slot` under `key`. True when the trie is empty afterwards.
    pub(super) fn remove(&mut self, key: &[u8], slot: u32) -> bool {
        if let Some(rest) = key.strip_prefix(self.label.as_slice()) {
            match rest.first() {
                None => self.entries.retain(|entry| entry.slot != slot),
                Some(first) => {
                    if let Ok(at) = self
                        .children
                        .binary_search_by_key(first, |child| child.first)
                        && let Some(child) = self.children.get_mut(at)
                        && Arc::make_mut(&mut child.node).remove(rest, slot)
                    {
                        self.children.remove(at);
                    }
                }
            }
            self.join_only_child();
        }
        self.is_vacant()
    }

    fn is_vacant(&self) -> bool {
        self.entries.is_empty() && self.children.is_empty()
    }

    /// Keeps the first `at` bytes of the label and moves the rest of the node into a child.
    fn split(&mut self, at: usize) {
        let tail: SmallVec<[u8; 24]> = self.label.drain(at..).collect();
        let Some(first) = tail.first().copied() else {
            return;
        };
        let below = Node {
            label: tail,
            entries: std::mem::take(&mut self.entries),
            children: std::mem::take(&mut self.children),
        };
        self.children.push(Child {
            first,
            node: Arc::new(below),
        });
    }

    /// A node without entries and with one child is one node with it.
    fn join_only_child(&mut self) {
        if self.entries.is_empty()
            && self.children.len() == 1
            && let Some(child) = self.children.pop()
        {
            let below = Arc::unwrap_or_clone(child.node);
            self.label.extend_from_slice(&below.label);
            self.entries = below.entries;
            self.children = below.children;
        }
    }
}

/// Inserts where it belongs, best first. Building in that order appends.
pub(super) fn insert_sorted(entries: &mut EntryList, entry: Entry) {
    let at = entries.partition_point(|present| present.beats(&entry));
    entries.insert(at, entry);
}
