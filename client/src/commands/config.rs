//! `config`: what is in force, and which layer said so.

use mirabelle_terminal::{Failure, Layer, Table};
use serde::Serialize;

use super::Context;

#[derive(Serialize)]
struct Setting {
    name: &'static str,
    value: String,
    from: Layer,
}

pub(super) fn run(context: &Context, check: bool) -> Result<(), Failure> {
    let config = context.config()?;
    if check {
        context.output.print(&"good", |_| "the configuration can be used".to_owned());
        return Ok(());
    }
    let settings = [
        Setting { name: "node", value: config.node.to_string(), from: config.node_from },
        Setting { name: "college", value: config.college.to_string(), from: config.college_from },
    ];
    context.output.print(&settings, |settings| {
        let mut table = Table::new(["setting", "value", "from"]);
        for setting in settings {
            let from = match setting.from {
                Layer::Default => "default",
                Layer::File => "client.toml",
                Layer::Command => "environment or flag",
            };
            table.row([setting.name.to_owned(), setting.value.clone(), from.to_owned()]);
        }
        table.render()
    });
    Ok(())
}
