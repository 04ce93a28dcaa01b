//! What server and executor say to each other over the executor's socket.
//!
//! One server at a time: the one with the highest epoch. Every message is safe to repeat: starting a lease that is
//! known starts nothing, cancelling or acknowledging one that is unknown does nothing.

use serde::{Deserialize, Serialize};
use towpath_core::ids::{Digest, Epoch, LeaseId};

use crate::spec::{JobEnd, StartSpec};

/// Both sides must speak the same version. An executor outlives a server that is replaced, so a change here takes a
/// version that the executor before still understands, or a person who stops that one.
pub const PROTOCOL_VERSION: u32 = 1;

/// From the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToExecutor {
    /// First message: takes the executor over.
    Hello {
        /// [`PROTOCOL_VERSION`] of the server.
        version: u32,
        /// The server's epoch. A lower one than the last is refused.
        epoch: Epoch,
        /// Leases that the server knows; others that run are killed. `None`: none is killed.
        known: Option<Vec<LeaseId>>,
    },
    /// Run a job.
    Start {
        /// The job.
        spec: Box<StartSpec>,
    },
    /// End a job.
    Cancel {
        /// Its lease.
        lease: LeaseId,
    },
    /// These ends are durable in the server.
    Ack {
        /// Their leases.
        leases: Vec<LeaseId>,
    },
    /// Say which leases there are.
    List,
    /// End the process.
    Stop {
        /// What happens to running jobs.
        mode: StopMode,
    },
}

/// How an executor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Takes no further jobs, lets go of those that wait for a slot, and ends when the last that runs is over. Its end
    /// stays in the journal for the next executor.
    WhenIdle,
    /// Cancels everything and ends.
    Now,
}

/// From the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromExecutor {
    /// The server has the executor now. Unacknowledged ends follow.
    Welcome(Welcome),
    /// The server may not have it.
    Refused {
        /// One sentence.
        why: String,
        /// The epoch that has it.
        epoch: Epoch,
    },
    /// A job has a slot and begins.
    Started {
        /// Its lease.
        lease: LeaseId,
    },
    /// A job is over; said again after each [`ToExecutor::Hello`] until acknowledged.
    Ended {
        /// Its end.
        end: Box<JobEnd>,
    },
    /// Answer to [`ToExecutor::List`].
    Leases(Leases),
}

/// What a server learns when it takes an executor over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL_VERSION`] of the executor.
    pub version: u32,
    /// Random, new for each process: it tells two executors apart, for people and tests. Servers go by the leases.
    pub incarnation: String,
    /// Process id, for people.
    pub pid: u32,
    /// Jobs at once.
    pub slots: u32,
    /// Whether results will be marked as unsandboxed.
    pub unsandboxed: bool,
    /// It was told to end, and begins no further job. One that does not say so takes jobs, as far as it knows.
    #[serde(default)]
    pub stopping: bool,
    /// It ends with its server, and its jobs with it.
    #[serde(default)]
    pub ends_with_server: bool,
    /// Stands for the tools that its jobs find. One that does not say has those that a server wants, as far as it knows.
    #[serde(default)]
    pub tools: Option<Digest>,
    /// What it has.
    pub leases: Leases,
}

/// Leases that an executor has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leases {
    /// Waiting for a slot or running.
    pub active: Vec<LeaseId>,
    /// Over, and not acknowledged.
    pub unacked: Vec<LeaseId>,
}
