//! Where the three programs are: beside the test's own, built by the same cargo with the same profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// The programs, built if need be: cargo builds only a package's own binaries for its tests.
    pub fn built() -> &'static Self {
        static BUILT: OnceLock<Programs> = OnceLock::new();
        BUILT.get_or_init(|| {
            let own = std::env::current_exe().expect("a running program has a path");
            // target/<profile>/deps/runner-…, or target/<profile>/mirabelle-demo
            let directory = own.ancestors().skip(1).find(|path| !path.ends_with("deps")).unwrap().to_owned();
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            // The whole workspace, so that cargo settles on the same features as it did for the caller.
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace", "--bins"]);
            if directory.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().expect("cargo runs").success(), "the programs do not build");
            Self { directory }
        })
    }

    /// `mirabelle-publisher`
    pub fn publisher(&self) -> PathBuf {
        self.directory.join("mirabelle-publisher")
    }

    /// `mirabelle-node`
    pub fn node(&self) -> PathBuf {
        self.directory.join("mirabelle-node")
    }

    /// `mirabelle`
    pub fn client(&self) -> PathBuf {
        self.directory.join("mirabelle")
    }

    /// The directory they are all in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
