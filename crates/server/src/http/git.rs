//! Git's three endpoints: bodies flow between the connection and the forge, on threads of their own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot};
use towpath_core::ids::{ChangeNumber, GateId, RepoName, UserId};
use towpath_core::policy::Role;
use towpath_forge::push::{
    Head, HookToken, Listener, PushContext, Reply, Request as GitRequest, answer_info_refs,
    answer_receive_pack, answer_upload_pack,
};
use towpath_git::Service;

use super::call::Call;
use super::error::{Answer, ApiError, Class};
use super::route::Face;
use super::stream::{Outlet, pipe};
use super::{Edge, labels, links};
use crate::auth::token::TokenVerb;

mod verdict;

use verdict::Heard;

/// Requests of git at once: each is a process of git and a thread.
const GIT_REQUESTS_MAX: usize = 64;
/// Those of one person: whoever is slow, or wants to be, leaves places for others. A robot that fetches many repositories
/// waits for its own.
const GIT_REQUESTS_PER_USER_MAX: usize = 8;
/// Time that a request of git waits for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of one push or fetch request; the forge has bounds of its own for what it holds.
pub const BODY_BYTES_MAX: usize = 4 << 30;
/// Time that a pusher waits to hear what a change waits for.
const VERDICT_DEADLINE: Duration = Duration::from_secs(5);

/// Places for requests of git.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    /// Of each person who has asked since the start.
    own: Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

/// A request's place, among one's own and among all.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Default for Places {
    fn default() -> Places {
        Places { all: Arc::new(Semaphore::new(GIT_REQUESTS_MAX)), own: Mutex::default() }
    }
}

impl Places {
    /// Waits for a place. One's own come first: whoever waits for those takes none from others.
    async fn enter(&self, user: UserId) -> Answer<Place> {
        let own =
            async { Ok((self.of(user).acquire_owned().await?, self.all.clone().acquire_owned().await?)) };
        let place = tokio::time::timeout(TURN_DEADLINE, own).await.map_err(|_| self.busy(user))?;
        place.map_err(|_: AcquireError| ApiError::new(Class::Unavailable, "the server stops"))
    }

    fn of(&self, user: UserId) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.entry(user).or_insert_with(|| Arc::new(Semaphore::new(GIT_REQUESTS_PER_USER_MAX))).clone()
    }

    fn busy(&self, user: UserId) -> ApiError {
        match self.of(user).available_permits() {
            0 => {
                let why = "as many fetches and pushes of yours are under way as one person may have";
                ApiError { retry_seconds: Some(5), ..ApiError::new(Class::Limited, why) }
            }
            _ => ApiError::new(Class::Unavailable, "too many fetches and pushes are under way; try again"),
        }
    }
}

/// Who asks at a path, whether or not there is a route: these ends are what git puts behind the address of any repository.
pub fn face_at(path: &str) -> Face {
    let ends = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];
    if ends.iter().any(|end| path.ends_with(end)) { Face::Git } else { Face::Api }
}

/// `GET /{repo}.git/info/refs`: also the dumb protocol's path, which is answered like anything that is not there.
pub async fn info_refs(call: Call, request: Request) -> Answer<Response> {
    let service = match request.uri().query() {
        Some("service=git-upload-pack") => Service::UploadPack,
        Some("service=git-receive-pack") => Service::ReceivePack,
        _ => return Err(ApiError::not_found("only git's smart protocol is served")),
    };
    if service == Service::ReceivePack {
        may_push(&call)?;
    }
    run(&call, request, move |side| {
        let protocol = side.text("git-protocol");
        answer_info_refs(&side.forge, side.by, (service, protocol.as_deref()), &mut side.reply)
    })
    .await
}

/// `POST /{repo}.git/git-upload-pack`
pub async fn upload_pack(call: Call, request: Request) -> Answer<Response> {
    run(&call, request, |side| {
        let (request, reply) = side.split();
        answer_upload_pack(request.forge, request.by, request.git, reply)
    })
    .await
}

