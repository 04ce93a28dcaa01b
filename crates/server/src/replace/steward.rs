//! The steward: watches over a program that takes this server's place, and goes back to the one before if it must.
//!
//! It is a process of its own and no child of the server: it is started by one that ends at once. What it holds is the
//! listener, as its standard input, so that nobody is turned away whichever program serves in the end.
//!
//! Signals that end a server stay held back from it: whoever ends the server's whole process group or unit means the
//! server, and the steward is over once that is. Those that come wait for the server that it may have to become.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use towpath_executor::held_signals;

use super::record::{Folder, Kept, Trial};
use super::{LISTENER_VARIABLE, STDIN, STEWARD_COMMAND, Word};
use crate::program::OWN;

/// Time until a program that takes over has to serve: it opens the database, perhaps brings it to a newer schema, loads
/// every open cell, and finds its executor.
const TRIAL_DEADLINE: Duration = Duration::from_secs(60);
/// Shortens the time where tests wait for its end, in milliseconds.
pub const DEADLINE_VARIABLE: &str = "TOWPATH_TRIAL_MS";
/// Between two looks at whether the server is to end.
const ENDS_LOOK: Duration = Duration::from_millis(100);
/// Between two times that a program which does not die is spoken of.
const DEATH_LOOK: Duration = Duration::from_secs(10);
/// Time for whoever rings to say something.
const WORD_PATIENCE: Duration = Duration::from_secs(5);
/// What the steward answers: it acts on the word.
pub const HEARD: &str = "heard\n";
/// Bytes of a word: a reason is a sentence or two.
const WORD_BYTES_MAX: u64 = 64 * 1024;
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
    let _ = fs::remove_file(&socket);
    let door = UnixListener::bind(&socket)?;
    let trial = folder.trial()?.ok_or_else(|| io::Error::other("nothing is tried"))?;
    println!("{WATCHES}");
    io::stdout().flush()?;
    // Nobody reads it any more; what is printed later must not fail.
    rustix::stdio::dup2_stdout(fs::OpenOptions::new().write(true).open("/dev/null")?)?;
    let mut ends = Ends { server: pid, have_come: false };
    let found = wait(&door, &server, &mut ends);
    let _ = fs::remove_file(&socket);
    // Before its end: what waits for a process is gone with it.
    let is_to_end = ends.look();
    match found {
        Found::Serves => Ok(()),
        // It had been confirmed, so this is an end like any other; or it was told to end.
        Found::Dead if folder.trial()?.is_none_or(|trial| trial.told_to_end) => Ok(()),
        // Nobody knows whether it would have served.
        Found::Dead if is_to_end => folder.set_told_to_end(&trial)?.surely(),
        Found::Dead => go_back((folder, &trial), "it ended before it served", is_to_end, arguments),
        Found::Unfit(why) => {
            end(&server);
            go_back((folder, &trial), &why, is_to_end, arguments)
        }
    }
}

/// Whether the server is to end: what was said to the program before it listened, or to this process beside it.
struct Ends {
    server: Pid,
    have_come: bool,
}

impl Ends {
    /// Looks, and remembers what was found: whoever waits for the program's end may take its entry away at once.
    fn look(&mut self) -> bool {
        self.have_come |= [self.server, rustix::process::getpid()].into_iter().any(held_signals::waits_for);
        self.have_come
    }
}

/// What the steward finds.
enum Found {
    /// There is nothing to watch any more: it serves, or was told to end.
    Serves,
    /// It has ended.
    Dead,
    /// It must go: why.
    Unfit(String),
}

