//! `draft export|import|show|discard`: changes that wait for signatures.

use std::path::{Path, PathBuf};

use mirabelle_manifests::tuf::RoleName;
use mirabelle_terminal::Failure;
use serde::Serialize;

use super::{Context, sign};
use crate::cli::DraftCommand;
use crate::draft_file::SignatureFile;
use crate::drafts::{Outcome, Progress, no_draft};
use crate::repository::Repository;

pub(super) fn run(context: &mut Context, command: DraftCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    let _lock = repository.lock()?;
    match command {
        DraftCommand::Export { role, out } => {
            export(context, &repository, &role_of(&repository, &role)?, out)
        }
        DraftCommand::Import { files } => import(context, &repository, &files),
        DraftCommand::Show { role } => show(context, &repository, &role_of(&repository, &role)?),
        DraftCommand::Discard { role } => {
            let role = role_of(&repository, &role)?;
            repository.drop_draft(&role, context.now)?;
            context.output.print(&role, |role| format!("the draft of `{role}` is gone"));
            Ok(())
        }
    }
}

/// A role that people sign.
pub(super) fn role_of(repository: &Repository, name: &str) -> Result<RoleName, Failure> {
    let roles = repository.signed_roles()?;
    roles.iter().find(|role| role.as_str() == name).cloned().ok_or_else(|| {
        let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
        Failure::usage(format!("there is no role `{name}` that people sign")).hint(names.join(", "))
    })
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    progress: Progress,
    what: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

fn export(
    context: &Context,
    repository: &Repository,
    role: &RoleName,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let progress = repository.with_drafts()?.progress(role)?;
    let version = progress.version;
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}-{version}.draft.json", role.file_stem())));
    let draft = repository.export_draft(role, &out)?;
    let what = draft.words();
    let text = sign::shown(&draft, &what);
    context.output.print(&Shown { progress, what, file: Some(out.clone()) }, |shown| {
        format!(
            "{text}{}\nwritten to `{}`: each holder signs it with `mirabelle-publisher sign {} --key …`",
            who(&shown.progress),
            out.display(),
            out.display()
        )
    });
    Ok(())
}

fn show(context: &Context, repository: &Repository, role: &RoleName) -> Result<(), Failure> {
    let draft = repository.travelling_draft(role)?;
    let progress = repository.with_drafts()?.progress(role)?;
    let what = draft.words();
    let text = sign::shown(&draft, &what);
    context
        .output
        .print(&Shown { progress, what, file: None }, |shown| format!("{text}{}", who(&shown.progress)));
    Ok(())
}

/// Who signed, and who still can.
pub(super) fn who(progress: &Progress) -> String {
    let short = |ids: &[String]| {
        ids.iter().map(|id| id.get(..12).unwrap_or(id).to_owned()).collect::<Vec<_>>().join(", ")
    };
    let signed = if progress.signed.is_empty() { "nobody yet".to_owned() } else { short(&progress.signed) };
    let missing = match (progress.is_complete(), progress.missing.is_empty()) {
        (true, _) => "; complete, and waits for what belongs to it".to_owned(),
        (false, true) => "; NOBODY is left who can".to_owned(),
        (false, false) => format!("; can still sign: {}", short(&progress.missing)),
    };
    format!("{} of {} signatures: {signed}{missing}", progress.have, progress.need)
}

#[derive(Serialize)]
struct Imported {
    completed: Vec<String>,
    waiting: Vec<Progress>,
}

fn import(context: &Context, repository: &Repository, files: &[PathBuf]) -> Result<(), Failure> {
    // Decide: every file must be good before the first is added.
    let mut signatures = Vec::new();
    for path in files {
        let file = SignatureFile::read(path)?;
        check(repository, path, &file)?;
        signatures.push(file);
    }
    let mut roles: Vec<RoleName> = Vec::new();
    for SignatureFile { role, signature, .. } in signatures {
        let draft = repository.drafts()?.remove(&role).ok_or_else(|| no_draft(&role))?;
        repository.merge(&role, &draft, &[signature], context.now)?;
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    let mut completed: Vec<String> =
        repository.promote(context.now)?.iter().map(ToString::to_string).collect();
    completed.sort();
    let mut waiting = Vec::new();
    for role in roles {
        if let Outcome::Waiting(progress) = repository.outcome(&role)? {
            waiting.push(progress);
        }
    }
    context.output.print(&Imported { completed, waiting }, |imported| {
        let mut lines: Vec<String> = imported
            .completed
            .iter()
            .map(|role| format!("`{role}` is complete; `publish` makes it known"))
            .collect();
        lines.extend(imported.waiting.iter().map(|waiting| format!("`{}`: {}", waiting.role, who(waiting))));
        lines.join("\n")
    });
    Ok(())
}

fn check(repository: &Repository, path: &Path, file: &SignatureFile) -> Result<(), Failure> {
    let SignatureFile { role, version, signature, .. } = file;
    let refuse = |why: String| Err(Failure::trust(format!("`{}` is refused: {why}", path.display())));
    let Some(draft) = repository.drafts()?.remove(role) else {
        return Err(no_draft(role));
    };
    if draft.version() != *version {
        return refuse(format!(
            "it signs `{role}` version {version}, and the draft is version {}",
            draft.version()
        ));
    }
    let demands = repository.demands_now_or_then(&repository.with_drafts()?, role)?;
    let keys = demands.iter().filter_map(|demand| demand.keyring.get(&signature.keyid)).collect::<Vec<_>>();
    if keys.is_empty() {
        return refuse(format!("key {} does not hold the role `{role}`", signature.keyid.short()));
    }
    if !keys.iter().any(|key| key.verifies(draft.signed_bytes(), signature)) {
        return refuse(format!(
            "key {} did not sign the draft of `{role}` that waits here; export it again",
            signature.keyid.short()
        ));
    }
    Ok(())
}
