//! Blobs: immutable files named by the SHA-256 of their bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use towpath_core::ids::Digest;

use crate::reserve::{NoRoom, Reserve, Spending};

/// Bytes moved at once. Large enough to hide the cost of the call, small enough for the second-level cache.
const COPY_BYTES: usize = 256 * 1024;

/// What went wrong with a blob or a log. Each message says what, and where it helps what to do.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes to be stored could not be read.
    #[error("cannot read what is to be stored: {0}")]
    Source(io::Error),
    /// No blob has this digest.
    #[error("no blob {0}: it was never stored here, or its retention is over")]
    Missing(Digest),
    /// A stored blob's bytes no longer have its digest.
    #[error(
        "blob {wanted} is damaged: its bytes have the digest {found}; restore it from a backup or run its job again"
    )]
    Damaged {
        /// The blob's name.
        wanted: Digest,
        /// The digest of the bytes that are there.
        found: Digest,
    },
    /// More bytes than the caller allows.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A manifest that breaks its own rules.
    #[error("not a manifest: {0}")]
    Manifest(String),
    /// The rest of the disk is the server's.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl BlobError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
        let path = path.to_owned();
        move |source| BlobError::Io { action, path, source }
    }

    /// Whether the disk is full or a quota is used up: our machines' trouble, not the code's under test.
    pub fn is_disk_full(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        match self {
            BlobError::Io { source, .. } | BlobError::Source(source) => kinds.contains(&source.kind()),
            BlobError::NoRoom(_) => true,
            _ => false,
        }
    }
}

/// A stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A folder of blobs. Several processes may use one folder at once: a blob appears whole or not at all.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
    /// What is stored leaves it free.
    reserve: Option<Reserve>,
}

