//! `towpath completions SHELL`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::definitions;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell. For bash: `towpath completions bash > ~/.local/share/bash-completion/completions/towpath`
    shell: Shell,
}

pub fn run(arguments: &CompletionsArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definitions(), "towpath", &mut script);
    terminal.verbatim(&script)?;
    Ok(ExitCode::SUCCESS)
}
