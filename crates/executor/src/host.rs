//! What an executor knows of its machine: found once at the start, shared by all slots.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use towpath_blob::{Amount, BlobStore, LogStore, NoRoom, Reserve, RunLogs};
use towpath_core::ids::RunId;

use crate::cgroup::{Cgroups, LimitMode};
use crate::environment::HostVariables;
use crate::etc::Certificates;
use crate::launcher::{Setup, StageBind, stage};
use crate::pool::JOBS;
use crate::profile::HostLayout;
use crate::run_logs::RunsLogs;
use crate::sharing::Sharing;
use crate::spec::SandboxKind;
use crate::toolchains::Toolchains;
use crate::tree::spread_folders;

/// First of the host users that jobs run as when the executor is root: one for each slot, from a block of
/// [`JOB_USERS_PER_EXECUTOR`] that the spool's path chooses. In the range that systemd leaves to nobody (1879048192 to
/// 2147483647). Source: systemd's UIDS-GIDS.
pub const JOB_USER_FIRST: u32 = 1_900_000_000;
/// Users of one executor. Kernel limits that count by user (processes, keys, pipes) are then those of one job.
pub const JOB_USERS_PER_EXECUTOR: u32 = 256;
/// Blocks of users; the last ends at 2034217727.
const JOB_USER_BLOCKS: u32 = 524_288;
/// How long an executor stays with nothing to do and no server. A restart or an update of the server is over in a minute
/// or two, and its first job starts at once if the executor is still there; after that a new executor costs a second for
/// its probes, and nothing is lost: ends that no server has taken are in the journal.
pub const ALONE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long an executor that is its server's waits for the next one. A demo that kills its server has another one serve in a
/// second or two; a terminal that closes takes the server along, and its executor should not outlive it for long.
pub const ORPHAN_MAX: Duration = Duration::from_secs(15);
/// How long a killed tree may take to be gone. Freeing 100 GB or a stuck disk takes seconds.
const KILL_MAX: Duration = Duration::from_secs(60);
/// Folders that a launcher may cover in its own mount namespace; every system has one (FHS 3.0).
const STAGES: &[&str] = &["/mnt", "/media", "/srv", "/opt"];

/// How an executor is set up.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The executor's own folder: its socket's lock, job folders, the journal of ends.
    pub spool: PathBuf,
    /// Logs of jobs; the server reads them here.
    pub logs: PathBuf,
    /// Blobs of outputs.
    pub blobs: PathBuf,
    /// Jobs at once.
    pub slots: u32,
    /// Whether jobs run behind the border.
    pub sandbox: SandboxKind,
    /// Whether cgroups may be used where they are there. Without, limits are held by rlimits and polling.
    pub cgroups: bool,
    /// The command that calls [`crate::sandbox_helper`]: this program and its hidden subcommand.
    pub helper: Vec<OsString>,
    /// What jobs find on `PATH` is looked for here; from the executor's own environment.
    pub path: OsString,
    /// How long the process stays with nothing to do and no server.
    pub alone_max: Duration,
    /// How long it stays without a server, whatever it has to do: its jobs end with it. `None`: as long as they take.
    pub orphan_max: Option<Duration>,
    /// How long the processes of a job may take to be gone once they are killed.
    pub kill_max: Duration,
}

impl ExecutorConfig {
    /// Everything below one data folder, as many slots as processors, in bubblewrap.
    pub fn in_folder(data: &Path, helper: Vec<OsString>) -> ExecutorConfig {
        let slots = std::thread::available_parallelism().map_or(2, usize::from);
        ExecutorConfig {
            spool: data.join("executor"),
            logs: data.join("logs"),
            blobs: data.join("blobs"),
            slots: u32::try_from(slots).unwrap_or(2),
            sandbox: SandboxKind::Bubblewrap,
            cgroups: true,
            helper,
            path: std::env::var_os("PATH").unwrap_or_default(),
            alone_max: ALONE_MAX,
            orphan_max: None,
            kill_max: KILL_MAX,
        }
    }
}

/// How a work tree is made from its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeMode {
    /// An overlay on the base: a few milliseconds, whatever its size.
    Overlay,
    /// A copy.
    Copy,
}

