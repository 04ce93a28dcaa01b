//! A slot: one thread that runs one job at a time, from its spec to its end.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, fstat};
use rustix::io::Errno;
use rustix::process::geteuid;
use towpath_blob::{Amount, LogOptions, LogWriter, Masker};
use towpath_core::graph::{JobResult, Outcome};
use towpath_core::ids::LeaseId;

use crate::cgroup::SlotGroup;
use crate::command::JobCommand;
use crate::environment::{JobFolders, environment};
use crate::host::Host;
use crate::launcher::{Launch, Launcher, StageFile, TreeSource, stage};
use crate::outputs::{TAKING_TIMEOUT, Taking, heeded};
use crate::plain::PlainJob;
use crate::pool::{HOME, Removal, UNSWEPT, set_aside};
use crate::prepare::{NOTHING, Prepared, Room, await_room};
use crate::profile::{self, SandboxProfile};
use crate::pump::{Control, Life, OutputPipe, Pump, ReadBuffer, Tree, TreeEnd};
use crate::sharing::Share;
use crate::spec::{JobEnd, SandboxKind, StartSpec};
use crate::sys::spawn::{Program, Spawner};
use crate::verdict::{self, Verdict};
use crate::walk::remove_tree;
use crate::watch::{Breach, Disk, Watch};

/// Bytes for the first entries of a folder: three of the longest names.
const ENTRIES_BYTES: usize = 1024;
/// Mode of the home of plain jobs, which are of the executor's own user.
const HOME_MODE: u32 = 0o700;

/// A slot and what it keeps between jobs.
pub(crate) struct Slot {
    number: u32,
    host: Arc<Host>,
    group: SlotGroup,
    launcher: Option<Launcher>,
    buffer: ReadBuffer,
    /// Starts plain jobs.
    spawner: Spawner,
    /// The folder that is the home of plain jobs is there, as it was made.
    has_home: bool,
    /// Removes folders while the next job runs.
    janitor: Sender<Removal>,
}

/// One attempt of one job.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    spec: &'a StartSpec,
    control: &'a Control,
    /// Of the job's secrets.
    masker: &'a Masker,
    /// What the disk of jobs' folders had for jobs before this one took any.
    room: Amount,
    /// Until its folder is another's to remove.
    share: &'a Share,
}

impl Slot {
    pub(crate) fn new(number: u32, host: Arc<Host>, janitor: Sender<Removal>) -> io::Result<Slot> {
        let group = host.group(number)?;
        let (buffer, spawner) = (ReadBuffer::new(), Spawner::new()?);
        Ok(Slot { number, host, group, launcher: None, buffer, spawner, has_home: false, janitor })
    }

    /// Forgets what a bug may have left half done.
    pub(crate) fn reset(&mut self) {
        self.launcher = None;
        self.has_home = false;
    }

    /// Runs one attempt of one job, once there is room for it. Whatever happens, there is an end.
    pub(crate) fn run(&mut self, spec: &StartSpec, control: &Control) -> JobEnd {
        let began = Instant::now();
        let room = await_room(&self.host, spec, control);
        self.run_in(room, began, (spec, control))
    }

    /// Runs it whether there is room or not.
    pub(crate) fn run_now(&mut self, spec: &StartSpec, control: &Control) -> JobEnd {
        let room = self.host.room().unwrap_or(NOTHING);
        self.run_in(Ok(Room { room, waited: None }), Instant::now(), (spec, control))
    }

