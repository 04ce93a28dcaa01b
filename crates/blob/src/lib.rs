//! What jobs leave behind: blobs by digest, manifests of outputs, and logs with a line index.
//!
//! Deliberately absent: decisions, networks, formats of packages, and any way to change a blob once it is stored.
//! A blob's name is the SHA-256 of its bytes; a log's name is the lease that wrote it.

pub mod encode;
pub mod log;
pub mod manifest;
pub mod mask;
mod read;
pub mod reserve;
pub mod store;
mod wrap;

pub use log::{LogEnd, LogOptions, LogStore, LogWriter, RunLogs};
pub use manifest::{FilePath, Manifest, ManifestFile};
pub use mask::{MaskError, Masked, Masker, Secret};
pub use read::{LogLines, LogReader};
pub use reserve::{Amount, NoRoom, Reserve, Spending};
pub use store::{BlobError, BlobInfo, BlobStore, Removed};
