//! The program that serves.

use std::io::Read;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use towpath_core::ids::Digest;

/// This process's own file, whatever became of its name.
pub const OWN: &str = "/proc/self/exe";
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// SHA-256 of the running program's file; `None` where the system does not show it. Reads the file once.
pub fn own_digest() -> Option<Digest> {
    static OWN_DIGEST: OnceLock<Option<Digest>> = OnceLock::new();
    *OWN_DIGEST.get_or_init(|| {
        let file = std::fs::File::open(OWN).ok()?;
        digest(file).ok()
    })
}

/// SHA-256 over bytes that are read to their end.
///
/// # Errors
/// As reading has them.
pub fn digest(mut bytes: impl Read) -> std::io::Result<Digest> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
