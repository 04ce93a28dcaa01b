//! What landing takes, item by item, read off the reasons that stand against it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::candidate::CandidateResult;
use towpath_core::effect::Effect;
use towpath_core::gate::{Change, Gate, GateState, Reason, TestState};
use towpath_core::ids::{BranchName, ChangeNumber, Timestamp};
use towpath_core::turn::Live;

use super::change_views::ReasonView;
use ItemId::{Approved, Branch, Joins, Outside, Ready, Tested, Trusted, Turn, Usable};

/// One item of what landing takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// Which one.
    pub id: ItemId,
    /// What it takes, for people.
    pub item: String,
    /// Whether that is so.
    pub met: bool,
    /// Why not. Empty although not met: it was not looked at yet.
    pub why: Vec<ReasonView>,
    /// It was looked at before the change or its branch became what they are now, and not since.
    #[serde(default)]
    pub outdated: bool,
}

/// Names an item, whatever its words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemId {
    /// Nobody holds it back.
    Ready,
    /// Something of it may run.
    Trusted,
    /// It can be joined with the branch.
    Joins,
    /// Its pipeline can be used.
    Usable,
    /// What is required has passed.
    Tested,
    /// Those who have to agree do.
    Approved,
    /// Nothing is ahead of it.
    Turn,
    /// Nothing stops all landings.
    Branch,
    /// Nothing outside fails.
    Outside,
}

/// Whether a reason stands against an item.
type Against = fn(&Reason) -> bool;

/// The items of the checklist in words, and which reasons stand against each.
const ITEMS: [(ItemId, &str, Against); 9] = [
    (Ready, "it is ready, and nobody holds it", |reason| {
        matches!(reason, Reason::Draft | Reason::Label { .. } | Reason::Held { .. } | Reason::Arriving { .. })
    }),
    (Trusted, "its author is trusted", |reason| matches!(reason, Reason::Untrusted { .. })),
    (Joins, "it joins the branch without a conflict", |reason| {
        matches!(
            reason,
            Reason::Conflict { .. }
                | Reason::NoCandidate { .. }
                | Reason::TooSlow { .. }
                | Reason::NothingToLand
                | Reason::MakingCandidate
                | Reason::NoBranch
                | Reason::NotAccepted { .. }
                | Reason::ReadingBranch
        )
    }),
    (Usable, "its pipeline can be used and tests something", |reason| {
        matches!(
            reason,
            Reason::BadDefinition { .. } | Reason::EmptySet | Reason::NoJobs | Reason::LastToLand
        )
    }),
    (Tested, "the required jobs passed", |reason| {
        matches!(
            reason,
            Reason::TestsFailed { .. }
                | Reason::OurMachines { .. }
                | Reason::NotRun { .. }
                | Reason::RunCancelled { .. }
                | Reason::WaitsForRun { .. }
                | Reason::TestedAgain { .. }
                | Reason::WaitsForChangeRuns { .. }
                | Reason::OverBudget { .. }
        )
    }),
    (Approved, "it is approved", |reason| {
        matches!(
            reason,
            Reason::Approvals { .. }
                | Reason::Unauthorised { .. }
                | Reason::ChangesRequested { .. }
                | Reason::DefinitionApproval { .. }
        )
    }),
    (Turn, "it is its turn", |reason| matches!(reason, Reason::Ahead { .. })),
    (Branch, "the branch takes landings", |reason| {
        matches!(
            reason,
            Reason::Frozen { .. }
                | Reason::Halted { .. }
                | Reason::WaitsForDeploy { .. }
                | Reason::DeployIsDue { .. }
        )
    }),
    (Outside, "everything outside works", |reason| {
        matches!(reason, Reason::Unreadable { .. } | Reason::Trouble { .. })
    }),
];

/// What is looked at only from some point on: before it, that nothing stands against an item says nothing.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// It was joined with the branch as it is.
    joined: bool,
    /// Its pipeline was read there.
    pipeline: bool,
    /// The run that speaks for it has passed.
    passed: bool,
    /// It is in the queue.
    queued: bool,
    /// A run of this very revision was started, so that it had been joined with the branch and its pipeline read.
    ran: bool,
}

