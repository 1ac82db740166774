//! Tells the command which revision it was built from. Without git, or outside a checkout, that is unknown,
//! and nothing fails: EVENKEEL_REVISION may say it. Builds for development are not told, so that a commit
//! does not make them anew; nothing that they measure counts.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=EVENKEEL_REVISION");
    println!("cargo:rerun-if-changed=build.rs");
    let given = std::env::var("EVENKEEL_REVISION").ok();
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = given.or_else(|| if release { checked_out() } else { None });
    println!("cargo:rustc-env=EVENKEEL_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

fn checked_out() -> Option<String> {
    // When another revision is checked out, or committed to, one of these files changes.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
