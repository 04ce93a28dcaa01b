//! Repos: making, importing and configuring them.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::CellId;
use towpath_core::gate::{GateConfig, Labels, Retest};
use towpath_core::ids::{BranchName, RepoName, Timestamp};
use towpath_core::policy::{Actor, Rights, Role};
use towpath_forge::{Importer, Origin, import};
use towpath_git::{Credentials, ImportOptions, Repository};
use towpath_pipeline::nearest;
use towpath_store::records::Repo;
use towpath_store::{Tx, WriteError};

use super::{Nothing, Said, TextOrNull, millis, word};
use crate::auth::accounts::note;
use crate::definitions;
use crate::engine::AnyIntake;
use crate::http::call::{Call, blocking, no_repo};
use crate::http::error::{Answer, ApiError, Class};
use crate::http::links::RESERVED;
use crate::http::records;
use crate::settings::RepoSettings;

/// The branch of a new repo that names none.
const BRANCH_DEFAULT: &str = "main";

/// A repo.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RepoView {
    /// Its name.
    pub repo: String,
    /// What one may do there: `reader`, `author`, `maintainer`, `admin`.
    pub role: String,
    /// Where git fetches and pushes.
    pub clone_url: String,
    /// The target of a change that names none.
    pub default_branch: String,
    /// Watched branches.
    pub branches: Vec<String>,
    /// Since when.
    pub created_at: i64,
}

fn view(repo: &Repo, role: Role, site: &str) -> Answer<RepoView> {
    let settings = RepoSettings::parse(&repo.settings).map_err(ApiError::internal)?;
    Ok(RepoView {
        repo: repo.name.to_string(),
        role: word(&role),
        clone_url: format!("{site}/{}.git", repo.name),
        default_branch: settings.default_branch.to_string(),
        branches: settings.branches.keys().map(ToString::to_string).collect(),
        created_at: millis(repo.created_at),
    })
}

/// `GET /api/v1/repos`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<RepoView>> {
    let (person, site) = (call.person()?.clone(), call.edge.site.url.clone());
    call.read(move |snapshot| {
        let mut all = Vec::new();
        for repo in snapshot.repos()? {
            if let Some(role) = person.role_on(snapshot, &repo.name)? {
                all.push(view(&repo, role, &site)?);
            }
        }
        Ok(all)
    })
    .await
}

/// `GET /api/v1/repos/{repo}`
pub async fn show(call: Call, _: Nothing) -> Answer<RepoView> {
    let (name, site) = (call.repo()?, call.edge.site.url.clone());
    let role = call.role.unwrap_or(Role::Reader);
    call.read(move |snapshot| {
        let repo = snapshot.repo(&name)?.ok_or_else(|| no_repo(name.as_str()))?;
        view(&repo, role, &site)
    })
    .await
}

/// A repo to be made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name.
    pub repo: String,
    /// Its first watched branch; absent: `main`.
    #[serde(default)]
    pub branch: Option<String>,
}

/// `POST /api/v1/repos`: an empty repo; its maker is its first admin.
pub async fn create(call: Call, input: Create) -> Answer<RepoView> {
    let name = new_name(&input.repo)?;
    let branch: BranchName = input.branch.as_deref().unwrap_or(BRANCH_DEFAULT).parse()?;
    let (repos, made, head) = (call.shared().repos.clone(), name.clone(), branch.clone());
    absent(&call, &name).await?;
    blocking(move || {
        let repository = match Repository::create(repos.git(), &repos.path(&made)) {
            Ok(repository) => repository,
            // Left by a server that died between folder and row.
            Err(_) if repos.path(&made).exists() => adopt(&repos.get(&made)?, &made)?,
            Err(error) => return Err(error.into()),
        };
        Ok(repository.set_head(&head)?)
    })
    .await?;
    add(&call, name, branch, format!("made repo {}", input.repo)).await
}

fn adopt(repository: &Repository, name: &RepoName) -> Answer<Repository> {
    match repository.all_refs()?.is_empty() {
        true => Ok(repository.clone()),
        false => Err(left_behind(name)),
    }
}

/// A repository with content lies where a new one is to be. It may be the only copy of something, so that a person decides.
fn left_behind(name: &RepoName) -> ApiError {
    let place = format!("repos/{name}.git");
    let why = format!(
        "a repository that no repo of the server has lies in its data folder at `{place}`: an import that did not come to \
         its end has left it, or one is ending just now"
    );
    ApiError::new(Class::Conflict, why).hint(format!(
        "look again with `towpath repo list`; if it is still not there, have `{place}` moved out of the data folder on the \
         server's machine, and do this again; `--name` takes another name meanwhile"
    ))
}

