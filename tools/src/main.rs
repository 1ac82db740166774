//! The `evenkeel` command. What it does is in `evenkeel::cli`.
#![forbid(unsafe_code)]

/// A storage core allocates for each entry, and frees what a checkpoint has merged long after: the allocator
/// is a good part of what a write costs (docs/decisions/0012-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    evenkeel::cli::main()
}
