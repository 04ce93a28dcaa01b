//! Environments: what runs where, how it came there, and how to put something else there.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::gate::Verb;
use towpath_core::graph::JobGraph;
use towpath_core::ids::{CommitId, EnvironmentId, EnvironmentName, GateId, TreeId};
use towpath_forge::ChangeState;
use towpath_git::{GitError, RefName, Repository};
use towpath_pipeline::Changed;
use towpath_store::View;
use towpath_store::records::{ChangeQuery, Deployment};

use super::{Nothing, Said, command, gate, millis, page_rows, word};
use crate::auth::accounts::note;
use crate::definitions;
use crate::http::call::{Call, blocking};
use crate::http::error::{Answer, ApiError, Class};
use crate::http::records::{self, Names};
use crate::selves;

/// Hex digits of a commit's id.
const COMMIT_DIGITS: usize = 40;
/// Digits of its beginning at least. Source: git's own bound for an abbreviation.
const COMMIT_DIGITS_MIN: usize = 4;
/// Of all that a text may stand for, what a refusal tells.
const MEANINGS_TOLD_MAX: usize = 4;

/// An environment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentView {
    /// Its name.
    pub environment: String,
    /// Whether it is this server itself.
    pub is_self: bool,
    /// The program that serves, where it is this server itself.
    pub serving: Option<ProgramView>,
    /// What runs there: the newest deployment that passed.
    pub current: Option<DeploymentView>,
    /// The newest deployment, whatever became of it.
    pub newest: Option<DeploymentView>,
    /// Jobs that wait for their turn to deploy there.
    pub waiting: usize,
}

/// A program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProgramView {
    /// What it says of itself.
    pub version: String,
    /// SHA-256 of its file.
    pub digest: Option<String>,
}

/// An environment with its deployments.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentWhole {
    /// The environment.
    #[serde(flatten)]
    pub view: EnvironmentView,
    /// Its newest deployments, newest first.
    pub deployments: Vec<DeploymentView>,
}

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentView {
    /// To which environment.
    pub environment: String,
    /// Its number there.
    pub deployment: u64,
    /// What was deployed.
    pub commit: String,
    /// By which run.
    pub run: Option<String>,
    /// By which job.
    pub job: Option<String>,
    /// Who asked for it; absent: a landing did.
    pub by: Option<String>,
    /// How it ended; absent: it is under way.
    pub outcome: Option<String>,
    /// Why it was made, and what there is to say of its end.
    pub why: String,
    /// When it began.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl DeploymentView {
    fn of(row: Deployment, names: &mut Names<'_>) -> Answer<DeploymentView> {
        Ok(DeploymentView {
            environment: row.environment.to_string(),
            deployment: row.number,
            commit: row.commit.to_string(),
            run: row.run.map(|run| run.to_string()),
            job: row.job.map(|job| job.to_string()),
            by: row.actor.map(|user| names.get(user)).transpose()?,
            outcome: row.outcome.as_ref().map(word),
            why: row.why,
            started_at: millis(row.started_at),
            ended_at: row.ended_at.map(millis),
        })
    }
}

fn environment(call: &Call) -> Answer<EnvironmentId> {
    Ok(EnvironmentId { repo: call.repo()?, name: call.named("environment")? })
}

fn view(view: &View, id: &EnvironmentId, is_self: bool) -> Answer<EnvironmentView> {
    let mut names = Names::new(view);
    let current = view.current_deployment(id)?.map(|row| DeploymentView::of(row, &mut names)).transpose()?;
    let newest = view.deployments(id, 1)?.into_iter().next();
    Ok(EnvironmentView {
        environment: id.name.to_string(),
        is_self,
        serving: None,
        current,
        newest: newest.map(|row| DeploymentView::of(row, &mut names)).transpose()?,
        waiting: 0,
    })
}

/// What rows do not say: who waits, and what serves here.
async fn completed(call: &Call, id: EnvironmentId, mut view: EnvironmentView) -> Answer<EnvironmentView> {
    let waiting = call.shared().engine.environment(id, |live| live.state.waiting().count()).await;
    view.waiting = waiting.unwrap_or(0);
    if view.is_self {
        view.serving = Some(serving().await?);
    }
    Ok(view)
}

/// The program that serves.
pub async fn serving() -> Answer<ProgramView> {
    let digest = blocking(|| Ok(crate::program::own_digest())).await?;
    Ok(ProgramView {
        version: env!("CARGO_PKG_VERSION").into(),
        digest: digest.map(|digest| digest.to_string()),
    })
}