/// Where to import from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The new repo's name.
    pub repo: String,
    /// An `https` address.
    #[serde(default)]
    pub url: Option<String>,
    /// A folder of the server's own machine, for its admin there.
    #[serde(default)]
    pub path: Option<String>,
    /// Value of an `Authorization` header for the address. Not kept.
    #[serde(default)]
    pub authorization: Option<String>,
    /// The watched branch; absent: the source's own.
    #[serde(default)]
    pub branch: Option<String>,
    /// Checks of `git fsck` that its history may fail, `zeroPaddedFilemode` for instance.
    #[serde(default)]
    pub tolerated: Vec<String>,
}

/// What came in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// The new repo.
    #[serde(flatten)]
    pub repo: RepoView,
    /// Branches and tags.
    pub refs: usize,
    /// Names that were left out, because no push could make them here.
    pub left_out: Vec<String>,
    /// Why changes of it will wait: there is no pipeline, or it cannot be used. Absent: there is one.
    #[serde(default)]
    pub pipeline_trouble: Option<String>,
    /// Approvals that the branch's own towpath.yaml asks for, whatever the settings say. Absent: it names no number.
    #[serde(default)]
    pub approvals: Option<u32>,
}

/// `POST /api/v1/import`
pub async fn import_repo(call: Call, input: Import) -> Answer<Imported> {
    let name = new_name(&input.repo)?;
    let wanted: Option<BranchName> = input.branch.as_deref().map(str::parse).transpose()?;
    let by = importer(&call);
    absent(&call, &name).await?;
    let (repos, made) = (call.shared().repos.clone(), name.clone());
    let what = match (&input.url, &input.path) {
        (Some(_), None) => format!("imported repo {name} from an address"),
        (None, Some(path)) => format!("imported repo {name} from the folder {path}"),
        _ => return Err(ApiError::invalid("an import takes either `url` or `path`")),
    };
    let (branch, refs, left_out, (pipeline_trouble, approvals)) = blocking(move || {
        let origin = origin(&input)?;
        if repos.path(&made).exists() {
            return Err(left_behind(&made));
        }
        let tolerated: Vec<&str> = input.tolerated.iter().map(String::as_str).collect();
        let options = ImportOptions { tolerated: &tolerated, branch: wanted.as_ref() };
        let imported = import(repos.git(), by, (origin, &repos.path(&made)), options)
            .map_err(|failure| refused(failure.into(), by))?;
        let head = imported.repository.head()?;
        let branch = wanted.or(head).ok_or_else(|| ApiError::invalid("the source has no branch"))?;
        let pipeline = pipeline(&imported.repository, &branch)?;
        Ok((branch, imported.refs, imported.left_out, pipeline))
    })
    .await?;
    let repo = add(&call, name, branch, what).await?;
    Ok(Imported { repo, refs, left_out, pipeline_trouble, approvals })
}

/// What keeps the branch's pipeline from testing anything, in a sentence, and the approvals that it asks for.
fn pipeline(repository: &Repository, branch: &BranchName) -> Answer<(Option<String>, Option<u32>)> {
    let Some(tip) = repository.branch_tip(branch)? else { return Ok((None, None)) };
    let file = definitions::read(repository, repository.commit(tip)?.tree)?;
    let approvals = match file.definition {
        Ok(definition) => definition.gate.approvals,
        Err(diagnostics) => {
            let first = diagnostics.lines().into_iter().next().unwrap_or_default();
            return Ok((Some(format!("the pipeline of `{branch}` cannot be used: {first}")), None));
        }
    };
    let nothing = file.detected.filter(|detected| detected.jobs.is_empty());
    let trouble = nothing.map(|_| {
        format!(
            "`{branch}` has no towpath.yaml and is of no kind whose checks are known (Cargo, Python, npm, Makefile), so \
             there is nothing to test"
        )
    });
    Ok((trouble, approvals))
}

fn origin(input: &Import) -> Answer<Origin<'_>> {
    match (&input.url, &input.path) {
        (Some(address), None) => {
            let credentials =
                input.authorization.as_deref().map_or(Credentials::None, Credentials::Authorization);
            Ok(Origin::Address { address, credentials })
        }
        (None, Some(path)) => Ok(Origin::Folder(Path::new(path))),
        _ => Err(ApiError::invalid("an import takes either `url` or `path`")),
    }
}

/// Who the admin is that asks. One sits at the server's own machine for certain if they speak to loopback, and no proxy
/// can stand in between: a server with another address is asked by everybody in the same way.
fn importer(call: &Call) -> Importer {
    let site = &call.edge.site;
    match call.peer.is_loopback() && !site.is_secure() && site.is_loopback() {
        true => Importer::LocalAdmin,
        false => Importer::Admin,
    }
}

/// A refusal with the way that is open where the server cannot know who sits at its own machine.
fn refused(error: ApiError, by: Importer) -> ApiError {
    match (error.class, by) {
        (Class::Denied, Importer::Admin) => error.hint(
            "bring it by a push: `towpath repo create NAME`, then in a clone `towpath repo connect NAME` and \
             `git push towpath BRANCH`",
        ),
        _ => error,
    }
}

