//! Connections: how many there may be, of everybody and of one address, and what their sockets do when nobody reads.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::patience::{IDLE_DEADLINE, Patience};
use super::shares::{Share, Shares};

/// Connections at once, where the process may have descriptors for as many again: its answers take some, too.
const CONNECTIONS_MAX: usize = 4_000;
/// The part of them that one address may have: an office behind one address has places, and leaves others theirs.
const OF_ONE_ADDRESS: usize = 16;
/// They are scarce when fewer than this part of them are free.
const SCARCE: usize = 8;
/// Bytes of an answer that wait in the kernel to be sent, at most.
const UNSENT_BYTES: u32 = 128 * 1024;

/// The places for connections.
#[derive(Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    by_address: Arc<Shares<IpAddr>>,
    scarce_below: usize,
}

impl Connections {
    /// As many as this process has descriptors for.
    pub fn of_this_process() -> Connections {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = descriptors.map_or(usize::MAX, |count| usize::try_from(count / 2).unwrap_or(usize::MAX));
        Connections::at_most(half.min(CONNECTIONS_MAX))
    }

    /// So many places.
    pub fn at_most(count: usize) -> Connections {
        Connections {
            places: Arc::new(Semaphore::new(count)),
            by_address: Shares::new(count.div_ceil(OF_ONE_ADDRESS)),
            scarce_below: count.div_ceil(SCARCE),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// None while this is there.
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.places.clone().acquire_owned().await
    }

    /// Takes one of an address's own places. Everybody at this very machine has the same address: it is not bounded.
    ///
    /// # Errors
    /// It has as many as one address may have.
    pub fn enter(&self, address: Option<IpAddr>) -> Result<Option<Share<IpAddr>>, Crowded> {
        let far = address.filter(|address| !address.is_loopback());
        far.map(|address| self.by_address.take(address).ok_or(Crowded)).transpose()
    }

    /// Whether so few places are left that whoever holds one for nothing has to go.
    pub fn are_scarce(&self) -> bool {
        self.places.available_permits() < self.scarce_below
    }
}

/// An address has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

/// A socket that breaks when its reader does not read: whatever an answer holds, it would hold for as long as they like.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    patience: Patience,
}

impl Socket {
    /// One of some connections.
    pub fn new(stream: TcpStream, connections: Arc<Connections>) -> Socket {
        // Written is what has left: a slow reader who goes on would look still while megabytes wait here.
        if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
            tracing::debug!(%error, "a connection holds more back than it should: {error}");
        }
        Socket { stream, patience: Patience::new(IDLE_DEADLINE, connections) }
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                ready!(self.patience.poll_over(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(written) => {
                self.patience.passed(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::time::Duration;

    use socket2::{Domain, Type};

    use super::*;

    /// No test waits so long for anything, on the slowest machine.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Bytes that a reader's system takes in for them, at most.
    const RECEIVED_BYTES: usize = 64 * 1024;

    /// A socket, and its reader.
    async fn pair() -> (Socket, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reader = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        reader.set_recv_buffer_size(RECEIVED_BYTES).unwrap();
        reader.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Socket::new(stream, Arc::new(Connections::at_most(16))), reader.into())
    }

    fn write(socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Pin::new(socket).poll_write(context, &[0; 16 * 1024])
    }

    /// Bytes that a socket takes before its reader has to read.
    async fn fill(socket: &mut Socket) -> usize {
        socket.stream.writable().await.unwrap();
        let mut taken = 0;
        while let Poll::Ready(count) = poll_fn(|context| Poll::Ready(write(socket, context))).await {
            taken += count.unwrap();
        }
        taken
    }

    #[test]
    fn a_slow_reader_who_goes_on_is_seen_to() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut socket, mut reader) = pair().await;
            let taken = fill(&mut socket).await;
            assert!(taken < 1 << 20, "{taken} bytes are written and have not left");
            reader.read_exact(&mut vec![0; taken * 3 / 4]).unwrap();
            let more = tokio::time::timeout(PATIENCE, poll_fn(|context| write(&mut socket, context))).await;
            assert!(
                more.is_ok_and(|more| more.is_ok()),
                "most of {taken} bytes are read, and it takes no more"
            );
        });
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let connections = Connections::at_most(CONNECTIONS_MAX);
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        let own = std::iter::from_fn(|| connections.enter(address(1)).ok());
        let own: Vec<_> = own.take(CONNECTIONS_MAX).collect();
        assert_eq!(own.len(), CONNECTIONS_MAX / OF_ONE_ADDRESS);
        assert!(connections.enter(address(2)).is_ok());
        drop(own);
        assert!(connections.enter(address(1)).is_ok());
    }

    #[test]
    fn whoever_cannot_be_told_from_others_is_held_to_no_share() {
        let connections = Connections::at_most(CONNECTIONS_MAX);
        for address in [None, Some(IpAddr::from([127, 0, 0, 1]))] {
            assert!((0..CONNECTIONS_MAX).all(|_| matches!(connections.enter(address), Ok(None))));
        }
    }
}
