//! Software for a test: a few files and a command, written in a line or two.

use std::path::Path;

use fs_err as fs;

/// A release of some software, as its packager has it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) name: String,
    pub(crate) sequence: u64,
    files: Vec<(String, Vec<u8>)>,
    launcher: String,
    recipe: String,
    /// Files beside the recipe: what the store shows.
    beside: Vec<(String, Vec<u8>)>,
    titles: Option<[String; 4]>,
    categories: Vec<String>,
}

impl App {
    /// Release `sequence` of `name`; its version is `<sequence>.0`.
    pub fn new(name: &str, sequence: u64) -> Self {
        let hello = format!("#!/bin/sh\necho {name} {sequence}.0 \"$@\"\n");
        Self {
            name: name.to_owned(),
            sequence,
            files: vec![(format!("bin/{name}"), hello.into_bytes())],
            launcher: String::new(),
            recipe: String::new(),
            beside: Vec::new(),
            titles: None,
            categories: Vec::new(),
        }
    }

    /// With this file. What lies in `bin/` is executable.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// What one of its files holds.
    pub fn content(&self, path: &str) -> Vec<u8> {
        self.files.iter().find(|(known, _)| known == path).unwrap().1.clone()
    }

    /// With a file of `bytes` that do not compress, the same for the same `seed`.
    #[must_use]
    pub fn noise(self, path: &str, bytes: usize, seed: u64) -> Self {
        self.file(path, noise(bytes, seed))
    }

    /// With these lines in its launcher.
    #[must_use]
    pub fn launcher(mut self, lines: &str) -> Self {
        self.launcher.push_str(lines);
        self.launcher.push('\n');
        self
    }

    /// With these lines at the end of its recipe: tables, since others would belong to the launcher.
    #[must_use]
    pub fn recipe(mut self, tables: &str) -> Self {
        self.recipe.push_str(tables);
        self.recipe.push('\n');
        self
    }

    /// With this file beside its recipe.
    #[must_use]
    pub fn beside(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.beside.push((name.to_owned(), content.into()));
        self
    }

    /// With these names and summaries, each in French and in English.
    #[must_use]
    pub fn titled(mut self, title: [&str; 2], summary: [&str; 2]) -> Self {
        self.titles = Some([title[0], title[1], summary[0], summary[1]].map(ToOwned::to_owned));
        self
    }

    /// In this category of the store.
    #[must_use]
    pub fn categorised(mut self, category: &str) -> Self {
        self.categories.push(category.to_owned());
        self
    }

    /// With `old` in its tables replaced by `new`.
    #[must_use]
    pub fn replaced(mut self, old: &str, new: &str) -> Self {
        assert!(self.recipe.contains(old), "`{old}` is not in:\n{}", self.recipe);
        self.recipe = self.recipe.replace(old, new);
        self
    }

    /// With a health check that runs a shell's line in the release's directory.
    #[must_use]
    pub fn check(self, script: &str) -> Self {
        self.recipe(&format!("[[check]]\ntype = \"command\"\ncommand = [\"sh\", \"-c\", '''{script}''']"))
    }

    /// `NAME@VERSION`
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version())
    }

    /// Its version.
    pub fn version(&self) -> String {
        format!("{}.0", self.sequence)
    }

    /// Writes its files and recipe into `directory`; returns the recipe's path.
    pub fn write(&self, directory: &Path) -> std::path::PathBuf {
        let tree = directory.join("tree");
        for (path, content) in &self.files {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
            let mode = if path.starts_with("bin/") { 0o755 } else { 0o644 };
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let recipe = directory.join("recipe.toml");
        for (name, content) in &self.beside {
            fs::write(directory.join(name), content).unwrap();
        }
        let Self { name, sequence, launcher, recipe: tables, categories, .. } = self;
        let own =
            [format!("Essai {name}"), format!("Test {name}"), "Dit bonjour".into(), "Says hello".into()];
        let [title_fr, title_en, fr, en] = self.titles.clone().unwrap_or(own);
        let text = format!(
            r#"
name = "{name}"
version = "{sequence}.0"
sequence = {sequence}
platform = "any"
licence = "MIT"
categories = {categories:?}
title = {{ fr = "{title_fr}", en = "{title_en}" }}
summary = {{ fr = "{fr}", en = "{en}" }}
[[source]]
path = "tree"
kind = "directory"
[[launcher]]
name = "{name}"
title = {{ fr = "{title_fr}", en = "{title_en}" }}
command = ["{{release}}/bin/{name}"]
terminal = true
{launcher}
{tables}
"#
        );
        fs::write(&recipe, text).unwrap();
        recipe
    }
}

/// Bytes from a small generator (xorshift64*): they do not compress, and are the same everywhere.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(bytes);
    out
}
