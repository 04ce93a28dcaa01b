//! What people tell the gate. Each command names the revision it means, and needs its right when it is executed (I18).

use serde::{Deserialize, Serialize};

use super::runs::Cancel;
use super::settle::Cause;
use super::{Freeze, GateState, HaltCause, Hold, Reason, RetryScope, Vouch, reason};
use crate::act::Act;
use crate::cell::{Refusal, RefusalClass};
use crate::graph::{JobGraph, Trigger};
use crate::ids::{BranchName, ChangeNumber, CommitId, Digest, EnvironmentName, Timestamp, TreeId, UserId};
use crate::policy::{Actor, Level, Role};

/// A person's request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// For the answer.
    pub id: u64,
    /// Who, as authenticated at intake.
    pub by: Actor,
    /// What.
    pub verb: Verb,
}

/// What can be asked of a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Allow exactly one revision to run although its uploader is not authorised.
    Vouch {
        /// The change.
        change: ChangeNumber,
        /// The whole commit id.
        revision: CommitId,
        /// The definition that the person saw; absent: that of the first candidate made of the revision.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        definition: Option<Digest>,
        /// Why.
        why: String,
        /// When it ends.
        expires: Timestamp,
    },
    /// Stop a change.
    Hold {
        /// The change.
        change: ChangeNumber,
        /// Why.
        why: String,
    },
    /// End a stop.
    Release {
        /// The change.
        change: ChangeNumber,
    },
    /// Run again.
    Retry {
        /// The change.
        change: ChangeNumber,
        /// The revision that the person saw.
        revision: CommitId,
        /// How much.
        scope: RetryScope,
    },
    /// Stop a run.
    Cancel {
        /// Its number.
        run: u64,
        /// Why.
        why: String,
    },
    /// Let nothing land.
    Freeze {
        /// Why.
        why: String,
    },
    /// Let land again.
    Unfreeze,
    /// Take a foreign push for good, so that what lands on it may be deployed.
    AcceptTip {
        /// The tip that the person saw.
        tip: CommitId,
    },
    /// Run jobs of the landed definition on the tip.
    RunManual {
        /// The job under `jobs:`; `None`: every job with `on: [manual]`.
        job: Option<String>,
    },
    /// Run the deploy jobs of the tip again.
    Deploy,
    /// Deploy a landed commit to one environment, whatever lands or is frozen meanwhile.
    DeployTo {
        /// Where to.
        environment: EnvironmentName,
        /// A commit that landed on this branch, as it was looked up at intake.
        commit: CommitId,
        /// Its tree.
        tree: TreeId,
        /// The jobs of its own definition that this takes.
        graph: JobGraph,
    },
}

impl Verb {
    /// The change that it names.
    fn change(&self) -> Option<ChangeNumber> {
        match self {
            Verb::Vouch { change, .. }
            | Verb::Hold { change, .. }
            | Verb::Release { change }
            | Verb::Retry { change, .. } => Some(*change),
            _ => None,
        }
    }
}

type Outcome = Result<String, Refusal>;

impl GateState {
    pub(super) fn command(&mut self, command: &Command, now: Timestamp) {
        let before = self.notes.acts.len();
        let result =
            self.permit(command.by.user, &command.verb, now).and_then(|()| self.carry_out(command, now));
        if let Ok(what) = &result {
            // The record has it before what came of it.
            let act = Act::Command { gate: self.id.clone(), by: command.by.clone(), what: what.clone() };
            self.notes.acts.insert(before, act);
        }
        self.answer(command.id, result);
    }