    fn run_in(
        &mut self,
        room: Result<Room, Verdict>,
        began: Instant,
        (spec, control): (&StartSpec, &Control),
    ) -> JobEnd {
        let mut end = JobEnd {
            lease: spec.lease,
            result: JobResult {
                unsandboxed: self.host.config.sandbox == SandboxKind::None,
                ..JobResult::unrun(Outcome::Errored, String::new())
            },
            junit: None,
            log_bytes: 0,
            cpu_ms: None,
        };
        let able = room.and_then(|room| {
            let masker = spec.masker().map_err(|error| Verdict::errored(error.to_string()))?;
            Ok((room, masker))
        });
        let verdict = match able {
            // Without a log: on a disk that is nearly full ten thousand of them would be too many.
            Err(unable) => unable,
            Ok((room, masker)) => {
                let options = LogOptions {
                    bytes_max: Some(spec.limits.log_bytes),
                    of_run: spec.run.as_ref().map(|run| self.host.run_logs(run)),
                    masker: masker.for_another(),
                };
                let mut log = self.host.logs.writer(&spec.lease, options);
                if let Some(waited) = room.waited {
                    let line =
                        format!("[towpath] waited {} s for room on this machine's disk\n", waited.as_secs());
                    // Where that is not to be had, neither is the rest, which says so.
                    let _ = log.write(line.as_bytes());
                }
                let share = self.host.sharing.share(self.number, spec.body.environment.is_some());
                let attempt = Attempt { spec, control, masker: &masker, room: room.room, share: &share };
                let (verdict, cpu_ms) = self.attempt(attempt, &mut log);
                end.cpu_ms = cpu_ms;
                self.close_log(spec, verdict, log, &mut end)
            }
        };
        verdict.fill(&mut end);
        end.result.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        end
    }

    fn close_log(&self, spec: &StartSpec, verdict: Verdict, mut log: LogWriter, end: &mut JobEnd) -> Verdict {
        let reader = self.host.logs.reader(&spec.lease);
        let mut verdict = verdict;
        if let Some(hint) = verdict::hint(&verdict, spec, &reader) {
            verdict.why = format!("{}; {hint}", verdict.why);
        }
        if let Some(line) = verdict.log_line()
            && let Err(error) = log.write(line.as_bytes())
        {
            return Verdict::errored(error.to_string());
        }
        match log.finish() {
            Ok(written) => {
                end.log_bytes = written.bytes;
                end.result.log = Some(written.digest);
                verdict
            }
            Err(error) => Verdict::errored(error.to_string()),
        }
    }

    fn attempt(&mut self, attempt: Attempt<'_>, log: &mut LogWriter) -> (Verdict, Option<u64>) {
        let Attempt { spec, control, .. } = attempt;
        if control.is_cancelled() {
            return (Verdict::cancelled(), None);
        }
        if let Some(problem) = spec.problem() {
            return (Verdict::unfit(problem), None);
        }
        let mut prepared = Prepared::default();
        let job_user = self.host.job_user(self.number);
        let (verdict, cpu_ms) = match prepared.fill(spec, control, (&self.host, job_user)) {
            Err(unready) => (unready, None),
            Ok(()) => match self.host.config.sandbox {
                SandboxKind::Bubblewrap => self.in_sandbox(attempt, &prepared, log),
                SandboxKind::None => self.without_sandbox(attempt, &prepared, log),
            },
        };
        if let Some(folder) = prepared.folder {
            // The janitor lives as long as the executor; without it the next start sweeps.
            let _ = self.janitor.send((folder, self.host.sharing.leaving()));
        }
        (verdict, cpu_ms)
    }

