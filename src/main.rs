//! The `sallyport` program. Everything it does is in the library.

use std::process::ExitCode;

/// Chosen by measurement: small allocations from many threads are what a proxy makes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sallyport::cli::main()
}
