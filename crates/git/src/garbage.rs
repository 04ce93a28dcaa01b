//! Keeping a repository small: git never does it on its own here, since `gc.auto` would run in the middle of a push.

use std::time::Duration;

use towpath_core::ids::{CandidateId, CommitId};

use crate::environment::{Call, OUTPUT_BYTES_MAX};
use crate::error::GitError;
use crate::process::{Bounds, Interrupt};
use crate::refs::{Expected, Ref, RefName, RefUpdate};
use crate::repository::Repository;

/// Time for one repack. Linux's history takes 10 minutes on two cores.
const REPACK_DEADLINE: Duration = Duration::from_secs(3600);
/// How old an object is before it goes when nothing holds it: whatever is being pushed or merged now is younger.
const PRUNE_AGE: &str = "2.weeks.ago";

/// The folder of loose objects that is counted in place of all 256, as `git gc --auto` does.
const SAMPLED_FOLDER: &str = "17";
const FOLDERS: usize = 256;

/// What a repack would put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Litter {
    /// Loose objects.
    pub loose: usize,
    /// Bytes of their files.
    pub loose_bytes: u64,
    /// Packs.
    pub packs: usize,
}

impl Repository {
    /// About what lies around.
    pub fn litter(&self) -> Litter {
        let entries = |folder: std::path::PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let sampled =
            entries(self.objects().join(SAMPLED_FOLDER)).filter(|entry| entry.file_name().len() == 38);
        let (mut loose, mut loose_bytes) = (0, 0);
        for entry in sampled {
            loose += FOLDERS;
            loose_bytes += entry.metadata().map_or(0, |metadata| metadata.len()) * FOLDERS as u64;
        }
        let packs = entries(self.objects().join("pack"))
            .filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".pack"))
            .count();
        Litter { loose, loose_bytes, packs }
    }

    /// Lets go of candidates that nothing asks for; what nothing else holds is collected later. Returns what they named.
    pub fn release_candidates(
        &self,
        wanted: impl Fn(&CandidateId) -> bool,
        count_max: usize,
    ) -> Result<Vec<(CandidateId, CommitId)>, GitError> {
        let id = |name: &RefName| name.as_str().rsplit('/').next()?.parse::<CandidateId>().ok();
        let found = self.refs("refs/towpath/candidates")?;
        let unwanted: Vec<_> = found
            .into_iter()
            .filter(|found| id(&found.name).is_some_and(|id| !wanted(&id)))
            .take(count_max)
            .collect();
        let update = |found: &Ref| RefUpdate {
            name: found.name.clone(),
            expected: Expected::At(found.target),
            target: None,
        };
        self.write_refs(&unwanted.iter().map(update).collect::<Vec<_>>())?;
        Ok(unwanted.iter().filter_map(|found| Some((id(&found.name)?, CommitId(found.target.0)))).collect())
    }

    /// Holds a candidate again that was let go of.
    pub fn hold_candidate(&self, id: &CandidateId, commit: CommitId) -> Result<(), GitError> {
        let update = RefUpdate {
            name: RefName::candidate(id),
            expected: Expected::Anything,
            target: Some(commit.into()),
        };
        self.write_refs(&[update]).map(drop)
    }

    /// Packs what refs reach, and removes what nothing has held for two weeks. For a quiet hour; pushes, merges and
    /// landings may go on meanwhile. Ended at any point, it has removed nothing that is needed, and can be repeated.
    ///
    /// Git syncs a new pack, but not the folder that names it, and then deletes what it has packed. So that no power
    /// cut falls between the two, the pack is written and its folder synced before anything is deleted.
    ///
    /// # Errors
    /// `Interrupted` once the interrupt is raised; `Damaged` or `DamagedBelow` if something that a ref reaches is lost or damaged;
    /// else those of git and the disk.
    pub fn collect_garbage(&self, interrupt: &Interrupt) -> Result<(), GitError> {
        let bounds = Bounds { deadline: REPACK_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX };
        let repack = || self.call("repack").args(["-A", "-l", "--quiet"]);
        let pack = self.objects().join("pack");
        let run = |call: Call<'_>| call.prepare().under(interrupt).output(&[], bounds);
        run(repack()).map_err(|error| self.located(error))?;
        self.git().sync(&pack)?;
        run(repack().arg("-d").arg(format!("--unpack-unreachable={PRUNE_AGE}")))?;
        self.git().sync(&pack)?;
        run(self.call("prune").arg(format!("--expire={PRUNE_AGE}")))?;
        run(self.call("pack-refs").args(["--all", "--prune"]))?;
        self.git().sync(self.path())
    }
}
