//! One entry of the route table: everything that is known about a route, and the handler behind it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use towpath_core::policy::Role;

use super::bodies::TooSlow;
use super::call::Call;
use super::documented::{Header, Sent};
use super::error::{Answer, ApiError, Class};
use super::login::Form;
use super::origin::is_read;
use super::wording;
use crate::auth::token::TokenVerb;

/// Bytes of a JSON body. The longest that a person writes, a change's text, has 64 KiB.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// Time for an ordinary answer: a landing that waits for the disk takes a few seconds at worst.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Time for an answer that carries a repository or an artifact. Source: an hour is 4 GB at 10 Mbit/s.
pub const DEADLINE_LONG: Duration = Duration::from_secs(3600);

/// What a route takes. Deny by default: there is no route without this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Public,
    /// Anybody who is logged in; what they see depends on who they are.
    User,
    /// To be logged in as oneself: a token that is made for less than all that its owner may is not.
    Account,
    /// A role on the repo of the path. Without any role there, the repo does not exist (F02).
    Repo(Role),
    /// The change of the path, or that of the run there, being one's own while an author, or a role on its repo.
    OwnerOr(Role),
    /// To look after the whole server.
    ServerAdmin,
}

impl Needs {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Needs::Public => "nothing",
            Needs::User => "a login",
            Needs::Account => "a login, or a token for everything",
            Needs::Repo(Role::Reader) => "reader",
            Needs::Repo(Role::Author) => "author",
            Needs::Repo(Role::Maintainer) => "maintainer",
            Needs::Repo(Role::Admin) => "admin of the repo",
            Needs::OwnerOr(_) => "the change's owner, or maintainer",
            Needs::ServerAdmin => "admin of the server",
        }
    }
}

/// Who speaks to a route, and so what authenticates there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Programs, with tokens.
    Api,
    /// Git, with tokens.
    Git,
    /// Browsers, with a session's cookie.
    Page,
    /// Anybody; the handler looks for itself.
    Open,
}

impl Face {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Face::Api => "api",
            Face::Git => "git",
            Face::Page => "page",
            Face::Open => "open",
        }
    }
}

/// Makes a schema, so that all of them share their definitions.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

type Handling = Pin<Box<dyn Future<Output = Answer<Response>> + Send>>;

/// The code behind a route.
pub type Handler = Arc<dyn Fn(Call, Request) -> Handling + Send + Sync>;

/// A route.
#[derive(Clone)]
pub struct Route {
    /// How it is asked.
    pub method: Method,
    /// Where, with `{parameters}`.
    pub path: &'static str,
    /// Who may.
    pub needs: Needs,
    /// Who asks.
    pub face: Face,
    /// What it does: an imperative, one line.
    pub summary: &'static str,
    /// What a token must be for.
    pub verb: TokenVerb,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Time until the answer begins.
    pub deadline: Duration,
    /// What it takes.
    pub input: Option<SchemaOf>,
    /// Whether it takes fields in a body: those are sent, were it as `{}`.
    pub needs_body: bool,
    /// What it answers, where that is JSON.
    pub output: Option<SchemaOf>,
    /// What a body is that is not JSON of a type of ours.
    pub sent: Option<Sent>,
    /// Headers that it takes.
    pub headers: &'static [Header],
    /// How its answers are called.
    pub medias: Vec<&'static str>,
    /// What its answer says event by event, where that is a stream.
    pub events: Option<&'static str>,
    /// It answers with the way to another page.
    pub leads_on: bool,
    /// The code.
    pub handler: Handler,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn has_fields<T: JsonSchema>() -> bool {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    schema.get("properties").and_then(|fields| fields.as_object()).is_some_and(|fields| !fields.is_empty())
}

impl Route {
    /// An API route that takes and answers JSON. The input comes from the query of a read, else from the body.
    pub fn json<I, O, F, W>(
        (method, path): (Method, &'static str),
        needs: Needs,
        summary: &'static str,
        handler: F,
    ) -> Route
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(Call, I) -> W + Copy + Send + Sync + 'static,
        W: Future<Output = Answer<O>> + Send + 'static,
    {
        let reads = has_query(&method);
        let needs_body = !reads && has_fields::<I>();
        let handle = move |call: Call, request: Request| -> Handling {
            Box::pin(async move {
                let input = match reads {
                    true => from_query::<I>(&request)?,
                    false => from_body::<I>(request, needs_body).await?,
                };
                Ok(json(&handler(call, input).await?))
            })
        };
        let route = Route::raw((method, path), needs, summary, "application/json", handle);
        Route { input: Some(schema_of::<I>), needs_body, output: Some(schema_of::<O>), ..route }
    }

    /// A page's form: its body is read and shown to be of the caller's session before the handler sees it.
    pub fn form<F, W>(path: &'static str, needs: Needs, summary: &'static str, handler: F) -> Route
    where
        F: Fn(Call, Form) -> W + Copy + Send + Sync + 'static,
        W: Future<Output = Answer<Response>> + Send + 'static,
    {
        let handle = move |call: Call, request: Request| -> Handling {
            Box::pin(async move {
                let form = Form::read(&call, request).await?;
                handler(call, form).await
            })
        };
        let route = Route::raw((Method::POST, path), needs, summary, "text/html", handle);
        Route { face: Face::Page, sent: Some(Sent::Form(&[])), leads_on: true, ..route }
    }

    /// The same form with fields.
    pub fn fields(self, fields: &'static [&'static str]) -> Route {
        Route { sent: Some(Sent::Form(fields)), ..self }
    }

    /// Whether it is a page's form: nothing else may change anything for a browser.
    pub fn reads_forms(&self) -> bool {
        matches!(self.sent, Some(Sent::Form(_)))
    }