    fn in_sandbox(
        &mut self,
        attempt: Attempt<'_>,
        prepared: &Prepared,
        log: &mut LogWriter,
    ) -> (Verdict, Option<u64>) {
        let Attempt { spec, control, .. } = attempt;
        if let Err(error) = self.ready_launcher(spec) {
            return (Verdict::errored(format!("the sandbox cannot be set up: {error}")), None);
        }
        let launch = self.launch(spec, prepared);
        let Some(launcher) = self.launcher.take() else {
            return (Verdict::errored("the sandbox helper is gone".to_owned()), None);
        };
        let mut watch = Watch::new(spec.limits, &self.group, disk(&self.host, attempt));
        watch.ancestor = Some(launcher.pid());
        if spec.body.user_namespaces {
            watch.mounts_terminals();
        }
        watch.grows.extend(prepared.grows());
        let mut job = SandboxedJob { launcher, lease: spec.lease };
        let life = match job.launcher.launch(launch) {
            Err(error) => Life { stop: None, end: Err(error) },
            Ok(output) => {
                let (buffer, kill_max) = (self.buffer.bytes(), self.host.config.kill_max);
                Pump { output, log, buffer, control, deadline: deadline(spec), kill_max, talkative: false }
                    .follow(&mut job, &mut watch)
            }
        };
        let (breach, cpu_ms, counters) = watch.at_end();
        self.group.settle(counters);
        let in_step = life.end.is_ok();
        let verdict = self.judge(attempt, (life, breach), None);
        // A launcher that failed once is not trusted again, nor is one whose job may still live: its end would be yet to come.
        if in_step && verdict.outcome != Outcome::Errored {
            self.launcher = Some(job.launcher);
        }
        (verdict, cpu_ms)
    }

    fn ready_launcher(&mut self, spec: &StartSpec) -> io::Result<()> {
        self.group.set_limits(spec.limits.memory_bytes, spec.limits.processes)?;
        if self.launcher.is_none() {
            let setup = self.host.setup(self.number, self.group.procs());
            self.launcher = Some(Launcher::start(&self.host.config.helper, &setup)?);
        }
        Ok(())
    }

    fn launch(&self, spec: &StartSpec, prepared: &Prepared) -> Launch {
        let at_stage = |name: &str| self.host.stage.join(name);
        let files = at_stage(stage::FILES);
        let (command, _) = self.command(spec);
        let mut staged: Vec<StageFile> = spec
            .secrets
            .iter()
            .filter(|secret| secret.variable.is_none())
            .map(|secret| StageFile { name: format!("secrets/{}", secret.name), bytes: secret.value.clone() })
            .collect();
        let secrets = (!staged.is_empty()).then(|| files.join("secrets"));
        let mut script = None;
        if let JobCommand::ScriptFile(text) = &command {
            script = Some(files.join("script"));
            staged.push(StageFile { name: "script".to_owned(), bytes: text.clone().into_bytes().into() });
        }
        let folders = JobFolders {
            home: profile::HOME.to_owned(),
            start: profile::TREE.to_owned(),
            inputs: profile::INPUTS.to_owned(),
            secrets: profile::SECRETS.to_owned(),
        };
        let environment = environment(spec, &self.host.variables, &folders);
        let profile = SandboxProfile {
            host: &self.host.layout,
            tree: prepared.tree.as_ref().map(|_| at_stage(stage::TREE)),
            inputs: prepared.inputs.as_ref().map(|_| at_stage(stage::INPUTS)),
            secrets,
            script,
            tmpfs_bytes: spec.limits.tmpfs_bytes.min(spec.limits.memory_bytes),
            environment: &environment,
        };
        Launch {
            lease: spec.lease,
            options: profile.options(),
            command: command.line(profile::SCRIPT),
            tree: prepared.tree.clone(),
            inputs: prepared.inputs.clone(),
            files: staged,
            network: spec.body.network,
            user_namespaces: spec.body.user_namespaces,
            file_bytes_max: spec.limits.disk_bytes,
            // Above the limit that is looked for, so that a look can find it reached.
            processes_max: (!self.group.bounds()).then_some(u64::from(spec.limits.processes) * 5 / 4 + 16),
        }
    }

    /// Without a shell only where the program is surely there, and then where: otherwise the shell says what is wrong.
    fn command(&self, spec: &StartSpec) -> (JobCommand, Option<PathBuf>) {
        let command = JobCommand::of(&spec.body.run);
        let own_path = spec.body.env.contains_key("PATH");
        let JobCommand::Direct(words) = &command else { return (command, None) };
        match self.host.program(&words[0]).filter(|_| !own_path) {
            Some(program) => (command, Some(program)),
            None => (command.through_shell(), None),
        }
    }

