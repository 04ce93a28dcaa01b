//! The launcher: a small process with one thread, one for each slot, that starts bubblewrap.
//!
//! It is the "root helper" of trust S1. It does what bubblewrap cannot: mounts the work tree (an overlay on an
//! immutable base), binds toolchains out of root's home, joins the slot's cgroup, makes a fresh keyring, drops to the
//! job's user, and starts the job's network. All its mounts live in a mount namespace of its own and vanish with it.
//! It is the subreaper of its job: a job is over only when the last process of its pid namespace is reaped.
//!
//! Architecture invariant: no descriptor goes through a socket. The kernel counts those that are under way for a user, not
//! for a process, and where the executor is an ordinary user a job can use that count up for all of them. The executor
//! opens what the launcher has, where `/proc` shows it: it may look into its own child.
//!
//! Architecture invariant: a launcher runs one job at a time and ends when its socket closes; bubblewrap dies with it
//! (`--die-with-parent`), and the job with bubblewrap.

mod child;
mod handle;
mod mounts;
mod network;
mod process;

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use towpath_core::ids::LeaseId;
use zeroize::Zeroizing;

use crate::etc::Certificates;

pub(crate) use handle::Launcher;
pub(crate) use network::RESOLVER;
pub use process::sandbox_helper;

/// First message to a launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Host user and group of the slot's jobs; `None` where the executor is an ordinary user.
    pub(crate) job_user: Option<u32>,
    /// An existing folder that the launcher covers with a tmpfs of its own, for mount points.
    pub(crate) stage: PathBuf,
    /// What is bound read-only below the stage for all jobs.
    pub(crate) binds: Vec<StageBind>,
    /// The host's certificates, for the jobs' `/etc`.
    pub(crate) certificates: Option<Certificates>,
    /// `cgroup.procs` files of the slot.
    pub(crate) cgroup_procs: Vec<PathBuf>,
    /// The bubblewrap program.
    pub(crate) bwrap: PathBuf,
    /// The slirp4netns program, where jobs may have a network.
    pub(crate) slirp: Option<PathBuf>,
}

/// A host folder or file under a name below the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageBind {
    pub(crate) source: PathBuf,
    pub(crate) name: String,
}

/// What the executor tells a launcher after [`Setup`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a job. It writes to the pipe that is the launcher's standard output.
    Launch(Box<Launch>),
    /// The work tree of the job that ended is open at the executor: let it go.
    TreeTaken,
    /// Kill the job that runs. Nothing if it is over.
    Kill,
}

/// One job, ready to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Names the job in its end.
    pub(crate) lease: LeaseId,
    /// Options of bubblewrap; they go through a file, as they hold secrets.
    pub(crate) options: Vec<String>,
    /// The job's command line.
    pub(crate) command: Vec<String>,
    /// The work tree.
    pub(crate) tree: Option<TreeSource>,
    /// A folder that the job sees read-only.
    pub(crate) inputs: Option<PathBuf>,
    /// Files on the stage's tmpfs: script and secrets.
    pub(crate) files: Vec<StageFile>,
    /// Whether the job gets a network.
    pub(crate) network: bool,
    /// Whether the job may make user namespaces.
    pub(crate) user_namespaces: bool,
    /// Largest file, in bytes.
    pub(crate) file_bytes_max: u64,
    /// Processes, where no cgroup counts them.
    pub(crate) processes_max: Option<u64>,
}

/// Where a work tree comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TreeSource {
    /// An overlay: `base` below, `upper` and `work` in `folder` above.
    Overlay { base: PathBuf, folder: PathBuf },
    /// A folder that is the job's own already.
    Plain { folder: PathBuf },
}

/// A file for one job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageFile {
    /// Relative to the stage's `files` folder, without `..`.
    pub(crate) name: String,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for StageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StageFile({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// What a launcher answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// [`Setup`] is done.
    Ready,
    /// The job is over and no process of it is left. The standard output is another pipe, for the next job.
    Ended {
        lease: LeaseId,
        exit: Exit,
        /// Whether the command was reached; if not, the sandbox failed.
        ran: bool,
        /// The launcher's descriptor of the work tree, which stays open until [`Order::TreeTaken`].
        tree: Option<RawFd>,
    },
    /// Could not do what was asked; nothing runs.
    Refused { what: String },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Names below the stage.
pub(crate) mod stage {
    /// The jobs' `/etc`.
    pub(crate) const ETC: &str = "etc";
    /// The work tree.
    pub(crate) const TREE: &str = "tree";
    /// The overlay's lower side.
    pub(crate) const LOWER: &str = "lower";
    /// The job's folder with the overlay's upper side.
    pub(crate) const FOLDER: &str = "folder";
    /// The jobs' terminals; not there where the kernel mounts none.
    pub(crate) const TERMINALS: &str = "pts";
    /// Inputs.
    pub(crate) const INPUTS: &str = "inputs";
    /// Script and secrets.
    pub(crate) const FILES: &str = "files";
}
