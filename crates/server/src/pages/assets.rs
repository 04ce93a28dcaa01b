//! The pages' own files, compiled in. Their names hold their digest, so a browser keeps each for good.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use towpath_core::ids::Digest;

use crate::http::call::Call;
use crate::http::error::{Answer, ApiError};
use crate::http::stream::respond;

/// Characters of the digest in a name: enough to tell versions apart.
const DIGEST_CHARS: usize = 16;

/// A file.
pub struct Asset {
    /// Where it is.
    pub url: String,
    name: String,
    media: &'static str,
    text: &'static str,
}

/// How pages look.
pub static CSS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("towpath", "css", "text/css; charset=utf-8", include_str!("assets/towpath.css"))
});
/// What keeps pages live.
pub static JS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("towpath", "js", "text/javascript; charset=utf-8", include_str!("assets/towpath.js"))
});
/// The sign in the tab.
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

impl Asset {
    fn new(stem: &str, kind: &str, media: &'static str, text: &'static str) -> Asset {
        let digest = Digest::of(text.as_bytes()).to_string();
        let short: String = digest.chars().take(DIGEST_CHARS).collect();
        let name = format!("{stem}-{short}.{kind}");
        Asset { url: format!("/static/{name}"), name, media, text }
    }
}

/// `GET /static/{file}`
pub async fn show(call: Call, _request: Request) -> Answer<Response> {
    let name = call.param("file")?;
    let asset = [&*CSS, &*JS, &*ICON].into_iter().find(|asset| asset.name == name);
    let asset =
        asset.ok_or_else(|| ApiError::not_found("the pages have no such file; load the page again"))?;
    let mut response = respond(asset.media, asset.text.into());
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    Ok(response)
}