/// `GET /api/v1/repos/{repo}/environments`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<EnvironmentView>> {
    let repo = call.repo()?;
    let found = call.read(move |snapshot| {
        let marked = selves::marked(snapshot)?.filter(|environment| environment.repo == repo);
        let mut names: Vec<EnvironmentName> = snapshot.environments(&repo)?;
        names.extend(marked.iter().map(|environment| environment.name.clone()));
        names.sort();
        names.dedup();
        let ids = names.into_iter().map(|name| EnvironmentId { repo: repo.clone(), name });
        ids.map(|id| Ok((view(snapshot, &id, marked.as_ref() == Some(&id))?, id))).collect::<Answer<Vec<_>>>()
    });
    let mut views = Vec::new();
    for (view, id) in found.await? {
        views.push(completed(&call, id, view).await?);
    }
    Ok(views)
}

/// How much is shown.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Deployments at most; 50 if it is left out.
    #[serde(default)]
    pub count: Option<usize>,
}

/// `GET /api/v1/repos/{repo}/environments/{environment}`
pub async fn show(call: Call, input: Shown) -> Answer<EnvironmentWhole> {
    let id = environment(&call)?;
    let (asked, count) = (id.clone(), page_rows(input.count));
    let found = call.read(move |snapshot| {
        let is_self = selves::marked(snapshot)?.as_ref() == Some(&asked);
        let rows = snapshot.deployments(&asked, count)?;
        if rows.is_empty() && !is_self {
            return Err(no_environment(&asked));
        }
        let mut names = Names::new(snapshot);
        let deployments =
            rows.into_iter().map(|row| DeploymentView::of(row, &mut names)).collect::<Answer<_>>()?;
        Ok((view(snapshot, &asked, is_self)?, deployments))
    });
    let (view, deployments) = found.await?;
    Ok(EnvironmentWhole { view: completed(&call, id, view).await?, deployments })
}

fn no_environment(id: &EnvironmentId) -> ApiError {
    ApiError::not_found(format!("nothing was ever deployed to `{}` of `{}`", id.name, id.repo))
        .hint("`towpath deploy list` shows the environments that there are")
}

/// What is to be deployed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct What {
    /// The branch on which it landed; absent: the repo's own.
    #[serde(default)]
    pub branch: Option<String>,
    /// A commit that landed there, by its id, the beginning of its id, or the name of a branch or tag that is at it (its
    /// whole name, `refs/tags/2024`, if that could begin an id); absent: the branch's tip.
    #[serde(default)]
    pub commit: Option<String>,
}

/// `POST /api/v1/repos/{repo}/environments/{environment}/deploy`
pub async fn deploy(call: Call, input: What) -> Answer<Said> {
    let environment = environment(&call)?;
    let id = GateId { repo: environment.repo.clone(), branch: branch(&call, input.branch).await? };
    call.shared().patience(id.clone()).landed_is_read().await;
    let tip = gate(&call, id.clone(), |live| live.state.branch().tip.as_ref().map(|tip| tip.commit)).await?;
    let reading = || ApiError::new(Class::Conflict, "the branch is being read").hint("try again in a moment");
    let tip = tip.ok_or_else(reading)?;
    let commit = match input.commit {
        None => tip,
        Some(named) => named_commit(&call, &id, tip, named).await?,
    };
    let (tree, graph) = jobs(&call, commit, tip, &environment).await?;
    command(&call, id, Verb::DeployTo { environment: environment.name, commit, tree, graph }).await
}

async fn branch(call: &Call, named: Option<String>) -> Answer<towpath_core::ids::BranchName> {
    let repo = call.repo()?;
    match named {
        Some(named) => Ok(named.parse()?),
        None => Ok(call.read(move |view| records::settings(view, &repo)).await?.default_branch),
    }
}

/// What a text may stand for.
type Meaning = (CommitId, String);

