//! The whole service: a listener, the server behind it, and an orderly end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// on in the executor. `signalled` is set by handlers of these signals that were there before this process let any in.
///
/// # Errors
/// It cannot start, jobs cannot run on this machine, or another server took over.
pub async fn run(
    settings: ServerSettings,
    told: impl Fn(Progress),
    (signalled, asked): (Arc<AtomicBool>, impl Future<Output = ()>),
) -> Result<(), ServerError> {
    // Before anything is begun: a signal that ended a server which starts would leave behind the executor that is its own.
    let mut ends = Ends::listen(signalled, asked)?;
    let data = settings.data.clone();
    let ended = serve_and_drain(settings, &told, &mut ends).await;
    if let Err(error) = &ended {
        // Only a program that is being tried has somebody who goes back, and only if it was not to end anyway.
        match ends.have_come().await {
            true => replace::stop(&data),
            false => replace::fail(&data, error.to_string()),
        }
    }
    ended
}

/// Opens the server. A program that is tried and told to end meanwhile says so at once, however long it still takes: its
/// steward hears of it before the time is up, and brings nobody back then.
async fn open(
    settings: ServerSettings,
    is_tried: bool,
    ends: &mut Ends<impl Future<Output = ()>>,
) -> Result<Server, ServerError> {
    let data = settings.data.clone();
    let mut opens = tokio::task::spawn_blocking(|| Server::open(settings));
    let opened = tokio::select! {
        biased;
        opened = &mut opens => opened,
        () = ends.come(), if is_tried => {
            replace::stop(&data);
            opens.await
        }
    };
    opened.map_err(|error| ServerError::Io { what: "start".into(), why: error.into() })?
}

async fn serve_and_drain(
    settings: ServerSettings,
    told: &impl Fn(Progress),
    ends: &mut Ends<impl Future<Output = ()>>,
) -> Result<(), ServerError> {
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
    let site = Site::new(&url)?.behind(&settings.trusted_proxies);
    let is_tried = replace::is_tried(&data).map_err(failed("look for deployed programs".into()))?;
    let mut server = open(settings, is_tried, ends).await?;
    let (shared, succession) = (server.shared.clone(), server.succession());
    let (stop, stopping) = watch::channel(false);
    let mut http = None;
    let lived = async {
        let edge = Edge::open(shared.clone(), site)?;
        let mut executor = AskedExecutor { server: &mut server, told, standing: None };
        // Whoever is tried may have to go, and what it did would be forgotten: nothing is handed out and nobody is answered
        // before it is sure to stay.
        if is_tried && !executor.answers_before(ends).await? {
            return Ok(End::Stop);
        }
        let confirmed = replace::confirm(&data).map_err(failed("confirm that this program serves".into()))?;
        if let Some(why) = confirmed.unconfirmed() {
            shared.store.writer().stop_landing(&format!("the record of the program that serves: {why}"));
        }
        executor.server.begin().await;
        http = Some(tokio::spawn(serve::serve(edge, listener, until_set(stopping))));
        told(Progress::Serving { listen, url });
        live(executor, &succession, ends).await
    };
    let ended = lived.await;
    if matches!(ended, Ok(End::Stop)) {
        replace::stop(&data);
    }
    told(Progress::Draining);
    let _ = stop.send(true);
    if let Some(http) = http
        && let Ok(Err(error)) = http.await
    {
        tracing::error!(%error, "the listener failed: {error}");
    }
    let stopped = tokio::task::spawn_blocking(move || server.stop()).await;
    match ended? {
        End::Stop => stopped.unwrap_or(Ok(())),
        // Whoever ended this server while it drained did not mean the program that follows to serve.
        End::GiveWay(_) if ends.have_come().await => stopped.unwrap_or(Ok(())),
        End::GiveWay(trial) => {
            told(Progress::GivingWay);
            replace::execute(&succession, &trial, (&shared.store, kept), || ends.are_signalled())
                .map_err(failed("execute the deployed program".into()))
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
    signalled: Arc<AtomicBool>,
    terminate: Signal,
    interrupt: Signal,
    asked: Pin<Box<A>>,
    over: bool,
}

impl<A: Future<Output = ()>> Ends<A> {
    fn listen(signalled: Arc<AtomicBool>, asked: A) -> Result<Ends<A>, ServerError> {
        let failed = |why| ServerError::Io { what: "listen for signals".into(), why };
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Ends { signalled, terminate, interrupt, asked: Box::pin(asked), over: false })
    }

    /// Comes once this service is to end, and at once from then on.
    async fn come(&mut self) {
        if self.over || self.are_signalled() {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = &mut self.asked => {}
        }
        self.over = true;
    }

    /// Whether it is to end by now.
    async fn have_come(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.come() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// As far as signals go, whoever runs what else is to run.
    fn are_signalled(&self) -> bool {
        self.signalled.load(Ordering::SeqCst)
    }
}

/// The executor of a server.
struct AskedExecutor<'a, T> {
    server: &'a mut Server,
    told: &'a T,
    /// What it is, as far as it has answered.
    standing: Option<Standing>,
}

impl<T: Fn(Progress)> AskedExecutor<'_, T> {
    /// Waits for its answer, then for a successor of one that is given no jobs; for ever once jobs can run.
    async fn answers(&mut self) -> Result<(), ServerError> {
        let standing = match self.standing {
            None => self.server.executor_answered().await?,
            Some(Standing::Leaves { .. }) => {
                self.server.executor_serves().await;
                Standing::Serves
            }
            Some(Standing::Serves) => return std::future::pending().await,
        };
        if standing == Standing::Serves {
            (self.told)(Progress::Ready);
        }
        self.standing = Some(standing);
        Ok(())
    }

    /// The same; `false` if the service is to end before.
    async fn answers_before(
        &mut self,
        ends: &mut Ends<impl Future<Output = ()>>,
    ) -> Result<bool, ServerError> {
        tokio::select! {
            biased;
            () = ends.come() => Ok(false),
            answered = self.answers() => answered.map(|()| true),
        }
    }
}

/// Until it is told to end, or cannot go on.
async fn live(
    mut executor: AskedExecutor<'_, impl Fn(Progress)>,
    succession: &Succession,
    ends: &mut Ends<impl Future<Output = ()>>,
) -> Result<End, ServerError> {
    let mut look = tokio::time::interval(TAKEOVER_LOOK);
    loop {
        tokio::select! {
            // Whoever is told to end and to give way at once ends.
            biased;
            () = ends.come() => return Ok(End::Stop),
            trial = succession.wanted() => return Ok(End::GiveWay(Box::new(trial))),
            answered = executor.answers() => answered?,
            _ = look.tick() => {
                if executor.server.is_over() {
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_ends_a_service_is_heard_whenever_it_is_asked_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (keep, asked) = oneshot::channel::<()>();
            let asked = async { drop(asked.await) };
            let signalled = Arc::new(AtomicBool::new(false));
            let mut ends = Ends::listen(signalled, asked).unwrap();
            assert!(!ends.have_come().await);
            drop(keep);
            assert!(ends.have_come().await && ends.have_come().await, "it is not forgotten");
            let signalled = Arc::new(AtomicBool::new(false));
            let mut ends = Ends::listen(Arc::clone(&signalled), std::future::pending()).unwrap();
            assert!(!ends.have_come().await);
            signalled.store(true, Ordering::SeqCst);
            assert!(ends.have_come().await, "also what a handler saw that was there before");
        });
    }
}
