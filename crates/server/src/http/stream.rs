//! Answers that are written while they are sent: events, followed logs, files. Each ends when its reader loses the right.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use towpath_core::ids::UserId;

use super::call::Call;
use super::error::{Answer, ApiError, Class};
use super::headers::POLICY_CLOSED;
use super::shares::{Share, Shares};

/// Open streams of one person. Source: trust S7; a person with that many pages open at once has closed some.
const STREAMS_PER_USER_MAX: usize = 32;
/// Open streams of everybody.
const STREAMS_MAX: usize = 2_000;
/// Bytes of a log or a file that are read and sent as one piece.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way to a slow reader: what a person does not read is held in each of their streams.
const PIECES_BUFFERED: usize = 2;
/// How often a stream asks whether its reader may still read. Source: trust S7.
pub const RECHECK_EVERY: Duration = Duration::from_secs(5);

/// Counts open streams.
#[derive(Debug)]
pub struct Streams {
    open: Arc<Shares<UserId>>,
}

/// One open stream. Dropping it gives its place back.
pub type Place = Share<UserId>;

impl Default for Streams {
    fn default() -> Streams {
        Streams { open: Shares::new(STREAMS_PER_USER_MAX) }
    }
}

impl Streams {
    /// Takes a place.
    ///
    /// # Errors
    /// `Limited`.
    pub fn enter(&self, user: UserId) -> Answer<Place> {
        let limited = |why: String| ApiError { retry_seconds: Some(5), ..ApiError::new(Class::Limited, why) };
        if self.open.count() >= STREAMS_MAX {
            return Err(limited("too many streams are open; try again later".to_owned()));
        }
        let own = || limited(format!("{STREAMS_PER_USER_MAX} streams of yours are open; close some"));
        self.open.take(user).ok_or_else(own)
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.count()
    }
}

/// The reader is gone, or was too slow and lost the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The way to the reader.
#[derive(Debug)]
pub struct Outlet {
    pieces: Sender<Result<Bytes, io::Error>>,
}

impl Outlet {
    /// Sends a piece; waits while the reader is behind, for as long as the connection's patience with them lasts.
    ///
    /// # Errors
    /// The reader is gone.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Gone> {
        self.pieces.send(Ok(piece.into())).await.map_err(|_| Gone)
    }

    /// Breaks the answer off, so that its reader does not take it for whole.
    pub async fn break_off(&self, why: impl Into<String>) {
        let _ = self.pieces.send(Err(io::Error::other(why.into()))).await;
    }

    /// Returns once the reader is gone.
    pub async fn closed(&self) {
        self.pieces.closed().await;
    }
}

/// A body and the way into it.
pub fn pipe() -> (Outlet, Body) {
    let (pieces, receiver) = mpsc::channel(PIECES_BUFFERED);
    (Outlet { pieces }, Body::from_stream(ReceiverStream::new(receiver)))
}

/// An answer of some media type from a body.
pub fn respond(media: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media)),
        // Whatever a job wrote is no page, also where a page's script asked for it (F08).
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY_CLOSED)),
        // Proxies would otherwise hold pieces back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// Waits until the reader may no longer read, or is gone, or the server stops.
pub async fn until_barred(call: &Call, outlet: &Outlet) {
    let mut every = tokio::time::interval(RECHECK_EVERY);
    every.tick().await;
    loop {
        tokio::select! {
            () = outlet.closed() => return,
            () = call.edge.closed() => return,
            _ = every.tick() => {
                if !call.still_allowed().await {
                    return;
                }
            }
        }
    }
}

/// One server-sent event.
pub fn event(name: &str, data: &str) -> Bytes {
    let mut text = format!("event: {name}\n");
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let streams = Streams::default();
        let places: Vec<Place> =
            (0..STREAMS_PER_USER_MAX).map(|_| streams.enter(UserId(1)).unwrap()).collect();
        assert_eq!(streams.enter(UserId(1)).unwrap_err().class, Class::Limited);
        assert!(streams.enter(UserId(2)).is_ok());
        drop(places);
        assert_eq!(streams.count(), 0);
    }

    #[test]
    fn little_is_held_for_a_reader_who_does_not_read() {
        let (outlet, _body) = pipe();
        // In JSON a control byte of a log has six.
        let piece = Bytes::from(vec![b' '; 6 * PIECE_BYTES]);
        let is_taken = || {
            let sent = pin!(outlet.send(piece.clone()));
            sent.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        let taken = (0..100).take_while(|_| is_taken()).count();
        assert!((1..=(1 << 20) / piece.len()).contains(&taken), "{taken} pieces");
    }

    #[test]
    fn lines_of_an_event_cannot_end_it() {
        assert_eq!(event("log", "a\n\nevent: x"), "event: log\ndata: a\ndata: \ndata: event: x\n\n");
    }
}
