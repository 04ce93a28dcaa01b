//! The one error of this tool: what failed, why, and what to do next.

use std::fmt::Display;

/// Ends a command. A finding of a rule or a failed step is no `Failure`: it is the command's answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}\n  why: {why}\n hint: {hint}")]
pub struct Failure {
    what: String,
    why: String,
    hint: String,
    /// Wrong words on the command line, as against a machine that does not do its part.
    pub is_usage: bool,
}

impl Failure {
    /// Something that this machine did not do.
    pub fn new(what: impl Display, why: impl Display, hint: impl Display) -> Failure {
        Failure { what: what.to_string(), why: why.to_string(), hint: hint.to_string(), is_usage: false }
    }

    /// A word that is none of those which a command takes.
    pub fn unknown(what: impl Display, why: impl Display, hint: impl Display) -> Failure {
        Failure { is_usage: true, ..Failure::new(what, why, hint) }
    }

    /// A command line that means nothing.
    pub fn usage(why: impl Display) -> Failure {
        let hint = "`cargo xtask help` lists the commands";
        Failure { is_usage: true, ..Failure::new("the command line is not understood", why, hint) }
    }
}
