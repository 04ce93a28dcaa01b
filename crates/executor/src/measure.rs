//! Measurements of the executor and of the floors that it is judged by (goals P3 and P7). For `xtask bench`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use towpath_blob::{LogOptions, LogStore};
use towpath_core::graph::{JobBody, Outcome};
use towpath_core::ids::LeaseId;

use crate::host::{Host, find_program};
use crate::launcher::Exit;
use crate::profile::{HostLayout, SandboxProfile};
use crate::pump::{Control, Pump, READ_BYTES, Tree, TreeEnd, output_pipe};
use crate::spec::{Limits, StartSpec};
use crate::{ExecutorConfig, ExecutorError, JobEvent, JobPool, SandboxKind, TreeMode, environment, seccomp};

/// Runs `count` jobs `true` without a work tree through a pool; the time from the first submit to the last end.
///
/// # Errors
/// As [`JobPool::start`]; an error too if a job does not pass.
pub fn pool_jobs(config: ExecutorConfig, count: u32) -> Result<Duration, ExecutorError> {
    let (tell, ends) = channel();
    let pool = JobPool::start(config, move |event| {
        if let JobEvent::Ended(end) = event {
            // The listener waits below.
            let _ = tell.send(end.result.outcome);
        }
    })?;
    warm_up(&pool, &ends)?;
    let began = Instant::now();
    for number in 0..count {
        pool.submit(job(number)?);
    }
    expect_passes(&ends, count)?;
    Ok(began.elapsed())
}

fn warm_up(pool: &JobPool, ends: &std::sync::mpsc::Receiver<Outcome>) -> io::Result<()> {
    const JOBS: u32 = 16;
    for number in 0..JOBS {
        pool.submit(job(u32::MAX - number)?);
    }
    expect_passes(ends, JOBS)
}

fn expect_passes(ends: &std::sync::mpsc::Receiver<Outcome>, count: u32) -> io::Result<()> {
    let passed = ends.iter().take(count as usize).filter(|outcome| *outcome == Outcome::Passed).count();
    match passed == count as usize {
        true => Ok(()),
        false => Err(io::Error::other(format!("only {passed} of {count} jobs passed"))),
    }
}

fn job(number: u32) -> io::Result<StartSpec> {
    let mut lease = [0; 16];
    lease[..4].copy_from_slice(&number.to_be_bytes());
    let body = JobBody { checkout: false, ..JobBody::script("true") };
    Ok(StartSpec::new(LeaseId(lease), "true".parse().map_err(io::Error::other)?, body))
}

/// The floor of unsandboxed jobs: `count` times `posix_spawn` of `/bin/true`, `at_once` at a time.
///
/// # Errors
/// If a process cannot be started.
pub fn spawn_floor(count: u32, at_once: u32) -> io::Result<Duration> {
    at_once_times(count, at_once, || {
        Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    })
}

/// The floor of sandboxed jobs: bare bubblewrap with the very options and filter that a job gets, as the user that
/// a job has. Toolchains that only root may see are left out; give the pool a `path` without any.
///
/// # Errors
/// If the folders cannot be made or bubblewrap fails.
pub fn bwrap_floor(config: ExecutorConfig, count: u32, at_once: u32) -> io::Result<Duration> {
    let host = Host::new(config, TreeMode::Overlay)?;
    let etc = host.config.spool.join("etc");
    crate::etc::make(&etc, host.certificates.as_ref())?;
    let layout = HostLayout::of_host(etc.clone(), Vec::new());
    let spec = job(0)?;
    let folders = environment::JobFolders {
        home: crate::profile::HOME.to_owned(),
        start: crate::profile::HOME.to_owned(),
        inputs: String::new(),
        secrets: String::new(),
    };
    let variables = environment::environment(&spec, &host.variables, &folders);
    let limits = Limits::default();
    let profile = SandboxProfile {
        host: &layout,
        tree: None,
        inputs: None,
        secrets: None,
        script: None,
        tmpfs_bytes: limits.tmpfs_bytes.min(limits.memory_bytes),
        environment: &variables,
    };
    let (options, filter) = (profile.options(), seccomp::program(false).map_err(io::Error::other)?);
    let bwrap = find_program("bwrap").ok_or_else(|| io::Error::other("bwrap is not installed"))?;
    let filter_path = host.config.spool.join("filter");
    fs::write(&filter_path, filter)?;
    let taken = at_once_times(count, at_once, || {
        let filter = OwnedFd::from(fs::File::open(&filter_path)?);
        rustix::io::fcntl_setfd(&filter, rustix::io::FdFlags::empty())?;
        let mut command = Command::new(&bwrap);
        command.args(&options).args(["--seccomp", &filter.as_raw_fd().to_string(), "--", "true"]);
        if let Some(user) = host.job_user(0) {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).env_clear().status()
    });
    fs::remove_dir_all(&etc)?;
    taken
}

fn at_once_times(
    count: u32,
    at_once: u32,
    run: impl Fn() -> io::Result<std::process::ExitStatus> + Sync,
) -> io::Result<Duration> {
    let next = AtomicU32::new(0);
    let began = Instant::now();
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let status = run()?;
            if !status.success() {
                return Err(io::Error::other(format!("a process of the floor failed: {status}")));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
    })?;
    Ok(began.elapsed())
}

