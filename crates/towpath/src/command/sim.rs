//! `towpath sim`: seeded worlds over the very core that decides in the server.

use std::process::ExitCode;

use towpath_sim::{Options, run as simulate};

use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

/// Simulate worlds full of faults, and check every invariant after every step
#[derive(Debug, clap::Args)]
pub struct SimArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Worlds at once [default: one for each processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Show every step on standard error
    #[arg(long)]
    trace: bool,
}

pub fn run(arguments: &SimArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let threads = arguments.threads.unwrap_or(0);
    let options = Options { threads, aloud: arguments.trace, ..Options::default() };
    let summary = simulate(arguments.from, arguments.seeds, options);
    match terminal.is_json() {
        true => terminal.record(&summary)?,
        false => terminal.data(&summary)?,
    }
    match summary.violations {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(Failure::shown(Exit::Failed)),
    }
}
