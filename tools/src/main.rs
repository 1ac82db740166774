//! The `evenkeel` command. What it does is in `evenkeel::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    evenkeel::cli::main()
}
