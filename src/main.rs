//! The command line. Exit code 0 is success, 1 every failure, as in Goma.

mod cli;

use std::process::ExitCode;

/// glibc's allocator costs large bodies 2.5 times the CPU; mimalloc keeps twice the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by the allocator when it starts: Pingora takes a 64 KiB buffer for each body, and jemalloc caches only up to
/// 32 KiB for a thread unless told otherwise; above it takes locks.
#[allow(
    unsafe_code,
    reason = "the name is jemalloc's; nothing else in the program is called so, and the text ends with NUL"
)]
// SAFETY: jemalloc declares `const char *_rjem_malloc_conf`; a thin reference to a NUL-terminated static has that layout.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: Option<&'static std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr = c"tcache_max:262144";
    // SAFETY: the pointer comes from a static string and lives for ever.
    unsafe { TEXT.as_ptr().as_ref() }
};

fn main() -> ExitCode {
    cli::run()
}
