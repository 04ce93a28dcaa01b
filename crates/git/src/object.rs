//! Git objects as bytes: ids, commits and trees are read and written in this process.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use sha1::{Digest as _, Sha1};
use towpath_core::ids::{CommitId, IdError, Timestamp, TreeId};

use crate::error::{GitError, printable};

/// Any git object, of a kind that the context says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 20]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        CommitId(self.0).fmt(f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&CommitId(self.0), f)
    }
}

impl FromStr for ObjectId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<CommitId>().map(ObjectId::from)
    }
}

impl From<CommitId> for ObjectId {
    fn from(id: CommitId) -> Self {
        ObjectId(id.0)
    }
}

impl From<TreeId> for ObjectId {
    fn from(id: TreeId) -> Self {
        ObjectId(id.0)
    }
}

impl ObjectId {
    /// Reads forty hex digits.
    pub(crate) fn from_hex(bytes: &[u8]) -> Option<ObjectId> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// A path inside a tree: raw bytes, as git has them. `Display` shows it without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TreePath(pub Vec<u8>);

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0).replace('\n', "?"))
    }
}

/// A person as a commit names them. Decides nothing: anybody can write anything there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name, invalid UTF-8 replaced.
    pub name: String,
    /// The address between the angle brackets.
    pub email: String,
    /// When, by their clock.
    pub time: Timestamp,
}

/// What a commit says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// Its tree.
    pub tree: TreeId,
    /// Its parents, first one first.
    pub parents: Vec<CommitId>,
    /// Who wrote it.
    pub author: Person,
    /// Who made the commit object.
    pub committer: Person,
    /// The whole message, invalid UTF-8 replaced.
    pub message: String,
    pub(crate) raw: RawCommit,
}

/// The parts of a commit that a rebase keeps byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RawCommit {
    pub author: Vec<u8>,
    pub encoding: Option<Vec<u8>>,
    pub message: Vec<u8>,
}

impl CommitInfo {
    /// Reads a commit object.
    pub(crate) fn parse(id: CommitId, bytes: &[u8]) -> Result<CommitInfo, GitError> {
        let bad = |why: &str| GitError::malformed(id, why);
        let end = find(bytes, b"\n\n").unwrap_or(bytes.len());
        let (mut tree, mut parents, mut author, mut committer, mut encoding) =
            (None, vec![], None, None, None);
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let value = line.get(at + 1..).unwrap_or_default();
            match &line[..at] {
                b"tree" if tree.is_none() => tree = ObjectId::from_hex(value),
                b"parent" => parents.push(ObjectId::from_hex(value).ok_or_else(|| bad("a bad parent"))?),
                b"author" if author.is_none() => author = Some(value),
                b"committer" if committer.is_none() => committer = Some(value),
                b"encoding" => encoding = Some(value.to_vec()),
                _ => {}
            }
        }
        let author = author.ok_or_else(|| bad("a commit without an author"))?;
        let committer = committer.ok_or_else(|| bad("a commit without a committer"))?;
        let message = bytes.get(end + 2..).unwrap_or_default();
        Ok(CommitInfo {
            id,
            tree: TreeId(tree.ok_or_else(|| bad("a commit without a tree"))?.0),
            parents: parents.into_iter().map(|parent| CommitId(parent.0)).collect(),
            author: Person::parse(author),
            committer: Person::parse(committer),
            message: String::from_utf8_lossy(message).into_owned(),
            raw: RawCommit { author: author.to_vec(), encoding, message: message.to_vec() },
        })
    }
}

impl Person {
    /// `Name <mail> 1700000000 +0100`, and whatever old tools made of it: what is missing is empty, or 1970.
    fn parse(line: &[u8]) -> Person {
        let line = String::from_utf8_lossy(line);
        let (name, rest) = line.split_once('<').unwrap_or((&line, ""));
        let (email, rest) = rest.rsplit_once('>').unwrap_or((rest, ""));
        let seconds = rest.split_whitespace().next().and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
        let time = Timestamp(seconds.saturating_mul(1000));
        Person { name: name.trim().to_owned(), email: email.trim().to_owned(), time }
    }
}

/// A commit to be written.
pub(crate) struct NewCommit<'a> {
    pub tree: TreeId,
    pub parents: &'a [CommitId],
    pub author: &'a [u8],
    pub committer: &'a [u8],
    pub encoding: Option<&'a [u8]>,
    pub message: &'a [u8],
}

impl NewCommit<'_> {
    /// The object's content, as `git commit-tree` would write it.
    pub fn content(&self) -> Vec<u8> {
        let mut content = format!("tree {}\n", self.tree).into_bytes();
        for parent in self.parents {
            content.extend_from_slice(format!("parent {parent}\n").as_bytes());
        }
        let mut header = |name: &str, value: &[u8]| {
            content.extend_from_slice(name.as_bytes());
            content.push(b' ');
            content.extend_from_slice(value);
            content.push(b'\n');
        };
        header("author", self.author);
        header("committer", self.committer);
        if let Some(encoding) = self.encoding {
            header("encoding", encoding);
        }
        content.push(b'\n');
        content.extend_from_slice(self.message);
        content
    }
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Tree,
    File { executable: bool },
    Symlink,
    Submodule,
}

/// One entry of a tree object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub mode: u32,
    pub name: &'a [u8],
    pub id: ObjectId,
}

impl Entry<'_> {
    /// The kind by the mode's type bits, as git reads it.
    pub fn kind(&self) -> Option<EntryKind> {
        match self.mode & 0o170000 {
            0o040000 => Some(EntryKind::Tree),
            0o100000 => Some(EntryKind::File { executable: self.mode & 0o100 != 0 }),
            0o120000 => Some(EntryKind::Symlink),
            0o160000 => Some(EntryKind::Submodule),
            _ => None,
        }
    }
}

