//! Logs of jobs: a window of lines or bytes, the first line that looks like an error, and following one as it grows.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_blob::LogReader;

use self::errors::Search;
use super::jobs::{Found, find, find_again};
use crate::http::call::{Call, blocking};
use crate::http::error::{Answer, ApiError};
use crate::http::route::from_query;
use crate::http::stream::{Gone, Outlet, PIECE_BYTES, event, pipe, respond, until_barred};

mod errors;

/// Lines of a window when nobody says otherwise.
const LINES_DEFAULT: u64 = 1_000;
/// Lines of a window at most.
const LINES_MAX: u64 = 20_000;
/// Bytes of a window at most.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes looked through for the first error: as much as the log of a job may have by default.
const SEARCHED_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Lines before and after the first error.
const CONTEXT_LINES: u64 = 5;
/// Characters of one shown line.
const LINE_CHARS_MAX: usize = 2_000;
/// How often a followed log is looked at. A reader sees a line as soon as it could act on it.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// How many looks there are to one at whether the job is over.
const OVER_EVERY: u32 = 5;
/// How many looks there are to one `alive`: 5 s. Proxies cut off who is silent, mostly after 60 s.
const ALIVE_EVERY: u32 = 25;

/// Which part of which attempt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Which attempt, from 1; absent: the newest.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// First line, from 0.
    #[serde(default)]
    pub from_line: Option<u64>,
    /// How many lines.
    #[serde(default)]
    pub lines: Option<u64>,
    /// First byte, from 0, instead of lines.
    #[serde(default)]
    pub from_byte: Option<u64>,
    /// How many bytes.
    #[serde(default)]
    pub bytes: Option<usize>,
    /// The last so many lines, instead of a first one.
    #[serde(default)]
    pub tail: Option<u64>,
}

/// A piece of a log.
struct Piece {
    first_line: Option<u64>,
    offset: u64,
    bytes: Vec<u8>,
    size: u64,
    lines: Option<u64>,
}

/// `GET …/jobs/{job}/log`: plain bytes, with their place in headers. Never shown by a browser as anything else (F08).
pub async fn window(call: Call, request: Request) -> Answer<Response> {
    let window: Window = from_query(&request)?;
    let found = find(&call, window.attempt).await?;
    let piece = match reader(&call, &found) {
        None => Piece { first_line: Some(0), offset: 0, bytes: Vec::new(), size: 0, lines: Some(0) },
        Some(reader) => blocking(move || cut(&reader, &window)).await?,
    };
    let mut response = respond("text/plain; charset=utf-8", piece.bytes.into());
    let mut put = |name: &'static str, value: u64| {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    };
    put("x-log-attempt", found.attempt.into());
    put("x-log-over", u64::from(found.over));
    put("x-log-offset", piece.offset);
    put("x-log-size", piece.size);
    if let Some(line) = piece.first_line {
        put("x-log-first-line", line);
    }
    if let Some(lines) = piece.lines {
        put("x-log-lines", lines);
    }
    let name = format!("{}-{}.log", found.name, found.attempt);
    let attachment = crate::http::headers::attachment(&name.replace('/', "-"));
    response.headers_mut().insert(axum::http::header::CONTENT_DISPOSITION, attachment);
    Ok(response)
}

/// A part of a log, as a page shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Of which attempt.
    pub attempt: u32,
    /// Whether the log grows no more.
    pub over: bool,
    /// Number of its first line, from 0.
    pub first_line: u64,
    /// Lines of the whole log.
    pub lines: u64,
    /// Bytes of the whole log.
    pub size: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A part of the log of the job in the path, by lines.
