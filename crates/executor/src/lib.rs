//! Runs jobs: one process beside the server that owns sandboxes, limits, logs and outputs, and outlives the server.
//!
//! Deliberately absent: scheduling, retries and every other decision. The server says what to start and to cancel;
//! the executor says how it ended, durably, until the server has it (DESIGN 8).
//!
//! A job's processes are bounded by bubblewrap (reference: trust S1 to S3). [`launcher`] starts it, [`slot`]
//! follows it, [`verdict`] says how it ended, [`outputs`] takes what it made. Where jobs fill a disk, [`sharing`] says which
//! of them ends.

mod cgroup;
mod client;
pub mod command;
pub mod doctor;
pub mod environment;
mod etc;
pub mod held_signals;
mod host;
mod journal;
mod launcher;
mod outputs;
mod plain;
mod pool;
mod prepare;
mod probe;
pub mod profile;
pub mod protocol;
mod pump;
mod run_logs;
pub mod seccomp;
mod secret_files;
mod sender;
mod serve;
mod sharing;
mod slot;
mod socket;
mod spec;
mod sys;
mod terminals;
pub mod toolchains;
mod tree;
mod verdict;
mod walk;
mod watch;
mod wire;

pub use cgroup::LimitMode;
pub use client::{ConnectError, ExecutorClient, ExecutorEvent, StartMessage, start_executor};
pub use host::{ALONE_MAX, ExecutorConfig, JOB_USER_FIRST, JOB_USERS_PER_EXECUTOR, ORPHAN_MAX, TreeMode};
pub use launcher::sandbox_helper;
pub use pool::{BACKLOG_MAX, ExecutorError, JobEvent, JobPool};
pub use probe::{ProbeRefusal, SandboxCapabilities};
pub use serve::serve;
pub use socket::is_free_within;
pub use spec::{GrantedSecret, JUNIT_BYTES_MAX, JobEnd, Limits, SandboxKind, StartSpec};
pub use walk::remove_tree;
pub use wire::{EncodeError, FRAME_BYTES_MAX};
