//! Mounts of a launcher: its stage, and each job's work tree.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::thread::UnshareFlags;

use super::{Launch, Setup, StageFile, TreeSource, stage};
use crate::terminals::TERMINALS_MAX;
use crate::{etc, sys};

/// Bytes of the stage: a script, secrets and mount points.
const STAGE_BYTES: u64 = 64 * 1024 * 1024;

/// The launcher's mount points and the id mappings that it made.
pub(super) struct Stage {
    root: PathBuf,
    job_user: Option<u32>,
    in_user_namespace: bool,
    /// User namespaces that map the owner of a base to the job's user, by owner.
    mappings: BTreeMap<(u32, u32), OwnedFd>,
    mounted: Vec<&'static str>,
    terminals: Terminals,
}

/// The terminals of the jobs' own, which stay mounted from one job to the next as long as each leaves none behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terminals {
    Unmounted,
    Mounted,
    /// Only root may mount them.
    Refused,
}

fn because(what: impl Into<String>) -> impl FnOnce(io::Error) -> String {
    let what = what.into();
    move |error| format!("cannot {what}: {error}")
}

fn because_errno(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> String {
    let what = what.into();
    move |error| because(what)(error.into())
}

impl Stage {
    /// Leaves the host's mount namespace and covers the stage's folder with an empty tmpfs.
    pub(super) fn new(setup: &Setup) -> Result<Stage, String> {
        let in_user_namespace = setup.job_user.is_none();
        enter_namespaces(in_user_namespace)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(because_errno("make mounts private"))?;
        // Sources first: the stage may cover them.
        let sources = setup.binds.iter().map(|bind| clone_tree(&bind.source));
        let sources: Vec<OwnedFd> = sources.collect::<Result<_, _>>()?;
        let options = format!("mode=0755,size={STAGE_BYTES}\0");
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("ends in one zero");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("stage", &setup.stage, "tmpfs", flags, Some(options))
            .map_err(because_errno("mount a tmpfs"))?;
        let stage = Stage {
            root: setup.stage.clone(),
            job_user: setup.job_user,
            in_user_namespace,
            mappings: BTreeMap::new(),
            mounted: Vec::new(),
            terminals: Terminals::Unmounted,
        };
        for name in [stage::TREE, stage::LOWER, stage::FOLDER, stage::INPUTS] {
            fs::create_dir(stage.root.join(name)).map_err(because("make a mount point"))?;
        }
        etc::make(&stage.root.join(stage::ETC), setup.certificates.as_ref())
            .map_err(because("make the jobs' /etc"))?;
        for (bind, source) in setup.binds.iter().zip(&sources) {
            stage.place(source, &bind.source, &bind.name)?;
        }
        Ok(stage)
    }

    fn place(&self, source: &OwnedFd, from: &Path, name: &str) -> Result<(), String> {
        let target = self.root.join(name);
        let is_folder = rustix::fs::fstat(source).map_err(because_errno("look at a bind"))?.st_mode
            & libc::S_IFMT
            == libc::S_IFDIR;
        let made = if is_folder { fs::create_dir(&target) } else { fs::write(&target, []) };
        made.map_err(because("make a mount point"))?;
        attach(source, &target).map_err(because_errno(format!("bind {}", from.display())))
    }

    /// Mounts what one job needs.
    pub(super) fn prepare(&mut self, launch: &Launch) -> Result<(), String> {
        match &launch.tree {
            Some(TreeSource::Overlay { base, folder }) => self.overlay(base, folder)?,
            Some(TreeSource::Plain { folder }) => self.bind(folder, stage::TREE)?,
            None => {}
        }
        self.mount_terminals()?;
        if let Some(inputs) = &launch.inputs {
            self.bind(inputs, stage::INPUTS)?;
        }
        launch.files.iter().try_for_each(|file| self.file(file)).map_err(because("write a job's file"))
    }

    /// The mounted work tree as the job left it.
    pub(super) fn tree(&self) -> Result<OwnedFd, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(self.root.join(stage::TREE), flags, Mode::empty())
            .map_err(because_errno("open the work tree"))
    }

    /// Takes a job's mounts and files away.
    pub(super) fn clear(&mut self) -> Result<(), String> {
        while let Some(name) = self.mounted.pop() {
            unmount(self.root.join(name), UnmountFlags::DETACH).map_err(because_errno("unmount"))?;
        }
        self.clear_terminals()?;
        let files = self.root.join(stage::FILES);
        match fs::remove_dir_all(&files) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(because("remove a job's files")(error))
            }
            _ => Ok(()),
        }
    }

    fn bind(&mut self, source: &Path, name: &'static str) -> Result<(), String> {
        let tree = clone_tree(source)?;
        attach(&tree, &self.root.join(name)).map_err(because_errno(format!("bind {}", source.display())))?;
        self.mounted.push(name);
        Ok(())
    }

    /// Mounts terminals of the jobs' own, which are bounded as bubblewrap's are not. Those have to do where only root may.
    fn mount_terminals(&mut self) -> Result<(), String> {
        if self.terminals != Terminals::Unmounted {
            return Ok(());
        }
        let target = self.root.join(stage::TERMINALS);
        fs::create_dir_all(&target).map_err(because("make a mount point"))?;
        let options = format!("max={TERMINALS_MAX},mode=620,ptmxmode=666\0");
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("ends in one zero");
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        self.terminals = match mount("terminals", &target, "devpts", flags, Some(options)) {
            Ok(()) => Terminals::Mounted,
            Err(_) if self.in_user_namespace => {
                fs::remove_dir(&target).map_err(because("remove a mount point"))?;
                Terminals::Refused
            }
            Err(error) => return Err(because_errno("mount terminals")(error)),
        };
        Ok(())
    }

    /// Takes terminals away of which one outlives the job that opened it, as a descriptor under way in a socket can.
    fn clear_terminals(&mut self) -> Result<(), String> {
        if self.terminals != Terminals::Mounted {
            return Ok(());
        }
        let target = self.root.join(stage::TERMINALS);
        let entries = fs::read_dir(&target).map_err(because("look at the terminals"))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<OsString> =
            names.collect::<Result<_, _>>().map_err(because("look at the terminals"))?;
        if names != ["ptmx"] {
            unmount(&target, UnmountFlags::DETACH).map_err(because_errno("unmount"))?;
            self.terminals = Terminals::Unmounted;
        }
        Ok(())
    }

    fn overlay(&mut self, base: &Path, folder: &Path) -> Result<(), String> {
        self.lower(base)?;
        self.bind(folder, stage::FOLDER)?;
        let folder = self.root.join(stage::FOLDER);
        for side in ["upper", "work"] {
            fs::create_dir(folder.join(side)).map_err(because("make a side of the overlay"))?;
        }
        if let Some(user) = self.job_user {
            chown(folder.join("upper"), Some(user), Some(user))
                .map_err(because("give the tree to the job"))?;
        }
        let text = |name: &str| self.root.join(name).display().to_string();
        // `volatile`: the upper side is never used again, so the kernel need not sync it. `userxattr`: in a user
        // namespace the overlay may keep its notes in `user.` attributes only.
        let notes = if self.in_user_namespace { ",userxattr" } else { "" };
        let (lower, folder) = (text(stage::LOWER), text(stage::FOLDER));
        let options =
            format!("lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work,volatile{notes}\0");
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("ends in one zero");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tree", self.root.join(stage::TREE), "overlay", flags, Some(options))
            .map_err(because_errno("mount the overlay"))?;
        self.mounted.push(stage::TREE);
        Ok(())
    }

    /// Binds the base so that its owner's files are the job's.
    fn lower(&mut self, base: &Path) -> Result<(), String> {
        let tree = clone_tree(base)?;
        if let Some(user) = self.job_user {
            let meta = fs::metadata(base).map_err(because("look at the base"))?;
            let owner = (meta.uid(), meta.gid());
            let known = match self.mappings.entry(owner) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(mapping(owner, user).map_err(because("map the base's owner to the job's"))?)
                }
            };
            sys::map_mount_ids(tree.as_fd(), known.as_fd()).map_err(because("show the base as the job's"))?;
        }
        let target = self.root.join(stage::LOWER);
        attach(&tree, &target).map_err(because_errno(format!("bind {}", base.display())))?;
        self.mounted.push(stage::LOWER);
        Ok(())
    }

    fn file(&self, file: &StageFile) -> io::Result<()> {
        let path = self.root.join(stage::FILES).join(&file.name);
        fs::create_dir_all(path.parent().expect("a file has a folder"))?;
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        match self.job_user {
            Some(user) => chown(&path, Some(user), Some(user)),
            None => Ok(()),
        }
    }
}

