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

/// Between two looks at a disk without room.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The room that a job begins with.
pub(crate) struct Room {
    pub(crate) room: Amount,
    /// There was none for so long.
    pub(crate) waited: Option<Duration>,
}

/// Waits until the disks have room for a job, or says how it ends without: it may take as long as the job itself. While
/// folders are removed there is to be more than a little, so that no job is ended for want of what comes a moment later.
pub(crate) fn await_room(host: &Host, spec: &StartSpec, control: &Control) -> Result<Room, Verdict> {
    let (began, until) = (Instant::now(), deadline(spec));
    let mut waited = None;
    loop {
        // Asked first: what is removed between the two is then room.
        let is_clearing = host.sharing.is_clearing();
        let room = host.room();
        let is_late = Instant::now() >= until;
        match room {
            Ok(room) if is_late || !is_clearing || host.reserves[0].is_ample(room) => {
                return Ok(Room { room, waited });
            }
            Err(no_room) if is_late => return Err(Verdict::errored(no_room.to_string())),
            Err(no_room) if waited.is_none() => {
                eprintln!("towpath executor: job {} waits: {no_room}", spec.job);
            }
            _ => {}
        }
        control.rest(ROOM_LOOK_INTERVAL).map_err(|error| Verdict::errored(error.to_string()))?;
        if control.is_cancelled() {
            return Err(Verdict::cancelled());
        }
        waited = Some(began.elapsed());
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
        let folder = self.folder.as_ref()?;
        match &self.tree {
            Some(TreeSource::Overlay { .. }) => Some(folder.upper()),
            Some(TreeSource::Plain { folder }) => Some(folder.clone()),
            None => None,
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