    /// The table of rights: deny by default. Whoever offers a command to a person asks it, too.
    ///
    /// # Errors
    /// The person lacks the right.
    pub fn permit(&self, by: UserId, verb: &Verb, now: Timestamp) -> Result<(), Refusal> {
        let own = self.change_meant(verb).filter(|change| change.facts.owner == by);
        let need = match verb {
            Verb::Hold { .. } | Verb::Retry { .. } | Verb::Cancel { .. } if own.is_some() => Role::Author,
            Verb::Vouch { .. }
            | Verb::Hold { .. }
            | Verb::Release { .. }
            | Verb::Retry { .. }
            | Verb::Cancel { .. }
            | Verb::Freeze { .. }
            | Verb::Unfreeze
            | Verb::RunManual { .. }
            | Verb::Deploy
            | Verb::DeployTo { .. } => Role::Maintainer,
            Verb::AcceptTip { .. } => Role::Admin,
        };
        let have = self.rights(by).map(|rights| rights.role);
        if have.is_none_or(|have| have < need) {
            if let (Some(_), Some(change)) = (have, verb.change()) {
                // Whose it is says what its owner may do, and is known of those that are open here.
                self.open(change)?;
            }
            let why = format!("this takes the role {need:?} on `{}`", self.id.repo).to_lowercase();
            return Err(Refusal::new(RefusalClass::Denied, why));
        }
        match (verb, own) {
            (Verb::Retry { .. }, Some(change)) if have < Some(Role::Maintainer) => self.may_run(change, now),
            _ => Ok(()),
        }
    }

    /// The open change that a command is about.
    fn change_meant(&self, verb: &Verb) -> Option<&super::Change> {
        let of_run = || match verb {
            Verb::Cancel { run, .. } => Some(self.runs.get(*run)?.change?.0),
            _ => None,
        };
        self.changes.get(&verb.change().or_else(of_run)?)
    }

    /// Machines are for what somebody authorised stands for, also where its owner asks for them.
    fn may_run(&self, change: &super::Change, now: Timestamp) -> Result<(), Refusal> {
        if self.level(change, now) > Level::Untrusted {
            return Ok(());
        }
        let reason = Reason::Untrusted { revision: change.facts.revision.commit };
        let vouched = reason.hint(change.facts.number, &self.id.branch).unwrap_or_default();
        let why = format!(
            "{reason}; {vouched}, or an admin authorises who uploaded it (`towpath repo grant USER author --authorised true`)"
        );
        Err(Refusal::new(RefusalClass::Denied, why))
    }

    fn carry_out(&mut self, command: &Command, now: Timestamp) -> Outcome {
        let by = &command.by;
        match &command.verb {
            Verb::Vouch { change, revision, definition, why, expires } => {
                let vouch = Vouch {
                    by: by.user,
                    revision: *revision,
                    definition: *definition,
                    why: why.clone(),
                    at: now,
                    expires: *expires,
                };
                self.vouch(*change, vouch)
            }
            Verb::Hold { change, why } => {
                self.hold(*change, Hold { by: by.name.clone(), why: why.clone(), at: now })
            }
            Verb::Release { change } => self.release(*change),
            Verb::Retry { change, revision, scope } => self.retry(*change, *revision, scope, now),
            Verb::Cancel { run, why } => self.cancel_by_person(*run, &format!("{why} (by {})", by.name)),
            Verb::Freeze { why } => {
                self.freeze(Freeze { by: Some(by.name.clone()), why: why.clone(), at: now, lost: None })
            }
            Verb::Unfreeze => self.unfreeze(now),
            Verb::AcceptTip { tip } => self.accept_tip(*tip, now),
            Verb::RunManual { job } => self.run_manual(job.as_deref(), by, now),
            Verb::Deploy => self.deploy_again(by),
            Verb::DeployTo { environment, commit, tree, graph } => {
                self.deploy_to(environment, (*commit, *tree), graph, (by, now))
            }
        }
    }

    fn vouch(&mut self, number: ChangeNumber, vouch: Vouch) -> Outcome {
        self.at_revision(number, vouch.revision)?;
        if vouch.expires <= vouch.at {
            return Err(Refusal::new(RefusalClass::Invalid, "the expiry is not in the future"));
        }
        let made = self.changes.get(&number).and_then(|change| self.made_candidate(change));
        if let (Some(seen), Some(candidate)) = (vouch.definition, made)
            && candidate.definition != seen
        {
            let why = format!(
                "change {number} would land the definition {} now, not {seen}; look at it again first",
                candidate.definition
            );
            return Err(Refusal::new(RefusalClass::Conflict, why));
        }
        let said = format!("vouched for revision {} of change {number}: {}", vouch.revision, vouch.why);
        let change = self.changes.get_mut(&number).expect("invariant: at_revision found it");
        change.vouch = Some(vouch);
        Ok(said)
    }

