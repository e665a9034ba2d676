//! Man pages and completions, made from the command line's own description.

use std::io;

use clap::{Command, ValueEnum};

use crate::{Failure, OrFail};

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DocumentKind {
    /// A man page, in roff.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// Prints a man page or completions for `command` on standard output.
pub fn print_document(kind: DocumentKind, mut command: Command) -> Result<(), Failure> {
    use clap_complete::Shell;
    let shell = match kind {
        DocumentKind::Man => {
            let page = clap_mangen::Man::new(command);
            return match page.render(&mut io::stdout()) {
                // Whoever closed the pipe has read enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                printed => printed.or_fail(|| "cannot print the man page".to_owned()),
            };
        }
        DocumentKind::Bash => Shell::Bash,
        DocumentKind::Zsh => Shell::Zsh,
        DocumentKind::Fish => Shell::Fish,
    };
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut io::stdout());
    Ok(())
}
