//! `towpath sim`: seeded worlds over the very core that decides in the server.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use serde::Serialize;
use towpath_sim::{Options, hunt_all, run as simulate, sweep};

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
    threads: Option<NonZeroUsize>,
    /// Show every step on standard error
    #[arg(long)]
    trace: bool,
    /// Play short stories instead, and let the server die at every step of each
    #[arg(long, conflicts_with_all = ["from", "seeds", "trace", "mutants"])]
    sweep: bool,
    /// Of the steps of a sweep, only each so many-th
    #[arg(long, default_value = "1", requires = "sweep")]
    every: NonZeroUsize,
    /// Plant bugs instead, one after the other, and look for each in so many seeds: whether the checks can fail
    #[arg(long, conflicts_with_all = ["trace", "threads"])]
    mutants: bool,
}

pub fn run(arguments: &SimArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let SimArgs { from, seeds, .. } = *arguments;
    let threads = arguments.threads.map_or(0, NonZeroUsize::get);
    if arguments.sweep {
        let found = sweep(threads, arguments.every.get());
        return shown(&found, found.holds(), terminal);
    }
    if arguments.mutants {
        let found = hunt_all(from, seeds);
        return shown(&found, found.holds(), terminal);
    }
    let options = Options { threads, aloud: arguments.trace, ..Options::default() };
    let summary = simulate(from, seeds, options);
    shown(&summary, summary.violations == 0, terminal)
}

fn shown<T: Serialize + Display>(found: &T, holds: bool, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match terminal.is_json() {
        true => terminal.record(found)?,
        false => terminal.data(found)?,
    }
    match holds {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::shown(Exit::Failed)),
    }
}
