//! One request on its way through a handler: who asks, for what, and the way to everything behind.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::Semaphore;
use towpath_core::cell::CellId;
use towpath_core::ids::{ChangeNumber, GateId, IdError, RepoName, RunId, Timestamp, UserId};
use towpath_core::policy::{Actor, Role};
use towpath_store::{Snapshot, Tx, View, WriteError};

use super::Edge;
use super::error::{Answer, ApiError, Class};
use super::records::owner_of;
use super::route::{Needs, Route};
use crate::auth::rights::{Credentials, Identity, Person, identify};
use crate::engine::AnyIntake;
use crate::server::Shared;

/// A request that was let in.
#[derive(Clone)]
pub struct Call {
    /// The edge that it came in by.
    pub edge: Arc<Edge>,
    /// Who asks; always somebody behind any need but `Public`.
    pub person: Option<Arc<Person>>,
    /// The person's role on the repo of the path.
    pub role: Option<Role>,
    /// Whose connection it is, a proxy's perhaps.
    pub peer: IpAddr,
    /// From where it comes, if that tells one person from another.
    pub address: Option<IpAddr>,
    pub(super) params: Arc<Vec<(String, String)>>,
    pub(super) route: Arc<Route>,
}

impl Call {
    /// Looks who asks, and whether they may.
    pub(super) async fn admit(
        edge: &Arc<Edge>,
        route: &Arc<Route>,
        (params, peer): (Vec<(String, String)>, IpAddr),
        headers: &HeaderMap,
    ) -> Answer<Call> {
        let mut call = Call {
            edge: edge.clone(),
            person: None,
            role: None,
            peer,
            address: edge.site.address_of_request(peer, headers),
            params: Arc::new(params),
            route: route.clone(),
        };
        let credentials = edge.credentials(route.face, headers);
        if route.needs == Needs::Public && credentials == Credentials::None {
            return Ok(call);
        }
        let asked = call.clone();
        let now = call.now();
        let (person, role) = call.read(move |view| asked.permit(view, credentials, now)).await?;
        if let Some(person) = &person {
            edge.note_use(person, now);
        }
        (call.person, call.role) = (person.map(Arc::new), role);
        Ok(call)
    }

    /// The table of rights: deny by default.
    fn permit(
        &self,
        view: &View,
        credentials: Credentials,
        now: Timestamp,
    ) -> Answer<(Option<Person>, Option<Role>)> {
        let needs = self.route.needs;
        let person = match identify(view, credentials, now)? {
            Identity::Known(person) => *person,
            _ if needs == Needs::Public => return Ok((None, None)),
            Identity::Nobody => return Err(nobody()),
            Identity::Unknown => return Err(unknown()),
        };
        let role = match needs {
            Needs::Public | Needs::User => None,
            Needs::Repo(role) => Some(self.at_least(view, &person, role)?),
            Needs::OwnerOr(role) => Some(self.owner_or(view, &person, role)?),
            Needs::ServerAdmin if person.admin => None,
            Needs::ServerAdmin if person.by.is_limited_to_repos() => return Err(out_of_reach()),
            Needs::ServerAdmin => return Err(ApiError::denied("this takes an admin of the server")),
            Needs::Account if person.may_all() => None,
            Needs::Account => return Err(for_less()),
        };
        if needs != Needs::Public && !person.may(self.route.verb) {
            let why =
                format!("the token is not made for this: it lacks the verb `{}`", self.route.verb.word());
            return Err(ApiError::denied(why).hint("`towpath token create` makes another one"));
        }
        Ok((Some(person), role))
    }

    fn at_least(&self, view: &View, person: &Person, need: Role) -> Answer<Role> {
        let role = self.role_here(view, person)?;
        match role >= need {
            true => Ok(role),
            false => Err(self.lacks(need)),
        }
    }

    fn owner_or(&self, view: &View, person: &Person, need: Role) -> Answer<Role> {
        let role = self.role_here(view, person)?;
        if role >= need {
            return Ok(role);
        }
        match self.owner_here(view)? == Some(person.user) && role >= Role::Author {
            true => Ok(role),
            false => Err(self.lacks(need)),
        }
    }

    /// Whose the change of the path is, or that of the run there. A run of a landed branch is nobody's.
    fn owner_here(&self, view: &View) -> Answer<Option<UserId>> {
        let repo = self.repo()?;
        if self.params.iter().any(|(name, _)| name == "run") {
            let change = view.run(&self.run()?)?.and_then(|run| run.change);
            return Ok(change.map(|change| owner_of(view, &repo, change)).transpose()?.flatten());
        }
        let number = self.change()?;
        owner_of(view, &repo, number)?.ok_or_else(|| no_change(number)).map(Some)
    }

