//! Settings of repos: which branches are watched, and how their gates behave.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::{GateConfig, Labels, Retest};
use towpath_core::ids::{BranchName, RepoName};
use towpath_git::Repository;
use towpath_pipeline::nearest;
use towpath_store::Tx;

use super::repos::{halts_again, told};
use super::{Nothing, Said};
use crate::auth::accounts::note;
use crate::http::call::{Call, blocking, no_repo};
use crate::http::error::{Answer, ApiError, Class};
use crate::http::{labels, records};
use crate::settings::{RepoSettings, acts_per_hour};

/// Settings of a repo.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Watched branches and how their gates behave.
    pub branches: BTreeMap<String, BranchSettings>,
    /// The target of a change that names none; one of the watched branches.
    pub default_branch: String,
    /// How often one author may push or do something to a change in an hour; at least 1. A maintainer may 20,000 times.
    #[serde(default = "acts_per_hour")]
    #[schemars(range(min = 1))]
    pub acts_per_hour: u32,
}

/// Settings of one watched branch; what is left out has its default. docs/guide/gate.md says what they do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BranchSettings {
    /// Seconds between reads of the forge when nothing rings; at least 1.
    #[schemars(range(min = 1))]
    pub poll_seconds: u32,
    /// Runs of changes at once, at least 1; the queue's own run is not counted.
    #[schemars(range(min = 1))]
    pub change_runs_max: u32,
    /// What is tested again when the target moves.
    pub retest: Retested,
    /// Whether landing waits for the deploy run of the landing before.
    pub wait_for_deploy: bool,
    /// Approvals that a revision needs where `gate:` in the branch's towpath.yaml names no number.
    pub approvals: u32,
    /// Names of the labels that the gate listens to.
    pub labels: LabelNames,
}

/// What is tested again when the target moves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retested {
    /// Only the merge candidate.
    Candidate,
    /// All that is in the queue.
    Queued,
    /// All open changes.
    All,
}

/// Names of labels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LabelNames {
    /// Goes first.
    pub urgent: String,
    /// Is tested, does not land.
    pub wip: String,
    /// Is tested, does not land: its base is another change.
    pub stacked: String,
    /// Never lands.
    pub never: String,
    /// Is neither tested nor lands.
    pub no_test: String,
    /// Every job runs, and nothing is carried over.
    pub rerun_all: String,
}

impl Default for BranchSettings {
    fn default() -> BranchSettings {
        let GateConfig { poll_seconds, change_runs_max, retest, wait_for_deploy, approvals, labels: _ } =
            GateConfig::default();
        let retest = match retest {
            Retest::Candidate => Retested::Candidate,
            Retest::Queued => Retested::Queued,
            Retest::All => Retested::All,
        };
        let labels = LabelNames::default();
        BranchSettings { poll_seconds, change_runs_max, retest, wait_for_deploy, approvals, labels }
    }
}

impl Default for LabelNames {
    fn default() -> LabelNames {
        let Labels { urgent, wip, stacked, never, no_test, rerun_all } = Labels::default();
        LabelNames { urgent, wip, stacked, never, no_test, rerun_all }
    }
}

/// `GET /api/v1/repos/{repo}/settings`
pub async fn show(call: Call, _: Nothing) -> Answer<Settings> {
    let repo = call.repo()?;
    let settings = call.read(move |view| records::settings(view, &repo)).await?;
    serde_json::from_str(&settings.to_json()).map_err(ApiError::internal)
}

