//! What a job finds when it begins: its folder with its work tree and its inputs, and its secrets.

use std::path::PathBuf;

use crate::host::{Host, TreeMode};
use crate::launcher::TreeSource;
use crate::pump::Control;
use crate::secret_files::SecretFiles;
use crate::slot::deadline;
use crate::spec::{SandboxKind, StartSpec};
use crate::tree::{CopyError, Copying, JobFolder};
use crate::verdict::Verdict;

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
