//! What can go wrong, and what it asks of the caller.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_core::ids::CommitId;

use crate::object::ObjectId;
use crate::refs::RefName;
use crate::walk::TreeMeasure;

/// What a failed call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Our machine or another process was in the way: the same call may succeed later.
    Transient,
    /// Somebody else's write came first: read again, then decide again.
    Conflict,
    /// What was named does not exist (any more).
    Gone,
    /// The input can never work, however often it is tried.
    Invalid,
    /// The call is not allowed, or the machine cannot keep the promise that it makes: a person has to act.
    Denied,
}

/// A failed call. The text says what happened, why, and what to do where that is known. It reaches whoever pushes and reads:
/// files of a bare repository are named from its own folder on, as where a server keeps its data is no business of theirs.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is not there or cannot be executed.
    #[error("cannot start `{}`: {source}; install git {needed} or newer, or name its path in the settings", program.display())]
    NotStarted {
        /// What was to be started.
        program: PathBuf,
        /// The oldest version that will do.
        needed: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The program is not a git that has what Towpath needs.
    #[error("`{}` says `{found}`, but Towpath needs git {needed} or newer; name another one in the settings", program.display())]
    TooOld {
        /// The git that was asked.
        program: PathBuf,
        /// Its answer.
        found: String,
        /// The oldest version that will do.
        needed: &'static str,
    },
    /// Git was killed at its deadline.
    #[error("git {call} did not answer within {milliseconds} ms and was killed")]
    Deadline {
        /// The subcommand.
        call: &'static str,
        /// How long it had.
        milliseconds: u128,
    },
    /// The merges of one candidate had all of their time, and were not done. A busy machine may be the reason, so it is worth
    /// one more try; after that it is a fact about the two sides.
    #[error(
        "git could not merge it within {} s: bring it up to date with its target (rebase or merge), or make it smaller",
        time.as_secs_f64()
    )]
    MergeTooSlow {
        /// How long they had.
        time: Duration,
    },
    /// Whoever it worked for has ended it: the server stops.
    #[error("git {call} was ended before it was done")]
    Interrupted {
        /// The subcommand.
        call: &'static str,
    },
    /// Git was killed because its answer passed the bound of this call.
    #[error("git {call} was stopped after {bytes_max} bytes of output, the most that is read")]
    OutputTooLarge {
        /// The subcommand.
        call: &'static str,
        /// The bound.
        bytes_max: u64,
    },
    /// Git refused or broke.
    #[error("git {call} failed ({status}): {stderr}")]
    Failed {
        /// The subcommand.
        call: &'static str,
        /// Exit code or signal.
        status: String,
        /// What it wrote, printable and cut.
        stderr: String,
    },
    /// Git's answer has a form that Towpath does not know.
    #[error("git {call} gave an answer of an unknown form: {answer}")]
    Unexpected {
        /// The subcommand.
        call: &'static str,
        /// The answer, printable and cut.
        answer: String,
    },
    /// A file of ours cannot be read or written.
    #[error("cannot {action} `{}`: {source}", place(path).display())]
    Io {
        /// A verb: `read`, `write`, `rename`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The disk did not confirm a write that a landing stands on. Trying again would hide it: the kernel reports it once.
    #[error("the disk did not confirm `{}`: {source}; landing stops until a person has looked at the disk", place(path).display())]
    NotDurable {
        /// What could not be made durable.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The repository has no such object.
    #[error("object {id} is not in the repository")]
    Missing {
        /// The wanted object.
        id: ObjectId,
    },
    /// The repository has lost the object, or has it, but its file does not hold it any more.
    #[error("object {id} is damaged; it has to be put back from a copy of the repository")]
    Damaged {
        /// The object.
        id: ObjectId,
    },
    /// The same, where a ref of a change reaches it.
    #[error(
        "object {id}, which `{name}` reaches, is damaged; it has to be put back from a copy of the repository. Where there is \
         none, and it is of the change's record: once its file is gone, a comment on the change begins that anew"
    )]
    DamagedBelow {
        /// The object.
        id: ObjectId,
        /// The ref.
        name: RefName,
    },
    /// What the refs reach cannot be read, or what was saved of it is not as it was.
    #[error("{why}; it has to be put back from a copy of the repository")]
    Unreadable {
        /// What is wrong.
        why: String,
    },
    /// The repository, branch or ref is not there.
    #[error("{what} `{name}` does not exist")]
    NotThere {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Nothing is to use the repository: the server that has it could not put it right since it started. Its folder is
    /// missing, say, what a power cut left could not be looked through, or its rows could not be made from its refs.
    #[error(
        "the server has not put this repository right since it started; an admin finds the reason in the server's log"
    )]
    NotCleared,
    /// There is something already at the place that was to be made.
    #[error("`{}` exists already", place(path).display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// An object is not of the wanted kind.
    #[error("object {id} is a {found}, where a {wanted} is needed")]
    WrongKind {
        /// The object.
        id: ObjectId,
        /// What was asked for.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// An object breaks git's own rules.
    #[error("object {id} is malformed: {why}")]
    Malformed {
        /// The object.
        id: ObjectId,
        /// Which rule it breaks.
        why: String,
    },
    /// A bound on size or count was passed.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The disk is nearly full, and what was to be written would take what is kept free on it.
    #[error("there is no room for {} MiB more: {why}", needed.bytes.div_ceil(1 << 20))]
    NoRoom {
        /// What was to be written.
        needed: TreeMeasure,
        /// The words of whoever keeps the room free.
        why: String,
    },
    /// A text is not a full ref name.
    #[error("`{name}` is not a full ref name: it begins with `refs/` and follows `git check-ref-format`")]
    BadRefName {
        /// The text, printable and cut.
        name: String,
    },
    /// The two commits have no common ancestor.
    #[error("commits {} and {} have no common history, so they cannot be merged", ours.short(), theirs.short())]
    Unrelated {
        /// The branch's side.
        ours: CommitId,
        /// The change's side.
        theirs: CommitId,
    },
    /// A branch may only move forward.
    #[error("commit {} does not contain {}, so the branch cannot advance to it", to.short(), from.short())]
    NotForward {
        /// Where the branch is.
        from: CommitId,
        /// Where it was to go.
        to: CommitId,
    },
    /// The source of an import is not allowed.
    #[error("cannot import from `{address}`: {why}")]
    SourceRefused {
        /// What was asked for, printable and cut.
        address: String,
        /// Which rule forbids it, and what is allowed.
        why: &'static str,
    },
    /// No import's source can be named so.
    #[error("cannot import from `{address}`: {why}")]
    SourceUnfit {
        /// What was asked for, printable and cut.
        address: String,
        /// What is wrong with it, or what is taken.
        why: &'static str,
    },
    /// The source of an import has not the whole history of its branches.
    #[error(
        "some branches of the source did not come; a shallow clone is made whole by `git fetch --unshallow` in it"
    )]
    SourceNotWhole,
    /// The source of an import shows nothing to whoever asks so.
    #[error("`{address}` {}", if *given { "does not take the login that it was given" } else { "asks for a login" })]
    LoginRefused {
        /// What was asked for, printable and cut.
        address: String,
        /// Whether it was given a login.
        given: bool,
    },
    /// A text given by the caller cannot be used.
    #[error("{what} cannot be used: {why}")]
    BadInput {
        /// Which text.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl GitError {
    /// What the caller should do with this error.
    pub fn class(&self) -> ErrorClass {
        use GitError::*;
        match self {
            Deadline { .. } | MergeTooSlow { .. } | Interrupted { .. } => ErrorClass::Transient,
            Failed { .. } | Io { .. } | NoRoom { .. } => ErrorClass::Transient,
            // A person mends these while we run, and tells nobody.
            NotCleared | Damaged { .. } | DamagedBelow { .. } | Unreadable { .. } => ErrorClass::Transient,
            Exists { .. } => ErrorClass::Conflict,
            Missing { .. } | NotThere { .. } => ErrorClass::Gone,
            OutputTooLarge { .. } | WrongKind { .. } | Malformed { .. } | TooLarge { .. } => {
                ErrorClass::Invalid
            }
            BadRefName { .. } | Unrelated { .. } | NotForward { .. } => ErrorClass::Invalid,
            SourceUnfit { .. } | SourceNotWhole => ErrorClass::Invalid,
            LoginRefused { .. } | BadInput { .. } => ErrorClass::Invalid,
            NotStarted { .. } | TooOld { .. } | Unexpected { .. } => ErrorClass::Denied,
            NotDurable { .. } | SourceRefused { .. } => ErrorClass::Denied,
        }
    }

    /// Whether the repository itself is lost, damaged or none of ours: neither more time nor more room would help.
    pub fn is_of_the_repository(&self) -> bool {
        use GitError::*;
        match self {
            Damaged { .. } | DamagedBelow { .. } | Unreadable { .. } => true,
            NotThere { what, .. } => *what == "repository",
            BadInput { what, .. } => *what == "the repository",
            _ => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GitError + use<> {
        let path = path.to_owned();
        move |source| GitError::Io { action, path, source }
    }

    pub(crate) fn unexpected(call: &'static str, answer: &[u8]) -> GitError {
        GitError::Unexpected { call, answer: printable(answer) }
    }

    pub(crate) fn malformed(id: impl Into<ObjectId>, why: impl Into<String>) -> GitError {
        GitError::Malformed { id: id.into(), why: why.into() }
    }
}

/// A path, from the folder of the bare repository on that it is of.
pub(crate) fn place(path: &Path) -> &Path {
    let is_bare = |folder: &Path| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".new").unwrap_or(name);
        name.strip_suffix(".git").is_some_and(|repo| !repo.is_empty())
    };
    let repository = path.ancestors().find(|folder| is_bare(folder));
    let outside = repository.and_then(Path::parent);
    outside.and_then(|outside| path.strip_prefix(outside).ok()).unwrap_or(path)
}