    fn without_sandbox(
        &mut self,
        attempt: Attempt<'_>,
        prepared: &Prepared,
        log: &mut LogWriter,
    ) -> (Verdict, Option<u64>) {
        let Attempt { spec, control, .. } = attempt;
        let tree = match &prepared.tree {
            Some(TreeSource::Plain { folder }) => Some(folder.clone()),
            _ => None,
        };
        let home = self.host.config.spool.join(format!("{HOME}{}", self.number));
        let aside = self.host.config.spool.join(format!("{UNSWEPT}{HOME}{}-{}", self.number, spec.lease));
        let home_made = if self.has_home { Ok(()) } else { make_empty(&home, &aside) };
        let started = home_made.and_then(|()| self.start_plain(spec, prepared, &home, tree.as_ref()));
        let mut watch = Watch::new(spec.limits, &self.group, disk(&self.host, attempt));
        watch.grows.extend(prepared.grows().into_iter().chain([home.clone()]));
        let life = match started {
            Err(error) => Life { stop: None, end: Err(error) },
            Ok((mut job, output)) => {
                watch.ancestor = Some(job.pid());
                let (buffer, kill_max) = (self.buffer.bytes(), self.host.config.kill_max);
                Pump { output, log, buffer, control, deadline: deadline(spec), kill_max, talkative: false }
                    .follow(&mut job, &mut watch)
            }
        };
        let verdict = self.judge(attempt, (life, None), tree);
        // Where that cannot be, the next job says why it has none.
        self.has_home = empty(&home, &aside).is_ok_and(|is_there| is_there);
        (verdict, None)
    }

    fn start_plain(
        &mut self,
        spec: &StartSpec,
        prepared: &Prepared,
        home: &PathBuf,
        tree: Option<&PathBuf>,
    ) -> io::Result<(PlainJob, OutputPipe)> {
        let start = tree.unwrap_or(home);
        let text = |path: &PathBuf| path.display().to_string();
        let folders = JobFolders {
            home: text(home),
            start: text(start),
            inputs: prepared.inputs.as_ref().map(text).unwrap_or_default(),
            secrets: prepared
                .secrets
                .as_ref()
                .map(|files| files.folder().display().to_string())
                .unwrap_or_default(),
        };
        let (command, program) = self.command(spec);
        let script = home.join(".towpath-script");
        if let JobCommand::ScriptFile(script_text) = &command {
            fs::write(&script, script_text)?;
        }
        let output = OutputPipe::new()?;
        let environment = environment(spec, &self.host.variables, &folders);
        let line = command.line(&text(&script));
        let name = line.first().ok_or_else(|| io::Error::other("an empty command"))?;
        let program = program.or_else(|| self.host.program(name));
        let program = Program {
            path: program.as_deref().unwrap_or(Path::new(name)),
            line: &line,
            environment: &environment,
            folder: start,
            output: output.write.as_fd(),
        };
        let job = PlainJob::start(&mut self.spawner, &program)?;
        Ok((job, output))
    }

    /// From the end of the process tree to a verdict; takes outputs where there are any.
    fn judge(
        &self,
        Attempt { spec, control, masker, .. }: Attempt<'_>,
        (life, breach): (Life, Option<Breach>),
        plain_tree: Option<PathBuf>,
    ) -> Verdict {
        let Life { stop, end } = life;
        let (mut verdict, tree) = match end {
            Err(error) => (Verdict::of_trouble(stop, &error, &spec.limits), None),
            Ok(TreeEnd { exit, ran, tree }) => (Verdict::of_end(stop, breach, (exit, ran), spec), tree),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let plain = plain_tree.and_then(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
        if let Some(tree) = tree.or(plain) {
            let until = Instant::now() + TAKING_TIMEOUT;
            let control = heeded(spec, control);
            let taking = Taking { tree: tree.as_fd(), store: &self.host.blobs, masker, control, until };
            verdict.take_outputs(spec, &taking);
        }
        verdict
    }
}

fn disk<'a>(host: &'a Host, Attempt { room, share, .. }: Attempt<'a>) -> Disk<'a> {
    let [reserve, ..] = &host.reserves;
    Disk { reserve, has_logs: host.logs_beside_jobs, room, share }
}

pub(crate) fn deadline(spec: &StartSpec) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(spec.body.timeout_seconds))
}

