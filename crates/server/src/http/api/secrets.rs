//! Secrets: put sealed, never read back. The policy says who gets them (trust T4).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::RepoName;
use towpath_core::policy::Level;
use towpath_store::records::Secret;
use towpath_store::{Tx, WriteError};
use zeroize::Zeroizing;

use super::{Nothing, Said, millis};
use crate::auth::accounts::note;
use crate::definitions;
use crate::http::call::{Call, blocking};
use crate::http::error::{Answer, ApiError};
use crate::http::records::{self, Names};
use crate::http::wording;
use crate::secrets::{Policy, Secrets};

/// Characters of a secret's name.
const NAME_CHARS_MAX: usize = 64;

/// A secret, without the secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SecretView {
    /// Its name.
    pub secret: String,
    /// Who may have it.
    pub policy: Value,
    /// Who set it last.
    pub updated_by: Option<String>,
    /// When.
    pub updated_at: i64,
}

/// The repo of the path; none on the routes of the whole server.
fn place(call: &Call) -> Answer<Option<RepoName>> {
    match call.params.iter().any(|(name, _)| name == "repo") {
        true => call.repo().map(Some),
        false => Ok(None),
    }
}

/// `GET …/secrets`
pub async fn list(call: Call, _: Nothing) -> Answer<Vec<SecretView>> {
    let repo = place(&call)?;
    call.read(move |view| {
        let mut names = Names::new(view);
        let mut all = Vec::new();
        for secret in view.secrets(repo.as_ref())? {
            all.push(SecretView {
                policy: serde_json::from_str(&secret.policy).map_err(ApiError::internal)?,
                secret: secret.name,
                updated_by: secret.updated_by.map(|user| names.get(user)).transpose()?,
                updated_at: millis(secret.updated_at),
            });
        }
        Ok(all)
    })
    .await
}

/// A secret to be set.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Its value, as text.
    #[serde(default)]
    pub value: Option<String>,
    /// Its value, as base64 of any bytes.
    #[serde(default)]
    pub value_base64: Option<String>,
    /// Who may have it: `level` (`authorised` or `landed`), `branches`, `jobs`, `environments`, `variable`. Absent: the
    /// policy that it has, or for a new one every job of what landed.
    #[serde(default)]
    pub policy: Option<Value>,
}

/// `PUT …/secrets/{secret}`: sets its value, its policy, or both.
pub async fn put(call: Call, input: Put) -> Answer<Said> {
    let (repo, name) = (place(&call)?, name(&call)?);
    let policy = input.policy.map(checked).transpose()?;
    let value = match (input.value.map(Zeroizing::new), input.value_base64) {
        (Some(value), None) => Some(Zeroizing::new(value.as_bytes().to_vec())),
        (None, Some(text)) => {
            let bytes =
                STANDARD.decode(text).map_err(|_| ApiError::invalid("`value_base64` is no base64"))?;
            Some(Zeroizing::new(bytes))
        }
        (None, None) => None,
        (Some(_), Some(_)) => return Err(ApiError::invalid("`value` and `value_base64` exclude each other")),
    };
    let seal = |value: Zeroizing<Vec<u8>>| call.shared().secrets.seal(repo.as_ref(), &name, &value);
    let sealed = value.map(seal).transpose().map_err(|error| ApiError::invalid(error.to_string()))?;
    store(&call, (repo, name), (sealed, policy)).await
}

async fn store(
    call: &Call,
    (repo, name): (Option<RepoName>, String),
    (sealed, policy): (Option<Vec<u8>>, Option<String>),
) -> Answer<Said> {
    let (by, now) = (call.actor()?, call.now());
    let forget = forget(call, repo.clone());
    let (of, said) = (repo.clone(), format!("set secret `{name}`"));
    let secrets = call.shared().secrets.clone();
    let work = move |tx: &mut Tx<'_>| {
        let before = tx.secret(repo.as_ref(), &name)?;
        let missing =
            || WriteError::Missing { what: format!("secret `{name}`: a new one needs a value; it") };
        let (kept, old) = before.map_or((None, None), |secret| (Some(secret.sealed), Some(secret.policy)));
        let policy = policy.or(old).map_or_else(|| stored(&Policy::default()), Ok)?;
        let whole = repo.as_ref().map_or("the server".into(), |repo| format!("repo {repo}"));
        let what = match sealed {
            Some(_) => format!("set secret `{name}` of {whole}, for {policy}"),
            None => format!("set who may have secret `{name}` of {whole}: {policy}"),
        };
        let sealed = sealed.or(kept).ok_or_else(missing)?;
        let parsed = fits(&secrets, (repo.as_ref(), &name), (&sealed, &policy))?;
        tx.put_secret(&Secret { sealed, repo, name, policy, updated_by: Some(by.user), updated_at: now })?;
        note(tx, Some(&by), now, what);
        Ok(parsed)
    };
    let policy = call.write_then(work, forget).await?;
    let said = format!("{said}: it is for {policy}");
    // It is set, whatever can be found out about the names in it.
    let slips = match of {
        Some(repo) => slips(call, repo, policy).await.unwrap_or_default(),
        None => None,
    };
    Ok(Said::with(said, slips))
}

