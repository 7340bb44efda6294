//! Passes facts of the build to `dofs version`: commit, compiler, target.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=DOFS_COMMIT");
    let given = std::env::var_os("DOFS_COMMIT");
    let given = given.and_then(|commit| commit.into_string().ok()).filter(|it| !it.is_empty());
    if let Some(commit) = given.or_else(read_commit) {
        println!("cargo:rustc-env=DOFS_COMMIT={commit}");
    }
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = output_of(Command::new(compiler).arg("--version"));
    println!("cargo:rustc-env=DOFS_BUILD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    let target = std::env::var_os("TARGET").unwrap_or_default();
    println!("cargo:rustc-env=DOFS_BUILD_TARGET={}", target.to_string_lossy());
}

/// Returns the commit of the checkout; `None` for sources from an archive, which may lie in a folder
/// of another repository.
fn read_commit() -> Option<String> {
    if !Path::new("../.git").exists() {
        return None;
    }
    // This file changes with every commit and checkout, also in a linked working tree.
    let history = output_of(Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"]))?;
    println!("cargo:rerun-if-changed={history}");
    output_of(Command::new("git").args(["rev-parse", "HEAD"]))
}

/// Returns the trimmed output of a command that succeeds.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
