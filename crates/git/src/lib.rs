//! Git for Towpath: objects, merges, differences, compare-and-swap of refs, work trees.
//!
//! The only crate that starts git, always with an environment of its own ([`Git`]). Everything blocks, and everything
//! ends by a deadline; the server calls it from threads made for that. Deliberately absent: decisions.

mod base;
mod bundle;
mod candidate;
mod checkout;
mod coprocess;
mod copy;
mod diff;
mod durable;
mod environment;
mod error;
mod export;
mod garbage;
mod history;
mod import;
mod land;
mod list;
mod mend;
mod merge;
mod note;
mod object;
mod orphans;
mod process;
mod read;
mod record;
mod refs;
mod repository;
pub mod sample;
mod serve;
mod service;
mod source;
mod walk;

pub use base::{Base, BaseOptions, BaseStore, Pin, spread_folders};
pub use candidate::CandidateOutcome;
pub use checkout::{Checkout, CheckoutFiles, CheckoutHead, Remote, Setting};
pub use copy::Copied;
pub use diff::ChangedPaths;
pub use durable::UnsyncedListener;
pub use environment::{Git, GitOptions, VERSION_NEEDED};
pub use error::{ErrorClass, GitError};
pub use export::{ExportOptions, Files, Owner, Room};
pub use garbage::Litter;
pub use history::{DatedCommit, Range, Walk};
pub use import::{Credentials, ImportOptions, Imported, ODD_MODES, Source, import};
pub use land::Advance;
pub use mend::Mended;
pub use merge::Merged;
pub use object::{CommitInfo, ObjectId, Person, TreePath};
pub use process::Interrupt;
pub use read::FileAt;
pub use record::{Part, Record};
pub use refs::{Expected, Ref, RefName, RefUpdate, Transaction};
pub use repository::Repository;
pub use serve::{Serving, ServingInput};
pub use service::{Exchange, Service, ServiceOptions};
pub use source::Reach;
pub use walk::{TREE_LIMITS, TreeLimits, TreeMeasure};
