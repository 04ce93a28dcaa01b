//! Reading objects through a kept-open `git cat-file`. It does not look whether what it read is what was asked for: one bit that
//! flips in a pack or in its index gives the content of another object, a record from before an approval was withdrawn say. What
//! is read here is what its id says.

use std::io::ErrorKind;
use std::time::Duration;

use towpath_core::ids::{CommitId, TreeId};

use crate::coprocess::{Coprocess, Slot};
use crate::environment::Call;
use crate::error::{GitError, printable};
use crate::object::{CommitInfo, Entry, Named, ObjectId, TreePath, entries, is_whole, loose_path};
use crate::process::{Prepared, Until};
use crate::refs::RefName;
use crate::repository::Repository;

/// Refs of changes that are asked for a damaged object; each takes some milliseconds.
const CHANGE_REFS_ASKED_MAX: usize = 10_000;
/// Bytes of the line in front of an object.
const HEADER_BYTES_MAX: usize = 256;
/// Bytes of one commit object. Linux's largest, with 66 parents, has 10 KB.
const COMMIT_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of one tree object: 700,000 entries of 40-byte names.
pub(crate) const TREE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Ends a request. Git buffers its answers until then, so that an object comes in one piece and not in three.
const FLUSH: &str = "flush\n";
/// Bytes of an unwanted object that are read and dropped; for more of them git is restarted (3 ms).
const SKIPPED_BYTES_MAX: u64 = 1024 * 1024;
/// Questions sent before their answers are read. Each takes 47 bytes and its answer about 55, so that both sides
/// fit into their pipe (64 KiB) and neither ever waits for the other.
pub(crate) const QUESTIONS_AHEAD_MAX: usize = 512;

/// What stands at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAt {
    /// Nothing.
    Absent,
    /// Something that is not a plain file: a link, a folder, a submodule, or a file with the executable bit.
    NotRegular {
        /// Git's mode, `0o120000` for a symbolic link.
        mode: u32,
    },
    /// A plain file that is larger than the caller wants to read.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The content of a plain file (mode 100644).
    Content(Vec<u8>),
}

/// The mode of a plain file. Only such a file can be a definition: a link could point out of the tree.
const PLAIN_FILE: u32 = 0o100644;

/// The line in front of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: String,
    pub bytes: u64,
}

/// Access to one repository's objects through a process of its own, or the shared one.
pub(crate) struct Reader<'a> {
    repository: &'a Repository,
    slot: &'a Slot,
    deadline: Duration,
}

