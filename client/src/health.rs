//! Health checks: whether a release works, once it is current.
//!
//! What a check says is about the release, and so is a command that is no program. When this machine cannot begin one (its
//! disk is full) nothing is known about the release: that is a failure of the machine, and the check is made again later.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{Check, PackageName, RELEASE_PLACEHOLDER, Release};
use mirabelle_terminal::{Failure, OrFail};

use crate::bounded::{self, Ended};
use crate::layout::Layout;

/// Makes every check of a release; says what is wrong with the first that fails, if one does.
pub(crate) fn check(
    layout: &Layout,
    package: &PackageName,
    release: &Release,
    tree: &Path,
    system_root: &Path,
) -> Result<Option<String>, Failure> {
    for (number, check) in release.behaviour.checks.iter().enumerate() {
        let log = layout.log(package, &format!("check-{number}"));
        let wrong = match check {
            Check::File { path } => {
                let place = system_root.join(path.as_str().trim_start_matches('/'));
                let there = fs::metadata(&place).is_ok_and(|file| file.is_file());
                (!there).then(|| format!("`{path}` is not there"))
            }
            Check::Command { command, seconds } => {
                ends_well(command, &Vec::new(), tree, *seconds, &log, &command.join(" "))?
            }
            Check::Launcher { launcher, arguments, seconds } => {
                let known = release.launchers.iter().find(|known| known.name == *launcher);
                let Some(known) = known else {
                    return Ok(Some(format!("there is no launcher `{launcher}`")));
                };
                let words: Vec<String> = known.command.iter().chain(arguments).cloned().collect();
                let environment: Vec<(String, String)> = known
                    .environment
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), value.replace(RELEASE_PLACEHOLDER, &tree.display().to_string()))
                    })
                    .collect();
                ends_well(&words, &environment, tree, *seconds, &log, launcher.as_str())?
            }
        };
        if wrong.is_some() {
            return Ok(wrong);
        }
    }
    Ok(None)
}

fn ends_well(
    words: &[String],
    environment: &[(String, String)],
    tree: &Path,
    seconds: u32,
    log: &Path,
    name: &str,
) -> Result<Option<String>, Failure> {
    let what = || format!("cannot make the check `{name}`");
    let Ok(mut command) = bounded::command(words, tree) else {
        return Ok(Some(format!("the check `{name}` names no program")));
    };
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let ended = bounded::run(command, Duration::from_secs(seconds.into()), log).or_fail(what)?;
    if ended == Ended::With(0) {
        return Ok(None);
    }
    let said = bounded::last_words(log);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Ok(Some(format!("the check `{name}` failed, {ended}{said}")))
}
