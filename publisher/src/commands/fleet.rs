//! `node`, `machines`: which keys speak for nodes, and what machines reported.

use mirabelle_terminal::{Failure, OrFail, Table};

use super::Context;
use crate::cli::{FleetState, Machines, NodeCommand};
use crate::fleet::State;

/// Events that are shown of a machine.
const MOST: i64 = 200;

async fn open(context: &Context, state: &FleetState) -> Result<State, Failure> {
    let repository = context.repository()?;
    State::open(&state.fleet, &repository.path("")).await
}

fn what() -> String {
    "cannot read the fleet's state".to_owned()
}

pub(super) async fn node(context: &Context, command: &NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List(state) => {
            let nodes = open(context, state).await?.nodes().await.or_fail(what)?;
            context.output.print(&nodes, |nodes| {
                let mut table = Table::new(["college", "key", "accepted"]);
                for node in nodes {
                    let accepted = node.accepted.map_or("waits".to_owned(), |at| format!("{at:.0}"));
                    table.row([node.college.clone(), node.key.clone(), accepted]);
                }
                table.render()
            });
        }
        NodeCommand::Accept { college, key, state } => {
            let accepted =
                open(context, state).await?.accept_node(college, key, context.now).await.or_fail(what)?;
            if !accepted {
                return Err(Failure::no(format!(
                    "no single key that begins with `{key}` waits for college {college}"
                ))
                .hint("`mirabelle-publisher node list` shows those that do"));
            }
            context.output.print(&serde_json::json!({ "accepted": college }), |_| {
                format!("the node of college {college} is heard from now on")
            });
        }
        NodeCommand::Remove { college, state } => {
            if !open(context, state).await?.remove_node(college).await.or_fail(what)? {
                return Err(Failure::no(format!("no key speaks for the node of college {college}")));
            }
            context.output.print(&serde_json::json!({ "removed": college }), |_| {
                format!("nothing more is taken from the node of college {college}")
            });
        }
    }
    Ok(())
}

pub(super) async fn machines(context: &Context, arguments: &Machines) -> Result<(), Failure> {
    let state = open(context, &arguments.state).await?;
    let machines = state.machines(arguments.college.as_ref()).await.or_fail(what)?;
    let Some(name) = &arguments.machine else {
        context.output.print(&machines, |machines| {
            let mut table = Table::new(["college", "machine", "last report", "reports", "missing", "key"]);
            for machine in machines {
                let name = if machine.name.is_empty() { "(node)" } else { &machine.name };
                table.row([
                    machine.college.clone(),
                    name.to_owned(),
                    format!("{:.0}", machine.last_report),
                    machine.reports.to_string(),
                    machine.missing.to_string(),
                    machine.key.chars().take(12).collect(),
                ]);
            }
            table.render()
        });
        return Ok(());
    };
    let machine = machines.iter().find(|machine| machine.name == name.as_str());
    let machine = machine.ok_or_else(|| Failure::no(format!("no machine `{name}` has reported there")))?;
    let events = state.events(&machine.key, MOST).await.or_fail(what)?;
    context.output.print(&events, |events| {
        let mut table = Table::new(["number", "when", "what", "report"]);
        for event in events {
            let said = event.report["event"].to_string();
            table.row([event.number.to_string(), format!("{:.0}", event.at), event.kind.clone(), said]);
        }
        table.render()
    });
    Ok(())
}
