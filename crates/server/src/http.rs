//! The HTTP edge: one table of routes, and what stands in front of each of them.
//!
//! Architecture invariant: the router is made from the table alone ([`routes::table`]). A route without an entry, and so
//! without a need, cannot exist; the OpenAPI document, the guide and the test of rights read the same table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use tokio::sync::watch;
use towpath_core::ids::{Timestamp, UserId};
use towpath_forge::ForgeError;
use towpath_forge::push::{HookDesk, HookSettings};

use crate::auth::limiter::Limiter;
use crate::auth::rights::{Credentials, Means, Person};
use crate::auth::uses::TokenUses;
use crate::auth::{session, token};
use crate::server::Shared;

pub mod api;
mod bodies;
pub mod call;
pub mod connections;
mod documented;
pub mod error;
pub mod git;
pub mod headers;
pub mod hooks;
mod labels;
pub mod links;
pub mod login;
mod next;
mod objects;
pub mod openapi;
pub mod origin;
pub mod patience;
pub(crate) mod records;
pub mod route;
pub mod routes;
pub mod serve;
pub mod shares;
pub mod stream;
pub mod wording;

use bodies::{Arriving, UnderWay};
use call::Call;
use connections::Connections;
use error::{Answer, ApiError, Class};
use origin::Site;
use patience::{BODY_DEADLINE, IDLE_DEADLINE, Patience};
use route::{Face, Needs, Route};
use shares::{Share, Shares};

/// Requests of one person at once, until their answers are written: an answer is held until then. Source: 32 streams, and as much
/// again for a person's pages and scripts.
const REQUESTS_PER_USER_MAX: usize = 64;
/// How often noted uses of tokens are written.
const USES_WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// Where the hooks of pushes are, below the data folder.
const PUSH_FOLDER: &str = "push";
/// The hidden command of the server's own program that git starts as a hook.
pub const HOOK_COMMAND: &str = "hook";

/// The edge's own state, beside what is behind it.
pub struct Edge {
    /// Everything behind.
    pub shared: Arc<Shared>,
    /// Where we are.
    pub site: Site,
    /// Failed logins.
    pub logins: Limiter,
    /// Passwords on their way through hashing.
    pub hashes: call::Hashes,
    /// Places for connections.
    pub connections: Arc<Connections>,
    /// Requests under way of each person.
    pub requests: Arc<Shares<UserId>>,
    /// Open streams.
    pub streams: stream::Streams,
    /// Counters of requests.
    pub counters: headers::Counters,
    /// Secrets of webhooks, opened once.
    pub hooks: hooks::Keys,
    /// Where hooks of running pushes come with their questions.
    pub desk: HookDesk,
    git_places: git::Places,
    uses: TokenUses,
    closing: watch::Sender<bool>,
}

impl Edge {
    /// The edge of a server that others reach at `site`.
    ///
    /// # Errors
    /// The folder for the hooks of pushes cannot be used.
    pub fn open(shared: Arc<Shared>, site: Site) -> Result<Arc<Edge>, ForgeError> {
        Edge::with(Connections::of_this_process(), shared, site)
    }

    /// The same with other bounds for connections.
    ///
    /// # Errors
    /// As [`Edge::open`].
    pub fn with(connections: Connections, shared: Arc<Shared>, site: Site) -> Result<Arc<Edge>, ForgeError> {
        let desk = HookDesk::open(&HookSettings {
            folder: shared.store.path().join(PUSH_FOLDER),
            program: shared.settings.program.clone(),
            arguments: vec![HOOK_COMMAND.into()],
        })?;
        Ok(Arc::new(Edge {
            shared,
            site,
            logins: Limiter::default(),
            hashes: call::Hashes::default(),
            connections: Arc::new(connections),
            requests: Shares::new(REQUESTS_PER_USER_MAX),
            streams: stream::Streams::default(),
            counters: headers::Counters::default(),
            hooks: hooks::Keys::default(),
            desk,
            git_places: git::Places::default(),
            uses: TokenUses::default(),
            closing: watch::Sender::new(false),
        }))
    }

    /// What a request brings to say who it is from: pages know only cookies, everything else only tokens (S7).
    fn credentials(&self, face: Face, headers: &HeaderMap) -> Credentials {
        let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        match face {
            Face::Open => Credentials::None,
            Face::Page => text(header::COOKIE)
                .and_then(|cookie| session::presented(cookie, self.site.is_secure()))
                .map_or(Credentials::None, Credentials::Session),
            Face::Api | Face::Git => match headers.get(header::AUTHORIZATION) {
                None => Credentials::None,
                Some(_) => text(header::AUTHORIZATION)
                    .and_then(token::presented)
                    .map_or(Credentials::NoToken, Credentials::Token),
            },
        }
    }

