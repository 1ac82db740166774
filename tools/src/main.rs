//! The `evenkeel` command. What it does is in `evenkeel::cli`.

fn main() -> std::process::ExitCode {
    evenkeel::cli::main()
}
