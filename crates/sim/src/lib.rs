//! Seeded worlds over the real core.
//!
//! One world is a forge, a git, a store, an executor, servers and people in memory, on one thread and in virtual time.
//! What decides is the real [`towpath_core::turn::Live`]. A seed decides everything else: what people do, which faults
//! there are and how often, and when. After every step the invariants of the design are checked; at the end the
//! faults stop and the world has to come to rest with everything done that can be done.
//!
//! Deliberately absent: threads within a world, real time, real I/O.

mod check;
mod fake;
mod faults;
mod golden;
mod mutant;
mod report;
mod rng;
mod run;
mod trace;
mod world;

pub use golden::{SweepSummary, sweep};
pub use mutant::{Hunted, MUTANTS, Mutant, Notice, hunt, hunt_all};
pub use report::{SeedResult, Summary, Violation};
pub use run::{Options, run};