/// The commit that a person means, if it can be deployed.
async fn named_commit(call: &Call, id: &GateId, tip: CommitId, named: String) -> Answer<CommitId> {
    let (repos, repo, name) = (call.shared().repos.clone(), id.repo.clone(), named.clone());
    // What may begin an id stands for nothing else: whoever pushes a branch of such a name would choose what is deployed.
    let refs = match is_beginning(&named) {
        true => Vec::new(),
        false => blocking(move || Ok(at_name(&repos.get(&repo)?, &name)?)).await?,
    };
    let id = id.clone();
    call.read(move |view| {
        let by_id = match is_beginning(&named) {
            true => deployable(view, &id, tip, &named.to_ascii_lowercase())?,
            false => BTreeSet::new(),
        };
        let by_id = by_id.into_iter().map(|commit| (commit, format!("the id of landed {commit} begins so")));
        let absent = |named: &str| {
            let why = format!("no change landed on `{}` as {named}", id.branch);
            ApiError::not_found(why).hint(
                "`towpath change list --state landed` shows what landed; the tip can be deployed as well. A branch or tag \
                 whose name could begin an id is given as `refs/heads/NAME` or `refs/tags/NAME`",
            )
        };
        let Some(commit) = the_one(by_id.chain(refs), &named)? else {
            return Err(if is_beginning(&named) { absent(&named) } else { no_name(&id, &named) });
        };
        let whole = commit.to_string();
        match deployable(view, &id, tip, &whole)?.contains(&commit) {
            true => Ok(commit),
            false => Err(absent(&whole)),
        }
    })
    .await
}

fn is_beginning(named: &str) -> bool {
    (COMMIT_DIGITS_MIN..=COMMIT_DIGITS).contains(&named.len())
        && named.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn no_name(id: &GateId, named: &str) -> ApiError {
    let why = format!("`{named}` is no branch or tag of `{}`, and no beginning of a commit's id", id.repo);
    ApiError::not_found(why).hint(format!(
        "name a branch, a tag, or {COMMIT_DIGITS_MIN} hex digits at least; `towpath change list --state landed` shows what \
         landed"
    ))
}

/// What the branch and the tag of this name are at, or the ref whose whole name it is.
fn at_name(repository: &Repository, name: &str) -> Result<Vec<Meaning>, GitError> {
    let mut found = Vec::new();
    let kinds: &[(&str, &str)] = match name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
        true => &[("ref", "")],
        false => &[("branch", "refs/heads/"), ("tag", "refs/tags/")],
    };
    for (kind, prefix) in kinds {
        let Ok(full) = format!("{prefix}{name}").parse::<RefName>() else { continue };
        if let Some(object) = repository.ref_target(&full)? {
            let commit = repository.peel(object)?;
            found.push((commit, format!("the {kind} of this name is at {commit}")));
        }
    }
    Ok(found)
}

/// The commits with this beginning that can be deployed: the tip, and what a gate landed on the branch, as only that was
/// tested as it is; not every commit that a branch contains was ever its tip.
fn deployable(view: &View, id: &GateId, tip: CommitId, beginning: &str) -> Answer<BTreeSet<CommitId>> {
    let query = ChangeQuery {
        repo: Some(id.repo.clone()),
        target: Some(id.branch.clone()),
        state: Some("landed".into()),
        mentions: Some(beginning.to_owned()),
        ..ChangeQuery::default()
    };
    let landed = records::changes(view, &query)?.into_iter().filter_map(|change| match change.state {
        ChangeState::Landed { commit } => Some(commit),
        ChangeState::Open | ChangeState::Closed { .. } => None,
    });
    Ok(landed.chain([tip]).filter(|commit| commit.to_string().starts_with(beginning)).collect())
}

/// The commit for which a text stands, if there is one and no other. No meaning goes before another: whoever may push a
/// branch that is named like a tag does not choose what is deployed.
fn the_one(meanings: impl Iterator<Item = Meaning>, named: &str) -> Answer<Option<CommitId>> {
    let meanings: Vec<Meaning> = meanings.collect();
    let commits: BTreeSet<CommitId> = meanings.iter().map(|(commit, _)| *commit).collect();
    if commits.len() < 2 {
        return Ok(commits.first().copied());
    }
    let told: Vec<&str> = meanings.iter().map(|(_, what)| what.as_str()).take(MEANINGS_TOLD_MAX).collect();
    Err(ApiError::invalid(format!("`{named}` is ambiguous: {}", told.join("; ")))
        .hint(format!("write all {COMMIT_DIGITS} digits of the commit that is meant")))
}

/// The jobs that a deployment of a commit takes, by the commit's own definition.
async fn jobs(
    call: &Call,
    commit: CommitId,
    tip: CommitId,
    environment: &EnvironmentId,
) -> Answer<(TreeId, JobGraph)> {
    let (shared, id) = (call.shared().clone(), environment.clone());
    let read = blocking(move || {
        let look = || -> Result<_, GitError> {
            let repository = shared.repos.get(&id.repo)?;
            let tree = repository.commit(commit)?.tree;
            Ok((repository.is_ancestor(commit, tip)?, tree, definitions::read(&repository, tree)?.definition))
        };
        look().map_err(ApiError::from)
    });
    let (contained, tree, definition) = read.await?;
    if !contained {
        let why = format!("the branch no longer contains {commit}");
        return Err(ApiError::new(Class::Conflict, why).hint("look at the branch: somebody moved it"));
    }
    let definition = definition.map_err(|diagnostics| {
        let first = diagnostics.lines().into_iter().next().unwrap_or_default();
        ApiError::new(
            Class::Conflict,
            format!("the definition at {} cannot be used: {first}", commit.short()),
        )
    })?;
    Ok((tree, definition.expand(Changed::Unknown).select_environment(&environment.name)))
}

