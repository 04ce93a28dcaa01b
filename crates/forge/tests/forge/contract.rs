//! What every forge adapter promises, as functions over a [`Subject`]; here for the built-in one.

use std::time::Duration;

use towpath_core::effect::{Check, EffectKey, Landing, Verdict};
use towpath_core::gate::LandTried;
use towpath_core::ids::{BranchName, CandidateId, ChangeNumber, CommitId};
use towpath_forge::{Forge, ForgeError, Judged};
use towpath_git::ErrorClass;

use crate::support::{ANN, Clone, World, branch, every_git, scripted};

/// A forge that can be written to past the adapter, as people and other tools do.
pub trait Subject {
    fn forge(&self) -> &dyn Forge;
    /// Opens a change for `main` with one commit on top of its head.
    fn open_change(&self, name: &str) -> (ChangeNumber, CommitId);
    /// Makes a commit on top of `parent` that is in the repository.
    fn commit_on(&self, parent: CommitId, name: &str) -> CommitId;
    /// Puts a branch somewhere, past all rules.
    fn move_branch(&self, branch: &BranchName, to: CommitId);
    fn tip(&self, branch: &BranchName) -> Option<CommitId>;
    /// Moves a change to another branch, as a person does; whether it was let.
    fn retarget(&self, change: ChangeNumber, branch: &BranchName) -> bool;
    fn check_of(&self, change: ChangeNumber, judged: Judged<'_>) -> Option<Check>;
}

pub fn a_read_is_whole(subject: &dyn Subject) {
    let (one, head) = subject.open_change("one");
    let (two, _) = subject.open_change("two");
    let main = branch("main");
    let snapshot = subject.forge().read(&main, None).unwrap();
    let tip = snapshot.tip.unwrap();
    assert_eq!(Some(tip.commit), subject.tip(&main));
    assert_eq!(tip.settings, Ok(Default::default()));
    assert!(snapshot.keeps_landed && !snapshot.people.is_empty());
    let numbers: Vec<ChangeNumber> = snapshot.changes.iter().map(|change| change.number).collect();
    assert_eq!(numbers, [one, two]);
    let change = &snapshot.changes[0];
    assert_eq!((change.revision.commit, change.revision.number), (head, 1));
    assert_eq!((change.owner, change.revision.uploader), (change.revision.uploader, change.owner));
    assert!(change.revision.stack_uploaders.is_empty() && !change.title.is_empty());
    // Asking twice gives the same answer.
    assert_eq!(subject.forge().read(&main, None).unwrap(), subject.forge().read(&main, None).unwrap());
    let nowhere = subject.forge().read(&branch("nowhere"), None).unwrap();
    assert_eq!((nowhere.tip, nowhere.changes.len()), (None, 0));
}

pub fn a_landing_is_compare_and_swap_and_may_be_repeated(subject: &dyn Subject) {
    let main = branch("main");
    let from = subject.tip(&main).unwrap();
    let [one, two] = ["one", "two"].map(|name| subject.open_change(name));
    let to = subject.commit_on(from, "to");
    let rival = subject.commit_on(from, "rival");
    let forge = subject.forge();
    assert_eq!(forge.land(&landing(one, (from, to))).unwrap(), LandTried::Landed);
    assert_eq!(subject.tip(&main), Some(to));
    assert_eq!(forge.land(&landing(one, (from, to))).unwrap(), LandTried::Landed);
    assert_eq!(forge.land(&landing(two, (from, rival))).unwrap(), LandTried::Moved { tip: Some(to) });
    assert_eq!(subject.tip(&main), Some(to));
    assert_eq!(forge.land(&landing(two, (to, CommitId([9; 20])))).unwrap(), LandTried::Lost);
    // A foreign commit on top of ours: it landed (S10).
    let foreign = subject.commit_on(to, "foreign");
    subject.move_branch(&main, foreign);
    assert_eq!(forge.land(&landing(one, (from, to))).unwrap(), LandTried::Landed);
    assert_eq!(subject.tip(&main), Some(foreign));
    let wrong = forge.land(&landing(two, (foreign, rival))).unwrap_err();
    assert_eq!(wrong.class(), ErrorClass::Invalid);
    // What did not land is as open as before.
    assert_eq!(forge.read(&main, None).unwrap().changes.len(), 1);
}

pub fn a_change_lands_on_one_branch_and_as_it_was_tested(subject: &dyn Subject) {
    let [main, release] = ["main", "release"].map(branch);
    let [from, fork] = [&main, &release].map(|branch| subject.tip(branch).unwrap());
    let [one, two] = ["one", "two"].map(|name| subject.open_change(name));
    let to = subject.commit_on(from, "to");
    let forge = subject.forge();
    let other = subject.commit_on(from, "other revision");
    assert_eq!(forge.land(&landing((one.0, other), (from, to))).unwrap(), LandTried::Gone);
    let elsewhere = Landing { branch: release.clone(), ..landing(one, (fork, to)) };
    assert_eq!(forge.land(&elsewhere).unwrap(), LandTried::Gone);
    assert_eq!(forge.land(&landing((ChangeNumber(999), one.1), (from, to))).unwrap(), LandTried::Gone);
    assert_eq!([subject.tip(&main), subject.tip(&release)], [Some(from), Some(fork)]);
    // It has landed from the moment at which the branch has moved, whether or not anybody says so.
    assert_eq!(forge.land(&landing(one, (from, to))).unwrap(), LandTried::Landed);
    assert!(!subject.retarget(one.0, &release));
    assert_eq!(forge.land(&elsewhere).unwrap(), LandTried::Gone);
    assert_eq!(subject.tip(&release), Some(fork));
    // What has gone to another branch does not land on the one that it was tested for.
    assert!(subject.retarget(two.0, &release));
    let late = subject.commit_on(to, "late");
    assert_eq!(forge.land(&landing(two, (to, late))).unwrap(), LandTried::Gone);
    // Nor once it is back, before it is known what came along.
    assert!(subject.retarget(two.0, &main));
    assert_eq!(forge.land(&landing(two, (to, late))).unwrap(), LandTried::Gone);
    assert_eq!(subject.tip(&main), Some(to));
    let back = forge.read(&main, None).unwrap().changes.into_iter().find(|change| change.number == two.0);
    let came_at = back.unwrap().came.map(|came| came.at);
    let known = Landing { came_at, ..landing(two, (to, late)) };
    assert_eq!(forge.land(&known).unwrap(), LandTried::Landed);
}

/// A landing on `main`.
pub fn landing((change, revision): (ChangeNumber, CommitId), (from, to): (CommitId, CommitId)) -> Landing {
    Landing {
        repo: "demo".parse().unwrap(),
        branch: branch("main"),
        change,
        revision,
        came_at: None,
        candidate: CandidateId([7; 20]),
        from,
        to,
    }
}

pub fn a_lost_landing_is_told(subject: &dyn Subject) {
    let main = branch("main");
    let from = subject.tip(&main).unwrap();
    let to = subject.commit_on(from, "to");
    subject.forge().land(&landing(subject.open_change("one"), (from, to))).unwrap();
    assert!(subject.forge().read(&main, Some(to)).unwrap().keeps_landed);
    subject.move_branch(&main, from);
    assert!(!subject.forge().read(&main, Some(to)).unwrap().keeps_landed);
    assert!(!subject.forge().read(&main, Some(CommitId([9; 20]))).unwrap().keeps_landed);
    assert!(!subject.forge().read(&branch("nowhere"), Some(to)).unwrap().keeps_landed);
}

pub fn a_landed_change_is_closed_once(subject: &dyn Subject) {
    let main = branch("main");
    let (number, head) = subject.open_change("one");
    let forge = subject.forge();
    forge.land(&landing((number, head), (subject.tip(&main).unwrap(), head))).unwrap();
    forge.mark_landed(number, head).unwrap();
    forge.mark_landed(number, head).unwrap();
    assert!(forge.read(&main, Some(head)).unwrap().changes.is_empty());
    let other = subject.commit_on(head, "other");
    assert!(matches!(forge.mark_landed(number, other), Err(ForgeError::Conflict { .. })));
    assert!(matches!(forge.mark_landed(ChangeNumber(999), head), Err(ForgeError::Gone { .. })));
}

pub fn the_newest_check_wins(subject: &dyn Subject) {
    let (number, head) = subject.open_change("one");
    let check = |verdict, text: &str| Check { verdict, text: text.to_owned(), run: None };
    let forge = subject.forge();
    let [main, release] = ["main", "release"].map(branch);
    let judged = Judged { branch: &main, revision: head };
    forge.set_check(number, judged, &check(Verdict::Pending, "waits")).unwrap();
    forge.set_check(number, judged, &check(Verdict::Success, "passed")).unwrap();
    forge.set_check(number, judged, &check(Verdict::Success, "passed")).unwrap();
    // What another branch's gate still says is no word about this one.
    let late = Judged { branch: &release, revision: head };
    forge.set_check(number, late, &check(Verdict::Failure, "late")).unwrap();
    assert_eq!(subject.check_of(number, judged), Some(check(Verdict::Success, "passed")));
    let gone = |answer| matches!(answer, Err(ForgeError::Gone { .. }));
    assert!(gone(forge.set_check(ChangeNumber(999), judged, &check(Verdict::Failure, "x"))));
    let unknown = Judged { branch: &main, revision: CommitId([9; 20]) };
    assert!(gone(forge.set_check(number, unknown, &check(Verdict::Failure, "x"))));
}

pub fn a_broken_definition_is_an_answer(subject: &dyn Subject) {
    let main = branch("main");
    let broken = subject.commit_on(subject.tip(&main).unwrap(), "towpath.yaml=broken");
    subject.move_branch(&main, broken);
    let tip = subject.forge().read(&main, None).unwrap().tip.unwrap();
    assert_eq!(tip.settings, Err(vec!["line 1: broken".to_owned()]));
}

struct Built {
    world: World,
    clone: Clone,
}

impl Built {
    fn new() -> Built {
        let world = World::new();
        let clone = world.clone_of("ann");
        Built { world, clone }
    }
}

impl Subject for Built {
    fn forge(&self) -> &dyn Forge {
        &self.world.forge
    }

