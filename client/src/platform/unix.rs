//! Linux and other Unix systems.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_fleet::Hardware;
use mirabelle_manifests::MachineUser;

/// The most of a list of users or groups.
const MAX_USERS_BYTES: u64 = 16 << 20;

/// The most of what the system says of the machine.
const MAX_SAID_BYTES: u64 = 64 << 10;
/// The most of the list of sockets that is looked through.
const MAX_SOCKETS_BYTES: u64 = 4 << 20;

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

/// True when this process may give files to others.
pub(crate) fn may_give_away() -> bool {
    rustix::process::geteuid().is_root()
}

/// The numbers of a user and a group of this machine, for a process that may give files to others; `None` for one that may
/// not, whose files are its own.
pub(crate) fn owner(user: &MachineUser, group: &MachineUser) -> io::Result<Option<(u32, u32)>> {
    if !may_give_away() {
        return Ok(None);
    }
    Ok(Some((number(user, Path::new("/etc/passwd"))?, number(group, Path::new("/etc/group"))?)))
}

/// The number of a name in passwd(5) or group(5).
fn number(name: &MachineUser, list: &Path) -> io::Result<u32> {
    if *name == MachineUser::root() {
        return Ok(0);
    }
    let text = durable::read_if_present(list, MAX_USERS_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.first() == Some(&name.as_str()));
    found.and_then(|fields| fields.get(2)?.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("`{name}` is not in `{}`", list.display()))
    })
}

/// True when a file has these permissions, and belongs to these.
pub(crate) fn belongs(metadata: &std::fs::Metadata, mode: u32, owner: Option<(u32, u32)>) -> bool {
    let (found, user, group) = mode_and_owner(metadata);
    found == mode && owner.is_none_or(|owner| owner == (user, group))
}

/// Permissions, user and group of a file.
pub(crate) fn mode_and_owner(metadata: &std::fs::Metadata) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

/// What tells this run of the machine from those before; nothing, where the system does not say.
pub(crate) fn boot() -> String {
    let id = durable::read_if_present(Path::new("/proc/sys/kernel/random/boot_id"), 64);
    String::from_utf8_lossy(&id.ok().flatten().unwrap_or_default()).trim().to_owned()
}

/// When a process was started, in words that no other process with its number has; nothing for one that has ended.
pub(crate) fn started(pid: u32) -> Option<String> {
    let stat = durable::read_if_present(Path::new(&format!("/proc/{pid}/stat")), 4096).ok()??;
    // proc_pid_stat(5): the second field is a name in parentheses, and may hold anything; then the state, and so on.
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let since_boot = fields.nth(18)?;
    (!ended).then(|| format!("{} {since_boot}", boot()))
}

/// The user at the other end of a connection from this machine's own loopback, as the kernel's table of sockets has it; nothing, if it
/// is not there.
pub(crate) fn user_of(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let (IpAddr::V4(peer_ip), IpAddr::V4(own_ip)) = (peer.ip(), own.ip()) else { return None };
    // proc_net(5): addresses as the machine's own words in hex, ports in hex, the user in the eighth column.
    let written =
        |ip: std::net::Ipv4Addr, port: u16| format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
    let (local, remote) = (written(peer_ip, peer.port()), written(own_ip, own.port()));
    let table = durable::read_if_present(Path::new("/proc/net/tcp"), MAX_SOCKETS_BYTES).ok()??;
    let table = String::from_utf8_lossy(&table);
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str());
        if is_it { fields.get(7)?.parse().ok() } else { None }
    })
}

/// A file that is on no disk, and gone when it is closed.
pub(crate) fn scratch() -> io::Result<std::fs::File> {
    let file = rustix::fs::memfd_create("mirabelle", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(file.into())
}

/// What a file of the system says, in a line.
fn said(path: &str) -> String {
    let text = durable::read_if_present(Path::new(path), MAX_SAID_BYTES).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The machine's model, as its firmware calls it (SMBIOS, 7.2: the product name).
pub(crate) fn model() -> Option<String> {
    Some(said("/sys/class/dmi/id/product_name")).filter(|model| !model.is_empty())
}

/// Of what the machine is made, as far as it tells; `root` is where packages are.
pub(crate) fn hardware(root: &Path) -> Hardware {
    let memory = said("/proc/meminfo");
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let space = disk_space(root).unwrap_or(DiskSpace { total: 0, free: 0 });
    Hardware {
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        disk_gib: space.total >> 30,
        free_gib: space.free >> 30,
        memory_mib: memory.map_or(0, |kib: u64| kib >> 10),
        model: model().unwrap_or_default(),
        vendor: said("/sys/class/dmi/id/sys_vendor"),
    }
}

/// The operating system, as it calls itself (os-release(5)).
pub(crate) fn system() -> String {
    let text = durable::read_if_present(Path::new("/etc/os-release"), MAX_SAID_BYTES)
        .ok()
        .flatten()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(String::new, |name| name.trim_matches('"').to_owned())
}

/// The room on a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskSpace {
    pub(crate) total: u64,
    /// What this process may still fill.
    pub(crate) free: u64,
}

/// The room where `path` is.
pub(crate) fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(DiskSpace { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
}

/// True when this process may change what is in `directory`, or make it.
pub(crate) fn may_write(directory: &Path) -> bool {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whose_a_connection_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(own).unwrap();
        let peer = client.local_addr().unwrap();
        assert_eq!(user_of(peer, own), Some(rustix::process::geteuid().as_raw()));
        let nobody = SocketAddr::new(peer.ip(), own.port());
        assert_eq!(user_of(nobody, own), None);
    }
}
