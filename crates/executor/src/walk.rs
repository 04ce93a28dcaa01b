//! Going through a tree that a job made, however deep it is: by descriptor, so that no path becomes too long, and with
//! few of them open, so that none is lacking elsewhere (trust T7).

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fchmod, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

/// Folders that stay open while what is below them is visited. Deeper ones are found again as the folder above.
const KEPT_OPEN: usize = 32;

/// What is done on the way. It ends early with an `End`.
trait Visit {
    type End;

    /// Opens a folder; `None` passes over it.
    fn open(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Self::End>;

    /// Sees a folder, and says which of its folders are to be visited.
    fn enter(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, Self::End>;

    /// Everything below a folder was visited.
    fn leave(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<(), Self::End>;
}

/// A folder between the top and where the walk is.
struct Level {
    name: CString,
    /// Folders in it that are still to be visited.
    left: Vec<CString>,
    place: Place,
}

enum Place {
    Open(OwnedFd),
    /// Device and number of it.
    Closed((u64, u64)),
}

impl Place {
    fn close(&mut self) {
        if let Place::Open(folder) = self
            && let Ok(stat) = fstat(folder)
        {
            *self = Place::Closed((stat.st_dev, stat.st_ino));
        }
    }

    /// Opens it again as what is above another folder. A job that lives may have moved that one elsewhere.
    fn reopen(&mut self, below: BorrowedFd<'_>) -> Result<(), Errno> {
        let Place::Closed(known) = self else { return Ok(()) };
        let above = open_folder(below, c"..")?;
        let stat = fstat(&above)?;
        if (stat.st_dev, stat.st_ino) != *known {
            return Err(Errno::STALE);
        }
        *self = Place::Open(above);
        Ok(())
    }
}

/// Visits every folder. What is moved meanwhile may be missed, but nothing above the top is seen: folders near it stay
/// open, and the walk goes on there should the way up from a deeper one be lost.
fn walk<V: Visit>(top: OwnedFd, visit: &mut V) -> Result<(), V::End> {
    let left = visit.enter(top.as_fd())?;
    let mut levels = vec![Level { name: CString::default(), left, place: Place::Open(top) }];
    while let Some(level) = levels.last_mut() {
        let Place::Open(here) = &level.place else {
            unreachable!("invariant: where the walk is, it is open")
        };
        let Some(name) = level.left.pop() else {
            go_up(&mut levels, visit)?;
            continue;
        };
        let Some(folder) = visit.open(here.as_fd(), &name)? else { continue };
        let left = visit.enter(folder.as_fd())?;
        if levels.len() > KEPT_OPEN
            && let Some(above) = levels.last_mut()
        {
            above.place.close();
        }
        levels.push(Level { name, left, place: Place::Open(folder) });
    }
    Ok(())
}

fn go_up<V: Visit>(levels: &mut Vec<Level>, visit: &mut V) -> Result<(), V::End> {
    let Some(Level { name, place: Place::Open(done), .. }) = levels.pop() else { return Ok(()) };
    let Some(above) = levels.last_mut() else { return Ok(()) };
    match above.place.reopen(done.as_fd()) {
        Err(_) => levels.truncate(KEPT_OPEN),
        Ok(()) => {
            if let Place::Open(above) = &above.place {
                visit.leave(above.as_fd(), &name)?;
            }
        }
    }
    Ok(())
}

fn open_folder(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

fn open_top(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// What folders hold, as far as it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TreeSize {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// Counts folders until together they are over a limit. Files that vanish meanwhile count nothing.
pub(crate) fn tree_size<P: AsRef<Path>>(folders: &[P], limit: TreeSize) -> TreeSize {
    let mut count = Count { size: TreeSize::default(), limit };
    // What is no folder, which a job may have put in its place, counts nothing: opening a FIFO would wait.
    for top in folders.iter().filter_map(|folder| open_top(folder.as_ref()).ok()) {
        if let Err(Over) = walk(top, &mut count) {
            break;
        }
    }
    count.size
}

struct Count {
    size: TreeSize,
    limit: TreeSize,
}

/// The count is over its limit.
struct Over;

impl Visit for Count {
    type End = Over;

    fn open(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Over> {
        Ok(open_folder(above, name).ok())
    }

    fn enter(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, Over> {
        let mut folders = Vec::new();
        let Ok(entries) = Dir::read_from(folder) else { return Ok(folders) };
        for entry in entries.flatten().filter(is_named) {
            let Ok(stat) = statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.size.files += 1;
            self.size.bytes += stat.st_blocks.cast_unsigned() * 512;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(entry.file_name().to_owned());
            }
            if self.size.bytes > self.limit.bytes || self.size.files > self.limit.files {
                return Err(Over);
            }
        }
        Ok(folders)
    }

    fn leave(&mut self, _: BorrowedFd<'_>, _: &CStr) -> Result<(), Over> {
        Ok(())
    }
}

/// Removes a tree that a job made and that nobody uses any more: also folders that it made unreadable for us, and a link
/// that it put in its place, but not where that leads. A tree that is not there is success.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove(path, None).map(|_| ())
}

/// Removes of a tree what can be removed until then, and says whether that was all of it.
pub(crate) fn remove_tree_until(path: &Path, until: Instant) -> io::Result<bool> {
    remove(path, Some(until))
}

fn remove(path: &Path, until: Option<Instant>) -> io::Result<bool> {
    let permit = || rustix::fs::chmod(path, Mode::RWXU);
    match permitted(permit, || open_top(path)) {
        Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTDIR | Errno::LOOP) if path.is_symlink() => fs::remove_file(path).map(|()| true),
        Err(error) => Err(error.into()),
        Ok(top) => match walk(top, &mut Removal { until }) {
            Err(RemovalEnd::Late) => Ok(false),
            Err(RemovalEnd::Failed(error)) => Err(error.into()),
            Ok(()) => fs::remove_dir(path).map(|()| true),
        },
    }
}

struct Removal {
    until: Option<Instant>,
}

/// Why a removal ended early.
enum RemovalEnd {
    Late,
    Failed(Errno),
}

impl From<Errno> for RemovalEnd {
    fn from(error: Errno) -> RemovalEnd {
        RemovalEnd::Failed(error)
    }
}

impl Removal {
    fn in_time(&self) -> Result<(), RemovalEnd> {
        match self.until.is_some_and(|until| Instant::now() >= until) {
            true => Err(RemovalEnd::Late),
            false => Ok(()),
        }
    }
}

impl Visit for Removal {
    type End = RemovalEnd;

    fn open(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, RemovalEnd> {
        let permit = || chmodat(above, name, Mode::RWXU, AtFlags::empty());
        Ok(permitted(permit, || open_folder(above, name)).map(Some)?)
    }

    fn enter(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, RemovalEnd> {
        let mut folders = Vec::new();
        let permit = || fchmod(folder, Mode::RWXU);
        for entry in permitted(permit, || Dir::read_from(folder))? {
            self.in_time()?;
            let entry = entry?;
            if !is_named(&entry) {
                continue;
            }
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory {
                folders.push(name.to_owned());
                continue;
            }
            match permitted(permit, || unlinkat(folder, name, AtFlags::empty())) {
                // Some file systems name no types.
                Err(Errno::ISDIR) => folders.push(name.to_owned()),
                other => other?,
            }
        }
        Ok(folders)
    }

    fn leave(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<(), RemovalEnd> {
        self.in_time()?;
        Ok(permitted(|| fchmod(above, Mode::RWXU), || unlinkat(above, name, AtFlags::REMOVEDIR))?)
    }
}

/// Does what a folder's mode may forbid, if need be after that was changed.
fn permitted<T>(
    permit: impl FnOnce() -> Result<(), Errno>,
    step: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match step() {
        Err(Errno::ACCESS) => permit().and_then(|()| step()),
        other => other,
    }
}

fn is_named(entry: &rustix::fs::DirEntry) -> bool {
    !matches!(entry.file_name().to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use rustix::fs::{mkdirat, open};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tempfile::TempDir;

    use super::*;

    const ENDLESS: TreeSize = TreeSize { bytes: u64::MAX, files: u64::MAX };

    /// Makes so many folders of one name within each other, deeper than a path can say; the innermost one.
    fn nest(folder: &Path, (name, levels): (&[u8], usize)) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = open(folder, flags, Mode::empty()).unwrap();
        (0..levels).fold(top, |folder, _| {
            mkdirat(&folder, name, Mode::RWXU).unwrap();
            openat(&folder, name, flags, Mode::empty()).unwrap()
        })
    }

    /// As many descriptors as a process has where nobody asks for more.
    fn few_descriptors() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
    }

    fn put(folder: &OwnedFd, name: &str) {
        drop(openat(folder, name, OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap());
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_paths_is_counted_and_removed() {
        few_descriptors();
        let folder = TempDir::new().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let innermost = nest(&tree, (b"deep", 2_000));
        (0..20).for_each(|number| put(&innermost, &number.to_string()));
        // Two ways at each of the levels that are found again from below.
        let middle = nest(&tree, (b"other", KEPT_OPEN + 20));
        put(&middle, "a");
        fs::create_dir_all(tree.join("deep/wide/b")).unwrap();
        let files = 2_000 + 20 + KEPT_OPEN as u64 + 20 + 1 + 2;
        assert_eq!(tree_size(&[&tree], ENDLESS).files, files);
        assert_eq!(tree_size(&[&tree], TreeSize { files: 2_010, ..ENDLESS }).files, 2_011);
        assert_eq!(tree_size(&[&tree, &tree], ENDLESS).files, 2 * files);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn every_side_of_a_deep_tree_is_seen() {
        let folder = TempDir::new().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = nest(&tree, (b"a", 0));
        for _ in 0..3 * KEPT_OPEN {
            for name in ["b", "c"] {
                mkdirat(&at, name, Mode::RWXU).unwrap();
                put(&openat(&at, name, OFlags::RDONLY, Mode::empty()).unwrap(), "file");
            }
            mkdirat(&at, "bb", Mode::RWXU).unwrap();
            at = openat(&at, "bb", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        assert_eq!(tree_size(&[&tree], ENDLESS).files, 3 * KEPT_OPEN as u64 * 5);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_removal_that_is_late_leaves_the_rest_for_later() {
        let folder = TempDir::new().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        put(&nest(&tree, (b"deep", 100)), "file");
        let now = Instant::now();
        assert!(!remove_tree_until(&tree, now).unwrap());
        assert_eq!(tree_size(&[&tree], ENDLESS).files, 101);
        assert!(remove_tree_until(&tree, now + Duration::from_secs(600)).unwrap());
        assert!(!tree.exists());
        assert!(remove_tree_until(&tree, now).unwrap(), "there is nothing to be late with");
    }

    #[test]
    fn what_a_job_forbade_is_removed_and_links_are_not_followed() {
        let folder = TempDir::new().unwrap();
        let (tree, beside) = (folder.path().join("tree"), folder.path().join("beside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&beside, tree.join("link")).unwrap();
        for closed in ["a/b", "a", ""] {
            fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        assert_eq!(tree_size(&[&beside], ENDLESS).files, 1);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && beside.join("kept").exists());
        assert!(remove_tree(&beside.join("kept")).is_err(), "it is no folder");
    }

    #[test]
    fn what_a_job_put_in_the_place_of_a_tree_is_not_waited_for_and_not_followed() {
        let folder = TempDir::new().unwrap();
        let [fifo, kept, link] = ["fifo", "kept", "link"].map(|name| folder.path().join(name));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(tree_size(&[&fifo], ENDLESS), TreeSize::default());
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(!link.is_symlink() && kept.join("file").exists());
    }
}
