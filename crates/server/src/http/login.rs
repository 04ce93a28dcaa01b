//! Logging in and out of the pages, and what a page's form has to bring.

use axum::body::Bytes;
use axum::extract::{Form as AxumForm, FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::call::{Call, hashing};
use super::documented::Sent;
use super::error::{Answer, ApiError, Class};
use super::route::{Needs, body};
use crate::auth::rights::{Credentials, Identity, Means, identify};
use crate::auth::session::Login;
use crate::auth::{same, session, token};

/// The field of every form that shows it to come from a page of this very session.
pub const CSRF_FIELD: &str = "csrf";
/// Where a person logs in.
pub const LOGIN_PATH: &str = "/login";
/// Bytes of that form: a token or a password of 1,024 bytes, each escaped, and a path.
pub const LOGIN_BYTES_MAX: usize = 8 << 10;

/// The fields of a form, in their order.
#[derive(Debug, Clone)]
pub struct Form {
    sent: Vec<(String, String)>,
    /// Those of which the route table tells.
    known: &'static [&'static str],
}

impl Form {
    /// Reads a form, and checks that it comes from a page of the caller's session.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge`; `Denied` without the session's token.
    pub async fn read(call: &Call, request: Request) -> Answer<Form> {
        let headers = request.headers().clone();
        let bytes: Bytes = body(request).await?;
        let mut whole = Request::new(axum::body::Body::from(bytes));
        (*whole.headers_mut(), *whole.method_mut()) = (headers, axum::http::Method::POST);
        let read = AxumForm::<Vec<(String, String)>>::from_request(whole, &()).await;
        let sent = read.map_err(|error| ApiError::invalid(error.body_text()))?.0;
        let known = match call.route.sent {
            Some(Sent::Form(fields)) => fields,
            _ => &[],
        };
        let form = Form { sent, known };
        // Whoever logs in has no page of a session yet, whatever the browser still sends along.
        if call.route.needs != Needs::Public
            && let Some(Means::Session { csrf, .. }) = call.person.as_ref().map(|person| &person.by)
            && !same(form.get(CSRF_FIELD).as_bytes(), csrf.as_bytes())
        {
            return Err(ApiError::denied("the form is of another session; load the page again"));
        }
        Ok(form)
    }

    /// A field; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        debug_assert!(name == CSRF_FIELD || self.known.contains(&name), "the document has no field {name}");
        self.sent(name)
    }

    /// The same, also of what the route does not take: a page's form can be sent to several.
    pub fn sent(&self, name: &str) -> &str {
        self.sent.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }
}

/// `POST /login`: a name with a password, or a token alone.
pub async fn log_in(call: Call, form: Form) -> Answer<Response> {
    let now = call.now();
    // A token is of nobody before it is known, and nobody guesses 256 bits: to count those that are wrong by anything but
    // the address would let anybody keep everybody out.
    let name = form.get("token").is_empty().then(|| form.get("name"));
    let next = local_path(form.get("next")).to_owned();
    let begun = call.edge.logins.begin(call.address, name, now).map_err(|wait| {
        let error = ApiError::new(Class::Limited, "too many logins failed; wait a little");
        ApiError { retry_seconds: Some(wait.seconds), ..error }
    })?;
    match who(&call, &form).await.inspect_err(|_| call.edge.logins.taken_back(&begun))? {
        Some(login) => {
            call.edge.logins.succeeded(begun);
            begin(&call, login, &next).await
        }
        None => Ok(redirect(&format!("{LOGIN_PATH}?failed=1&next={}", escaped(&next)))),
    }
}

/// Who the form is from. Takes as long for nobody as for somebody.
async fn who(call: &Call, form: &Form) -> Answer<Option<Login>> {
    let now = call.now();
    if !form.get("token").is_empty() {
        let Some(hash) = token::presented(&format!("Bearer {}", form.get("token"))) else { return Ok(None) };
        let known = move |view: &towpath_store::Snapshot| {
            Ok(match identify(view, Credentials::Token(hash), now)? {
                // A page can do everything that its person may: a token for less does not open it.
                Identity::Known(person) if person.may_all() => Login::by(*person),
                _ => None,
            })
        };
        return call.read(known).await;
    }
    let (name, password) = (form.get("name").to_owned(), form.get("password").to_owned());
    let user = call.read(move |view| Ok(view.user_by_name(&name)?.filter(|user| !user.disabled))).await?;
    let stored = user.as_ref().and_then(|user| user.password.clone());
    let compare = move || Ok(crate::auth::password::verify(&password, stored.as_deref()));
    let right = hashing(&call.edge.hashes, compare).await?;
    Ok(user.filter(|_| right).map(|user| Login::by_password(user.id)))
}

async fn begin(call: &Call, login: Login, next: &str) -> Answer<Response> {
    let begun = session::begin(login, call.now());
    // Whatever the browser had before ends here: a session is never carried over a login (F10).
    let before = call.person.as_ref().and_then(|person| match person.credentials() {
        Credentials::Session(hash) => Some(hash),
        _ => None,
    });
    let stored = begun.session.clone();
    call.write(move |tx| session::store(tx, &stored, before)).await?;
    with_cookie(redirect(next), &begun.set_cookie(call.edge.site.is_secure()))
}

/// `POST /logout`.
pub async fn log_out(call: Call, _form: Form) -> Answer<Response> {
    if let Credentials::Session(hash) = call.person()?.credentials() {
        call.write(move |tx| tx.remove_session(&hash)).await?;
    }
    with_cookie(redirect(LOGIN_PATH), &session::clear_cookie(call.edge.site.is_secure()))
}

fn with_cookie(mut response: Response, cookie: &str) -> Answer<Response> {
    let cookie = HeaderValue::from_str(cookie).map_err(ApiError::internal)?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Sends a browser on by `GET`.
pub fn redirect(path: &str) -> Response {
    let place = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

/// Sends somebody without a session to the login, and afterwards back.
pub fn to_login(target: &str) -> Response {
    redirect(&format!("{LOGIN_PATH}?next={}", escaped(local_path(target))))
}

/// A path on this server, or its front page: a link never leads away from here.
fn local_path(path: &str) -> &str {
    let local =
        path.starts_with('/') && !path.starts_with("//") && path.bytes().all(|byte| byte.is_ascii_graphic());
    if local && !path.contains('\\') { path } else { "/" }
}

/// A path within a query.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    path.bytes().fold(String::new(), |mut text, byte| {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

/// What failed, as a page.
pub fn error_page(error: &ApiError) -> Response {
    crate::pages::problem(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_never_lead_away() {
        for path in ["//evil.example", "https://evil.example", "/\\evil.example", "", "x", "/a\r\nb"] {
            assert_eq!(local_path(path), "/", "{path}");
        }
        assert_eq!(local_path("/repos/web?x=1"), "/repos/web?x=1");
        assert_eq!(escaped("/a?b=c&d"), "/a%3Fb%3Dc%26d");
    }
}
