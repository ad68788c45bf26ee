//! The `sallyport` program. Everything it does is in the library; only its allocator is here.

use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;

use libmimalloc_sys as ffi;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// mimalloc, chosen by measurement: small allocations from many threads are what a proxy makes.
///
/// Asked for an alignment, mimalloc takes a slow way for whatever is longer than a kilobyte or has no block ready, although
/// its blocks are aligned well enough without being asked.
struct Allocator;

/// Every block is aligned to a word.
const WORD: usize = size_of::<usize>();

#[allow(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: all memory is mimalloc's, whichever of its functions gave it, and any of it may be given to `mi_free` and
// `mi_realloc`. Without an alignment mimalloc aligns blocks as C's `malloc` does, which for every size is a word or more.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= WORD {
            // SAFETY: mimalloc takes every size.
            true => unsafe { ffi::mi_malloc(layout.size()) }.cast(),
            // SAFETY: the caller's promises are those that are asked for.
            false => unsafe { MiMalloc.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= WORD {
            // SAFETY: as above.
            true => unsafe { ffi::mi_zalloc(layout.size()) }.cast(),
            // SAFETY: as above.
            false => unsafe { MiMalloc.alloc_zeroed(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from mimalloc.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match layout.align() <= WORD {
            // SAFETY: the block came from mimalloc, and is the caller's to give up.
            true => unsafe { ffi::mi_realloc(block.cast(), new_size) }.cast(),
            // SAFETY: as above.
            false => unsafe { MiMalloc.realloc(block, layout, new_size) },
        }
    }
}

fn main() -> ExitCode {
    sallyport::cli::main()
}
