//! `audit verify|show|export`: the log of who did what.

use mirabelle_manifests::network::metadata_path;
use mirabelle_manifests::tuf::{Document, RoleName, Snapshot, Timestamp};
use mirabelle_terminal::Failure;
use serde::Serialize;

use super::Context;
use crate::audit::Entry;
use crate::cli::{AuditCommand, AuditFormat};
use crate::repository::{Repository, read_document};

#[derive(Serialize)]
struct Verified {
    lines: usize,
    /// The line that the published snapshot vouches for.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<usize>,
    /// Snapshots from elsewhere that vouch for it, too.
    witnesses: usize,
}

pub(super) fn run(context: &Context, command: &AuditCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    let log = repository.audit_log()?;
    match command {
        AuditCommand::Verify { snapshots } => {
            for path in snapshots {
                let witness: Option<Document<Snapshot>> = read_document(path)?;
                let witness =
                    witness.ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
                let known = witness.signed.audit.is_none_or(|head| log.line_of(head).is_some());
                if !known {
                    return Err(Failure::trust(format!(
                        "the log does not hold the line that `{}` vouches for: it was changed since",
                        path.display()
                    )));
                }
            }
            let published = match published_snapshot(&repository)?.and_then(|snapshot| snapshot.audit) {
                Some(head) => Some(log.line_of(head).ok_or_else(|| {
                    Failure::trust("the log does not hold the line that the published snapshot vouches for: its end was cut off or written anew")
                })?),
                None => None,
            };
            let verified = Verified { lines: log.entries.len(), published, witnesses: snapshots.len() };
            context.output.print(&verified, |verified| {
                let published =
                    verified.published.map_or("no snapshot vouches for it yet".to_owned(), |line| {
                        format!("the published snapshot vouches for it up to line {line}")
                    });
                let witnesses = match verified.witnesses {
                    0 => String::new(),
                    witnesses => format!(", and so do {witnesses} from elsewhere"),
                };
                format!("{} lines, none changed or removed; {published}{witnesses}", verified.lines)
            });
        }
        AuditCommand::Show => context
            .output
            .print(&log.entries, |entries| entries.iter().map(Entry::words).collect::<Vec<_>>().join("\n")),
        AuditCommand::Export { format } => {
            let line = |entry: &Entry| match format {
                AuditFormat::Json => serde_json::to_string(entry).unwrap_or_default(),
                AuditFormat::Rfc5424 => entry.rfc5424(),
            };
            let lines: Vec<String> = log.entries.iter().map(line).collect();
            context.output.print(&lines, |lines| lines.join("\n"));
        }
    }
    Ok(())
}

fn published_snapshot(repository: &Repository) -> Result<Option<Snapshot>, Failure> {
    let public = repository.public();
    let timestamp: Option<Document<Timestamp>> =
        read_document(&public.join(metadata_path(&RoleName::timestamp(), None)))?;
    let Some(version) = timestamp.and_then(|document| Some(document.signed.snapshot()?.version)) else {
        return Ok(None);
    };
    let snapshot = read_document(&public.join(metadata_path(&RoleName::snapshot(), Some(version))))?;
    Ok(snapshot.map(|document| document.signed))
}
