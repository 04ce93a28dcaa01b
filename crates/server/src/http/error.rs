//! Errors as clients see them: class, what, why, hint, with the HTTP code and the CLI's exit code of the class.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_blob::BlobError;
use towpath_core::cell::{Refusal, RefusalClass};
use towpath_core::ids::IdError;
use towpath_forge::{Failure, ForgeError};
use towpath_git::{ErrorClass, GitError};
use towpath_store::{ReadError, WriteError};

use super::next;
use super::route::Face;
use crate::engine::CommandError;
use crate::settings::SettingsError;

/// What kind of error it is; decides code and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The request is wrong in itself.
    Invalid,
    /// Nobody is logged in, or the token or session is over.
    Unauthenticated,
    /// The right is missing.
    Denied,
    /// There is no such thing, or it may not be seen.
    NotFound,
    /// There is no such method on this path.
    NoMethod,
    /// The thing has moved on since it was looked at.
    Conflict,
    /// The body is larger than this route takes.
    TooLarge,
    /// The request was meant for another host.
    Misdirected,
    /// Too many requests of this kind.
    Limited,
    /// It took too long.
    TimedOut,
    /// It does not work now; trying again may help.
    Unavailable,
    /// A mistake of the server.
    Internal,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 12] = [
        Class::Invalid,
        Class::Unauthenticated,
        Class::Denied,
        Class::NotFound,
        Class::NoMethod,
        Class::Conflict,
        Class::TooLarge,
        Class::Misdirected,
        Class::Limited,
        Class::TimedOut,
        Class::Unavailable,
        Class::Internal,
    ];

    /// The HTTP code.
    pub fn status(self) -> StatusCode {
        match self {
            Class::Invalid => StatusCode::BAD_REQUEST,
            Class::Unauthenticated => StatusCode::UNAUTHORIZED,
            Class::Denied => StatusCode::FORBIDDEN,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Class::Conflict => StatusCode::CONFLICT,
            Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Class::Limited => StatusCode::TOO_MANY_REQUESTS,
            Class::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The exit code of a command that got this answer. Source: DESIGN 9.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Invalid | Class::NoMethod | Class::TooLarge | Class::Misdirected => 2,
            Class::NotFound => 3,
            Class::Unauthenticated | Class::Denied => 4,
            Class::Conflict => 5,
            Class::TimedOut => 6,
            Class::Limited | Class::Unavailable | Class::Internal => 7,
        }
    }
}

/// An error on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its class.
    pub class: Class,
    /// What was not done. Empty: the route says it.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next. Absent: the class and the route say it.
    pub hint: Option<String>,
    /// Seconds after which trying again may help.
    pub retry_seconds: Option<u32>,
}

/// The body of every error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Its class.
    pub class: Class,
    /// What was not done.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next.
    pub hint: String,
    /// The exit code of a command that gets this answer.
    pub exit_code: u8,
}

/// What a handler comes to.
pub type Answer<T> = Result<T, ApiError>;

impl ApiError {
    /// An error of a class.
    pub fn new(class: Class, why: impl Into<String>) -> ApiError {
        ApiError { class, what: String::new(), why: why.into(), hint: None, retry_seconds: None }
    }

    /// The same with what to do next.
    pub fn hint(self, hint: impl Into<String>) -> ApiError {
        ApiError { hint: Some(hint.into()), ..self }
    }

    /// The same with all that a person is told: what was not done, and what to do next, where it does not say so itself.
    pub fn told(self, what: &str, path: &str) -> ApiError {
        let what = if self.what.is_empty() { what.to_owned() } else { self.what };
        let hint = self.hint.or_else(|| Some(next::step(self.class, path).to_owned()));
        ApiError { what, hint, ..self }
    }

    /// Wrong in itself.
    pub fn invalid(why: impl Into<String>) -> ApiError {
        ApiError::new(Class::Invalid, why)
    }

    /// There is no such thing.
    pub fn not_found(why: impl Into<String>) -> ApiError {
        ApiError::new(Class::NotFound, why)
    }

    /// The right is missing.
    pub fn denied(why: impl Into<String>) -> ApiError {
        ApiError::new(Class::Denied, why)
    }

