//! Frames on a unix socket: a little-endian `u32` length, then JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Bytes of one frame. A job's script, variables, secrets and inputs fit many times where people write them; a job for
/// which they do not is refused before it is sent.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that are reserved for a frame before any of it has come: what is reserved at once leaves no copies behind.
const CAPACITY_BYTES_MAX: usize = 1024 * 1024;

/// Why a message can never be sent, whoever is on the other side.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It does not fit a frame.
    #[error("a message of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Of the message.
        bytes: usize,
    },
    /// JSON cannot hold it: a path that is not UTF-8, say.
    #[error("it cannot be written as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
}

impl From<EncodeError> for io::Error {
    fn from(error: EncodeError) -> io::Error {
        invalid(error.to_string())
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// The bytes of one frame.
///
/// # Errors
/// [`EncodeError`].
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes: length });
    }
    frame[..4].copy_from_slice(&u32::try_from(length).expect("the limit fits").to_le_bytes());
    Ok(frame)
}

/// Sends one message.
///
/// # Errors
/// As writing has them; `InvalidData` if the message is too large.
pub(crate) fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    // Jobs are sent with their secrets.
    socket.write_all(&Zeroizing::new(encode(message)?))
}

/// Receives one message; `None` when the other side has closed.
///
/// # Errors
/// `InvalidData` for what is no message; as reading has them otherwise.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    }
    body(socket, length).map(Some)
}

/// Whether bytes that were received begin with a whole message, so that [`receive`] does not wait.
pub(crate) fn begins_with_whole(bytes: &[u8]) -> bool {
    let Some((length, body)) = bytes.split_first_chunk::<4>() else { return false };
    body.len() >= u32::from_le_bytes(*length) as usize
}

fn body<T: DeserializeOwned>(socket: impl Read, length: [u8; 4]) -> io::Result<T> {
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a message of {length} bytes is over the limit of {FRAME_BYTES_MAX}")));
    }
    // Jobs come with their secrets.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(CAPACITY_BYTES_MAX)));
    socket.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
}
