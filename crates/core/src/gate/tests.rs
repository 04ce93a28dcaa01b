//! Scenarios: a forge in words, and what the gate does about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::candidate::{Candidate, CandidateSpec};
use crate::definition::GateSettings;
use crate::effect::{Effect, EffectKey};
use crate::graph::{JobBody, JobResult, JobSpec, Outcome};
use crate::ids::{Epoch, TreeId};
use crate::message::{JobReport, Message, RunReport, RunStart};
use crate::policy::{Actor, Role};
use crate::turn::{Delivered, Dispatch, Intake, Live};

const MAINTAINER: UserId = UserId(1);
const AUTHOR: UserId = UserId(2);
const OUTSIDER: UserId = UserId(3);

/// Between two looks of the world: longer than a gate rests between two reads of its forge.
const STEP_MS: i64 = 60;

/// A gate in memory with a forge, a git and a clock of words. Reads, candidates and landings are carried out at once;
/// runs end when told.
struct Bench {
    gate: Live<Gate>,
    seq: u64,
    clock: i64,
    tip: u8,
    open: BTreeMap<ChangeNumber, ForgeChange>,
    people: BTreeMap<UserId, Rights>,
    settings: GateSettings,
    budget_seconds: Option<u32>,
    conflicts: BTreeSet<ChangeNumber>,
    edits_definition: BTreeSet<ChangeNumber>,
    runs: BTreeMap<u64, Arc<RunStart>>,
    closed: Vec<ForgeChange>,
    /// Whether the forge does not take it that a change has landed.
    deaf: bool,
    /// Whether reads come back.
    reading: bool,
    /// Set when landings do not come through; holds where the branch would be.
    stalled: Option<u8>,
    /// Whether the next landing finds that a power cut has taken its candidate.
    power_cut: bool,
    /// Landed commits with a note.
    noted: Vec<CommitId>,
    log: String,
}

fn commit(byte: u8, tag: u8) -> CommitId {
    let mut id = [byte; 20];
    id[0] = tag;
    CommitId(id)
}

fn job(name: &str, on: &[Trigger]) -> JobSpec {
    JobSpec {
        name: name.parse().unwrap(),
        base: name.parse().unwrap(),
        origin: Default::default(),
        on: on.to_vec(),
        required: on.contains(&Trigger::Queue),
        needs: vec![],
        aborts: vec![],
        skip: None,
        body: Arc::new(JobBody::script("true")),
    }
}

impl Bench {
    fn new(config: GateConfig) -> Bench {
        let id: GateId = "demo/main".parse().unwrap();
        let gate = Live::load(CellId::Gate(id), Epoch(1), &[], []).unwrap();
        let rights = |role, authorised| Rights { role, authorised };
        let people = BTreeMap::from([
            (MAINTAINER, rights(Role::Maintainer, true)),
            (AUTHOR, rights(Role::Author, true)),
            (OUTSIDER, rights(Role::Author, false)),
        ]);
        let mut bench = Bench {
            gate,
            seq: 0,
            clock: 1000,
            tip: 1,
            open: BTreeMap::new(),
            people,
            settings: GateSettings::default(),
            budget_seconds: None,
            conflicts: BTreeSet::new(),
            edits_definition: BTreeSet::new(),
            runs: BTreeMap::new(),
            closed: vec![],
            deaf: false,
            reading: true,
            stalled: None,
            power_cut: false,
            noted: vec![],
            log: String::new(),
        };
        bench.event(GateEvent::Configured(Box::new(config)));
        bench
    }

    fn event(&mut self, event: GateEvent) {
        self.intake(Intake::Event(event));
    }

