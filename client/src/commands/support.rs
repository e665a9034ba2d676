//! `support-bundle`: what helps to find out what is wrong, in one archive, without personal data.
//!
//! Threat and defence: *a name that travels with a log.* Nothing is taken of what people did but the packages they asked for;
//! of home directories and users that a package manager mentions in its log, the names are cut out.

use std::io::Write;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;

/// The most of one file.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The most files.
const MAX_FILES: usize = 500;

#[derive(Serialize)]
struct Written {
    archive: String,
    files: usize,
}

pub(super) fn run(context: &Context, output: &Path) -> Result<(), Failure> {
    let layout = &context.layout;
    let what = || format!("cannot write `{}`", output.display());
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let root = layout.root();
    let mut names: Vec<String> = [
        "client.toml",
        "current",
        "state.json",
        "outlook.json",
        "measured.json",
        "evening.json",
        "self.json",
        "journal/transaction.json",
    ]
    .map(str::to_owned)
    .to_vec();
    for number in layout.generation_numbers()? {
        names.push(format!("generations/{number}/generation.json"));
    }
    for log in fs::read_dir(root.join("logs")).into_iter().flatten().flatten() {
        names.extend(log.file_name().to_str().map(|name| format!("logs/{name}")));
    }
    for name in names.into_iter().take(MAX_FILES) {
        // One that is too long to travel, or cannot be read, is left out; the rest is worth having.
        if let Ok(Some(content)) = durable::read_if_present(&root.join(&name), MAX_FILE_BYTES) {
            files.push((name, without_names(&String::from_utf8_lossy(&content)).into_bytes()));
        }
    }
    files.push(("version".to_owned(), format!("{}\n", env!("CARGO_PKG_VERSION")).into_bytes()));

    let mut encoder = zstd::Encoder::new(Vec::new(), 3).or_fail(what)?;
    {
        let mut archive = tar::Builder::new(&mut encoder);
        for (name, content) in &files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(u64::try_from(context.now.as_second()).unwrap_or(0));
            archive
                .append_data(&mut header, format!("mirabelle-support/{name}"), content.as_slice())
                .or_fail(what)?;
        }
        archive.finish().or_fail(what)?;
    }
    encoder.flush().or_fail(what)?;
    let bytes = encoder.finish().or_fail(what)?;
    durable::write_atomically(output, &bytes).or_fail(what)?;
    let written = Written { archive: output.display().to_string(), files: files.len() };
    context.output.print(&written, |written| format!("{}: {} files", written.archive, written.files));
    Ok(())
}

/// The text without the names of home directories, users and mail addresses.
fn without_names(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some(at) = rest.find("/home/") {
            let (before, after) = rest.split_at(at + "/home/".len());
            clean.push_str(before);
            clean.push('…');
            let end =
                after.find(|c: char| !(c.is_alphanumeric() || "._-".contains(c))).unwrap_or(after.len());
            rest = &after[end..];
        }
        clean.push_str(rest);
    }
    let is_address = |word: &str| {
        let inner = word.trim_matches(|c: char| !c.is_alphanumeric());
        // A host ends in letters; a version, as in `geogebra@6.2`, does not.
        let host = inner
            .split_once('@')
            .filter(|(name, _)| !name.is_empty())
            .and_then(|(_, host)| host.rsplit_once('.'));
        host.is_some_and(|(_, end)| end.chars().all(char::is_alphabetic))
    };
    let words: Vec<String> = clean
        .split_inclusive(char::is_whitespace)
        .map(|word| if is_address(word) { word.replace(word.trim_end(), "…") } else { word.to_owned() })
        .collect();
    words.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_do_not_travel() {
        assert_eq!(
            without_names("cannot open /home/marie.curie/x\nand /home/p/"),
            "cannot open /home/…/x\nand /home/…/"
        );
        assert_eq!(without_names("by <marie@ecole.example>, at 5\n"), "by … at 5\n");
        assert_eq!(without_names("geogebra@6.2 is here"), "geogebra@6.2 is here");
    }
}