impl Repository {
    pub(crate) fn read(&self) -> Reader<'_> {
        Reader { repository: self, slot: self.reader(), deadline: self.bounds().deadline }
    }

    /// What a commit says.
    ///
    /// # Errors
    /// `Missing`, or `WrongKind` for another object.
    pub fn commit(&self, id: CommitId) -> Result<CommitInfo, GitError> {
        let bytes = self.read().content(id.into(), "commit", COMMIT_BYTES_MAX)?;
        CommitInfo::parse(id, &bytes)
    }

    /// Whether the repository has this commit.
    pub fn has_commit(&self, id: CommitId) -> Result<bool, GitError> {
        Ok(self.read().header(id.into())?.is_some_and(|header| header.kind == "commit"))
    }

    /// The commit that an object stands for: itself, or what an annotated tag names in the end.
    pub fn peel(&self, id: ObjectId) -> Result<CommitId, GitError> {
        let mut at = id;
        for _ in 0..TAG_DEPTH_MAX {
            match self.read().header(at)? {
                None => return Err(GitError::Missing { id: at }),
                Some(header) if header.kind == "tag" => {
                    let tag = self.read().content(at, "tag", COMMIT_BYTES_MAX)?;
                    let target = tag.strip_prefix(b"object ").and_then(|rest| rest.get(..40));
                    at = target
                        .and_then(ObjectId::from_hex)
                        .ok_or_else(|| GitError::malformed(at, "a bad tag"))?;
                }
                Some(header) if header.kind == "commit" => return Ok(CommitId(at.0)),
                Some(header) => {
                    return Err(GitError::WrongKind { id: at, wanted: "commit", found: header.kind });
                }
            }
        }
        Err(GitError::malformed(id, "a tag of tags without an end"))
    }

    /// What stands at `path` in a tree. Links are never followed, neither at the end nor on the way.
    pub fn file_at(&self, tree: TreeId, path: &str, bytes_max: u64) -> Result<FileAt, GitError> {
        let reader = self.read();
        let mut at = tree;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let bytes = reader.tree(at)?;
            let Some(entry) = find_entry(at, &bytes, part)? else { return Ok(FileAt::Absent) };
            let last = parts.peek().is_none();
            match entry.mode {
                0o040000 if !last => at = TreeId(entry.id.0),
                PLAIN_FILE if last => return reader.plain_file(entry.id, bytes_max),
                mode => return Ok(FileAt::NotRegular { mode }),
            }
        }
        Ok(FileAt::Absent)
    }

    /// The error of a call that git ended over an object: it is about that object then. Others stay as they are.
    pub(crate) fn explained(&self, error: GitError, asked: &[CommitId]) -> GitError {
        match &error {
            GitError::Failed { stderr, .. } => self.damage_in(stderr, asked).unwrap_or(error),
            _ => error,
        }
    }

    /// What is wrong with the first object of those that git's words name that cannot be read. What nobody asked for by name
    /// is named by something that is there: where it is missing it was lost.
    pub(crate) fn damage_in(&self, words: &str, asked: &[CommitId]) -> Option<GitError> {
        let words = words.split(|c: char| !c.is_ascii_hexdigit());
        let found = words.filter_map(|word| word.parse().ok()).find_map(|id| self.damage_of(id))?;
        match found {
            GitError::Missing { id } if !asked.contains(&CommitId(id.0)) => Some(GitError::Damaged { id }),
            found => Some(found),
        }
    }

    /// The error of a call that met everything which the refs reach: where it is about an object of a change, that is named.
    pub(crate) fn located(&self, error: GitError) -> GitError {
        match self.explained(error, &[]) {
            GitError::Missing { id } | GitError::Damaged { id } => match self.change_ref_to(id) {
                Ok(Some(name)) => GitError::DamagedBelow { id, name },
                Ok(None) | Err(_) => GitError::Damaged { id },
            },
            GitError::Failed { call, status, stderr } => {
                self.damaged_ref(&stderr).unwrap_or(GitError::Failed { call, status, stderr })
            }
            error => error,
        }
    }

    /// Git names what a ref itself names by the ref.
    fn damaged_ref(&self, words: &str) -> Option<GitError> {
        let name = words.split_whitespace().find_map(|word| word.parse::<RefName>().ok())?;
        let id = self.ref_target(&name).ok()??;
        self.damage_of(id)?;
        Some(match name.as_str().starts_with("refs/changes/") {
            true => GitError::DamagedBelow { id, name },
            false => GitError::Damaged { id },
        })
    }

    /// A ref of a change that reaches an object which no branch and no tag does.
    fn change_ref_to(&self, object: ObjectId) -> Result<Option<RefName>, GitError> {
        let names_it = |call: Call<'_>| {
            let finished = call.prepare().finish(&[], self.bounds())?;
            let said = [&finished.output[..], finished.stderr.as_bytes()].concat();
            Ok::<_, GitError>(String::from_utf8_lossy(&said).contains(&object.to_string()))
        };
        let brought = ["--branches", "--tags"];
        if names_it(self.call("rev-list").args(brought).arg("--quiet"))? {
            return Ok(None);
        }
        for found in self.refs("refs/changes")?.into_iter().take(CHANGE_REFS_ASKED_MAX) {
            let call = self.call("rev-list").args(["--objects", "--no-object-names"]);
            if names_it(call.arg(found.target.to_string()).arg("--not").args(brought))? {
                return Ok(Some(found.name));
            }
        }
        Ok(None)
    }

    /// What is wrong with an object, if it cannot be read; `None` also where that cannot be told.
    pub fn damage_of(&self, id: ObjectId) -> Option<GitError> {
        match is_whole(&loose_path(&self.objects(), id), id) {
            Ok(whole) => (!whole).then_some(GitError::Damaged { id }),
            Err(GitError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                match self.read().header(id).ok()? {
                    None => Some(GitError::Missing { id }),
                    Some(header) => self.is_damaged(id, &header.kind).then_some(GitError::Damaged { id }),
                }
            }
            Err(_) => None,
        }
    }

    /// Whether it is for an object that git ends over it, and not for want of memory, say: what a loose one's file holds is
    /// seen here; of a packed one git itself says so once more, in a process that nobody has killed, or gives another one.
    fn is_damaged(&self, id: ObjectId, kind: &str) -> bool {
        match is_whole(&loose_path(&self.objects(), id), id) {
            Ok(whole) => return !whole,
            Err(GitError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(_) => return false,
        }
        let again = self.call("cat-file").arg(kind).arg(id.to_string()).prepare().finish(&[], self.bounds());
        again.is_ok_and(|ended| match ended.status.code() {
            Some(0) => {
                let mut named = Named::begin(kind, ended.output.len() as u64);
                named.take(&ended.output);
                named.id() != id
            }
            code => code.is_some(),
        })
    }

    /// The paths directly in the folder `path` of a tree (`""` for the root); empty if there is no such folder.
    pub fn names_in(&self, tree: TreeId, path: &str) -> Result<Vec<TreePath>, GitError> {
        let reader = self.read();
        let mut at = tree;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let bytes = reader.tree(at)?;
            match find_entry(at, &bytes, part)? {
                Some(entry) if entry.mode == 0o040000 => at = TreeId(entry.id.0),
                _ => return Ok(Vec::new()),
            }
        }
        let bytes = reader.tree(at)?;
        entries(at, &bytes).map(|entry| entry.map(|entry| TreePath(entry.name.to_vec()))).collect()
    }
}

