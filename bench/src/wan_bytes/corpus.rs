//! Pairs of successive releases: real ones, fetched by the machine's package clients and kept, or those of any folder.
//!
//! ```text
//! ~/.cache/mirabelle/corpus/NAME/VERSION/…         the tree, as its package client would install it
//! ~/.cache/mirabelle/corpus/NAME/VERSION.artifact  bytes of the file that its publisher offers for download
//! ```
//!
//! Links are made relative, as our `build` wants them; the few that leave the tree are dropped, for everybody.

use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

use super::tools;

/// Two releases of one application.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    /// What it consists of.
    pub(super) class: &'static str,
    pub(super) old: Release,
    pub(super) new: Release,
}

impl Pair {
    /// `typescript 5.9.2 → 5.9.3`
    pub(super) fn label(&self) -> String {
        format!("{} {} → {}", self.name, self.old.version, self.new.version)
    }
}

/// One of the two.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) version: String,
    pub(super) tree: PathBuf,
    /// Bytes of the publisher's own file, where they are known.
    pub(super) artifact: Option<u64>,
}

/// Who fetches.
#[derive(Clone, Copy)]
enum Client {
    Npm,
    /// Wheels for Linux on x86-64.
    Pip,
    /// Wheels for Windows on x86-64.
    PipWindows,
    Apt,
}

struct Source {
    name: &'static str,
    class: &'static str,
    client: Client,
    package: &'static str,
    versions: [&'static str; 2],
}

/// Applications that schools use and what they are made of; of every class that releases come in.
#[rustfmt::skip]
const REAL: [Source; 13] = {
    use Client::{Apt, Npm, Pip, PipWindows};
    const fn of(name: &'static str, class: &'static str, client: Client, package: &'static str, versions: [&'static str; 2]) -> Source {
        Source { name, class, client, package, versions }
    }
    [
        of("typescript", "JS", Npm, "typescript", ["5.9.2", "5.9.3"]),
        of("blockly", "JS", Npm, "blockly", ["13.1.1", "13.2.0"]),
        of("thonny", "Python", Pip, "thonny", ["4.1.5", "4.1.6"]),
        of("jupyterlab", "JS", Pip, "jupyterlab", ["4.6.4", "4.6.5"]),
        of("scratch-gui", "media, JS", Npm, "@scratch/scratch-gui", ["15.1.1", "15.2.0"]),
        of("closure-compiler", "a jar", Npm, "google-closure-compiler-java", ["20261011.0.0", "20261015.0.0"]),
        of("libreoffice-common", "data, zips", Apt, "libreoffice-common", ["4:7.4.7-1+deb12u13", "4:7.4.7-1+deb12u14"]),
        of("numpy", "ELF, Python", Pip, "numpy", ["2.4.4", "2.4.5"]),
        of("vlc-plugin-base", "350 ELF", Apt, "vlc-plugin-base", ["3.0.23-0+deb12u1", "3.0.24-0+deb12u1"]),
        of("uv-windows", "PE", PipWindows, "uv", ["0.13.7", "0.13.8"]),
        of("ruff", "one ELF", Pip, "ruff", ["0.17.5", "0.17.6"]),
        of("libreoffice-core", "ELF", Apt, "libreoffice-core", ["4:7.4.7-1+deb12u13", "4:7.4.7-1+deb12u14"]),
        of("openjdk-17-jre", "class data, ELF", Apt, "openjdk-17-jre-headless", ["17.0.19+10-1~deb12u2", "17.0.21.1+2-1~deb12u1"]),
    ]
};

/// The platforms whose wheels a Linux of today takes.
const MANYLINUX: [&str; 5] = ["2_34", "2_28", "2_27", "2_17", "2014"];

/// The real releases: those that are here, and those that can be fetched.
pub(super) fn fetched(only: &[String]) -> Vec<Pair> {
    let root = tools::cache().join("corpus");
    let sources = REAL.iter().filter(|source| only.is_empty() || only.iter().any(|name| name == source.name));
    let pairs = sources.filter_map(|source| {
        let directory = root.join(source.name);
        for version in source.versions {
            // Debian's epoch orders versions; in a file name it is a colon.
            let tree = directory.join(version.split_once(':').map_or(version, |(_, version)| version));
            if !tree.is_dir() && fetch(source, version, &tree).is_none() {
                eprintln!("{} {version} cannot be fetched: left out", source.package);
                return None;
            }
        }
        Some(Pair { class: source.class, ..newest_two(&directory)? })
    });
    pairs.collect()
}

/// The two newest releases of every name in a folder.
pub(super) fn found(directory: &Path, only: &[String]) -> Vec<Pair> {
    let mut names = below(directory);
    names.retain(|name| only.is_empty() || only.contains(name));
    names.iter().filter_map(|name| newest_two(&directory.join(name))).collect()
}

fn newest_two(directory: &Path) -> Option<Pair> {
    let mut versions = below(directory);
    versions.sort_by(|a, b| compare_versions(a, b));
    let release = |version: &String| Release {
        version: version.clone(),
        tree: directory.join(version),
        artifact: fs::read_to_string(directory.join(format!("{version}.artifact")))
            .ok()
            .and_then(|text| text.trim().parse().ok()),
    };
    let [.., old, new] = versions.as_slice() else { return None };
    let name = directory.file_name()?.to_string_lossy().into_owned();
    Some(Pair { name, class: "", old: release(old), new: release(new) })
}

