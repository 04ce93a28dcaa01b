//! What stands at `towpath.yaml` in a tree, with the digest that approvals and landings are bound to.

use towpath_core::ids::Digest;

use crate::definition::{Definition, FILE_NAME};
use crate::detect::{self, Detected, RootTree};
use crate::diagnostic::{Diagnostics, Place, Report, fault};

/// Git's mode of a regular file.
const MODE_REGULAR: u32 = 0o100_644;
/// Git's mode of a regular file that may be executed.
const MODE_EXECUTABLE: u32 = 0o100_755;
/// Git's mode of a symbolic link.
const MODE_LINK: u32 = 0o120_000;

/// What a tree has at [`FILE_NAME`]. It is read as an object of that tree, never through a path (trust T2).
#[derive(Debug, Clone, Copy)]
pub enum TreeEntry<'a> {
    /// Nothing: the usual checks are detected from the root of the tree.
    Absent(&'a RootTree),
    /// A blob with its mode in the tree, or another object with no bytes.
    Present {
        /// Git's mode of the entry.
        mode: u32,
        /// The blob's bytes; of no matter for other modes than 100644.
        bytes: &'a [u8],
    },
}

/// The definition of one tree.
#[derive(Debug, Clone)]
pub struct DefinitionFile {
    /// Over the file's bytes; without a file, over what was detected.
    pub digest: Digest,
    /// What it says, or everything that is wrong with it.
    pub definition: Result<Definition, Diagnostics>,
    /// What was found in place of a file.
    pub detected: Option<Detected>,
}

impl DefinitionFile {
    /// Reads what a tree has at [`FILE_NAME`].
    pub fn read(entry: TreeEntry) -> DefinitionFile {
        match entry {
            TreeEntry::Absent(tree) => DefinitionFile::detect(tree),
            TreeEntry::Present { mode: MODE_REGULAR, bytes } => DefinitionFile {
                digest: Digest::of_fields([&b"file"[..], bytes]),
                definition: Definition::parse(FILE_NAME, bytes),
                detected: None,
            },
            TreeEntry::Present { mode, .. } => DefinitionFile {
                digest: Digest::of_fields([&b"mode"[..], &mode.to_be_bytes()]),
                definition: Err(wrong_mode(mode)),
                detected: None,
            },
        }
    }

    /// A detected set has a digest of its own, so that a change which makes it smaller is seen as an edit of the
    /// definition.
    fn detect(tree: &RootTree) -> DefinitionFile {
        match detect::detect(tree) {
            Ok(detected) => DefinitionFile {
                digest: Digest::of_fields([&b"detected"[..], detected.yaml.as_bytes()]),
                definition: detected.definition(),
                detected: Some(detected),
            },
            Err(diagnostics) => DefinitionFile {
                digest: Digest::of_fields([&b"misnamed"[..]]),
                definition: Err(diagnostics),
                detected: None,
            },
        }
    }
}

fn wrong_mode(mode: u32) -> Diagnostics {
    let (what, hint) = match mode {
        MODE_EXECUTABLE => ("it is executable", "run `git update-index --chmod=-x towpath.yaml`"),
        MODE_LINK => ("it is a symbolic link", "put the file itself in its place"),
        _ => ("it is not a file", "put a file in its place, or rename what is there"),
    };
    let mut report = Report::new(FILE_NAME, "");
    let why = "a definition is what stands in the tree itself, as a plain file of mode 100644";
    report.error(Place::START, fault(what, why, hint));
    report.finish().expect_err("an error was reported")
}
