//! What a repository, a server's own or any clone, has to say about the record: whether a leaf explains each step of
//! a gated branch, and whether the notes beside landed commits prove their leaves (trust T9). Offline; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use towpath_core::act::{Act, LandedAct};
use towpath_core::ids::{CommitId, GateId};
use towpath_git::{GitError, RefName, Repository};
use towpath_store::audit::{Entry, Held, Leaf, LeafProof, Restored, VerifierKey};
use towpath_store::{ReadError, View};

/// Leaves read at once.
const LEAVES_AT_ONCE: usize = 1_000;
/// Commits of one landing at most: a change that is rebased brings no more. Source: `towpath-git`, candidates.
const COMMITS_OF_A_LANDING_MAX: usize = 1_001;
/// How long a leaf is waited for that explains where a branch is: a landing's is written within a second of its ref, but on a
/// disk that is slow.
const LEAF_WAIT: Duration = Duration::from_secs(3);
/// How often it is looked for.
const LEAF_LOOK: Duration = Duration::from_millis(20);
/// What there is to say where a commit is not in a repository.
const NOT_WHOLE: &str =
    "objects of this repository are lost, or it was cloned in part, which `git fetch --unshallow` mends";

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The repository cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The record cannot be read.
    #[error(transparent)]
    Record(#[from] ReadError),
}

/// One step of a gated branch, as a leaf or a note tells of it.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Landed(Box<LandedAct>),
    Foreign { from: Option<CommitId> },
}

/// What is known of one gate, oldest step first.
#[derive(Debug, Clone, Default)]
struct Story {
    /// By the commit that each led to, with the place that tells of it.
    steps: BTreeMap<CommitId, (Step, String)>,
    /// Where the branch was before the first of them: imported, say.
    first: Option<CommitId>,
    /// Where the newest one led to.
    last: Option<CommitId>,
}

impl Story {
    fn add(&mut self, to: CommitId, step: Step, place: String) {
        if self.steps.is_empty() {
            self.first = match &step {
                Step::Landed(landed) => Some(landed.parent),
                Step::Foreign { from } => *from,
            };
        }
        self.steps.insert(to, (step, place));
        self.last = Some(to);
    }

    fn has_landed(&self, commit: CommitId) -> bool {
        matches!(self.steps.get(&commit), Some((Step::Landed(_), _)))
    }

    fn knows(&self, commit: CommitId) -> bool {
        self.first == Some(commit) || self.steps.contains_key(&commit)
    }
}

/// What a record tells of.
#[derive(Debug, Clone, Default)]
struct Told {
    stories: BTreeMap<GateId, Story>,
    /// How many leaves it has.
    leaves: u64,
    /// Restores, each with its leaf. One that nobody signed is a finding of the log's verifier.
    restores: Vec<(u64, Restored)>,
}

/// A proof that a note holds, or why it holds none.
type Noted = BTreeMap<CommitId, Result<(Leaf, LeafProof), String>>;

/// Where a repository keeps what it has of a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of which repo it is, if that is known.
    pub repo: Option<String>,
    /// The notes beside landed commits.
    pub notes: RefName,
    /// Where its branches are; the first place that has one counts.
    pub branches: Vec<String>,
}

impl Kept {
    /// In a server's own repository, or in a clone that fetched the notes to where the server has them: a clone has what
    /// it last saw of a branch, and its own work beside it.
    pub fn unnamed() -> Kept {
        let branches = ["refs/remotes/towpath", "refs/remotes/origin", "refs/heads"];
        Kept { repo: None, notes: RefName::landing_notes(), branches: branches.map(str::to_owned).into() }
    }

    /// By a remote of a clone, which fetches the notes to `notes`.
    pub fn by_remote(remote: &str, repo: Option<String>, notes: RefName) -> Kept {
        Kept { repo, notes, branches: vec![format!("refs/remotes/{remote}"), "refs/heads".to_owned()] }
    }
}

