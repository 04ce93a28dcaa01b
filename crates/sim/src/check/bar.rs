//! The bar, told again from the truth: what a candidate must have passed, and what its change must have, at the moment
//! at which its landing is claimed.

use towpath_core::act::LandedAct;
use towpath_core::definition::{EmptySet, GateSettings, Proof};
use towpath_core::effect::Landing;
use towpath_core::gate::{ForgeChange, Review, Snapshot, Verdict, message_digest};
use towpath_core::graph::{Outcome, Trigger};
use towpath_core::ids::{CommitId, Digest, Epoch, GateId, Timestamp, UserId};
use towpath_core::policy::{Level, Role};

use super::newest::Grounds;
use crate::fake::definition::{self, Job};
use crate::fake::executor::Stage;
use crate::fake::forge::Pusher;
use crate::fake::git::{DEFINITION, changed_paths, tree_id};
use crate::world::{AnyLive, World};

impl World {
    /// I2, I3, I7, I18 at a claim. What the landing's leaf has to say is remembered: the change may be closed or pushed to
    /// while it lands.
    pub(super) fn check_claim(&mut self, epoch: Epoch, landing: &Landing, now: Timestamp) {
        let gate = GateId { repo: landing.repo.clone(), branch: landing.branch.clone() };
        let live = self
            .server(epoch)
            .and_then(|server| server.cells.get(&towpath_core::cell::CellId::Gate(gate.clone())));
        let began = live.and_then(|live| match live {
            AnyLive::Gate(live) => live.state.branch().read_began,
            _ => None,
        });
        let verdict = match self.checks.truth(&gate, began) {
            Some(truth) => self.may_land(&gate, landing, &truth.snapshot, now),
            None => Err("no reading of the branch stands behind it".into()),
        };
        match verdict {
            Ok(leaf) => drop(self.checks.claimed.insert(landing.to, leaf)),
            Err(why) => {
                let what = format!("change {} is about to land as {}: {why}", landing.change, landing.to);
                self.violate("I2", what);
            }
        }
    }

    fn may_land(
        &self,
        gate: &GateId,
        landing: &Landing,
        truth: &Snapshot,
        now: Timestamp,
    ) -> Result<LandedAct, String> {
        let spec = self.forge.git.made_from.get(&landing.to).ok_or("it is no candidate")?;
        let change = truth.changes.iter().find(|change| change.number == landing.change);
        let change = change.ok_or("the change is not open")?;
        if spec.revision != change.revision.commit {
            return Err(format!(
                "it is of revision {}, the newest is {}",
                spec.revision, change.revision.commit
            ));
        }
        if spec.parent != landing.from || truth.tip.as_ref().map(|tip| tip.commit) != Some(landing.from) {
            return Err(format!("it was made on {}, not on the tip", spec.parent));
        }
        if !spec.message.contains(&change.title) {
            return Err("its message is not the change's".into());
        }
        self.not_stopped(gate, change)?;
        self.has_deployed(gate, landing)?;
        let settings = self.settings(landing);
        self.is_approved(gate, change, landing, (truth, settings))?;
        let level =
            self.true_level(gate, change, (truth, self.edited_definition(landing.from, landing.to)), now);
        if level == Level::Untrusted {
            return Err("nobody trusts it".into());
        }
        self.has_passed(landing, change, (settings, level))?;
        let Grounds { results, runs } = self.rests_on_the_newest(gate, landing, change, (settings, level))?;
        Ok(LandedAct {
            gate: gate.clone(),
            change: change.number,
            revision: spec.revision,
            candidate: spec.id(),
            parent: spec.parent,
            commit: landing.to,
            tree: tree_id(&self.forge.git.get(landing.to).files),
            definition: self.forge.definition_of(landing.to),
            results,
            runs,
            approvals: approvals(gate, change, truth).iter().map(|review| review.by).collect(),
            at: now,
        })
    }

