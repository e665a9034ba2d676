//! `deploy`: an operator's signature under what goes where.

use mirabelle_manifests::network::{DEPLOYMENT_TARGET, deployment_role};
use mirabelle_manifests::tuf::TargetFile;
use mirabelle_manifests::{
    Assignment, AssignmentMode, Audience, Deployment, Platform, SiteId, TargetPath, Track,
};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use super::draft::who;
use crate::cli::Deploy;
use crate::drafts::Outcome;
use crate::keyfile;

#[derive(Serialize)]
struct Deployed {
    release: String,
    to: Audience,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<Outcome>,
}

pub(super) fn run(context: &mut Context, arguments: Deploy) -> Result<(), Failure> {
    let repository = context.repository()?;
    let _lock = repository.lock()?;
    let role = deployment_role();
    let what = || "cannot change the deployment".to_owned();

    // Decide.
    let entry = repository.approved(&arguments.release.release, arguments.release.platform.as_ref())?;
    let mut to = Audience::colleges(colleges(arguments.colleges)?);
    if entry.listing.platform != Platform::any() {
        to.platforms.insert(entry.listing.platform.clone());
    }
    let bytes = repository.only_target(&role, DEPLOYMENT_TARGET)?;
    let mut deployment = Deployment::parse(&bytes).or_fail(what)?;
    deployment.assign(Assignment {
        deadline: None,
        mode: if arguments.available { AssignmentMode::Available } else { AssignmentMode::Required },
        package: entry.listing.name.clone(),
        rollout: None,
        since: Some(context.now),
        to: to.clone(),
        track: Track::Pinned {
            sequence: entry.listing.sequence,
            until: None,
            version: entry.listing.version.clone(),
        },
    });

    // Act.
    let mut signed = None;
    if !arguments.dry_run {
        if arguments.discard_draft {
            repository.drop_draft(&role, context.now)?;
        }
        let bytes = deployment.to_bytes().or_fail(what)?;
        Deployment::parse(&bytes).or_fail(what)?;
        let path = TargetPath::new(DEPLOYMENT_TARGET);
        repository.put_target(&path, &bytes)?;
        let mut document = repository.role::<mirabelle_manifests::tuf::Targets>(&role)?.signed;
        document.targets.insert(path, TargetFile::of(&bytes, None));
        let keys = keyfile::open_all(&arguments.keys, &mut context.passphrase)?;
        repository.check_holders(std::slice::from_ref(&role), &keys)?;
        signed = Some(repository.propose(&role, &document, &keys, context.now)?);
    }
    let release = format!("{} {}", entry.listing.name, entry.listing.version);
    context.output.print(&Deployed { release, to, signed }, |deployed| {
        let place = &deployed.to;
        match &deployed.signed {
            None => format!("would deploy `{}` to {place}", deployed.release),
            Some(Outcome::Complete { .. }) => {
                format!("deployed `{}` to {place}; `publish` makes it known", deployed.release)
            }
            Some(Outcome::Waiting(progress)) => {
                format!("`{}` to {place} waits: {}", deployed.release, who(progress))
            }
        }
    });
    Ok(())
}

fn colleges(codes: Vec<SiteId>) -> Result<Vec<SiteId>, Failure> {
    if !codes.iter().any(|code| code.as_str() == "all") {
        return Ok(codes);
    }
    if codes.len() > 1 {
        return Err(Failure::usage("`all` colleges leaves no others to name"));
    }
    Ok(Vec::new())
}
