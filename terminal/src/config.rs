//! Configuration files: one TOML per program, unknown keys refused with their line.

use std::path::Path;

use mirabelle_content::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, OrFail, Table};

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

/// A setting, as `config` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Its name in the file.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Who said so.
    pub from: Layer,
}

/// Settings as a table; `file` is the name of the configuration file.
pub fn settings_table(settings: &[Setting], file: &str) -> String {
    let mut table = Table::new(["setting", "value", "from"]);
    for setting in settings {
        let from = match setting.from {
            Layer::Default => "default",
            Layer::File => file,
            Layer::Command => "environment or flag",
        };
        table.row([setting.name.to_owned(), setting.value.clone(), from.to_owned()]);
    }
    table.render()
}

/// Reads a configuration file; the default when there is none.
pub fn read_config<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Failure> {
    let what = || format!("cannot read the configuration `{}`", path.display());
    let Some(bytes) = durable::read_if_present(path, MAX_CONFIG_BYTES).or_fail(what)? else {
        return Ok(T::default());
    };
    toml::from_slice(&bytes).or_fail(what)
}
