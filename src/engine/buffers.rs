//! Buffers for moving bytes, kept by each thread and lent while they hold something.
//!
//! A connection that is silent holds none, so ten thousand idle streams cost their sockets and little else.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use bytes::BytesMut;

/// Length of a buffer, in bytes: four TLS records, and few enough for a core's own cache.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that a thread keeps for later; what comes back beyond is freed.
const KEPT_MAX: usize = 32;

/// Room in a buffer that grows, in bytes: a head with a body of 16 KiB arrives in one read, and leaves in one write.
pub(crate) const ROOM_BYTES: usize = 32 * 1024;
/// A buffer that has grown beyond this is freed instead of kept, in bytes.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// What a thread keeps.
type Kept<T> = RefCell<Vec<T>>;

thread_local! {
    static KEPT: Kept<Box<[u8]>> = const { RefCell::new(Vec::new()) };
    static KEPT_GROWING: Kept<BytesMut> = const { RefCell::new(Vec::new()) };
    static KEPT_WIRES: Kept<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn keep<T>(kept: &'static LocalKey<Kept<T>>, buffer: T) {
    // At the end of a thread its store may be gone already; then the buffer is simply freed.
    let _ = kept.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    });
}

/// An empty buffer that grows, with [`ROOM_BYTES`] to begin with: one that is kept, or a new one.
pub(crate) fn take_growing() -> BytesMut {
    let kept = KEPT_GROWING.with_borrow_mut(Vec::pop);
    let mut buffer = kept.unwrap_or_default();
    // Its memory is used again if nobody shares it any more.
    buffer.reserve(ROOM_BYTES);
    buffer
}

/// Keeps a buffer from [`take_growing`] whose content nobody wants, for this thread's next one.
pub(crate) fn keep_growing(mut buffer: BytesMut) {
    if !(1..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    keep(&KEPT_GROWING, buffer);
}

/// Bytes that are put together to be written at once: empty at first, with [`ROOM_BYTES`] of room. Goes back to the thread
/// that drops it.
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    /// Takes one that is kept, or makes one.
    pub(crate) fn take() -> Self {
        let kept = KEPT_WIRES.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| Vec::with_capacity(ROOM_BYTES)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() <= KEPT_BYTES_MAX {
            bytes.clear();
            keep(&KEPT_WIRES, bytes);
        }
    }
}

impl Deref for Wire {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wire {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
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
        keep(&KEPT, std::mem::take(&mut self.0));
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

    #[test]
    fn a_wire_is_used_again_and_empty() {
        let mut wire = Wire::take();
        let memory = wire.as_ptr();
        wire.extend_from_slice(b"head");
        drop(wire);
        let mut again = Wire::take();
        assert_eq!(again.as_ptr(), memory);
        assert!(again.is_empty() && again.capacity() >= ROOM_BYTES);
        again.reserve(2 * KEPT_BYTES_MAX);
        drop(again);
        assert!(Wire::take().capacity() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn what_is_shared_is_not_written_over() {
        let mut buffer = take_growing();
        buffer.extend_from_slice(b"first, second");
        let first = buffer.split_to(5).freeze();
        let memory = first.as_ptr();
        keep_growing(buffer);
        let mut other = take_growing();
        other.extend_from_slice(b"other");
        assert_eq!(&first[..], b"first");
        keep_growing(other);
        keep_growing(BytesMut::from(&b""[..]));
        drop(first);
        let again = take_growing();
        assert!(again.capacity() >= ROOM_BYTES && again.as_ptr() != memory);
    }

    #[test]
    fn memory_is_used_again_once_nobody_shares_it() {
        let mut buffer = take_growing();
        let memory = buffer.as_ptr();
        buffer.extend_from_slice(b"head, body");
        drop(buffer.split_to(4).freeze());
        drop(buffer.split().freeze());
        keep_growing(buffer);
        let again = take_growing();
        assert_eq!(again.as_ptr(), memory);
        assert!(again.is_empty() && again.capacity() >= ROOM_BYTES);
    }
}