    pub(super) fn not_stopped(&self, gate: &GateId, change: &ForgeChange) -> Result<(), String> {
        let labels = &self.config.labels;
        let stops = [&labels.wip, &labels.stacked, &labels.never, &labels.no_test];
        if let Some(label) = stops.into_iter().find(|label| change.labels.contains(*label)) {
            return Err(format!("it has the label {label}"));
        }
        if change.draft {
            return Err("it is a draft".into());
        }
        if self.checks.frozen.contains(gate) {
            return Err("the branch is frozen".into());
        }
        self.not_held(gate, change)
    }

    /// Where landings wait for deployments, that of the landing before is over.
    fn has_deployed(&self, gate: &GateId, landing: &Landing) -> Result<(), String> {
        let newest = self.forge.branch(&gate.branch).pushes.last();
        let is_ours = newest.is_some_and(|push| push.by != Pusher::Person && push.to == landing.from);
        let graph = definition::landed_graph(self.forge.git.get(landing.from).files[DEFINITION]);
        let deploys = graph.is_ok_and(|graph| !graph.select(Trigger::Land).jobs.is_empty());
        let waits = self.config.wait_for_deploy && is_ours && deploys && !self.checks.foreign.contains(gate);
        match !waits || self.checks.told.is_deployed(gate, landing.from) {
            true => Ok(()),
            false => Err(format!("the deploy run of {} is not over", landing.from)),
        }
    }

    pub(super) fn settings(&self, landing: &Landing) -> GateSettings {
        let target = self.forge.git.get(landing.from).files[DEFINITION];
        definition::read(target).map(|read| read.settings).unwrap_or_default()
    }

    pub(super) fn is_approved(
        &self,
        gate: &GateId,
        change: &ForgeChange,
        landing: &Landing,
        (truth, settings): (&Snapshot, GateSettings),
    ) -> Result<(), String> {
        let asked = settings.approvals.unwrap_or(self.config.approvals) as usize;
        let need = asked.max(usize::from(!is_of_authorised(change, truth)));
        let approvals = approvals(gate, change, truth);
        if approvals.len() < need {
            return Err(format!("it has {} of {need} approvals", approvals.len()));
        }
        let objects = |review: &&Review| {
            review.verdict == Verdict::RequestChanges
                && review.revision == change.revision.commit
                && is_maintainer(truth, review.by)
        };
        if newest(change).iter().any(objects) {
            return Err("somebody asks for changes".into());
        }
        let edited = self.edited_definition(landing.from, landing.to);
        let seen = approvals.iter().any(|review| review.definition == edited);
        let own_word = need == 0 && uploaders(change).all(|user| is_maintainer(truth, *user));
        if edited.is_some() && !seen && !own_word {
            return Err("it edits the definition, which no maintainer has approved".into());
        }
        Ok(())
    }

    /// The definition that a candidate would land, if it edits it.
    pub(super) fn edited_definition(&self, from: CommitId, to: CommitId) -> Option<Digest> {
        let [target, own] = [from, to].map(|commit| self.forge.definition_of(commit));
        (target != own).then_some(own)
    }

    /// The level that the truth gives a revision in a candidate that edits the definition to this one, or does not edit it.
    pub(super) fn true_level(
        &self,
        gate: &GateId,
        change: &ForgeChange,
        (truth, edited): (&Snapshot, Option<Digest>),
        now: Timestamp,
    ) -> Level {
        let approvals = approvals(gate, change, truth);
        let stands = approvals.iter().any(|review| edited.is_none() || review.definition == edited);
        if is_of_authorised(change, truth) || stands {
            return Level::Authorised;
        }
        if !approvals.is_empty() {
            return Level::Vouched;
        }
        let vouched = self.checks.vouches.get(&(gate.clone(), change.number)).is_some_and(|vouched| {
            vouched.revision == change.revision.commit
                && vouched.expires > now
                && (edited.is_none() || [None, edited].contains(&vouched.definition))
                && is_maintainer(truth, vouched.by)
        });
        if vouched { Level::Vouched } else { Level::Untrusted }
    }