/// The machine as an executor uses it.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) config: ExecutorConfig,
    /// What jobs leave there leaves the disks' reserves to the server.
    pub(crate) blobs: BlobStore,
    pub(crate) logs: LogStore,
    /// Of the disks of jobs' folders, logs and blobs, in this order.
    pub(crate) reserves: [Reserve; 3],
    /// Logs are on the disk of jobs' folders.
    pub(crate) logs_beside_jobs: bool,
    pub(crate) sharing: Sharing,
    runs_logs: RunsLogs,
    /// Looked for once: every job of one executor finds the same.
    pub(crate) toolchains: Toolchains,
    pub(crate) variables: HostVariables,
    pub(crate) layout: HostLayout,
    pub(crate) stage: PathBuf,
    pub(crate) tree_mode: TreeMode,
    cgroups: Cgroups,
    job_user_block: u32,
    group_name: String,
    binds: Vec<StageBind>,
    pub(crate) certificates: Option<Certificates>,
    bwrap: PathBuf,
    slirp: Option<PathBuf>,
    programs: Programs,
}

/// Programs that were found on the jobs' path. Looking through a dozen folders for each job costs a tenth of starting it.
#[derive(Debug, Clone, Default)]
struct Programs {
    found: Arc<Mutex<HashMap<String, PathBuf>>>,
}

/// Programs that are remembered. Jobs that need no shell are few kinds.
const PROGRAMS_MAX: usize = 256;

impl Programs {
    /// The first of this name on the path. A new one further ahead counts after the remembered one is gone, or the
    /// executor has been started again.
    fn find(&self, name: &str, path: &OsStr) -> Option<PathBuf> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = found.get(name).filter(|program| program.is_file()) {
            return Some(program.clone());
        }
        let program =
            std::env::split_paths(path).map(|folder| folder.join(name)).find(|path| path.is_file())?;
        if found.len() >= PROGRAMS_MAX {
            found.clear();
        }
        found.insert(name.to_owned(), program.clone());
        Some(program)
    }
}