/// Waits for the new program's word.
fn wait(door: &UnixListener, server: &OwnedFd, ends: &mut Ends) -> Found {
    let named = std::env::var(DEADLINE_VARIABLE).ok().and_then(|text| text.parse().ok());
    let patience = named.map_or(TRIAL_DEADLINE, Duration::from_millis);
    let deadline = Instant::now() + patience;
    loop {
        ends.look();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Found::Unfit(format!("it did not serve within {} s", patience.as_secs()));
        }
        let mut watched =
            [PollFd::new(server, PollFlags::IN), PollFd::from_borrowed_fd(door.as_fd(), PollFlags::IN)];
        let heard = poll(&mut watched, Some(&timespec(left.min(ENDS_LOOK))));
        let (died, asked) = (watched[0].revents(), watched[1].revents());
        match heard {
            Err(rustix::io::Errno::INTR) | Ok(0) => {}
            Err(error) => return Found::Unfit(format!("it cannot be watched: {error}")),
            // First: a program that says why it cannot serve ends then.
            Ok(_) if asked.contains(PollFlags::IN) => match door.accept().map(|(stream, _)| word(stream)) {
                Ok(Some(Word::Serves | Word::Stops)) => return Found::Serves,
                Ok(Some(Word::Unfit(why))) => return Found::Unfit(why),
                Ok(None) | Err(_) => {}
            },
            Ok(_) if !died.is_empty() => return Found::Dead,
            Ok(_) => {}
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}

/// How a word is written.
pub(super) fn line(word: &Word) -> String {
    match word {
        Word::Serves => "serves\n".to_owned(),
        Word::Stops => "stops\n".to_owned(),
        Word::Unfit(why) => format!("unfit {}\n", why.lines().map(str::trim).collect::<Vec<_>>().join(" ")),
    }
}

fn parsed(line: &str) -> Option<Word> {
    match line.strip_suffix('\n')? {
        "serves" => Some(Word::Serves),
        "stops" => Some(Word::Stops),
        other => Some(Word::Unfit(other.strip_prefix("unfit ")?.to_owned())),
    }
}

/// What somebody says, who is told that it was heard.
fn word(mut stream: UnixStream) -> Option<Word> {
    stream.set_read_timeout(Some(WORD_PATIENCE)).ok()?;
    let mut said = String::new();
    let reader = stream.try_clone().ok()?;
    BufReader::new(reader.take(WORD_BYTES_MAX)).read_line(&mut said).ok()?;
    let word = parsed(&said)?;
    stream.write_all(HEARD.as_bytes()).ok().map(|()| word)
}

/// Ends what was tried. Whatever it takes: two programs on one database are worse than none.
fn end(server: &OwnedFd) {
    let _ = pidfd_send_signal(server, Signal::KILL);
    await_death(server, DEATH_LOOK, || {
        eprintln!(
            "the deployed program was killed and does not die; until it does, nothing serves in its place"
        );
    });
}

fn await_death(server: &OwnedFd, look: Duration, mut still_lives: impl FnMut()) {
    loop {
        match poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&timespec(look))) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => still_lives(),
            Ok(_) => return,
            Err(_) => std::thread::park_timeout(look),
        }
    }
}

/// Serves as the server did before, after what was tried has ended; nobody does where the server was to end.
fn go_back(
    (folder, trial): (&Folder, &Trial),
    why: &str,
    is_to_end: bool,
    arguments: &[OsString],
) -> io::Result<()> {
    match folder.trial()? {
        // In the moment in which its time was up it was confirmed, or told to end.
        None if !is_to_end => return Err(execute(&folder.program(&trial.program), arguments)),
        None => return Ok(()),
        Some(trial) if trial.told_to_end => return Ok(()),
        Some(_) => {}
    }
    eprintln!("the deployed program does not serve, the one before does: {why}");
    if let Err(error) = restore(folder, trial) {
        // The former program would begin an empty database of its own.
        eprintln!("what was before could not be put back whole, so it does not serve either: {error}");
        return Err(error);
    }
    match folder.give_up(trial, why).map(Kept::unconfirmed) {
        Ok(None) => {}
        Ok(Some(error)) => eprintln!("the disk does not confirm that, look at it: {error}"),
        Err(error) => {
            eprintln!("that cannot be remembered, so the server goes on, and tries it again: {error}")
        }
    }
    if is_to_end {
        eprintln!("the server was told to end meanwhile, so nothing serves");
        return Ok(());
    }
    Err(execute(&own(&trial.before), arguments))
}

fn execute(program: &Path, arguments: &[OsString]) -> io::Error {
    Command::new(program).args(arguments).env(LISTENER_VARIABLE, STDIN).exec()
}

