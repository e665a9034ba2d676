//! `enrolment-code`: the code that enrols a college's node, for whoever sets the machine up.
//!
//! It names the newest root, which must be published: a node fetches it from there, by the digest that the code has. Roots that
//! come later the node follows by itself, so a code stays good.

use mirabelle_content::durable;
use mirabelle_manifests::network::metadata_path;
use mirabelle_manifests::tuf::{RoleName, Root};
use mirabelle_manifests::{Digest, Enrolment, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::cli::EnrolmentCode;

/// The most of a root.
const MAX_ROOT_BYTES: u64 = 512 << 10;

#[derive(Serialize)]
struct Code {
    code: String,
    college: SiteId,
    origin: String,
    root: Digest,
    root_version: u64,
}

pub(super) fn run(context: &Context, arguments: &EnrolmentCode) -> Result<(), Failure> {
    let repository = context.repository()?;
    let root = repository.role::<Root>(&RoleName::root())?.signed;
    let bytes = repository.role_bytes(&RoleName::root())?;
    let below = metadata_path(&RoleName::root(), Some(root.version));
    let path = repository.public().join(&below);
    let published = durable::read_if_present(&path, MAX_ROOT_BYTES)
        .or_fail(|| format!("cannot read `{}`", path.display()))?;
    if published.as_deref() != Some(bytes.as_slice()) {
        return Err(Failure::no(format!("root version {} is not published yet", root.version))
            .hint("`mirabelle-publisher publish` first: a node fetches it from there"));
    }
    if root.expires <= context.now {
        return Err(Failure::no(format!("root version {} expired on {:.0}", root.version, root.expires))
            .hint("`mirabelle-publisher role renew root`, then `publish`: no node would believe it"));
    }

    let origin = arguments.origin.to_string();
    let digest = Digest::of(&bytes);
    let enrolment = Enrolment::new(arguments.college.clone(), &origin, root.version, digest)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let code = Code {
        code: enrolment.to_string(),
        college: enrolment.college,
        origin,
        root: digest,
        root_version: root.version,
    };
    context.output.print(&code, |code| code.code.clone());
    Ok(())
}
