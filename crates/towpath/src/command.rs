//! One file for each command.

pub mod answer;
pub mod audit;
pub mod backup;
pub mod branch;
pub mod change;
pub mod completions;
pub mod config;
pub mod demo;
pub mod deploy;
pub mod doctor;
pub mod executor;
pub mod init;
pub mod job_limit;
pub mod log;
pub mod man;
pub mod repo;
pub mod retention;
pub mod run;
pub mod runs;
pub mod secret;
pub mod serve;
pub mod sim;
pub mod test_results;
pub mod token;
pub mod user;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use towpath_git::{Checkout, Git, GitOptions};

use crate::failure::{Exit, Failure};

/// Bytes of a line that must not be seen; a password has at most 1,024.
const SECRET_LINE_BYTES_MAX: u64 = 4096;
/// The hidden subcommand that the executor starts for each of its slots.
pub const SANDBOX_HELPER: &str = "sandbox-helper";

/// The hidden subcommand that git starts as a hook of a push, followed by the hook's name.
pub const HOOK: &str = "hook";

/// The developer's own git: the first on their path.
pub fn own_git() -> Result<Git, Failure> {
    let options = GitOptions::default();
    let search_path = std::env::var_os("PATH").unwrap_or_else(|| options.search_path.clone());
    Ok(Git::find(GitOptions { search_path, ..options })?)
}

/// The work tree that the command was called in.
pub fn own_checkout(git: &Git) -> Result<Checkout, Failure> {
    let here = here()?;
    Checkout::find(git, &here)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("{} is in no git work tree", here.display()))
            .why("towpath works on the files that git counts as part of a repository")
            .hint("go into a clone, or make one: `git init`")
    })
}

/// The folder that the command was called in.
pub fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::new(Exit::Usage, "the current folder cannot be used")
            .why(error.to_string())
            .hint("go into a folder that exists")
    })
}

/// Refuses what is no folder before a program is started in it: that would look as if there were no such program.
pub fn existing_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Usage, format!("`{}` is no folder", path.display()))
            .hint("name the folder of a clone or repository")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::NotFound, format!("there is no folder `{}`", path.display()))
                .hint("name the folder of a clone or repository"))
        }
        Err(error) => Err(file_failure("look into", path, &error)),
    }
}

/// A line from standard input that must not be seen: a token, a password. On a terminal it is not shown while it is
/// typed.
pub fn secret_input(what: &str) -> Result<String, Failure> {
    match secret_line(what)? {
        line if line.is_empty() => {
            Err(Failure::new(Exit::Usage, format!("there is no {what} on standard input"))
                .hint("give it as a line of its own, or type it at a terminal"))
        }
        line => Ok(line),
    }
}

/// The same for what is set and not known anywhere yet: at a terminal, where nobody sees what they type, it is typed twice.
pub fn new_secret(what: &str) -> Result<String, Failure> {
    let first = secret_input(what)?;
    if std::io::stdin().is_terminal() && secret_line(&format!("{what} once more"))? != first {
        let what = format!("the {what} was not typed twice alike, so nothing was done");
        return Err(Failure::new(Exit::Usage, what).hint("do this again"));
    }
    Ok(first)
}

/// The same where nothing is an answer, too.
pub fn secret_line(what: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let hidden = stdin.is_terminal().then(|| Hidden::begin(what)).transpose()?;
    let mut line = String::new();
    std::io::Read::take(stdin.lock(), SECRET_LINE_BYTES_MAX).read_line(&mut line)?;
    drop(hidden);
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn begin(what: &str) -> Result<Hidden, Failure> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(rustix::stdio::stdin()).map_err(std::io::Error::from)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &hidden).map_err(std::io::Error::from)?;
        eprint!("{what}: ");
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // A terminal that is gone shows nothing anyway.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
        eprintln!();
    }
}

/// A failed access to a file.
pub fn file_failure(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let (exit, why, hint) = match error.kind() {
        ErrorKind::NotFound => (Exit::NotFound, "there is no such file or folder", "look at the path"),
        ErrorKind::PermissionDenied => {
            (Exit::Denied, "you may not", "look at whose it is, and who may do what with it: `ls -ld`")
        }
        ErrorKind::StorageFull => (Exit::Unavailable, "the disk is full", "make room, and do it again"),
        _ => (Exit::Usage, "", "look at the path"),
    };
    let why = if why.is_empty() { error.to_string() } else { why.to_owned() };
    Failure::new(exit, format!("cannot {action} `{}`", path.display())).why(why).hint(hint)
}
