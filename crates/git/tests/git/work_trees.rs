//! Work trees: the bytes of git, and no way from them into the store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use towpath_core::ids::{CommitId, TreeId};
use towpath_git::{
    BaseOptions, BaseStore, ErrorClass, ExportOptions, Files, GitError, Owner, TREE_LIMITS, TreeLimits,
    TreeMeasure,
};

use crate::support::{World, every_git, latin1};

/// Name to what is there: mode and content, or a link's target.
fn content(folder: &Path) -> BTreeMap<OsString, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().as_os_str().to_owned();
            let meta = path.symlink_metadata().unwrap();
            let text = if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                folders.push(path);
                format!("{:o} folder", meta.mode() & 0o7777)
            } else {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                format!("{:o} {text}", meta.mode() & 0o7777)
            };
            found.insert(name, text);
        }
    }
    found
}

/// A commit with everything that a tree can hold.
fn odd_commit(world: &World) -> (CommitId, TreeId) {
    world.write("plain", "a\r\nb\n$Id$\n");
    world.write("sub/deep/run.sh", "#!/bin/sh\n");
    world.write(latin1(b"caf\xe9"), "latin\n");
    world.write(latin1(b"new\nline \xe2\x80\xae"), "");
    world.write("big", vec![b'x'; 300_000]);
    std::os::unix::fs::symlink("../../etc/passwd", world.work().join("link")).unwrap();
    std::fs::set_permissions(world.work().join("sub/deep/run.sh"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    world.run(&["add", "--all", "."]);
    world.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{:040x},module", 7)]);
    world.run(&["commit", "--quiet", "-m", "files"]);
    std::fs::create_dir(world.work().join("module")).unwrap();
    world.write(
        ".gitattributes",
        "* text eol=crlf ident filter=x\nplain working-tree-encoding=UTF-16 export-ignore\n",
    );
    world.run(&["add", ".gitattributes"]);
    world.run(&["commit", "--quiet", "-m", "attributes"]);
    let commit = world.head();
    world.push(commit, "main");
    (commit, world.repository.commit(commit).unwrap().tree)
}

fn options(bytes_max: u64) -> BaseOptions {
    BaseOptions { owner: None, limits: TREE_LIMITS, bytes_max, room: Arc::new(|_| Ok(())) }
}

#[test]
fn an_exported_tree_is_byte_for_byte_what_git_has() {
    for git in every_git() {
        let world = World::with(git);
        let (_, tree) = odd_commit(&world);
        let into = world.folder.path().join("tree");
        let measure = world.repository.export_tree(tree, &into, &ExportOptions::default()).unwrap();
        assert_eq!(measure.entries, 10);
        let found = content(&into);
        let text = |name: &str| found[&OsString::from(name)].as_str();
        assert_eq!(text("plain"), "644 a\r\nb\n$Id$\n");
        assert_eq!(text("sub/deep/run.sh"), "755 #!/bin/sh\n");
        assert_eq!(text("link"), "-> ../../etc/passwd");
        assert_eq!(text("module"), "755 folder");
        assert_eq!(text("big").len(), 300_004);
        assert_eq!(found[latin1(b"caf\xe9")], "644 latin\n");
        assert_eq!(found[latin1(b"new\nline \xe2\x80\xae")], "644 ");
        assert_eq!(found.len(), 10);
    }
}

#[test]
fn a_tree_that_is_too_large_leaves_no_file() {
    let world = World::new();
    let (_, tree) = odd_commit(&world);
    let into = world.folder.path().join("tree");
    let limits = TreeLimits { entries_max: 9, bytes_max: 1_000_000 };
    let options = ExportOptions { limits, ..ExportOptions::default() };
    let error = world.repository.export_tree(tree, &into, &options).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(!into.exists());
    std::fs::create_dir(&into).unwrap();
    std::fs::write(into.join("theirs"), "").unwrap();
    let error = world.repository.export_tree(tree, &into, &ExportOptions::default()).unwrap_err();
    assert!(matches!(error, GitError::Exists { .. }), "{error}");
}

#[test]
fn files_belong_to_the_jobs_user() {
    let world = World::new();
    let (commit, tree) = odd_commit(&world);
    // Only root may give files away; anybody may give them to themselves.
    let me = world.folder.path().metadata().unwrap();
    let owner = match me.uid() {
        0 => Owner { uid: 1234, gid: 2345 },
        uid => Owner { uid, gid: me.gid() },
    };
    let options = ExportOptions { owner: Some(owner), ..ExportOptions::default() };
    let folders = ["tree", "repository"].map(|name| world.folder.path().join(name));
    world.repository.export_tree(tree, &folders[0], &options).unwrap();
    world.repository.export_repository(commit, &folders[1], (Files::Written, &options)).unwrap();
    for folder in folders {
        assert_eq!(folder.metadata().unwrap().uid(), owner.uid);
        for name in content(&folder).keys() {
            let meta = folder.join(name).symlink_metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (owner.uid, owner.gid), "{}", name.display());
        }
    }
}

#[test]
fn a_base_is_made_once_shared_and_removed_when_nobody_holds_it() {
    let world = World::new();
    let first = world.commit_file("a", &"1".repeat(10_000));
    let second = world.commit_file("a", &"2".repeat(10_000));
    world.push(second, "main");
    let trees = [first, second].map(|commit| world.repository.commit(commit).unwrap().tree);
    let store = BaseStore::open(&world.folder.path().join("bases"), options(15_000)).unwrap();

    let handles: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| store.base(&world.repository, trees[0]).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(handles.iter().all(|handle| handle.path() == handles[0].path()));
    assert_eq!((handles[0].measure().entries, handles[0].measure().bytes), (1, 10_000));
    let inode = handles[0].path().metadata().unwrap().ino();

    let other = store.base(&world.repository, trees[1]).unwrap();
    assert_eq!(store.usage().0, 2, "both are held");
    drop(other);
    let path = handles[0].path().to_owned();
    assert_eq!(store.evict().unwrap(), 1, "the one that nobody holds goes");
    assert_eq!(path.metadata().unwrap().ino(), inode);
    assert_eq!(std::fs::read_to_string(path.join("a")).unwrap().len(), 10_000);
    drop(handles);
    assert_eq!(store.evict().unwrap(), 0, "what is left is within the size");

    let left: Vec<_> = std::fs::read_dir(world.folder.path().join("bases")).unwrap().collect();
    assert_eq!(left.len(), 4, "one base, its size, the lock, the boot: {left:?}");
}

#[test]
fn a_store_is_adopted_by_the_next_process_but_not_after_a_restart_of_the_machine() {
    let world = World::new();
    let commit = world.commit_file("a", "1");
    world.push(commit, "main");
    let tree = world.repository.commit(commit).unwrap().tree;
    let folder = world.folder.path().join("bases");
    let store = BaseStore::open(&folder, options(1 << 30)).unwrap();
    let inode = store.base(&world.repository, tree).unwrap().path().metadata().unwrap().ino();
    let Err(error) = BaseStore::open(&folder, options(1 << 30)) else { panic!("opened twice") };
    assert_eq!(error.class(), ErrorClass::Conflict);
    drop(store);

    std::fs::create_dir(folder.join("new-0")).unwrap();
    std::fs::create_dir(folder.join(tree.to_string().replace(|_| true, "e"))).unwrap();
    let store = BaseStore::open(&folder, options(1 << 30)).unwrap();
    assert_eq!(store.usage().0, 1, "unfinished bases are no bases");
    assert!(!folder.join("new-0").exists());
    assert_eq!(store.base(&world.repository, tree).unwrap().path().metadata().unwrap().ino(), inode);
    drop(store);

    std::fs::write(folder.join("boot"), "another start of the machine").unwrap();
    let store = BaseStore::open(&folder, options(1 << 30)).unwrap();
    assert_eq!(store.usage(), (0, 0));
    assert_eq!(
        std::fs::read_to_string(store.base(&world.repository, tree).unwrap().path().join("a")).unwrap(),
        "1"
    );
}

#[test]
fn a_lock_that_a_starting_process_has_taken_along_is_waited_for() {
    let world = World::new();
    let folder = world.folder.path().join("bases");
    drop(BaseStore::open(&folder, options(1 << 30)).unwrap());
    let lock = std::fs::File::open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    // As one that has been forked and is no other program yet.
    let mut child = Command::new("sleep").arg("600").stdin(lock).spawn().unwrap();
    let (begin, begins) = channel();
    let opens = std::thread::spawn(move || {
        begin.send(()).unwrap();
        BaseStore::open(&folder, options(1 << 30)).map(drop)
    });
    begins.recv().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    opens.join().unwrap().unwrap();
}

#[test]
fn bases_of_an_earlier_process_stay_until_those_who_use_them_have_said_so() {
    let world = World::new();
    let trees = ["1", "2", "3"].map(|text| {
        let commit = world.commit_file("a", &text.repeat(10_000));
        world.push(commit, "main");
        world.repository.commit(commit).unwrap().tree
    });
    let folder = world.folder.path().join("bases");
    let [used, unused, new] = trees.map(|tree| folder.join(tree.to_string()));
    let are_there = || [&used, &unused, &new].map(|base| base.exists());
    let former = BaseStore::open(&folder, options(1 << 30)).unwrap();
    trees[..2].iter().for_each(|tree| drop(former.base(&world.repository, *tree).unwrap()));
    drop(former);

    let store = BaseStore::open(&folder, options(15_000)).unwrap();
    let make_new = || {
        drop(store.base(&world.repository, trees[2]).unwrap());
        store.evict().unwrap();
    };
    make_new();
    assert_eq!(are_there(), [true, true, false], "only what this process has made may go");
    let pin = store.pin(trees[0]).unwrap();
    assert!(store.pin(trees[2]).is_none());
    assert_eq!(store.let_former_go().unwrap(), 1);
    make_new();
    assert_eq!(are_there(), [true, false, false], "a base is in the way as long as it is pinned");
    drop(pin);
    make_new();
    assert_eq!(are_there(), [false, false, true]);
}

#[test]
fn a_base_that_cannot_be_made_leaves_nothing() {
    let world = World::new();
    let (_, tree) = odd_commit(&world);
    let folder = world.folder.path().join("bases");
    let limits = TreeLimits { entries_max: 3, bytes_max: 1000 };
    let store = BaseStore::open(&folder, BaseOptions { limits, ..options(1000) }).unwrap();
    for _ in 0..2 {
        assert_eq!(store.base(&world.repository, tree).err().unwrap().class(), ErrorClass::Invalid);
    }
    assert_eq!(store.usage(), (0, 0));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "the lock and the boot");
}

