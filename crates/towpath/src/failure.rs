//! What a command failed of, in the one form in which every command says it.

use std::fmt;
use std::process::ExitCode;

use serde_json::json;
use towpath_executor::ExecutorError;
use towpath_git::{ErrorClass, GitError};
use towpath_pipeline::Diagnostics;

/// How the program ends. The numbers are documented in `--help` and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The job or change failed, or whoever was asked said no.
    Failed = 1,
    /// The words of the command, or a configuration, are wrong.
    Usage = 2,
    /// There is no such thing, or it may not be seen.
    NotFound = 3,
    /// The right to it is missing.
    Denied = 4,
    /// The thing has moved on since it was looked at.
    Conflict = 5,
    /// It took too long.
    TimedOut = 6,
    /// Server or forge cannot be reached, or cannot answer now.
    Unavailable = 7,
    /// Ctrl-C.
    Interrupted = 130,
    /// Whoever read the output has closed it: 128 and SIGPIPE, as other programs end then.
    OutputClosed = 141,
}

impl Exit {
    /// The exit that a server names by its code.
    pub fn of_code(code: u8) -> Option<Exit> {
        let known = [
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Denied,
            Exit::Conflict,
            Exit::TimedOut,
            Exit::Unavailable,
        ];
        known.into_iter().find(|exit| *exit as u8 == code)
    }
}

/// The line of every `--help` that says what the exit codes mean.
pub const EXIT_CODES: &str = "Exit codes: 0 ok, 1 the job or change failed, 2 usage or configuration, 3 not found, \
4 not permitted, 5 conflict or stale, 6 timed out, 7 server or forge unavailable, 130 interrupted.";

/// A failed command: what, why, and what to do next.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// Empty: everything was said before, only the exit code is left.
    what: String,
    why: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its exit code and what happened.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), why: None, hint: None }
    }

    /// A failure that has been shown in another way.
    pub fn shown(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// Adds why.
    pub fn why(self, why: impl Into<String>) -> Failure {
        Failure { why: Some(why.into()), ..self }
    }

    /// The same failure of something larger: what was said to have happened is part of why.
    pub fn of(self, what: impl Into<String>) -> Failure {
        let why = self.why.unwrap_or(self.what);
        Failure { what: what.into(), why: Some(why), ..self }
    }

    /// The same failure with another exit code.
    pub fn exiting(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// Adds what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// The code with which the program ends.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// Whether the same may go well when it is tried again.
    pub fn is_passing(&self) -> bool {
        matches!(self.exit, Exit::TimedOut | Exit::Unavailable)
    }

    /// Whether there is nothing left to say.
    pub fn is_shown(&self) -> bool {
        self.what.is_empty()
    }

    /// The failure as data, for `--json`.
    pub fn record(&self) -> serde_json::Value {
        json!({ "error": { "exit": self.exit as u8, "what": self.what, "why": self.why, "hint": self.hint } })
    }
}

/// Three lines: `error:`, `why:`, `hint:`. Further lines of one text are indented below its first.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indented = |text: &str| text.trim_end().replace('\n', "\n       ");
        write!(f, "error: {}", indented(&self.what))?;
        let lines = [("  why: ", &self.why), (" hint: ", &self.hint)];
        for (label, text) in lines.iter().filter_map(|(label, text)| Some((label, text.as_ref()?))) {
            write!(f, "\n{label}{}", indented(text))?;
        }
        Ok(())
    }
}

/// Only output can fail with a bare error of this kind; everything else names its file first.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::shown(Exit::OutputClosed),
            _ => Failure::new(Exit::Usage, "the output cannot be written").why(error.to_string()),
        }
    }
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Failure {
        let exit = match error.class() {
            ErrorClass::Gone => Exit::NotFound,
            ErrorClass::Conflict => Exit::Conflict,
            ErrorClass::Denied | ErrorClass::Invalid | ErrorClass::Transient => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<ExecutorError> for Failure {
    fn from(error: ExecutorError) -> Failure {
        match error {
            ExecutorError::Sandbox(refusal) => {
                Failure::new(Exit::Usage, refusal.what).why(refusal.why).hint(refusal.mend)
            }
            other => Failure::new(Exit::Usage, other.to_string()).hint("run `towpath doctor`"),
        }
    }
}

/// What is wrong with a definition is a list with places of its own.
impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Failure {
        let all = diagnostics.items.len() + diagnostics.left_off;
        let findings = if all == 1 { "1 finding".to_owned() } else { format!("{all} findings") };
        Failure::new(Exit::Usage, format!("the pipeline cannot be used: {findings}"))
            .why(diagnostics.render())
            .hint("mend the file and ask `towpath config check` again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_every_exit_code() {
        let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/commands.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let codes =
            guide.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok());
        let known = [
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Denied,
            Exit::Conflict,
            Exit::TimedOut,
            Exit::Unavailable,
            Exit::Interrupted,
            Exit::OutputClosed,
        ];
        let known: Vec<u8> = std::iter::once(0).chain(known.map(|exit| exit as u8)).collect();
        assert_eq!(codes.collect::<Vec<u8>>(), known);
    }

    #[test]
    fn a_refusal_teaches() {
        let failure = Failure::new(Exit::Conflict, "change 41 is not in the queue of `main`")
            .why("revision 3f2a9c1 has 0 of 1 approvals")
            .hint("a maintainer can run `towpath change approve 41 --revision 3f2a9c1`");
        expect_test::expect![[r#"
            error: change 41 is not in the queue of `main`
              why: revision 3f2a9c1 has 0 of 1 approvals
             hint: a maintainer can run `towpath change approve 41 --revision 3f2a9c1`"#]]
        .assert_eq(&failure.to_string());
    }
}
