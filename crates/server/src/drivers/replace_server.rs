//! Lets another program serve in this server's place, or says why it cannot.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use towpath_blob::{BlobError, Manifest, ManifestFile};
use towpath_core::effect::Replacement;
use towpath_core::environment::EnvironmentEvent;
use towpath_core::ids::Digest;
use towpath_core::outbox::TroubleClass;
use towpath_core::run::RESTORED;
use towpath_store::SCHEMA;

use super::{Failure, Hands};
use crate::replace::Succession;

/// Time for a program to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of that.
const VERSION_BYTES_MAX: usize = 4096;
/// Bytes of a program: the debug build of this one has 200 MB.
const PROGRAM_BYTES_MAX: u64 = 2 << 30;
/// Anybody may run it; nobody may change it.
const MODE: u32 = 0o755;

/// Why a program is not tried.
enum Unfit {
    /// It never will be fit.
    Refused(String),
    /// It could not be looked at this time.
    Failed(Failure),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Unfit {
        Unfit::Failed(failure)
    }
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Unfit {
        Unfit::Failed(transient(error.to_string()))
    }
}

fn transient(why: String) -> Failure {
    Failure::new(TroubleClass::Transient, why)
}

fn refused<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit::Refused(why.into()))
}

/// Carries the effect out. The answer comes from whichever server finds the end: the program itself, or the one to
/// which the steward went back.
pub fn run(hands: &Hands, replacement: &Replacement) -> Result<EnvironmentEvent, Failure> {
    let answer = |result| Ok(EnvironmentEvent::Replaced { number: replacement.number, result });
    match step(hands, replacement) {
        Ok(()) => answer(Ok(())),
        Err(Unfit::Refused(why)) => answer(Err(why)),
        Err(Unfit::Failed(failure)) => Err(failure),
    }
}

/// `Ok`: the program serves.
fn step(hands: &Hands, replacement: &Replacement) -> Result<(), Unfit> {
    let succession = &*hands.succession;
    let folder = succession.folder();
    let failed = folder.failed()?.filter(|failed| {
        (&failed.environment, failed.number) == (&replacement.environment, replacement.number)
    });
    if let Some(failed) = failed {
        return refused(failed.why);
    }
    let file = program(succession, &replacement.program)?;
    if crate::program::own_digest() == Some(file.digest) {
        // Nothing is handed out to a program that may have to go.
        return Ok(());
    }
    if replacement.restored {
        return refused(RESTORED);
    }
    let mut trial = match succession.trial(replacement, file.digest)? {
        Ok(trial) => trial,
        Err(why) => return refused(why),
    };
    folder.make()?;
    let path = folder.program(&file.digest);
    put(succession, &file, &path)?;
    let schema = schema_of(&path)?;
    if schema < SCHEMA {
        return refused(format!(
            "it is older than the data: it knows schema {schema}, the data has {SCHEMA}"
        ));
    }
    trial.backup = (schema > SCHEMA).then(|| folder.backup());
    succession.want(trial);
    Err(Unfit::Failed(Failure::goes_on("the server gives way to it")))
}

/// The one file of the output.
fn program(succession: &Succession, manifest: &Digest) -> Result<ManifestFile, Unfit> {
    let manifest = match Manifest::load(succession.blobs(), manifest) {
        Ok(manifest) => manifest,
        Err(error @ (BlobError::Missing(_) | BlobError::Damaged { .. } | BlobError::Manifest(_))) => {
            return refused(format!("the output cannot be read: {error}"));
        }
        Err(error) => return Err(Unfit::Failed(transient(error.to_string()))),
    };
    match manifest.files() {
        [file] if file.size > PROGRAM_BYTES_MAX => {
            refused(format!("`{}` is too large for a program", file.path))
        }
        [file] if file.executable => Ok(file.clone()),
        [file] => refused(format!("`{}` is not executable", file.path)),
        files => {
            refused(format!("the output `towpath` has {} files; it has to be the program alone", files.len()))
        }
    }
}

/// Puts the program to its place, whole and durably. One that is there is left alone if it is whole.
fn put(succession: &Succession, file: &ManifestFile, path: &Path) -> Result<(), Unfit> {
    let whole = |path: &Path| {
        fs::File::open(path).and_then(crate::program::digest).is_ok_and(|found| found == file.digest)
    };
    if whole(path) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let blob = succession.blobs().open_blob(&file.digest);
    let mut blob = match blob {
        Ok(blob) => blob,
        Err(error @ BlobError::Missing(_)) => return refused(error.to_string()),
        Err(error) => return Err(Unfit::Failed(transient(error.to_string()))),
    };
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&fresh)?;
    io::copy(&mut blob, &mut copy)?;
    copy.sync_all()?;
    drop(copy);
    if !whole(&fresh) {
        let _ = fs::remove_file(&fresh);
        return refused("the stored program is damaged");
    }
    fs::rename(&fresh, path)?;
    Ok(fs::File::open(path.parent().unwrap_or(path))?.sync_all()?)
}

/// The newest schema that a program knows, as its `--version` says: `towpath 1.2.3 (schema 4)`.
fn schema_of(path: &Path) -> Result<u32, Unfit> {
    let spawned = Command::new(path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return refused(format!("it cannot be run: {error}")),
    };
    if !ends_within(&child, VERSION_DEADLINE) {
        let _ = child.kill();
        let _ = child.wait();
        return refused("`--version` does not end");
    }
    let status = child.wait()?;
    let said = printed(child.stdout.take().expect("invariant: it was asked for"))?;
    let schema = said.strip_prefix("towpath ").and_then(|rest| {
        let (_, rest) = rest.split_once("(schema ")?;
        rest.split_once(')')?.0.parse().ok()
    });
    match schema.filter(|_| status.success()) {
        Some(schema) => Ok(schema),
        None => refused("it is no Towpath: `--version` does not say `towpath … (schema …)`"),
    }
}

/// What a process that has ended has printed. Its end is not waited for: whoever it left behind may hold it open.
fn printed(mut out: ChildStdout) -> io::Result<String> {
    rustix::io::ioctl_fionbio(&out, true)?;
    let (mut said, mut buffer) = (Vec::new(), [0; 512]);
    while said.len() < VERSION_BYTES_MAX {
        match out.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Waits for a process's end. What it prints fits into the pipe, or it does not end.
fn ends_within(child: &Child, patience: Duration) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_leaves_somebody_with_its_output_is_understood_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let [program, gate] = ["program", "gate"].map(|name| place.path().join(name));
        let left =
            format!("mkfifo {0}; {{ read line < {0}; }} & echo 'towpath 1.2.3 (schema 7)'", gate.display());
        fs::write(&program, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{left}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(MODE)).unwrap();
        assert!(matches!(schema_of(&program), Ok(7)));
        // It waits for a line, and is gone then.
        fs::write(&gate, "go\n").unwrap();
    }
}