    fn intake(&mut self, first: Intake<GateEvent>) {
        let mut open = VecDeque::from([first]);
        while let Some(intake) = open.pop_front() {
            self.seq += 1;
            self.clock += STEP_MS;
            let at = Timestamp(self.clock);
            let turn = self.gate.turn(&[Delivered { seq: self.seq, at, intake }], at);
            for (_, message) in &turn.write.messages {
                self.message(message);
            }
            for answer in turn.answers {
                self.say(&format!("answer {:?}", answer.result.map_err(|refusal| refusal.why)));
            }
            for act in turn.write.acts.iter().filter(|act| !matches!(act, Act::Command { .. })) {
                self.act(act);
            }
            for dispatch in turn.dispatch {
                match dispatch {
                    Dispatch::Do { key, token, effect } => {
                        open.extend(self.carry_out(&effect).map(|result| done(key, token, result)));
                    }
                    Dispatch::Cancel { key, token, effect: Effect::Land(landing) } => {
                        let candidate = landing.candidate;
                        let result = GateEvent::LandTried { candidate, result: LandTried::Withdrawn };
                        open.push_back(done(key, token, Some(result)));
                    }
                    Dispatch::Cancel { .. } => {}
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.log += &format!("  {text}\n");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Landed(act) => self.say(&format!("landed {} with {:?}", act.change, act.results.keys())),
            Act::Ejected { change, why, .. } => self.say(&format!("ejected {change}: {why}")),
            Act::ForeignPush { .. } => self.say("foreign push"),
            Act::Froze { why, .. } => self.say(&format!("froze: {why}")),
            _ => {}
        }
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Start(start) => {
                let number = start.run.number;
                self.runs.insert(number, start.clone());
                let change = start.facts.get("CHANGE").map_or("-".into(), |change| change.clone());
                let carried = if start.carried.is_empty() { "" } else { " carried" };
                let text =
                    format!("run {number}: {:?} of {change} ({}){carried}", start.trigger, start.reason);
                self.say(&text);
            }
            Message::Cancel { why } => self.say(&format!("cancel: {why}")),
            _ => {}
        }
    }

    fn carry_out(&mut self, effect: &Effect) -> Option<Option<GateEvent>> {
        Some(match effect {
            Effect::ReadForge { .. } if !self.reading => return None,
            Effect::ReadForge { .. } => Some(GateEvent::ForgeRead(Box::new(self.read()))),
            Effect::MakeCandidate { id, spec, .. } => {
                Some(GateEvent::CandidateMade { id: *id, result: Box::new(self.merge(spec)) })
            }
            Effect::ReadGraph { commit, .. } => {
                Some(GateEvent::GraphRead { commit: *commit, graph: Ok(self.graph()) })
            }
            Effect::Land(landing) if self.stalled.is_some() => {
                self.stalled = Some(landing.to.0[1]);
                self.say(&format!("land {} is on its way", landing.change));
                return None;
            }
            Effect::Land(landing) if std::mem::take(&mut self.power_cut) => {
                self.say(&format!("land {} -> its candidate is gone", landing.change));
                Some(GateEvent::LandTried { candidate: landing.candidate, result: LandTried::Lost })
            }
            Effect::Land(landing) => {
                let result = if landing.from == commit(self.tip, 1) {
                    self.tip = landing.to.0[1];
                    LandTried::Landed
                } else {
                    LandTried::Moved { tip: Some(commit(self.tip, 1)) }
                };
                self.say(&format!("land {} -> {result:?}", landing.change));
                Some(GateEvent::LandTried { candidate: landing.candidate, result })
            }
            Effect::MarkLanded { .. } if self.deaf => return None,
            Effect::MarkLanded { change, .. } => {
                self.open.remove(change);
                None
            }
            Effect::Alert { text, .. } => {
                self.say(&format!("alert: {}", text.split(';').next().unwrap()));
                None
            }
            Effect::NoteLanding { commit, .. } => {
                self.noted.push(*commit);
                None
            }
            Effect::SetCheck { .. } => None,
            other => panic!("a gate does not owe {other:?}"),
        })
    }

    fn read(&self) -> ForgeRead {
        ForgeRead {
            began: Timestamp(self.clock),
            snapshot: Snapshot {
                tip: Some(Tip {
                    commit: commit(self.tip, 1),
                    tree: TreeId([self.tip; 20]),
                    time: Timestamp(0),
                    settings: Ok(self.settings),
                }),
                keeps_landed: true,
                changes: self.open.values().cloned().collect(),
                people: self.people.clone(),
            },
        }
    }

    fn graph(&self) -> JobGraph {
        let jobs = [
            job("lint", &[Trigger::Change]),
            job("unit", &[Trigger::Change, Trigger::Queue]),
            job("deploy", &[Trigger::Land]),
        ];
        JobGraph { jobs: Arc::new(jobs), budget_seconds: self.budget_seconds }
    }

    fn merge(&self, spec: &CandidateSpec) -> CandidateResult {
        let number = ChangeNumber(u64::from(spec.revision.0[1]));
        if self.conflicts.contains(&number) && spec.parent != commit(1, 1) {
            return CandidateResult::Conflict { paths: vec!["a.txt".into()] };
        }
        let mixed = Digest::of_fields([&spec.parent.0[..], &spec.revision.0]).0;
        let target = Digest([0; 32]);
        CandidateResult::Made(Candidate {
            commit: CommitId(std::array::from_fn(|at| if at == 0 { 1 } else { mixed[1] })),
            tree: TreeId(std::array::from_fn(|at| mixed[at])),
            changed_paths: 1,
            target_definition: target,
            definition: if self.edits_definition.contains(&number) { Digest([9; 32]) } else { target },
            graph: self.graph(),
        })
    }

    fn ring(&mut self) {
        self.event(GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() }));
    }

    fn push(&mut self, number: u64, uploader: UserId) {
        let change = ChangeNumber(number);
        let revision = self.open.get(&change).map_or(1, |known| known.revision.number + 1);
        let facts = RevisionFacts {
            commit: commit(number as u8, 100 + revision as u8),
            number: revision,
            time: Timestamp(0),
            uploader,
            stack_uploaders: BTreeSet::new(),
        };
        let new = ForgeChange {
            number: change,
            title: format!("change {number}"),
            body: String::new(),
            draft: false,
            labels: BTreeSet::new(),
            owner: uploader,
            revision: facts.clone(),
            reviews: vec![],
        };
        self.open.entry(change).or_insert(new).revision = facts;
    }

    fn review(&mut self, number: u64, by: UserId, verdict: Verdict) {
        let at = Timestamp(self.clock);
        let target = self.gate.state.id.branch.clone();
        let edits = self.edits_definition.contains(&ChangeNumber(number));
        let change = self.open.get_mut(&ChangeNumber(number)).unwrap();
        let message = message_digest(&change.title, &change.body);
        let definition = edits.then_some(Digest([9; 32]));
        let revision = change.revision.commit;
        change.reviews.push(Review { by, verdict, revision, target, definition, message, at });
    }

    fn end(&mut self, run: u64, failing: &[&str], outcome: Outcome) {
        let report = self.report(run, failing, outcome);
        self.event(report);
    }

    /// What a run says at its end.
    fn report(&self, run: u64, failing: &[&str], outcome: Outcome) -> GateEvent {
        let start = self.runs.get(&run).unwrap_or_else(|| panic!("run {run} was not started")).clone();
        let digests = start.graph.digests();
        let jobs: Vec<JobReport> = start
            .graph
            .iter()
            .map(|(index, spec)| JobReport {
                job: index,
                name: spec.name.to_string(),
                digest: digests[index.0 as usize],
                result: match start.carried.get(&index) {
                    Some(carried) => carried.result.clone(),
                    None if failing.contains(&spec.name.as_str()) => {
                        Arc::new(JobResult::unrun(outcome, "said so"))
                    }
                    None => Arc::new(JobResult::unrun(Outcome::Passed, "")),
                },
                carried: None,
            })
            .collect();
        let outcome = if failing.is_empty() { Outcome::Passed } else { outcome };
        GateEvent::RunEnded(Arc::new(RunReport { run: start.run.clone(), outcome, jobs }))
    }

    fn command(&mut self, by: UserId, verb: Verb) {
        let by = Actor { user: by, name: format!("user {by}") };
        self.event(GateEvent::Command(Box::new(Command { id: 1, by, verb })));
    }

    fn halt(&mut self, cause: HaltCause, why: Option<&str>) {
        self.event(GateEvent::Halts(Halts::from([(cause, why.map(str::to_owned))])));
    }

    fn word(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let change = ChangeNumber(number);
        match words[0] {
            "push" => self.push(number, AUTHOR),
            "push-as-outsider" => self.push(number, OUTSIDER),
            "push-as-maintainer" => self.push(number, MAINTAINER),
            "approve" => self.review(number, MAINTAINER, Verdict::Approve),
            "approve-as-author" => self.review(number, AUTHOR, Verdict::Approve),
            "object" => self.review(number, MAINTAINER, Verdict::RequestChanges),
            "label" => drop(self.open.get_mut(&change).unwrap().labels.insert(words[2..].join(" "))),
            "unlabel" => drop(self.open.get_mut(&change).unwrap().labels.remove(&words[2..].join(" "))),
            "draft" => self.open.get_mut(&change).unwrap().draft = true,
            "retitle" => self.open.get_mut(&change).unwrap().title += "!",
            "close" => self.closed.extend(self.open.remove(&change)),
            "reopen" => {
                let known = self.closed.pop().unwrap();
                self.open.insert(change, known);
            }
            "conflicts" => drop(self.conflicts.insert(change)),
            "edits-definition" => drop(self.edits_definition.insert(change)),
            "deaf" => self.deaf = true,
            "budget" => return self.budget_seconds = Some(number as u32),
            "undraft" => self.open.get_mut(&change).unwrap().draft = false,
            "foreign" => self.tip = 200,
            "stall" => self.stalled = Some(self.tip),
            "arrive" => self.tip = self.stalled.take().unwrap(),
            "power-cut" => self.power_cut = true,
            "disk-fails" => return self.halt(HaltCause::Disk, Some("the disk did not confirm a write")),
            "restart" => return self.halt(HaltCause::Disk, None),
            "restored" => return self.halt(HaltCause::Restore, Some("3 leaves are lost")),
            "accept-restore" => return self.halt(HaltCause::Restore, None),
            "demote" => drop(self.people.insert(MAINTAINER, Rights { role: Role::Author, authorised: true })),
            "approvals" => self.settings.approvals = Some(number as u32),
            "stack-on-outsider" => {
                self.open.get_mut(&change).unwrap().revision.stack_uploaders.insert(OUTSIDER);
            }
            "pass" => return self.end(number, &[], Outcome::Passed),
            "fail" => return self.end(number, &["unit"], Outcome::Failed),
            "fail-lint" => return self.end(number, &["lint"], Outcome::Failed),
            "error" => return self.end(number, &["unit"], Outcome::Errored),
            "fail-deploy" => return self.end(number, &["deploy"], Outcome::Failed),
            "noted" => return self.say(&format!("{:?}", self.noted)),
            "why" => {
                let reasons = self.gate.state.reasons(change, Timestamp(self.clock));
                let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                return self.say(&texts.join("; "));
            }
            "freeze" => return self.command(MAINTAINER, Verb::Freeze { why: "release".into() }),
            "unfreeze" => return self.command(MAINTAINER, Verb::Unfreeze),
            "hold" => return self.command(MAINTAINER, Verb::Hold { change, why: "wait".into() }),
            "release" => return self.command(MAINTAINER, Verb::Release { change }),
            "vouch" | "vouch-as-author" => {
                let by = if words[0] == "vouch" { MAINTAINER } else { AUTHOR };
                let revision = self.open[&change].revision.commit;
                let expires = Timestamp(self.clock + 100_000);
                return self.command(by, Verb::Vouch { change, revision, why: "read it".into(), expires });
            }
            "retry" | "retry-failed" => {
                let revision = self.open[&change].revision.commit;
                let scope = if words[0] == "retry" { RetryScope::All } else { RetryScope::NotPassed };
                return self.command(MAINTAINER, Verb::Retry { change, revision, scope });
            }
            "cancel" => return self.command(MAINTAINER, Verb::Cancel { run: number, why: "stop".into() }),
            "later" => self.clock += 200_000,
            other => panic!("unknown word {other}"),
        }
        self.ring();
    }
}

