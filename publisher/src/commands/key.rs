//! `key new|show|sign|verify`

use std::path::Path;

use mirabelle_content::durable;
use mirabelle_keys::{PublicKey, Signature};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::cli::KeyCommand;
use crate::keyfile;

/// The most of a file that is signed by hand: a document, not a bundle.
const MAX_SIGNED_BYTES: u64 = 64 << 20;

#[derive(Serialize)]
struct Shown {
    key_id: String,
    public: PublicKey,
    /// What one guess at the passphrase costs, for a sealed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_with: Option<String>,
}

pub(super) fn run(context: &mut Context, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::New { key, algorithm } => {
            let key = keyfile::create(&key, algorithm, &mut context.passphrase)?;
            show(context, &key.public(), None);
        }
        KeyCommand::Show { key } => show(context, &keyfile::public(&key)?, keyfile::sealed_with(&key)?),
        KeyCommand::Sign { file, key } => {
            let message = read(&file)?;
            let key = keyfile::open(&key, &mut context.passphrase)?;
            let signature = key.sign(&message).or_fail(|| format!("cannot sign `{}`", file.display()))?;
            context
                .output
                .print(&signature, |signature| serde_json::to_string(signature).unwrap_or_default());
        }
        KeyCommand::Verify { file, signature, public } => {
            let signature: Signature = serde_json::from_slice(&read(&signature)?)
                .map_err(|_| Failure::usage(format!("`{}` holds no signature", signature.display())))?;
            let key = keyfile::public(&public)?;
            if !key.verifies(&read(&file)?, &signature) {
                return Err(Failure::trust(format!(
                    "`{}` was not signed with key {}",
                    file.display(),
                    key.id()
                )));
            }
            context
                .output
                .print(&"good", |_| format!("`{}` was signed with key {}", file.display(), key.id()));
        }
    }
    Ok(())
}

fn show(context: &Context, public: &PublicKey, sealed_with: Option<String>) {
    let shown = Shown { key_id: public.id().to_string(), public: public.clone(), sealed_with };
    context.output.print(&shown, |shown| {
        let sealed = shown.sealed_with.as_ref().map_or(String::new(), |cost| format!("sealed  {cost}\n"));
        format!("key id  {}\n{sealed}{}", shown.key_id, public.to_pem().unwrap_or_default())
    });
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    durable::read_if_present(path, MAX_SIGNED_BYTES)
        .or_fail(|| format!("cannot read `{}`", path.display()))?
        .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))
}
