//! What a desktop sees of a generation: launchers, menu entries, icons, MIME types, `AppStream` data.
//!
//! ```text
//! generations/<n>/bin/<launcher>                     a script that asks `mirabelle run`
//! generations/<n>/share/applications/                one desktop entry per launcher
//! generations/<n>/share/{icons,pixmaps,mime,metainfo}  links to what releases have under the same names
//! ```
//!
//! All of it, its caches too, belongs to the generation: it appears and vanishes with the one rename that switches. A session
//! finds it because `<root>/active/share` is in `XDG_DATA_DIRS` (`deploy/`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{Launcher, PackageName};

use crate::bounded::{self, Ended};
use crate::generation::Generation;
use crate::layout::Layout;
use crate::platform;

/// A cache that takes longer is left out: a desktop finds what there is without it.
const REFRESHING: Duration = Duration::from_mins(1);
/// What of a release's `share/` a desktop reads, and who makes a cache of it.
const SHARED: [&str; 4] = ["icons", "pixmaps", "mime/packages", "metainfo"];
/// Files of one release that are linked; more are no icons.
const MAX_LINKS: usize = 20_000;

/// Builds what people see of `generation` below `directory`.
///
/// `program` is what launchers call.
pub(crate) fn build(
    layout: &Layout,
    generation: &Generation,
    program: &Path,
    directory: &Path,
) -> io::Result<()> {
    let root = layout.root();
    for below in ["bin", "apps", "share/applications"] {
        fs::create_dir_all(directory.join(below))?;
    }
    for (package, installed) in &generation.packages {
        let tree = Path::new("../../../releases").join(package.as_str()).join(&installed.id);
        fs::os::unix::fs::symlink(tree, directory.join("apps").join(package.as_str()))?;
        for launcher in &installed.launchers {
            let name = launcher.name.as_str();
            platform::write_launcher(&directory.join("bin").join(name), program, root, name)?;
            let entry = desktop_entry(root, package, launcher);
            fs::write(directory.join(format!("share/applications/mirabelle-{name}.desktop")), entry)?;
        }
        let share = layout.release(package, &installed.id).join("share");
        for below in SHARED {
            link_all(&share.join(below), &directory.join("share").join(below), package)?;
        }
    }
    refresh_caches(&directory.join("share"));
    Ok(())
}

/// Links every file below `from` at its place below `to`. Where two releases have the same, the first keeps it. A link to a
/// directory is left out: whoever came next would write through it, into another release's files.
fn link_all(from: &Path, to: &Path, package: &PackageName) -> io::Result<()> {
    let mut waiting: Vec<PathBuf> = vec![PathBuf::new()];
    let mut linked = 0;
    while let Some(below) = waiting.pop() {
        let here = from.join(&below);
        if !fs::symlink_metadata(&here).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            let below = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                waiting.push(below);
                continue;
            }
            let found = entry.path();
            if fs::metadata(&found).is_ok_and(|found| found.is_dir()) {
                tracing::warn!(%package, file = %below.display(), "a link to a directory is not shown");
                continue;
            }
            linked += 1;
            if linked > MAX_LINKS {
                tracing::warn!(%package, "the release has more to show than a desktop reads");
                return Ok(());
            }
            if !is_own_directory(to, below.parent().unwrap_or(Path::new("")))? {
                tracing::warn!(%package, file = %below.display(), "another release shows a file where its directory would be");
                continue;
            }
            match fs::os::unix::fs::symlink(&found, to.join(&below)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    tracing::warn!(%package, file = %below.display(), "another release shows this already");
                }
                done => done?,
            }
        }
    }
    Ok(())
}