fn done(key: EffectKey, token: u64, result: Option<GateEvent>) -> Intake<GateEvent> {
    Intake::Done { key, token, result }
}

fn check_with(config: GateConfig, script: &str, expected: Expect) {
    let mut bench = Bench::new(config);
    for line in script.split(';').map(str::trim) {
        bench.log += &format!("{line}\n");
        bench.word(line);
    }
    expected.assert_eq(&bench.log);
}

fn check(script: &str, expected: Expect) {
    check_with(GateConfig::default(), script, expected);
}

#[test]
fn an_approved_change_lands_as_tested() {
    check(
        "push 1; why 1; pass 1; why 1; approve 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            pass 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn two_changes_green_alone_are_tested_together() {
    check(
        "push 1; push 2; pass 1; pass 2; approve 1; approve 2; fail 4; why 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              run 4: Queue of 2 (merge candidate)
            fail 4
              ejected 2: `unit` did not pass in run 4
            why 2
              unit failed in run demo/main/4
        "#]],
    );
}

#[test]
fn a_retry_of_what_failed_carries_what_passed() {
    check(
        "push 1; approve 1; fail-lint 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            approve 1
            fail-lint 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
    check(
        "push 1; approve 1; fail 1; why 1; retry-failed 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        fail 1
        why 1
          unit failed in run demo/main/1
        retry-failed 1
          run 2: Change of 1 (retry of what did not pass) carried
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
    check(
        "push 1; approve 1; fail 1; retry 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        fail 1
        retry 1
          run 2: Change of 1 (retry)
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_new_revision_inherits_nothing() {
    check(
        "push 1; approve 1; push 1; why 1; pass 1; pass 2; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        push 1
          cancel: change 1 has a newer revision
          run 2: Change of 1 (new revision 660101010101)
        why 1
          revision 660101010101 has 0 of 1 approvals; run demo/main/2 is not over
        pass 1
        pass 2
        why 1
          revision 660101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn a17_not_vouched_runs_nothing_and_a18_a_vouch_is_for_one_revision() {
    check(
        "push-as-outsider 1; why 1; label 1 rerun all tests; vouch-as-author 1; vouch 1; push-as-outsider 1; why 1; pass 1",
        expect![[r#"
            push-as-outsider 1
            why 1
              revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
            label 1 rerun all tests
            vouch-as-author 1
              answer Err("this takes the role maintainer on demo")
            vouch 1
              answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
              run 1: Change of 1 (initial run)
            push-as-outsider 1
              cancel: change 1 has a newer revision
            why 1
              revision 660101010101 is from somebody who is not authorised, so nothing of it runs; revision 660101010101 has 0 of 1 approvals
            pass 1
        "#]],
    );
}

#[test]
fn k05_a_vouched_change_is_tested_again_once_it_is_trusted() {
    check(
        "push-as-outsider 1; vouch 1; pass 1; why 1; approve 1; pass 2",
        expect![[r#"
        push-as-outsider 1
        vouch 1
          answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
          run 1: Change of 1 (initial run)
        pass 1
        why 1
          revision 650101010101 has 0 of 1 approvals
        approve 1
          run 2: Queue of 1 (merge candidate)
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a20_a_change_stacked_on_an_outsiders_commit_is_untrusted() {
    check(
        "push 1; stack-on-outsider 1; why 1; pass 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        stack-on-outsider 1
          cancel: change 1 may no longer be tested
        why 1
          revision 650101010101 is from somebody who is not authorised, so nothing of it runs; revision 650101010101 has 0 of 1 approvals
        pass 1
    "#]],
    );
}

#[test]
fn g02_own_approval_g06_revoked_approver_do_not_count() {
    check(
        "approvals 1; push 1; pass 1; approve-as-author 1; why 1; push-as-maintainer 2; pass 2; approve 2; why 2",
        expect![[r#"
            approvals 1
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            approve-as-author 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            push-as-maintainer 2
              run 2: Change of 2 (initial run)
            pass 2
            approve 2
            why 2
              revision 650202020202 has 0 of 1 approvals
        "#]],
    );
    check(
        "push 1; hold 1; approve 1; pass 1; demote; release 1; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        pass 1
        demote
        release 1
          answer Err("this takes the role maintainer on demo")
        why 1
          user 1 holds it: wait; revision 650101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn an_edited_title_voids_the_approval() {
    check(
        "push 1; hold 1; approve 1; retitle 1; pass 1; release 1; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        retitle 1
        pass 1
        release 1
          answer Ok("released change 1")
        why 1
          revision 650101010101 has 0 of 1 approvals
    "#]],
    );
}

#[test]
fn labels_urgency_and_drafts() {
    check(
        "push 1; push 2; label 2 WIP; approve 2; pass 1; pass 2; why 2; push 3; draft 3; why 3; unlabel 2 WIP",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            label 2 WIP
            approve 2
            pass 1
            pass 2
            why 2
              it has the label `WIP`
            push 3
              run 3: Change of 3 (initial run)
            draft 3
              cancel: change 3 may no longer be tested
            why 3
              it is a draft, so nothing runs; revision 650303030303 has 0 of 1 approvals
            unlabel 2 WIP
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 017474747474)
        "#]],
    );
    check(
        "push 1; push 2; pass 1; pass 2; freeze; approve 1; approve 2; label 2 prio:high; why 1; unfreeze",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            freeze
              answer Ok("froze demo/main: release")
            approve 1
            approve 2
            label 2 prio:high
            why 1
              ahead of it: 2; user 1 froze the branch: release
            unfreeze
              answer Ok("unfroze demo/main")
              land 2 -> Landed
              landed 2 with ["unit"]
              run 3: Land of - (landing of 017474747474)
              run 4: Queue of 1 (merge candidate)
        "#]],
    );
}

#[test]
fn at_most_three_change_runs() {
    check(
        "push 1; push 2; push 3; push 4; why 4; close 2; pass 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        push 2
          run 2: Change of 2 (initial run)
        push 3
          run 3: Change of 3 (initial run)
        push 4
        why 4
          revision 650404040404 has 0 of 1 approvals; 3 change runs are under way, as many as allowed
        close 2
          cancel: change 2 is no longer open
          run 4: Change of 4 (initial run)
        pass 1
    "#]],
    );
}

#[test]
fn conflicts_leave_the_queue_and_come_back_by_a_push() {
    check(
        "push 1; push 2; conflicts 2; pass 1; pass 2; approve 1; approve 2; why 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            conflicts 2
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              ejected 2: it conflicts with the branch in a.txt
            why 2
              it conflicts with the branch in a.txt
        "#]],
    );
}

#[test]
fn g09_a_foreign_push_resets_the_queue_and_is_kept() {
    check(
        "push 1; pass 1; foreign; approve 1; why 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
        approve 1
          run 2: Queue of 1 (merge candidate)
        why 1
          run demo/main/2 is not over
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
    "#]],
    );
}

#[test]
fn an_edit_of_the_pipeline_takes_a_maintainers_approval() {
    check(
        "approvals 0; push 1; edits-definition 1; push 1; pass 1; pass 2; why 1; approve 1",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            edits-definition 1
            push 1
              cancel: change 1 has a newer revision
              run 2: Change of 1 (new revision 660101010101)
            pass 1
            pass 2
            why 1
              revision 660101010101 edits the pipeline, which a maintainer has to approve
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 014e4e4e4e4e)
        "#]],
    );
    check(
        "approvals 0; edits-definition 1; push-as-maintainer 1; pass 1",
        expect![[r#"
        approvals 0
        edits-definition 1
        push-as-maintainer 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn deploys_coalesce_and_alert_once() {
    check(
        "approvals 0; push 1; pass 1; push 2; pass 3; push 3; pass 4; fail-deploy 2; pass 5",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
            push 3
              run 4: Change of 3 (initial run)
            pass 4
              land 3 -> Landed
              landed 3 with ["unit"]
            fail-deploy 2
              run 5: Land of - (landing of 01f7f7f7f7f7)
              alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass
            pass 5
        "#]],
    );
}

#[test]
fn s10_a_landing_that_was_taken_back_and_arrives_all_the_same_is_ours() {
    check(
        "push 1; push 2; pass 1; pass 2; stall; approve 1; hold 1; arrive; approve 2",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            stall
            approve 1
              land 1 is on its way
            hold 1
              answer Ok("held change 1: wait")
            arrive
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
            approve 2
              run 4: Queue of 2 (merge candidate)
        "#]],
    );
}

#[test]
fn s10_a_push_onto_a_landing_whose_end_is_not_known_is_judged_when_it_is() {
    check(
        "push 1; pass 1; stall; approve 1; foreign; why 1",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        stall
        approve 1
          land 1 is on its way
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
          run 2: Queue of 1 (merge candidate)
        why 1
          run demo/main/2 is not over
    "#]],
    );
}

#[test]
fn a_landing_that_became_due_waits_for_the_look_that_a_bell_has_asked_for() {
    let mut bench = Bench::new(GateConfig::default());
    let mut words = |line: &str| line.split("; ").for_each(|word| bench.word(word));
    words("push 1; approve 1");
    bench.reading = false;
    let mut words = |line: &str| line.split("; ").for_each(|word| bench.word(word));
    words("object 1; pass 1; why 1");
    let read = bench.read();
    bench.event(GateEvent::ForgeRead(Box::new(read)));
    bench.word("why 1");
    let said: Vec<&str> = bench.log.lines().map(str::trim).collect();
    let refused = "a reviewer asked for changes; revision 650101010101 has 0 of 1 approvals";
    assert_eq!(said, ["run 1: Change of 1 (initial run)", "the branch is being read", refused]);
}

#[test]
fn a_change_that_is_closed_while_it_lands_and_opened_again_does_not_land_twice() {
    check(
        "deaf; push 1; pass 1; approve 1; close 1; reopen 1; why 1",
        expect![[r#"
        deaf
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        approve 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        close 1
        reopen 1
        why 1
          it is landing
    "#]],
    );
}

#[test]
fn a_hold_outlives_a_close() {
    check(
        "push 1; hold 1; approve 1; pass 1; close 1; reopen 1; why 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        hold 1
          answer Ok("held change 1: wait")
        approve 1
        pass 1
        close 1
        reopen 1
          run 2: Change of 1 (initial run)
        why 1
          user 1 holds it: wait; run demo/main/2 is not over
        pass 2
    "#]],
    );
}

#[test]
fn landing_waits_for_the_deploy_where_told_to() {
    let config = GateConfig { wait_for_deploy: true, ..GateConfig::default() };
    check_with(
        config,
        "approvals 0; push 1; pass 1; push 2; pass 3; why 2; fail-deploy 2",
        expect![[r#"
        approvals 0
        push 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
          run 2: Land of - (landing of 018080808080)
        push 2
          run 3: Change of 2 (initial run)
        pass 3
        why 2
          deploy run demo/main/2 is not over
        fail-deploy 2
          alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass
          land 2 -> Landed
          landed 2 with ["unit"]
          run 4: Land of - (landing of 01c9c9c9c9c9)
    "#]],
    );
}

#[test]
fn a_cancelled_run_waits_for_a_person() {
    check(
        "push 1; approve 1; cancel 1; fail 1; why 1; retry-failed 1; pass 2",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        approve 1
        cancel 1
          cancel: stop by user 1
          answer Ok("cancelled run demo/main/1: stop by user 1")
        fail 1
        why 1
          unit failed in run demo/main/1
        retry-failed 1
          run 2: Change of 1 (retry of what did not pass) carried
          answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: what did not pass runs again")
        pass 2
          land 1 -> Landed
          landed 1 with ["unit"]
          run 3: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn retest_of_all_when_the_target_moves() {
    let config = GateConfig { retest: Retest::All, ..GateConfig::default() };
    check_with(
        config,
        "push 1; push 2; pass 1; pass 2; approve 1; pass 4",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            push 2
              run 2: Change of 2 (initial run)
            pass 1
            pass 2
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 3: Land of - (landing of 018080808080)
              run 4: Change of 2 (the target moved)
            pass 4
        "#]],
    );
}

#[test]
fn objections_and_their_end() {
    check(
        "push 1; object 1; pass 1; why 1; approve 1",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            object 1
            pass 1
            why 1
              a reviewer asked for changes; revision 650101010101 has 0 of 1 approvals
            approve 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
        "#]],
    );
}

#[test]
fn bells_that_ring_all_the_time_cost_a_read_now_and_then() {
    let mut gate = Live::<Gate>::load(CellId::Gate("demo/main".parse().unwrap()), Epoch(1), &[], []).unwrap();
    let mut turn = |event: GateEvent, at: i64| {
        let inbox = [Delivered { seq: at as u64, at: Timestamp(at), intake: Intake::Event(event) }];
        let turn = gate.turn(&inbox, Timestamp(at));
        let is_read = |one: &Dispatch| matches!(one, Dispatch::Do { effect: Effect::ReadForge { .. }, .. });
        (turn.dispatch.iter().any(is_read), turn.write.wake_at)
    };
    let bell = || GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() });
    let snapshot = Snapshot { tip: None, keeps_landed: true, changes: vec![], people: BTreeMap::new() };
    assert!(turn(bell(), 1000).0, "the first one is heard at once");
    turn(GateEvent::ForgeRead(Box::new(ForgeRead { began: Timestamp(1000), snapshot })), 1010);
    assert_eq!(turn(bell(), 1020), (false, Some(Timestamp(1050))));
    assert!(turn(bell(), 1050).0);
}

#[test]
fn h07_a_halt_lands_and_deploys_nothing_and_one_that_ends_leaves_the_other() {
    check(
        "push 1; pass 1; restored; disk-fails; approve 1; why 1; restart; why 1; accept-restore; push 2; pass 3; \
         restored; approve 2; why 2; accept-restore",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            restored
              alert: nothing lands on demo/main: 3 leaves are lost
            disk-fails
              alert: nothing lands on demo/main: the disk did not confirm a write
            approve 1
            why 1
              nothing lands on this server: the disk did not confirm a write; nothing lands on this server: 3 leaves are lost
            restart
            why 1
              nothing lands on this server: 3 leaves are lost
            accept-restore
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
            restored
              alert: nothing lands on demo/main: 3 leaves are lost
            approve 2
            why 2
              nothing lands on this server: 3 leaves are lost
            accept-restore
              land 2 -> Landed
              landed 2 with ["unit"]
        "#]],
    );
}

#[test]
fn h07_a_landing_that_a_driver_has_is_taken_back_by_a_halt_and_told_apart_if_it_arrives_all_the_same() {
    check(
        "push 1; pass 1; stall; approve 1; disk-fails; why 1; arrive; restart",
        expect![[r#"
        push 1
          run 1: Change of 1 (initial run)
        pass 1
        stall
        approve 1
          land 1 is on its way
        disk-fails
          alert: nothing lands on demo/main: the disk did not confirm a write
        why 1
          nothing lands on this server: the disk did not confirm a write
        arrive
          landed 1 with ["unit"]
        restart
          run 2: Land of - (landing of 018080808080)
    "#]],
    );
}

#[test]
fn a_candidate_that_a_power_cut_took_is_made_again_and_lands_without_another_run() {
    check(
        "push 1; pass 1; power-cut; approve 1; noted",
        expect![[r#"
            push 1
              run 1: Change of 1 (initial run)
            pass 1
            power-cut
            approve 1
              land 1 -> its candidate is gone
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            noted
              [018080808080]
        "#]],
    );
}

#[test]
fn a_verdict_beyond_its_budget_alerts_once_and_kills_nothing() {
    check(
        "budget 100; push 1; why 1; later; why 1; pass 1; why 1; retry 1; later; fail 2; push 1; later",
        expect![[r#"
            budget 100
            push 1
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            later
              alert: change 1 at 650101010101 has no verdict within its budget of 100 s
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over; its verdict takes longer than its budget of 100 s
            pass 1
            why 1
              revision 650101010101 has 0 of 1 approvals
            retry 1
              run 2: Change of 1 (retry)
              answer Ok("retry of change 1 at 6501010101010101010101010101010101010101: everything runs again")
            later
            fail 2
            push 1
              run 3: Change of 1 (initial run)
            later
              alert: change 1 at 660101010101 has no verdict within its budget of 100 s
        "#]],
    );
}

#[test]
fn a_budget_counts_from_when_a_revision_may_be_tested() {
    check(
        "budget 100; push-as-outsider 1; later; vouch 1; why 1; pass 1; later; push 2; draft 2; later; undraft 2; pass 2",
        expect![[r#"
            budget 100
            push-as-outsider 1
            later
            vouch 1
              answer Ok("vouched for revision 6501010101010101010101010101010101010101 of change 1: read it")
              run 1: Change of 1 (initial run)
            why 1
              revision 650101010101 has 0 of 1 approvals; run demo/main/1 is not over
            pass 1
            later
            push 2
              run 2: Change of 2 (initial run)
            draft 2
              cancel: change 2 may no longer be tested
            later
            undraft 2
            pass 2
              run 3: Change of 2 (the target moved) carried
        "#]],
    );
}

#[test]
fn a_person_deploys_a_landed_commit_to_one_environment() {
    let deploy = |environment: &str, name: &str| {
        let mut spec = job(name, &[Trigger::Land]);
        let environment: crate::ids::EnvironmentName = environment.parse().unwrap();
        let body = JobBody { environment: Some(environment.clone()), ..JobBody::script("true") };
        spec.body = Arc::new(body);
        let graph = JobGraph { jobs: Arc::new([spec]), budget_seconds: None };
        Verb::DeployTo { environment, commit: commit(1, 1), tree: TreeId([1; 20]), graph }
    };
    let mut bench = Bench::new(GateConfig::default());
    bench.word("approvals 0");
    bench.command(MAINTAINER, deploy("staging", "deploy"));
    bench.command(AUTHOR, deploy("staging", "deploy"));
    let mut other = deploy("staging", "deploy");
    if let Verb::DeployTo { environment, .. } = &mut other {
        *environment = "live".parse().unwrap();
    }
    bench.command(MAINTAINER, other);
    bench.word("freeze");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    bench.word("foreign");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    let by: Vec<String> = bench.runs.values().map(|run| run.by.clone().unwrap().name).collect();
    assert_eq!(by, ["user 1", "user 1"]);
    assert!(bench.runs.values().all(|run| run.level == Level::Landed));
    expect![[r#"
        deployments
          run 1: Manual of - (deployment to staging asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to staging in run demo/main/1")
          answer Err("this takes the role maintainer on demo")
          answer Err("the definition at 010101010101 has no job that deploys to `live`")
          answer Ok("froze demo/main: release")
          run 2: Manual of - (deployment to live asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to live in run demo/main/2")
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
          answer Err("the tip was pushed by somebody else; an admin can run `towpath branch accept`")
    "#]]
    .assert_eq(&format!("deployments\n{}", bench.log));
}

#[test]
fn a_landing_waits_until_a_flooded_inbox_is_drained_and_the_flood_is_taken_in() {
    let mut bench = Bench::new(GateConfig::default());
    bench.word("approvals 0");
    bench.word("push 1");
    let bells = std::iter::repeat_n(GateEvent::Bell(Bell { state_changed: true, ..Bell::default() }), 300);
    let flood = std::iter::once(bench.report(1, &[], Outcome::Passed)).chain(bells);
    let at = Timestamp(bench.clock + STEP_MS);
    let flood: Vec<_> = (bench.seq + 1..)
        .zip(flood)
        .map(|(seq, event)| Delivered { seq, at, intake: Intake::Event(event) })
        .collect();
    let lands = |turn: &crate::turn::Turn| {
        let is_landing = |one: &Dispatch| matches!(one, Dispatch::Do { effect: Effect::Land(_), .. });
        (turn.dispatch.iter().any(is_landing), turn.write.only_if_drained)
    };
    let first = bench.gate.turn(&flood, at);
    assert_eq!(lands(&first), (false, false), "the store would refuse it, and all that came with it");
    let taken_in = first.write.consumed.unwrap();
    let rest: Vec<_> = flood.into_iter().filter(|entry| entry.seq > taken_in).collect();
    assert_eq!(lands(&bench.gate.turn(&rest, at)), (true, true));
}
