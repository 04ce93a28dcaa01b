//! The pages: server-rendered HTML that reads without JavaScript, kept live by a small script of our own.
//!
//! Architecture invariant: pages decide nothing and read no rows by themselves. They show the views of the API
//! ([`crate::http::api`]), and their forms do what its routes do; every value is escaped by the templates.

use askama::Template;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use towpath_core::gate::{Gate, Verb};
use towpath_core::ids::{GateId, Timestamp};
use towpath_core::policy::Role;
use towpath_core::turn::Live;

use crate::auth::rights::Means;
use crate::auth::token::TokenVerb;
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};
use crate::http::login::LOGIN_PATH;
use crate::http::route::{Face, Needs, Route, handler};

mod assets;
mod branch;
mod change;
mod forms;
mod job;
mod login;
mod overview;
mod problem;
mod run;
mod sgr;
mod text;

pub use problem::problem;

const READER: Needs = Needs::Repo(Role::Reader);
const AUTHOR: Needs = Needs::Repo(Role::Author);
const MAINTAINER: Needs = Needs::Repo(Role::Maintainer);
const ADMIN: Needs = Needs::Repo(Role::Admin);
const OWNER: Needs = Needs::OwnerOr(Role::Maintainer);

const HTML: &str = "text/html";

macro_rules! page {
    ($path:expr, $needs:expr, $summary:literal, $media:expr, $handler:expr) => {
        Route::raw((Method::GET, $path), $needs, $summary, $media, handler($handler)).face(Face::Page)
    };
}

/// Every route of the pages. What their script fetches (events, logs, files) stands in the table of the edge.
pub fn routes() -> Vec<Route> {
    let mut all = vec![
        page!("/", Needs::User, "Show the overview", HTML, overview::show),
        page!(LOGIN_PATH, Needs::Public, "Show the login page", HTML, login::show).takes::<login::Asked>(),
        page!("/{repo}", READER, "Go to the page of a repo's own branch", HTML, branch::go).leads_on(),
        page!("/{repo}/branches/{branch}", READER, "Show a branch's page", HTML, branch::show),
        page!("/{repo}/changes/{change}", READER, "Show a change's page", HTML, change::show),
        page!("/{repo}/runs/{branch}/{run}", READER, "Show a run's page", HTML, run::show),
        page!("/{repo}/runs/{branch}/{run}/jobs/{job}", READER, "Show a job's log", HTML, job::show)
            .takes::<job::Asked>(),
        Route::raw(
            (Method::GET, "/static/{file}"),
            Needs::Public,
            "Show a file of the pages",
            "text/css",
            handler(assets::show),
        )
        .answers(&["text/css", "text/javascript", "image/svg+xml"]),
    ];
    all.extend(branch_forms());
    all.extend(change_forms());
    let cancel = form("/{repo}/runs/{branch}/{run}/cancel", OWNER, "Cancel a run", forms::cancel);
    all.push(cancel.fields(&["why"]));
    all
}

fn form<F, W>(path: &'static str, needs: Needs, summary: &'static str, act: F) -> Route
where
    F: Fn(Call, crate::http::login::Form) -> W + Copy + Send + Sync + 'static,
    W: Future<Output = Answer<Response>> + Send + 'static,
{
    Route::form(path, needs, summary, act).verb(TokenVerb::Act)
}

fn branch_forms() -> Vec<Route> {
    macro_rules! act {
        ($verb:literal, $needs:expr, $summary:literal, $act:expr) => {
            form(concat!("/{repo}/branches/{branch}/", $verb), $needs, $summary, $act)
        };
    }
    vec![
        act!("freeze", MAINTAINER, "Freeze a branch", forms::freeze).fields(&["why"]),
        act!("unfreeze", MAINTAINER, "Let changes land on a branch again", forms::unfreeze),
        act!("accept", ADMIN, "Accept a foreign push", forms::accept).fields(&["tip"]),
        act!("deploy", MAINTAINER, "Run the deploy jobs of a branch again", forms::deploy),
        act!("ring", AUTHOR, "Have a branch looked at again", forms::ring),
    ]
}

