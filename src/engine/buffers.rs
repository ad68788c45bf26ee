//! Buffers for moving bytes, kept by each thread and lent while they hold something.
//!
//! A connection that is silent holds none, so ten thousand idle streams cost their sockets and little else.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Length of a buffer, in bytes: four TLS records, and few enough for a core's own cache.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that a thread keeps for later; what comes back beyond is freed.
const KEPT_MAX: usize = 32;

thread_local! {
    static KEPT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`BUFFER_BYTES`] with whatever its last user left in it. Goes back to the thread that drops it.
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    /// Takes one that is kept, or makes one.
    pub(crate) fn take() -> Self {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // At the end of a thread its store may be gone already; then the buffer is simply freed.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_used_again() {
        let mut first = Buffer::take();
        if let Some(byte) = first.first_mut() {
            *byte = 7;
        }
        assert_eq!(first.len(), BUFFER_BYTES);
        let second = Buffer::take();
        drop(first);
        assert_eq!(Buffer::take().first(), Some(&7));
        drop(second);
    }
}
