//! `deploy --edit`: the deployment's TOML in an operator's own editor.
//!
//! What she wrote is never lost: where it cannot be taken, the file stays, and the message says where.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::Command;

use fs_err as fs;
use mirabelle_manifests::Deployment;
use mirabelle_terminal::{Failure, OrFail};

use crate::policy::{read, write};

const INTRODUCTION: &str =
    "# The deployment. What is said of each member: docs/FORMATS.md. Comments are not kept.\n\n";

pub(super) fn edit(before: &Deployment) -> Result<Deployment, Failure> {
    let what = || "cannot edit the deployment".to_owned();
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to edit at")
            .hint("`deploy --show`, then `deploy --policy FILE`"));
    }
    let text = write(before).or_fail(what)?;
    let mut file = tempfile::Builder::new().prefix("deployment-").suffix(".toml").tempfile().or_fail(what)?;
    file.write_all(format!("{INTRODUCTION}{text}").as_bytes()).or_fail(what)?;
    let path = file.into_temp_path();

    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).unwrap_or_else(|_| "vi".to_owned());
    // `code --wait` is a program with an argument.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program)
        .args(words)
        .arg(&*path)
        .status()
        .or_fail(|| format!("cannot start the editor `{editor}`"))?;
    if !status.success() {
        return Err(Failure::no(format!("the editor `{editor}` ended with {status}: nothing was changed")));
    }
    let edited = fs::read_to_string(&path).or_fail(what)?;
    read(&edited).or_fail(|| format!("cannot take what was edited, `{}`", path.display())).map_err(
        |failure| {
            let hint = format!("correct it, then `deploy --policy {}`", path.display());
            match path.keep() {
                Ok(_) => failure.hint(hint),
                Err(_) => failure,
            }
        },
    )
}