    fn lacks(&self, need: Role) -> ApiError {
        let repo = self.param("repo").unwrap_or_default();
        let word = format!("{need:?}").to_lowercase();
        ApiError::denied(format!("this takes the role {word} on `{repo}`"))
    }

    fn role_here(&self, view: &View, person: &Person) -> Answer<Role> {
        let repo = self.repo()?;
        person.role_on(view, &repo)?.ok_or_else(|| no_repo(repo.as_str()))
    }

    /// Whether the person may still what they were let in for: streams ask again and again (F11).
    pub async fn still_allowed(&self) -> bool {
        let Some(person) = &self.person else { return self.route.needs == Needs::Public };
        let (again, credentials, now) = (self.clone(), person.credentials(), self.now());
        self.read(move |view| again.permit(view, credentials, now)).await.is_ok()
    }

    /// Everything behind the edge.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.edge.shared
    }

    /// Now, by the server's clock.
    pub fn now(&self) -> Timestamp {
        self.shared().engine.clock().now()
    }

    /// Who asks.
    ///
    /// # Errors
    /// `Unauthenticated`; never behind a need but `Public`.
    pub fn person(&self) -> Answer<&Person> {
        self.person.as_deref().ok_or_else(nobody)
    }

    /// Who asks, for records.
    ///
    /// # Errors
    /// As [`Call::person`].
    pub fn actor(&self) -> Answer<Actor> {
        Ok(self.person()?.actor())
    }

    /// A parameter of the path, decoded.
    ///
    /// # Errors
    /// `Internal`: the handler asks for what its path has not.
    pub fn param(&self, name: &str) -> Answer<&str> {
        let found = self.params.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| ApiError::internal(format!("no parameter {name}")))
    }

    /// An error with all that a person is told of it.
    #[must_use]
    pub fn told(&self, error: ApiError) -> ApiError {
        error.told(&self.route.failing(), self.route.path)
    }

    /// The same call as if its path had another parameter: for pages that show several things at once. The rights on
    /// what it names have to be known already.
    #[must_use]
    pub fn with_param(&self, name: &str, value: &str) -> Call {
        let mut params: Vec<_> = self.params.iter().filter(|(key, _)| key != name).cloned().collect();
        params.push((name.to_owned(), value.to_owned()));
        Call { params: Arc::new(params), ..self.clone() }
    }

    /// A parameter that names something. What cannot be a name names nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn named<T: FromStr<Err = IdError>>(&self, name: &str) -> Answer<T> {
        self.param(name)?.parse().map_err(|error: IdError| ApiError::not_found(error.to_string()))
    }

    /// The repo of the path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn repo(&self) -> Answer<RepoName> {
        let name = self.param("repo")?;
        name.parse().map_err(|_| no_repo(name))
    }

    /// The gate of the path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn gate(&self) -> Answer<GateId> {
        Ok(GateId { repo: self.repo()?, branch: self.named("branch")? })
    }

    /// The change of the path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn change(&self) -> Answer<ChangeNumber> {
        self.named("change")
    }

    /// The run of the path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn run(&self) -> Answer<RunId> {
        let number = self.param("run")?;
        let number =
            number.parse().map_err(|_| ApiError::not_found(format!("there is no run `{number}`")))?;
        Ok(RunId { gate: self.gate()?, number })
    }

    /// Reads rows, all of one moment.
    ///
    /// # Errors
    /// Those of `look` and of the store.
    pub async fn read<T, F>(&self, look: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot) -> Answer<T> + Send + 'static,
    {
        let store = self.shared().store.clone();
        blocking(move || look(&store.reader().snapshot()?)).await
    }

    /// Writes rows, all or nothing; returns once they are durable.
    ///
    /// # Errors
    /// Those of `work` and of the commit.
    pub async fn write<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
    {
        self.write_then(work, || ()).await
    }

    /// [`Call::write`], and `then` what follows from the rows once they are durable, before the answer: also where nobody
    /// waits for that any more, as a caller may hang up in between. It runs on the writer's thread and must not wait.
    ///
    /// # Errors
    /// As [`Call::write`]; nothing follows then.
    pub async fn write_then<T, F, N>(&self, work: F, then: N) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
        N: FnOnce() + Send + 'static,
    {
        self.write_with(Vec::new(), work, then).await
    }

    /// The same, and puts something into the inboxes of cells: all or nothing.
    ///
    /// # Errors
    /// As [`Call::write`]; nothing follows then.
    pub async fn write_with<T, F, N>(&self, intakes: Vec<(CellId, AnyIntake)>, work: F, then: N) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
        N: FnOnce() + Send + 'static,
    {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.shared().engine.deliver_with(intakes, work, |outcome| {
            if outcome.is_ok() {
                then();
            }
            let _ = send.send(outcome);
        });
        let stopped = |_| ApiError::new(Class::Unavailable, "the server stops");
        Ok(receive.await.map_err(stopped)??)
    }
}

