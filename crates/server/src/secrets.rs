//! Secrets: sealed at rest, opened only for a job that the server's policy names (trust T4).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use towpath_core::effect::JobOrder;
use towpath_core::ids::{BranchName, RepoName};
use towpath_core::policy::Level;
use towpath_executor::GrantedSecret;
use towpath_pipeline::variable_fault;
use towpath_store::records::Secret;
use towpath_store::{ReadError, Store, View, write_private};
use zeroize::Zeroizing;

use crate::random;

/// Bytes of one secret. Keys and credential files have a few KB.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all secrets of one job. With its own variables they stay below what a program can start with (2 MiB), and in
/// any form below what can be handed to an executor.
pub const SECRETS_BYTES_MAX: usize = 512 * 1024;
/// Shorter values cannot be masked without blotting out half of every log. Source: trust T4.
pub const SECRET_BYTES_MIN: usize = 6;
/// Bytes of the master key.
const KEY_BYTES: usize = 32;

/// Who may have a secret. An empty list means: any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Lowest level of trust. Below `authorised` nothing is ever given.
    #[serde(default = "landed")]
    pub level: Level,
    /// Branches.
    #[serde(default)]
    pub branches: Vec<BranchName>,
    /// Jobs, by their key in the definition.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// Environments; naming any keeps the secret from jobs without one.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Handed over as this variable; without one, as a file.
    #[serde(default)]
    pub variable: Option<String>,
}

fn landed() -> Level {
    Level::Landed
}

impl Default for Policy {
    /// Any job of what has landed, as a file.
    fn default() -> Policy {
        let (branches, jobs, environments) = (Vec::new(), Vec::new(), Vec::new());
        Policy { level: landed(), branches, jobs, environments, variable: None }
    }
}

/// Who may have the secret, as a sentence goes on with it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.jobs[..] {
            [] => write!(f, "every job that asks for it")?,
            jobs => write!(f, "{}", listed(("the job", "the jobs"), jobs))?,
        }
        if !self.environments.is_empty() {
            write!(
                f,
                " with {}",
                listed(("the environment", "one of the environments"), &self.environments)
            )?;
        }
        match &self.branches[..] {
            [] => write!(f, " on every branch")?,
            branches => write!(f, " on {}", listed(("the branch", "the branches"), branches))?,
        }
        match self.level {
            Level::Landed => write!(f, ", after landing alone")?,
            _ => write!(f, ", after landing and in what authorised people propose")?,
        }
        match &self.variable {
            Some(variable) => write!(f, ", as the variable `{variable}`"),
            None => write!(f, ", as a file"),
        }
    }
}

fn listed((one, many): (&str, &str), names: &[impl fmt::Display]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{} {}", if names.len() == 1 { one } else { many }, quoted.join(", "))
}

impl Policy {
    /// Why no job could be given a value as the policy says; `None`: one could.
    pub fn problem(&self, value: &[u8]) -> Option<String> {
        let variable = self.variable.as_ref()?;
        if let Some(takes) = variable_fault(variable) {
            return Some(format!("`variable` is `{}`; it takes {takes}", variable.escape_debug()));
        }
        let is_text = std::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'));
        (!is_text).then(|| {
            format!(
                "the variable `{variable}` cannot hold a value that is not UTF-8 or has a zero byte; leave `variable` out of \
                 the policy, and jobs get it as a file"
            )
        })
    }

    /// Why a job may not have the secret; `None`: it may.
    fn refuses(&self, order: &JobOrder) -> Option<String> {
        let body = &order.spec.body;
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        let least = self.level.max(Level::Authorised);
        if order.level < least {
            return Some(
                format!("it takes the level {least:?}, and this run has {:?}", order.level).to_lowercase(),
            );
        }
        if !self.branches.is_empty() && !self.branches.contains(&order.run.gate.branch) {
            return Some(format!("the policy does not name the branch {}", order.run.gate.branch));
        }
        if !named(&self.jobs, order.spec.base.as_str()) {
            return Some(format!("the policy does not name the job {}", order.spec.base));
        }
        match &body.environment {
            Some(environment) if named(&self.environments, environment.as_str()) => None,
            None if self.environments.is_empty() => None,
            _ => Some("the policy does not name its environment".into()),
        }
    }
}

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Secrets {
    store: Arc<Store>,
    key: Arc<LessSafeKey>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// Why secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The master key cannot be read or made.
    #[error("the master key `{path}` cannot be used: {why}; it is a file of 32 bytes with mode 0600")]
    Key {
        /// Where it should be.
        path: String,
        /// Why not.
        why: String,
    },
    /// The value is too short to be masked, or too long.
    #[error("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
}

/// Why a job does not get its secrets.
#[derive(Debug, PartialEq, Eq)]
pub enum Ungranted {
    /// It may not have what it asks for. In words for its author, whose doing it is.
    Refused(String),
    /// A secret cannot be read here, which is not the job's doing.
    Unreadable(String),
}

