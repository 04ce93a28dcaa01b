//! What came of seeds, for people and for programs.

use std::fmt;

use serde::Serialize;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its number in the design.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// What came of one seed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SeedResult {
    /// Which.
    pub seed: u64,
    /// Changes that were opened.
    pub changes: u64,
    /// Changes that landed.
    pub landed: u64,
    /// Events, answers and messages that cells applied.
    pub events: u64,
    /// Faults that fired.
    pub faults: u64,
    /// Virtual milliseconds that passed.
    pub virtual_ms: i64,
    /// Identifies everything that happened.
    pub trace_hash: u64,
    /// What was broken; the world stops at the first.
    pub violations: Vec<Violation>,
    /// The newest lines of the trace, for a seed that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// What came of many seeds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// How many.
    pub seeds: u64,
    /// Seeds with a violation.
    pub failed: u64,
    /// Seeds that ran a second time and gave the same trace.
    pub run_twice: u64,
    /// The least changes, events and faults of a seed.
    pub least: Least,
    /// Over all seeds.
    pub changes: u64,
    /// Over all seeds.
    pub landed: u64,
    /// Over all seeds.
    pub events: u64,
    /// Over all seeds.
    pub faults: u64,
    /// Over all seeds.
    pub violations: u64,
    /// Over all seeds, in their order.
    pub trace_hash: u64,
    /// Every seed that failed.
    pub failures: Vec<SeedResult>,
}

/// The least that any seed had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Least {
    /// Changes opened.
    pub changes: u64,
    /// Events applied.
    pub events: u64,
    /// Faults fired.
    pub faults: u64,
}

impl Summary {
    /// Adds one seed; seeds are added in their order.
    pub fn add(&mut self, result: SeedResult) {
        let least = Least { changes: result.changes, events: result.events, faults: result.faults };
        self.least = match self.seeds {
            0 => least,
            _ => Least {
                changes: self.least.changes.min(least.changes),
                events: self.least.events.min(least.events),
                faults: self.least.faults.min(least.faults),
            },
        };
        self.seeds += 1;
        self.changes += result.changes;
        self.landed += result.landed;
        self.events += result.events;
        self.faults += result.faults;
        self.violations += result.violations.len() as u64;
        self.trace_hash = self.trace_hash.rotate_left(5) ^ result.trace_hash;
        if !result.violations.is_empty() {
            self.failed += 1;
            self.failures.push(result);
        }
    }
}

impl fmt::Display for SeedResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        for violation in &self.violations {
            writeln!(f, "{} is broken: {}", violation.invariant, violation.what)?;
        }
        write!(f, "towpath sim --from {} --seeds 1", self.seed)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}\n"))?;
        write!(
            f,
            "seeds {} ({} of them twice; each with {} changes, {} events and {} faults at least), changes {}, landed {}, \
             events {}, faults {}, violations {}, trace {:016x}",
            self.seeds,
            self.run_twice,
            self.least.changes,
            self.least.events,
            self.least.faults,
            self.changes,
            self.landed,
            self.events,
            self.faults,
            self.violations,
            self.trace_hash
        )
    }
}