/// Makes an overlay work tree on a base of `files` files, runs `true` in it, and takes it down; the median time of
/// `times` runs, less that of the same jobs without a tree.
///
/// # Errors
/// As [`pool_jobs`].
pub fn overlay_tree(config: ExecutorConfig, files: u32, times: u32) -> Result<Duration, ExecutorError> {
    let base = config.spool.join("measured-base");
    for number in 0..files {
        let folder = base.join(format!("d{}", number / 50));
        if number % 50 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("f{number}")), "some bytes\n")?;
    }
    let (tell, ends) = channel();
    let pool = JobPool::start(ExecutorConfig { slots: 1, ..config }, move |event| {
        if let JobEvent::Ended(end) = event {
            // The listener waits below.
            let _ = tell.send(end.result.outcome);
        }
    })?;
    let median = |with_tree: bool| -> Result<Duration, ExecutorError> {
        let mut taken = Vec::new();
        for number in 0..times {
            let mut spec = job(number)?;
            spec.body.checkout = with_tree;
            spec.base = Some(base.clone());
            let began = Instant::now();
            pool.submit(spec);
            expect_passes(&ends, 1)?;
            taken.push(began.elapsed());
        }
        taken.sort_unstable();
        Ok(taken[taken.len() / 2])
    };
    median(true)?; // Warms the caches.
    Ok(median(true)?.saturating_sub(median(false)?))
}

/// The floor of log streams: `cat | cat` of `bytes` zeros-and-lines into a file.
///
/// # Errors
/// If the files cannot be written.
pub fn cat_floor(folder: &Path, bytes: u64) -> io::Result<Duration> {
    let source = lines_file(folder)?;
    let target = folder.join("cat-output");
    let script = format!("{} | cat > '{}'", cat_times(&source, bytes), target.display());
    let began = Instant::now();
    let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
    let taken = began.elapsed();
    fs::remove_file(&target)?;
    match status.success() {
        true => Ok(taken),
        false => Err(io::Error::other("cat failed")),
    }
}

/// The same bytes through a job's log: pipe, hash, line index, file.
///
/// # Errors
/// If the log cannot be written.
pub fn log_stream(folder: &Path, bytes: u64) -> io::Result<Duration> {
    let source = lines_file(folder)?;
    let store = LogStore::open(folder.join("logs")).map_err(io::Error::other)?;
    let lease = LeaseId([1; 16]);
    let options = LogOptions { bytes_max: Some(u64::MAX), ..LogOptions::default() };
    let mut log = store.writer(&lease, options);
    let (output, write) = output_pipe()?;
    let began = Instant::now();
    let child = Command::new("/bin/sh").args(["-c", &cat_times(&source, bytes)]).stdout(write).spawn()?;
    let mut tree = Child {
        end: rustix::process::pidfd_open(
            rustix::process::Pid::from_child(&child),
            rustix::process::PidfdFlags::empty(),
        )?,
        child,
    };
    let cgroups = crate::cgroup::Cgroups::absent();
    let group = cgroups.slot("none")?;
    let mut watch = crate::watch::Watch::new(Limits::default(), &group);
    let control = Control::default();
    let mut buffer = vec![0; READ_BYTES];
    let deadline = began + Duration::from_secs(600);
    let life =
        Pump { output, log: &mut log, buffer: &mut buffer, control: &control, deadline, talkative: false }
            .follow(&mut tree, &mut watch);
    let end = log.finish().map_err(io::Error::other)?;
    let taken = began.elapsed();
    life.end?;
    store.remove(&lease).map_err(io::Error::other)?;
    match end.bytes >= bytes {
        true => Ok(taken),
        false => Err(io::Error::other(format!("only {} of {bytes} bytes arrived", end.bytes))),
    }
}

struct Child {
    end: OwnedFd,
    child: std::process::Child,
}

impl Tree for Child {
    fn end_event(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.end.as_fd()
    }

    fn kill(&self) {
        // Only after ten minutes; then the measurement fails anyway.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::KILL,
        );
    }

    fn end(&mut self) -> io::Result<TreeEnd> {
        let status = self.child.wait()?;
        Ok(TreeEnd { exit: Exit::Code(status.code().unwrap_or(1)), ran: true, tree: None })
    }
}

/// Bytes of the file that is printed again and again; stays in the page cache.
const SOURCE_BYTES: u64 = 64 * 1024 * 1024;

fn cat_times(source: &Path, bytes: u64) -> String {
    let times = bytes.div_ceil(SOURCE_BYTES);
    let one = format!("'{}' ", source.display());
    format!("cat {}", one.repeat(usize::try_from(times).unwrap_or(1)))
}

/// 64 MiB of lines of 85 bytes. Source: reference/performance 7.
fn lines_file(folder: &Path) -> io::Result<std::path::PathBuf> {
    let path = folder.join("lines");
    if path.metadata().is_ok_and(|meta| meta.len() >= SOURCE_BYTES) {
        io::copy(&mut fs::File::open(&path)?.take(u64::MAX), &mut io::sink())?;
        return Ok(path);
    }
    let mut file = io::BufWriter::new(fs::File::create(&path)?);
    let line = format!("{}\n", "a line of a log ".repeat(6).get(..84).unwrap_or_default());
    for _ in 0..SOURCE_BYTES.div_ceil(line.len() as u64) {
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(path)
}

/// A pool's configuration for measurements: in `data`, with `at_once` slots.
pub fn config(
    data: &Path,
    helper: Vec<std::ffi::OsString>,
    at_once: u32,
    sandbox: SandboxKind,
) -> ExecutorConfig {
    ExecutorConfig {
        slots: at_once,
        sandbox,
        path: "/usr/bin:/bin".into(),
        ..ExecutorConfig::in_folder(data, helper)
    }
}
