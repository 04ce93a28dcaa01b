//! A pool in a folder of its own, and jobs in one line.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use towpath_blob::{BlobStore, LogStore};
use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::LeaseId;
use towpath_executor::{
    ExecutorConfig, ExecutorError, JobEnd, JobEvent, JobPool, Limits, SandboxKind, StartSpec,
};

/// No job of a test takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what tells nobody that it has happened.
const LOOK: Duration = Duration::from_millis(10);

pub struct World {
    pub pool: JobPool,
    pub folder: tempfile::TempDir,
    pub blobs: BlobStore,
    pub logs: LogStore,
    waiting: Arc<Mutex<HashMap<LeaseId, Sender<JobEvent>>>>,
}

/// A submitted job.
pub struct Running {
    pub lease: LeaseId,
    events: Receiver<JobEvent>,
}

/// A finished one.
pub struct Done {
    pub end: JobEnd,
    pub log: String,
}

impl Done {
    pub fn outcome(&self) -> Outcome {
        self.end.result.outcome
    }

    #[track_caller]
    pub fn passed(self) -> Done {
        assert_eq!(self.outcome(), Outcome::Passed, "{}\n{}", self.end.result.why, self.log);
        self
    }

    #[track_caller]
    pub fn failed(self, why: &str) -> Done {
        assert_eq!(self.outcome(), Outcome::Failed, "{}\n{}", self.end.result.why, self.log);
        assert!(self.end.result.why.contains(why), "{}\n{}", self.end.result.why, self.log);
        self
    }
}

/// The command that enters the sandbox helper.
pub fn helper() -> Vec<std::ffi::OsString> {
    vec![env!("CARGO_BIN_EXE_towpath-executor-process").into(), "sandbox-helper".into()]
}

pub fn config(data: &Path, sandbox: SandboxKind) -> ExecutorConfig {
    ExecutorConfig { slots: 2, sandbox, ..ExecutorConfig::in_folder(data, helper()) }
}

/// Says which test does not run and why; in CI that is a failure, so that no test is lost without a word.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run here: {why}");
    println!("SKIP {test}: {why}");
}