    fn note_use(&self, person: &Person, now: Timestamp) {
        if let Means::Token { hash, used_at, .. } = &person.by {
            self.uses.note(*hash, *used_at, now);
        }
    }

    /// Ends what would otherwise go on for ever: nobody waits for open streams when the server stops.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Returns once the edge is being closed.
    pub async fn closed(&self) {
        // The sender lives as long as the edge.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Writes what was noted about the use of tokens.
    pub fn write_uses(&self) {
        self.uses.write(self.shared.store.writer());
    }

    /// Writes it again and again, for as long as the edge lives.
    pub fn keep_writing_uses(self: &Arc<Self>) {
        let edge = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut every = tokio::time::interval(USES_WRITTEN_EVERY);
            loop {
                every.tick().await;
                match edge.upgrade() {
                    Some(edge) => edge.write_uses(),
                    None => return,
                }
            }
        });
    }
}

/// The whole router.
pub fn router(edge: &Arc<Edge>) -> Router {
    let mut router = Router::new();
    for route in routes::table() {
        let path = route.router_path();
        let filter =
            MethodFilter::try_from(route.method.clone()).expect("invariant: the table has plain methods");
        let (route, edge) = (Arc::new(route), edge.clone());
        let handle = move |params: PathParams, request: Request| dispatch(edge, route, params, request);
        router = router.route(&path, on(filter, handle));
    }
    let absent = |request: Request| async move {
        let face = git::face_at(request.uri().path());
        outside(&request, nothing_here(face))
    };
    let wrong = |request: Request| async move {
        outside(&request, ApiError::new(Class::NoMethod, "this path takes another method"))
    };
    let guard = edge.clone();
    router.fallback(absent).method_not_allowed_fallback(wrong).layer(axum::middleware::from_fn(
        move |request: Request, next: axum::middleware::Next| headers::guard(guard.clone(), request, next),
    ))
}

/// What stands in the path where the route has parameters, if it is text.
type PathParams = Result<RawPathParams, RawPathParamsRejection>;

async fn dispatch(edge: Arc<Edge>, route: Arc<Route>, params: PathParams, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut response = match answer(&edge, &route, params, request).await {
        Ok(response) => response,
        Err(error) => refuse(&route, error, &target),
    };
    if head {
        *response.body_mut() = Body::empty();
    }
    if route.face == Face::Page {
        headers::allow_page(response.headers_mut());
    }
    response
}

async fn answer(
    edge: &Arc<Edge>,
    route: &Arc<Route>,
    params: PathParams,
    request: Request,
) -> Result<Response, ApiError> {
    let params = parameters(route, params)?;
    edge.site.check_same_site(request.method(), request.headers())?;
    check_length(route, request.headers())?;
    let peer =
        request.extensions().get::<serve::Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
    let call = Call::admit(edge, route, (params, peer), request.headers()).await?;
    if route.face == Face::Page
        && !origin::is_read(request.method())
        && !edge.site.is_from_own_page(request.headers())
    {
        return Err(ApiError::denied("the form comes from no page of this server"));
    }
    // Git's exchanges wait for places of their own, and are written as they are made.
    let asker = call.person.as_ref().filter(|_| route.face != Face::Git).map(|person| person.user);
    let place = asker.map(|user| edge.requests.take(user).map(Arc::new).ok_or_else(too_many)).transpose()?;
    let request = request.map(|body| arriving(edge, route, body));
    let late =
        |_| ApiError::new(Class::TimedOut, "the answer took too long; it may have happened nevertheless");
    let handled = (route.handler)(call, request);
    let handled = tokio::time::timeout(route.deadline, async {
        match place.clone() {
            Some(place) => until_done(handled, place).await,
            None => handled.await,
        }
    });
    let response = handled.await.map_err(late)??;
    Ok(match place {
        Some(place) => response.map(|body| Body::new(UnderWay::new(body, place))),
        None => response,
    })
}

