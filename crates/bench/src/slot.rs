//! One slot of the executor in this process, without a server: for what a single job costs.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use towpath_blob::LogStore;
use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::LeaseId;
use towpath_executor::{ExecutorConfig, JobEvent, JobPool, Limits, SandboxKind, StartSpec};

use crate::Fault;
use crate::sample::seconds;

/// How long one job may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One slot.
pub struct Slot {
    pool: JobPool,
    events: mpsc::Receiver<JobEvent>,
    logs: LogStore,
    next_lease: Cell<u128>,
    _spool: TempDir,
}

impl Slot {
    /// Starts it in a folder of its own below `beside`.
    ///
    /// # Errors
    /// The executor does not start.
    pub fn start(beside: &Path, sandbox: SandboxKind) -> Result<Slot, Fault> {
        let spool = tempfile::tempdir_in(beside)?;
        let helper = vec![std::env::current_exe()?.into(), "sandbox-helper".into()];
        let config = ExecutorConfig { slots: 1, sandbox, ..ExecutorConfig::in_folder(spool.path(), helper) };
        let logs = LogStore::open(&config.logs)?;
        let (tell, events) = mpsc::channel();
        let pool = JobPool::start(config, move |event| {
            // Whoever no longer listens has failed and told why.
            let _ = tell.send(event);
        })?;
        Ok(Slot { pool, events, logs, next_lease: 1.into(), _spool: spool })
    }

    /// Seconds of one job until it is told to be over. The log of the one before is removed before the clock runs, so that
    /// its pages are used again: memory that a virtual machine has never touched costs it several times what copying into it
    /// does.
    ///
    /// # Errors
    /// It did not pass.
    pub fn run(&self, body: JobBody, base: Option<PathBuf>, limits: Limits) -> Result<f64, Fault> {
        let number = self.next_lease.replace(self.next_lease.get() + 1);
        let (before, lease) = (LeaseId((number - 1).to_be_bytes()), LeaseId(number.to_be_bytes()));
        self.logs.remove(&before)?;
        let spec = StartSpec { base, limits, ..StartSpec::new(lease, "measured".parse()?, body) };
        seconds(|| {
            self.pool.submit([spec]);
            loop {
                if let JobEvent::Ended(end) = self.events.recv_timeout(PATIENCE)? {
                    return match end.result.outcome {
                        Outcome::Passed => Ok(()),
                        outcome => Err(format!("a job ended {outcome:?}: {}", end.result.why).into()),
                    };
                }
            }
        })
    }
}
