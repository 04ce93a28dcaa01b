//! What stands around bodies: a request's has to arrive, and an answer's counts as its reader's for as long as it is held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use towpath_core::ids::UserId;

use super::patience::Patience;
use super::shares::Share;

/// A request's body, given up when its sender is silent for too long.
pub struct Arriving {
    body: Body,
    patience: Patience,
}

/// A body did not arrive in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body came too slowly")]
pub struct TooSlow;

impl Arriving {
    /// A body with the patience that its sender has.
    pub fn new(body: Body, patience: Patience) -> Arriving {
        Arriving { body, patience }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.patience.poll_over(context));
            return Poll::Ready(Some(Err(TooSlow.into())));
        };
        let arrived = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.patience.passed(arrived.map_or(0, Bytes::len));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body with its reader's place among requests under way. Every piece holds the place until it is written: the
/// connection takes pieces over, and the body itself may be gone long before.
pub struct UnderWay {
    body: Body,
    place: Arc<Share<UserId>>,
}

struct Piece {
    bytes: Bytes,
    _place: Arc<Share<UserId>>,
}

impl UnderWay {
    /// A body with the place that it holds.
    pub fn new(body: Body, place: Arc<Share<UserId>>) -> UnderWay {
        UnderWay { body, place }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for UnderWay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let held = |bytes| Bytes::from_owner(Piece { bytes, _place: self.place.clone() });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
