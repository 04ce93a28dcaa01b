//! Effects: actions owed to the world, recorded before they are done, done by key.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::candidate::CandidateSpec;
use crate::cell::CellId;
use crate::graph::{JobIndex, JobSpec, Lease};
use crate::ids::{
    BranchName, CandidateId, ChangeNumber, CommitId, Digest, EnvironmentId, GateId, RepoName, RunId,
    Timestamp, TreeId,
};
use crate::message::Message;
use crate::policy::Level;

/// What makes two effects the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectKey(std::sync::Arc<str>);

impl EffectKey {
    /// An effect that happens once per generation of its subject.
    ///
    /// Subjects are names and ids of this crate, none of which can hold ` #`.
    pub fn once(kind: &str, subject: impl fmt::Display, generation: u64) -> EffectKey {
        EffectKey(format!("{kind} {subject} #{generation}").into())
    }

    /// An effect whose newest wanted value wins.
    pub fn level(kind: &str, subject: impl fmt::Display) -> EffectKey {
        EffectKey(format!("{kind} {subject}").into())
    }

    /// A key as it was stored.
    pub fn stored(text: &str) -> EffectKey {
        EffectKey(text.into())
    }

    /// Whether the effect is of the kind that happens once per generation.
    pub fn is_once(&self) -> bool {
        self.0.contains(" #")
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An action owed to the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Read the branch and its changes from the forge, whole. Result: `GateEvent::ForgeRead`.
    ReadForge {
        /// Whose branch.
        gate: GateId,
        /// The commit that the head has to contain.
        landed: Option<CommitId>,
    },
    /// Read the jobs of a landed commit's own definition. Result: `GateEvent::GraphRead`.
    ReadGraph {
        /// The repo.
        repo: RepoName,
        /// The commit.
        commit: CommitId,
    },
    /// Make a candidate commit and its graph. Result: `GateEvent::CandidateMade`.
    MakeCandidate {
        /// The hash of `spec`.
        id: CandidateId,
        /// The repo in which it is made.
        repo: RepoName,
        /// What to make.
        spec: CandidateSpec,
    },
    /// Move the branch from the tested parent to the candidate. Result: `GateEvent::LandTried`.
    Land(Landing),
    /// Tell the forge that a change has landed.
    MarkLanded {
        /// The repo.
        repo: RepoName,
        /// The change.
        change: ChangeNumber,
        /// The landed commit.
        commit: CommitId,
    },
    /// Put the proof that the record holds a landing beside the landed commit, as a note in the repository.
    NoteLanding {
        /// Whose branch.
        gate: GateId,
        /// The landed commit.
        commit: CommitId,
    },
    /// Show a gate's verdict on a change. Each gate has its own place: after a change has moved to another branch, nothing
    /// that the former gate still says can be taken for the new one's word.
    SetCheck {
        /// Whose verdict.
        gate: GateId,
        /// The change.
        change: ChangeNumber,
        /// The revision that was judged.
        revision: CommitId,
        /// What to show.
        check: Check,
    },
    /// Tell the people who look after the branch.
    Alert {
        /// The gate.
        gate: GateId,
        /// What happened and what to do.
        text: String,
    },
    /// Put a message into another cell's inbox. Needs no driver: the turn does it in its own transaction.
    Send {
        /// The cell.
        to: CellId,
        /// The message.
        message: Message,
    },
    /// Let another program serve in this server's place. Result: `EnvironmentEvent::Replaced`.
    ReplaceServer(Replacement),
    /// Run one attempt of a job to its end. Withdrawing it kills the job. Result: `RunEvent::JobEnded`.
    RunJob(Box<JobOrder>),
}

/// A program that is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The environment that is this server.
    pub environment: EnvironmentId,
    /// The deployment's number there.
    pub number: u64,
    /// The landed commit that it was made of.
    pub commit: CommitId,
    /// Manifest of the output that holds it.
    pub program: Digest,
    /// It was owed when the data were saved: in the life that was lost it may have served, and others after it.
    #[serde(default)]
    pub restored: bool,
}

