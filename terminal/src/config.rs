//! Configuration files: one TOML per program, unknown keys refused with their line.

use std::path::Path;

use mirabelle_content::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, OrFail};

/// The most of a configuration file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Where a setting's value came from. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Nobody said otherwise.
    Default,
    /// The configuration file.
    File,
    /// An environment variable or a flag.
    Command,
}

/// Reads a configuration file; the default when there is none.
pub fn read_config<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Failure> {
    let what = || format!("cannot read the configuration `{}`", path.display());
    let Some(bytes) = durable::read_if_present(path, MAX_CONFIG_BYTES).or_fail(what)? else {
        return Ok(T::default());
    };
    toml::from_slice(&bytes).or_fail(what)
}
