//! What can go wrong with a forge, and what it asks of the caller.

use towpath_core::cell::{Refusal, RefusalClass};
use towpath_git::{ErrorClass, GitError};

use crate::records::RecordsError;

/// A failed call. The text says what, why, and what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// Something was in the way: the same call may succeed later.
    #[error("{what} cannot be used now: {why}")]
    Transient {
        /// What was tried.
        what: String,
        /// How it failed.
        why: String,
    },
    /// It is not allowed, or the machine cannot keep its promise: a person has to act.
    #[error("{what} is not possible: {why}")]
    Denied {
        /// What was tried.
        what: String,
        /// Why not.
        why: String,
    },
    /// The disk did not confirm a write that others stand on: nothing may land until a person has looked at it.
    #[error("{what} is not safe on the disk: {why}")]
    Unsynced {
        /// What was written.
        what: String,
        /// What the disk said.
        why: String,
    },
    /// Somebody else's write came first: read again, then decide again.
    #[error("{what} came too late: {why}")]
    Conflict {
        /// What was tried.
        what: String,
        /// What came first.
        why: String,
    },
    /// What was named does not exist (any more).
    #[error("{what}: {why}")]
    Gone {
        /// What was tried.
        what: String,
        /// What is missing.
        why: String,
    },
    /// It can never work, however often it is tried.
    #[error("{what} cannot work: {why}")]
    Invalid {
        /// What was tried.
        what: String,
        /// Why not.
        why: String,
    },
}

impl ForgeError {
    /// What the caller should do.
    pub fn class(&self) -> ErrorClass {
        match self {
            ForgeError::Transient { .. } => ErrorClass::Transient,
            ForgeError::Denied { .. } | ForgeError::Unsynced { .. } => ErrorClass::Denied,
            ForgeError::Conflict { .. } => ErrorClass::Conflict,
            ForgeError::Gone { .. } => ErrorClass::Gone,
            ForgeError::Invalid { .. } => ErrorClass::Invalid,
        }
    }

    /// An error of some class.
    pub fn new(class: ErrorClass, what: impl Into<String>, why: impl Into<String>) -> ForgeError {
        let (what, why) = (what.into(), why.into());
        match class {
            ErrorClass::Transient => ForgeError::Transient { what, why },
            ErrorClass::Denied => ForgeError::Denied { what, why },
            ErrorClass::Conflict => ForgeError::Conflict { what, why },
            ErrorClass::Gone => ForgeError::Gone { what, why },
            ErrorClass::Invalid => ForgeError::Invalid { what, why },
        }
    }
}

impl From<GitError> for ForgeError {
    fn from(error: GitError) -> Self {
        let (what, why) = ("the repository".to_owned(), error.to_string());
        match error {
            GitError::NotDurable { .. } => ForgeError::Unsynced { what, why },
            error => ForgeError::new(error.class(), what, why),
        }
    }
}

impl From<RecordsError> for ForgeError {
    fn from(error: RecordsError) -> Self {
        ForgeError::Transient { what: "the forge's records".into(), why: error.0 }
    }
}

/// Why a person's request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It is not allowed, or not possible as things are. Data for the person.
    Refused(Refusal),
    /// Our side failed; the person did nothing wrong.
    Failed(ForgeError),
}

/// The answer to a person's request.
pub type Done<T> = Result<T, Failure>;

impl Failure {
    /// A refusal.
    pub(crate) fn refused(class: RefusalClass, why: impl Into<String>) -> Failure {
        Failure::Refused(Refusal::new(class, why))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(refusal) => f.write_str(&refusal.why),
            Failure::Failed(error) => error.fmt(f),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl From<ForgeError> for Failure {
    fn from(error: ForgeError) -> Self {
        Failure::Failed(error)
    }
}

impl From<RecordsError> for Failure {
    fn from(error: RecordsError) -> Self {
        Failure::Failed(error.into())
    }
}

/// What a person named or sent is a refusal; everything else is ours.
impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        match error.class() {
            ErrorClass::Gone => Failure::refused(RefusalClass::NotFound, error.to_string()),
            ErrorClass::Invalid => Failure::refused(RefusalClass::Invalid, error.to_string()),
            ErrorClass::Transient | ErrorClass::Conflict | ErrorClass::Denied => {
                Failure::Failed(error.into())
            }
        }
    }
}
