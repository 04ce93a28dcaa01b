//! A few seeds, cuts and planted bugs, so that every change of the core meets the simulator; `towpath sim` runs as many
//! seeds as one likes, with `--sweep` every cut, and with `--mutants` every planted bug.

use towpath_sim::{Mutant, Options, hunt, run, sweep};

/// Of the 20,000 cuts, so many apart are played here.
const EVERY: usize = 300;

#[test]
fn faulty_worlds_keep_the_invariants_and_come_to_rest() {
    let summary = run(1, 2, Options::default());
    assert_eq!(summary.violations, 0, "{summary}");
    let least = summary.least;
    assert!(least.changes >= 40 && least.events >= 2_000 && least.faults >= 25, "{least:?}");
    assert!(summary.landed > 0 && summary.run_twice > 0, "{summary}");
}

#[test]
fn stories_end_the_same_wherever_the_server_dies_and_if_every_effect_is_done_twice() {
    let summary = sweep(2, EVERY);
    assert_eq!(summary.violations, []);
    assert!(summary.points > 400 && summary.runs > 50, "{summary:?}");
}

#[test]
fn bugs_that_are_rare_in_worlds_of_chance_are_noticed_in_stories_of_their_own() {
    let bugs = [
        (Mutant::FailuresAreForgotten, "the newest result of `wheel`, in run 3, is"),
        (Mutant::RetriesKeepEverything, "was put aside by a retry"),
        (Mutant::StoppedIsPassed, "`integ` of run 1 was made of another `wheel`"),
        (Mutant::AbortedIsPassed, "nobody has shown that `integ 0` passes on it"),
        (Mutant::EverybodyIsShownAll, "begins as Authorised, and in truth it is Some(Vouched)"),
        (Mutant::VouchesAreForAnyDefinition, "begins as Vouched, and in truth it is Some(Untrusted)"),
        (Mutant::VouchesNeverEnd, "runs on, which in truth is Some(Untrusted)"),
        (Mutant::LackingIsMoved, "had landed, and does not freeze"),
        (Mutant::RestoresAreDiskFailures, "deploys what may have been deployed before a restore"),
        (Mutant::LandingsDoNotHearOfRestores, "what had landed before"),
        (Mutant::MovesAreForgotten, "holds it since it was elsewhere"),
        (Mutant::DeparturesAreNotHeard, "user 1 holds it"),
    ];
    for (bug, by) in bugs {
        let notice = hunt(bug, 1, 1);
        assert!(notice.by.as_ref().is_some_and(|violation| violation.what.contains(by)), "{notice:?}");
    }
}

#[test]
fn planted_bugs_are_noticed() {
    let bugs = [
        Mutant::StoreIgnoresEpochs,
        Mutant::StoreKeepsConsumed,
        Mutant::EverybodyIsAdmin,
        Mutant::NobodyAsksWhatHolds,
        Mutant::HoldsStayBehind,
    ];
    for bug in bugs {
        let notice = hunt(bug, 1, 6);
        assert!(notice.by.is_some(), "{notice:?}");
    }
}
