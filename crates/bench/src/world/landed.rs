//! A repository that has been worked on: imported, gated, with changes that were tested and landed.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use towpath_core::ids::{BranchName, RepoName, UserId};
use towpath_core::policy::{Rights, Role};
use towpath_forge::{Proposal, PushedBranch};
use towpath_git::{ImportOptions, Source, import, sample};
use towpath_server::auth::accounts::add_user;
use towpath_server::settings::RepoSettings;
use towpath_store::Tx;
use towpath_store::records::{ChangeQuery, Repo};

use super::{PATIENCE, World, run_id, this_repository};
use crate::Fault;

/// Changes that are open at once: with each landing a gate looks at all of them.
const OPEN_MAX: usize = 10;
/// Between two looks at least: the forge notes the last landing after its gate's last turn.
const LOOK: Duration = Duration::from_millis(50);
/// A change lands once its job has done nothing.
const DEFINITION: &str = "gate: { approvals: 0 }\njobs: { unit: { run: 'true', checkout: false } }\n";

impl World {
    /// Imports this repository, gives it the gate whose runs are measured, and has so many changes tested and landed there;
    /// the branches that are left for more.
    ///
    /// # Errors
    /// Not all of them land.
    pub fn land_changes(&self, count: u32, more: u32) -> Result<Vec<BranchName>, Fault> {
        let gate = run_id(1).gate;
        let (repos, repo) = (&self.shared().repos, &gate.repo);
        let (path, source) = (repos.path(repo), this_repository()?);
        let imported = import(repos.git(), &Source::Local(&source), &path, ImportOptions::default())?;
        let mut branches = sample::changes(&imported.repository, DEFINITION, (count + more) as usize)?;
        let left = branches.split_off(count as usize);
        let user = self.add_repo(repo, gate.branch.clone())?;
        let forge = self.shared().forges.get(repo)?;
        for some in branches.chunks(OPEN_MAX) {
            for name in some {
                let (branch, now) =
                    (PushedBranch { name: name.clone(), seen: None }, self.engine().clock().now());
                let opened = forge.propose_branch(user, &branch, &Proposal::default(), now);
                opened.map_err(|failure| failure.to_string())?;
            }
            self.shared().ring(&gate);
            let closed = async { tokio::time::timeout(PATIENCE, self.closed(repo)).await };
            self.runtime.block_on(closed).map_err(|_| "the changes do not land")??;
        }
        match self.count_changes(repo, "landed")? {
            landed if landed == branches.len() => Ok(left),
            landed => Err(format!("{landed} of {count} changes landed").into()),
        }
    }

    /// Adds the row of a repository that is there, with somebody who may do everything in it.
    fn add_repo(&self, repo: &RepoName, branch: BranchName) -> Result<UserId, Fault> {
        let settings = RepoSettings::one_branch(branch);
        let told = self.shared().configuration(repo, &settings);
        let now = self.engine().clock().now();
        let row =
            Repo { name: repo.clone(), settings: settings.to_json(), hook_secret: None, created_at: now };
        let (tell, added) = mpsc::channel();
        let rights = Some(Rights { role: Role::Admin, authorised: true });
        let work = move |tx: &mut Tx<'_>| {
            tx.add_repo(&row)?;
            let user = add_user(tx, "ann", None, (None, now))?;
            tx.set_right(&row.name, user, rights)?;
            Ok(user)
        };
        self.engine().deliver_with(told, work, move |outcome| {
            // Whoever no longer listens has failed and told why.
            let _ = tell.send(outcome);
        });
        Ok(added.recv_timeout(PATIENCE)??)
    }

    /// Returns once no change is open.
    async fn closed(&self, repo: &RepoName) -> Result<(), Fault> {
        let mut changes = self.engine().changes();
        while self.count_changes(repo, "open")? > 0 {
            match tokio::time::timeout(LOOK, changes.recv()).await {
                Ok(Err(RecvError::Closed)) => return Err("the server ended".into()),
                Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn count_changes(&self, repo: &RepoName, state: &str) -> Result<usize, Fault> {
        let (repo, state) = (Some(repo.clone()), Some(state.to_owned()));
        let view = self.shared().store.reader().snapshot()?;
        Ok(view.changes(&ChangeQuery { repo, state, ..ChangeQuery::default() })?.len())
    }
}