    fn open_change(&self, name: &str) -> (ChangeNumber, CommitId) {
        let (_, change) = self.world.change("ann", name);
        (change.number, change.newest().commit)
    }

    fn commit_on(&self, parent: CommitId, name: &str) -> CommitId {
        self.clone.run(&["fetch", "--quiet", &self.clone.url, &parent.to_string()]);
        self.clone.run(&["checkout", "--quiet", "--detach", &parent.to_string()]);
        let (path, text) = name.split_once('=').unwrap_or((name, name));
        let commit = self.clone.commit_file(path, text);
        self.clone.push(&["--force", &format!("HEAD:refs/heads/scratch-{}", commit.short())]).unwrap();
        commit
    }

    fn move_branch(&self, branch: &BranchName, to: CommitId) {
        let name = format!("refs/heads/{branch}");
        assert!(self.world.in_store(&["update-ref", &name, &to.to_string()]).status.success());
    }

    fn tip(&self, branch: &BranchName) -> Option<CommitId> {
        self.world.ref_of(&format!("refs/heads/{branch}"))
    }

    fn retarget(&self, change: ChangeNumber, branch: &BranchName) -> bool {
        self.world.retarget(ANN, change, branch.as_str()).is_ok()
    }

    fn check_of(&self, change: ChangeNumber, judged: Judged<'_>) -> Option<Check> {
        self.world.memory.check(change, judged)
    }
}

#[test]
fn the_built_in_forge_keeps_the_contract() {
    for part in [
        a_read_is_whole,
        a_landing_is_compare_and_swap_and_may_be_repeated,
        a_change_lands_on_one_branch_and_as_it_was_tested,
        a_lost_landing_is_told,
        a_landed_change_is_closed_once,
        the_newest_check_wins,
        a_broken_definition_is_an_answer,
    ] {
        part(&Built::new());
    }
}

#[test]
fn a_landing_that_git_confirms_and_does_not_make_is_told() {
    let git = every_git().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let lies = folder.path().join("lies");
    // What is asked for main gets lost on the way, and git finds that all is done.
    let keeps_main = format!(
        "while read -r line; do\n\
         case $line in 'update refs/heads/main '*) [ -e {} ] && continue;; esac\n\
         echo \"$line\"\ndone | $git \"$@\"",
        lies.display()
    );
    let world =
        World::with(&scripted(&git, folder.path(), &keeps_main), git.program(), Duration::from_secs(20));
    let (_, change) = world.change("ann", "one");
    let (from, to) = (world.main(), change.newest().commit);
    let asked = landing((change.number, to), (from, to));
    std::fs::write(&lies, "").unwrap();
    assert_eq!(world.forge.land(&asked).unwrap(), LandTried::Broken { tip: Some(from) });
    assert!(world.forge.change(change.number).unwrap().is_open());
    std::fs::remove_file(&lies).unwrap();
    assert_eq!(world.forge.land(&asked).unwrap(), LandTried::Landed);
    assert_eq!(world.main(), to);
}

#[test]
fn alerts_reach_people_once() {
    let world = World::new();
    let cause = EffectKey::once("alert-halt", "demo/main Disk", 1);
    world.forge.alert(&branch("main"), &cause, "landing stopped").unwrap();
    world.forge.alert(&branch("main"), &cause, "landing stopped").unwrap();
    assert_eq!(world.memory.alerts(), [(branch("main"), "landing stopped".to_owned())]);
}