    /// Each required job has truly passed on this commit, or on this tree where the target says that this is enough.
    fn has_passed(
        &self,
        landing: &Landing,
        change: &ForgeChange,
        (settings, level): (GateSettings, Level),
    ) -> Result<(), String> {
        let full = change.labels.contains(&self.config.labels.rerun_all);
        let required = self.required(landing, full)?;
        if required.is_empty() && settings.empty != EmptySet::Land {
            return Err("nothing was required of it".into());
        }
        let files = self.forge.git.get(landing.to).files;
        for job in required {
            if !definition::passes(&job.body, &files, landing.to) {
                return Err(format!("`{}` fails on it", job.body.run));
            }
            let shown = self.executor.jobs.values().any(|ran| {
                let same_tree = settings.proof == Proof::Tree && !job.body.history;
                let about_it = ran.commit == landing.to || same_tree && ran.tree == tree_id(&files);
                let passed = matches!(&ran.stage, Stage::Ended(result) if result.outcome == Outcome::Passed);
                let is_told = ran.title.as_ref() == Some(&change.title);
                ran.script == job.body.run && about_it && is_told && passed && ran.level >= level
            });
            if !shown {
                return Err(format!("nobody has shown that `{}` passes on it", job.body.run));
            }
        }
        Ok(())
    }

    /// The target's required jobs and, if the definition is edited, the change's own; each with the job that it needs.
    pub fn required(&self, landing: &Landing, full: bool) -> Result<Vec<Job>, String> {
        let [before, after] = [landing.from, landing.to].map(|commit| self.forge.git.get(commit).files);
        let changed = changed_paths(&before, &after);
        let own = definition::read(after[DEFINITION]).map_err(|_| "its definition cannot be used")?.jobs;
        if before[DEFINITION] == after[DEFINITION] {
            let runs = |job: &Job| full || job.when.is_none_or(|when| changed.contains(&when));
            return Ok(with_needs(&own, runs));
        }
        let of_target = definition::read(before[DEFINITION]).map(|read| read.jobs).unwrap_or_default();
        let of_both = [of_target, own].map(|jobs| with_needs(&jobs, |_| true));
        Ok(of_both.concat())
    }
}

fn with_needs(jobs: &[Job], runs: impl Fn(&Job) -> bool) -> Vec<Job> {
    let required: Vec<&Job> = jobs.iter().filter(|job| job.required && runs(job)).collect();
    let needed = required.iter().filter_map(|job| jobs.iter().find(|other| Some(other.name) == job.needs));
    required.iter().copied().chain(needed).cloned().collect()
}

fn is_maintainer(truth: &Snapshot, user: UserId) -> bool {
    truth.people.get(&user).is_some_and(|rights| rights.role >= Role::Maintainer)
}

/// Each person's last word.
fn newest(change: &ForgeChange) -> Vec<&Review> {
    let mut last = std::collections::BTreeMap::<UserId, &Review>::new();
    for review in &change.reviews {
        let word = last.entry(review.by).or_insert(review);
        if review.at >= word.at {
            *word = review;
        }
    }
    last.into_values().collect()
}

/// Who uploaded its head, and who the commits below that are not on the branch.
fn uploaders(change: &ForgeChange) -> impl Iterator<Item = &UserId> {
    std::iter::once(&change.revision.uploader).chain(&change.revision.stack_uploaders)
}

fn is_of_authorised(change: &ForgeChange, truth: &Snapshot) -> bool {
    uploaders(change).all(|user| truth.people.get(user).is_some_and(|rights| rights.authorised))
}

/// Approvals of exactly what would land, by people with the right who uploaded none of it.
fn approvals<'a>(gate: &GateId, change: &'a ForgeChange, truth: &Snapshot) -> Vec<&'a Review> {
    let message = message_digest(&change.title, &change.body);
    let counts = |review: &&Review| {
        review.verdict == Verdict::Approve
            && review.revision == change.revision.commit
            && review.target == gate.branch
            && review.message == message
            && uploaders(change).all(|user| *user != review.by)
            && is_maintainer(truth, review.by)
    };
    newest(change).into_iter().filter(counts).collect()
}
