//! Bases: one immutable copy of a tree for all jobs that start from it, each under an overlay of its own.
//!
//! A base is made aside and moved to its place in one step. It is counted by its open handles; what nobody holds is removed
//! where the disk has no room, and by [`BaseStore::evict`] where the store is over its size, least recently used first. What an
//! earlier process has left counts as held until [`BaseStore::let_former_go`]: jobs that it started may still read it. Bases
//! are not synced to the disk: after a restart of the machine they are all removed, since some may be incomplete.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use towpath_core::ids::TreeId;

use crate::error::GitError;
use crate::export::{ExportOptions, Owner, Room};
use crate::repository::Repository;
use crate::walk::{TreeLimits, TreeMeasure};

/// Bases take one part in so many of their disk at most.
const DISK_SHARE: u64 = 4;
/// For others, one part in so many of the disk is kept free at most: on a small one what they may ever want would cost every
/// base, and be reached by none.
const SPARE_SHARE: u64 = 16;
/// Names the machine's current start: it changes with each.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long a lock that somebody holds is asked for again. A process that a dead server was just starting holds it until it has
/// become another program; a server holds it for longer.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Time between two questions.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// How a store keeps its bases.
#[derive(Clone)]
pub struct BaseOptions {
    /// Whose the files are; absent: this process's user.
    pub owner: Option<Owner>,
    /// What each base may expand to.
    pub limits: TreeLimits,
    /// Bytes of all bases together above which unused ones are removed; on a small disk it is a quarter of that.
    pub bytes_max: u64,
    /// Whether the disk has room.
    pub room: Arc<Room<'static>>,
}

/// A folder of bases, used by one process at a time and there by any number of threads.
pub struct BaseStore {
    folder: PathBuf,
    options: BaseOptions,
    bytes_max: u64,
    spare_max: TreeMeasure,
    cells: Mutex<HashMap<TreeId, Arc<Cell>>>,
    counter: AtomicU64,
    /// On the bases of an earlier process.
    former: Mutex<Vec<Pin>>,
    /// Held by whoever removes bases, so that nobody takes for full what becomes free.
    removal: Mutex<()>,
    /// Held as long as the store is open; the system lets go of it when the process dies.
    _lock: File,
}

/// One base. In use while anybody but the map holds it: handles are only given out under the map's lock.
#[derive(Default)]
struct Cell {
    made: Mutex<Option<TreeMeasure>>,
    last_use: AtomicU64,
}

/// A handle on a base: it stays as long as this lives.
pub struct Base {
    path: PathBuf,
    measure: TreeMeasure,
    _pin: Pin,
}

/// Keeps a base where it is for as long as this lives.
pub struct Pin {
    _cell: Arc<Cell>,
}

impl Base {
    /// The folder with the files. Nobody may write there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much it is.
    pub fn measure(&self) -> TreeMeasure {
        self.measure
    }
}

impl BaseStore {
    /// Opens a store in `folder`, which is made if it is not there. Clears away what an earlier process left unfinished.
    ///
    /// # Errors
    /// `Exists` while another process has it open.
    pub fn open(folder: &Path, options: BaseOptions) -> Result<BaseStore, GitError> {
        fs::create_dir_all(folder).map_err(GitError::io("make", folder))?;
        let lock = lock_folder(folder)?;
        spread_folders(folder);
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let boot_file = folder.join("boot");
        let same_boot = !boot.is_empty() && fs::read_to_string(&boot_file).is_ok_and(|found| found == boot);
        let mut cells = HashMap::new();
        for entry in fs::read_dir(folder).map_err(GitError::io("read", folder))? {
            let path = entry.map_err(GitError::io("read", folder))?.path();
            match adoptable(&path).filter(|_| same_boot) {
                Some((tree, measure)) => drop(cells.insert(tree, Arc::new(Cell::made(measure)))),
                None if path.is_dir() => remove_tree(&path)?,
                None => {}
            }
        }
        fs::write(&boot_file, boot).map_err(GitError::io("write", &boot_file))?;
        let former = cells.values().map(|cell| Pin { _cell: Arc::clone(cell) }).collect();
        let disk = disk_size(folder);
        Ok(BaseStore {
            folder: folder.to_owned(),
            bytes_max: options.bytes_max.min(disk.bytes / DISK_SHARE),
            spare_max: TreeMeasure { entries: disk.entries / SPARE_SHARE, bytes: disk.bytes / SPARE_SHARE },
            options,
            cells: Mutex::new(cells),
            counter: AtomicU64::new(0),
            former: Mutex::new(former),
            removal: Mutex::default(),
            _lock: lock,
        })
    }

