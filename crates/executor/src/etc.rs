//! The sandbox's `/etc`: made by each launcher on its tmpfs, bound read-only. Names of the host's users, its configuration and its secrets
//! are not in it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::launcher::RESOLVER;
use crate::profile::{HOME, JOB_USER};

/// Copied from the host as they are: what the loader, name services, shells and certificates need.
const COPIED: &[&str] = &[
    "alternatives",
    "debian_version",
    "fonts",
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
/// Folders of any version of Java, which does not start without its own.
const JAVA: [&str; 2] = ["java-", "-openjdk"];
/// Debian's Chromium starts only where its folder of settings has a file. The host's own are not a job's business.
const CHROMIUM_FOLDER: &str = "chromium.d";
/// Files that a tree copied from the host's `/etc` may have. Certificates and fonts stay far below.
const FILES_MAX: usize = 5_000;
/// Name of a bundle that lies outside of what is copied.
const OWN_BUNDLE: &str = "towpath-certificates.crt";
/// Where the host keeps its certificates, best first. Source: Go's `crypto/x509/root_linux.go`.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The host's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificates {
    /// Where the host has them.
    pub(crate) source: PathBuf,
    /// Where a job finds them.
    pub(crate) inside: String,
}

impl Certificates {
    /// Those that `chosen` names, or those of the system.
    pub(crate) fn find(chosen: Option<PathBuf>) -> Option<Certificates> {
        let system = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
        let source = chosen.filter(|path| path.is_file()).or_else(system)?;
        let copied = COPIED.iter().any(|name| source.starts_with(Path::new("/etc").join(name)));
        let inside = if copied { source.display().to_string() } else { format!("/etc/{OWN_BUNDLE}") };
        Some(Certificates { source, inside })
    }
}

/// Makes `/etc` in `folder`, which does not exist yet.
pub(crate) fn make(folder: &Path, certificates: Option<&Certificates>) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let mut budget = FILES_MAX;
    for name in COPIED.iter().map(|name| (*name).to_owned()).chain(java()) {
        copy(&Path::new("/etc").join(&name), &folder.join(&name), &mut budget)?;
    }
    fs::create_dir(folder.join(CHROMIUM_FOLDER))?;
    fs::write(folder.join(CHROMIUM_FOLDER).join("none"), "")?;
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
    if let Some(certificates) = certificates.filter(|certificates| certificates.inside.ends_with(OWN_BUNDLE))
    {
        fs::copy(&certificates.source, folder.join(OWN_BUNDLE))?;
    }
    symlink("/proc/self/mounts", folder.join("mtab"))
}

/// The folders of this host's Java, sorted.
fn java() -> Vec<String> {
    let [begin, end] = JAVA;
    let names = fs::read_dir("/etc").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(begin) && name.ends_with(end)).collect();
    names.sort();
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chromium_finds_a_file_of_settings_and_none_of_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        make(&etc, None).unwrap();
        let settings: Vec<_> = fs::read_dir(etc.join(CHROMIUM_FOLDER)).unwrap().flatten().collect();
        assert_eq!(settings.len(), 1);
        assert_eq!(fs::read_to_string(settings[0].path()).unwrap(), "");
        for name in java() {
            assert!(etc.join(&name).is_dir(), "{name}");
        }
        assert!(!etc.join("shadow").exists() && !etc.join("hosts.allow").exists());
    }
}