/// What a repository says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Witness {
    /// Gated branches that were looked at.
    pub branches: Vec<BranchSeen>,
    /// Notes whose proof holds.
    pub notes: usize,
    /// Landings that a note proves and that a restore has lost, as the record says.
    pub lost: Vec<String>,
    /// Everything that is wrong.
    pub findings: Vec<String>,
    /// Checkpoints from the notes, for the verifier of the log.
    #[serde(skip)]
    pub held: Vec<Held>,
}

/// One gated branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BranchSeen {
    /// `repo/branch`.
    pub gate: String,
    /// Which ref was looked at.
    pub name: String,
    /// Where it is.
    pub tip: String,
    /// Landings from the tip back that are explained.
    pub landings: usize,
    /// How many of them have a note.
    pub noted: usize,
    /// Steps among them that somebody else made, as the record says.
    pub foreign: usize,
    /// The record knows of later steps than the tip.
    pub behind: bool,
}

/// Compares a repository with the record, as far as there is one here, and with its own notes.
///
/// # Errors
/// The repository or the record cannot be read. What is wrong in them is a finding.
pub fn look(
    (repository, kept): (&Repository, &Kept),
    record: Option<&View>,
    trusted: &[VerifierKey],
) -> Result<Witness, WitnessError> {
    let seen = Seen::in_repository((repository, kept), trusted)?;
    match record {
        Some(record) => {
            let until = Instant::now() + LEAF_WAIT;
            seen.compared_with(record, |leaves| await_leaves(record, leaves, until))
        }
        None => Ok(seen.compared(None)?.0),
    }
}

/// What a repository has at one moment. The record is read after it: a server may be at work, and writes each landing's leaf
/// before its note.
pub struct Seen<'r> {
    repository: &'r Repository,
    kept: &'r Kept,
    notes: Noted,
    /// What the notes tell of.
    stories: BTreeMap<GateId, Story>,
    /// Where each of its branches is.
    tips: BTreeMap<RefName, CommitId>,
    /// What there is to say without the record.
    witness: Witness,
}