    /// Keeps the base of a tree, if there is one: for a job that an earlier process has started from it.
    pub fn pin(&self, tree: TreeId) -> Option<Pin> {
        self.lock_cells().get(&tree).map(|cell| Pin { _cell: cell.clone() })
    }

    /// Every job of an earlier process that goes on has its pin by now: what nobody holds may be removed. Returns how many
    /// bases went at once.
    pub fn let_former_go(&self) -> Result<usize, GitError> {
        std::mem::take(&mut *self.former.lock().unwrap_or_else(PoisonError::into_inner));
        self.evict()
    }

    /// The base of a tree, made now if it is not there. Threads that want the same one wait for the first.
    ///
    /// # Errors
    /// `NoRoom` if the disk has none for it when all unused bases have gone; else those of an export.
    pub fn base(&self, repository: &Repository, tree: TreeId) -> Result<Base, GitError> {
        let cell = self.lock_cells().entry(tree).or_default().clone();
        cell.last_use.store(self.count(), Ordering::Relaxed);
        let mut made = cell.made.lock().unwrap_or_else(PoisonError::into_inner);
        let measure = match *made {
            Some(measure) => measure,
            None => self.make(repository, tree)?,
        };
        *made = Some(measure);
        drop(made);
        Ok(Base { path: self.folder.join(tree.to_string()), measure, _pin: Pin { _cell: cell } })
    }

    /// Removes unused bases until the store is within its size; returns how many went. Whoever makes one leaves that to others:
    /// it may take long, and fail for what is wrong with an old one.
    pub fn evict(&self) -> Result<usize, GitError> {
        let is_over = || self.usage().1 > self.bytes_max;
        if !is_over() {
            return Ok(0);
        }
        let _alone = self.lock_removal();
        let mut gone = 0;
        while is_over() && self.remove_oldest()? {
            gone += 1;
        }
        Ok(gone)
    }

    /// Makes room for so much more on a disk that has none: unused bases go. Making a base does this too.
    ///
    /// # Errors
    /// `NoRoom` if there is none when all have gone.
    pub fn make_room(&self, more: TreeMeasure) -> Result<(), GitError> {
        let ask = || (self.options.room)(more);
        while ask().is_err() {
            // What another thread is removing may be all that is needed.
            let Some(_alone) = self.try_lock_removal() else {
                std::thread::park_timeout(LOCK_LOOK);
                continue;
            };
            if let Err(no_room) = ask()
                && !self.remove_oldest()?
            {
                return Err(no_room);
            }
        }
        Ok(())
    }

    /// Makes room for what others may want, as far as the disk is large enough to have it. It may take long: a base is removed
    /// file by file.
    ///
    /// # Errors
    /// As [`BaseStore::make_room`].
    pub fn give_way(&self, wanted: TreeMeasure) -> Result<(), GitError> {
        let TreeMeasure { entries, bytes } = self.spare_max;
        self.make_room(TreeMeasure { entries: wanted.entries.min(entries), bytes: wanted.bytes.min(bytes) })
    }

    /// How many bases there are, and their bytes.
    pub fn usage(&self) -> (usize, u64) {
        let cells = self.lock_cells();
        let sizes = cells.values().filter_map(|cell| cell.bytes());
        sizes.fold((0, 0), |(count, bytes), more| (count + 1, bytes + more))
    }

    fn make(&self, repository: &Repository, tree: TreeId) -> Result<TreeMeasure, GitError> {
        let draft = self.folder.join(format!("new-{}", self.count()));
        let BaseOptions { owner, limits, .. } = self.options;
        let options = ExportOptions { owner, limits, room: &|more| self.make_room(more) };
        let made = repository.export_tree(tree, &draft, &options).and_then(|measure| {
            let size = self.folder.join(format!("{tree}.size"));
            let text = format!("{} {}\n", measure.entries, measure.bytes);
            fs::write(&size, text).map_err(GitError::io("write", &size))?;
            let path = self.folder.join(tree.to_string());
            fs::rename(&draft, &path).map_err(GitError::io("rename", &path))?;
            Ok(measure)
        });
        if made.is_err() {
            let _ = remove_tree(&draft);
        }
        made
    }