/// A fast-forward of a gated branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landing {
    /// The repo.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
    /// The change that lands.
    pub change: ChangeNumber,
    /// Its revision that was tested: with another one, or for another branch, it is not the change that passed.
    pub revision: CommitId,
    /// When it came to the branch from another one: gone and back since, it may have been held elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_at: Option<Timestamp>,
    /// The candidate that passed.
    pub candidate: CandidateId,
    /// The tip that was tested under: the compare of compare-and-swap.
    pub from: CommitId,
    /// The tested commit itself: the swap.
    pub to: CommitId,
}

/// Everything that an executor needs for one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobOrder {
    /// The run.
    pub run: RunId,
    /// Fences the answers.
    pub lease: Lease,
    /// Set for a deployment that was under way when the data were saved: in the life that was lost it may have run to its end.
    #[serde(default)]
    pub restored: bool,
    /// The job; its needs are named in `inputs`.
    pub spec: JobSpec,
    /// The commit under test.
    pub commit: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// Decides about secrets.
    pub level: Level,
    /// Plain facts for the job's environment, as `TOWPATH_<KEY>`.
    pub facts: BTreeMap<String, String>,
    /// Needed jobs, with their outputs.
    pub inputs: Vec<JobInput>,
}

impl JobOrder {
    /// The outputs of needed jobs: folder below `$TOWPATH_INPUTS` to manifest. A single output has the folder of its job
    /// to itself, several have a folder each in it.
    pub fn input_folders(&self) -> BTreeMap<String, Digest> {
        let all =
            self.inputs.iter().flat_map(|input| input.outputs.iter().map(move |output| (input, output)));
        all.map(|(input, (output, manifest))| {
            let folder = match input.outputs.len() {
                1 => input.name.clone(),
                _ => format!("{}/{output}", input.name),
            };
            (folder, *manifest)
        })
        .collect()
    }
}

/// The outputs of one needed job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobInput {
    /// The needed job.
    pub job: JobIndex,
    /// The folder below `$TOWPATH_INPUTS`.
    pub name: String,
    /// Output name to manifest digest.
    pub outputs: BTreeMap<String, Digest>,
}

/// A verdict as the forge shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its colour.
    pub verdict: Verdict,
    /// One sentence.
    pub text: String,
    /// The run to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// The colours of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Undecided.
    Pending,
    /// Good.
    Success,
    /// Not good.
    Failure,
}

/// What a cell owes, and when to ask again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Every effect owed now.
    pub effects: BTreeMap<EffectKey, Effect>,
    /// The earliest time at which the answer may differ although nothing happened.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Adds an effect.
    pub fn owe(&mut self, key: EffectKey, effect: Effect) {
        self.effects.insert(key, effect);
    }

    /// Asks to be planned again at `at` or earlier.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

impl Effect {
    /// The kind in one word, as its key has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Effect::ReadForge { .. } => "read-forge",
            Effect::ReadGraph { .. } => "read-graph",
            Effect::MakeCandidate { .. } => "make-candidate",
            Effect::Land(_) => "land",
            Effect::MarkLanded { .. } => "mark-landed",
            Effect::NoteLanding { .. } => "note-landing",
            Effect::SetCheck { .. } => "set-check",
            Effect::Alert { .. } => "alert",
            Effect::Send { .. } => "send",
            Effect::ReplaceServer(_) => "replace-server",
            Effect::RunJob(_) => "run-job",
        }
    }

    /// Whether executing it takes that no unseen event waits in the cell's inbox, so that a freeze, hold or withdrawn
    /// approval that was accepted before the claim is always heard (design 2, "The claim of a `land`"). For the same
    /// reason the store refuses such a claim while landing is halted, whether or not the gate has heard of it.
    pub fn needs_drained_inbox(&self) -> bool {
        matches!(self, Effect::Land(_))
    }
}