impl<'r> Seen<'r> {
    /// Reads a repository.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn in_repository(
        (repository, kept): (&'r Repository, &'r Kept),
        trusted: &[VerifierKey],
    ) -> Result<Seen<'r>, WitnessError> {
        let mut witness = Witness::default();
        let notes = read_notes((repository, kept), trusted, &mut witness)?;
        let stories = tell_of_notes(&notes, &mut witness);
        let mut tips = BTreeMap::new();
        for place in &kept.branches {
            let refs = repository.refs(place)?.into_iter();
            tips.extend(refs.map(|found| (found.name, CommitId(found.target.0))));
        }
        Ok(Seen { repository, kept, notes, stories, tips, witness })
    }

    /// Compares it with the record. A server moves a branch before it writes the leaf: as long as no leaf explains a tip and
    /// `await_more` says that there are more leaves than so many, the record is read again.
    ///
    /// # Errors
    /// As of [`look`].
    pub fn compared_with(
        &self,
        record: &View,
        mut await_more: impl FnMut(u64) -> Result<bool, ReadError>,
    ) -> Result<Witness, WitnessError> {
        loop {
            let told = told_by(record)?;
            let (witness, is_explained) = self.compared(Some(&told))?;
            if is_explained || !await_more(told.leaves)? {
                return Ok(witness);
            }
        }
    }

    /// What there is to say, and whether each tip is explained.
    fn compared(&self, told: Option<&Told>) -> Result<(Witness, bool), WitnessError> {
        let mut witness = self.witness.clone();
        let mut stories = match told {
            None => self.stories.clone(),
            Some(told) => {
                compare((&self.notes, &self.stories), told, &mut witness);
                told.stories.clone()
            }
        };
        // A record is of many repositories: this one is looked at for the branches that it has a part of.
        stories.retain(|gate, _| self.kept.repo.as_deref().is_none_or(|repo| repo == gate.repo.as_str()));
        let mut is_explained = true;
        for (gate, story) in &stories {
            let here = story.steps.keys().map(|commit| self.repository.has_commit(*commit));
            if here.collect::<Result<Vec<_>, _>>()?.contains(&true) {
                is_explained &= self.look_at_branch(gate, story, &mut witness)?;
            }
        }
        Ok((witness, is_explained))
    }

    /// Follows a branch back from its tip; `false`: nothing explains the tip.
    fn look_at_branch(
        &self,
        gate: &GateId,
        story: &Story,
        witness: &mut Witness,
    ) -> Result<bool, WitnessError> {
        let Some((name, tip)) = self.tip_of(gate)? else {
            witness.findings.push(format!("there is no branch of {gate} here"));
            return Ok(true);
        };
        let mut seen = BranchSeen {
            gate: gate.to_string(),
            name: name.to_string(),
            tip: tip.to_string(),
            landings: 0,
            noted: 0,
            foreign: 0,
            behind: story.last.is_some_and(|last| last != tip),
        };
        if !story.knows(tip) {
            let last = story.last.map_or_else(String::new, |last| format!("; its last word is {last}"));
            witness.findings.push(format!("no leaf explains the tip {tip} of {gate}{last}"));
        }
        let mut at = tip;
        let mut passed = BTreeSet::new();
        while let Some((step, place)) = story.steps.get(&at).filter(|_| passed.insert(at)) {
            at = match step {
                Step::Landed(landed) => {
                    let tells = format!("{place} tells of {at} on {gate}, but ");
                    match differs(self.repository, landed) {
                        // What is before it is not looked at: it would be said of each step anew.
                        Err(GitError::Missing { id }) => {
                            witness.findings.push(format!("{tells}{id} is not here: {NOT_WHOLE}"));
                            break;
                        }
                        differs => witness.findings.extend(differs?.map(|why| tells + &why)),
                    }
                    seen.landings += 1;
                    seen.noted += usize::from(matches!(self.notes.get(&at), Some(Ok(_))));
                    landed.parent
                }
                Step::Foreign { from } => {
                    seen.foreign += 1;
                    match from {
                        Some(from) => *from,
                        None => break,
                    }
                }
            };
        }
        if at != tip && !story.knows(at) {
            witness.findings.push(format!("no leaf explains {at}, on which {gate} went on"));
        }
        witness.branches.push(seen);
        Ok(story.knows(tip))
    }

    fn tip_of(&self, gate: &GateId) -> Result<Option<(RefName, CommitId)>, GitError> {
        for place in &self.kept.branches {
            let name: RefName = format!("{place}/{}", gate.branch).parse()?;
            if let Some(tip) = self.tips.get(&name) {
                return Ok(Some((name, *tip)));
            }
        }
        Ok(None)
    }
}

/// Waits for leaves that a server is about to write; says whether there are any.
fn await_leaves(record: &View, known: u64, until: Instant) -> Result<bool, ReadError> {
    while record.leaf_count()? == known {
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::park_timeout(LEAF_LOOK);
    }
    Ok(Instant::now() < until)
}

fn read_notes(
    (repository, kept): (&Repository, &Kept),
    trusted: &[VerifierKey],
    witness: &mut Witness,
) -> Result<Noted, WitnessError> {
    let mut noted = Noted::new();
    for (commit, text) in repository.notes(&kept.notes)? {
        let proof = std::str::from_utf8(&text).map_err(|error| error.to_string());
        let proof = proof.and_then(|text| text.parse::<LeafProof>().map_err(|error| error.to_string()));
        if let Ok(proof) = &proof {
            let place = format!("the note of {}", commit.short());
            witness.held.push(Held { place, text: proof.checkpoint.to_string() });
        }
        let proven = proof.and_then(|proof| {
            let failures = trusted.iter().map(|key| proof.verify(key));
            let leaf = failures.reduce(|one, other| one.or(other));
            let leaf = leaf.unwrap_or_else(|| Err("no key is at hand to verify it".to_owned()))?;
            Ok((leaf, proof))
        });
        if let Err(why) = &proven {
            witness.findings.push(format!("the note of {commit} proves nothing: {why}"));
        }
        noted.insert(commit, proven);
    }
    witness.notes += noted.values().filter(|noted| noted.is_ok()).count();
    Ok(noted)
}

