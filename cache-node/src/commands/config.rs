//! `config`: what is in force, and which layer said so.

use mirabelle_terminal::{Failure, Layer, Table};

use super::Context;

pub(super) fn run(context: &Context, check: bool) -> Result<(), Failure> {
    let config = context.config()?;
    if check {
        context.output.print(&"good", |_| "the configuration can be used".to_owned());
        return Ok(());
    }
    context.output.print(&config.origins, |settings| {
        let mut table = Table::new(["setting", "value", "from"]);
        for setting in settings {
            let from = match setting.from {
                Layer::Default => "default",
                Layer::File => "node.toml",
                Layer::Command => "environment or flag",
            };
            table.row([setting.name.to_owned(), setting.value.clone(), from.to_owned()]);
        }
        table.render()
    });
    Ok(())
}
