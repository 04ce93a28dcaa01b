//! Where hooks of running pushes come with their questions: a socket in a folder of the server's own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use towpath_git::ErrorClass;

use super::hook::{HookCall, HookReply, SOCKET_VARIABLE, TOKEN_VARIABLE, receive, send};
use super::session::Session;
use crate::error::ForgeError;

/// Time for a hook's question to arrive and for its answer to be taken. Both ends are on this machine.
const TALK_DEADLINE: Duration = Duration::from_secs(20);
/// Questions that are answered at once; each push asks one at a time.
const TALKS_MAX: usize = 256;
/// Bytes of a socket's path. Source: `sun_path` of Linux, with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// 32 random bytes that a push's hooks prove themselves with. A fresh one for each push, never told to anybody else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HookToken(String);

impl HookToken {
    /// A token from random bytes.
    pub fn new(random: [u8; 32]) -> HookToken {
        HookToken(random.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("invariant: a String takes all text");
            text
        }))
    }
}

/// Where the desk is and what git starts.
#[derive(Debug, Clone)]
pub struct HookSettings {
    /// A folder of its own; made if absent, mode 0700.
    pub folder: PathBuf,
    /// The program that calls [`super::run_hook`] with its last argument.
    pub program: PathBuf,
    /// Arguments in front of the hook's name: `hook` for the `towpath` binary.
    pub arguments: Vec<String>,
}

/// The open desk. Dropping it closes the socket.
pub struct HookDesk {
    shared: Arc<Shared>,
    waiter: Option<JoinHandle<()>>,
}

struct Shared {
    hooks: PathBuf,
    socket: PathBuf,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    closing: AtomicBool,
    talks: AtomicUsize,
}

/// A push that hooks may ask about, until it is dropped.
pub(super) struct Registered {
    shared: Arc<Shared>,
    token: HookToken,
}

impl HookDesk {
    /// Writes the hooks and opens the socket. The folder belongs to this server alone: what a former one left is replaced.
    ///
    /// # Errors
    /// `Denied` if the folder cannot be used, with the reason.
    pub fn open(settings: &HookSettings) -> Result<HookDesk, ForgeError> {
        let failed = |error: io::Error| {
            let what = format!("the folder for hooks `{}`", settings.folder.display());
            ForgeError::new(ErrorClass::Denied, what, error.to_string())
        };
        let hooks = settings.folder.join("hooks");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&hooks).map_err(failed)?;
        for name in ["pre-receive", "proc-receive"] {
            write_hook(&hooks.join(name), settings, name).map_err(failed)?;
        }
        let socket = settings.folder.join("push.sock");
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let why = format!(
                "its path is over {SOCKET_PATH_BYTES_MAX} bytes with the socket's name; choose a shorter one"
            );
            return Err(failed(io::Error::other(why)));
        }
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let (sessions, closing, talks) = Default::default();
        let shared = Arc::new(Shared { hooks, socket, sessions, closing, talks });
        let waiting = shared.clone();
        let waiter =
            std::thread::Builder::new().name("push-desk".into()).spawn(move || waiting.wait(&listener));
        Ok(HookDesk { shared, waiter: Some(waiter.map_err(failed)?) })
    }

    /// Lets the hooks of a push ask about it.
    pub(super) fn register(&self, token: HookToken, session: Arc<Session>) -> Registered {
        self.shared.sessions().insert(token.0.clone(), session);
        Registered { shared: self.shared.clone(), token }
    }
}

impl Registered {
    /// The folder of the hooks.
    pub fn hooks(&self) -> &Path {
        &self.shared.hooks
    }

    /// Variables by which the hooks find the way back here.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        let socket = self.shared.socket.clone().into_os_string();
        [(SOCKET_VARIABLE, socket), (TOKEN_VARIABLE, OsString::from(&self.token.0))]
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.sessions().remove(&self.token.0);
    }
}

impl Drop for HookDesk {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // One more caller, so that the waiter looks up and sees that it is over.
        let woken = UnixStream::connect(&self.shared.socket).is_ok();
        if let Some(waiter) = self.waiter.take().filter(|_| woken) {
            let _ = waiter.join();
        }
        let _ = fs::remove_file(&self.shared.socket);
    }
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if self.talks.fetch_add(1, Ordering::SeqCst) >= TALKS_MAX {
                self.talks.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let talk = self.clone();
            let started = std::thread::Builder::new().name("push-hook".into()).spawn(move || {
                // A hook that goes away has nobody to tell.
                let _ = talk.talk(stream);
                talk.talks.fetch_sub(1, Ordering::SeqCst);
            });
            if started.is_err() {
                self.talks.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn talk(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(TALK_DEADLINE))?;
        stream.set_write_timeout(Some(TALK_DEADLINE))?;
        let call: HookCall = receive(&stream)?;
        let session = self.sessions().get(&call.token).cloned();
        let reply = match session {
            Some(session) => session.answer(&call),
            None => HookReply { say: vec!["this push is over".into()], ..HookReply::default() },
        };
        send(&mut stream, &reply)
    }
}

fn write_hook(path: &Path, settings: &HookSettings, name: &str) -> io::Result<()> {
    use std::io::Write;
    let mut script = String::from("#!/bin/sh\nexec ");
    let program =
        settings.program.to_str().ok_or_else(|| io::Error::other("the program's path is not UTF-8"))?;
    for word in [program].into_iter().chain(settings.arguments.iter().map(String::as_str)).chain([name]) {
        write!(script, "'{}' ", word.replace('\'', r"'\''")).map_err(io::Error::other)?;
    }
    script.push('\n');
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&draft)?;
    file.write_all(script.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(draft, path)
}