/// What the notes tell of; one that lies beside another commit than its leaf names is found.
fn tell_of_notes(notes: &Noted, witness: &mut Witness) -> BTreeMap<GateId, Story> {
    let mut stories: BTreeMap<GateId, Story> = BTreeMap::new();
    let mut proven: Vec<(CommitId, &Leaf)> =
        notes.iter().filter_map(|(commit, noted)| Some((*commit, &noted.as_ref().ok()?.0))).collect();
    proven.sort_by_key(|(_, leaf)| leaf.leaf);
    for (commit, leaf) in proven {
        match &leaf.entry {
            Entry::Act(Act::Landed(landed)) if landed.commit == commit => {
                let place = format!("leaf {} (by its note)", leaf.leaf);
                let story = stories.entry(landed.gate.clone()).or_default();
                story.add(commit, Step::Landed(landed.clone()), place);
            }
            _ => witness.findings.push(format!("the note of {commit} is a leaf about something else")),
        }
    }
    stories
}

/// Looks for each landing that a note proves, also on a gate that the record knows nothing of. A restore may have lost it.
fn compare((notes, proven): (&Noted, &BTreeMap<GateId, Story>), told: &Told, witness: &mut Witness) {
    for (gate, story) in proven {
        let known = told.stories.get(gate);
        for commit in
            story.steps.keys().filter(|commit| !known.is_some_and(|known| known.has_landed(**commit)))
        {
            let Some(Ok((leaf, proof))) = notes.get(commit) else { continue };
            let (number, life) = (leaf.leaf, proof.checkpoint.checkpoint.life);
            let proves = format!("the note of {commit} proves its landing on {gate} with leaf {number}");
            match told.restores.iter().find(|(at, restored)| restored.lost(*at, number, life)) {
                Some((at, _)) => witness.lost.push(format!("{proves}; the restore at leaf {at} lost it")),
                None => witness.findings.push(format!("{proves}, and the record does not have it")),
            }
        }
    }
}

fn told_by(view: &View) -> Result<Told, ReadError> {
    let mut told = Told { leaves: view.leaf_count()?, ..Told::default() };
    for from in (0..told.leaves).step_by(LEAVES_AT_ONCE) {
        for (number, leaf) in (from..).zip(view.leaves(from, LEAVES_AT_ONCE)?) {
            // One that cannot be read is a finding of the log's verifier.
            let Ok(Leaf { entry, .. }) = serde_json::from_str(&leaf) else { continue };
            let place = format!("leaf {number}");
            match entry {
                Entry::Act(Act::Landed(landed)) => {
                    let story = told.stories.entry(landed.gate.clone()).or_default();
                    story.add(landed.commit, Step::Landed(landed), place);
                }
                Entry::Act(Act::ForeignPush { gate, from, to }) => {
                    told.stories.entry(gate).or_default().add(to, Step::Foreign { from }, place);
                }
                Entry::Restored(restored) => told.restores.push((number, restored)),
                Entry::Act(_) | Entry::Rotation(_) | Entry::Succession(_) => {}
            }
        }
    }
    Ok(told)
}

/// In what the repository's commit is not what the leaf says.
fn differs(repository: &Repository, landed: &LandedAct) -> Result<Option<String>, GitError> {
    let commit = repository.commit(landed.commit)?;
    if commit.tree != landed.tree {
        return Ok(Some(format!("its tree is {}, not {}", commit.tree, landed.tree)));
    }
    let mut at = commit;
    for _ in 0..COMMITS_OF_A_LANDING_MAX {
        match at.parents.first() {
            Some(parent) if *parent == landed.parent => return Ok(None),
            Some(parent) => at = repository.commit(*parent)?,
            None => break,
        }
    }
    Ok(Some(format!("it does not stand on {}", landed.parent)))
}