/// Makes a home for plain jobs, also out of what an executor that died has left.
fn make_empty(home: &Path, aside: &Path) -> io::Result<()> {
    match empty(home, aside)? {
        true => Ok(()),
        false => fs::DirBuilder::new().mode(HOME_MODE).create(home),
    }
}

/// Removes what a plain job left in its home, or in its place, and a home that it may have locked; says whether there still
/// is one. What cannot be removed, as it is another user's, is set aside. Costs one look when the job left all as it was.
fn empty(home: &Path, aside: &Path) -> io::Result<bool> {
    match is_as_made(home) {
        Ok(true) => Ok(true),
        Ok(false) | Err(Errno::ACCESS) => match remove_tree(home) {
            Ok(()) => Ok(false),
            Err(why) => set_aside(home, aside, &why).map(|()| false),
        },
        // A job put a file or a link in its place.
        Err(Errno::NOTDIR | Errno::LOOP) => fs::remove_file(home).map(|()| false),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether it is a folder, not a link to one, that has no entries and is ours alone.
fn is_as_made(home: &Path) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let home = rustix::fs::open(home, flags, Mode::empty())?;
    let stat = fstat(&home)?;
    if Mode::from_raw_mode(stat.st_mode).as_raw_mode() != HOME_MODE || stat.st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    let mut entries = [MaybeUninit::uninit(); ENTRIES_BYTES];
    let mut entries = RawDir::new(home, &mut entries);
    while let Some(entry) = entries.next() {
        if ![c".", c".."].contains(&entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

struct SandboxedJob {
    launcher: Launcher,
    lease: LeaseId,
}

impl Tree for SandboxedJob {
    fn end_event(&self) -> BorrowedFd<'_> {
        self.launcher.end_event()
    }

    fn kill(&self) {
        // A launcher that is gone has taken its job with it; its end says so.
        let _ = self.launcher.kill();
    }

    fn end(&mut self) -> io::Result<TreeEnd> {
        let ended = self.launcher.end(&self.lease)?;
        Ok(TreeEnd { exit: ended.exit, ran: ended.ran, tree: ended.tree })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use rustix::process::Uid;
    use rustix::thread::set_thread_res_uid;

    use super::*;

    /// Whoever runs jobs here.
    const USER: u32 = 65_534;

    #[test]
    fn a_home_with_what_another_user_left_is_set_aside() {
        if !geteuid().is_root() {
            println!(
                "SKIP a_home_with_what_another_user_left_is_set_aside: only root makes another user's folder"
            );
            return;
        }
        let spool = tempfile::tempdir().unwrap();
        let [home, aside] = ["home-0", "unswept-home-0-1"].map(|name| spool.path().join(name));
        fs::create_dir_all(home.join("cache/roots")).unwrap();
        for path in [spool.path(), &home] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        let as_user = || {
            // Of this thread alone, which ends with it.
            let user = Uid::from_raw(USER);
            set_thread_res_uid(user, user, user).unwrap();
            assert!(remove_tree(&home).is_err(), "it is another user's");
            make_empty(&home, &aside).unwrap();
            assert!(empty(&home, &aside).unwrap());
        };
        std::thread::scope(|scope| scope.spawn(as_user).join()).unwrap();
        assert!(aside.join("cache/roots").is_dir());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    }
}