/// `PUT /api/v1/repos/{repo}/environments/{environment}/self`
pub async fn mark_self(call: Call, _: Nothing) -> Answer<Said> {
    set_self(&call, true).await
}

/// `DELETE /api/v1/repos/{repo}/environments/{environment}/self`
pub async fn unmark_self(call: Call, _: Nothing) -> Answer<Said> {
    set_self(&call, false).await
}

/// Whether an environment is one: a job on a watched branch deploys there, or something was deployed. Where another one is
/// this server already, that is what there is to say.
async fn known(call: &Call, id: EnvironmentId) -> Answer<()> {
    let asked = id.clone();
    let (settings, seen) = call
        .read(move |view| {
            let seen = selves::marked(view)?.is_some() || !view.deployments(&asked, 1)?.is_empty();
            Ok((records::settings(view, &asked.repo)?, seen))
        })
        .await?;
    if seen {
        return Ok(());
    }
    let shared = call.shared().clone();
    blocking(move || {
        let repository = shared.repos.get(&id.repo)?;
        for branch in settings.branches.keys() {
            let Some(tip) = repository.branch_tip(branch)? else { continue };
            let tree = repository.commit(tip)?.tree;
            let definition = definitions::read(&repository, tree)?.definition;
            let jobs =
                definition.map(|it| it.expand(Changed::Unknown).select_environment(&id.name).jobs.len());
            if jobs.is_ok_and(|jobs| jobs > 0) {
                return Ok(());
            }
        }
        let why = format!("no job on a watched branch of `{}` deploys to `{}`", id.repo, id.name);
        Err(ApiError::not_found(why)
            .hint("land a job with `environment:` first; `towpath deploy list` shows what was deployed to"))
    })
    .await
}

async fn set_self(call: &Call, is_self: bool) -> Answer<Said> {
    let (id, by, now) = (environment(call)?, call.actor()?, call.now());
    if is_self {
        known(call, id.clone()).await?;
    }
    let (send, receive) = tokio::sync::oneshot::channel();
    let marked = id.clone();
    let work = move |tx: &mut towpath_store::Tx<'_>| {
        let what = selves::mark(tx, &marked, is_self, &by)?;
        note(tx, Some(&by), now, what);
        Ok(())
    };
    call.shared().engine.deliver_with(vec![selves::told(id.clone(), is_self)], work, |outcome| {
        let _ = send.send(outcome);
    });
    receive.await.map_err(|_| ApiError::new(Class::Unavailable, "the server stops"))??;
    Ok(Said::new(match is_self {
        true => {
            format!("{id} is this server: what its deployments leave as output `towpath` will serve here")
        }
        false => format!("{id} is no longer this server"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_for_one_commit_or_for_none() {
        let (one, other) = (CommitId([0xab; 20]), CommitId([0xcd; 20]));
        let meanings = |these: &[(CommitId, &str)]| {
            let owned: Vec<Meaning> =
                these.iter().map(|(commit, what)| (*commit, (*what).to_owned())).collect();
            the_one(owned.into_iter(), "abab")
        };
        assert_eq!(meanings(&[]), Ok(None));
        assert_eq!(meanings(&[(one, "an id")]), Ok(Some(one)));
        assert_eq!(meanings(&[(one, "an id"), (one, "a branch")]), Ok(Some(one)));
        // A branch that is named like a beginning, and a branch that is named like a tag.
        for two in [[(one, "an id"), (other, "a branch")], [(other, "a branch"), (one, "a tag")]] {
            let refused = meanings(&two).unwrap_err();
            assert_eq!(refused.class, Class::Invalid);
            assert!(two.iter().all(|(_, what)| refused.why.contains(what)), "{}", refused.why);
        }
    }

    #[test]
    fn a_beginning_is_4_to_40_hex_digits() {
        for (named, is) in [
            ("abc", false),
            ("aBc0", true),
            ("main", false),
            (&"a".repeat(40), true),
            (&"a".repeat(41), false),
        ] {
            assert_eq!(is_beginning(named), is, "{named}");
        }
    }
}