/// Carries a request through, also where nobody waits for its answer any more: what it has begun goes on, and keeps its place
/// until it is done. Whoever hangs up has no more under way than whoever waits.
async fn until_done(
    handled: impl Future<Output = Answer<Response>> + Send + 'static,
    place: Arc<Share<UserId>>,
) -> Answer<Response> {
    let done = tokio::spawn(async move {
        let response = handled.await;
        drop(place);
        response
    });
    done.await.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

/// A request's body within the route's bounds.
fn arriving(edge: &Edge, route: &Route, body: Body) -> Body {
    let patience = if route.face == Face::Git { IDLE_DEADLINE } else { BODY_DEADLINE };
    let body = Arriving::new(body, Patience::new(patience, edge.connections.clone()));
    Body::new(http_body_util::Limited::new(body, route.body_bytes_max))
}

fn too_many() -> ApiError {
    let why = "as many requests of yours are under way as one person may have";
    ApiError { retry_seconds: Some(5), ..ApiError::new(Class::Limited, why) }
}

/// The path's parameters. No name is other than UTF-8. A path that ends in `.git` where a repo stands means that repo's Git
/// side (B17).
fn parameters(route: &Route, raw: PathParams) -> Result<Vec<(String, String)>, ApiError> {
    let raw = raw.map_err(|_| nothing_here(route.face))?;
    let git = route.path.contains("{repo}.git");
    let pairs = raw.iter().map(|(name, value)| match name == "repo" && git {
        true => value.strip_suffix(".git").map(|repo| (name.to_owned(), repo.to_owned())),
        false => Some((name.to_owned(), value.to_owned())),
    });
    pairs.collect::<Option<_>>().ok_or_else(|| nothing_here(route.face))
}

fn check_length(route: &Route, headers: &HeaderMap) -> Result<(), ApiError> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length.is_some_and(|length| length > route.body_bytes_max as u64) {
        true => Err(ApiError::new(Class::TooLarge, "the body is larger than this route takes")),
        false => Ok(()),
    }
}

fn nothing_here(face: Face) -> ApiError {
    ApiError::not_found("there is nothing at this path").hint(match face {
        Face::Git => {
            "a repo's address for git ends in `/NAME.git`: `towpath repo list` and the overview have it whole"
        }
        Face::Api | Face::Page | Face::Open => {
            "`/` leads to the pages, and `/openapi.json` lists what programs can ask"
        }
    })
}

/// The answer to what no route is for: a page for whoever reads pages.
fn outside(request: &Request, error: ApiError) -> Response {
    let error = error.told("cannot answer this request", request.uri().path());
    let reads_pages =
        |accepts: &header::HeaderValue| accepts.as_bytes().windows(9).any(|part| part == b"text/html");
    match request.headers().get(header::ACCEPT).is_some_and(reads_pages) {
        true => {
            let mut page = login::error_page(&error);
            headers::allow_page(page.headers_mut());
            page
        }
        false => error.answer(git::face_at(request.uri().path())),
    }
}

/// The answer to what failed. A person without a session is shown the way to log in.
fn refuse(route: &Route, error: ApiError, target: &str) -> Response {
    let error = error.told(&route.failing(), route.path);
    if route.face == Face::Page {
        if error.class == Class::Unauthenticated && route.needs != Needs::Public {
            // A form cannot be sent again by a link: its page is shown instead.
            let page = target.rsplit_once('/').map_or("/", |(page, _)| page);
            return login::to_login(if route.reads_forms() { page } else { target });
        }
        let mut page = login::error_page(&error);
        if let Some(seconds) = error.retry_seconds {
            page.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return page;
    }
    error.answer(route.face)
}

/// Where a server listens says how it is called, unless a person says otherwise.
///
/// # Errors
/// The configured address cannot be used.
pub fn site(url: Option<&str>, listen: SocketAddr) -> Result<Site, origin::UnfitUrl> {
    match url {
        Some(url) => Site::new(url),
        None => Site::new(&format!("http://{listen}")),
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    status.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_hangs_up_holds_the_place_until_the_work_is_done() {
        let shares = Shares::new(1);
        let place = Arc::new(shares.take(UserId(1)).unwrap());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let work = async move {
            began.send(()).unwrap();
            ended.await.unwrap();
            Ok(empty(StatusCode::OK))
        };
        let waiting = tokio::spawn(until_done(work, place));
        begun.await.unwrap();
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(shares.take(UserId(1)).is_none());
        end.send(()).unwrap();
        while shares.take(UserId(1)).is_none() {
            tokio::task::yield_now().await;
        }
    }
}
