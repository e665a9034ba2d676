//! One file per command.

mod approve;
mod audit;
mod benefit;
mod brake;
mod build;
mod check;
mod deltas;
mod deploy;
mod draft;
mod enrolment_code;
mod fleet;
mod init;
mod key;
mod packager;
mod person;
mod publish;
mod review;
mod role;
mod rollouts;
mod serve;
mod sign;
mod status;
mod submit;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::CommandFactory;
use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, Output, print_document, runtime};

use crate::cli::{Cli, Command};
use crate::passphrase::Passphrase;
use crate::repository::Repository;

/// What every command is given.
struct Context {
    directory: PathBuf,
    output: Output,
    passphrase: Passphrase,
    /// In whole seconds, as documents are dated: who is authorised now may sign what is dated now.
    now: Instant,
}

impl Context {
    fn repository(&self) -> Result<Repository, Failure> {
        Repository::open(&self.directory)
    }
}

/// Asks a person, at a terminal, and returns what she typed.
fn ask(question: &str) -> Result<String, Failure> {
    let what = || "cannot read the answer".to_owned();
    eprint!("{question} ");
    io::stderr().flush().or_fail(what)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).or_fail(what)?;
    Ok(answer.trim().to_owned())
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let now = Instant::now();
    let mut context = Context {
        directory: cli.repository,
        output: Output::new(cli.json),
        passphrase: Passphrase::from_environment(cli.passphrase_file),
        now: Instant::from_second(now.as_second()).unwrap_or(now),
    };
    let context = &mut context;
    match cli.command {
        Command::Key(command) => key::run(context, command),
        Command::Init(arguments) => init::run(context, &arguments),
        Command::Build(arguments) => build::run(context, &arguments),
        Command::Submit(arguments) => submit::run(context, &arguments),
        Command::Review(arguments) => review::run(context, &arguments),
        Command::Approve(arguments) => approve::run(context, &arguments),
        Command::Deploy(arguments) => deploy::run(context, &arguments),
        Command::Pause(arguments) => brake::run(context, &arguments, true),
        Command::Resume(arguments) => brake::run(context, &arguments, false),
        Command::Packager(command) => packager::run(context, command),
        Command::Deltas(arguments) => deltas::run(context, &arguments),
        Command::Publish(arguments) => publish::run(context, &arguments),
        Command::Role(command) => role::run(context, command),
        Command::Draft(command) => draft::run(context, command),
        Command::Sign(arguments) => sign::run(context, &arguments),
        Command::Check(arguments) => check::run(context, &arguments),
        Command::Audit(command) => audit::run(context, &command),
        Command::Status => status::run(context),
        Command::EnrolmentCode(arguments) => enrolment_code::run(context, &arguments),
        Command::Verify => runtime()?.block_on(verify::run(context)),
        Command::Node(command) => runtime()?.block_on(fleet::node(context, &command)),
        Command::Machines(arguments) => runtime()?.block_on(fleet::machines(context, &arguments)),
        Command::Rollouts(command) => runtime()?.block_on(rollouts::run(context, &command)),
        Command::Benefit(arguments) => runtime()?.block_on(benefit::run(context, &arguments)),
        Command::Person(command) => person::run(context, &command),
        Command::Serve(arguments) => runtime()?.block_on(serve::run(context, &arguments)),
        Command::Print { kind } => print_document(kind, Cli::command()),
    }
}
