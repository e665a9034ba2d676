//! `deploy`: what goes where, how and when, under an operator's signature.
//!
//! One way for every change: from the deployment that is signed to a new one; what that changes, in words; what is doubtful
//! about it; and then the signature. Everything before it is said before a key is asked for.

mod change;
mod edit;

use mirabelle_manifests::network::{DEPLOYMENT_TARGET, deployment_role};
use mirabelle_manifests::tuf::{TargetFile, Targets};
use mirabelle_manifests::{Deployment, TargetPath};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use super::draft::who;
use crate::cli::Deploy;
use crate::drafts::Outcome;
use crate::findings::Finding;
use crate::keyfile;
use crate::policy::{MAX_POLICY_BYTES, Touched, doubts, write};
use crate::repository::Repository;
use crate::review::visible;
use crate::submission::read_catalogue;
use crate::words::policy::changes;

/// What a change comes to.
#[derive(Serialize)]
struct Deployed {
    /// What it is called in one sentence.
    #[serde(skip)]
    subject: String,
    changes: Vec<String>,
    touches: Touched,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<Outcome>,
}

pub(super) fn run(context: &mut Context, arguments: &Deploy) -> Result<(), Failure> {
    let repository = context.repository()?;
    let before = Deployment::parse(&repository.only_target(&deployment_role(), DEPLOYMENT_TARGET)?)
        .or_fail(|| "cannot read the deployment".to_owned())?;
    if arguments.show {
        let text = write(&before).or_fail(|| "cannot show the deployment".to_owned())?;
        context.output.print(&before, |_| text);
        return Ok(());
    }

    // Decide.
    let _lock = repository.lock()?;
    let catalogue = read_catalogue(&repository.catalogue()?)?;
    let (subject, new) = change::change(arguments, &before, &catalogue, context.now)?;
    let mut deployed = Deployed {
        subject,
        changes: changes(&before, &new).iter().map(|line| visible(line)).collect(),
        touches: Touched::between(&before, &new),
        findings: doubts(&catalogue, &before, &new, context.now).0,
        signed: None,
    };
    if deployed.changes.is_empty() && before == new {
        context.output.print(&deployed, |_| "nothing changes".to_owned());
        return Ok(());
    }

    // Act.
    if !arguments.dry_run {
        if !context.output.is_json() {
            eprint!("{}", deployed.said());
        }
        deployed.signed = Some(sign(context, &repository, arguments, &new)?);
    }
    context.output.print(&deployed, |deployed| {
        let subject = &deployed.subject;
        match &deployed.signed {
            None => format!("{}would deploy {subject}", deployed.said()),
            Some(Outcome::Complete { .. }) => format!("deployed {subject}; `publish` makes it known"),
            Some(Outcome::Waiting(progress)) => format!("{subject} waits: {}", who(progress)),
        }
    });
    Ok(())
}

/// Puts the new deployment before its operators' role, signed with the keys that are at hand.
fn sign(
    context: &mut Context,
    repository: &Repository,
    arguments: &Deploy,
    new: &Deployment,
) -> Result<Outcome, Failure> {
    let role = deployment_role();
    let bytes = new.to_bytes().or_fail(|| "cannot write the deployment".to_owned())?;
    if bytes.len() as u64 > MAX_POLICY_BYTES {
        return Err(Failure::no(format!("the deployment would take more than {MAX_POLICY_BYTES} bytes"))
            .hint("say for groups what is said for many machines one by one"));
    }
    if arguments.discard_draft {
        repository.drop_draft(&role, context.now)?;
    }
    let path = TargetPath::new(DEPLOYMENT_TARGET);
    repository.put_target(&path, &bytes)?;
    let mut document = repository.role::<Targets>(&role)?.signed;
    document.targets.insert(path, TargetFile::of(&bytes, None));
    let keys = keyfile::open_all(&arguments.keys, &mut context.passphrase)?;
    repository.check_holders(std::slice::from_ref(&role), &keys)?;
    repository.propose(&role, &document, &keys, context.now)
}

impl Deployed {
    /// What changes, and what is doubtful about it.
    fn said(&self) -> String {
        let mut lines = self.changes.clone();
        lines.push(self.touches.words());
        lines.extend(
            self.findings
                .iter()
                .map(|finding| visible(&format!("{}: {}: {}", finding.kind(), finding.about, finding.text))),
        );
        lines.push(String::new());
        lines.join("\n")
    }
}
