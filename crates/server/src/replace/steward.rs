//! The steward: watches over a program that takes this server's place, and goes back to the one before if it must.
//!
//! It is a process of its own and no child of the server: it is started by one that ends at once. What it holds is the
//! listener, as its standard input, so that nobody is turned away whichever program serves in the end.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::{Folder, Trial};
use super::{LISTENER_VARIABLE, STDIN, STEWARD_COMMAND};
use crate::program::OWN;

/// Time until a program that takes over has to serve: it opens the database, perhaps brings it to a newer schema, and
/// gives every open cell a turn.
const TRIAL_DEADLINE: Duration = Duration::from_secs(60);
/// Shortens the time where tests wait for its end, in milliseconds.
pub const DEADLINE_VARIABLE: &str = "TOWPATH_TRIAL_MS";
/// Time for the dead server's locks to be free.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// What the new program says.
pub const SERVES: &str = "serves\n";
/// What the steward answers: it does not go back any more.
pub const HEARD: &str = "heard\n";
/// What the steward says once it watches.
const WATCHES: &str = "watches";

/// Starts a steward over this process and returns once it watches.
///
/// # Errors
/// It does not come up.
pub fn start(folder: &Folder, listener: OwnedFd) -> io::Result<()> {
    let mut first = Command::new(OWN)
        .args([STEWARD_COMMAND, "start"])
        .arg(data_of(folder))
        .arg(std::process::id().to_string())
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::from(listener))
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = first.stdout.take().expect("invariant: it was asked for");
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    first.wait()?;
    match said.trim() == WATCHES {
        true => Ok(()),
        false => Err(io::Error::other("the steward does not come up")),
    }
}

fn data_of(folder: &Folder) -> &Path {
    folder.path().parent().expect("invariant: the folder lies in the data folder")
}

/// The hidden command. Returns only when there is nothing to watch any more, or it cannot be.
///
/// # Errors
/// It cannot watch, or cannot go back.
pub fn run(words: &[OsString]) -> io::Result<()> {
    let [what, data, pid, arguments @ ..] = words else {
        return Err(io::Error::other("a steward is started by a server alone"));
    };
    let folder = Folder::of(Path::new(data));
    match what.to_str() {
        Some("start") => {
            // The one that watches is nobody's child once this process has ended.
            Command::new(OWN).args([STEWARD_COMMAND, "watch"]).args(&words[1..]).spawn().map(drop)
        }
        Some("watch") => {
            let pid = pid.to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("the server's process is not named"))?;
            watch(&folder, pid, arguments)
        }
        _ => Err(io::Error::other("a steward is started by a server alone")),
    }
}

fn watch(folder: &Folder, pid: Pid, arguments: &[OsString]) -> io::Result<()> {
    let server = pidfd_open(pid, PidfdFlags::empty())?;
    let socket = folder.socket();
    let _ = std::fs::remove_file(&socket);
    let door = UnixListener::bind(&socket)?;
    let trial = folder.trial()?.ok_or_else(|| io::Error::other("nothing is tried"))?;
    println!("{WATCHES}");
    io::stdout().flush()?;
    // Nobody reads it any more; what is printed later must not fail.
    rustix::stdio::dup2_stdout(std::fs::OpenOptions::new().write(true).open("/dev/null")?)?;
    let Some(why) = wait(&door, &server) else {
        let _ = std::fs::remove_file(&socket);
        return Ok(());
    };
    let _ = std::fs::remove_file(&socket);
    Err(go_back(folder, &trial, (&server, &why), arguments))
}

/// Waits for the new program's word; `Some`: why it must go.
fn wait(door: &UnixListener, server: &OwnedFd) -> Option<String> {
    let named = std::env::var(DEADLINE_VARIABLE).ok().and_then(|text| text.parse().ok());
    let patience = named.map_or(TRIAL_DEADLINE, Duration::from_millis);
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched =
            [PollFd::new(server, PollFlags::IN), PollFd::from_borrowed_fd(door.as_fd(), PollFlags::IN)];
        let heard = poll(&mut watched, Some(&timespec(left)));
        let (died, asked) = (watched[0].revents(), watched[1].revents());
        match heard {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Some(format!("it cannot be watched: {error}")),
            Ok(0) => return Some(format!("it did not serve within {} s", patience.as_secs())),
            Ok(_)
                if asked.contains(PollFlags::IN) && door.accept().is_ok_and(|(stream, _)| serves(stream)) =>
            {
                return None;
            }
            Ok(_) if !died.is_empty() => return Some("it ended before it served".to_owned()),
            Ok(_) => {}
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}

fn serves(mut stream: UnixStream) -> bool {
    let mut said = String::new();
    let heard = stream.try_clone().and_then(|stream| BufReader::new(stream).read_line(&mut said));
    heard.is_ok() && said == SERVES && stream.write_all(HEARD.as_bytes()).is_ok()
}

/// Ends what was tried, and serves as the server did before.
fn go_back(
    folder: &Folder,
    trial: &Trial,
    (server, why): (&OwnedFd, &str),
    arguments: &[OsString],
) -> io::Error {
    eprintln!("the deployed program does not serve, the one before does: {why}");
    let _ = pidfd_send_signal(server, Signal::KILL);
    let mut watched = [PollFd::new(server, PollFlags::IN)];
    let _ = poll(&mut watched, Some(&timespec(DEATH_PATIENCE)));
    let back = restore(folder, trial).and_then(|()| folder.give_up(trial, why));
    if let Err(error) = back {
        // The former program would begin an empty database of its own.
        eprintln!("what was before could not be put back whole, so nothing serves: {error}");
        return error;
    }
    Command::new(own(&trial.before)).args(arguments).env(LISTENER_VARIABLE, STDIN).exec()
}

/// The program before, by its name where it is still there: what it starts is found by that name.
fn own(before: &Path) -> PathBuf {
    if before.is_file() { before.to_owned() } else { OWN.into() }
}

/// Puts the database back that the program may have brought to a newer schema. The next start finds that it was
/// restored, and lands nothing until a person has looked.
pub(super) fn restore(folder: &Folder, trial: &Trial) -> io::Result<()> {
    let Some(backup) = &trial.backup else { return Ok(()) };
    if !backup.exists() {
        // The trial ended before the database was copied, so before the deployed program had it.
        return Ok(());
    }
    let data = data_of(folder);
    let places = ["", "-wal", "-shm"].map(|suffix| {
        let name = format!("towpath.db{suffix}");
        (data.join(&name), folder.path().join(format!("failed-{}.db{suffix}", trial.number)))
    });
    let moved: Vec<_> = places.iter().filter(|(from, _)| from.exists()).collect();
    moved.iter().try_for_each(|(from, to)| std::fs::rename(from, to))?;
    towpath_store::restore(backup, data).map_err(io::Error::other).inspect_err(|_| {
        // As it was: better the deployed program's database than none.
        let _ = std::fs::remove_file(data.join("towpath.db"));
        moved.iter().for_each(|(from, to)| drop(std::fs::rename(to, from)));
    })
}