/// Tags of tags that are followed; more than one is a curiosity.
const TAG_DEPTH_MAX: usize = 8;

pub(crate) fn find_entry<'a>(
    tree: TreeId,
    bytes: &'a [u8],
    name: &str,
) -> Result<Option<Entry<'a>>, GitError> {
    for entry in entries(tree, bytes) {
        let entry = entry?;
        if entry.name == name.as_bytes() {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

impl<'a> Reader<'a> {
    /// A reader with a process of its own, so that a long walk does not keep others waiting.
    pub fn apart(repository: &'a Repository, slot: &'a Slot) -> Reader<'a> {
        Reader { repository, slot, deadline: repository.bounds().deadline }
    }

    /// Kind and size of an object, if it is there.
    pub fn header(&self, id: ObjectId) -> Result<Option<Header>, GitError> {
        Ok(self.headers(&[id])?.pop().flatten())
    }

    /// Kinds and sizes of many objects, in the order of the questions.
    pub fn headers(&self, ids: &[ObjectId]) -> Result<Vec<Option<Header>>, GitError> {
        let until = Until::after(self.deadline);
        let mut headers = Vec::with_capacity(ids.len());
        for ids in ids.chunks(QUESTIONS_AHEAD_MAX) {
            let request: String =
                ids.iter().map(|id| format!("info {id}\n")).chain([FLUSH.to_owned()]).collect();
            let answers = self.with(|process| {
                process.send(request.as_bytes(), until)?;
                ids.iter().map(|_| read_header(process, until)).collect::<Result<Vec<_>, _>>()
            })?;
            headers.extend(answers);
        }
        Ok(headers)
    }

    /// The bytes of an object of the wanted kind.
    ///
    /// # Errors
    /// `Damaged` if it is there and cannot be read however often it is tried.
    pub fn content(&self, id: ObjectId, wanted: &'static str, bytes_max: u64) -> Result<Vec<u8>, GitError> {
        match self.ask_content(id, wanted, bytes_max) {
            Err(GitError::Failed { .. }) if self.repository.is_damaged(id, wanted) => {
                Err(GitError::Damaged { id })
            }
            asked => asked,
        }
    }

    fn ask_content(&self, id: ObjectId, wanted: &'static str, bytes_max: u64) -> Result<Vec<u8>, GitError> {
        let until = Until::after(self.deadline);
        self.with(|process| {
            process.send(format!("contents {id}\n{FLUSH}").as_bytes(), until)?;
            let Some(header) = read_header(process, until)? else { return Ok(Err(GitError::Missing { id })) };
            match unfit(id, &header, (wanted, bytes_max)) {
                // An error ends the process, which is cheaper than reading on.
                Some(error) if header.bytes > SKIPPED_BYTES_MAX => return Err(error),
                _ => {}
            }
            let mut content = Vec::with_capacity(header.bytes as usize);
            let mut named = Named::begin(&header.kind, header.bytes);
            process.pieces(header.bytes, until, |piece| {
                named.take(piece);
                content.extend_from_slice(piece);
                Ok(())
            })?;
            process.line(b'\n', 1, until)?;
            if named.id() != id {
                return Ok(Err(GitError::Damaged { id }));
            }
            Ok(unfit(id, &header, (wanted, bytes_max)).map_or(Ok(content), Err))
        })?
    }

    /// Streams many objects, one after the other, in the order given; at most [`QUESTIONS_AHEAD_MAX`].
    ///
    /// An empty piece begins an object, or begins it again from its first byte when git had to be restarted.
    ///
    /// # Errors
    /// `Damaged` for one that is not what its id says; by then its pieces have been passed on.
    pub fn contents(
        &self,
        ids: &[ObjectId],
        mut sink: impl FnMut(usize, &[u8]) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        let mut failed = None;
        self.with(|process| {
            // The answers may be longer than a pipe, but git then only waits for us; the questions always fit.
            let request: String =
                ids.iter().map(|id| format!("contents {id}\n")).chain([FLUSH.to_owned()]).collect();
            process.send(request.as_bytes(), Until::after(self.deadline))?;
            for (at, id) in ids.iter().enumerate() {
                let until = Until::after(self.deadline);
                let Some(header) = read_header(process, until)? else {
                    failed.get_or_insert(GitError::Missing { id: *id });
                    continue;
                };
                let mut named = Named::begin(&header.kind, header.bytes);
                let mut pass = |piece: &[u8]| {
                    named.take(piece);
                    if failed.is_none() {
                        failed = sink(at, piece).err();
                    }
                    Ok(())
                };
                pass(&[])?;
                process.pieces(header.bytes, until, pass)?;
                process.line(b'\n', 1, until)?;
                if named.id() != *id {
                    failed.get_or_insert(GitError::Damaged { id: *id });
                }
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The bytes of a tree object.
    pub fn tree(&self, id: TreeId) -> Result<Vec<u8>, GitError> {
        self.content(id.into(), "tree", TREE_BYTES_MAX)
    }

    fn plain_file(&self, id: ObjectId, bytes_max: u64) -> Result<FileAt, GitError> {
        let header = self.header(id)?.ok_or(GitError::Missing { id })?;
        if header.bytes > bytes_max {
            return Ok(FileAt::TooLarge { bytes: header.bytes });
        }
        self.content(id, "blob", bytes_max).map(FileAt::Content)
    }

    fn with<T>(&self, exchange: impl FnMut(&mut Coprocess) -> Result<T, GitError>) -> Result<T, GitError> {
        self.slot.with(|| prepare(self.repository), exchange)
    }
}

fn unfit(id: ObjectId, header: &Header, (wanted, bytes_max): (&'static str, u64)) -> Option<GitError> {
    if header.kind != wanted {
        return Some(GitError::WrongKind { id, wanted, found: header.kind.clone() });
    }
    let too_large =
        || GitError::TooLarge { what: format!("{wanted} {id}"), limit: format!("{bytes_max} bytes") };
    (header.bytes > bytes_max).then(too_large)
}

fn prepare(repository: &Repository) -> Prepared {
    repository.call("cat-file").args(["--batch-command", "--buffer"]).prepare()
}

/// `<id> <kind> <bytes>`, or `<id> missing`.
fn read_header(process: &mut Coprocess, until: Until) -> Result<Option<Header>, GitError> {
    let line = process.line(b'\n', HEADER_BYTES_MAX, until)?;
    let text = printable(&line);
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [_, "missing"] => Ok(None),
        [_, kind, bytes] => {
            let bytes = bytes.parse().map_err(|_| GitError::unexpected("cat-file", &line))?;
            Ok(Some(Header { kind: kind.to_owned(), bytes }))
        }
        _ => Err(GitError::unexpected("cat-file", &line)),
    }
}