/// `PUT /api/v1/repos/{repo}/settings`
pub async fn set(call: Call, input: Settings) -> Answer<Said> {
    let repo = call.repo()?;
    let text = serde_json::to_string(&input).map_err(ApiError::internal)?;
    let settings = RepoSettings::parse(&text)?;
    settings.check()?;
    let name = repo.clone();
    let stored = call.read(move |view| Ok(view.repo(&name)?)).await?;
    let stored = stored.ok_or_else(|| no_repo(repo.as_str()))?.settings;
    let before = RepoSettings::parse(&stored).map_err(ApiError::internal)?;
    if let Some(gone) = before.branches.keys().find(|branch| !settings.branches.contains_key(*branch)) {
        let why = format!("`{gone}` is watched; a gate is never taken away, as its record would be");
        let hint = format!("`towpath branch freeze {gone}` stops it");
        return Err(ApiError::new(Class::Conflict, why).hint(hint));
    }
    let new = settings.branches.keys().filter(|branch| !before.branches.contains_key(*branch));
    are_there(&call, &repo, new.cloned().collect()).await?;
    let (by, now, name, json) = (call.actor()?, call.now(), repo.clone(), settings.to_json());
    let said = Said::new(format!("set the settings of {repo}"));
    let told = told(&call, &repo, &settings).await?;
    let (edge, once_more) = (call.edge.clone(), halts_again(&call, &repo, &settings));
    let work = move |tx: &mut Tx<'_>| {
        labels::check_renames(tx, &name, (&before, &settings))?;
        tx.replace_repo_settings(&name, (&stored, &json))?;
        note(tx, Some(&by), now, format!("set the settings of repo {name}: {json}"));
        Ok(())
    };
    let then = move || {
        edge.hooks.forget(&repo);
        once_more();
    };
    // Nobody puts a label on in between, or moves a change.
    let (shared, runtime, name) = (call.shared().clone(), tokio::runtime::Handle::current(), call.repo()?);
    let write = move || runtime.block_on(call.write_with(told, work, then));
    blocking(move || shared.forges.get(&name)?.while_still(write)?).await?;
    Ok(said)
}

/// A branch that is watched once is watched for ever: one that is not there is a slip.
async fn are_there(call: &Call, repo: &RepoName, branches: Vec<BranchName>) -> Answer<()> {
    let (edge, repo) = (call.edge.clone(), repo.clone());
    blocking(move || {
        let repository = edge.shared.repos.get(&repo)?;
        for branch in branches {
            if repository.branch_tip(&branch)?.is_none() {
                return Err(no_branch(&repository, &repo, &branch)?);
            }
        }
        Ok(())
    })
    .await
}

/// Settings that name a branch which is not there: a slip, or one that is still to be pushed.
fn no_branch(repository: &Repository, repo: &RepoName, branch: &BranchName) -> Answer<ApiError> {
    const HEADS: &str = "refs/heads/";
    let there = repository.refs(HEADS)?;
    let names = there.iter().filter_map(|found| found.name.as_str().strip_prefix(HEADS));
    let push = format!("push it first, and it is watched for ever: `git push towpath HEAD:{HEADS}{branch}`");
    let hint = match nearest(branch.as_str(), names) {
        Some(near) => format!("did you mean `{near}`? To watch a new branch `{branch}`, {push}"),
        None => format!("`towpath branch list` shows the watched ones; to watch a new one, {push}"),
    };
    let why =
        format!("`{branch}` is no branch of {repo}, and a branch that settings name is watched from then on");
    Ok(ApiError::invalid(why).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_branch_are_the_gates_own() {
        let gates = serde_json::to_value(GateConfig::default()).unwrap();
        assert_eq!(serde_json::to_value(BranchSettings::default()).unwrap(), gates);
        let one: BranchSettings =
            serde_json::from_str(r#"{"retest":"queued","labels":{"wip":"early"}}"#).unwrap();
        let gate: GateConfig = serde_json::from_value(serde_json::to_value(one).unwrap()).unwrap();
        assert_eq!((gate.retest, gate.labels.wip.as_str(), gate.approvals), (Retest::Queued, "early", 1));
        assert!(serde_json::from_str::<BranchSettings>(r#"{"pol_seconds":1}"#).is_err());
    }

    #[test]
    fn the_guide_names_every_setting_and_label() {
        let guide = include_str!("../../../../../docs/guide/gate.md");
        let gates = serde_json::to_value(GateConfig::default()).unwrap();
        let named = |key: &String| guide.contains(&format!("| `{key}` |"));
        let missing: Vec<&String> = gates.as_object().unwrap().keys().filter(|key| !named(key)).collect();
        assert_eq!(missing, Vec::<&String>::new());
        for (key, name) in gates["labels"].as_object().unwrap() {
            let row = format!("| `{}` | `{key}` |", name.as_str().unwrap());
            assert!(guide.contains(&row), "{row}");
        }
    }
}