/// Reads the entries of a tree object one by one.
pub(crate) fn entries(tree: TreeId, bytes: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, GitError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = split_entry(rest);
        rest = entry.map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry).ok_or_else(|| GitError::malformed(tree, "a bad tree entry")))
    })
}

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
    let name_on = &bytes[space + 1..];
    let end = name_on.iter().position(|byte| *byte == 0)?;
    let id = name_on.get(end + 1..end + 21)?.try_into().ok()?;
    Some((Entry { mode, name: &name_on[..end], id: ObjectId(id) }, &name_on[end + 21..]))
}

/// Writes a commit as a loose object below `objects`; one that is there already, and whole, is left alone.
///
/// It is not synced: that is done when it lands, with all that it reaches, and what a power cut leaves of it before
/// that is removed by [`Repository::mend`](crate::Repository::mend).
pub(crate) fn write_commit(objects: &Path, commit: &NewCommit<'_>) -> Result<CommitId, GitError> {
    write_object(objects, "commit", &commit.content()).map(|id| CommitId(id.0))
}

/// The id of an object in the making: what it holds and nothing else.
pub(crate) struct Named(Sha1);

impl Named {
    /// An object of some kind and size.
    pub fn begin(kind: &str, bytes: u64) -> Named {
        Named(Sha1::new().chain_update(header(kind, bytes)))
    }

    /// The next piece of it.
    pub fn take(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub fn id(self) -> ObjectId {
        ObjectId(self.0.finalize().into())
    }
}

/// What stands in front of an object's content, also in its file.
fn header(kind: &str, bytes: u64) -> String {
    format!("{kind} {bytes}\0")
}

/// The same for an object of any kind.
pub(crate) fn write_object(objects: &Path, kind: &str, content: &[u8]) -> Result<ObjectId, GitError> {
    let header = header(kind, content.len() as u64);
    let mut named = Named::begin(kind, content.len() as u64);
    named.take(content);
    let id = named.id();
    let path = loose_path(objects, id);
    if is_renewed(&path, id)? {
        return Ok(id);
    }
    let folder = path.parent().expect("a loose object has a folder");
    let temporary = folder.join(temporary_name());
    let write = || write_loose(&temporary, &[header.as_bytes(), content]);
    let written = match write() {
        // Garbage collection removes empty folders.
        Err(GitError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            make_folder(folder)?;
            write()
        }
        written => written,
    };
    let placed = written.and_then(|()| fs::rename(&temporary, &path).map_err(GitError::io("rename", &path)));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed.map(|()| id)
}

/// Whether an object's file is there and whole; if so it is as good as new, as git does it: garbage collection goes by its age.
/// One that is damaged, or that the disk does not give, does not stand in the way of the same object.
fn is_renewed(path: &Path, id: ObjectId) -> Result<bool, GitError> {
    let renewed = |file: File| file.set_modified(std::time::SystemTime::now()).map(|()| file);
    match File::open(path).and_then(renewed) {
        Ok(file) => Ok(holds(file, path, id).unwrap_or(false)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(GitError::io("renew", path)(error)),
    }
}

fn make_folder(folder: &Path) -> Result<(), GitError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(GitError::io("make", folder)(error)),
        _ => Ok(()),
    }
}

fn write_loose(path: &Path, parts: &[&[u8]]) -> Result<(), GitError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(path);
    let file = file.map_err(GitError::io("write", path))?;
    let mut encoder = ZlibEncoder::new(file, Compression::fast());
    parts.iter().try_for_each(|part| encoder.write_all(part)).map_err(GitError::io("write", path))?;
    encoder.finish().map(drop).map_err(GitError::io("write", path))
}

/// Whether a loose object's file holds what its name says.
///
/// # Errors
/// `Io` if that cannot be told: the disk does not give the file, or this process may open no more. It may be whole.
pub(crate) fn is_whole(path: &Path, id: ObjectId) -> Result<bool, GitError> {
    let file = File::open(path).map_err(GitError::io("read", path))?;
    holds(file, path, id)
}

/// Removes the file of a loose object that was seen not to hold it. Whoever has written the object again meanwhile keeps what
/// they wrote: the file is looked at once more where nobody else finds it. Returns whether one was removed.
pub(crate) fn remove_spoilt(path: &Path, id: ObjectId) -> Result<bool, GitError> {
    let aside = path.with_file_name(temporary_name());
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        moved => moved.map_err(GitError::io("rename", path))?,
    }
    match is_whole(&aside, id) {
        Ok(false) => fs::remove_file(&aside).map_err(GitError::io("remove", &aside)).map(|()| true),
        kept => {
            fs::rename(&aside, path).map_err(GitError::io("rename", &aside))?;
            kept.map(|_| false)
        }
    }
}

fn holds(file: File, path: &Path, id: ObjectId) -> Result<bool, GitError> {
    let mut content = ZlibDecoder::new(BufReader::new(file));
    let mut hasher = Sha1::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(<[u8; 20]>::from(hasher.finalize()) == id.0),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if is_of_the_decoder(&error) => return Ok(false),
            Err(error) => return Err(GitError::io("read", path)(error)),
        }
    }
}

/// Bytes that are no zlib stream are found by the decoder, whose errors bear no number of the system's.
fn is_of_the_decoder(error: &std::io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// Where an object lies when it is not in a pack.
pub(crate) fn loose_path(objects: &Path, id: ObjectId) -> PathBuf {
    let hex = id.to_string();
    objects.join(&hex[..2]).join(&hex[2..])
}

/// Git's own prefix, so that `git gc` clears away what a crash leaves.
fn temporary_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("tmp_obj_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
