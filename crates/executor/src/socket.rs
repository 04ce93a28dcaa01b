//! Unix sockets at paths of any length: an address holds 107 bytes (unix(7)), a data folder's path may be longer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// Bytes of a path that fit an address.
const ADDRESS_BYTES_MAX: usize = 107;

/// The file in an executor's folder that it locks.
const LOCK: &str = "lock";
/// How long a folder may still be another executor's: one that ends has closed its socket already.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at it.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// Runs `action` with a path to the same file that fits an address.
fn with_short_path<T>(path: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return action(path);
    }
    let wrong =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no socket's path", path.display()));
    let (folder, name) = (path.parent().ok_or_else(wrong)?, path.file_name().ok_or_else(wrong)?);
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(folder)?;
    action(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Listens at `path`, which must not be in use: the caller holds the folder's lock. The name appears, or replaces that
/// of a dead process, when connections are taken: whoever waits for it need not try twice.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = with_short_path(&draft, |path| UnixListener::bind(path))?;
    fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// Connects to `path`; waits up to `patience` for somebody to listen there.
///
/// # Errors
/// Why the last try failed. `NotFound` at once if there is not even a folder.
pub(crate) fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let until = Instant::now() + patience;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&names, folder, inotify::WatchFlags::MOVED_TO)?;
    loop {
        let error = match connect(path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                error
            }
            other => return other,
        };
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&names, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(error),
            Ok(_) => {
                // Which name it was does not matter: the next try tells.
                let _ = rustix::io::read(&names, &mut [0; 4096][..]);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects to `path`.
fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_path(path, |path| UnixStream::connect(path))
}

/// Whether the other side is the same user as we are, or root.
pub(crate) fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// Takes a folder for this process alone, until the answered file is closed. It is not inherited: a job that held it
/// would block the restart (trust S3).
pub(crate) fn lock_folder(folder: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join(LOCK))?;
    match is_locked_within(&file, LOCK_PATIENCE)? {
        true => Ok(file),
        false => Err(io::Error::other(format!("another executor owns {}; stop it first", folder.display()))),
    }
}

/// Whether no executor has a folder, at the latest when that time is over.
///
/// # Errors
/// The folder's lock cannot be opened.
pub fn is_free_within(folder: &Path, patience: Duration) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(folder.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        file => is_locked_within(&file?, patience),
    }
}

fn is_locked_within(file: &File, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::park_timeout(LOCK_LOOK);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("executor.sock");
        let listener = listen(&path).unwrap();
        let client = connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(is_trusted(&client) && is_trusted(&server));
    }

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_folder(folder.path()).unwrap();
        let error = lock_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("another executor owns"), "{error}");
        drop(lock);
        lock_folder(folder.path()).unwrap();
    }
}
