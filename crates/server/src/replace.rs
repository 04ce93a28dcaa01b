//! Another program serves in this server's place: what a deployment to an environment that is this server comes to.
//!
//! The program is executed in this very process, so that its number and its address stay, and what is asked meanwhile
//! waits in the listener's backlog. Jobs go on in the executor and are found again.
//!
//! A program that does not come up must not end the server. Before it is executed, a *steward* is started: this
//! program once more, in a process of its own. It waits until the new one says that it serves, which that one does once jobs
//! can run. If it dies or is silent for too long, the steward ends it and serves itself, as the server did before. What was tried and failed is
//! on the disk, so that the next server knows it, whoever starts that.
//!
//! Signals that end a server are held back from before the steward starts until the new program listens: whoever ends the
//! server meanwhile has it ended, and not brought back.
//!
//! What is on the disk ([`record`]) also makes the program that a person starts, `towpath serve`, give way to the one
//! that was deployed last, until that person installs another.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use towpath_blob::BlobStore;
use towpath_core::effect::Replacement;
use towpath_core::ids::Digest;
use towpath_executor::held_signals;
use towpath_store::Store;

use crate::program::OWN;
use crate::settings::ExecutorLife;

pub mod record;
pub mod steward;

use record::{Folder, Installed, Kept, Trial};

/// Says that the listener is the standard input of a program that takes over.
pub const LISTENER_VARIABLE: &str = "TOWPATH_LISTENER";
/// What the variable says then.
const STDIN: &str = "stdin";
/// The hidden command that is a steward.
pub const STEWARD_COMMAND: &str = "steward";
/// Time for the steward's answer: it does nothing else.
const STEWARD_PATIENCE: Duration = Duration::from_secs(5);

/// The file of the program that serves, as it was when that began: another one may bear its name by now.
struct Own {
    path: PathBuf,
    installed: Installed,
}

impl Own {
    /// Looks for it, at the start. `Err`: why no other program can ever take this server's place.
    fn look(life: ExecutorLife, process: u32) -> Result<Own, String> {
        if process == 1 {
            return Err("the server is process 1 of its container, where nobody could end a program that does not serve; \
                        start it below an init, with `docker run --init` say"
                .into());
        }
        if life == ExecutorLife::WithServer {
            return Err("the server is a part of the program that started it, and ends with that".into());
        }
        let found = std::env::current_exe().and_then(|path| {
            let installed = Installed::of(&path)?;
            Ok(Own { path, installed })
        });
        found.map_err(|error| {
            format!(
                "the file of the program that serves was not found when it started; start it again: {error}"
            )
        })
    }
}

/// Where a server and its drivers meet when another program is to serve.
pub struct Succession {
    folder: Folder,
    own: Result<Own, String>,
    blobs: BlobStore,
    wanted: Mutex<Option<Trial>>,
    told: Notify,
}

impl Succession {
    /// None is wanted yet. Looks for this program's own file, so it is called while that still has its name.
    pub fn open(data: &Path, blobs: BlobStore, life: ExecutorLife) -> Arc<Succession> {
        let (folder, own) = (Folder::of(data), Own::look(life, std::process::id()));
        Arc::new(Succession { folder, own, blobs, wanted: Mutex::default(), told: Notify::new() })
    }

    /// Where programs and records are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where outputs of jobs are.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Has the server give way to a program that was found fit. Asking again changes nothing.
    pub fn want(&self, trial: Trial) {
        *self.lock() = Some(trial);
        self.told.notify_one();
    }

    /// Returns once a program is to serve instead.
    pub async fn wanted(&self) -> Trial {
        loop {
            if let Some(trial) = self.lock().clone() {
                return trial;
            }
            self.told.notified().await;
        }
    }