    fn hold(&mut self, number: ChangeNumber, hold: Hold) -> Outcome {
        let said = format!("held change {number}: {}", hold.why);
        // Nobody takes the place of somebody else, whose reason would be gone.
        if let Some(held) = self.all_here(number)?.hold.as_ref().filter(|held| held.by != hold.by) {
            return Err(held_already(number, held));
        }
        let change = self.changes.get_mut(&number).expect("invariant: it is open");
        change.hold = Some(hold);
        Ok(said)
    }

    /// What stops a change, also while it is closed, or open again and not read yet.
    pub fn hold_of(&self, number: ChangeNumber) -> Option<&Hold> {
        self.changes.get(&number).map_or_else(|| self.holds.get(&number), |change| change.hold.as_ref())
    }

    /// Whether a change may go to another branch, and what holds it, which goes along.
    ///
    /// # Errors
    /// It is held by somebody else, whose hold this person may not end.
    pub fn permit_to_leave(
        &self,
        by: &Actor,
        number: ChangeNumber,
        now: Timestamp,
    ) -> Result<Option<Hold>, Refusal> {
        let held = self.hold_of(number);
        match held.filter(|held| held.by != by.name) {
            Some(held) if self.permit(by.user, &Verb::Release { change: number }, now).is_err() => {
                Err(held_already(number, held))
            }
            _ => Ok(held.cloned()),
        }
    }

    fn release(&mut self, number: ChangeNumber) -> Outcome {
        if self.all_here(number)?.hold.is_none() {
            return Err(Refusal::new(RefusalClass::Conflict, format!("change {number} is not held")));
        }
        let change = self.changes.get_mut(&number).expect("invariant: it is open");
        change.hold = None;
        Ok(format!("released change {number}"))
    }

    fn cancel_by_person(&mut self, run: u64, why: &str) -> Outcome {
        if !self.runs.get(run).is_some_and(super::RunRecord::is_running) {
            return Err(Refusal::new(RefusalClass::NotFound, format!("run {run} is not running")));
        }
        self.stop_run(run, Cancel { why: why.to_owned(), by_person: true });
        Ok(format!("cancelled run {}: {why}", self.run_id(run)))
    }

    /// Tells a run to stop, unless it was told before or is over.
    pub(super) fn stop_run(&mut self, run: u64, cancel: Cancel) {
        let stoppable = self.runs.get(run).is_some_and(|run| run.is_running() && run.cancel.is_none());
        if let Some(record) = self.runs.get_mut(run).filter(|_| stoppable) {
            record.cancel = Some(cancel);
        }
    }

    fn freeze(&mut self, freeze: Freeze) -> Outcome {
        if let Some(frozen) = &self.branch.frozen {
            let by = frozen.by.as_deref().unwrap_or("the server");
            return Err(Refusal::new(
                RefusalClass::Conflict,
                format!("it is frozen already, by {by}: {}", frozen.why),
            ));
        }
        let said = format!("froze {}: {}", self.id, freeze.why);
        self.branch.edit().frozen = Some(freeze);
        Ok(said)
    }

