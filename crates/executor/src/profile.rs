//! The sandbox as data: from a job to bubblewrap's options.
//!
//! Mounts are an allow-list (trust S1). Nothing of `/run`, `/var`, `/sys` or a home is there: connecting to a socket
//! works through a read-only bind, so what must not be reached must not be seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// User and group of a job inside its sandbox; `job` in the sandbox's `/etc/passwd`.
pub const JOB_USER: u32 = 1000;
/// Where a job finds its work tree.
pub const TREE: &str = "/work";
/// A job's home, on a tmpfs.
pub const HOME: &str = "/home/job";
/// Where a job finds what Towpath gives it.
pub const INPUTS: &str = "/towpath/inputs";
/// Secrets as files, on a tmpfs.
pub const SECRETS: &str = "/towpath/secrets";
/// A script that is too long for an argument.
pub const SCRIPT: &str = "/towpath/script";

/// A top-level name of the host: `/bin` is a link on most systems and a folder on some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopLevel {
    /// A link with this target.
    Link(String),
    /// A folder.
    Folder,
}

/// What is the same for all jobs of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLayout {
    /// `/bin`, `/lib` and the like, as far as they exist.
    pub top_level: BTreeMap<String, TopLevel>,
    /// Source of `/etc`.
    pub etc: PathBuf,
    /// Source of `/dev/pts`, where there is one.
    pub terminals: PathBuf,
    /// Toolchains: source, and where the job sees it.
    pub toolchains: Vec<(PathBuf, PathBuf)>,
}

impl HostLayout {
    /// Reads the host's top level. The others as given.
    pub fn of_host(etc: PathBuf, terminals: PathBuf, toolchains: Vec<(PathBuf, PathBuf)>) -> HostLayout {
        let look = |name: &str| {
            let path = Path::new("/").join(name);
            let meta = path.symlink_metadata().ok()?;
            let kind = match std::fs::read_link(&path) {
                Ok(target) => TopLevel::Link(target.to_str()?.to_owned()),
                Err(_) if meta.is_dir() => TopLevel::Folder,
                Err(_) => return None,
            };
            Some((name.to_owned(), kind))
        };
        let names = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
        HostLayout { top_level: names.into_iter().filter_map(look).collect(), etc, terminals, toolchains }
    }
}

/// One job's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxProfile<'a> {
    /// What all jobs share.
    pub host: &'a HostLayout,
    /// Source of the work tree.
    pub tree: Option<PathBuf>,
    /// Source of the inputs.
    pub inputs: Option<PathBuf>,
    /// Source of the secrets' folder.
    pub secrets: Option<PathBuf>,
    /// Source of the script.
    pub script: Option<PathBuf>,
    /// Bytes of each tmpfs.
    pub tmpfs_bytes: u64,
    /// The whole environment.
    pub environment: &'a BTreeMap<String, String>,
}