/// Words of a git that ran in a folder, with its files named as [`place`] names them.
pub(crate) fn without_place(words: &str, folder: &Path) -> String {
    match folder.to_str() {
        Some(whole) if place(folder) != folder => words.replace(whole, &place(folder).to_string_lossy()),
        _ => words.to_owned(),
    }
}

/// Characters of foreign text that an error shows.
const SHOWN_CHARS_MAX: usize = 2_000;

/// Foreign bytes as text that cannot drive a terminal: control and direction characters become `?`, line ends stay.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let safe = |c: char| if c != '\n' && towpath_core::ids::is_unprintable(c) { '?' } else { c };
    text.trim().chars().take(SHOWN_CHARS_MAX).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_their_repository_on() {
        let inside = Path::new("/var/lib/towpath/repos/web.git/objects/ab/cd");
        assert_eq!(place(inside), Path::new("web.git/objects/ab/cd"));
        assert_eq!(place(Path::new("/data/web.git.new")), Path::new("web.git.new"));
        for other in ["/web/.git/index", "/tmp/file", "web"] {
            assert_eq!(place(Path::new(other)), Path::new(other));
        }
        let folder = Path::new("/var/lib/towpath/repos/web.git");
        let words = "error: object file /var/lib/towpath/repos/web.git/./objects/ab/cd is empty";
        assert_eq!(without_place(words, folder), "error: object file web.git/./objects/ab/cd is empty");
        assert_eq!(without_place("fatal: /tmp/web", Path::new("/tmp")), "fatal: /tmp/web");
        let error = GitError::io("read", inside)(io::ErrorKind::NotFound.into()).to_string();
        assert!(error.starts_with("cannot read `web.git/objects/ab/cd`: "), "{error}");
    }
}