impl Known {
    fn of(state: &GateState, change: &Change, now: Timestamp) -> Known {
        use CandidateResult::{BadDefinition, Made};
        let revision = Some((change.facts.number, change.facts.revision.commit));
        let joined = state.candidate_result(change);
        Known {
            joined: joined.is_some(),
            pipeline: matches!(joined, Some(Made(_) | BadDefinition { .. })),
            passed: matches!(state.test_state(change), TestState::Passed(_)),
            queued: state.queue(now).contains(&change.facts.number),
            ran: state.runs().values().any(|run| run.change == revision),
        }
    }

    fn of_item(self, item: ItemId) -> bool {
        match item {
            Joins => self.joined,
            Usable => self.pipeline,
            Tested => self.passed,
            Turn => self.queued,
            Ready | Trusted | Approved | Branch | Outside => true,
        }
    }

    /// Whether an item of which nothing is known now was looked at before.
    fn had(self, item: ItemId) -> bool {
        self.ran && matches!(item, Joins | Usable)
    }
}

/// The checklist of an open change. What stands against every landing does so whatever else the change lacks.
pub fn checklist(live: &Live<Gate>, change: &Change, now: Timestamp) -> Vec<Item> {
    let (state, number) = (&live.state, change.facts.number);
    let mut reasons = state.reasons(number, now);
    let of_all = state.landing_obstacles().into_iter().filter(|reason| !reasons.contains(reason));
    let of_all: Vec<Reason> = of_all.chain(troubles(live, number)).collect();
    reasons.extend(of_all);
    items(&reasons, Known::of(state, change, now), (number, &state.id.branch))
}

fn items(reasons: &[Reason], known: Known, (number, target): (ChangeNumber, &BranchName)) -> Vec<Item> {
    let item = |(id, item, against): &(ItemId, &str, Against)| {
        let why = reasons.iter().filter(|reason| against(reason));
        let why: Vec<ReasonView> = why.map(|reason| ReasonView::of(reason, number, target)).collect();
        let met = why.is_empty() && known.of_item(*id);
        let outdated = !met && why.is_empty() && known.had(*id);
        Item { id: *id, item: (*item).to_owned(), met, why, outdated }
    };
    ITEMS.iter().map(item).collect()
}

/// Why a change that is open at the forge has not landed, with what fails outside: where the branch cannot be read, the rest
/// is from before. A change that the gate has not seen yet waits for a reading.
pub fn why_open(live: &Live<Gate>, change: ChangeNumber, now: Timestamp) -> Vec<Reason> {
    let mut reasons = live.state.reasons(change, now);
    if reasons.is_empty() {
        reasons.push(Reason::ReadingBranch);
    }
    reasons.extend(troubles(live, change));
    reasons
}