impl Secrets {
    /// Secrets of a store, under the master key at `path`, which is made if it is not there. The key lies outside the
    /// data folder, so that a backup never holds it (trust S11).
    ///
    /// # Errors
    /// The key cannot be read or made.
    pub fn open(store: Arc<Store>, path: &Path) -> Result<Secrets, SecretError> {
        let key = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = Zeroizing::new(random::bytes::<KEY_BYTES>().to_vec());
                write_private(path, &bytes).map_err(|error| unusable(path, error.to_string()))?;
                master_key(path, Ok(bytes.to_vec()))?
            }
            read => master_key(path, read)?,
        };
        Ok(Secrets { store, key: Arc::new(key) })
    }

    /// Looks whether the file at `path` can be the master key.
    ///
    /// # Errors
    /// As [`Secrets::open`].
    pub(crate) fn check_key(path: &Path) -> Result<(), SecretError> {
        master_key(path, std::fs::read(path)).map(drop)
    }

    /// The sealed form of a value: nonce, then ciphertext, bound to repo and name.
    ///
    /// # Errors
    /// `Length`.
    pub fn seal(&self, repo: Option<&RepoName>, name: &str, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&value.len()) {
            return Err(SecretError::Length(value.len()));
        }
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut sealed = value.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(repo, name)),
                &mut sealed,
            )
            .expect("invariant: a value within its bounds can be sealed");
        Ok([&nonce[..], &sealed].concat())
    }

    pub(crate) fn unseal(
        &self,
        repo: Option<&RepoName>,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let damaged =
            || format!("secret `{name}` cannot be opened: another master key sealed it, or it is damaged");
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut value = Zeroizing::new(rest.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(place(repo, name)), &mut value);
        let length = opened.map_err(|_| damaged())?.len();
        value.truncate(length);
        Ok(value)
    }

    /// The names of those that cannot be opened: another master key sealed them, or they are damaged.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn sealed_otherwise(&self, view: &View) -> Result<Vec<String>, ReadError> {
        let repos = view.repos()?.into_iter().map(|repo| Some(repo.name));
        let mut found = Vec::new();
        for repo in repos.chain([None]) {
            let secrets = view.secrets(repo.as_ref())?.into_iter();
            let odd = secrets.filter(|one| self.unseal(one.repo.as_ref(), &one.name, &one.sealed).is_err());
            found.extend(odd.map(|one| one.name));
        }
        Ok(found)
    }

    /// The secrets that a job asks for, if it may have every one of them.
    ///
    /// # Errors
    /// [`Ungranted`].
    pub fn grant(&self, order: &JobOrder) -> Result<Vec<GrantedSecret>, Ungranted> {
        let names = order.spec.body.secrets.iter();
        let granted = names.map(|name| self.grant_one(order, name)).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = granted.iter().map(|secret| secret.value.len()).sum();
        match bytes > SECRETS_BYTES_MAX {
            true => Err(Ungranted::Refused(format!(
                "the secrets of job `{}` have {bytes} bytes together, at most {SECRETS_BYTES_MAX}; let several jobs have a \
                 part of them each",
                order.spec.name
            ))),
            false => Ok(granted),
        }
    }

    fn grant_one(&self, order: &JobOrder, name: &str) -> Result<GrantedSecret, Ungranted> {
        let refused = |why: &str| {
            Ungranted::Refused(format!(
                "secret `{name}` is not given to job `{}`: {why}; an admin sets who may have it: `towpath secret set`",
                order.spec.name
            ))
        };
        // What one may not have and what does not exist look alike.
        let secret = self.find(&order.run.gate.repo, name)?;
        let secret = secret.ok_or_else(|| refused("the server's policy gives it no such secret"))?;
        let policy: Policy =
            serde_json::from_str(&secret.policy).map_err(|error| unreadable(name, &error))?;
        if let Some(why) = policy.refuses(order) {
            return Err(refused(&why));
        }
        let value = self.unseal(secret.repo.as_ref(), name, &secret.sealed).map_err(Ungranted::Unreadable)?;
        Ok(GrantedSecret { name: name.to_owned(), value, variable: policy.variable })
    }

    /// A secret of a repo, or else one of all repos.
    fn find(&self, repo: &RepoName, name: &str) -> Result<Option<Secret>, Ungranted> {
        let failed = |error| unreadable(name, &error);
        let view = self.store.reader().snapshot().map_err(failed)?;
        match view.secret(Some(repo), name).map_err(failed)? {
            Some(secret) => Ok(Some(secret)),
            None => view.secret(None, name).map_err(failed),
        }
    }
}

fn unusable(path: &Path, why: String) -> SecretError {
    SecretError::Key { path: path.display().to_string(), why }
}

/// The master key in what was read of its file.
fn master_key(path: &Path, read: io::Result<Vec<u8>>) -> Result<LessSafeKey, SecretError> {
    let bytes = Zeroizing::new(read.map_err(|error| unusable(path, error.to_string()))?);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes);
    key.map(LessSafeKey::new).map_err(|_| unusable(path, "it is damaged".into()))
}

fn unreadable(name: &str, error: &dyn fmt::Display) -> Ungranted {
    Ungranted::Unreadable(format!("secret `{name}` cannot be read here: {error}"))
}

/// What a sealed value is bound to: it cannot be moved to another repo or name.
fn place(repo: Option<&RepoName>, name: &str) -> Vec<u8> {
    format!("{}\n{name}", repo.map_or("", RepoName::as_str)).into_bytes()
}
