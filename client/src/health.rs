//! Health checks: whether a release works, once it is current.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{Check, PackageName, RELEASE_PLACEHOLDER, Release};

use crate::bounded::{self, Ended};
use crate::layout::Layout;

/// Makes every check of a release; says what is wrong with the first that fails.
pub(crate) fn check(
    layout: &Layout,
    package: &PackageName,
    release: &Release,
    tree: &Path,
    system_root: &Path,
) -> Result<(), String> {
    for (number, check) in release.behaviour.checks.iter().enumerate() {
        let log = layout.log(package, &format!("check-{number}"));
        match check {
            Check::File { path } => {
                let place = system_root.join(path.as_str().trim_start_matches('/'));
                if !fs::metadata(&place).is_ok_and(|file| file.is_file()) {
                    return Err(format!("`{path}` is not there"));
                }
            }
            Check::Command { command, seconds } => {
                ends_well(command, &Vec::new(), tree, *seconds, &log, &command.join(" "))?;
            }
            Check::Launcher { launcher, arguments, seconds } => {
                let known = release.launchers.iter().find(|known| known.name == *launcher);
                let Some(known) = known else { return Err(format!("there is no launcher `{launcher}`")) };
                let words: Vec<String> = known.command.iter().chain(arguments).cloned().collect();
                let environment: Vec<(String, String)> = known
                    .environment
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), value.replace(RELEASE_PLACEHOLDER, &tree.display().to_string()))
                    })
                    .collect();
                ends_well(&words, &environment, tree, *seconds, &log, launcher.as_str())?;
            }
        }
    }
    Ok(())
}

fn ends_well(
    words: &[String],
    environment: &[(String, String)],
    tree: &Path,
    seconds: u32,
    log: &Path,
    name: &str,
) -> Result<(), String> {
    let mut command = bounded::command(words, tree).map_err(|error| error.to_string())?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    match bounded::run(command, Duration::from_secs(seconds.into()), log) {
        Ok(Ended::With(0)) => Ok(()),
        Ok(ended) => {
            let said = bounded::last_words(log);
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            Err(format!("the check `{name}` failed, {ended}{said}"))
        }
        Err(error) => Err(format!("the check `{name}` cannot be started: {error}")),
    }
}