    /// What would be tried for a replacement whose program lies ready; else why none ever will be while this program serves.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn trial(&self, replacement: &Replacement, program: Digest) -> io::Result<Result<Trial, String>> {
        let Own { path, installed } = match &self.own {
            Ok(own) => own,
            Err(why) => return Ok(Err(why.clone())),
        };
        let serving = self.folder.serving()?;
        let installed = serving.as_ref().map_or(installed, |serving| &serving.installed).clone();
        let (environment, number) = (replacement.environment.clone(), replacement.number);
        let before = path.clone();
        Ok(Ok(Trial {
            environment,
            number,
            program,
            before,
            serving,
            installed,
            backup: None,
            told_to_end: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trial>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listener that a program which takes over was given; else a new one.
///
/// # Errors
/// The address cannot be listened on.
pub fn listener(listen: std::net::SocketAddr) -> io::Result<TcpListener> {
    let given = std::env::var(LISTENER_VARIABLE).is_ok_and(|value| value == STDIN);
    let taken = given.then(|| {
        let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Whoever was started by a program that had taken over has the variable, and another standard input.
        listener.local_addr()?;
        let null = fs::OpenOptions::new().read(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        io::Result::Ok(listener)
    });
    match taken {
        Some(Ok(listener)) => Ok(listener),
        _ => TcpListener::bind(listen),
    }
}

/// The program to serve with instead of the one that was started, if one was deployed since that was installed.
///
/// # Errors
/// The records cannot be read.
pub fn deployed_instead(data: &Path) -> io::Result<Option<PathBuf>> {
    let folder = Folder::of(data);
    let own = std::env::current_exe()?;
    if !folder.path().is_dir() || own.starts_with(folder.programs()) {
        return Ok(None);
    }
    // A server that lives will say for itself that it is there.
    let Ok(()) = fs::File::open(data)?.try_lock() else { return Ok(None) };
    let serving = match folder.trial()? {
        // Neither the program nor its steward is there any more: what a steward would have put back is put back here.
        Some(trial) => {
            steward::restore(&folder, &trial)?;
            let remembered = match trial.told_to_end {
                // Its deployment is owed as before.
                true => folder.take_back(&trial),
                false => folder.give_up(&trial, "the server ended before it served"),
            };
            if let Err(error) = remembered.and_then(Kept::surely) {
                tracing::error!(%error, "a trial is over, which cannot be remembered: {error}");
            }
            trial.serving
        }
        None => folder.serving()?,
    };
    let Some(serving) = serving else { return Ok(None) };
    if Installed::of(&own)? != serving.installed {
        tracing::warn!("another program was installed: it serves, and not what was deployed before");
        folder.forget_serving()?.surely()?;
        return Ok(None);
    }
    let path = folder.program(&serving.program);
    let whole =
        fs::File::open(&path).and_then(crate::program::digest).is_ok_and(|found| found == serving.program);
    if !whole {
        tracing::error!("the deployed program `{}` is damaged: the installed one serves", path.display());
        folder.forget_serving()?.surely()?;
    }
    Ok(whole.then_some(path))
}

/// Executes the deployed program in place of this one, with the same arguments and environment.
pub fn execute_instead(program: &Path) -> io::Error {
    Command::new(program).args(std::env::args_os().skip(1)).exec()
}

/// Executes a program in this process, after a steward was started; without one, this very program again. Returns only
/// if `is_to_end` says so by then, with nothing tried, or if that cannot be: then the steward serves once this process has
/// ended.
///
/// # Errors
/// It cannot be executed.
pub fn execute(
    succession: &Succession,
    trial: &Trial,
    (store, listener): (&Store, TcpListener),
    is_to_end: impl Fn() -> bool,
) -> io::Result<()> {
    let folder = &succession.folder;
    // What other threads take in until this one is another program is in `is_to_end`; all later ones wait for it.
    held_signals::hold_back()?;
    let prepared = || -> io::Result<()> {
        if let Some(copy) = &trial.backup {
            back_up(store, copy)?;
        }
        folder.set_trial(trial)?.surely()?;
        steward::start(folder, listener.try_clone()?.into())
    };
    let program = match prepared() {
        Ok(()) => folder.program(&trial.program),
        Err(error) => {
            tracing::error!(%error, "the deployed program is not tried: {error}");
            // First: nobody is to put it back later over what this server does from now on.
            if let Some(copy) = &trial.backup {
                let _ = fs::remove_file(copy);
            }
            let given_up = folder.give_up(trial, &format!("it was not tried: {error}"));
            if let Err(error) = given_up.and_then(Kept::surely) {
                tracing::error!(%error, "that cannot be remembered: {error}");
            }
            OWN.into()
        }
    };
    let mut next = Command::new(program);
    next.args(std::env::args_os().skip(1))
        .env(LISTENER_VARIABLE, STDIN)
        .stdin(Stdio::from(OwnedFd::from(listener)));
    if is_to_end() {
        // Its deployment is owed as before, and the next server tries it.
        let kept = folder.remove_trial()?;
        tell_steward(folder, &Word::Stops);
        return kept.surely();
    }
    Err(next.exec())
}

/// Copies the database to where a steward looks for it. Whole or not there at all: what was killed on the way is no copy,
/// and one of an earlier trial is none of this one.
fn back_up(store: &Store, copy: &Path) -> io::Result<()> {
    let draft = copy.with_extension("draft");
    for old in [copy, &draft] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    towpath_store::backup(store.path(), &draft).map_err(io::Error::other)?;
    // The folder is synced by whoever writes the next record into it, before that record counts.
    fs::rename(&draft, copy)
}

/// What a program that is being tried says to its steward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It serves from now on, and jobs can run.
    Serves,
    /// It was told to end, and nobody is to serve.
    Stops,
    /// It cannot serve: why.
    Unfit(String),
}

/// Whether this program is being tried.
///
/// # Errors
/// The record cannot be read.
pub fn is_tried(data: &Path) -> io::Result<bool> {
    Ok(own_trial(&Folder::of(data))?.is_some())
}

fn own_trial(folder: &Folder) -> io::Result<Option<Trial>> {
    trial_of(folder, &std::env::current_exe()?)
}

fn trial_of(folder: &Folder, program: &Path) -> io::Result<Option<Trial>> {
    Ok(folder.trial()?.filter(|trial| program == folder.program(&trial.program)))
}

/// This program serves from now on: what was tried is confirmed. Nothing is to be done where nothing was tried. Where the
/// disk does not confirm that in its turn, this program serves all the same: nobody else would, and what it answers counts.
/// It is as with any write that the disk does not confirm: whoever serves lands nothing until a person has looked.
///
/// # Errors
/// The records cannot be written, so it must not serve: the steward ends this process, and goes back.
pub fn confirm(data: &Path) -> io::Result<Kept> {
    confirm_as(&Folder::of(data), &std::env::current_exe()?)
}

fn confirm_as(folder: &Folder, program: &Path) -> io::Result<Kept> {
    let Some(trial) = trial_of(folder, program)? else { return Ok(Kept::default()) };
    let kept = folder.confirm(&trial)?;
    tell_steward(folder, &Word::Serves);
    let needed = [folder.program(&trial.program), trial.before];
    // There is no way back any more, and no need of one: what stays now goes when the next program is confirmed.
    folder.remove_programs_but(&needed).unwrap_or_else(|error| {
        tracing::warn!(%error, "programs that nobody goes back to stay for now: {error}");
    });
    Ok(kept)
}

/// This program was told to end. If it is being tried, nobody serves in its place, and the next server tries it anew. Saying
/// so again changes nothing.
pub fn stop(data: &Path) {
    let folder = Folder::of(data);
    let Ok(Some(trial)) = own_trial(&folder) else { return };
    if trial.told_to_end {
        return;
    }
    // Before the steward hears of it: this process may be ended as soon as it likes.
    folder.set_told_to_end(&trial).and_then(Kept::surely).unwrap_or_else(|error| {
        tracing::error!(%error, "it will look as if the deployed program had failed: {error}");
    });
    tell_steward(&folder, &Word::Stops);
}

/// This program cannot serve. If it is being tried, the one before does.
pub fn fail(data: &Path, why: String) {
    let folder = Folder::of(data);
    if let Ok(Some(_)) = own_trial(&folder) {
        tell_steward(&folder, &Word::Unfit(why));
    }
}

fn tell_steward(folder: &Folder, word: &Word) {
    let told = || -> io::Result<()> {
        let mut stream = UnixStream::connect(folder.socket())?;
        stream.set_read_timeout(Some(STEWARD_PATIENCE))?;
        stream.write_all(steward::line(word).as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        match answer == steward::HEARD {
            true => Ok(()),
            false => Err(io::Error::other("it says nothing")),
        }
    };
    // One that is not there goes back to nothing.
    told().unwrap_or_else(|error| tracing::warn!(%error, "no steward answers: {error}"));
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use towpath_core::ids::Timestamp;
    use towpath_store::Options;

    use super::record::Serving;
    use super::*;

    #[test]
    fn a_server_that_nobody_could_bring_back_gives_way_to_none() {
        let why = |life, process| Own::look(life, process).err().unwrap_or_default();
        let first = why(ExecutorLife::Own, 1);
        assert!(first.starts_with("the server is process 1 of its container"), "{first}");
        let part = why(ExecutorLife::WithServer, 2);
        assert!(part.starts_with("the server is a part of the program that started it"), "{part}");
        let own = Own::look(ExecutorLife::Own, 2).ok().map(|own| own.path);
        assert_eq!(own, std::env::current_exe().ok());
    }

    /// A trial of program 2, where this one had been installed before.
    fn trial_before(installed: &Path, backup: Option<PathBuf>) -> Trial {
        Trial {
            environment: "demo/live".parse().unwrap(),
            number: 3,
            program: Digest([2; 32]),
            before: OWN.into(),
            serving: None,
            installed: Installed::of(installed).unwrap(),
            backup,
            told_to_end: false,
        }
    }

    #[test]
    fn a_trial_that_cannot_begin_leaves_no_copy_to_put_back() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let store = Store::open(Options::new(&data, Timestamp(1))).unwrap();
        let blobs = BlobStore::open(data.join("blobs")).unwrap();
        let succession = Succession::open(&data, blobs, ExecutorLife::Own);
        let folder = succession.folder();
        folder.make().unwrap();
        // Neither that it begins nor that it is over can be written down.
        for record in ["trial.json.new", "failed.json.new"] {
            fs::create_dir(folder.path().join(record)).unwrap();
        }
        let trial = trial_before(OWN.as_ref(), Some(folder.backup()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let is_to_end = || {
            assert!(!folder.backup().exists(), "somebody would put it back over what comes now");
            true
        };
        // Signals are held back from whoever gives way: here from a thread and from nothing else of this process.
        std::thread::scope(|scope| {
            let gives_way = scope.spawn(|| execute(&succession, &trial, (&store, listener), is_to_end));
            gives_way.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_trial_whose_end_cannot_be_remembered_keeps_no_server_from_starting() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::of(place.path());
        folder.make().unwrap();
        let program = folder.program(&Digest([2; 32]));
        fs::write(&program, "x").unwrap();
        let trial = trial_before(&program, None);
        folder.set_trial(&trial).unwrap().surely().unwrap();
        // Nothing can be written in its place.
        let record = folder.path().join("failed.json.new");
        fs::create_dir(&record).unwrap();
        assert_eq!(deployed_instead(place.path()).unwrap(), None);
        assert!(folder.trial().unwrap().is_some() && !program.exists());
        fs::remove_dir(&record).unwrap();
        assert_eq!(deployed_instead(place.path()).unwrap(), None);
        assert!(folder.trial().unwrap().is_none() && folder.failed().unwrap().is_some());
    }

    #[test]
    fn a_program_is_confirmed_on_the_disk_before_its_steward_hears_of_it() {
        confirmed_before_the_steward_hears(|_| Ok(())).surely().unwrap();
    }

    #[test]
    fn a_program_whose_disk_does_not_confirm_its_confirmation_serves_all_the_same() {
        let kept = confirmed_before_the_steward_hears(|_| Err(io::Error::other("it is broken")));
        assert!(kept.unconfirmed().is_some(), "whoever serves is to know");
    }

    fn confirmed_before_the_steward_hears(sync: fn(&Path) -> io::Result<()>) -> Kept {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::of(place.path()).synced_by(sync);
        folder.make().unwrap();
        let [before, program, other] = [1, 2, 3].map(|byte| folder.program(&Digest([byte; 32])));
        [&before, &program, &other].into_iter().for_each(|path| fs::write(path, "x").unwrap());
        fs::write(folder.backup(), "what was before").unwrap();
        let installed = Installed::of(&before).unwrap();
        let trial = Trial { before: before.clone(), ..trial_before(&before, Some(folder.backup())) };
        let _ = folder.set_trial(&trial).unwrap();
        confirm_as(&folder, &other).unwrap().surely().unwrap();
        assert!(folder.trial().unwrap().is_some(), "another program's is not its own");
        let door = UnixListener::bind(folder.socket()).unwrap();
        let seen = folder.clone();
        let steward = std::thread::spawn(move || {
            let (mut stream, _) = door.accept().unwrap();
            let mut said = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut said).unwrap();
            // As if the machine stopped now: the next start finds what is there.
            let found = (said, seen.trial().unwrap(), seen.backup().exists(), seen.serving().unwrap());
            stream.write_all(steward::HEARD.as_bytes()).unwrap();
            found
        });
        let kept = confirm_as(&folder, &program).unwrap();
        let serving = Serving { program: Digest([2; 32]), installed };
        assert_eq!(steward.join().unwrap(), ("serves\n".to_owned(), None, false, Some(serving)));
        assert_eq!([&before, &program, &other].map(|path| path.exists()), [true, true, false]);
        kept
    }
}