fn enter_namespaces(in_user_namespace: bool) -> Result<(), String> {
    if !in_user_namespace {
        return sys::unshare(UnshareFlags::NEWNS).map_err(because("leave the host's mount namespace"));
    }
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(because("make a user namespace"))?;
    write_maps("self", (user, group), (user, group)).map_err(because("map the user"))
}

fn write_maps(process: &str, inside: (u32, u32), outside: (u32, u32)) -> io::Result<()> {
    let write = |file: &str, text: String| fs::write(format!("/proc/{process}/{file}"), text);
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", inside.0, outside.0))?;
    write("gid_map", format!("{} {} 1", inside.1, outside.1))
}

/// A user namespace in which `owner` stands for `user`. The namespace lives by its descriptor alone.
fn mapping(owner: (u32, u32), user: u32) -> io::Result<OwnedFd> {
    let (ready, tell_ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        sys::Fork::Child => {
            // A byte says that the namespace is there; nothing, that it could not be made. Then wait to be killed.
            let made = sys::unshare(UnshareFlags::NEWUSER).is_ok();
            let told = made && rustix::io::write(&tell_ready, b"+").is_ok();
            if told
                && rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                    .is_ok()
            {
                loop {
                    std::thread::park();
                }
            }
            sys::exit_now(1)
        }
        sys::Fork::Parent(pid) => {
            drop(tell_ready);
            let result =
                rustix::io::read(&ready, &mut [0; 1][..]).map_err(io::Error::from).and_then(|count| {
                    if count == 0 {
                        return Err(io::Error::other("no user namespace can be made"));
                    }
                    let process = pid.as_raw_nonzero().to_string();
                    write_maps(&process, owner, (user, user))?;
                    let path = format!("/proc/{process}/ns/user");
                    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
                });
            let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            killed?;
            result
        }
    }
}

fn clone_tree(source: &Path) -> Result<OwnedFd, String> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, source, flags).map_err(because_errno(format!("bind {}", source.display())))
}

fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
