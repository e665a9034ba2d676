//! `person`: what is kept of people, for whoever has to answer for it.

use mirabelle_identity::{Choices, Person};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::people::ChoicesStore;
use serde::Serialize;

use super::Context;
use crate::cli::PersonCommand;
use crate::people::forget_rights;

#[derive(Serialize)]
struct Exported {
    person: Person,
    choices: Choices,
}

pub(super) fn run(context: &Context, command: &PersonCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    let store = ChoicesStore::new(&repository.path("people/choices"));
    let what = || "cannot look at what is kept of people".to_owned();
    match command {
        PersonCommand::List => {
            let people = store.people().or_fail(what)?;
            context.output.print(&people, |people| {
                people.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            });
        }
        PersonCommand::Export { person } => {
            let exported = Exported { person: *person, choices: store.read(*person).or_fail(what)? };
            context
                .output
                .print(&exported, |exported| serde_json::to_string_pretty(exported).unwrap_or_default());
        }
        PersonCommand::Erase { person } => {
            let had_choices = store.erase(*person).or_fail(|| format!("cannot erase {person}"))?;
            let had_rights = forget_rights(&repository, *person)?;
            if !had_choices && !had_rights {
                return Err(Failure::no(format!("nothing is kept of {person}")));
            }
            context.output.print(&serde_json::json!({ "erased": person }), |_| {
                format!("nothing is kept of {person} any more")
            });
        }
    }
    Ok(())
}