/// Whether we are root. If not, says which test does not run; in CI that is a failure, except in a job of Towpath's
/// own: jobs are never root.
pub fn needs_root(test: &str) -> bool {
    let in_job = std::env::var("TOWPATH").as_deref() == Ok("true");
    match (is_root(), in_job) {
        (true, _) => true,
        (false, true) => {
            println!("SKIP {test}: it needs root");
            false
        }
        (false, false) => {
            skip(test, "it needs root");
            false
        }
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl World {
    pub fn of(sandbox: SandboxKind) -> Result<World, ExecutorError> {
        World::with(sandbox, true)
    }

    fn with(sandbox: SandboxKind, cgroups: bool) -> Result<World, ExecutorError> {
        let folder = tempfile::tempdir().unwrap();
        let config = ExecutorConfig { cgroups, ..config(folder.path(), sandbox) };
        World::start(folder, config)
    }

    /// With an executor that is set up so, in this folder.
    pub fn start(folder: tempfile::TempDir, config: ExecutorConfig) -> Result<World, ExecutorError> {
        let waiting: Arc<Mutex<HashMap<LeaseId, Sender<JobEvent>>>> = Arc::default();
        let tell = Arc::clone(&waiting);
        let pool = JobPool::start(config, move |event| {
            let lease = match &event {
                JobEvent::Started(lease) => *lease,
                JobEvent::Ended(end) => end.lease,
            };
            if let Some(listener) = tell.lock().unwrap().get(&lease) {
                let _ = listener.send(event);
            }
        })?;
        let blobs = BlobStore::open(folder.path().join("blobs")).unwrap();
        let logs = LogStore::open(folder.path().join("logs")).unwrap();
        Ok(World { pool, folder, blobs, logs, waiting })
    }

    /// A world with the sandbox; `None`, with a word, where there can be none.
    pub fn sandboxed(test: &str) -> Option<World> {
        World::sandboxed_with(test, true)
    }

    pub fn sandboxed_with(test: &str, cgroups: bool) -> Option<World> {
        World::unless_refused(test, World::with(SandboxKind::Bubblewrap, cgroups))
    }

    pub fn unless_refused(test: &str, world: Result<World, ExecutorError>) -> Option<World> {
        world.map_err(|refusal| skip(test, &refusal.to_string())).ok()
    }

    pub fn plain() -> World {
        World::of(SandboxKind::None).unwrap()
    }

    pub fn spec(&self, run: &str) -> StartSpec {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut lease = [0; 16];
        lease[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        let body = JobBody { checkout: false, timeout_seconds: 60, ..JobBody::script(run) };
        StartSpec::new(LeaseId(lease), "unit".parse().unwrap(), body)
    }

    pub fn submit(&self, spec: StartSpec) -> Running {
        let (send, events) = channel();
        let lease = spec.lease;
        self.waiting.lock().unwrap().insert(lease, send);
        self.pool.submit([spec]);
        Running { lease, events }
    }

    pub fn wait(&self, job: &Running) -> Done {
        loop {
            match job.events.recv_timeout(PATIENCE).expect("the job ends in time") {
                JobEvent::Started(_) => {}
                JobEvent::Ended(end) => {
                    let log = self.logs.reader(&job.lease).bytes(0, 1 << 20).unwrap();
                    return Done { end: *end, log: String::from_utf8_lossy(&log).into_owned() };
                }
            }
        }
    }

    /// Waits until the job's log holds a text.
    pub fn wait_for_log(&self, job: &Running, text: &str) {
        let reader = self.logs.reader(&job.lease);
        wait_until(&format!("the log says `{text}`"), || {
            String::from_utf8_lossy(&reader.bytes(0, 1 << 20).unwrap()).contains(text)
        });
    }

    pub fn run_spec(&self, spec: StartSpec) -> Done {
        let job = self.submit(spec);
        self.wait(&job)
    }

    pub fn run(&self, script: &str) -> Done {
        self.run_spec(self.spec(script))
    }

    /// Runs a Python program: most attacks need a system call that no shell has.
    pub fn python(&self, program: &str) -> Done {
        self.run_spec(self.python_spec(program))
    }

    pub fn python_spec(&self, program: &str) -> StartSpec {
        self.spec(&format!("/usr/bin/python3 - <<'PROGRAM'\n{program}\nPROGRAM\n"))
    }

    /// A base with these files.
    pub fn base(&self, files: &[(&str, &str)]) -> std::path::PathBuf {
        let base = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in files {
            let path = base.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        base
    }

    pub fn with_tree(&self, files: &[(&str, &str)], run: &str) -> StartSpec {
        let mut spec = self.spec(run);
        spec.body.checkout = true;
        spec.base = Some(self.base(files));
        spec
    }
}

/// Small limits, so that a test reaches them soon and the machine does not notice.
pub fn small_limits() -> Limits {
    Limits {
        memory_bytes: 256 << 20,
        processes: 64,
        tmpfs_bytes: 64 << 20,
        disk_bytes: 64 << 20,
        disk_files: 2_000,
        log_bytes: 4 << 20,
        output_bytes: 1 << 20,
        output_files: 20,
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "in vain waited until {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// For `sleep` a time longer than any test, in words that no other process of this machine has in its command line.
pub fn long_time() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let (number, process) = (NEXT.fetch_add(1, Ordering::SeqCst), std::process::id());
    format!("1000.{process}{number:05}{began}")
}

/// Processes of this machine whose command line holds a text, zombies left out.
pub fn processes_with(text: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let command = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        (name.bytes().all(|byte| byte.is_ascii_digit()) && name != own)
            .then(|| {
                String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?)
                    .replace('\0', " ")
                    .into()
            })
            .flatten()
    };
    entries.filter_map(command).filter(|line: &String| line.contains(text)).collect()
}
