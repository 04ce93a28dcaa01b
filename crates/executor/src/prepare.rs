//! What a job finds when it begins: its folder with its work tree and its inputs, and its secrets.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use towpath_blob::Amount;

use crate::host::{Host, TreeMode};
use crate::launcher::TreeSource;
use crate::pump::Control;
use crate::secret_files::SecretFiles;
use crate::slot::deadline;
use crate::spec::{SandboxKind, StartSpec};
use crate::tree::{CopyError, Copying, JobFolder};
use crate::verdict::Verdict;

/// Between two looks at a disk without room; the end of a removal is another one.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a job waits for ample room where there is some: while folders are removed, or since there was more the last time.
const AMPLE_PATIENCE: Duration = Duration::from_secs(3);
/// A shorter wait is not worth a word.
const WAIT_TOLD: Duration = Duration::from_secs(1);

/// The room that a job begins with.
pub(crate) struct Room {
    pub(crate) room: Amount,
    /// It was long in coming.
    pub(crate) waited: Option<Duration>,
}

/// Waits until the disks have room for a job, or says how it ends without: it may take as long as the job itself. While more
/// becomes free there is to be more than a little, so that no job is ended for want of what comes a moment later.
pub(crate) fn await_room(host: &Host, spec: &StartSpec, control: &Control) -> Result<Room, Verdict> {
    let until = deadline(spec);
    let mut wait = Wait::new(Instant::now());
    loop {
        // Asked first: what is removed between the two is then room.
        let clearing = host.sharing.clearing();
        let room = host.room();
        let now = Instant::now();
        match room {
            Ok(room)
                if now >= until
                    || host.reserves[0].is_ample(room)
                    || wait.is_enough(room, clearing.goes_on, now) =>
            {
                let waited = now - wait.began;
                return Ok(Room { room, waited: (waited >= WAIT_TOLD).then_some(waited) });
            }
            Err(no_room) if now >= until => return Err(Verdict::errored(no_room.to_string())),
            Err(no_room) => {
                if !wait.lacked {
                    eprintln!("towpath executor: job {} waits: {no_room}", spec.job);
                }
                wait.lacks();
            }
            Ok(_) => {}
        }
        host.sharing.rest(&clearing, ROOM_LOOK_INTERVAL);
        if control.is_cancelled() {
            return Err(Verdict::cancelled());
        }
    }
}

/// A job that waits for room.
struct Wait {
    began: Instant,
    /// There was none.
    lacked: bool,
    /// The most that there has been since then, and when there was more the last time.
    most: Amount,
    grew: Instant,
}

pub(crate) const NOTHING: Amount = Amount { bytes: 0, files: 0 };

impl Wait {
    fn new(began: Instant) -> Wait {
        Wait { began, lacked: false, most: NOTHING, grew: began }
    }

    fn lacks(&mut self) {
        (self.lacked, self.most) = (true, NOTHING);
    }

    /// Whether to begin with what there is, be it little. Who had none does not begin with the first crumbs: all slots would,
    /// and end for want of the rest.
    fn is_enough(&mut self, room: Amount, is_clearing: bool, now: Instant) -> bool {
        if room.bytes > self.most.bytes || room.files > self.most.files {
            (self.most, self.grew) = (room, now);
        }
        match self.lacked {
            true => now >= self.grew + AMPLE_PATIENCE,
            false => !is_clearing || now >= self.began + AMPLE_PATIENCE,
        }
    }
}

/// A job's folder and what in it its sandbox sees.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) folder: Option<JobFolder>,
    pub(crate) tree: Option<TreeSource>,
    pub(crate) inputs: Option<PathBuf>,
    /// Where its secrets are, without a sandbox.
    pub(crate) secrets: Option<SecretFiles>,
}

impl Prepared {
    /// Makes all of it, or says how the job ends without. What is there already stays to be removed. It may take as long as
    /// the job itself, whose time begins afterwards.
    pub(crate) fn fill(
        &mut self,
        spec: &StartSpec,
        control: &Control,
        (host, job_user): (&Host, Option<u32>),
    ) -> Result<(), Verdict> {
        if host.config.sandbox == SandboxKind::None {
            self.secrets = SecretFiles::write(&host.config.spool, spec).map_err(|error| {
                Verdict::errored(format!("its secrets cannot be kept in memory: {error}"))
            })?;
        }
        if !spec.body.checkout && spec.inputs.is_empty() {
            return Ok(());
        }
        let folder = JobFolder::make(&host.jobs(), &spec.lease)
            .map_err(|error| Verdict::errored(format!("cannot make the job's folder: {error}")))?;
        let folder = self.folder.insert(folder);
        let spending = host.reserves[0].spending();
        let mut copying = Copying { control, until: deadline(spec), spending, limits: spec.limits };
        if !spec.inputs.is_empty() {
            self.inputs = Some(
                folder
                    .inputs(&spec.inputs, &host.blobs, &mut copying)
                    .map_err(|error| unready(error, spec))?,
            );
        }
        if spec.body.checkout {
            let none = || Verdict::errored("no base for the work tree was given".to_owned());
            let base = spec.base.clone().ok_or_else(none)?;
            let overlay =
                host.tree_mode == TreeMode::Overlay && host.config.sandbox == SandboxKind::Bubblewrap;
            self.tree = Some(match overlay {
                true => TreeSource::Overlay { base, folder: folder.path().to_owned() },
                false => TreeSource::Plain {
                    folder: folder
                        .copy_tree(&base, job_user, &mut copying)
                        .map_err(|error| unready(error, spec))?,
                },
            });
        }
        Ok(())
    }

    /// Where the job's changes to its work tree go.
    pub(crate) fn grows(&self) -> Option<PathBuf> {
        match self.tree.as_ref()? {
            TreeSource::Overlay { .. } => self.folder.as_ref().map(JobFolder::upper),
            TreeSource::Plain { folder } => Some(folder.clone()),
        }
    }
}

/// How a job ends whose folder is not filled.
fn unready(error: CopyError, spec: &StartSpec) -> Verdict {
    match error {
        CopyError::Cancelled => Verdict::cancelled(),
        // What makes it long is what the definition asks for: were it errored, it would be tried again.
        CopyError::Late => Verdict::late(format!("{error} of {} s", spec.body.timeout_seconds)),
        CopyError::TooLarge(_) => Verdict::unfit(error.to_string()),
        CopyError::NoRoom(_) | CopyError::Store(_) | CopyError::Tree(_) => {
            Verdict::errored(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: u64) -> Amount {
        Amount { bytes, files: 1 }
    }

    #[test]
    fn with_little_room_a_job_waits_for_what_is_removed_but_not_for_long() {
        let now = Instant::now();
        let mut wait = Wait::new(now);
        assert!(!wait.is_enough(room(1), true, now));
        assert!(wait.is_enough(room(1), false, now));
        assert!(wait.is_enough(room(9), true, now + AMPLE_PATIENCE), "however it grows");
    }

    #[test]
    fn who_had_no_room_begins_once_there_comes_no_more() {
        let now = Instant::now();
        let mut wait = Wait::new(now);
        wait.lacks();
        let (crumbs, more) = (now + AMPLE_PATIENCE, now + AMPLE_PATIENCE * 2);
        assert!(!wait.is_enough(room(1), false, crumbs) && !wait.is_enough(room(2), false, more));
        assert!(!wait.is_enough(room(1), false, more));
        wait.lacks();
        let again = more + AMPLE_PATIENCE;
        assert!(!wait.is_enough(room(1), false, again));
        assert!(wait.is_enough(room(1), false, again + AMPLE_PATIENCE));
    }
}