/// Trees of one file of so many bytes each.
fn trees<const N: usize>(world: &World, bytes: usize) -> [TreeId; N] {
    std::array::from_fn(|at| {
        world.write("a", at.to_string().repeat(bytes));
        let commit = world.commit("a");
        world.push(commit, "main");
        world.repository.commit(commit).unwrap().tree
    })
}

fn no_room(needed: TreeMeasure) -> GitError {
    GitError::NoRoom { needed, why: "it is full".to_owned() }
}

#[test]
fn unused_bases_make_room_for_others_the_oldest_first() {
    let world = World::new();
    let trees: [TreeId; 4] = trees(&world, 10_000);
    let folder = world.folder.path().join("bases");
    let bases = trees.map(|tree| folder.join(tree.to_string()));
    let are_there = || bases.each_ref().map(|base| base.exists());
    let disk = folder.clone();
    // A disk for three of them.
    let room = move |more: TreeMeasure| {
        let used: u64 = content(&disk).values().map(|text| text.len() as u64).sum();
        if used + more.bytes <= 35_000 { Ok(()) } else { Err(no_room(more)) }
    };
    let store = BaseStore::open(&folder, BaseOptions { room: Arc::new(room), ..options(1 << 30) }).unwrap();
    let base = |at: usize| store.base(&world.repository, trees[at]);
    let used = base(0).unwrap();
    drop((base(1).unwrap(), base(2).unwrap()));
    let also_used = [base(1).unwrap(), base(3).unwrap()];
    assert_eq!(are_there(), [true, true, false, true]);

    let error = base(2).err().unwrap();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.to_string(), "there is no room for 1 MiB more: it is full");
    assert_eq!(store.usage().0, 3, "who has one keeps it");
    assert!(store.make_room(TreeMeasure { entries: 1, bytes: 1 << 20 }).is_err());
    drop(also_used);
    store.make_room(TreeMeasure { entries: 1, bytes: 10_000 }).unwrap();
    assert_eq!(are_there(), [true, false, false, true]);
    drop(used);
    assert!(store.make_room(TreeMeasure { entries: 1, bytes: 1 << 20 }).is_err());
    assert_eq!(are_there(), [false; 4], "all of them go for what is wanted");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "the lock and the boot");
}