    /// Ends a freeze. Whoever ends one over a lost landing gives that landing up: from then on the branch has to contain
    /// the tip that was there, so that it freezes again only when more is lost, and what is lost is not deployed any more.
    /// What was lost during another freeze is seen before anything lands.
    fn unfreeze(&mut self, now: Timestamp) -> Outcome {
        let branch = self.branch.edit();
        let Some(freeze) = branch.frozen.take() else {
            return Err(Refusal::new(RefusalClass::Conflict, "it is not frozen"));
        };
        branch.flags.forge.set(now);
        let mut unfroze = format!("unfroze {}", self.id);
        match (branch.lost.filter(|lost| freeze.lost == Some(*lost)), branch.last_tip) {
            (Some(lost), Some(tip)) => {
                (branch.settled_on, branch.lost) = (Some(tip), None);
                branch.deploy.wanted = branch.deploy.wanted.filter(|(commit, _)| *commit != lost);
                unfroze += &format!(" at {tip}, without {lost}");
            }
            // Whoever ends a freeze for another reason has not been asked about a loss.
            _ => self.freeze_over_loss(now),
        }
        if let Some(next) = self.branch.edit().freezes_next.take() {
            self.freeze_ourselves(next);
        }
        if let Some(freeze) = &self.branch.frozen {
            unfroze += &format!("; it froze itself at once: {}", freeze.why);
        }
        Ok(unfroze)
    }

    fn accept_tip(&mut self, tip: CommitId, now: Timestamp) -> Outcome {
        match self.branch.foreign {
            Some(foreign) if foreign == tip => {
                let branch = self.branch.edit();
                branch.foreign = None;
                if branch.last_tip.is_none() {
                    branch.last_tip = Some(tip);
                    branch.flags.forge.set(now);
                }
                Ok(format!("accepted the foreign push of {tip} to {}", self.id))
            }
            Some(foreign) => Err(Refusal::new(
                RefusalClass::Conflict,
                format!("the foreign push to accept is {foreign}, not {tip}"),
            )),
            None => Err(Refusal::new(RefusalClass::Conflict, "there is no foreign push to accept")),
        }
    }

    fn run_manual(&mut self, job: Option<&str>, by: &Actor, now: Timestamp) -> Outcome {
        let (commit, tree, graph) = self.landed_jobs()?;
        let graph = match job {
            None => graph.select(Trigger::Manual),
            Some(job) => graph.select_named(job),
        };
        if graph.jobs.is_empty() {
            let what = job.map_or("job with `on: [manual]`".into(), |job| format!("job `{job}`"));
            return Err(Refusal::new(
                RefusalClass::NotFound,
                format!("the definition at {} has no {what}", commit.short()),
            ));
        }
        if graph.jobs.iter().any(|job| job.body.environment.is_some()) {
            self.not_restored()?;
        }
        let reason = format!("asked for by {}", by.name);
        let cause = Cause { reason, by: Some(by.clone()), now, restored: false };
        let number = self.start_landed_run(Trigger::Manual, (commit, tree), graph, cause);
        Ok(format!("started run {}", self.run_id(number)))
    }

    fn deploy_again(&mut self, by: &Actor) -> Outcome {
        let (commit, tree, graph) = self.landed_jobs()?;
        if graph.select(Trigger::Land).jobs.is_empty() {
            let why = format!("the definition at {} has no job with `on: [land]`", commit.short());
            return Err(Refusal::new(RefusalClass::NotFound, why));
        }
        if self.running_deploy().is_some() {
            return Err(Refusal::new(RefusalClass::Conflict, "a deploy run is under way; cancel it first"));
        }
        self.not_restored()?;
        let deploy = &mut self.branch.edit().deploy;
        deploy.wanted = Some((commit, tree));
        (deploy.by, deploy.restored) = (Some(by.clone()), false);
        Ok(format!("deploys {commit} again"))
    }

