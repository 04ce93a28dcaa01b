//! Connections are taken in up to their bounds, each with a deadline for its headers, and all brought to an end before the server
//! stops.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use super::Edge;
use super::connections::{Connections, Crowded, Socket};
use super::patience::SCARCE_DEADLINE;

/// Time for the headers of a request: whoever drips them is not waited for.
const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// Bytes of a request's headers. A session's cookie and a token have a few hundred.
const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// Time for answers under way when the server stops; open streams end at once.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Rest after the system could not take a connection, for want of descriptors say.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What hands over connections, each with where it comes from.
pub trait Arrivals: Send {
    /// Waits for the next one.
    ///
    /// # Errors
    /// The system's; the next may come nevertheless.
    fn next(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Arrivals for TcpListener {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Serves until `stop` completes, then lets answers under way end.
///
/// # Errors
/// None today; a listener that fails is tried again.
pub async fn serve(
    edge: Arc<Edge>,
    listener: impl Arrivals,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = super::router(&edge);
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    edge.keep_writing_uses();
    loop {
        let place = tokio::select! {
            place = edge.connections.place() => place,
            () = &mut stop => break,
        };
        let Ok(place) = place else { break };
        let (stream, peer) = tokio::select! {
            taken = listener.next() => match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken: {error}");
                    match tokio::time::timeout(ACCEPT_REST, &mut stop).await {
                        Ok(()) => break,
                        Err(_) => continue,
                    }
                }
            },
            () = &mut stop => break,
        };
        let share = match edge.connections.enter(edge.site.address_of(peer.ip())) {
            Ok(share) => share,
            Err(Crowded) => {
                tracing::debug!(%peer, "a connection was closed: its address has as many as one may have");
                continue;
            }
        };
        let connection = connection((stream, peer), router.clone(), &edge.connections);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection broke: {error}");
            }
            drop((place, share));
        });
    }
    drop(listener);
    edge.close();
    if tokio::time::timeout(DRAIN_DEADLINE, graceful.shutdown()).await.is_err() {
        tracing::info!("some answers were still under way when the server stopped");
    }
    edge.write_uses();
    Ok(())
}

type Connection =
    hyper::server::conn::http1::Connection<TokioIo<Socket>, hyper_util::service::TowerToHyperService<Tagged>>;

fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    router: axum::Router,
    connections: &Arc<Connections>,
) -> Connection {
    // Small answers leave at once; the kernel would hold them back for more.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay: {error}");
    }
    let service = hyper_util::service::TowerToHyperService::new(Tagged { router, peer: Peer(peer) });
    let headers_deadline = if connections.are_scarce() { SCARCE_DEADLINE } else { HEADERS_DEADLINE };
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_deadline)
        .max_header_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(Socket::new(stream, connections.clone())), service)
}

/// The router, with each request told where it came from.
#[derive(Clone)]
pub struct Tagged {
    router: axum::Router,
    peer: Peer,
}

impl tower_service::Service<Request<Incoming>> for Tagged {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = axum::routing::future::RouteFuture<std::convert::Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        tower_service::Service::call(&mut self.router, request)
    }
}