#[test]
fn who_makes_a_base_removes_none_of_those_that_are_too_many() {
    let world = World::new();
    let trees: [TreeId; 2] = trees(&world, 10_000);
    let store = BaseStore::open(&world.folder.path().join("bases"), options(15_000)).unwrap();
    let [_, last] = trees.map(|tree| store.base(&world.repository, tree).unwrap().path().to_owned());
    assert_eq!(store.usage().0, 2);
    assert_eq!(store.evict().unwrap(), 1);
    assert!(last.is_dir());
}

#[test]
fn bases_give_way_for_no_more_than_their_disk_could_have_free() {
    let world = World::new();
    let [tree] = trees(&world, 10_000);
    let folder = world.folder.path().join("bases");
    let disk = rustix::fs::statvfs(world.folder.path()).unwrap();
    let bytes_max = disk.f_blocks * disk.f_frsize / 16;
    let entries_max = if disk.f_files == 0 { u64::MAX } else { disk.f_files / 16 };
    let room = move |more: TreeMeasure| {
        let has_room = more.bytes <= bytes_max && more.entries <= entries_max;
        if has_room { Ok(()) } else { Err(no_room(more)) }
    };
    let store = BaseStore::open(&folder, BaseOptions { room: Arc::new(room), ..options(1 << 30) }).unwrap();
    drop(store.base(&world.repository, tree).unwrap());
    store.give_way(TreeMeasure { entries: u64::MAX, bytes: u64::MAX }).unwrap();
    assert_eq!(store.usage().0, 1);
}