impl SandboxProfile<'_> {
    /// Bubblewrap's options, without program, system call filter and command.
    pub fn options(&self) -> Vec<String> {
        let mut options = Options::default();
        // Each of these is in trust S1. `--unshare-all` alone would only *try* a user namespace.
        options
            .words("--unshare-all --unshare-user --cap-drop ALL --clearenv --new-session --die-with-parent");
        let user = JOB_USER.to_string();
        options.add(["--uid", &user, "--gid", &user, "--hostname", "towpath"]);
        self.system(&mut options);
        self.folders(&mut options);
        for (source, target) in &self.host.toolchains {
            options.bind("--ro-bind", source, &target.display().to_string());
        }
        for (source, target) in [(&self.inputs, INPUTS), (&self.secrets, SECRETS), (&self.script, SCRIPT)] {
            if let Some(source) = source {
                options.bind("--ro-bind", source, target);
            }
        }
        if let Some(tree) = &self.tree {
            options.bind("--bind", tree, TREE);
        }
        // Last, when every mount point is made. `/dev` has only device files and writable mounts of its own.
        options.add(["--remount-ro", "/dev", "--remount-ro", "/"]);
        options.add(["--chdir", if self.tree.is_some() { TREE } else { HOME }]);
        for (key, value) in self.environment {
            options.add(["--setenv", key, value]);
        }
        options.0
    }

    fn system(&self, options: &mut Options) {
        options.bind("--ro-bind", Path::new("/usr"), "/usr");
        for (name, kind) in &self.host.top_level {
            let target = format!("/{name}");
            match kind {
                TopLevel::Link(to) => options.add(["--symlink", to, &target]),
                TopLevel::Folder => options.bind("--ro-bind", Path::new(&target), &target),
            }
        }
        options.bind("--ro-bind", &self.host.etc, "/etc");
        options.add(["--proc", "/proc", "--dev", "/dev"]);
        options.bind("--dev-bind-try", &self.host.terminals, "/dev/pts");
    }

    /// Each tmpfs has a size: without one it may take half of the memory.
    fn folders(&self, options: &mut Options) {
        let size = self.tmpfs_bytes.to_string();
        for (mode, folder) in [("1777", "/dev/shm"), ("1777", "/tmp")] {
            options.add(["--perms", mode, "--size", &size, "--tmpfs", folder]);
        }
        options.add(["--perms", "0755", "--dir", "/home"]);
        options.add(["--perms", "0700", "--size", &size, "--tmpfs", HOME]);
        // Folders that programs expect to be there; empty.
        options.add(["--perms", "0755", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"]);
        options.add(["--perms", "0755", "--dir", "/mnt"]);
    }
}

#[derive(Default)]
struct Options(Vec<String>);

impl Options {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(str::to_owned));
    }

    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }

    fn bind(&mut self, option: &str, source: &Path, target: &str) {
        self.add([option, &source.display().to_string(), target]);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_profile_is_this_command_line() {
        let link = |to: &str| TopLevel::Link(to.to_owned());
        let host = HostLayout {
            top_level: BTreeMap::from([
                ("bin".to_owned(), link("usr/bin")),
                ("lib".to_owned(), TopLevel::Folder),
            ]),
            etc: "/stage/etc".into(),
            terminals: "/stage/pts".into(),
            toolchains: vec![("/stage/t0".into(), "/root/.rustup".into())],
        };
        let environment = BTreeMap::from([("CI".to_owned(), "true".to_owned())]);
        let profile = SandboxProfile {
            host: &host,
            tree: Some("/stage/tree".into()),
            inputs: Some("/stage/inputs".into()),
            secrets: None,
            script: None,
            tmpfs_bytes: 4096,
            environment: &environment,
        };
        let text = profile.options().join(" ").replace(" --", "\n--");
        expect![[r#"
            --unshare-all
            --unshare-user
            --cap-drop ALL
            --clearenv
            --new-session
            --die-with-parent
            --uid 1000
            --gid 1000
            --hostname towpath
            --ro-bind /usr /usr
            --symlink usr/bin /bin
            --ro-bind /lib /lib
            --ro-bind /stage/etc /etc
            --proc /proc
            --dev /dev
            --dev-bind-try /stage/pts /dev/pts
            --perms 1777
            --size 4096
            --tmpfs /dev/shm
            --perms 1777
            --size 4096
            --tmpfs /tmp
            --perms 0755
            --dir /home
            --perms 0700
            --size 4096
            --tmpfs /home/job
            --perms 0755
            --dir /var
            --symlink ../tmp /var/tmp
            --perms 0755
            --dir /mnt
            --ro-bind /stage/t0 /root/.rustup
            --ro-bind /stage/inputs /towpath/inputs
            --bind /stage/tree /work
            --remount-ro /dev
            --remount-ro /
            --chdir /work
            --setenv CI true"#]]
        .assert_eq(&text);
    }
}