    /// A freeze stops what happens by itself; going back to what ran before is often why somebody froze the branch.
    fn deploy_to(
        &mut self,
        environment: &EnvironmentName,
        landed: (CommitId, TreeId),
        graph: &JobGraph,
        (by, now): (&Actor, Timestamp),
    ) -> Outcome {
        if let Some(tip) = self.branch.foreign {
            return Err(foreign_tip(&self.id.branch, tip));
        }
        let deploys = |job: &crate::graph::JobSpec| {
            job.skip.is_none() && job.body.environment.as_ref() == Some(environment)
        };
        if !graph.jobs.iter().any(deploys) {
            let why =
                format!("the definition at {} has no job that deploys to `{environment}`", landed.0.short());
            return Err(Refusal::new(RefusalClass::NotFound, why));
        }
        self.not_restored()?;
        let reason = format!("deployment to {environment} asked for by {}", by.name);
        let cause = Cause { reason, by: Some(by.clone()), now, restored: false };
        let number = self.start_landed_run(Trigger::Manual, landed, graph.clone(), cause);
        Ok(format!("deploys {} to {environment} in run {}", landed.0, self.run_id(number)))
    }

    /// Whoever deploys over restored data has first to accept what was lost, and to look what runs.
    fn not_restored(&self) -> Result<(), Refusal> {
        let cause = HaltCause::Restore;
        let Some(why) = self.halts.get(&cause) else { return Ok(()) };
        Err(Refusal::new(RefusalClass::Conflict, format!("nothing is deployed: {why}; {}", cause.mend())))
    }

    /// The tip and its jobs, if it is ours or accepted (trust T1: only what landed runs as landed).
    fn landed_jobs(&self) -> Result<(CommitId, TreeId, JobGraph), Refusal> {
        let refused = |class: RefusalClass, why: &str| Err(Refusal::new(class, why));
        if let Some(tip) = self.branch.foreign {
            return Err(foreign_tip(&self.id.branch, tip));
        }
        let Some(tip) = &self.branch.tip else {
            return match self.is_reading() {
                true => refused(RefusalClass::NotYet, "the branch is being read; try again"),
                false => refused(RefusalClass::Conflict, "the branch does not exist"),
            };
        };
        match &*self.landed_graph {
            Some((commit, Ok(graph))) if *commit == tip.commit => Ok((tip.commit, tip.tree, graph.clone())),
            Some((commit, Err(errors))) if *commit == tip.commit => {
                let errors = errors.join("; ");
                let why = format!("the definition at {} cannot be used: {errors}", commit.short());
                refused(RefusalClass::Conflict, &why)
            }
            _ => refused(RefusalClass::NotYet, "the definition of the tip is being read; try again"),
        }
    }

    /// Whether what is to be run of the branch is about to be another one: something lands, or is being read.
    pub fn is_reading_landed(&self) -> bool {
        self.is_landing() || self.landed_jobs().is_err_and(|refusal| refusal.class == RefusalClass::NotYet)
    }

    pub(super) fn open(&self, number: ChangeNumber) -> Result<&super::Change, Refusal> {
        let missing = || match self.landed.get(&number) {
            Some(landed) => {
                let why = format!("change {number} landed as {}", landed.commit.short());
                Refusal::new(RefusalClass::Conflict, why)
            }
            None => Refusal::new(RefusalClass::NotFound, format!("there is no open change {number} here")),
        };
        self.changes.get(&number).ok_or_else(missing)
    }

    /// The open change, once what comes along with it is here.
    fn all_here(&self, number: ChangeNumber) -> Result<&super::Change, Refusal> {
        let change = self.open(number)?;
        self.may_go_on(number, change.facts.came.as_ref())?;
        Ok(change)
    }

    pub(super) fn at_revision(&self, number: ChangeNumber, revision: CommitId) -> Result<(), Refusal> {
        let newest = self.open(number)?.facts.revision.commit;
        match newest == revision {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalClass::Conflict,
                format!(
                    "change {number} is at revision {newest} now, not at {revision}; look at it again first"
                ),
            )),
        }
    }
}

fn held_already(number: ChangeNumber, held: &Hold) -> Refusal {
    Refusal::new(RefusalClass::Conflict, format!("{} holds change {number}: {}", held.by, held.why))
}

/// Only what landed runs as landed (trust T1).
fn foreign_tip(branch: &BranchName, tip: CommitId) -> Refusal {
    let why = format!("no landing put the tip there; {}", reason::accept(branch, tip));
    Refusal::new(RefusalClass::Conflict, why)
}
