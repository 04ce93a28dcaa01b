//! Copying a work tree: bytes, links and the executable bit of the files that git counts as part of it.
//!
//! Nothing is followed on the way: a folder that is a symbolic link is as good as missing, as it is to git, and every
//! file is opened beneath the top. The copy shares nothing through which a job could write back.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::checkout::{Checkout, CheckoutFiles};
use crate::error::GitError;
use crate::object::TreePath;
use crate::walk::TreeLimits;

/// What was copied, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// Files and links.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Tracked, but deleted on disk.
    pub missing: u64,
    /// Neither file nor link (a pipe, a socket, a device): left out.
    pub special: Vec<TreePath>,
}

impl Checkout {
    /// Copies the files of the work tree as they are on disk now into `into`, which must not exist.
    ///
    /// On an error `into` is left as far as it got, for the caller to remove.
    ///
    /// # Errors
    /// `TooLarge` as soon as a limit is passed.
    pub fn copy_files(
        &self,
        files: &CheckoutFiles,
        into: &Path,
        limits: TreeLimits,
    ) -> Result<Copied, GitError> {
        fs::create_dir(into).map_err(GitError::io("make", into))?;
        let top = open_folder(self.top())?;
        let mut copying = Copying { top, into, limits, parent: None, copied: Copied::default() };
        files.files.iter().try_for_each(|path| copying.copy(path))?;
        Ok(copying.copied)
    }
}

/// A folder that the last file was in: the next one is most often in the same.
struct Parent {
    path: PathBuf,
    /// `None`: not there, or not a folder.
    folder: Option<OwnedFd>,
}

struct Copying<'a> {
    top: OwnedFd,
    into: &'a Path,
    limits: TreeLimits,
    parent: Option<Parent>,
    copied: Copied,
}

impl Copying<'_> {
    fn copy(&mut self, path: &TreePath) -> Result<(), GitError> {
        let relative = Path::new(OsStr::from_bytes(&path.0));
        let parent = relative.parent().unwrap_or(Path::new(""));
        let Some(name) = relative.file_name() else { return Ok(()) };
        if self.parent.as_ref().is_none_or(|known| known.path != parent) {
            let folder = self.enter(parent)?;
            self.parent = Some(Parent { path: parent.to_owned(), folder });
        }
        let Some(folder) = self.parent.as_ref().and_then(|parent| parent.folder.as_ref()) else {
            self.copied.missing += 1;
            return Ok(());
        };
        let failed = |errno: Errno| GitError::io("read", relative)(errno.into());
        let target = self.into.join(relative);
        let found = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                self.copied.missing += 1;
                return Ok(());
            }
            other => other.map_err(failed)?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(failed)?;
                let executable = found.st_mode & 0o100 != 0;
                self.copied.bytes += copy_file(File::from(source), &target, executable)?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(failed)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(link.as_bytes()), &target)
                    .map_err(GitError::io("link", &target))?;
            }
            // A tracked file that a folder has taken the place of.
            FileType::Directory => {
                self.copied.missing += 1;
                return Ok(());
            }
            _ => {
                self.copied.special.push(path.clone());
                return Ok(());
            }
        }
        self.copied.files += 1;
        self.check_limits()
    }

    /// Opens a folder beneath the top and makes its twin.
    fn enter(&self, parent: &Path) -> Result<Option<OwnedFd>, GitError> {
        let path = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.top, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(GitError::io("open", parent)(errno.into())),
            Ok(folder) => {
                let target = self.into.join(parent);
                fs::create_dir_all(&target).map_err(GitError::io("make", &target))?;
                Ok(Some(folder))
            }
        }
    }

    fn check_limits(&self) -> Result<(), GitError> {
        let over = |limit: String| Err(GitError::TooLarge { what: "the work tree".to_owned(), limit });
        match &self.copied {
            copied if copied.files > self.limits.entries_max => {
                over(format!("{} files", self.limits.entries_max))
            }
            copied if copied.bytes > self.limits.bytes_max => {
                over(format!("{} bytes", self.limits.bytes_max))
            }
            _ => Ok(()),
        }
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, GitError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| GitError::io("open", path)(errno.into()))
}

/// Copies the bytes; the kernel shares blocks where the file system can.
fn copy_file(mut source: File, target: &Path, executable: bool) -> Result<u64, GitError> {
    let mut file = File::create_new(target).map_err(GitError::io("write", target))?;
    let bytes = std::io::copy(&mut source, &mut file).map_err(GitError::io("copy", target))?;
    let mode = if executable { 0o755 } else { 0o644 };
    file.set_permissions(Permissions::from_mode(mode)).map_err(GitError::io("change the mode of", target))?;
    Ok(bytes)
}
