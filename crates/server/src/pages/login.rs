//! The login page.

use askama::Template;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Frame, render, text};
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::http::route::from_query;

/// What the address says.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Asked {
    /// A login just failed.
    failed: Option<String>,
    /// Where to go afterwards.
    next: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    failed: bool,
    next: String,
}

/// `GET /login`
pub async fn show(call: Call, request: Request) -> Answer<Response> {
    let asked: Asked = from_query(&request)?;
    let frame = Frame { live: false, ..Frame::of(&call) };
    let status = if asked.failed.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    render(status, &Login { frame, failed: asked.failed.is_some(), next: asked.next })
}
