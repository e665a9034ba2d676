//! Linux and other Unix systems.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use fs_err as fs;

/// Writes a launcher: a script that names no version, so that it stays right whatever is current.
pub(crate) fn write_launcher(path: &Path, program: &Path, root: &Path, name: &str) -> io::Result<()> {
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let script = format!("#!/bin/sh\nexec {} --root {} run {name} -- \"$@\"\n", quote(program), quote(root));
    fs::write(path, script)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

/// Points the link at `active` to `generation`, by rename.
pub(crate) fn show_active(active: &Path, generation: &Path) -> io::Result<()> {
    let temporary = active.with_extension("new");
    mirabelle_content::durable::remove_file(&temporary)?;
    fs::os::unix::fs::symlink(generation, &temporary)?;
    fs::rename(&temporary, active)
}

/// Becomes `command`, which inherits `lock` and so holds it until it and all its children have ended. Returns only
/// when that fails.
pub(crate) fn start_holding(lock: &fs::File, mut command: Command) -> io::Result<Infallible> {
    rustix::io::fcntl_setfd(lock.file(), rustix::io::FdFlags::empty())?;
    Err(command.exec())
}