///
/// # Errors
/// `NotFound`; those of reading.
pub async fn shown(call: &Call, window: Window) -> Answer<Shown> {
    let found = find(call, window.attempt).await?;
    let empty = Piece { first_line: Some(0), offset: 0, bytes: Vec::new(), size: 0, lines: Some(0) };
    let piece = match reader(call, &found) {
        None => empty,
        Some(reader) => blocking(move || cut(&reader, &window)).await?,
    };
    Ok(Shown {
        attempt: found.attempt,
        over: found.over,
        first_line: piece.first_line.unwrap_or_default(),
        lines: piece.lines.unwrap_or_default(),
        size: piece.size,
        bytes: piece.bytes,
    })
}

fn reader(call: &Call, found: &Found) -> Option<LogReader> {
    found.lease.map(|lease| call.shared().logs.reader(&lease))
}

fn cut(reader: &LogReader, window: &Window) -> Answer<Piece> {
    let size = reader.size()?;
    if let Some(offset) = window.from_byte {
        let bytes = reader.bytes(offset, window.bytes.unwrap_or(BYTES_MAX).min(BYTES_MAX))?;
        return Ok(Piece { first_line: None, offset, bytes, size, lines: None });
    }
    let all = reader.line_count()?;
    let count = window.tail.or(window.lines).unwrap_or(LINES_DEFAULT).min(LINES_MAX);
    let first = match window.tail {
        Some(_) => all.saturating_sub(count),
        None => window.from_line.unwrap_or(0),
    };
    let lines = reader.lines(first, count, BYTES_MAX)?;
    Ok(Piece { first_line: Some(first), offset: lines.offset, bytes: lines.bytes, size, lines: Some(all) })
}

/// Which attempt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Which attempt, from 1; absent: the newest.
    #[serde(default)]
    pub attempt: Option<u32>,
}

/// Where a log first speaks of an error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FirstError {
    /// Name of the job.
    pub job: String,
    /// The attempt.
    pub attempt: u32,
    /// Its line, from 0; absent: no line looks like an error.
    pub line: Option<u64>,
    /// The number of the first line below.
    pub first: u64,
    /// The line and those around it; without an error, the last ones.
    pub lines: Vec<String>,
}

/// `GET …/jobs/{job}/first-error`
pub async fn first_error(call: Call, input: Attempt) -> Answer<FirstError> {
    let found = find(&call, input.attempt).await?;
    let (job, attempt) = (found.name.to_string(), found.attempt);
    let Some(reader) = reader(&call, &found) else {
        return Ok(FirstError { job, attempt, line: None, first: 0, lines: Vec::new() });
    };
    blocking(move || {
        let line = search(&reader)?;
        let first = match line {
            Some(line) => line.saturating_sub(CONTEXT_LINES),
            None => reader.line_count()?.saturating_sub(2 * CONTEXT_LINES),
        };
        let shown = reader.lines(first, 2 * CONTEXT_LINES + 1, BYTES_MAX)?;
        let text = String::from_utf8_lossy(&shown.bytes);
        let lines = text.lines().map(|line| line.chars().take(LINE_CHARS_MAX).collect()).collect();
        Ok(FirstError { job, attempt, line, first, lines })
    })
    .await
}

fn search(reader: &LogReader) -> Answer<Option<u64>> {
    let mut offset = 0;
    let mut search = Search::default();
    let mut rest: Vec<u8> = Vec::new();
    while offset < SEARCHED_BYTES_MAX {
        let bytes = reader.bytes(offset, BYTES_MAX)?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        rest.extend_from_slice(&bytes);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if search.take(&rest[..whole]) {
            return Ok(search.line());
        }
        rest.drain(..whole);
        // A line without an end is looked at in pieces: its beginning tells.
        if rest.len() > BYTES_MAX {
            rest.clear();
        }
    }
    if !rest.is_empty() {
        search.take(&rest);
    }
    Ok(search.line())
}

/// Where following begins.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// Which attempt, from 1; absent: the newest.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// The first byte that is wanted.
    #[serde(default)]
    pub from_byte: u64,
}