impl BlobStore {
    /// Opens the store in `root` and makes its folders.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<BlobStore, BlobError> {
        let store = BlobStore { root: root.into(), reserve: None };
        for folder in [store.root.join("sha256"), store.root.join("tmp")] {
            fs::create_dir_all(&folder).map_err(BlobError::io("make the folder", &folder))?;
        }
        Ok(store)
    }

    /// For what jobs have stored: it leaves the reserve to the server.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> BlobStore {
        BlobStore { reserve: Some(reserve), ..self }
    }

    /// Where the bytes of `digest` are, or would be. Readers must treat the file as immutable.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join("sha256").join(&hex[..2]).join(&hex[2..])
    }

    /// Stores everything that `source` gives. Storing equal bytes twice keeps one file.
    ///
    /// The bytes and the name are on disk (fsync of file and folder) when this returns.
    ///
    /// # Errors
    /// [`BlobError::Source`] if reading fails, [`BlobError::Io`] if writing does, [`BlobError::NoRoom`] where it would take the
    /// reserve.
    pub fn put(&self, source: impl Read) -> Result<BlobInfo, BlobError> {
        self.put_at_most(source, u64::MAX)
    }

    /// Stores bytes that are already in memory.
    ///
    /// # Errors
    /// As [`BlobStore::put`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<BlobInfo, BlobError> {
        let info = BlobInfo { digest: Digest::of(bytes), size: bytes.len() as u64 };
        match self.is_kept(&info.digest)? {
            true => Ok(info),
            false => self.put(bytes),
        }
    }

    /// Stores what `source` gives if it is at most `limit` bytes.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] beyond the limit; nothing is kept then. Otherwise as [`BlobStore::put`].
    pub fn put_at_most(&self, source: impl Read, limit: u64) -> Result<BlobInfo, BlobError> {
        let mut draft = Draft::new(&self.root.join("tmp"))?;
        let info = draft.fill(source, limit, self.reserve.as_ref().map(Reserve::spending))?;
        let path = self.path(&info.digest);
        if self.is_kept(&info.digest)? {
            return Ok(info); // The draft removes itself.
        }
        let folder = path.parent().expect("a blob's path has a folder");
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(BlobError::io("make the folder", folder))?;
            sync_folder(&self.root.join("sha256"))?;
        }
        draft.file.sync_all().map_err(BlobError::io("sync", &draft.path))?;
        fs::rename(&draft.path, &path).map_err(BlobError::io("name", &path))?;
        draft.kept = true;
        sync_folder(folder)?;
        Ok(info)
    }

    /// Whether a blob is there. Says nothing about its bytes; see [`BlobStore::verify`].
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if no blob has this digest.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::Missing(*digest),
            _ => BlobError::Io { action: "open", path, source },
        })
    }

    /// A whole blob in memory, its digest checked.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] beyond `limit` bytes, [`BlobError::Damaged`] if the bytes are not the stored ones.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let file = self.open_blob(digest)?;
        let path = self.path(digest);
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(BlobError::io("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(BlobError::TooLarge { limit });
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(BlobError::Damaged { wanted: *digest, found }),
        }
    }

    /// Reads a blob again and compares its digest.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] with the digest that was found.
    pub fn verify(&self, digest: &Digest) -> Result<BlobInfo, BlobError> {
        let path = self.path(digest);
        let mut hasher = Hashing::default();
        let file = self.open_blob(digest)?;
        hasher.pump(file, |_| Ok(()), u64::MAX).map_err(|error| match error {
            BlobError::Source(source) => BlobError::Io { action: "read", path, source },
            other => other,
        })?;
        match hasher.info() {
            info if info.digest == *digest => Ok(info),
            info => Err(BlobError::Damaged { wanted: *digest, found: info.digest }),
        }
    }

    /// Removes a blob whose retention is over. Removing what is not there is success.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the file cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        remove_if_there(&self.path(digest))
    }

    /// Whether a blob is there and stays for as long as one that is stored now: whoever stores bytes again may rely on
    /// the file that there is, however old it is.
    fn is_kept(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        if !path.exists() {
            return Ok(false);
        }
        let lock = self.lock()?;
        lock.lock_shared().map_err(BlobError::io("lock", &self.root))?;
        match File::open(&path).and_then(|file| file.set_modified(SystemTime::now())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BlobError::io("renew", &path)(error)),
        }
    }

    /// The folder as a lock: shared by those who rely on a blob that is there, alone for what removes some.
    fn lock(&self) -> Result<File, BlobError> {
        File::open(&self.root).map_err(BlobError::io("open", &self.root))
    }

    /// Removes blobs whose digest begins with a byte, that were stored `age` ago or longer, and that nothing wants.
    /// A part of the store at once, so that nobody who stores meanwhile waits for long.
    ///
    /// # Errors
    /// [`BlobError::Io`] if a folder cannot be read or a file not be removed.
    pub fn remove_unwanted(
        &self,
        first: u8,
        age: Duration,
        wanted: impl Fn(&Digest) -> bool,
    ) -> Result<Removed, BlobError> {
        let folder = self.root.join("sha256").join(format!("{first:02x}"));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removed::default()),
            entries => entries.map_err(BlobError::io("list", &folder))?,
        };
        let digest = |entry: &fs::DirEntry| {
            let rest = entry.file_name();
            format!("{first:02x}{}", rest.to_str()?).parse::<Digest>().ok()
        };
        let unwanted: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| digest(entry).is_some_and(|digest| !wanted(&digest)))
            .map(|entry| entry.path())
            .collect();
        let lock = self.lock()?;
        lock.lock().map_err(BlobError::io("lock", &self.root))?;
        let mut removed = Removed::default();
        for path in unwanted {
            let Ok(meta) = fs::metadata(&path) else { continue };
            let stored = meta.modified().map_err(BlobError::io("look at", &path))?;
            if SystemTime::now().duration_since(stored).is_ok_and(|past| past >= age) {
                remove_if_there(&path)?;
                removed.files += 1;
                removed.bytes += meta.len();
            }
        }
        Ok(removed)
    }

    /// Removes drafts that a crash left behind `age` ago or longer; answers how many.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the folder cannot be read.
    pub fn sweep(&self, age: Duration) -> Result<usize, BlobError> {
        let folder = self.root.join("tmp");
        let entries = fs::read_dir(&folder).map_err(BlobError::io("list", &folder))?;
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|meta| meta.modified()).ok();
            modified
                .and_then(|time| SystemTime::now().duration_since(time).ok())
                .is_some_and(|past| past >= age)
        };
        Ok(entries.flatten().filter(old).filter(|entry| fs::remove_file(entry.path()).is_ok()).count())
    }
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), BlobError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(BlobError::io("sync", folder))
}

/// A file that is not a blob yet. Removes itself unless it became one.
struct Draft {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Draft {
    fn new(folder: &Path) -> Result<Draft, BlobError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        // A draft of the same name can only be left from a dead process with our id.
        remove_if_there(&path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(BlobError::io("make", &path))?;
        Ok(Draft { path, file, kept: false })
    }

    fn fill(
        &mut self,
        source: impl Read,
        limit: u64,
        mut spending: Option<Spending>,
    ) -> Result<BlobInfo, BlobError> {
        let mut hashing = Hashing::default();
        let (mut file, path) = (&self.file, &self.path);
        let write = |bytes: &[u8]| {
            spending.as_mut().map_or(Ok(()), |spending| spending.spend(bytes.len() as u64))?;
            file.write_all(bytes).map_err(BlobError::io("write", path))
        };
        hashing.pump(source, write, limit)?;
        Ok(hashing.info())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing depends on a draft: what cannot be removed now is swept later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Default)]
struct Hashing {
    hasher: Sha256,
    size: u64,
}

impl Hashing {
    fn pump(
        &mut self,
        mut source: impl Read,
        mut sink: impl FnMut(&[u8]) -> Result<(), BlobError>,
        limit: u64,
    ) -> Result<(), BlobError> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BlobError::Source(error)),
            };
            self.size += count as u64;
            if self.size > limit {
                return Err(BlobError::TooLarge { limit });
            }
            self.hasher.update(&buffer[..count]);
            sink(&buffer[..count])?;
        }
    }

    fn info(self) -> BlobInfo {
        BlobInfo { digest: Digest(self.hasher.finalize().into()), size: self.size }
    }
}
