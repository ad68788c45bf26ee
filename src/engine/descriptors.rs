//! The process's descriptors: some are kept for whoever must always be able to work, the Admin API above all.
//!
//! The kernel gives out the lowest number that is free, so a number at or above the ceiling says that nearly all are
//! taken. That costs a comparison for each connection and needs no counting.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Descriptors belong to the process, and so does this.
static CEILING: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Keeps the last `reserved` of `limit` descriptors; at most half of them.
pub(crate) fn reserve(limit: u64, reserved: u64) {
    let ceiling = limit - reserved.min(limit / 2);
    let ceiling = RawFd::try_from(ceiling).unwrap_or(RawFd::MAX);
    CEILING.store(ceiling, Ordering::Relaxed);
}

/// Is this one of those that are kept? Then traffic has no room for another connection.
pub(crate) fn is_reserved(descriptor: &impl AsRawFd) -> bool {
    descriptor.as_raw_fd() >= CEILING.load(Ordering::Relaxed)
}

/// Is there one for traffic? Found out by making one; `any` is an open descriptor.
pub(crate) fn has_room(any: BorrowedFd<'_>) -> bool {
    any.try_clone_to_owned()
        .is_ok_and(|copy| !is_reserved(&copy))
}