/// `POST /{repo}.git/git-receive-pack`
pub async fn receive_pack(call: Call, request: Request) -> Answer<Response> {
    may_push(&call)?;
    let edge = call.edge.clone();
    let (repo, again, runtime) = (call.repo()?, call.clone(), Handle::current());
    let listener = Arc::new(Bells { edge: edge.clone(), runtime: runtime.clone() });
    let context = PushContext {
        by: call.person()?.user,
        now: call.now(),
        still_valid: Arc::new(move || runtime.block_on(again.still_allowed())),
        listener,
    };
    run(&call, request, move |side| {
        let token = HookToken::new(crate::random::bytes());
        let (request, reply) = side.split();
        let received = answer_receive_pack(request.forge, &edge.desk, (context, token), request.git, reply);
        // Branches may have moved too; a bell too many is harmless.
        ring_all(&edge, &repo);
        received.map(drop)
    })
    .await
}

fn may_push(call: &Call) -> Answer<()> {
    if call.role < Some(Role::Author) {
        let why = format!("pushing takes the role author on `{}`", call.repo()?);
        return Err(ApiError::denied(why));
    }
    match call.person()?.may(TokenVerb::Push) {
        true => Ok(()),
        false => Err(ApiError::denied("the token is not made for this: it lacks the verb `push`")),
    }
}

/// What a thread that speaks with git has in its hands.
struct Side {
    forge: towpath_forge::BuiltIn,
    by: UserId,
    headers: HeaderMap,
    body: BlockingBody,
    reply: Answering,
}

struct Parts<'a> {
    forge: &'a towpath_forge::BuiltIn,
    by: UserId,
    git: GitRequest<'a>,
}

