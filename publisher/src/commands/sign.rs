//! `sign`: one holder's signature under a draft, on the machine where her key is.
//!
//! She sees in words what she signs, made from the very bytes that her signature covers. No repository is needed, nothing
//! is fetched, and the draft stays as it is: several holders can sign copies of it at the same time.

use std::io::{self, IsTerminal};

use mirabelle_content::durable;
use mirabelle_manifests::{Digest, Json};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::{Context, ask};
use crate::cli::Sign;
use crate::draft_file::{DraftFile, SignatureFile};
use crate::keyfile;
use crate::review::visible;

#[derive(Serialize)]
struct Signed {
    role: String,
    version: u64,
    digest: Digest,
    what: Vec<String>,
    key: String,
    signature: String,
}

pub(super) fn run(context: &mut Context, arguments: &Sign) -> Result<(), Failure> {
    let draft = DraftFile::read(&arguments.file)?;
    let what = draft.words_for(&keyfile::public(&arguments.key)?);
    eprint!("{}", shown(&draft, &what));
    if !arguments.yes {
        confirm()?;
    }
    let key = keyfile::open(&arguments.key, &mut context.passphrase)?;
    let failed = || format!("cannot sign `{}`", arguments.file.display());
    let signature = key.sign(draft.draft.signed_bytes()).or_fail(failed)?;
    let id = key.public().id();
    let version = draft.draft.version();
    let out = arguments.out.clone().unwrap_or_else(|| {
        let name = format!("{}-{version}.{}.sig.json", draft.role.file_stem(), id.short());
        arguments.file.with_file_name(name)
    });
    let file = Json::of(&SignatureFile::new(&draft.role, version, signature)).or_fail(failed)?;
    durable::write_atomically(&out, &file.to_file()).or_fail(failed)?;
    let signed = Signed {
        role: draft.role.to_string(),
        version,
        digest: draft.digests().0,
        what,
        key: id.to_string(),
        signature: out.display().to_string(),
    };
    context.output.print(&signed, |signed| {
        format!(
            "signed with key {}; take `{}` to the repository and `draft import` it",
            id.short(),
            signed.signature
        )
    });
    Ok(())
}

/// What a person reads before she signs, and whoever gathers signatures.
pub(super) fn shown(draft: &DraftFile, what: &[String]) -> String {
    let (digest, previous) = draft.digests();
    format!(
        "`{}` version {}, valid until {:.0}\ndigest {}\nin the place of version {}\ndigest {}:\n  - {}\n",
        visible(draft.role.as_str()),
        draft.draft.version(),
        draft.draft.expires(),
        digest,
        draft.previous.version(),
        previous,
        what.join("\n  - ")
    )
}

fn confirm() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to say yes").hint("add --yes to sign without asking"));
    }
    match ask("Sign this? [y/N]")?.as_str() {
        "y" | "Y" | "yes" | "o" | "O" | "oui" => Ok(()),
        _ => Err(Failure::no("not signed")),
    }
}
