//! Manifests: the files of one output, by path and digest.

use std::fmt;

use serde::{Deserialize, Serialize};
use towpath_core::ids::Digest;

use crate::store::{BlobError, BlobInfo, BlobStore};

/// Bytes of one manifest. 100,000 files with paths of 300 bytes stay below it.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one path. Source: `PATH_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of one part of a path. Source: `NAME_MAX` of Linux.
const NAME_BYTES_MAX: usize = 255;

/// A relative path in any bytes: no empty part, no `.`, no `..`, no NUL. Its text form escapes what is not
/// printable ASCII, and `%`, as `%XX`, so that two paths never look alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Vec<u8>);

impl FilePath {
    /// Takes a path if it is a plain relative one.
    ///
    /// # Errors
    /// [`BlobError::Manifest`] that says what is wrong with it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<FilePath, BlobError> {
        let path = FilePath(bytes.into());
        let part_ok = |part: &[u8]| {
            (1..=NAME_BYTES_MAX).contains(&part.len()) && part != b"." && part != b".." && !part.contains(&0)
        };
        match path.0.len() <= PATH_BYTES_MAX && path.0.split(|byte| *byte == b'/').all(part_ok) {
            true => Ok(path),
            false => Err(BlobError::Manifest(format!("`{path}` is not a plain relative path"))),
        }
    }

    /// The bytes, parts joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'!'..=b'~' if *byte != b'%' => write!(f, "{}", char::from(*byte)),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for FilePath {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<FilePath, BlobError> {
        let wrong = || BlobError::Manifest("a path has a broken %-escape".to_owned());
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let pair = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
                    let pair = std::str::from_utf8(&pair).map_err(|_| wrong())?;
                    u8::from_str_radix(pair, 16).map_err(|_| wrong())?
                }
                other => other,
            });
        }
        FilePath::new(bytes)
    }
}

impl Serialize for FilePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<FilePath, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One file of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Where it was below the work tree.
    pub path: FilePath,
    /// Whether its owner may execute it. No other mode bit is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Its size in bytes.
    pub size: u64,
    /// The blob with its bytes.
    pub digest: Digest,
}

/// The files of one output, sorted by path, each path once. Equal outputs have equal digests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    files: Vec<ManifestFile>,
}

impl Manifest {
    /// Sorts the files.
    ///
    /// # Errors
    /// [`BlobError::Manifest`] if a path is there twice, or is also the folder of another.
    pub fn new(mut files: Vec<ManifestFile>) -> Result<Manifest, BlobError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest { files };
        manifest.check()?;
        Ok(manifest)
    }

    /// The files, sorted by the bytes of their paths.
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// Sum of the sizes, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Stores the manifest as a blob; its digest names the output.
    ///
    /// # Errors
    /// As [`BlobStore::put`].
    pub fn put(&self, store: &BlobStore) -> Result<BlobInfo, BlobError> {
        let bytes = serde_json::to_vec(self).expect("a manifest has only texts and numbers");
        store.put_bytes(&bytes)
    }

    /// Reads a manifest by its digest and checks its rules.
    ///
    /// # Errors
    /// [`BlobError::Missing`] or [`BlobError::Damaged`] as the blob has it, [`BlobError::Manifest`] if it is none.
    pub fn load(store: &BlobStore, digest: &Digest) -> Result<Manifest, BlobError> {
        let bytes = store.read(digest, MANIFEST_BYTES_MAX)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| BlobError::Manifest(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), BlobError> {
        let clash = self.files.windows(2).find(|pair| pair[0].path >= pair[1].path);
        if let Some(pair) = clash {
            return Err(BlobError::Manifest(format!("`{}` is not in order or twice", pair[1].path)));
        }
        let paths: std::collections::BTreeSet<&[u8]> =
            self.files.iter().map(|file| file.path.as_bytes()).collect();
        let inside_a_file = |path: &[u8]| {
            path.iter().enumerate().any(|(at, byte)| *byte == b'/' && paths.contains(&path[..at]))
        };
        match self.files.iter().find(|file| inside_a_file(file.path.as_bytes())) {
            Some(file) => Err(BlobError::Manifest(format!("`{}` lies in a file", file.path))),
            None => Ok(()),
        }
    }
}