/// The directories in a directory, by name; not what was begun and left.
fn below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// As `sort -V`: numbers by value, the rest as text, `~` before the end.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let rank = |text: &str| match text.chars().next() {
            Some('~') => 0,
            None => 1,
            Some(_) => 2,
        };
        let order = rank(a).cmp(&rank(b));
        if order.is_ne() || a.is_empty() {
            return order;
        }
        let word = |text: &str| text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let (left, right) = (a.split_at(word(a)), b.split_at(word(b)));
        let number = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (left_number, left_rest) = left.1.split_at(number(left.1));
        let (right_number, right_rest) = right.1.split_at(number(right.1));
        let value = |digits: &str| digits.parse::<u64>().unwrap_or(0);
        let order = left.0.cmp(right.0).then(value(left_number).cmp(&value(right_number)));
        if order.is_ne() {
            return order;
        }
        (a, b) = (left_rest, right_rest);
    }
}

/// Fetches one release and unpacks it as its client would install it.
fn fetch(source: &Source, version: &str, tree: &Path) -> Option<()> {
    eprintln!("fetching {} {version}", source.package);
    fs::create_dir_all(tree.parent()?).ok()?;
    // Beside its place, so that it is there whole or not at all.
    let work = tempfile::Builder::new().prefix(".fetching-").tempdir_in(tree.parent()?.parent()?).ok()?;
    let (download, unpacked) = (work.path().join("download"), work.path().join("tree"));
    fs::create_dir(&download).ok()?;
    fs::create_dir(&unpacked).ok()?;
    let mut client = client(source, version)?;
    ran(client.current_dir(&download))?;
    let file = fs::read_dir(&download).ok()?.next()?.ok()?.path();
    let root = match source.client {
        Client::Npm => {
            ran(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&unpacked))?;
            // `package` nearly always; whatever single folder the archive has.
            fs::read_dir(&unpacked).ok()?.next()?.ok()?.path()
        }
        Client::Pip | Client::PipWindows => {
            ran(Command::new(tools::python()?).args(["-m", "zipfile", "-e"]).arg(&file).arg(&unpacked))?;
            unpacked
        }
        Client::Apt => {
            ran(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unpacked))?;
            unpacked
        }
    };
    tame_links(&root, &root);
    let artifact = file.metadata().ok()?.len();
    // Not `with_extension`: a version is full of dots.
    let beside = format!("{}.artifact", tree.file_name()?.to_string_lossy());
    fs::write(tree.with_file_name(beside), artifact.to_string()).ok()?;
    fs::rename(root, tree).ok()
}

fn client(source: &Source, version: &str) -> Option<Command> {
    let Source { package, .. } = source;
    let pip = |platforms: &[String]| {
        let mut pip = Command::new(tools::python()?);
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--python-version", "3.11"]);
        for platform in platforms {
            pip.args(["--platform", platform]);
        }
        pip.arg(format!("{package}=={version}"));
        Some(pip)
    };
    match source.client {
        Client::Npm => {
            tools::need("npm", "npm")?;
            let mut npm = Command::new("npm");
            npm.args(["pack", "--silent", "--ignore-scripts", &format!("{package}@{version}")]);
            Some(npm)
        }
        Client::Pip => pip(&MANYLINUX.map(|glibc| {
            let separator = if glibc.contains('_') { "_" } else { "" };
            format!("manylinux{separator}{glibc}_x86_64")
        })),
        Client::PipWindows => pip(&["win_amd64".to_owned()]),
        Client::Apt => {
            let mut apt = Command::new("apt-get");
            // As root: the download's folder is not the sandbox user's.
            apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", &format!("{package}={version}")]);
            Some(apt)
        }
    }
}

fn ran(command: &mut Command) -> Option<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().ok()?;
    status.success().then_some(())
}

/// Makes absolute links relative to the tree, and drops those that leave it.
fn tame_links(root: &Path, directory: &Path) {
    let depth = directory.strip_prefix(root).unwrap().components().count();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            tame_links(root, &path);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            if let Ok(inside) = target.strip_prefix("/") {
                fs::remove_file(&path).unwrap();
                let up: PathBuf = std::iter::repeat_n(Component::ParentDir, depth).collect();
                fs::os::unix::fs::symlink(up.join(inside), &path).unwrap();
            } else if leaves(&target, depth) {
                fs::remove_file(&path).unwrap();
            }
        }
    }
}

fn leaves(target: &Path, depth: usize) -> bool {
    let climbs = target.components().take_while(|part| *part == Component::ParentDir).count();
    climbs > depth || target.components().skip(climbs).any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_versions_as_sort_v_does() {
        for (older, newer) in [
            ("0.17.5", "0.17.10"),
            ("7.4.7-1+deb12u13", "7.4.7-1+deb12u14"),
            ("17.0.19+10-1~deb12u2", "17.0.21.1+2-1~deb12u1"),
            ("1.0~rc1", "1.0"),
            ("20261011.0.0", "20261015.0.0"),
        ] {
            assert_eq!(compare_versions(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare_versions(newer, older), Ordering::Greater, "{older} {newer}");
        }
    }
}
