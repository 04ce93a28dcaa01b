//! A few seeds, so that every change of the core meets the simulator; `towpath sim` runs as many as one likes.

use towpath_sim::{Options, run};

#[test]
fn faulty_worlds_keep_the_invariants_and_come_to_rest() {
    let summary = run(1, 2, Options::default());
    assert_eq!(summary.violations, 0, "{summary}");
    let least = summary.least;
    assert!(least.changes >= 40 && least.events >= 2_000 && least.faults >= 25, "{least:?}");
    assert!(summary.landed > 0 && summary.run_twice > 0, "{summary}");
}