fn new_name(name: &str) -> Answer<RepoName> {
    if RESERVED.contains(&name) {
        return Err(ApiError::invalid(format!("`{name}` is a path of the server; choose another name")));
    }
    Ok(name.parse()?)
}

async fn absent(call: &Call, name: &RepoName) -> Answer<()> {
    let name = name.clone();
    let found = call.read(move |view| Ok(view.repo(&name)?)).await?;
    match found {
        None => Ok(()),
        Some(repo) => Err(ApiError::new(Class::Conflict, format!("repo `{}` exists already", repo.name))),
    }
}

/// Adds the row of a repository that is there, with its maker as admin, and starts its gates.
async fn add(call: &Call, name: RepoName, branch: BranchName, what: String) -> Answer<RepoView> {
    let settings = RepoSettings::one_branch(branch);
    let (by, now) = (call.actor()?, call.now());
    let repo = Repo { name: name.clone(), settings: settings.to_json(), hook_secret: None, created_at: now };
    let row = repo.clone();
    let told = told(call, &name, &settings).await?;
    let once_more = halts_again(call, &name, &settings);
    call.write_with(told, move |tx| store(tx, &row, (&by, now), what), once_more).await?;
    view(&repo, Role::Admin, &call.edge.site.url)
}

/// What the gates of a repo with new settings are told, in the very unit that stores these.
async fn told(call: &Call, repo: &RepoName, settings: &RepoSettings) -> Answer<Vec<(CellId, AnyIntake)>> {
    let (edge, repo, settings) = (call.edge.clone(), repo.clone(), settings.clone());
    blocking(move || Ok(edge.shared.configuration(&repo, &settings))).await
}

/// Once the unit is durable, its gates are told of halts again: what [`told`] has read may have changed meanwhile, and
/// whoever changed it did not know these gates or told them before.
fn halts_again(call: &Call, repo: &RepoName, settings: &RepoSettings) -> impl FnOnce() + Send + 'static {
    let (edge, runtime) = (call.edge.clone(), tokio::runtime::Handle::current());
    let gates = settings.gates(repo);
    move || {
        runtime.spawn_blocking(move || gates.iter().for_each(|(gate, _)| edge.shared.tell_halts_to(gate)));
    }
}

fn store(
    tx: &mut Tx<'_>,
    repo: &Repo,
    (by, now): (&Actor, Timestamp),
    what: String,
) -> Result<(), WriteError> {
    tx.add_repo(repo)?;
    tx.set_right(&repo.name, by.user, Some(Rights { role: Role::Admin, authorised: true }))?;
    note(tx, Some(by), now, what);
    Ok(())
}

/// Settings of a repo.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Watched branches and how their gates behave.
    pub branches: BTreeMap<String, BranchSettings>,
    /// The target of a change that names none; one of the watched branches.
    pub default_branch: String,
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
pub async fn settings(call: Call, _: Nothing) -> Answer<Settings> {
    let repo = call.repo()?;
    let settings = call.read(move |view| records::settings(view, &repo)).await?;
    serde_json::from_str(&settings.to_json()).map_err(ApiError::internal)
}

/// `PUT /api/v1/repos/{repo}/settings`
pub async fn set_settings(call: Call, input: Settings) -> Answer<Said> {
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
    let work = move |tx: &mut Tx<'_>| {
        tx.replace_repo_settings(&name, (&stored, &json))?;
        note(tx, Some(&by), now, format!("set the settings of repo {name}: {json}"));
        Ok(())
    };
    let told = told(&call, &repo, &settings).await?;
    let (edge, once_more) = (call.edge.clone(), halts_again(&call, &repo, &settings));
    let then = move || {
        edge.hooks.forget(&repo);
        once_more();
    };
    call.write_with(told, work, then).await?;
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

/// How webhooks are signed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The name of a secret of this repo; `null`: no webhook is accepted.
    pub secret: TextOrNull,
}

/// `PUT /api/v1/repos/{repo}/hook`
pub async fn set_hook(call: Call, input: Hook) -> Answer<Said> {
    let (repo, by, now) = (call.repo()?, call.actor()?, call.now());
    let TextOrNull(secret) = input.secret;
    let said = match secret {
        Some(_) => Said::new(format!("send webhooks to {}/hooks/{repo}", call.edge.site.url)),
        None => Said::new("no webhook is accepted any more"),
    };
    let name = repo.clone();
    let work = move |tx: &mut Tx<'_>| {
        if let Some(secret) = &secret
            && tx.secret(Some(&name), secret)?.is_none()
        {
            return Err(WriteError::Missing { what: format!("secret `{secret}`") });
        }
        tx.set_hook_secret(&name, secret.as_deref())?;
        let how =
            secret.as_deref().map_or("nothing: none is accepted".into(), |secret| format!("`{secret}`"));
        note(tx, Some(&by), now, format!("webhooks of repo {name} are signed with {how}"));
        Ok(())
    };
    let edge = call.edge.clone();
    call.write_then(work, move || edge.hooks.forget(&repo)).await?;
    Ok(said)
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