#[test]
fn what_others_write_meanwhile_ends_a_base() {
    let world = World::new();
    let [tree] = trees(&world, 3 << 20);
    let folder = world.folder.path().join("bases");
    let draft = folder.clone();
    // As if somebody had taken it all as soon as the first file is begun.
    let room = move |more: TreeMeasure| {
        let begun = content(&draft).keys().any(|name| name.to_string_lossy().ends_with("/a"));
        if begun { Err(no_room(more)) } else { Ok(()) }
    };
    let store = BaseStore::open(&folder, BaseOptions { room: Arc::new(room), ..options(1 << 30) }).unwrap();
    let error = store.base(&world.repository, tree).err().unwrap();
    assert!(matches!(error, GitError::NoRoom { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "the lock and the boot");
}

#[test]
fn a_history_is_not_copied_where_there_is_no_room() {
    let world = World::new();
    let (commit, _) = odd_commit(&world);
    let is_asked = AtomicBool::new(false);
    let room = |more: TreeMeasure| {
        is_asked.store(true, Ordering::Relaxed);
        Err(no_room(more))
    };
    let options = ExportOptions { room: &room, ..ExportOptions::default() };
    for files in [Files::Written, Files::Elsewhere] {
        let into = world.folder.path().join(format!("{files:?}"));
        let error = world.repository.export_repository(commit, &into, (files, &options)).unwrap_err();
        assert!(matches!(error, GitError::NoRoom { .. }), "{error}");
        assert!(is_asked.swap(false, Ordering::Relaxed));
    }
}

#[test]
fn c07_c08_writing_through_an_export_reaches_no_store() {
    let world = World::new();
    let (commit, tree) = odd_commit(&world);
    let into = world.folder.path().join("job");
    world.repository.export_repository(commit, &into, (Files::Written, &ExportOptions::default())).unwrap();
    for (name, _) in content(&into) {
        let path = into.join(&name);
        let meta = path.symlink_metadata().unwrap();
        if meta.is_file() {
            assert_eq!(meta.nlink(), 1, "{} is a hard link", name.display());
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            std::fs::write(&path, "overwritten").unwrap();
        }
    }
    world.in_store(&["fsck", "--full", "--strict"], b"");
    assert_eq!(world.repository.commit(commit).unwrap().tree, tree);
}

#[test]
fn c09_an_exported_repository_has_what_its_commit_reaches_and_nothing_else() {
    for git in every_git() {
        let world = World::with(git);
        let (commit, _) = odd_commit(&world);
        let (tree, parent) = (world.tree_of(&commit.to_string()).to_string(), commit.to_string());
        let secret =
            world.run(&["commit-tree", "-p", &parent, "-m", "of another change", &tree]).parse().unwrap();
        world.push(secret, "other");
        for files in [Files::Written, Files::Elsewhere] {
            let into = world.folder.path().join(format!("{files:?}"));
            world.repository.export_repository(commit, &into, (files, &ExportOptions::default())).unwrap();
            let run = |arguments: &[&str]| {
                let mut command = Command::new(world.git.program());
                let output = command
                    .env("GIT_CONFIG_GLOBAL", "/dev/null")
                    .args(arguments)
                    .current_dir(&into)
                    .output()
                    .unwrap();
                (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
            };
            assert_eq!(run(&["rev-parse", "HEAD"]), (true, commit.to_string()));
            assert_eq!(run(&["rev-list", "--count", "HEAD"]), (true, "2".to_owned()));
            assert!(!run(&["cat-file", "-e", &secret.to_string()]).0, "an object of another change");
            assert!(run(&["fsck", "--full"]).0);
            assert!(!run(&["symbolic-ref", "HEAD"]).0, "HEAD is not detached");
            assert_eq!(run(&["for-each-ref"]).1, "");
            assert_eq!(run(&["diff", "--cached", "--name-only"]).1, "");
            assert!(!into.join(".git/objects/info/alternates").exists());
            assert!(!into.join(".git/hooks").exists());
            let config = std::fs::read_to_string(into.join(".git/config")).unwrap();
            assert!(!config.contains(world.folder.path().to_str().unwrap()), "{config}");
            assert_eq!(into.join("plain").exists(), files == Files::Written);
        }
    }
}