/// Names in a policy that nothing on the repo's watched branches has by now: slips, or what is still to come.
async fn slips(call: &Call, repo: RepoName, policy: Policy) -> Answer<Option<String>> {
    let of = repo.clone();
    let watched = call.read(move |view| Ok(records::settings(view, &of)?.branches)).await?;
    let shared = call.shared().clone();
    blocking(move || {
        let repository = shared.repos.get(&repo)?;
        let (mut jobs, mut environments, mut is_whole) = (BTreeSet::new(), BTreeSet::new(), true);
        for branch in watched.keys() {
            let Some(tip) = repository.branch_tip(branch)? else { continue };
            match definitions::read(&repository, repository.commit(tip)?.tree)?.definition {
                Ok(definition) => definition.jobs.iter().for_each(|job| {
                    jobs.insert(job.name.to_string());
                    environments.extend(job.body.environment.as_ref().map(|name| name.as_str().to_owned()));
                }),
                // It may have any.
                Err(_) => is_whole = false,
            }
        }
        let mut unknown = Vec::new();
        let branches = policy.branches.iter().filter(|branch| !watched.contains_key(*branch));
        unknown.extend(branches.map(|branch| format!("no watched branch is called `{branch}`")));
        if is_whole {
            let missing = policy.jobs.iter().filter(|job| !jobs.contains(*job));
            unknown.extend(missing.map(|job| format!("no watched branch has a job `{job}`")));
            let missing = policy.environments.iter().filter(|name| !environments.contains(*name));
            unknown.extend(missing.map(|name| format!("no job has the environment `{name}`")));
        }
        Ok((!unknown.is_empty()).then(|| format!("by now {}", unknown.join(", "))))
    })
    .await
}

/// Value and policy may have been set at different times: whether they go together is known where both are.
fn fits(
    secrets: &Secrets,
    (repo, name): (Option<&RepoName>, &str),
    (sealed, policy): (&[u8], &str),
) -> Result<Policy, WriteError> {
    let policy: Policy = serde_json::from_str(policy).map_err(|error| refused(error.to_string()))?;
    if policy.variable.is_none() {
        return Ok(policy);
    }
    let value = secrets.unseal(repo, name, sealed).map_err(refused)?;
    match policy.problem(&value) {
        None => Ok(policy),
        Some(why) => Err(refused(why)),
    }
}

fn refused(why: String) -> WriteError {
    WriteError::Refused(Refusal::new(RefusalClass::Invalid, why))
}

/// A policy as it is kept.
fn stored(policy: &Policy) -> Result<String, WriteError> {
    serde_json::to_string(policy).map_err(|error| refused(error.to_string()))
}

fn checked(policy: Value) -> Answer<String> {
    let policy: Policy = wording::taken(&policy).map_err(|what| {
        ApiError::invalid(format!("the policy is not what this takes: {what}"))
            .hint(r#"write it as {"level":"landed","jobs":["publish"]}"#)
    })?;
    if policy.level < Level::Authorised {
        let level = serde_json::to_value(policy.level).map_err(ApiError::internal)?;
        return Err(ApiError::invalid(format!(
            "no secret is ever given to what is {}",
            level.as_str().unwrap_or_default()
        ))
        .hint("the least `level` is `authorised`, changes of people whom an admin authorised, or `landed`"));
    }
    serde_json::to_string(&policy).map_err(ApiError::internal)
}

fn name(call: &Call) -> Answer<String> {
    let name = call.param("secret")?;
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(ok) {
        true => Ok(name.to_owned()),
        false => Err(ApiError::invalid("a secret's name has 1 to 64 letters, digits, `_`, `.` or `-`")),
    }
}

/// `DELETE …/secrets/{secret}`
pub async fn remove(call: Call, _: Nothing) -> Answer<Said> {
    let (repo, name) = (place(&call)?, name(&call)?);
    let (by, now, said) = (call.actor()?, call.now(), format!("removed secret `{name}`"));
    let forget = forget(&call, repo.clone());
    let work = move |tx: &mut Tx<'_>| {
        tx.remove_secret(repo.as_ref(), &name)?;
        let whole = repo.as_ref().map_or("the server".into(), |repo| format!("repo {repo}"));
        note(tx, Some(&by), now, format!("removed secret `{name}` of {whole}"));
        Ok(())
    };
    call.write_then(work, forget).await?;
    Ok(Said::new(said))
}

/// Has the keys of webhooks opened anew, once a secret has changed.
fn forget(call: &Call, repo: Option<RepoName>) -> impl FnOnce() + Send + 'static {
    let edge = call.edge.clone();
    move || match repo {
        Some(repo) => edge.hooks.forget(&repo),
        None => edge.hooks.forget_all(),
    }
}