/// `GET …/jobs/{job}/follow`: server-sent events `log` (bytes as text, of which job and attempt, and where the next ones begin),
/// `alive` every 5 s, and at last `end`, or `error` with a `message` where the log cannot be read. A log that has a job
/// waiting is waited for. A stream that ends without either was cut off: whoever still wants the log asks for that job's
/// attempt from that byte on.
pub async fn follow(call: Call, request: Request) -> Answer<Response> {
    let input: Follow = from_query(&request)?;
    let found = find(&call, input.attempt).await?;
    let place = call.edge.streams.enter(call.person()?.user)?;
    let (outlet, body) = pipe();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = until_barred(&call, &outlet) => {}
            _ = tell(&call, &outlet, input, found) => {}
        }
    });
    Ok(respond("text/event-stream", body))
}

/// Why a log is followed no further.
enum Cut {
    /// Its reader is gone.
    Gone,
    /// It cannot be read.
    Unreadable(ApiError),
}

impl From<Gone> for Cut {
    fn from(_: Gone) -> Cut {
        Cut::Gone
    }
}

async fn tell(call: &Call, outlet: &Outlet, input: Follow, found: Found) -> Result<(), Gone> {
    match grow(call, outlet, input, found).await {
        Ok(()) => Ok(()),
        Err(Cut::Gone) => Err(Gone),
        Err(Cut::Unreadable(error)) => {
            let message = format!("the log cannot be read: {}", error.why);
            outlet.send(event("error", &serde_json::json!({ "message": message }).to_string())).await
        }
    }
}

async fn grow(call: &Call, outlet: &Outlet, input: Follow, mut found: Found) -> Result<(), Cut> {
    let mut offset = input.from_byte;
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    let mut pending = Vec::new();
    for round in 0_u32.. {
        every.tick().await;
        // Whether it is over is asked before the log is read, so that nothing written in between is missed.
        if !found.over && round.is_multiple_of(OVER_EVERY) {
            let attempt = input.attempt.or(Some(found.attempt).filter(|attempt| *attempt > 0));
            found = find_again(call, &found, attempt).await.map_err(Cut::Unreadable)?;
        }
        if round.is_multiple_of(ALIVE_EVERY) {
            outlet.send(event("alive", "")).await?;
        }
        let over = found.over;
        offset = drain(call, outlet, &found, (offset, &mut pending)).await?;
        if over {
            if !pending.is_empty() {
                outlet.send(log_event(&pending, &found, offset)).await?;
            }
            outlet.send(event("end", &offset.to_string())).await?;
            return Ok(());
        }
    }
    Ok(())
}

/// Sends what is there; returns where it ends. Bytes that begin a character are held back until it is whole.
async fn drain(
    call: &Call,
    outlet: &Outlet,
    found: &Found,
    (mut offset, pending): (u64, &mut Vec<u8>),
) -> Result<u64, Cut> {
    let Some(reader) = reader(call, found) else { return Ok(offset) };
    loop {
        let (at, reader) = (offset, reader.clone());
        let bytes = blocking(move || Ok(reader.bytes(at, PIECE_BYTES)?)).await.map_err(Cut::Unreadable)?;
        if bytes.is_empty() {
            return Ok(offset);
        }
        offset += bytes.len() as u64;
        pending.extend_from_slice(&bytes);
        let whole = match std::str::from_utf8(pending) {
            Ok(_) => pending.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => pending.len(),
        };
        let rest = pending.split_off(whole);
        let sent = std::mem::replace(pending, rest);
        if !sent.is_empty() {
            outlet.send(log_event(&sent, found, offset - pending.len() as u64)).await?;
        }
    }
}

/// A piece as one event: JSON, because a log has every byte and an event only lines.
fn log_event(bytes: &[u8], of: &Found, end: u64) -> axum::body::Bytes {
    let (text, job) = (String::from_utf8_lossy(bytes), of.name.as_str());
    let json =
        serde_json::json!({ "text": text, "job": job, "attempt": of.attempt, "next": end }).to_string();
    event("log", &json)
}
