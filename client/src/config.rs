//! The workstation's configuration: default < `client.toml` < environment < flag.
//!
//! ```toml
//! node = "http://node.college-57001.example:8701/"
//! college = "57001"
//! ```

use mirabelle_manifests::SiteId;
use mirabelle_terminal::{Failure, Layer, Setting, read_config};
use mirabelle_transfer::Upstream;
use serde::{Deserialize, Serialize};

use crate::cli::Settings;
use crate::layout::Layout;

/// `client.toml` as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) college: Option<SiteId>,
}

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) node: Upstream,
    pub(crate) college: SiteId,
    node_from: Layer,
    college_from: Layer,
}

impl Config {
    pub(crate) fn load(layout: &Layout, settings: &Settings) -> Result<Self, Failure> {
        let path = layout.config();
        let file: ConfigFile = read_config(&path)?;
        let missing = |name: &str| {
            Failure::usage(format!("`{name}` is not set"))
                .hint(format!("run `mirabelle enroll`, or set it in `{}`", path.display()))
        };
        let (node, node_from) = match (&settings.node, file.node) {
            (Some(node), _) => (node.clone(), Layer::Command),
            (None, Some(text)) => {
                let node = text.parse::<Upstream>();
                (node.map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))?, Layer::File)
            }
            (None, None) => return Err(missing("node")),
        };
        let (college, college_from) = match (&settings.college, file.college) {
            (Some(college), _) => (college.clone(), Layer::Command),
            (None, Some(college)) => (college, Layer::File),
            (None, None) => return Err(missing("college")),
        };
        Ok(Self { node, college, node_from, college_from })
    }

    /// Name, value and origin of each setting.
    pub(crate) fn settings(&self) -> [Setting; 2] {
        [
            Setting { name: "node", value: self.node.to_string(), from: self.node_from },
            Setting { name: "college", value: self.college.to_string(), from: self.college_from },
        ]
    }
}