impl Side {
    fn text(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    fn split(&mut self) -> (Parts<'_>, &mut Answering) {
        let text = |name| self.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let git = GitRequest {
            protocol: text("git-protocol"),
            content_type: text("content-type"),
            content_encoding: text("content-encoding"),
            body: &mut self.body,
        };
        (Parts { forge: &self.forge, by: self.by, git }, &mut self.reply)
    }
}

/// Runs one exchange on a thread of its own, and answers as soon as its head is known.
async fn run<F>(call: &Call, request: Request, exchange: F) -> Answer<Response>
where
    F: FnOnce(&mut Side) -> io::Result<()> + Send + 'static,
{
    let place = call.edge.git_places.enter(call.person()?.user).await?;
    let (forges, repo) = (call.shared().forges.clone(), call.repo()?);
    let forge = super::call::blocking(move || Ok(forges.get(&repo)?)).await?;
    let (head, begun) = oneshot::channel();
    let (outlet, body) = pipe();
    let (parts, request_body) = request.into_parts();
    let runtime = Handle::current();
    let mut side = Side {
        forge,
        by: call.person()?.user,
        headers: parts.headers,
        body: BlockingBody { body: request_body, rest: Bytes::new(), runtime: runtime.clone() },
        reply: Answering { head: Some(head), outlet, runtime: runtime.clone() },
    };
    let thread = move || {
        if let Err(error) = exchange(&mut side) {
            tracing::debug!(%error, "an exchange with git broke off: {error}");
            runtime.block_on(side.reply.outlet.break_off(error.to_string()));
        }
        drop(place);
    };
    std::thread::Builder::new().name("git-http".into()).spawn(thread).map_err(ApiError::internal)?;
    let head: Head = begun.await.map_err(|_| ApiError::invalid("the request broke off"))?;
    Ok(respond(&head, body))
}

fn respond(head: &Head, body: Body) -> Response {
    let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(head.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (status, headers, body).into_response()
}

/// A request's body for a thread that reads.
struct BlockingBody {
    body: Body,
    rest: Bytes,
    runtime: Handle,
}

impl Read for BlockingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.body.frame()) {
                None => return Ok(0),
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// An answer for a thread that writes.
struct Answering {
    head: Option<oneshot::Sender<Head>>,
    outlet: Outlet,
    runtime: Handle,
}

impl Write for Answering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.runtime.block_on(self.outlet.send(piece)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reply for Answering {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let sent = self.head.take().map(|sender| sender.send(head.clone()));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Rings the gates when a push moved a change, and tells the pusher what the gate makes of it.
struct Bells {
    edge: Arc<Edge>,
    runtime: Handle,
}

impl Listener for Bells {
    fn moved(&self, repo: &RepoName, change: ChangeNumber) -> String {
        let link = format!("{}{}", self.edge.site.url, links::change(repo, change));
        let mut heard = Heard::default();
        let watch = async {
            let watch = self.watch(repo, change, &mut heard);
            tokio::time::timeout(VERDICT_DEADLINE, watch).await
        };
        if !matches!(self.runtime.block_on(watch), Ok(Some(()))) {
            tracing::debug!(%repo, %change, "change {change} was not decided on while its push waited");
        }
        // Where the gate is busy, its page says the rest.
        let first = match heard.waits {
            Some(waits) => format!("{link} waits for: {waits}"),
            None => link,
        };
        let near = self.edge.shared.store.reader().snapshot().ok().and_then(|view| {
            let record = super::records::change(&view, repo, change).ok()?;
            labels::near(&view, repo, &record).ok()
        });
        let lines = std::iter::once(first).chain(heard.note).chain(near.unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Bells {
    /// Keeps `heard` at what the gate says of the newest revision, until the machine has nothing more to say of it.
    async fn watch(&self, repo: &RepoName, number: ChangeNumber, heard: &mut Heard) -> Option<()> {
        let shared = &self.edge.shared;
        let (store, name) = (shared.store.clone(), repo.clone());
        let read = tokio::task::spawn_blocking(move || {
            let view = store.reader().snapshot()?;
            super::records::change(&view, &name, number)
        });
        let gate = GateId { repo: repo.clone(), branch: read.await.ok()?.ok()?.target };
        let mut rung = shared.ring_all([gate.clone()]);
        loop {
            let (since, now) = (rung.since, shared.engine.clock().now());
            let reasons = shared.engine.gate(gate.clone(), move |live| {
                since.is_read_by(&live.state).then(|| live.state.reasons(number, now))
            });
            if let Some(reasons) = reasons.await.flatten() {
                *heard = Heard::of(&reasons, number, &gate.branch);
                if !verdict::is_settling(&reasons) {
                    return Some(());
                }
            }
            rung.changed().await?;
        }
    }
}

/// Rings every gate of a repo. Not waited for, as the next poll makes up for a bell that is lost.
fn ring_all(edge: &Edge, repo: &RepoName) {
    let settings = edge.shared.store.reader().snapshot().map_err(ApiError::from);
    match settings.and_then(|view| super::records::settings(&view, repo)) {
        Ok(settings) => settings.gates(repo).iter().for_each(|(gate, _)| edge.shared.ring(gate)),
        Err(error) => tracing::warn!(repo = %repo, "the gates of {repo} were not rung: {}", error.why),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// What an attempt to enter comes to at once; `None`: it waits.
    fn enter(places: &Places, user: u64) -> Option<Place> {
        let attempt = pin!(places.enter(UserId(user)));
        match attempt.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place.unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        // For its clock alone: within a task of it, so many attempts would be asked to let others come first.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _clock = runtime.enter();
        let places = Places::default();
        let own: Vec<_> = (0..GIT_REQUESTS_PER_USER_MAX).map(|_| enter(&places, 1).unwrap()).collect();
        assert!(enter(&places, 1).is_none());
        assert_eq!(places.busy(UserId(1)).class, Class::Limited);
        let others: Vec<_> = (GIT_REQUESTS_PER_USER_MAX..GIT_REQUESTS_MAX)
            .map(|at| enter(&places, 2 + at as u64).unwrap())
            .collect();
        assert!(enter(&places, 2).is_none());
        assert_eq!(places.busy(UserId(2)).class, Class::Unavailable);
        drop(own);
        assert!(enter(&places, 2).is_some());
        drop(others);
        assert!(enter(&places, 1).is_some());
    }
}