    /// An API route that deals with request and answer itself.
    pub fn raw<F>(
        (method, path): (Method, &'static str),
        needs: Needs,
        summary: &'static str,
        media: &'static str,
        handler: F,
    ) -> Route
    where
        F: Fn(Call, Request) -> Handling + Send + Sync + 'static,
    {
        let verb = match needs {
            _ if is_read(&method) => TokenVerb::Read,
            Needs::ServerAdmin | Needs::Account | Needs::Repo(Role::Admin) => TokenVerb::Administer,
            _ => TokenVerb::Act,
        };
        Route {
            method,
            path,
            needs,
            face: if needs == Needs::Public { Face::Open } else { Face::Api },
            summary,
            verb,
            body_bytes_max: JSON_BYTES_MAX,
            deadline: DEADLINE,
            input: None,
            needs_body: false,
            output: None,
            sent: None,
            headers: &[],
            medias: vec![media],
            events: None,
            leads_on: false,
            handler: Arc::new(handler),
        }
    }

    /// The same for others to speak to.
    pub fn face(self, face: Face) -> Route {
        Route { face, ..self }
    }

    /// The same for tokens with another verb.
    pub fn verb(self, verb: TokenVerb) -> Route {
        Route { verb, ..self }
    }

    /// The same with other bounds.
    pub fn bounds(self, body_bytes_max: usize, deadline: Duration) -> Route {
        Route { body_bytes_max, deadline, ..self }
    }

    /// The same that takes `I` in its query, whatever it answers.
    pub fn takes<I: JsonSchema>(self) -> Route {
        Route { input: Some(schema_of::<I>), ..self }
    }

    /// The same that takes bytes of a media type.
    pub fn takes_bytes(self, media: &'static str) -> Route {
        Route { sent: Some(Sent::Bytes(media)), ..self }
    }

    /// The same that takes headers.
    pub fn takes_headers(self, headers: &'static [Header]) -> Route {
        Route { headers, ..self }
    }

    /// The same that answers with one of several media types.
    pub fn answers(self, medias: &[&'static str]) -> Route {
        Route { medias: medias.to_vec(), ..self }
    }

    /// The same whose answer is a stream, and what that says.
    pub fn events(self, says: &'static str) -> Route {
        Route { events: Some(says), ..self }
    }

    /// The same that leads to another page.
    pub fn leads_on(self) -> Route {
        Route { leads_on: true, ..self }
    }

    /// The path as documents have it: that a parameter holds all that follows is the router's own spelling.
    pub fn shown_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// The path as the router has it: a parameter is a whole segment there.
    pub fn router_path(&self) -> String {
        self.path.replace("{repo}.git", "{repo}")
    }

    /// Names of the path's parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        let named = |rest: &'static str| Some(rest.split_once('}')?.0.trim_start_matches('*'));
        self.path.split('{').skip(1).filter_map(named)
    }

    /// What was not done, when it fails.
    pub fn failing(&self) -> String {
        let mut characters = self.summary.chars();
        let first: String = characters.next().into_iter().flat_map(char::to_lowercase).collect();
        format!("cannot {first}{}", characters.as_str())
    }
}

/// Whether an input comes in the query: a body of these methods has no meaning.
fn has_query(method: &Method) -> bool {
    is_read(method) || *method == Method::DELETE
}

/// Whether a route takes its input in the query.
pub fn takes_query(route: &Route) -> bool {
    has_query(&route.method)
}

/// Makes a raw handler of an async function.
pub fn handler<F, W>(function: F) -> impl Fn(Call, Request) -> Handling + Send + Sync + 'static
where
    F: Fn(Call, Request) -> W + Send + Sync + 'static,
    W: Future<Output = Answer<Response>> + Send + 'static,
{
    move |call, request| Box::pin(function(call, request))
}

/// A JSON answer.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let media = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, media)], Body::from(bytes)).into_response()
        }
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// What the query says.
///
/// # Errors
/// `Invalid`: a missing, unknown or malformed parameter.
pub fn from_query<I: DeserializeOwned>(request: &Request) -> Answer<I> {
    let query = axum::extract::Query::<I>::try_from_uri(request.uri());
    query.map(|query| query.0).map_err(|error| ApiError::invalid(error.body_text()))
}

async fn from_body<I: DeserializeOwned>(request: Request, needed: bool) -> Answer<I> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
    let is_json = media.is_some_and(|media| media.split(';').next() == Some("application/json"));
    let bytes = body(request).await?;
    if bytes.is_empty() {
        return match needed {
            true => Err(malformed("the body is empty, where an object belongs".into())),
            false => wording::read(b"{}").map_err(malformed),
        };
    }
    // Forms and plain text can be sent by any page without asking; JSON cannot.
    if !is_json {
        return Err(ApiError::invalid("the body has to be JSON with `Content-Type: application/json`"));
    }
    wording::read(&bytes).map_err(malformed)
}

fn malformed(what: String) -> ApiError {
    ApiError::invalid(format!("what was sent is not what this takes: {what}"))
}

/// The whole body, within the bound that the route has.
///
/// # Errors
/// `TooLarge`; `Limited` if it came too slowly; `Invalid` if the connection broke.
pub async fn body(request: Request) -> Answer<axum::body::Bytes> {
    axum::body::to_bytes(request.into_body(), usize::MAX).await.map_err(|error| broken_body(&error))
}

/// A body that could not be read to its end.
pub fn broken_body(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if current.is::<http_body_util::LengthLimitError>() {
            return ApiError::new(Class::TooLarge, "the body is larger than this route takes");
        }
        if let Some(slow) = current.downcast_ref::<TooSlow>() {
            return ApiError::new(Class::Limited, format!("{slow}, and nothing has happened: send it again"));
        }
        cause = current.source();
    }
    ApiError::invalid("the body broke off")
}
