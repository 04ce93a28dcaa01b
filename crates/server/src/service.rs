//! The whole service: a listener, the server behind it, and an orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::executor::Standing;
use crate::http::origin::Site;
use crate::http::{Edge, serve};
use crate::replace::record::Trial;
use crate::replace::{self, Succession};
use crate::server::{Server, ServerError};
use crate::settings::ServerSettings;

/// Between two looks at whether another server has taken over.
const TAKEOVER_LOOK: Duration = Duration::from_millis(500);

/// What a service tells while it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Requests are answered at this address; others reach it by this URL.
    Serving {
        /// Where it listens.
        listen: SocketAddr,
        /// How others reach it.
        url: String,
    },
    /// Jobs can run.
    Ready,
    /// Everything is stored, and a program that was deployed takes its place.
    GivingWay,
    /// It was told to end, and lets answers and commits under way end first.
    Draining,
}

/// Serves until SIGTERM, SIGINT or `asked`, then drains: nothing new is begun, answers and commits under way end, jobs live
/// on in the executor.
///
/// # Errors
/// It cannot start, jobs cannot run on this machine, or another server took over.
pub async fn run(
    settings: ServerSettings,
    told: impl Fn(Progress),
    asked: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    // Before anything is begun: a signal that ended a server which starts would leave behind the executor that is its own.
    let ends = Ends::listen(asked)?;
    let failed = |what: String| move |why| ServerError::Io { what, why };
    let (kept, listener) = match listener(settings.listen) {
        Ok(both) => both,
        Err(why) => {
            // A second server on one folder most often meets the first one's port, which says less.
            towpath_store::check_free(&settings.data)?;
            return Err(failed(format!("listen on {}", settings.listen))(why));
        }
    };
    let listen = listener.local_addr().map_err(failed("learn the address".into()))?;
    let data = settings.data.clone();
    let url = settings.url.clone().unwrap_or_else(|| format!("http://{listen}"));
    let site = Site::new(&url)?;
    let mut server = Server::start(settings).await?;
    let (shared, succession) = (server.shared.clone(), server.succession());
    let ended = match Edge::open(shared.clone(), site) {
        Err(error) => Err(error.into()),
        Ok(edge) => {
            let (stop, stopping) = watch::channel(false);
            let http = tokio::spawn(serve::serve(edge, listener, until_set(stopping)));
            told(Progress::Serving { listen, url });
            let ended = match replace::confirm(&data) {
                Err(why) => Err(failed("confirm that this program serves".into())(why)),
                Ok(()) => live(&mut server, &succession, &told, ends).await,
            };
            told(Progress::Draining);
            let _ = stop.send(true);
            if let Ok(Err(error)) = http.await {
                tracing::error!(%error, "the listener failed: {error}");
            }
            ended
        }
    };
    let stopped = tokio::task::spawn_blocking(move || server.stop()).await;
    match ended? {
        End::Stop => stopped.unwrap_or(Ok(())),
        End::GiveWay(trial) => {
            told(Progress::GivingWay);
            let why = replace::execute(&succession, &trial, &shared.store, kept);
            Err(ServerError::Io { what: "execute the deployed program".into(), why })
        }
    }
}

/// Why a service ends.
enum End {
    /// It was told to, or another server took over.
    Stop,
    /// Another program is to serve.
    GiveWay(Box<Trial>),
}

/// The listener, and a handle on it for whoever serves next.
fn listener(listen: SocketAddr) -> std::io::Result<(std::net::TcpListener, TcpListener)> {
    let listener = replace::listener(listen)?;
    listener.set_nonblocking(true)?;
    Ok((listener.try_clone()?, TcpListener::from_std(listener)?))
}

/// What ends a service that could go on.
struct Ends<A> {
    terminate: Signal,
    interrupt: Signal,
    asked: A,
}

impl<A> Ends<A> {
    fn listen(asked: A) -> Result<Ends<A>, ServerError> {
        let failed = |why| ServerError::Io { what: "listen for signals".into(), why };
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Ends { terminate, interrupt, asked })
    }
}

/// Until it is told to end, or cannot go on.
async fn live(
    server: &mut Server,
    succession: &Succession,
    told: &impl Fn(Progress),
    ends: Ends<impl Future<Output = ()>>,
) -> Result<End, ServerError> {
    let Ends { mut terminate, mut interrupt, asked } = ends;
    let mut asked = std::pin::pin!(asked);
    let mut has_answered = false;
    let mut look = tokio::time::interval(TAKEOVER_LOOK);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(End::Stop),
            _ = interrupt.recv() => return Ok(End::Stop),
            () = &mut asked => return Ok(End::Stop),
            trial = succession.wanted() => return Ok(End::GiveWay(Box::new(trial))),
            standing = server.executor_answered(), if !has_answered => {
                has_answered = true;
                if standing? == Standing::Serves {
                    told(Progress::Ready);
                }
            }
            _ = look.tick() => {
                if server.is_over() {
                    // Why it ended comes with its stop.
                    return Ok(End::Stop);
                }
            }
        }
    }
}

async fn until_set(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone is an end, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}
