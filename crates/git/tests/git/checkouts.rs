//! A developer's own clone, read and copied as it lies there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use towpath_git::{Checkout, GitError, Setting, TREE_LIMITS, TreeLimits, TreePath};

use crate::support::{World, every_git};

fn checkout(world: &World) -> Checkout {
    Checkout::find(&world.git, &world.work()).unwrap().unwrap()
}

fn paths(paths: &[TreePath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

/// Every file and link below a folder, with what is in it.
fn contents(folder: &Path) -> Vec<String> {
    fn walk(top: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_symlink() {
                found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if meta.is_dir() {
                walk(top, &path, found);
            } else {
                let mode = meta.permissions().mode() & 0o777;
                found.push(format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap().trim()));
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

#[test]
fn a_copy_has_what_is_tracked_and_what_is_not_ignored_as_it_is_on_disk() {
    for git in every_git() {
        let world = World::with(git);
        world.write(".gitignore", "ignored\n");
        world.write("a/kept", "old\n");
        world.write("deleted", "x\n");
        world.write("tool", "#!/bin/sh\n");
        world.run(&["add", "--all"]);
        world.run(&["commit", "--quiet", "--message=first"]);
        world.write("a/kept", "new\n");
        world.write("ignored", "secret\n");
        world.write("not yet added", "fresh\n");
        fs::remove_file(world.work().join("deleted")).unwrap();
        fs::set_permissions(world.work().join("tool"), PermissionsExt::from_mode(0o755)).unwrap();
        symlink("../outside", world.work().join("a/link")).unwrap();
        world.run(&["init", "--quiet", "nested"]);

        let checkout = checkout(&world);
        let files = checkout.files().unwrap();
        assert_eq!(paths(&files.nested), ["nested"]);
        let into = world.folder.path().join("copy");
        let copied = checkout.copy_files(&files, &into, TREE_LIMITS).unwrap();
        let expected = [
            ".gitignore 644 ignored",
            "a/kept 644 new",
            "a/link -> ../outside",
            "not yet added 644 fresh",
            "tool 755 #!/bin/sh",
        ];
        assert_eq!(contents(&into), expected);
        assert_eq!((copied.files, copied.missing), (5, 1));
        let changed = checkout.changed_since("HEAD").unwrap().unwrap();
        assert_eq!(paths(&changed), ["a/kept", "a/link", "deleted", "nested/", "not yet added", "tool"]);
    }
}

#[test]
fn a_folder_that_became_a_link_is_not_followed() {
    let world = World::new();
    world.write("a/passwd", "mine\n");
    world.run(&["add", "--all"]);
    fs::remove_dir_all(world.work().join("a")).unwrap();
    symlink("/etc", world.work().join("a")).unwrap();
    let checkout = checkout(&world);
    let into = world.folder.path().join("copy");
    let copied = checkout.copy_files(&checkout.files().unwrap(), &into, TREE_LIMITS).unwrap();
    assert_eq!(contents(&into), ["a -> /etc"]);
    assert_eq!(copied.missing, 1);
}

#[test]
fn a_work_tree_over_the_limit_is_refused() {
    let world = World::new();
    world.write("a", "12345");
    world.write("b", "12345");
    let checkout = checkout(&world);
    let limits = TreeLimits { bytes_max: 9, ..TREE_LIMITS };
    let error = checkout.copy_files(&checkout.files().unwrap(), &world.folder.path().join("copy"), limits);
    assert_eq!(error.unwrap_err().to_string(), "the work tree is over the limit of 9 bytes");
}

#[test]
fn a_copied_history_is_a_repository_of_its_own() {
    for git in every_git() {
        let world = World::with(git);
        let checkout = checkout(&world);
        let into = world.folder.path().join("copy");
        let before = checkout.copy_history(&into).unwrap_err();
        assert!(matches!(before, GitError::NotThere { .. }), "{before}");

        world.write("a", "one\n");
        world.run(&["add", "--all"]);
        world.run(&["commit", "--quiet", "--message=first"]);
        world.run(&["remote", "add", "origin", "https://user:secret@example.org/x"]);
        world.write("a", "two\n");
        checkout.copy_files(&checkout.files().unwrap(), &into, TREE_LIMITS).unwrap();
        checkout.copy_history(&into).unwrap();

        let copy = Checkout::find(&world.git, &into).unwrap().unwrap();
        let head = copy.head().unwrap().unwrap();
        assert_eq!(Some(&head), checkout.head().unwrap().as_ref());
        assert_eq!(head.branch.as_deref(), Some("main"));
        assert_eq!(paths(&copy.changed_since("HEAD").unwrap().unwrap()), ["a"]);
        assert_eq!(copy.remotes().unwrap(), []);
        assert!(!fs::read_to_string(into.join(".git/config")).unwrap().contains("secret"));
        assert!(!into.join(".git/objects/info/alternates").exists());
    }
}

#[test]
fn settings_are_of_the_repository_alone_and_may_be_made_twice() {
    let world = World::new();
    let checkout = checkout(&world);
    for _ in 0..2 {
        checkout.set("remote.towpath.url", Setting::Only("http://127.0.0.1/x.git")).unwrap();
    }
    let remotes = checkout.remotes().unwrap();
    let shown: Vec<_> = remotes.iter().map(|remote| (remote.name.as_str(), remote.url.as_str())).collect();
    assert_eq!(shown, [("towpath", "http://127.0.0.1/x.git")]);
    for _ in 0..2 {
        checkout.set("remote.towpath.url", Setting::Absent).unwrap();
    }
    assert_eq!(checkout.setting("remote.towpath.url").unwrap(), None);
    assert_eq!(
        Checkout::find(&world.git, world.folder.path()).unwrap().map(|found| found.top().to_owned()),
        None
    );
}

#[test]
fn a_remote_says_where_it_puts_what_it_fetches() {
    let world = World::new();
    let checkout = checkout(&world);
    let fetched = |remote: &str, name: &str| {
        let found = checkout.fetched_as(remote, &name.parse().unwrap()).unwrap();
        found.map(|found| found.as_str().to_owned())
    };
    for refspec in
        ["+refs/heads/*:refs/remotes/a.b/*", "^refs/heads/x", "refs/heads/x", "refs/notes/n*:refs/notes/a/n*"]
    {
        checkout.set("remote.a.b.fetch", Setting::Among(refspec)).unwrap();
    }
    checkout.set("remote.exact.fetch", Setting::Only("refs/notes/n:refs/notes/mine")).unwrap();
    assert_eq!(fetched("a.b", "refs/notes/n").as_deref(), Some("refs/notes/a/n"));
    assert_eq!(fetched("a.b", "refs/heads/main").as_deref(), Some("refs/remotes/a.b/main"));
    assert_eq!(fetched("a.b", "refs/notes/other"), None);
    assert_eq!(fetched("exact", "refs/notes/n").as_deref(), Some("refs/notes/mine"));
    assert_eq!([fetched("exact", "refs/notes/n2"), fetched("none", "refs/notes/n")], [None, None]);
}

#[test]
fn a_copied_branch_comes_alone_with_its_history_and_tags() {
    for git in every_git() {
        let world = World::with(git);
        world.write("a", "one\n");
        world.run(&["add", "--all"]);
        world.run(&["commit", "--quiet", "--message=first"]);
        world.run(&["tag", "v1"]);
        world.run(&["switch", "--quiet", "--create", "mine"]);
        world.run(&["commit", "--quiet", "--allow-empty", "--message=second"]);
        world.run(&["tag", "not-on-main"]);
        let into = world.folder.path().join("copy.git");
        checkout(&world).copy_branch(&"main".parse().unwrap(), &into).unwrap();
        let git_dir = format!("--git-dir={}", into.display());
        let names = world.run(&[&git_dir, "for-each-ref", "--format=%(refname)"]);
        assert_eq!(names, "refs/heads/main\nrefs/tags/v1");
        assert!(checkout(&world).copy_branch(&"none".parse().unwrap(), &into).is_err());
    }
}