/// Does what blocks away from the threads that serve.
///
/// # Errors
/// Those of `work`; `Internal` if it panicked.
pub async fn blocking<T, F>(work: F) -> Answer<T>
where
    T: Send + 'static,
    F: FnOnce() -> Answer<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

/// Passwords that are hashed or compared at once: each takes 19 MiB and a core for 20 ms, on purpose.
const HASHES_AT_ONCE: usize = 4;
/// Those that wait for that: a second of work at worst. Where addresses are known, the failures that each may have leave most
/// of these places to others.
const HASHES_WAITING_MAX: usize = 50;

/// Places for passwords on their way through hashing.
#[derive(Debug)]
pub struct Hashes {
    line: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
}

impl Default for Hashes {
    fn default() -> Hashes {
        Hashes {
            line: Arc::new(Semaphore::new(HASHES_AT_ONCE + HASHES_WAITING_MAX)),
            at_once: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
        }
    }
}

/// [`blocking`] for what hashes passwords: whoever floods the login takes neither the memory nor the machine.
///
/// # Errors
/// `Limited`: too many wait already, and nothing was done. Else as [`blocking`].
pub async fn hashing<T, F>(hashes: &Hashes, work: F) -> Answer<T>
where
    T: Send + 'static,
    F: FnOnce() -> Answer<T> + Send + 'static,
{
    let line = hashes.line.clone().try_acquire_owned().map_err(|_| too_many_wait())?;
    let place = hashes.at_once.clone().acquire_owned().await.map_err(ApiError::internal)?;
    // The work goes on where nobody waits for it any more, and keeps its places until it is done.
    blocking(move || {
        let done = work();
        drop((place, line));
        done
    })
    .await
}

fn too_many_wait() -> ApiError {
    let why = "too many passwords wait for being compared";
    ApiError { retry_seconds: Some(2), ..ApiError::new(Class::Limited, why) }
}

/// For somebody who may not see a repo it is the same as one that is not there (F02).
pub fn no_repo(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no repo `{}`, or you may not see it", name.escape_debug()))
        .hint("`towpath repo list` shows those that you may see")
}

/// There is no such change.
pub fn no_change(number: ChangeNumber) -> ApiError {
    ApiError::not_found(format!("there is no change {number}"))
        .hint("`towpath change list` shows those that there are")
}

fn out_of_reach() -> ApiError {
    ApiError::denied("the token is made for some repos, and this is about the whole server")
        .hint("`towpath token create` without `--repo` makes another one, for an admin of the server")
}

/// A password opens the pages, and they allow all that their person may.
fn for_less() -> ApiError {
    ApiError::denied("the token is made for some repos or verbs, and this opens everything of its owner")
        .hint("log in with a token that is made for everything")
}

fn nobody() -> ApiError {
    ApiError::new(Class::Unauthenticated, "nobody is logged in")
        .hint(
            "`towpath token login URL` takes a token in; a request has it as `Authorization: Bearer twp_…`, or as Git's \
             password",
        )
}

fn unknown() -> ApiError {
    ApiError::new(Class::Unauthenticated, "the token or session is malformed, unknown, revoked or over")
        .hint(
            "`towpath token login URL` takes in another one, and `towpath repo connect REPO` then gives git in your clone one; \
             an admin can make it (`towpath token create`), and the first admin's is `admin.token` in the folder of the \
             server's keys",
        )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// No test waits so long for anything, on the slowest machine.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

    #[test]
    fn passwords_wait_in_a_line_that_ends() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let hashes = Arc::new(Hashes::default());
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let attempt = || {
            let (hashes, wait) = (hashes.clone(), wait.clone());
            async move { hashing(&hashes, move || Ok(wait.lock().unwrap().recv().is_err())).await }
        };
        let waiting: Vec<_> =
            (0..HASHES_AT_ONCE + HASHES_WAITING_MAX).map(|_| runtime.spawn(attempt())).collect();
        let free = |count: usize| {
            let began = std::time::Instant::now();
            while hashes.line.available_permits() != count {
                assert!(began.elapsed() < PATIENCE, "{} places are free", hashes.line.available_permits());
                std::thread::yield_now();
            }
        };
        free(0);
        let refused = runtime.block_on(attempt()).unwrap_err();
        assert_eq!((refused.class, refused.retry_seconds), (Class::Limited, Some(2)));
        // Whoever goes leaves the line; what is being compared is so until it is done.
        waiting.iter().for_each(|one| one.abort());
        free(HASHES_WAITING_MAX);
        drop(go);
        assert_eq!(runtime.block_on(attempt()), Ok(true));
    }
}
