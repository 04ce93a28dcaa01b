//! Repos: making and importing them, and how their webhooks are signed.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::cell::CellId;
use towpath_core::ids::{BranchName, RepoName, Timestamp};
use towpath_core::policy::{Actor, Rights, Role};
use towpath_forge::{Importer, Origin, clock_trouble, import};
use towpath_git::{Credentials, ImportOptions, Repository};
use towpath_store::records::Repo;
use towpath_store::{Tx, WriteError};

use super::{Nothing, Said, TextOrNull, millis, word};
use crate::auth::accounts::note;
use crate::definitions;
use crate::engine::AnyIntake;
use crate::http::call::{Call, blocking, no_repo};
use crate::http::error::{Answer, ApiError, Class};
use crate::http::links::RESERVED;
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
    /// What follows from the branch's newest commit being from the future. Absent: it is not.
    #[serde(default)]
    pub clock_trouble: Option<String>,
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
    let (repos, made, now) = (call.shared().repos.clone(), name.clone(), call.now());
    let what = match (&input.url, &input.path) {
        (Some(_), None) => format!("imported repo {name} from an address"),
        (None, Some(path)) => format!("imported repo {name} from the folder {path}"),
        _ => return Err(ApiError::invalid("an import takes either `url` or `path`")),
    };
    let (branch, refs, left_out, clock_trouble, (pipeline_trouble, approvals)) = blocking(move || {
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
        let clock_trouble = clock_trouble(&imported.repository, &branch, now)?;
        Ok((branch, imported.refs, imported.left_out, clock_trouble, pipeline))
    })
    .await?;
    let repo = add(&call, name, branch, what).await?;
    Ok(Imported { repo, refs, left_out, pipeline_trouble, clock_trouble, approvals })
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
        // No key of anybody's goes to a server, so it speaks to nobody by ssh.
        (Some(address), None) if !address.starts_with("https://") => {
            Err(ApiError::invalid("only https:// addresses can be imported").hint(format!(
                "what is reached by ssh, say, is cloned first: `towpath repo import .` in a clone on the server's own machine, or \
                 {BY_A_PUSH}"
            )))
        }
        (Some(address), None) if has_login(address) => {
            Err(ApiError::invalid("a name or a password stands in the address").hint(
                "leave what is before the `@` out; `--authorization-stdin` reads how to log in: `Bearer TOKEN`, or `Basic ` and \
                 `USER:PASSWORD` in base64",
            ))
        }
        (Some(address), None) => {
            let credentials =
                input.authorization.as_deref().map_or(Credentials::None, Credentials::Authorization);
            Ok(Origin::Address { address, credentials })
        }
        (None, Some(path)) => Ok(Origin::Folder(Path::new(path))),
        _ => Err(ApiError::invalid("an import takes either `url` or `path`")),
    }
}

/// Who the admin is that asks.
fn importer(call: &Call) -> Importer {
    match call.edge.site.is_at_its_machine(call.peer) {
        true => Importer::LocalAdmin,
        false => Importer::Admin,
    }
}

fn has_login(address: &str) -> bool {
    let place = address.trim_start_matches("https://");
    place.split('/').next().is_some_and(|authority| authority.contains('@'))
}

/// How a repository comes in that the server does not reach.
const BY_A_PUSH: &str = "bring it by a push: `towpath repo create NAME`, then in a clone `towpath repo connect NAME` and \
                         `git push towpath BRANCH`";

/// A refusal with the way that is open where the server cannot know who sits at its own machine.
fn refused(error: ApiError, by: Importer) -> ApiError {
    match (error.class, by) {
        (Class::Denied, Importer::Admin) => error.hint(BY_A_PUSH),
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
    let Some(Repo { name, .. }) = found else { return Ok(()) };
    Err(ApiError::new(Class::Conflict, format!("repo `{name}` exists already")).hint(format!(
        "`towpath repo connect {name}` in a clone of it adds the remote `towpath`; what is another project takes another name, \
         which `--name` gives an import"
    )))
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
pub(super) async fn told(
    call: &Call,
    repo: &RepoName,
    settings: &RepoSettings,
) -> Answer<Vec<(CellId, AnyIntake)>> {
    let (edge, repo, settings) = (call.edge.clone(), repo.clone(), settings.clone());
    blocking(move || Ok(edge.shared.configuration(&repo, &settings))).await
}

/// Once the unit is durable, its gates are told of halts again: what [`told`] has read may have changed meanwhile, and
/// whoever changed it did not know these gates or told them before.
pub(super) fn halts_again(
    call: &Call,
    repo: &RepoName,
    settings: &RepoSettings,
) -> impl FnOnce() + Send + 'static {
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
