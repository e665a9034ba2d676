//! `college-code`: what workstations are given, so that their node knows them.

use mirabelle_terminal::Failure;
use serde::Serialize;

use super::Context;
use crate::fleet;

#[derive(Serialize)]
struct Shown {
    code: String,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    context.config()?;
    let code = fleet::college_code(&context.site)?;
    context.output.print(&Shown { code: code.shown().as_str().to_owned() }, |shown| shown.code.clone());
    Ok(())
}
