//! Keeping a repository small: git never does it on its own here, since `gc.auto` would run in the middle of a push.

use std::time::Duration;

use crate::environment::OUTPUT_BYTES_MAX;
use crate::error::GitError;
use crate::object::sync_folder;
use crate::process::Bounds;
use crate::repository::Repository;

/// Time for one repack. Linux's history takes 10 minutes on two cores.
const REPACK_DEADLINE: Duration = Duration::from_secs(3600);
/// How old an object is before it goes when nothing holds it: whatever is being pushed or merged now is younger.
const PRUNE_AGE: &str = "2.weeks.ago";

impl Repository {
    /// Packs what refs reach, and removes what nothing has held for two weeks. For a quiet hour; pushes, merges and
    /// landings may go on meanwhile.
    ///
    /// Git syncs a new pack, but not the folder that names it, and then deletes what it has packed. So that no power
    /// cut falls between the two, the pack is written and its folder synced before anything is deleted.
    pub fn collect_garbage(&self) -> Result<(), GitError> {
        let bounds = Bounds { deadline: REPACK_DEADLINE, output_bytes_max: OUTPUT_BYTES_MAX };
        let repack = || self.call("repack").args(["-A", "-l", "--quiet"]);
        let pack = self.objects().join("pack");
        repack().prepare().output(&[], bounds)?;
        sync_folder(&pack)?;
        repack().arg("-d").arg(format!("--unpack-unreachable={PRUNE_AGE}")).prepare().output(&[], bounds)?;
        sync_folder(&pack)?;
        let prune = self.call("prune").arg(format!("--expire={PRUNE_AGE}"));
        prune.prepare().output(&[], bounds)?;
        self.call("pack-refs").args(["--all", "--prune"]).prepare().output(&[], bounds)?;
        sync_folder(self.path())
    }
}