/// What a change needs done outside and what failed when it was last tried.
fn troubles(live: &Live<Gate>, change: ChangeNumber) -> impl Iterator<Item = Reason> {
    let is_of_change =
        move |id| live.state.candidates().get(id).is_some_and(|record| record.change == change);
    live.outbox.rows.values().filter_map(move |row| {
        let what = match row.effect.as_ref()? {
            Effect::ReadForge { .. } => "reading the branch",
            Effect::MakeCandidate { id, .. } if is_of_change(id) => "making its candidate",
            Effect::Land(landing) if landing.change == change => "landing it",
            _ => return None,
        };
        Some(Reason::Trouble { what: what.to_owned(), why: row.trouble.as_ref()?.why.clone() })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use towpath_core::cell::CellId;
    use towpath_core::definition::GateSettings;
    use towpath_core::gate::{
        Bell, Command, ForgeChange, ForgeRead, GateEvent, HaltCause, Labels, RevisionFacts, Snapshot, Tip,
        Verb,
    };
    use towpath_core::ids::{CommitId, Epoch, GateId, TreeId, UserId};
    use towpath_core::outbox::{Dispatch, Trouble, TroubleClass};
    use towpath_core::policy::{Actor, Rights, Role};
    use towpath_core::turn::{Delivered, Intake};

    use super::*;

    #[test]
    fn every_reason_stands_against_exactly_one_item() {
        let commit = "0123456789012345678901234567890123456789".parse().unwrap();
        let run: towpath_core::ids::RunId = "demo/main/1".parse().unwrap();
        let text = String::from("x");
        let all = [
            Reason::NoBranch,
            Reason::NotAccepted { tip: commit },
            Reason::Unreadable { why: text.clone() },
            Reason::Untrusted { revision: commit },
            Reason::Draft,
            Reason::Label { label: text.clone() },
            Reason::Arriving { from: "main".parse().unwrap() },
            Reason::Held { by: text.clone(), why: text.clone() },
            Reason::Conflict { paths: vec![] },
            Reason::NoCandidate { why: text.clone() },
            Reason::TooSlow { why: text.clone() },
            Reason::NothingToLand,
            Reason::BadDefinition { errors: vec![] },
            Reason::TestsFailed { run: run.clone(), jobs: vec![] },
            Reason::OurMachines { run: run.clone(), jobs: vec![] },
            Reason::NotRun { run: run.clone(), jobs: vec![], why: text.clone() },
            Reason::RunCancelled { run: run.clone(), why: text.clone() },
            Reason::ChangesRequested { people: 1 },
            Reason::Approvals { have: 0, need: 1, revision: commit },
            Reason::Unauthorised { revision: commit, role: Role::Author },
            Reason::DefinitionApproval { revision: commit },
            Reason::EmptySet,
            Reason::NoJobs,
            Reason::ReadingBranch,
            Reason::MakingCandidate,
            Reason::WaitsForRun { run: run.clone() },
            Reason::TestedAgain { label: text.clone() },
            Reason::WaitsForChangeRuns { running: 1 },
            Reason::Ahead { changes: vec![] },
            Reason::WaitsForDeploy { run },
            Reason::DeployIsDue { commit },
            Reason::OverBudget { budget_seconds: 60, since: Timestamp(0) },
            Reason::LastToLand,
            Reason::Halted { cause: HaltCause::Disk, why: text.clone() },
            Reason::Frozen { by: text.clone(), why: text.clone() },
            Reason::Trouble { what: text.clone(), why: text },
        ];
        for reason in all {
            let against = ITEMS.iter().filter(|(_, _, against)| against(&reason)).count();
            assert_eq!(against, 1, "{reason:?}");
        }
        assert_eq!(ITEMS.iter().filter(|(_, _, against)| against(&Reason::Landing)).count(), 0);
    }

    #[track_caller]
    fn check(reasons: &[Reason], known: Known, unmet: &[ItemId]) {
        let list = items(reasons, known, (ChangeNumber(1), &"main".parse().unwrap()));
        let found: Vec<ItemId> = list.iter().filter(|item| !item.met).map(|item| item.id).collect();
        assert_eq!(found, unmet);
    }

    const NOTHING: Known = Known { joined: false, pipeline: false, passed: false, queued: false, ran: false };

    #[test]
    fn what_was_not_looked_at_is_not_shown_as_met() {
        check(&[Reason::Draft], NOTHING, &[Ready, Joins, Usable, Tested, Turn]);
        let all = Known { joined: true, pipeline: true, passed: true, queued: true, ran: true };
        check(&[Reason::Landing], all, &[]);
    }

    #[test]
    fn what_does_not_join_says_nothing_of_its_pipeline() {
        let known = Known { joined: true, passed: true, ..NOTHING };
        check(&[Reason::Conflict { paths: vec![] }], known, &[Joins, Usable, Turn]);
    }

    #[test]
    fn what_was_looked_at_of_a_former_branch_is_not_called_new() {
        let outdated = |reasons: &[Reason], known: Known| -> Vec<ItemId> {
            let list = items(reasons, known, (ChangeNumber(1), &"main".parse().unwrap()));
            list.into_iter().filter(|item| item.outdated).map(|item| item.id).collect()
        };
        assert_eq!(outdated(&[Reason::Draft], NOTHING), []);
        assert_eq!(outdated(&[Reason::Draft], Known { ran: true, ..NOTHING }), [Joins, Usable]);
        assert_eq!(outdated(&[Reason::MakingCandidate], Known { ran: true, ..NOTHING }), [Usable]);
        let known = Known { joined: true, pipeline: true, ran: true, ..NOTHING };
        assert_eq!(outdated(&[Reason::Draft], known), []);
    }

    /// A gate that has read a branch with one change, which nobody wants tested.
    fn gate_of_an_untested_change() -> Live<Gate> {
        let id: GateId = "demo/main".parse().unwrap();
        let mut live = Live::<Gate>::load(CellId::Gate(id), Epoch(1), &[], []).unwrap();
        let (maintainer, at) = (UserId(1), Timestamp(0));
        let rights = Rights { role: Role::Maintainer, authorised: true };
        let (commit, tree) = (CommitId([1; 20]), TreeId([1; 20]));
        let revision = RevisionFacts {
            commit: CommitId([2; 20]),
            number: 1,
            time: at,
            uploader: maintainer,
            stack_uploaders: BTreeSet::new(),
        };
        let change = ForgeChange {
            number: ChangeNumber(1),
            title: "Add it".into(),
            body: String::new(),
            draft: false,
            labels: BTreeSet::from([Labels::default().no_test]),
            owner: maintainer,
            revision,
            reviews: vec![],
            came: None,
        };
        let snapshot = Snapshot {
            tip: Some(Tip { commit, tree, time: at, settings: Ok(GateSettings::default()) }),
            keeps_landed: true,
            begun_by: BTreeSet::new(),
            changes: vec![change],
            unreadable: BTreeMap::new(),
            people: BTreeMap::from([(maintainer, rights)]),
        };
        let read = GateEvent::ForgeRead(Box::new(ForgeRead { began: at, landed: None, snapshot }));
        deliver(&mut live, Intake::Event(read));
        live
    }

    fn deliver(live: &mut Live<Gate>, intake: Intake<GateEvent>) -> Vec<Dispatch> {
        let now = Timestamp(1000);
        live.turn(&[Delivered { seq: 0, at: now, intake }], now).dispatch
    }

    /// What is not met, and whether that is because nobody has looked yet.
    fn unmet(live: &Live<Gate>) -> Vec<(ItemId, bool)> {
        let list = checklist(live, &live.state.changes()[&ChangeNumber(1)], Timestamp(1000));
        let unmet = list.into_iter().filter(|item| !item.met);
        unmet.map(|Item { id, why, .. }| (id, why.is_empty())).collect()
    }

    #[test]
    fn what_stops_every_landing_counts_though_the_change_is_not_in_the_queue() {
        let mut live = gate_of_an_untested_change();
        let mut expected = vec![(Ready, false), (Joins, true), (Usable, true), (Tested, true)];
        expected.extend([(Approved, false), (Turn, true)]);
        assert_eq!(unmet(&live), expected);

        let by = Actor { user: UserId(1), name: "mia".into() };
        let freeze = Command { id: 1, by, verb: Verb::Freeze { why: "release".into() } };
        deliver(&mut live, Intake::Event(GateEvent::Command(Box::new(freeze))));
        expected.push((Branch, false));
        assert_eq!(unmet(&live), expected);

        let bell = GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() });
        let reads = deliver(&mut live, Intake::Event(bell)).into_iter().find_map(|dispatch| match dispatch {
            Dispatch::Do { key, token, effect: Effect::ReadForge { .. } } => Some((key, token)),
            _ => None,
        });
        let (key, token) = reads.expect("a bell has the branch read");
        let why = "it is down".to_owned();
        let next_try = Timestamp(9_000);
        let trouble = Trouble { class: TroubleClass::Transient, why, tries: 1, next_try };
        deliver(&mut live, Intake::Trouble { key, token, trouble });
        expected.push((Outside, false));
        assert_eq!(unmet(&live), expected);
    }
}