fn change_forms() -> Vec<Route> {
    macro_rules! act {
        ($verb:literal, $needs:expr, $summary:literal, $act:expr) => {
            form(concat!("/{repo}/changes/{change}/", $verb), $needs, $summary, $act)
        };
    }
    vec![
        act!("approve", MAINTAINER, "Approve a revision of a change", forms::approve).fields(forms::REVIEW),
        act!("request-changes", MAINTAINER, "Ask for changes of a revision", forms::request_changes)
            .fields(forms::REVIEW),
        act!("withdraw", MAINTAINER, "Withdraw your review of a change", forms::withdraw),
        act!("vouch", MAINTAINER, "Let a revision run that nobody authorised uploaded", forms::vouch)
            .fields(&["revision", "definition", "why", "hours"]),
        act!("comment", AUTHOR, "Comment on a change", forms::comment).fields(&["text"]),
        act!("label", OWNER, "Set labels of a change", forms::label).fields(&["add", "remove"]),
        act!("hold", OWNER, "Hold a change", forms::hold).fields(&["why"]),
        act!("release", MAINTAINER, "Release a change that is held", forms::release),
        act!("close", OWNER, "Close a change", forms::close),
        act!("reopen", OWNER, "Reopen a change", forms::reopen),
        act!("draft", OWNER, "Make a change a draft", forms::draft),
        act!("ready", OWNER, "Make a change ready", forms::ready),
        act!("retry", OWNER, "Run a change again", forms::retry).fields(&["revision", "scope", "job"]),
    ]
}

/// A step on the way from the overview to where one is.
#[derive(Debug, Clone)]
struct Crumb {
    text: String,
    url: String,
}

/// What stands around every page.
#[derive(Debug, Clone)]
struct Frame {
    /// Who looks.
    who: Option<String>,
    /// What forms have to bring back.
    csrf: String,
    /// The way here.
    crumbs: Vec<Crumb>,
    /// The repo whose events keep the page live; empty: of all.
    repo: String,
    /// Whether the page follows events at all.
    live: bool,
    now: Timestamp,
}

impl Frame {
    fn of(call: &Call) -> Frame {
        let csrf = match call.person.as_ref().map(|person| &person.by) {
            Some(Means::Session { csrf, .. }) => csrf.clone(),
            Some(Means::Token { .. }) | None => String::new(),
        };
        Frame {
            who: call.person.as_ref().map(|person| person.name.clone()),
            csrf,
            crumbs: Vec::new(),
            repo: String::new(),
            live: call.person.is_some(),
            now: call.now(),
        }
    }

    /// The frame of a page within a repo.
    fn within(call: &Call, crumbs: Vec<Crumb>) -> Answer<Frame> {
        Ok(Frame { repo: call.repo()?.to_string(), crumbs, ..Frame::of(call) })
    }

    fn css(&self) -> &'static str {
        &assets::CSS.url
    }

    fn js(&self) -> &'static str {
        &assets::JS.url
    }

    fn icon(&self) -> &'static str {
        &assets::ICON.url
    }

    fn when(&self, at: &i64) -> text::Html {
        text::when(*at, self.now.0)
    }
}

fn crumb(text: impl Into<String>, url: impl Into<String>) -> Crumb {
    Crumb { text: text.into(), url: url.into() }
}

/// Which of these commands a gate takes from whoever looks: it decides so by the same table when it is given one.
async fn permitted<const N: usize>(call: &Call, gate: GateId, verbs: [Verb; N]) -> Answer<[bool; N]> {
    let (by, now) = (call.person()?.user, call.now());
    let look = move |live: &Live<Gate>| verbs.map(|verb| live.state.permit(by, &verb, now).is_ok());
    Ok(call.shared().engine.gate(gate, look).await.unwrap_or([false; N]))
}

/// A page as an answer.
fn render(status: StatusCode, page: &impl Template) -> Answer<Response> {
    let text = page.render().map_err(ApiError::internal)?;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    Ok((status, [(header::CONTENT_TYPE, html)], text).into_response())
}
