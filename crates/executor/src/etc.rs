//! The sandbox's `/etc`: made once, bound read-only. Names of the host's users, its configuration and its secrets
//! are not in it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::launcher::RESOLVER;
use crate::profile::{HOME, JOB_USER};

/// Copied from the host as they are: what the loader, name services, shells and certificates need.
const COPIED: &[&str] = &[
    "alternatives",
    "debian_version",
    "fonts",
    "java-17-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
    "xml",
];
/// Files that a tree copied from the host's `/etc` may have. Certificates and fonts stay far below.
const FILES_MAX: usize = 5_000;
/// Where the host keeps its certificates, best first. Source: Go's `crypto/x509/root_linux.go`.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A finished `/etc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etc {
    /// The folder to bind.
    pub(crate) folder: PathBuf,
    /// The certificates' path inside.
    pub(crate) certificates: Option<String>,
}

/// Makes `/etc` in `folder`, which is emptied first.
pub(crate) fn make(folder: &Path, chosen_bundle: Option<&Path>) -> io::Result<Etc> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder)?,
    }
    let mut budget = FILES_MAX;
    for name in COPIED {
        copy(&Path::new("/etc").join(name), &folder.join(name), &mut budget)?;
    }
    let resolver = RESOLVER;
    let written = [
        (
            "passwd",
            format!(
                "job:x:{JOB_USER}:{JOB_USER}:job:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
            ),
        ),
        ("group", format!("job:x:{JOB_USER}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost towpath\n::1 localhost\n".to_owned()),
        ("hostname", "towpath\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
        // Without a network no packet reaches it, and a lookup fails at once.
        ("resolv.conf", format!("nameserver {resolver}\n")),
        ("shells", "/bin/sh\n".to_owned()),
    ];
    for (name, text) in written {
        fs::write(folder.join(name), text)?;
    }
    symlink("/proc/self/mounts", folder.join("mtab"))?;
    Ok(Etc { folder: folder.to_owned(), certificates: certificates(folder, chosen_bundle)? })
}

fn certificates(folder: &Path, chosen: Option<&Path>) -> io::Result<Option<String>> {
    let default = BUNDLES.iter().map(Path::new).find(|path| path.exists());
    match chosen.filter(|path| path.is_file()).or(default) {
        Some(bundle) if bundle.starts_with("/etc") && folder.join(relative(bundle)).exists() => {
            Ok(Some(bundle.display().to_string()))
        }
        Some(bundle) => {
            fs::copy(bundle, folder.join("towpath-certificates.crt"))?;
            Ok(Some("/etc/towpath-certificates.crt".to_owned()))
        }
        None => Ok(None),
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/etc").unwrap_or(path)
}

/// Copies files, folders and links; what only root may read on the host stays behind, whoever we are.
fn copy(from: &Path, to: &Path, budget: &mut usize) -> io::Result<()> {
    let Ok(meta) = from.symlink_metadata() else { return Ok(()) };
    if *budget == 0 {
        return Ok(());
    }
    *budget -= 1;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        // A link out of /etc into what a job does not see would dangle: take the file.
        let whole = from.parent().unwrap_or(Path::new("/")).join(&target);
        return match whole.starts_with("/usr") || target.is_relative() || whole.starts_with("/etc") {
            true => symlink(target, to),
            false if from.is_file() => fs::copy(from, to).map(|_| ()),
            false => Ok(()),
        };
    }
    let readable_by_all = meta.permissions().mode() & 0o004 != 0;
    if meta.is_file() && readable_by_all {
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o644))?;
    }
    if meta.is_dir() && readable_by_all {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name), budget)?;
        }
    }
    Ok(())
}
