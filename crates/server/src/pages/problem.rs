//! What failed, as a page.

use askama::Template;
use axum::response::{IntoResponse, Response};

use super::{Frame, render, text};
use crate::http::call::Call;
use crate::http::error::{ApiError, Class};

/// Characters of one field that are shown: four times as many as the longest words may have.
const WRITTEN_CHARS_MAX: usize = 64 << 10;

/// What somebody wrote into a form that was not taken.
pub struct Written {
    pub label: &'static str,
    pub text: String,
    /// Whether more was written than is shown.
    pub is_cut: bool,
}

impl Written {
    /// As much of it as is shown.
    pub fn new(label: &'static str, whole: &str) -> Written {
        let shown = whole.char_indices().nth(WRITTEN_CHARS_MAX).map_or(whole, |(end, _)| &whole[..end]);
        Written { label, text: shown.to_owned(), is_cut: shown.len() < whole.len() }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    frame: Frame,
    title: &'a str,
    why: &'a str,
    hint: &'a str,
    back: &'a str,
    written: Vec<Written>,
}

/// The heading of a page that cannot be shown. What it is about says the sentence below.
fn title(class: Class) -> &'static str {
    match class {
        Class::Invalid => "Not understood",
        Class::Unauthenticated => "Not logged in",
        Class::Denied => "Not permitted",
        Class::NotFound => "Not found",
        Class::NoMethod => "Not possible here",
        Class::Conflict => "Not as it was",
        Class::TooLarge => "Too large",
        Class::Misdirected => "Another address is meant",
        Class::Limited => "Too many requests",
        Class::TimedOut => "No answer in time",
        Class::Unavailable => "Not now",
        Class::Internal => "A mistake of the server",
    }
}

/// The page of an error. It leads to the overview, and knows nobody.
pub fn problem(error: &ApiError) -> Response {
    let frame = Frame {
        who: None,
        csrf: String::new(),
        crumbs: Vec::new(),
        repo: String::new(),
        live: false,
        now: towpath_core::ids::Timestamp(0),
    };
    page(frame, (title(error.class), error), "/", Vec::new())
}

/// The page of an error about a form. It leads back to the form's page, and holds what was written there.
pub fn of_form(call: &Call, error: &ApiError, back: &str, written: Vec<Written>) -> Response {
    page(Frame { live: false, ..Frame::of(call) }, (&error.what, error), back, written)
}

fn page(frame: Frame, (title, error): (&str, &ApiError), back: &str, written: Vec<Written>) -> Response {
    let hint = error.hint.as_deref().unwrap_or_default();
    let page = Problem { frame, title, why: &error.why, hint, back, written };
    render(error.class.status(), &page).unwrap_or_else(IntoResponse::into_response)
}
