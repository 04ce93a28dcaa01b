//! Another program serves in this server's place: what a deployment to an environment that is this server comes to.
//!
//! The program is executed in this very process, so that its number and its address stay, and what is asked meanwhile
//! waits in the listener's backlog. Jobs go on in the executor and are found again.
//!
//! A program that does not come up must not end the server. Before it is executed, a *steward* is started: this
//! program once more, in a process of its own. It waits until the new one says that it serves. If that one dies or is
//! silent for too long, the steward ends it and serves itself, as the server did before. What was tried and failed is
//! on the disk, so that the next server knows it, whoever starts that.
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
use towpath_store::Store;

use crate::program::OWN;

pub mod record;
pub mod steward;

use record::{Folder, Installed, Serving, Trial};

/// Says that the listener is the standard input of a program that takes over.
pub const LISTENER_VARIABLE: &str = "TOWPATH_LISTENER";
/// What the variable says then.
const STDIN: &str = "stdin";
/// The hidden command that is a steward.
pub const STEWARD_COMMAND: &str = "steward";
/// Time for the steward's answer: it does nothing else.
const STEWARD_PATIENCE: Duration = Duration::from_secs(5);

/// Where a server and its drivers meet when another program is to serve.
pub struct Succession {
    folder: Folder,
    blobs: BlobStore,
    wanted: Mutex<Option<Trial>>,
    told: Notify,
}

impl Succession {
    /// None is wanted yet.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(data: &Path, blobs: BlobStore) -> io::Result<Arc<Succession>> {
        let folder = Folder::of(data);
        Ok(Arc::new(Succession { folder, blobs, wanted: Mutex::default(), told: Notify::new() }))
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

    /// What would be tried for a replacement whose program lies ready.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn trial(&self, replacement: &Replacement, program: Digest) -> io::Result<Trial> {
        let before = std::env::current_exe()?;
        let serving = self.folder.serving()?;
        let installed = match &serving {
            Some(serving) => serving.installed.clone(),
            None => Installed::of(&before)?,
        };
        let (environment, number) = (replacement.environment.clone(), replacement.number);
        Ok(Trial { environment, number, program, before, serving, installed, backup: None })
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
    if let Some(trial) = folder.trial()? {
        // Neither the program nor its steward is there any more: what a steward would have put back is put back here.
        steward::restore(&folder, &trial)?;
        folder.give_up(&trial, "the server ended before it served")?;
    }
    let Some(serving) = folder.serving()? else { return Ok(None) };
    if Installed::of(&own)? != serving.installed {
        tracing::warn!("another program was installed: it serves, and not what was deployed before");
        folder.forget_serving()?;
        return Ok(None);
    }
    let path = folder.program(&serving.program);
    let whole =
        fs::File::open(&path).and_then(crate::program::digest).is_ok_and(|found| found == serving.program);
    if !whole {
        tracing::error!("the deployed program `{}` is damaged: the installed one serves", path.display());
        folder.forget_serving()?;
    }
    Ok(whole.then_some(path))
}

/// Executes the deployed program in place of this one, with the same arguments and environment.
pub fn execute_instead(program: &Path) -> io::Error {
    Command::new(program).args(std::env::args_os().skip(1)).exec()
}

/// Executes a program in this process, after a steward was started; without one, this very program again. Returns only
/// if that cannot be: then the steward serves once this process has ended.
pub fn execute(succession: &Succession, trial: &Trial, store: &Store, listener: TcpListener) -> io::Error {
    let folder = &succession.folder;
    let prepared = || -> io::Result<()> {
        if let Some(copy) = &trial.backup {
            back_up(store, copy)?;
        }
        folder.set_trial(trial)?;
        steward::start(folder, listener.try_clone()?.into())
    };
    let program = match prepared() {
        Ok(()) => folder.program(&trial.program),
        Err(error) => {
            tracing::error!(%error, "the deployed program is not tried: {error}");
            if let Err(error) = folder.give_up(trial, &format!("it was not tried: {error}")) {
                tracing::error!(%error, "that cannot be remembered: {error}");
            }
            OWN.into()
        }
    };
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(LISTENER_VARIABLE, STDIN)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .exec()
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

/// This program serves: what was tried is confirmed. Nothing is to be done where nothing was tried.
///
/// # Errors
/// The records cannot be written. The steward then ends this process, and goes back.
pub fn confirm(data: &Path) -> io::Result<()> {
    let folder = Folder::of(data);
    let own = std::env::current_exe()?;
    let Some(trial) = folder.trial()?.filter(|trial| own == folder.program(&trial.program)) else {
        return Ok(());
    };
    // Before the steward is asked: should it go back all the same, it puts the former record back as well.
    folder.set_serving(&Serving { program: trial.program, installed: trial.installed.clone() })?;
    // From its answer on the steward does not go back any more. One that is not there cannot.
    if let Err(error) = ask_steward(&folder) {
        tracing::warn!(%error, "no steward answers: {error}");
    }
    folder.remove_trial()?;
    folder.remove_programs_but(&[own, trial.before])
}

fn ask_steward(folder: &Folder) -> io::Result<()> {
    let mut stream = UnixStream::connect(folder.socket())?;
    stream.set_read_timeout(Some(STEWARD_PATIENCE))?;
    stream.write_all(steward::SERVES.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer == steward::HEARD {
        true => Ok(()),
        false => Err(io::Error::other("it says nothing")),
    }
}
