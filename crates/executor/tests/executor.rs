//! Jobs in the real sandbox. Each attack case (docs: attacks) is a test named by its id.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic, as tests do

#[path = "executor/border.rs"]
mod border;
#[path = "executor/descriptors.rs"]
mod descriptors;
#[path = "executor/disk.rs"]
mod disk;
#[path = "executor/job_network.rs"]
mod job_network;
#[path = "executor/life.rs"]
mod life;
#[path = "executor/limits.rs"]
mod limits;
#[path = "executor/process.rs"]
mod process;
#[path = "executor/support.rs"]
mod support;
#[path = "executor/trees.rs"]
mod trees;
