//! What stands around every request: the host, an id for the log, and headers that keep browsers in bounds (S7).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::{Edge, git};

/// Names a request in the log and for whoever asks about it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a browser may do with an answer that is no page: nothing.
pub const POLICY_CLOSED: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";
/// What a page may load: our own files, nothing inline.
const POLICY_PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of every answer. `same-origin` and not `no-referrer`, because that makes browsers hide the origin of forms.
const ALWAYS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Counters of requests, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    by_class: [AtomicU64; 5],
    micros: AtomicU64,
}

impl Counters {
    fn count(&self, status: u16, started: Instant) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Answers by the first digit of their code, and seconds until they began.
    pub fn read(&self) -> ([u64; 5], f64) {
        let counts = std::array::from_fn(|at| self.by_class[at].load(Ordering::Relaxed));
        (counts, self.micros.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

/// Checks the host, and gives every answer its headers.
pub async fn guard(edge: Arc<Edge>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = format!("{:016x}", crate::random::number());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match edge.site.check_host(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.told("cannot answer this request", "").answer(git::face_at(&path)),
    };
    let status = response.status().as_u16();
    edge.counters.count(status, started);
    tracing::debug!(request.id = %id, status, "{method} {path:?} answered with {status}");
    harden(response.headers_mut(), edge.site.is_secure());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn harden(headers: &mut HeaderMap, secure: bool) {
    let closed = HeaderValue::from_static(POLICY_CLOSED);
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(closed);
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}

/// Lets an answer be a page, unless it chose a policy of its own.
pub fn allow_page(headers: &mut HeaderMap) {
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY_PAGE));
}

/// The `Content-Disposition` of a download: never shown by the browser itself (F08). Odd bytes of the name are escaped.
pub fn attachment(name: &str) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    let last = name.rsplit('/').next().unwrap_or(name);
    let ascii: String = last.bytes().map(|byte| if plain(byte) { char::from(byte) } else { '_' }).collect();
    let mut text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''");
    for byte in last.bytes() {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => write!(text, "%{byte:02X}").expect("invariant: a string takes any text"),
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_cannot_break_out_of_their_header() {
        let shown = |name| attachment(name).to_str().unwrap().to_owned();
        assert_eq!(shown("a/b.whl"), "attachment; filename=\"b.whl\"; filename*=UTF-8''b.whl");
        assert_eq!(
            shown("x\"; y\n.html"),
            "attachment; filename=\"x___y_.html\"; filename*=UTF-8''x%22%3B%20y%0A.html"
        );
    }

    #[test]
    fn a_page_keeps_its_policy_and_everything_else_is_closed() {
        let mut page = HeaderMap::new();
        allow_page(&mut page);
        harden(&mut page, false);
        assert_eq!(page[header::CONTENT_SECURITY_POLICY], POLICY_PAGE);
        assert!(!POLICY_PAGE.contains("unsafe"));
        let mut data = HeaderMap::new();
        harden(&mut data, true);
        assert_eq!(data[header::CONTENT_SECURITY_POLICY], POLICY_CLOSED);
        assert!(data.contains_key(header::STRICT_TRANSPORT_SECURITY));
    }
}
