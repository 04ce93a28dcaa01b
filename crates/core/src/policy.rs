//! Who may do what: roles, levels.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// A person's rights on one repo. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May see it.
    Reader,
    /// May upload changes; whether these are tested at once is for the list of authorised authors to say.
    Author,
    /// May approve, vouch, hold, freeze, retry.
    Maintainer,
    /// May change rights, settings and secrets.
    Admin,
}

/// How far a revision is trusted (trust T1). A candidate has the lowest level in its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing runs.
    Untrusted,
    /// Runs without secrets, shared caches or published output.
    Vouched,
    /// Runs with the secrets that the server's policy gives to changes.
    Authorised,
    /// On the branch.
    Landed,
}

/// What one person may do on one branch, as the forge says at the time of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// The role on the repo.
    pub role: Role,
    /// Whether the person's own uploads are tested without being asked for.
    pub authorised: bool,
}

/// A person who acts, as authenticated at intake; never taken from Git's author fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The forge's number for the person.
    pub user: UserId,
    /// The name, for records and pages.
    pub name: String,
}