impl Host {
    /// Makes the folders and looks around. `tree_mode` is what the probes found.
    pub(crate) fn new(config: ExecutorConfig, tree_mode: TreeMode) -> io::Result<Host> {
        let blobs = BlobStore::open(&config.blobs).map_err(io::Error::other)?;
        let logs = LogStore::open(&config.logs).map_err(io::Error::other)?;
        let jobs = config.spool.join(JOBS);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&jobs)?;
        spread_folders(&jobs);
        let reserves = [&jobs, &config.logs, &config.blobs].map(|folder| Reserve::of(folder));
        let certificates = Certificates::find(std::env::var_os("SSL_CERT_FILE").map(PathBuf::from));
        let toolchains = Toolchains::discover(&config.path, |key| std::env::var(key).ok());
        let stage = find_stage(&config)?;
        let bind =
            |(at, source): (usize, &PathBuf)| StageBind { source: source.clone(), name: format!("t{at}") };
        let binds: Vec<StageBind> = toolchains.folders.iter().enumerate().map(bind).collect();
        let bound = binds.iter().map(|bind| (stage.join(&bind.name), bind.source.clone())).collect();
        let group_name = group_name(&config.spool);
        // Plain jobs are looked after by polling: they are started by the executor, which lives in no slot's group.
        let cgroups = match config.cgroups && config.sandbox == SandboxKind::Bubblewrap {
            true => Cgroups::detect(&group_name),
            false => Cgroups::absent(),
        };
        cgroups.sweep(&group_name);
        Ok(Host {
            logs: logs.with_reserve(reserves[1].clone()),
            blobs: blobs.with_reserve(reserves[2].clone()),
            reserves,
            logs_beside_jobs: fs::metadata(&jobs)?.dev() == fs::metadata(&config.logs)?.dev(),
            sharing: Sharing::default(),
            runs_logs: RunsLogs::default(),
            variables: HostVariables {
                path: toolchains.path.clone(),
                toolchains: toolchains.variables.clone(),
                certificates: certificates.as_ref().map(|certificates| certificates.inside.clone()),
            },
            layout: HostLayout::of_host(stage.join(stage::ETC), stage.join(stage::TERMINALS), bound),
            stage,
            tree_mode,
            cgroups,
            job_user_block: job_user_block(&config.spool),
            group_name: format!("{group_name}-{}", std::process::id()),
            binds,
            certificates,
            bwrap: find_program("bwrap").unwrap_or_else(|| "/usr/bin/bwrap".into()),
            slirp: find_program("slirp4netns"),
            programs: Programs::default(),
            toolchains,
            config,
        })
    }

    /// The same for what the executor does for itself, which may take of the reserves.
    pub(crate) fn unreserved(&self) -> Host {
        let reserves = [&self.jobs(), &self.config.logs, &self.config.blobs];
        let reserves = reserves.map(|folder| Reserve::of_bytes(folder, 0));
        Host {
            logs: self.logs.clone().with_reserve(reserves[1].clone()),
            blobs: self.blobs.clone().with_reserve(reserves[2].clone()),
            reserves,
            ..self.clone()
        }
    }

    /// Folder of the jobs' folders.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.config.spool.join(JOBS)
    }

    /// What the disk of jobs' folders has for a job.
    ///
    /// # Errors
    /// [`NoRoom`] if a job cannot begin, as one of the disks has none.
    pub(crate) fn room(&self) -> Result<Amount, NoRoom> {
        let [jobs, logs, blobs] = &self.reserves;
        logs.room().and_then(|_| blobs.room()).and_then(|_| jobs.room())
    }

    /// All logs of a run, and what they may have as one of its jobs begins.
    pub(crate) fn run_logs(&self, run: &RunId) -> RunLogs {
        let [_, logs, _] = &self.reserves;
        self.runs_logs.of(run, logs.room().map_or(0, |room| room.bytes))
    }

    /// How process trees are bounded.
    pub(crate) fn limit_mode(&self) -> LimitMode {
        self.cgroups.mode()
    }

    /// The host user of a slot's jobs; `None` if that is the executor's own: never root in a sandbox (trust S1).
    pub(crate) fn job_user(&self, slot: u32) -> Option<u32> {
        let drops = rustix::process::geteuid().is_root() && self.config.sandbox == SandboxKind::Bubblewrap;
        let block = self.job_user_block * JOB_USERS_PER_EXECUTOR;
        drops.then(|| JOB_USER_FIRST + block + slot % JOB_USERS_PER_EXECUTOR)
    }

    /// A slot's cgroup.
    pub(crate) fn group(&self, slot: u32) -> io::Result<crate::cgroup::SlotGroup> {
        self.cgroups.slot(&format!("{}-{slot}", self.group_name))
    }

    /// Removes the slots' cgroups, at the end of the executor.
    pub(crate) fn remove_groups(&self) {
        (0..self.config.slots).for_each(|slot| self.cgroups.remove(&format!("{}-{slot}", self.group_name)));
    }

    /// What a slot's launcher is told first.
    pub(crate) fn setup(&self, slot: u32, cgroup_procs: Vec<PathBuf>) -> Setup {
        Setup {
            job_user: self.job_user(slot),
            stage: self.stage.clone(),
            binds: self.binds.clone(),
            certificates: self.certificates.clone(),
            cgroup_procs,
            bwrap: self.bwrap.clone(),
            slirp: self.slirp.clone(),
        }
    }

    /// Where a program is that is surely there for a job: on the job's path, or in a system folder.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        if !name.contains('/') {
            return self.programs.find(name, self.variables.path.as_ref());
        }
        let is_system = name.starts_with("/usr/") && !name.contains("/../");
        Some(PathBuf::from(name)).filter(|path| is_system && path.is_file())
    }
}

/// The first folder that a launcher can cover without hiding what it needs.
fn find_stage(config: &ExecutorConfig) -> io::Result<PathBuf> {
    let needed = [&config.spool, &config.blobs, &config.logs];
    let hides = |stage: &Path| needed.iter().any(|path| path.starts_with(stage));
    let found = STAGES.iter().map(PathBuf::from).find(|stage| stage.is_dir() && !hides(stage));
    found.ok_or_else(|| {
        io::Error::other("none of /mnt, /media, /srv, /opt is there to be covered with mount points")
    })
}

/// The same for every executor of one spool, so that a new one finds what a dead one left.
fn group_name(spool: &Path) -> String {
    let digest = towpath_core::ids::Digest::of(spool.as_os_str().as_encoded_bytes());
    format!("towpath-{}", digest.short())
}

fn job_user_block(spool: &Path) -> u32 {
    let digest = towpath_core::ids::Digest::of(spool.as_os_str().as_encoded_bytes());
    u32::from_be_bytes(digest.prefix()) % JOB_USER_BLOCKS
}

/// A program of the system, looked for where system programs are: never on a `PATH` that somebody else may set.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}
