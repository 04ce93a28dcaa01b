//! What failed, as a page.

use askama::Template;
use axum::response::{IntoResponse, Response};

use super::{Frame, render, text};
use crate::http::call::Call;
use crate::http::error::ApiError;

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    frame: Frame,
    what: &'a str,
    why: &'a str,
    hint: &'a str,
    back: &'a str,
}

/// The page of an error. It leads back to `back`; without a call nobody is known.
pub fn problem(call: Option<&Call>, error: &ApiError, back: &str) -> Response {
    let frame = match call {
        Some(call) => Frame { live: false, ..Frame::of(call) },
        None => Frame {
            who: None,
            csrf: String::new(),
            crumbs: Vec::new(),
            repo: String::new(),
            live: false,
            now: towpath_core::ids::Timestamp(0),
        },
    };
    let hint = error.hint.as_deref().unwrap_or_default();
    let page = Problem { frame, what: &error.what, why: &error.why, hint, back };
    render(error.class.status(), &page).unwrap_or_else(IntoResponse::into_response)
}