    /// Removes the least recently used base of those that nobody holds; `false` if there is none.
    fn remove_oldest(&self) -> Result<bool, GitError> {
        let Some(aside) = self.set_oldest_aside()? else { return Ok(false) };
        remove_tree(&aside)?;
        Ok(true)
    }

    /// Moves it aside under the map's lock, so that nobody gets a handle on one that goes.
    fn set_oldest_aside(&self) -> Result<Option<PathBuf>, GitError> {
        let mut cells = self.lock_cells();
        let is_unused = |cell: &Arc<Cell>| Arc::strong_count(cell) == 1;
        // Those that could not be made.
        cells.retain(|_, cell| !is_unused(cell) || cell.bytes().is_some());
        let unused = cells.iter().filter(|(_, cell)| is_unused(cell));
        let oldest = unused.min_by_key(|(tree, cell)| (cell.last_use.load(Ordering::Relaxed), **tree));
        let Some(tree) = oldest.map(|(tree, _)| *tree) else { return Ok(None) };
        let path = self.folder.join(tree.to_string());
        let aside = self.folder.join(format!("old-{}", self.count()));
        match fs::rename(&path, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GitError::io("rename", &path)(error));
            }
            _ => {}
        }
        cells.remove(&tree);
        let _ = fs::remove_file(self.folder.join(format!("{tree}.size")));
        Ok(Some(aside))
    }

    fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn lock_removal(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock_removal(&self) -> Option<MutexGuard<'_, ()>> {
        match self.removal.try_lock() {
            Err(std::sync::TryLockError::WouldBlock) => None,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(alone) => Some(alone),
        }
    }

    fn lock_cells(&self) -> MutexGuard<'_, HashMap<TreeId, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cell {
    fn made(measure: TreeMeasure) -> Cell {
        Cell { made: Mutex::new(Some(measure)), last_use: AtomicU64::new(0) }
    }

    /// What it takes on the disk; nothing yet while it is being made.
    fn bytes(&self) -> Option<u64> {
        let made = self.made.try_lock().ok()?;
        made.map(|measure| measure.on_disk().bytes)
    }
}

/// Of one that does not say it, as much as there is.
fn disk_size(folder: &Path) -> TreeMeasure {
    let unsaid = TreeMeasure { entries: u64::MAX, bytes: u64::MAX };
    rustix::fs::statvfs(folder).map_or(unsaid, |disk| TreeMeasure {
        entries: disk.f_files,
        bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

fn lock_folder(folder: &Path) -> Result<File, GitError> {
    let path = folder.join("lock");
    let lock = File::create(&path).map_err(GitError::io("write", &path))?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::park_timeout(LOCK_LOOK),
            Err(TryLockError::WouldBlock) => return Err(GitError::Exists { path }),
            Err(TryLockError::Error(source)) => return Err(GitError::Io { action: "lock", path, source }),
        }
    }
}

/// A finished base and its size, by the names in the folder.
fn adoptable(path: &Path) -> Option<(TreeId, TreeMeasure)> {
    let tree: TreeId = path.file_name()?.to_str()?.parse().ok()?;
    let size = fs::read_to_string(path.with_extension("size")).ok()?;
    let (entries, bytes) = size.trim().split_once(' ')?;
    Some((tree, TreeMeasure { entries: entries.parse().ok()?, bytes: bytes.parse().ok()? }))
}

/// Asks ext4 to put the folders in here apart from each other (`chattr +T`). On an ext4 without journal, new files next
/// to files that were just removed cost 0.5 to 0.9 ms each instead of 0.02. Other file systems have no need of it.
pub fn spread_folders(folder: &Path) {
    let Ok(open) = File::open(folder) else { return };
    if let Ok(flags) = ioctl_getflags(&open) {
        let _ = ioctl_setflags(&open, flags | IFlags::TOPDIR);
    }
}

fn remove_tree(path: &Path) -> Result<(), GitError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(GitError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