/// True when `below`, made here where it is missing, is a directory of the generation's own all the way from `to`, no link.
fn is_own_directory(to: &Path, below: &Path) -> io::Result<bool> {
    fs::create_dir_all(to)?;
    let mut place = to.to_owned();
    for name in below {
        place.push(name);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&place)?,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Refreshes the caches that the machine's tools make; where it has none of them, it needs none.
fn refresh_caches(share: &Path) {
    let icons = share.join("icons/hicolor");
    let mime = share.join("mime");
    let commands: [(&str, &[&str], PathBuf); 3] = [
        ("update-desktop-database", &["-q"], share.join("applications")),
        ("update-mime-database", &[], mime),
        ("gtk-update-icon-cache", &["-q", "-f", "-t"], icons),
    ];
    for (program, arguments, directory) in commands.into_iter().filter(|(_, _, directory)| directory.is_dir())
    {
        let words = [program].into_iter().chain(arguments.iter().copied()).map(str::to_owned);
        let words: Vec<String> = words.chain([directory.display().to_string()]).collect();
        match bounded::command(&words, share).and_then(|command| bounded::ask(command, REFRESHING)) {
            Ok((Ended::With(0) | Ended::NotStarted, _)) => {}
            Ok((ended, _)) => tracing::warn!(program, %ended, "a desktop's cache was not refreshed"),
            Err(error) => tracing::warn!(program, %error, "a desktop's cache was not refreshed"),
        }
    }
}

/// A desktop entry (freedesktop.org, Desktop Entry Specification 1.5). Texts hold no control characters, so no value
/// can end its line.
fn desktop_entry(root: &Path, package: &PackageName, launcher: &Launcher) -> String {
    let active = root.join("active");
    let icon = launcher.icon.as_ref().map_or(String::new(), |icon| {
        format!("Icon={}\n", active.join("apps").join(package.as_str()).join(icon.as_str()).display())
    });
    let (mime_types, field) = if launcher.mime_types.is_empty() {
        (String::new(), "")
    } else {
        let types: Vec<&str> =
            launcher.mime_types.iter().map(mirabelle_manifests::MimeType::as_str).collect();
        (format!("MimeType={};\n", types.join(";")), " %F")
    };
    format!(
        "[Desktop Entry]\nType=Application\nName={}\nName[fr]={}\nExec=\"{}\"{field}\nTerminal={}\n{icon}{mime_types}X-Mirabelle-Package={package}\n",
        launcher.title.en.replace('\\', "\\\\"),
        launcher.title.fr.replace('\\', "\\\\"),
        active.join("bin").join(launcher.name.as_str()).display(),
        launcher.terminal,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_opens_is_said_and_passed_on() {
        let json = r#"{"command":["{release}/bin/x"],"mime-types":["text/plain","image/png"],"name":"x",
            "terminal":false,"title":{"fr":"É","en":"E"}}"#;
        let launcher: Launcher = serde_json::from_str(json).unwrap();
        let entry = desktop_entry(Path::new("/opt/m"), &"x".parse().unwrap(), &launcher);
        assert!(entry.contains("Exec=\"/opt/m/active/bin/x\" %F\n"), "{entry}");
        assert!(entry.contains("MimeType=text/plain;image/png;\n"), "{entry}");
    }

    #[test]
    fn of_two_that_show_the_same_the_first_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b, to) =
            (directory.path().join("a"), directory.path().join("b"), directory.path().join("to"));
        for (tree, text) in [(&a, "a"), (&b, "b")] {
            fs::create_dir_all(tree.join("hicolor/48x48")).unwrap();
            fs::write(tree.join("hicolor/48x48/app.png"), text).unwrap();
        }
        fs::write(b.join("only.png"), "b").unwrap();
        let package = "x".parse().unwrap();
        link_all(&a, &to, &package).unwrap();
        link_all(&b, &to, &package).unwrap();
        link_all(&directory.path().join("nothing"), &to, &package).unwrap();
        assert_eq!(fs::read_to_string(to.join("hicolor/48x48/app.png")).unwrap(), "a");
        assert_eq!(fs::read_to_string(to.join("only.png")).unwrap(), "b");
    }

    #[test]
    fn nothing_is_written_into_another_releases_tree() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // One has a link to a directory, and a file, where the other has directories; the third a file where that has one.
        fs::create_dir_all(at("a/real")).unwrap();
        fs::write(at("a/real/own.png"), "a").unwrap();
        fs::os::unix::fs::symlink("real", at("a/theme")).unwrap();
        fs::write(at("a/flat"), "a").unwrap();
        for file in ["b/theme/x.png", "b/flat/x.png", "b/deep/er/x.png"] {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "b").unwrap();
        }
        fs::create_dir_all(at("c")).unwrap();
        fs::write(at("c/deep"), "c").unwrap();
        let package = "x".parse().unwrap();
        for tree in ["a", "b", "c"] {
            link_all(&at(tree), &at("to"), &package).unwrap();
        }
        assert_eq!(fs::read_dir(at("a/real")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(at("to/theme/x.png")).unwrap(), "b");
        assert_eq!(fs::read_to_string(at("to/flat")).unwrap(), "a");
        assert_eq!(fs::read_to_string(at("to/deep/er/x.png")).unwrap(), "b");
    }
}
