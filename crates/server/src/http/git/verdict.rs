//! What a pusher hears of the change that a push moved.

use towpath_core::gate::Reason;
use towpath_core::ids::{BranchName, ChangeNumber};

/// What a gate says of a revision that was pushed.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it waits for.
    pub waits: Option<String>,
    /// What to look at once more: it lands, and nobody may have meant what comes then.
    pub note: Option<String>,
}

impl Heard {
    /// Out of the reasons that a change to `target` has.
    pub fn of(reasons: &[Reason], change: ChangeNumber, target: &BranchName) -> Heard {
        let note = reasons.iter().find(|reason| matches!(reason, Reason::LastToLand));
        let note = note.map(|reason| {
            let hint = reason.hint(change, target).unwrap_or_default();
            format!("note: {reason}; {hint}")
        });
        Heard { waits: waits_for(reasons), note }
    }
}

/// Whether a gate is about to say more: a run has its name only once the candidate is made.
pub fn is_settling(reasons: &[Reason]) -> bool {
    reasons.iter().any(|reason| matches!(reason, Reason::ReadingBranch | Reason::MakingCandidate))
}

/// What a change waits for: its run, where it has one, approvals, and whatever else a person has to do, so that nobody who did
/// one thing finds another behind it. `None`: for nothing.
fn waits_for(reasons: &[Reason]) -> Option<String> {
    let of_people = || reasons.iter().filter(|reason| reason.keeps_out_of_queue());
    let run = reasons.iter().find_map(|reason| match reason {
        Reason::WaitsForRun { run } => Some(format!("run {run}")),
        _ => None,
    });
    let things: Vec<String> = run.into_iter().chain(of_people().filter_map(approvals)).collect();
    let mut sentences: Vec<&Reason> = of_people().filter(|reason| approvals(reason).is_none()).collect();
    // What takes lines of its own stands below all others.
    sentences.sort_by_key(|reason| reason.details().len());
    let things = (!things.is_empty()).then(|| things.join(", "));
    let all: Vec<String> = things.into_iter().chain(sentences.into_iter().map(Reason::in_full)).collect();
    match all.is_empty() {
        false => Some(all.join("; ")),
        true => reasons.first().map(Reason::in_full),
    }
}

/// Who has just pushed a revision need not hear which one is to be approved.
fn approvals(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Approvals { have, need, .. } => Some(match need.saturating_sub(*have) {
            1 => "1 approval".into(),
            missing => format!("{missing} approvals"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use towpath_core::ids::CommitId;

    use super::*;

    fn run() -> Reason {
        Reason::WaitsForRun { run: "demo/main/12".parse().unwrap() }
    }

    fn lacks(need: u32) -> Reason {
        Reason::Approvals { have: 0, need, revision: CommitId([0xab; 20]) }
    }

    #[track_caller]
    fn check(reasons: &[Reason], expected: Option<&str>) {
        assert_eq!(waits_for(reasons).as_deref(), expected);
    }

    #[test]
    fn the_run_is_named_also_where_a_person_is_waited_for() {
        check(&[run()], Some("run demo/main/12"));
        check(&[lacks(1), run()], Some("run demo/main/12, 1 approval"));
        check(&[lacks(2), run()], Some("run demo/main/12, 2 approvals"));
        let held = Reason::Held { by: "ann".into(), why: "wait".into() };
        check(&[held, lacks(1), run()], Some("run demo/main/12, 1 approval; ann holds it: wait"));
        check(&[run(), Reason::Ahead { changes: vec![ChangeNumber(3)] }], Some("run demo/main/12"));
    }

    #[test]
    fn what_people_have_to_do_is_named_in_full() {
        let label = Reason::Label { label: "WIP".into() };
        check(
            &[label.clone(), lacks(1), run()],
            Some("run demo/main/12, 1 approval; it has the label `WIP`"),
        );
        check(&[label.clone(), run()], Some("run demo/main/12; it has the label `WIP`"));
        let errors = vec!["towpath.yaml:1:1: broken".to_owned()];
        let broken = Reason::BadDefinition { errors };
        let sentence = broken.to_string();
        check(
            &[broken, label],
            Some(&format!("it has the label `WIP`; {sentence}\ntowpath.yaml:1:1: broken")),
        );
    }

    #[test]
    fn without_a_run_the_first_reason_is_told() {
        check(&[], None);
        check(&[Reason::Draft, lacks(1)], Some("1 approval; it is a draft, so nothing runs"));
        check(&[lacks(1), Reason::WaitsForChangeRuns { running: 3 }], Some("1 approval"));
        check(&[Reason::Ahead { changes: vec![ChangeNumber(3)] }], Some("ahead of it: 3"));
    }

    #[test]
    fn what_a_change_leaves_behind_is_told_beside_what_it_waits_for() {
        let heard = Heard::of(&[run(), Reason::LastToLand], ChangeNumber(1), &"main".parse().unwrap());
        assert_eq!(heard.waits.as_deref(), Some("run demo/main/12"));
        assert!(heard.note.unwrap().starts_with("note: its pipeline requires no job"));
    }

    #[test]
    fn a_gate_that_reads_or_merges_is_about_to_say_more() {
        assert!(is_settling(&[lacks(1), Reason::MakingCandidate]));
        assert!(is_settling(&[Reason::ReadingBranch]));
        assert!(!is_settling(&[lacks(1), run()]) && !is_settling(&[]));
    }
}
