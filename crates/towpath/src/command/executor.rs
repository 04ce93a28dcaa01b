//! `towpath executor`: what the server starts beside itself. Not for people, so not in the help.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath_executor::{ExecutorConfig, ORPHAN_MAX, SandboxKind};

use crate::command::run::executor_config;
use crate::failure::Failure;

/// Bytes of a core dump.
const CORE_BYTES_MAX: u64 = 1;

/// Run jobs for the server that started this
#[derive(Debug, clap::Args)]
pub struct ExecutorArgs {
    /// The executor's folder
    #[arg(long)]
    folder: PathBuf,
    /// Where it listens
    #[arg(long)]
    socket: PathBuf,
    /// Jobs at once
    #[arg(long)]
    slots: u32,
    /// Whether jobs run behind the border
    #[arg(long, value_enum)]
    sandbox: SandboxArg,
    /// End soon after the server has, and the jobs with it
    #[arg(long)]
    with_server: bool,
}

/// How jobs are boxed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SandboxArg {
    /// In bubblewrap.
    Bubblewrap,
    /// Not at all.
    None,
}

impl From<SandboxArg> for SandboxKind {
    fn from(argument: SandboxArg) -> SandboxKind {
        match argument {
            SandboxArg::Bubblewrap => SandboxKind::Bubblewrap,
            SandboxArg::None => SandboxKind::None,
        }
    }
}

/// Keeps what this process has in memory, keys and secrets, out of core dumps. One byte: with none at all the system still
/// hands a dump to a program that `core_pattern` names; one keeps it from both, a file and a program (core(5), and
/// `vfs_coredump` in Linux).
pub fn leave_no_core_dump() {
    let maximum = getrlimit(Resource::Core).maximum;
    let current = Some(maximum.map_or(CORE_BYTES_MAX, |maximum| maximum.min(CORE_BYTES_MAX)));
    // A limit that is lower than the highest one can always be set.
    let _ = setrlimit(Resource::Core, Rlimit { current, maximum });
}

pub fn run(arguments: &ExecutorArgs) -> Result<ExitCode, Failure> {
    leave_no_core_dump();
    let config = executor_config(&arguments.folder, arguments.sandbox.into());
    let orphan_max = arguments.with_server.then_some(ORPHAN_MAX);
    let config = ExecutorConfig { slots: arguments.slots, orphan_max, ..config };
    towpath_executor::serve(config, &arguments.socket)?;
    Ok(ExitCode::SUCCESS)
}
