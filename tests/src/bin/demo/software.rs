//! The applications of the demo, two successive releases each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_tests::Programs;

/// An application: a recipe for each of its two releases.
pub(crate) struct Software {
    pub(crate) name: String,
    pub(crate) versions: [String; 2],
    pub(crate) recipes: [PathBuf; 2],
    /// It can be started here and print its version: no screen, no interpreter.
    pub(crate) says_version: bool,
}

/// What a recipe says.
struct Recipe<'a> {
    name: &'a str,
    platform: &'a str,
    licence: &'a str,
    categories: &'a str,
    title: &'a str,
    summary: (&'a str, &'a str),
    /// The launcher's command and environment, as TOML.
    launcher: Option<(&'a str, &'a str)>,
}

impl Recipe<'_> {
    /// Writes the recipe of one release, with these sources (each a TOML table's body).
    fn write(&self, work: &Path, version: &str, sequence: usize, sources: &[String]) -> PathBuf {
        let Self { name, platform, licence, categories, title, summary: (fr, en), .. } = self;
        let mut text = format!(
            r#"name = "{name}"
version = "{version}"
sequence = {sequence}
platform = "{platform}"
licence = "{licence}"
categories = ["{categories}"]
title = {{ fr = "{title}", en = "{title}" }}
summary = {{ fr = "{fr}", en = "{en}" }}
"#
        );
        for source in sources {
            let _ = write!(text, "\n[[source]]\n{source}\n");
        }
        if let Some((command, environment)) = self.launcher {
            let _ = write!(
                text,
                "\n[[launcher]]\nname = \"{name}\"\ntitle = {{ fr = \"{title}\", en = \"{title}\" }}\n\
                 command = {command}\nenvironment = {environment}\n"
            );
        }
        let path = work.join(format!("{name}-{version}.toml"));
        fs::write(&path, text).expect("the recipe can be written");
        path
    }
}

fn source(path: &Path, kind: &str, more: &str) -> String {
    format!("path = \"{}\"\nkind = \"{kind}\"\n{more}", path.display())
}

/// What `./demo` fetched: `<packages>/<name>/<version>/<files>`, two versions of each.
pub(crate) fn fetched(packages: &Path, work: &Path) -> Vec<Software> {
    let recipes = [
        Recipe {
            name: "thonny",
            platform: "any",
            licence: "MIT",
            categories: "Education",
            title: "Thonny",
            summary: ("Un environnement Python pour débuter", "A Python environment for beginners"),
            launcher: Some((r#"["python3", "-m", "thonny"]"#, r#"{ PYTHONPATH = "{release}" }"#)),
        },
        Recipe {
            name: "blockly",
            platform: "any",
            licence: "Apache-2.0",
            categories: "Education",
            title: "Blockly",
            summary: ("Programmer avec des blocs", "Programming with blocks"),
            launcher: None,
        },
        Recipe {
            name: "ruff",
            platform: "linux-x86_64",
            licence: "MIT",
            categories: "Development",
            title: "Ruff",
            summary: ("Vérifie et met en forme le code Python", "Checks and formats Python code"),
            launcher: Some((r#"["{release}/bin/ruff"]"#, "{}")),
        },
        Recipe {
            name: "jq",
            platform: "linux-x86_64",
            licence: "MIT",
            categories: "Development",
            title: "jq",
            summary: ("Interroge des données JSON", "Queries JSON data"),
            launcher: Some((
                r#"["{release}/usr/bin/jq"]"#,
                r#"{ LD_LIBRARY_PATH = "{release}/usr/lib/x86_64-linux-gnu" }"#,
            )),
        },
    ];
    let mut software = Vec::new();
    for recipe in recipes {
        let directory = packages.join(recipe.name);
        let versions = sorted(&directory);
        let [older, newer] = versions.as_slice() else {
            println!("({} is left out: {} releases of it are here, not two)", recipe.name, versions.len());
            continue;
        };
        let write = |directory: &Path, sequence| {
            let version = file_name(directory);
            let sources: Vec<String> = sorted(directory).iter().map(|file| source_of(file)).collect();
            recipe.write(work, &version, sequence, &sources)
        };
        software.push(Software {
            name: recipe.name.to_owned(),
            versions: [file_name(older), file_name(newer)],
            recipes: [write(older, 1), write(newer, 2)],
            says_version: matches!(recipe.name, "ruff" | "jq"),
        });
    }
    assert!(!software.is_empty(), "`{}` holds none of the demo's packages", packages.display());
    software
}

/// How an archive is unpacked, by its name.
fn source_of(file: &Path) -> String {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("whl") => source(file, "wheel", ""),
        Some("deb") => source(file, "deb", "exclude = [\"usr/share/doc\", \"usr/share/man\"]"),
        _ => source(file, "tar", "strip = 1"),
    }
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The project's own programs and documents, for a machine without a network.
pub(crate) fn own(work: &Path) -> Vec<Software> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above its crates");
    let programs = Programs::built();
    let tree = |name: &str, version: &str| work.join(format!("{name}-{version}-tree"));
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().expect("a file has a directory")).expect("a directory can be made");
        fs::copy(from, to).unwrap_or_else(|error| panic!("{error}"));
    };

    // The client and then the node beside it; the publisher and then its completions; the documents and then one more.
    let about = |directory: &Path, text: &str| {
        let path = directory.join("bin/about");
        fs::create_dir_all(directory.join("bin")).expect("a directory can be made");
        fs::write(&path, text).expect("a script can be written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it can be executable");
    };
    for version in ["1.0", "1.1"] {
        let tools = tree("mirabelle-tools", version);
        copy(&programs.client(), &tools.join("libexec/mirabelle"));
        let script =
            format!("#!/bin/sh\necho tools {version}\nexec \"${{0%/bin/*}}/libexec/mirabelle\" --version\n");
        about(&tools, &script);
        let office = tree("mirabelle-office", version);
        copy(&programs.publisher(), &office.join("libexec/mirabelle-publisher"));
        about(&office, "#!/bin/sh\nexec \"${0%/bin/*}/libexec/mirabelle-publisher\" --version\n");
        let documents = tree("mirabelle-documents", version);
        for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-APACHE"] {
            copy(&project.join(document), &documents.join(document));
        }
        if version == "1.1" {
            copy(&programs.node(), &tools.join("libexec/mirabelle-node"));
            copy(&project.join("CONTRIBUTING.md"), &documents.join("CONTRIBUTING.md"));
        }
    }
    let recipes = [
        (
            "mirabelle-tools",
            "Mirabelle",
            ("Les programmes du poste et du nœud", "The programs of workstation and node"),
            true,
        ),
        (
            "mirabelle-office",
            "Mirabelle (publication)",
            ("Le programme de publication", "The publisher"),
            true,
        ),
        ("mirabelle-documents", "Mirabelle (documents)", ("La documentation", "The documentation"), false),
    ];
    let software = recipes.map(|(name, title, summary, says_version)| {
        let launcher = says_version.then_some((r#"["{release}/bin/about"]"#, "{}"));
        let platform = if says_version { "linux-x86_64" } else { "any" };
        let recipe = Recipe {
            name,
            platform,
            licence: "MIT OR Apache-2.0",
            categories: "System",
            title,
            summary,
            launcher,
        };
        let write = |version, sequence| {
            recipe.write(work, version, sequence, &[source(&tree(name, version), "directory", "")])
        };
        Software {
            name: name.to_owned(),
            versions: ["1.0".to_owned(), "1.1".to_owned()],
            recipes: [write("1.0", 1), write("1.1", 2)],
            says_version,
        }
    });
    software.into()
}
