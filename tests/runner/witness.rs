//! Other people's implementations, as `./test network` sets them up below the cache: python-tuf in a virtual environment
//! (`need_python`), tough in a program of its own (`need_tough`).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A script of `tests/runner/python/`, to be run with python-tuf at hand.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(present(&cache().join("python/bin/python")));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("runner/python").join(script));
    command
}

/// The program that reads a repository with tough.
pub(crate) fn tough() -> Command {
    Command::new(present(&cache().join("tough/debug/tough-reader")))
}

fn cache() -> PathBuf {
    let own = std::env::var_os("MIRABELLE_CACHE").map(PathBuf::from);
    own.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/mirabelle"))
}

fn present(program: &Path) -> &Path {
    assert!(program.exists(), "{} is not there: `./test network` makes it", program.display());
    program
}
