//! Every command that a gate tells people to run is one that this program takes, for the branch that is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use towpath_core::cell::{Cell, CellId, CellState, Row};
use towpath_core::definition::GateSettings;
use towpath_core::effect::Effect;
use towpath_core::gate::{
    Again, Branch, Deploy, ForgeRead, Freeze, Gate, GateEvent, GateState, HaltCause, Lost, Reason, Snapshot,
    Tip, Verb,
};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, GateId, RunId, Timestamp, TreeId, UserId};
use towpath_core::policy::{Actor, Rights, Role};

const CHANGE: ChangeNumber = ChangeNumber(7);
const ADMIN: UserId = UserId(1);

fn gate() -> GateId {
    GateId { repo: "demo".parse().unwrap(), branch: target() }
}

/// Not the repo's own branch, which a command that names none would mean.
fn target() -> BranchName {
    "release/1.0".parse().unwrap()
}

/// The words of each command of ours in a text, as a shell takes them.
fn commands(text: &str) -> Vec<Vec<String>> {
    let quoted = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("towpath "));
    let words = |command: &str| {
        let script = format!("set -- {command}; printf '%s\\n' \"$@\"");
        let split = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(split.status.success(), "{command}");
        String::from_utf8(split.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    quoted.map(words).collect()
}

/// How many commands of a text were taken.
#[track_caller]
fn check(text: &str) -> usize {
    let commands = commands(text);
    for words in &commands {
        let taken = crate::cli::definitions().try_get_matches_from(words);
        assert!(taken.is_ok(), "{text}: {}", taken.unwrap_err());
        let of_branch = words[1] == "branch";
        assert!(!of_branch || words.contains(&target().to_string()), "{text}: it is for another branch");
    }
    commands.len()
}

fn reasons() -> Vec<Reason> {
    let revision = CommitId([0xab; 20]);
    let run = RunId { gate: gate(), number: 3 };
    let jobs = vec!["unit".to_owned()];
    let why = "wait".to_owned();
    vec![
        Reason::NoBranch,
        Reason::NotAccepted { tip: revision },
        Reason::Unreadable { why: why.clone() },
        Reason::Untrusted { revision },
        Reason::Draft,
        Reason::Label { label: "on top".into() },
        Reason::Held { by: "ann".into(), why: why.clone() },
        Reason::Conflict { paths: vec!["a".into()] },
        Reason::NoCandidate { why: why.clone() },
        Reason::TooSlow { why: why.clone() },
        Reason::NothingToLand,
        Reason::BadDefinition { errors: vec![why.clone()] },
        Reason::TestsFailed { run: run.clone(), jobs: jobs.clone() },
        Reason::OurMachines { run: run.clone(), jobs: jobs.clone() },
        Reason::NotRun { run: run.clone(), jobs, why: why.clone() },
        Reason::RunCancelled { run, why: why.clone() },
        Reason::ChangesRequested { people: 1 },
        Reason::Approvals { have: 0, need: 1, revision },
        Reason::Unauthorised { revision, role: Role::Author },
        Reason::DefinitionApproval { revision },
        Reason::EmptySet,
        Reason::NoJobs,
        Reason::Halted { cause: HaltCause::Disk, why: why.clone() },
        Reason::Halted { cause: HaltCause::Restore, why: why.clone() },
        Reason::Frozen { by: "ann".into(), why },
    ]
}

#[test]
fn every_command_in_a_hint_is_taken() {
    let hints = reasons().into_iter().filter_map(|reason| reason.hint(CHANGE, &target()));
    assert!(hints.map(|hint| check(&hint)).sum::<usize>() >= 15);
}

/// A gate that has read its branch at each of these heads, one after the other.
fn with_heads(heads: &[u8]) -> GateState {
    begun_by(ADMIN, heads)
}

fn begun_by(user: UserId, heads: &[u8]) -> GateState {
    let mut state = GateState::new(&CellId::Gate(gate()));
    for (time, head) in heads.iter().enumerate() {
        let now = Timestamp(time as i64 * 1_000);
        let tip = Tip {
            commit: CommitId([*head; 20]),
            tree: TreeId([*head; 20]),
            time: now,
            settings: Ok(GateSettings::default()),
        };
        let people = BTreeMap::from([(ADMIN, Rights { role: Role::Admin, authorised: true })]);
        let begun_by = BTreeSet::from([user]);
        let (changes, unreadable) = Default::default();
        let snapshot =
            Snapshot { tip: Some(tip), keeps_landed: time == 0, begun_by, changes, unreadable, people };
        let read = ForgeRead { began: now, landed: None, snapshot };
        Gate::apply(&mut state, &GateEvent::ForgeRead(read.into()), now);
    }
    state
}

/// As if a landing had not been there when it was read back.
fn freeze(state: &mut GateState) {
    let why = "it lacks what landed".to_owned();
    let freeze = Freeze { by: None, why, at: Timestamp(1_000), lost: None };
    let branch = Branch { frozen: Some(freeze), ..state.branch().clone() };
    let value = serde_json::to_string(&branch).unwrap();
    state.put_row(&Row { key: "branch".to_owned(), value: Some(value) }).unwrap();
}

/// A branch that begins at what somebody else put there, too.
#[test]
fn every_command_in_an_alert_is_taken() {
    let mut state = with_heads(&[1, 2]);
    freeze(&mut state);
    let halts = BTreeMap::from([(HaltCause::Restore, Some("3 leaves are lost".to_owned()))]);
    Gate::apply(&mut state, &GateEvent::Halts(halts), Timestamp(2_000));
    let plan = Gate::plan(&state, Timestamp(2_000));
    let told = plan.effects.values().filter_map(|effect| match effect {
        Effect::Alert { text, .. } => Some(check(text)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [1, 1, 1], "a foreign push, a freeze by the server and a halt");
    let plan = Gate::plan(&begun_by(UserId(2), &[1]), Timestamp(2_000));
    let told = plan.effects.values().find_map(|effect| match effect {
        Effect::Alert { text, .. } => Some(check(text)),
        _ => None,
    });
    assert_eq!(told, Some(1));
}

#[test]
fn every_command_in_the_alert_of_a_run_that_did_not_pass_is_taken() {
    let alerts = |lost: Option<Lost>| {
        let mut state = with_heads(&[1]);
        let deploy = Deploy { alerted: Some((CommitId([1; 20]), 3)), lost, ..Deploy::default() };
        let branch = Branch { deploy, ..state.branch().clone() };
        let value = serde_json::to_string(&branch).unwrap();
        state.put_row(&Row { key: "branch".to_owned(), value: Some(value) }).unwrap();
        let plan = Gate::plan(&state, Timestamp(2_000));
        let told = plan.effects.values().filter_map(|effect| match effect {
            Effect::Alert { text, .. } => Some(check(text)),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let lost = |again| Some(Lost { jobs: vec!["unit".to_owned()], more: 0, again });
    let deployment = Again::Deployment("live".parse().unwrap());
    let commands = [None, lost(deployment), lost(Again::Job("unit".to_owned()))].map(alerts);
    assert_eq!(commands, [vec![1], vec![2], vec![2]]);
}

#[test]
fn the_refusal_to_run_a_foreign_tip_names_the_command_that_accepts_it() {
    let mut state = with_heads(&[1, 2]);
    let by = Actor { user: ADMIN, name: "ann".into() };
    let command = towpath_core::gate::Command { id: 1, by, verb: Verb::RunManual { job: None } };
    Gate::apply(&mut state, &GateEvent::Command(command.into()), Timestamp(2_000));
    let refusal = state.take_notes().answers.remove(0).result.unwrap_err();
    assert_eq!(check(&refusal.why), 1);
}
