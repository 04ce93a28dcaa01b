//! Holding a fort: one case after another, and after each of them a look at what has to hold whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Instant;

use super::fort::Fort;

/// What earlier looks have found to be in order, and need not look at again.
#[derive(Default)]
pub struct Seen {
    /// How many words were searched for canaries.
    pub words: usize,
    /// Tips of `main` that were tested.
    pub tips: BTreeSet<String>,
    /// Runs that are over: the tree that each ran on, and the jobs that passed.
    pub runs: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Changes that were asked for, with all about them.
    pub changes: BTreeSet<u64>,
    /// Runs that were asked for, with all about them.
    pub asked: BTreeSet<String>,
    /// Files without a canary, as they were.
    pub files: BTreeMap<PathBuf, Stamp>,
}

/// Inode, size, and when it was written and changed.
pub type Stamp = (u64, u64, [i64; 4]);

impl Fort {
    /// Runs one case, or several that are one attack, then looks at what holds after it; goes on if it fails.
    pub fn hold(&self, cases: &str, attack: impl FnOnce(&Fort)) {
        let began = Instant::now();
        let held = caught(|| attack(self));
        let attacked = began.elapsed();
        let held = held.and_then(|()| caught(|| self.check_aftermath(cases)));
        self.tell(cases, held, &format!("{attacked:.1?} and {:.1?}", began.elapsed() - attacked));
    }

    /// The same for a control that lets everything out: only what holds even then is looked at.
    pub fn hold_open(&self, cases: &str, attack: impl FnOnce(&Fort)) {
        let began = Instant::now();
        let held = caught(|| {
            attack(self);
            self.check_nothing_is_left();
            self.check_an_honest_change_lands(cases);
            self.check_repository_and_log();
        });
        self.tell(cases, held, &format!("{:.1?}", began.elapsed()));
    }

    /// The lines that `cargo xtask attacks` reads.
    fn tell(&self, cases: &str, held: Result<(), String>, took: &str) {
        for case in cases.split(", ") {
            println!("attack {case}: {} after {took}", if held.is_ok() { "held" } else { "FAILED" });
        }
        if let Err(said) = held {
            self.failed.lock().unwrap().push(format!("{cases}: {said}"));
        }
    }

    /// Names the cases that failed, and looks a last time at all there is.
    pub fn end(self) {
        let failed = std::mem::take(&mut *self.failed.lock().unwrap());
        let after = catch_unwind(AssertUnwindSafe(|| {
            *self.seen.lock().unwrap() = Seen::default();
            self.check_no_canary_is_out();
            self.check_no_object_holds_a_canary();
        }));
        assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        if let Err(panic) = after {
            resume_unwind(panic);
        }
    }
}

/// What a panic said.
fn caught(work: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        said.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or("it panicked".into())
    })
}
