//! `config`: what is in force, and which layer said so.

use mirabelle_terminal::{Failure, settings_table};

use super::Context;

pub(super) fn run(context: &Context, check: bool) -> Result<(), Failure> {
    let config = context.config()?;
    if check {
        context.output.print(&"good", |_| "the configuration can be used".to_owned());
    } else {
        context.output.print(&config.origins, |settings| settings_table(settings, "node.toml"));
    }
    Ok(())
}
