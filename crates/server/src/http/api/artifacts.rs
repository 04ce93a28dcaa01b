//! What jobs left: lists, and files to download.

use std::fs::File;
use std::io::Read;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_blob::{FilePath, Manifest};

use super::jobs::find;
use super::logs::Attempt;
use crate::http::call::{Call, blocking};
use crate::http::error::{Answer, ApiError};
use crate::http::headers::attachment;
use crate::http::stream::{Outlet, PIECE_BYTES, pipe, respond};

/// A file that a job left.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// The output that it belongs to.
    pub output: String,
    /// Its path there; what is not printable ASCII is written `%XX`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// Whether it can be executed.
    pub executable: bool,
}

/// `GET …/jobs/{job}/artifacts`
pub async fn list(call: Call, input: Attempt) -> Answer<Vec<Artifact>> {
    let found = find(&call, input.attempt).await?;
    let blobs = call.shared().blobs.clone();
    blocking(move || {
        let mut all = Vec::new();
        for (output, digest) in &found.outputs {
            let manifest = Manifest::load(&blobs, digest)?;
            all.extend(manifest.files().iter().map(|file| Artifact {
                output: output.clone(),
                path: file.path.to_string(),
                size: file.size,
                digest: file.digest.to_string(),
                executable: file.executable,
            }));
        }
        Ok(all)
    })
    .await
}

/// `GET …/jobs/{job}/artifacts/{output}/{*path}`: always a download, never shown by the browser (F08). A blob is named by
/// the run that left it, so the right to read the run is the right to read the blob (F02).
pub async fn download(call: Call, request: Request) -> Answer<Response> {
    let input: Attempt = crate::http::route::from_query(&request)?;
    let found = find(&call, input.attempt).await?;
    let output = call.param("output")?.to_owned();
    let path: FilePath = call.param("path")?.parse().map_err(|_| absent())?;
    let digest = *found.outputs.get(&output).ok_or_else(absent)?;
    let blobs = call.shared().blobs.clone();
    let (file, size) = blocking(move || {
        let manifest = Manifest::load(&blobs, &digest)?;
        let file = manifest.files().iter().find(|file| file.path == path).ok_or_else(absent)?;
        Ok((blobs.open_blob(&file.digest)?, file.size))
    })
    .await?;
    let (outlet, body) = pipe();
    tokio::spawn(send(file, outlet));
    let mut response = respond("application/octet-stream", body);
    let name = attachment(call.param("path")?);
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

/// Sends a file piece by piece. No thread waits for a slow reader.
async fn send(mut file: File, outlet: Outlet) {
    loop {
        let read = blocking(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let count = file.read(&mut piece).map_err(ApiError::internal)?;
            piece.truncate(count);
            Ok((file, piece))
        });
        match read.await {
            Ok((_, piece)) if piece.is_empty() => return,
            Ok((rest, piece)) => {
                file = rest;
                if outlet.send(piece).await.is_err() {
                    return;
                }
            }
            Err(error) => return outlet.break_off(error.why).await,
        }
    }
}

fn absent() -> ApiError {
    ApiError::not_found("the job left no such file")
}