/// The program before, by its name where that is still its own: what it starts is found by that name.
fn own(before: &Path) -> PathBuf {
    let file = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let is_own = file(before).is_some_and(|named| file(OWN.as_ref()) == Some(named));
    if is_own { before.to_owned() } else { OWN.into() }
}

/// Puts the database back that the program may have brought to a newer schema, once: the former program goes on with it,
/// whether or not the trial's end can be remembered. The next start finds that it was restored, and neither lands nor
/// deploys anything until a person has looked.
pub(super) fn restore(folder: &Folder, trial: &Trial) -> io::Result<()> {
    let Some(backup) = &trial.backup else { return Ok(()) };
    if !backup.exists() {
        // It is the database again. Or the trial ended before there was a copy, so before the deployed program had it.
        return Ok(());
    }
    // The newest of its kind: each may be as large as the record.
    let aside = folder.path().join("failed.db");
    towpath_store::restore_over(backup, data_of(folder), &aside).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use towpath_core::ids::{Digest, Timestamp};
    use towpath_store::{Options, Store};

    use super::super::record::Installed;
    use super::*;

    #[test]
    fn what_a_program_says_is_understood() {
        let words = [Word::Serves, Word::Stops, Word::Unfit("it cannot: no room".into())];
        words.iter().for_each(|word| assert_eq!(parsed(&line(word)).as_ref(), Some(word)));
        let said = line(&Word::Unfit("error: it cannot\n  why: no room".into()));
        assert_eq!(parsed(&said), Some(Word::Unfit("error: it cannot why: no room".into())));
        for nonsense in ["", "serves", "hello\n"] {
            assert_eq!(parsed(nonsense), None);
        }
    }

    #[test]
    fn a_word_to_end_is_remembered_when_its_program_is_gone() {
        // Held back in a thread of its own: from whatever that starts, and from nothing else of this process.
        let child = std::thread::spawn(|| {
            held_signals::hold_back().unwrap();
            let mut shell = Command::new("sh");
            shell.args(["-c", "kill -TERM $$; echo stays; read line"]);
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        });
        let mut child = child.join().unwrap();
        let mut ends = Ends { server: Pid::from_child(&child), have_come: false };
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(ends.look());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(ends.look());
        ends.have_come = false;
        assert!(!ends.look(), "its entry is gone");
    }

    #[test]
    fn a_database_is_put_back_once() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let open = || Store::open(Options::new(&data, Timestamp(1))).unwrap();
        let users = || open().reader().snapshot().unwrap().users().unwrap().len();
        let add = |name: &'static str| {
            open().writer().write(move |tx| tx.add_user(name, None, Timestamp(1)).map(drop)).unwrap();
        };
        drop(open());
        let folder = Folder::of(&data);
        folder.make().unwrap();
        towpath_store::backup(&data, &folder.backup()).unwrap();
        add("ann");
        let trial = Trial {
            environment: "demo/live".parse().unwrap(),
            number: 3,
            program: Digest([1; 32]),
            before: OWN.into(),
            serving: None,
            installed: Installed::of(OWN.as_ref()).unwrap(),
            backup: Some(folder.backup()),
            told_to_end: false,
        };
        let copy = fs::metadata(folder.backup()).unwrap().ino();
        restore(&folder, &trial).unwrap();
        assert_eq!(fs::metadata(data.join("towpath.db")).unwrap().ino(), copy, "no other copy was made");
        assert_eq!(users(), 0);
        add("bob");
        // As if the steward had been killed before it could say that the trial is over.
        restore(&folder, &trial).unwrap();
        assert_eq!(users(), 1, "somebody has served since");
        let failed = towpath_store::View::open_copy(&folder.path().join("failed.db")).unwrap();
        assert_eq!(failed.users().unwrap().len(), 1, "what stood in its place is kept");
    }

    #[test]
    fn a_program_that_does_not_die_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let (mut input, mut looks) = (child.stdin.take(), 0);
        await_death(&pidfd, Duration::from_millis(1), || {
            looks += 1;
            if looks == 3 {
                drop(input.take());
            }
        });
        assert!(looks >= 3 && child.try_wait().unwrap().is_some());
    }
}