    /// A mistake of ours: the client learns that it happened, the log what it was.
    pub fn internal(why: impl std::fmt::Display) -> ApiError {
        tracing::error!("a request failed by a mistake of the server: {why}");
        ApiError::new(Class::Internal, "the server made a mistake; its log says more")
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            class: self.class,
            what: self.what.clone(),
            why: self.why.clone(),
            hint: self.hint.clone().unwrap_or_default(),
            exit_code: self.class.exit_code(),
        }
    }

    /// The answer to whoever asks by this face. Git shows its people what is plain text, and nothing else.
    pub fn answer(self, face: Face) -> Response {
        match face {
            Face::Git => {
                let ErrorBody { what, why, hint, .. } = self.body();
                self.respond(
                    "text/plain; charset=utf-8",
                    format!("{what}\n  why: {why}\n hint: {hint}\n").into(),
                )
            }
            Face::Api | Face::Page | Face::Open => self.into_response(),
        }
    }

    fn respond(&self, media: &'static str, body: Vec<u8>) -> Response {
        let media = (header::CONTENT_TYPE, HeaderValue::from_static(media));
        let mut response = (self.class.status(), [media], body).into_response();
        if self.class == Class::Unauthenticated {
            // Git asks for a name and token only when it is told so.
            let scheme = HeaderValue::from_static("Basic realm=\"towpath\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).expect("invariant: an error is plain data");
        self.respond("application/json", body)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let class = match refusal.class {
            RefusalClass::Invalid => Class::Invalid,
            RefusalClass::NotFound => Class::NotFound,
            RefusalClass::Denied => Class::Denied,
            RefusalClass::Conflict | RefusalClass::NotYet => Class::Conflict,
            RefusalClass::Limited => Class::Limited,
        };
        ApiError::new(class, refusal.why)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        match error {
            ReadError::Busy => ApiError::new(Class::Unavailable, error.to_string()),
            ReadError::Damaged { .. } | ReadError::Io { .. } => ApiError::internal(error),
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> ApiError {
        let why = error.to_string();
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Exists { .. } => ApiError::new(Class::Conflict, why),
            WriteError::Missing { .. } => ApiError::not_found(why),
            WriteError::TooLarge { .. } => ApiError::new(Class::TooLarge, why),
            WriteError::Full
            | WriteError::Io { .. }
            | WriteError::Unsynced { .. }
            | WriteError::Unwitnessed { .. }
            | WriteError::Undone
            | WriteError::Busy
            | WriteError::Closed
            | WriteError::Fenced { .. }
            | WriteError::NotDrained { .. }
            | WriteError::Halted { .. } => ApiError::new(Class::Unavailable, why),
            WriteError::Damaged { .. } | WriteError::Bug { .. } => ApiError::internal(why),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> ApiError {
        match error {
            CommandError::Store(error) => error.into(),
            CommandError::Stopped => ApiError::new(Class::Unavailable, error.to_string()),
        }
    }
}

impl From<IdError> for ApiError {
    fn from(error: IdError) -> ApiError {
        ApiError::invalid(error.to_string())
    }
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> ApiError {
        ApiError::invalid(error.to_string())
            .hint("`towpath repo settings` shows them as they are, each with its name and kind")
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> ApiError {
        match error {
            BlobError::Missing(_) => ApiError::not_found("its retention is over, or it was never stored"),
            BlobError::TooLarge { .. } => ApiError::new(Class::TooLarge, error.to_string()),
            other => ApiError::internal(other),
        }
    }
}

fn class_of(class: ErrorClass) -> Class {
    match class {
        ErrorClass::Transient => Class::Unavailable,
        ErrorClass::Conflict => Class::Conflict,
        ErrorClass::Gone => Class::NotFound,
        ErrorClass::Invalid => Class::Invalid,
        ErrorClass::Denied => Class::Denied,
    }
}

impl From<GitError> for ApiError {
    fn from(error: GitError) -> ApiError {
        ApiError::new(class_of(error.class()), error.to_string())
    }
}

impl From<ForgeError> for ApiError {
    fn from(error: ForgeError) -> ApiError {
        ApiError::new(class_of(error.class()), error.to_string())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Failed(error) => error.into(),
        }
    }
}
