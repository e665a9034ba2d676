//! `status`: what is published, what waits and for whom, what expires when.

use std::fmt::Write as _;

use jiff::Unit;
use mirabelle_manifests::Instant;
use mirabelle_manifests::network::metadata_path;
use mirabelle_manifests::tuf::{Document, RoleDocument, RoleName, Root, Targets, Timestamp};
use mirabelle_terminal::{Failure, Table};
use serde::Serialize;

use super::Context;
use super::draft::who;
use crate::drafts::Progress;
use crate::repository::Repository;
use crate::submission::{Submission, read_catalogue};

#[derive(Serialize)]
struct Status {
    releases: Vec<String>,
    submitted: Vec<String>,
    drafts: Vec<Progress>,
    /// Why drafts that are complete have not taken effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<String>,
    roles: Vec<Role>,
}

#[derive(Serialize)]
struct Role {
    role: String,
    version: u64,
    expires: Instant,
    days_left: i64,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let repository = context.repository()?;
    let catalogue = read_catalogue(&repository.catalogue()?)?;
    let releases = catalogue
        .iter()
        .map(|entry| format!("{} {} ({})", entry.listing.name, entry.listing.version, entry.listing.platform))
        .collect();
    let waiting = repository.submissions()?;
    let waiting = waiting.iter().filter(|submission| catalogue.by_digest(submission.signed.digest).is_none());
    let mut roles = vec![role(&repository.role::<Root>(&RoleName::root())?, context.now)];
    let waiting_for_signatures = repository.with_drafts()?;
    let drafts = repository.drafts()?;
    let drafts =
        drafts.keys().map(|role| waiting_for_signatures.progress(role)).collect::<Result<Vec<_>, _>>()?;
    let bins = repository.catalogue_bins()?;
    let mut first_bin: Option<Role> = None;
    for name in repository.signed_roles()?.into_iter().skip(1) {
        let shown = Role { role: name.to_string(), ..role(&repository.role::<Targets>(&name)?, context.now) };
        if !bins.contains(&name) {
            roles.push(shown);
        } else if first_bin.as_ref().is_none_or(|first| shown.expires < first.expires) {
            // Of hundreds, the one that expires first.
            first_bin = Some(shown);
        }
    }
    roles.extend(
        first_bin.map(|first| Role { role: format!("{} of {} bins", first.role, bins.len()), ..first }),
    );
    roles.extend(timestamp(&repository, context.now));
    let complete = !drafts.is_empty() && drafts.iter().all(Progress::is_complete);
    let blocked = if complete { waiting_for_signatures.first_unsatisfied()? } else { None };
    let blocked = blocked.map(|(role, by, _)| {
        format!(
            "`{role}` is not signed as `{by}` will demand: those who will hold it run `role renew {role}`"
        )
    });
    let status =
        Status { releases, submitted: waiting.map(Submission::label).collect(), drafts, blocked, roles };
    context.output.print(&status, render);
    Ok(())
}

fn role<T: RoleDocument>(document: &Document<T>, now: Instant) -> Role {
    let expires = document.signed.expires();
    let days_left = now.until((Unit::Hour, expires)).map_or(0, |span| i64::from(span.get_hours()) / 24);
    Role { role: T::TYPE.to_owned(), version: document.signed.version(), expires, days_left }
}

fn timestamp(repository: &Repository, now: Instant) -> Option<Role> {
    let path = repository.public().join(metadata_path(&RoleName::timestamp(), None));
    let bytes = mirabelle_content::durable::read_if_present(&path, 16 << 10).ok()??;
    Document::<Timestamp>::parse(&bytes).ok().map(|document| role(&document, now))
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let mut list = |title: &str, items: &[String]| {
        let _ = writeln!(text, "{title}: {}", items.len());
        for item in items {
            let _ = writeln!(text, "  {item}");
        }
    };
    list("approved releases", &status.releases);
    list("waiting for approval", &status.submitted);
    let drafts: Vec<String> = status
        .drafts
        .iter()
        .map(|draft| format!("{} {}: {}", draft.role, draft.version, who(draft)))
        .collect();
    list("drafts waiting for signatures", &drafts);
    let _ = status.blocked.iter().try_for_each(|blocked| writeln!(text, "  {blocked}"));
    let mut table = Table::new(["role", "version", "expires", "days left"]).right([1, 3]);
    for role in &status.roles {
        let days = role.days_left.to_string();
        table.row([role.role.clone(), role.version.to_string(), role.expires.to_string(), days]);
    }
    format!("{text}\n{}", table.render())
}
