//! Importing: what comes in, from where, and what the source may not do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use towpath_core::ids::TreeId;
use towpath_git::{
    Checkout, Credentials, ErrorClass, Git, GitError, GitOptions, ImportOptions, ODD_MODES, Reach, Source,
    import,
};

use crate::support::{World, branch, every_git, latin1, pretend_git, write_program};

/// A source with two branches, two tags, and refs that nobody should get.
fn source(world: &World) -> PathBuf {
    let one = world.commit_file("a", "1");
    let two = world.commit_file("a", "2");
    world.run(&["tag", "v1", &one.to_string()]);
    world.run(&["tag", "-a", "v2", "-m", "two", &two.to_string()]);
    world.run(&["branch", "trunk", &one.to_string()]);
    world.run(&["tag", "trunk", &two.to_string()]);
    world.run(&["branch", "--force", &"ab".repeat(20), &one.to_string()]);
    let hidden = world.run(&["commit-tree", "-m", "hidden", &world.tree_of("HEAD").to_string()]);
    for name in ["refs/replace/x", "refs/notes/x", "refs/towpath/candidates/x", "refs/changes/1/1"] {
        world.run(&["update-ref", name, &hidden]);
    }
    std::fs::write(world.work().join(".git/refs/heads").join(latin1(b"caf\xe9")), format!("{one}\n"))
        .unwrap();
    world.run(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    world.work()
}

#[test]
fn an_import_has_branches_and_tags_and_nothing_else() {
    for git in every_git() {
        let world = World::with(git);
        let path = source(&world);
        let into = world.folder.path().join("imported.git");
        let imported = import(&world.git, &Source::Local(&path), &into, ImportOptions::default()).unwrap();
        let names: Vec<String> =
            imported.repository.all_refs().unwrap().iter().map(|found| found.name.to_string()).collect();
        assert_eq!(names, ["refs/heads/main", "refs/heads/trunk", "refs/tags/v1", "refs/tags/v2"]);
        assert_eq!(imported.refs, 4);
        assert!(!into.join("refs/heads").join(latin1(b"caf\xe9")).exists());
        let hex_like = format!("refs/heads/{}", "ab".repeat(20));
        assert_eq!(
            imported.left_out,
            [hex_like, "refs/tags/trunk".to_owned(), "refs/heads/caf\u{fffd}".to_owned()]
        );
        assert_eq!(imported.repository.head().unwrap(), Some(branch("trunk")));
        let tag = imported.repository.ref_target(&"refs/tags/v2".parse().unwrap()).unwrap().unwrap();
        let tip = imported.repository.branch_tip(&branch("main")).unwrap().unwrap();
        assert_eq!(imported.repository.peel(tag).unwrap(), tip);
        assert_eq!(imported.repository.peel(tip.into()).unwrap(), tip);
        let hidden = world.run(&["rev-parse", "refs/changes/1/1"]).parse().unwrap();
        assert!(!imported.repository.has_commit(hidden).unwrap());
        assert!(!into.join("objects/info/alternates").exists());
        assert!(!into.join("import-config").exists());
        let config = std::fs::read_to_string(into.join("config")).unwrap();
        assert!(!config.contains("remote") && !config.contains(path.to_str().unwrap()), "{config}");
        let again = import(&world.git, &Source::Local(&path), &into, ImportOptions::default()).unwrap_err();
        assert_eq!(again.class(), ErrorClass::Conflict);
    }
}

#[test]
fn an_empty_source_is_imported_and_a_shallow_one_is_not() {
    for git in every_git() {
        let world = World::with(git);
        let path = world.work();
        let into = world.folder.path().join("empty.git");
        let imported = import(&world.git, &Source::Local(&path), &into, ImportOptions::default()).unwrap();
        assert_eq!((imported.refs, imported.repository.head().unwrap()), (0, Some(branch("main"))));

        world.commit_file("a", "1");
        world.commit_file("a", "2");
        let from = format!("file://{}", path.display());
        // An ordinary clone names what its remote has for HEAD, which is none of its branches.
        world.run(&["clone", "--quiet", &from, "../whole"]);
        let (whole, into) = (world.folder.path().join("whole"), world.folder.path().join("whole.git"));
        import(&world.git, &Source::Local(&whole), &into, ImportOptions::default()).unwrap();
        world.run(&["clone", "--quiet", "--depth=1", &from, "../shallow"]);
        let shallow = world.folder.path().join("shallow");
        let into = world.folder.path().join("shallow.git");
        let error =
            import(&world.git, &Source::Local(&shallow), &into, ImportOptions::default()).unwrap_err();
        assert!(error.to_string().contains("shallow"), "{error}");
        assert!(!into.exists());
    }
}

fn tolerating<'a>(tolerated: &'a [&'a str]) -> ImportOptions<'a> {
    ImportOptions { tolerated, branch: None }
}

#[test]
fn a_source_without_the_wanted_branch_leaves_nothing() {
    let world = World::new();
    world.commit_file("a", "1");
    let path = world.work();
    let into = world.folder.path().join("imported.git");
    let try_branch = |name: &str| {
        let branch = branch(name);
        import(
            &world.git,
            &Source::Local(&path),
            &into,
            ImportOptions { branch: Some(&branch), ..ImportOptions::default() },
        )
    };
    let error = try_branch("mian").unwrap_err();
    assert_eq!(error.to_string(), "the source's branch `mian` does not exist");
    assert!(!into.exists());
    try_branch("main").unwrap();
}

#[test]
fn old_faults_come_in_only_by_name_and_stay_allowed() {
    let world = World::new();
    let tree = world.commit_file("a", "1");
    let tree = world.repository.commit(tree).map(|info| info.tree).unwrap_or_else(|_| world.tree_of("HEAD"));
    let commit = format!("tree {tree}\nauthor A<a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nold\n");
    world.write("commit", &commit);
    let bad = world.run(&["hash-object", "-t", "commit", "-w", "--literally", "commit"]);
    world.run(&["update-ref", "refs/heads/main", &bad]);
    let path = world.work();
    let into = world.folder.path().join("imported.git");
    let error = import(&world.git, &Source::Local(&path), &into, ImportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("missingSpaceBeforeEmail"), "{error}");
    assert!(!into.exists() && !world.folder.path().join("imported.git.new").exists());
    let imported =
        import(&world.git, &Source::Local(&path), &into, tolerating(&["missingSpaceBeforeEmail"])).unwrap();
    assert_eq!(imported.repository.branch_tip(&branch("main")).unwrap().unwrap().to_string(), bad);
    let config = std::fs::read_to_string(into.join("config")).unwrap();
    assert_eq!(config.matches("missingSpaceBeforeEmail = ignore").count(), 2, "{config}");
    let odd =
        import(&world.git, &Source::Local(&path), &world.folder.path().join("x.git"), tolerating(&["a.b=c"]))
            .unwrap_err();
    assert_eq!(odd.class(), ErrorClass::Invalid);
}

#[test]
fn a_history_with_modes_of_old_tools_goes_on_with_them() {
    let world = World::new();
    world.commit_file("a", "1");
    let import = |into: &str| {
        let into = world.folder.path().join(into);
        import(&world.git, &Source::Local(&world.work()), &into, ImportOptions::default()).unwrap().repository
    };
    assert!(!import("plain.git").tolerates(ODD_MODES).unwrap());
    let blob = world.run(&["rev-parse", "HEAD:a"]);
    let raw = [b"100664 a\0".to_vec(), blob.parse::<TreeId>().unwrap().0.to_vec()].concat();
    std::fs::write(world.work().join("tree"), raw).unwrap();
    let tree = world.run(&["hash-object", "-t", "tree", "-w", "--literally", "tree"]);
    let commit = world.run(&["commit-tree", "-m", "old", &tree]);
    world.run(&["update-ref", "refs/heads/legacy", &commit]);
    assert!(import("old.git").tolerates(ODD_MODES).unwrap());

    // However much else git has to say of it.
    let tags: Vec<String> = (0..150).map(|at| format!("tag{at}")).collect();
    for tag in &tags {
        let text = format!("object {commit}\ntype commit\ntag {tag}\n\nwithout a tagger\n");
        std::fs::write(world.work().join(tag), text).unwrap();
    }
    let words = ["hash-object", "-t", "tag", "-w", "--literally"].into_iter();
    let ids = world.run(&words.chain(tags.iter().map(String::as_str)).collect::<Vec<_>>());
    for (tag, id) in tags.iter().zip(ids.lines()) {
        std::fs::write(world.work().join(".git/refs/tags").join(tag), format!("{id}\n")).unwrap();
    }
    assert!(import("tagged.git").tolerates(ODD_MODES).unwrap());
}

#[test]
fn a_shallow_clone_is_no_source_and_is_told_how_to_become_one() {
    let world = World::new();
    world.commit_file("a", "1");
    world.commit_file("a", "2");
    let shallow = world.folder.path().join("shallow");
    let from = format!("file://{}", world.work().display());
    world.run(&["clone", "--quiet", "--depth=1", &from, shallow.to_str().unwrap()]);
    let is_shallow =
        |folder: &Path| Checkout::find(&world.git, folder).unwrap().unwrap().is_shallow().unwrap();
    assert!(is_shallow(&shallow) && !is_shallow(&world.work()));
    let into = world.folder.path().join("imported.git");
    let error = import(&world.git, &Source::Local(&shallow), &into, ImportOptions::default()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    let said = error.to_string();
    assert!(said.contains("`git fetch --unshallow`") && !said.contains(shallow.to_str().unwrap()), "{said}");
    assert!(!into.exists());
}

fn remote<'a>(address: &'a str, reach: Reach, credentials: Credentials<'a>) -> Source<'a> {
    Source::Remote { address, reach, credentials }
}

#[test]
fn b20_a_stranger_cannot_aim_an_import_at_the_server() {
    let world = World::new();
    let into = world.folder.path().join("x.git");
    let mark = world.folder.path().join("ran");
    let command = format!("ext::sh -c touch% {}", mark.display());
    let path = world.work();
    let addresses = [
        (&*command, ErrorClass::Invalid),
        ("-uid", ErrorClass::Invalid),
        ("file:///etc", ErrorClass::Invalid),
        (path.to_str().unwrap(), ErrorClass::Invalid),
        ("http://169.254.169.254/x", ErrorClass::Invalid),
        ("https://localhost/x", ErrorClass::Denied),
    ];
    for (address, class) in addresses {
        let source = remote(address, Reach::Public, Credentials::None);
        let error = import(&world.git, &source, &into, ImportOptions::default()).unwrap_err();
        let expected = matches!(error, GitError::SourceUnfit { .. } | GitError::SourceRefused { .. });
        assert!(expected && error.class() == class, "{address}: {error}");
    }
    assert!(!mark.exists() && !into.exists());
    // Port 1 of this machine refuses connections: an import that may go there fails, but for that reason.
    let source = remote("https://127.0.0.1:1/x", Reach::Anywhere, Credentials::None);
    let error = import(&world.git, &source, &into, ImportOptions::default()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(!into.exists());
}

#[test]
fn credentials_are_neither_arguments_nor_configuration() {
    let folder = TempDir::new().unwrap();
    let seen = folder.path().join("seen");
    let body = format!(
        "case \"$*\" in *' init '*) mkdir -p {0}/objects {0}/refs; echo x > {0}/HEAD;; \
         *) echo \"args: $*\" >> {1}; env >> {1}; exit 1;; esac",
        folder.path().join("x.git.new").display(),
        seen.display()
    );
    let mut options = pretend_git(&folder, &body);
    options.call_deadline = Duration::from_secs(30);
    let git = Git::find(options).unwrap();
    let secret = Credentials::Authorization("Basic c2VjcmV0");
    assert!(!format!("{secret:?}").contains("c2VjcmV0"));
    let source = remote("https://127.0.0.1/x", Reach::Anywhere, secret);
    import(&git, &source, &folder.path().join("x.git"), ImportOptions::default()).unwrap_err();
    let seen = std::fs::read_to_string(seen).unwrap();
    let arguments = seen.lines().find(|line| line.starts_with("args: ")).unwrap();
    assert!(!arguments.contains("c2VjcmV0"), "{arguments}");
    assert!(
        arguments.contains("http.followRedirects=false")
            && arguments.contains("http.curloptResolve=127.0.0.1:443:127.0.0.1")
    );
    assert!(seen.contains("GIT_CONFIG_VALUE_0=Authorization: Basic c2VjcmV0"));
    assert!(seen.contains("GIT_ALLOW_PROTOCOL=https\n"));
    let split =
        remote("https://127.0.0.1/x", Reach::Anywhere, Credentials::Authorization("Basic a\nHost: b"));
    assert_eq!(
        import(&git, &split, &folder.path().join("y.git"), ImportOptions::default()).unwrap_err().class(),
        ErrorClass::Invalid
    );
}

#[test]
fn ssh_speaks_to_the_host_that_was_named_and_known() {
    let world = World::new();
    let path = source(&world);
    let programs = world.folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let seen = world.folder.path().join("seen");
    // Stands for the other machine: it runs what an ssh server would run.
    let git = world.git.program().display();
    let body = format!("echo \"$*\" > {}; exec {git} upload-pack {}", seen.display(), path.display());
    write_program(&programs.join("ssh"), &body);
    let mut search_path = programs.into_os_string();
    search_path.push(":/usr/bin:/bin");
    let program = Some(world.git.program().to_owned());
    let git = Git::find(GitOptions { program, search_path, ..GitOptions::default() }).unwrap();
    let (key, known_hosts) = (PathBuf::from("/keys/id"), PathBuf::from("/keys/known hosts"));
    let credentials = Credentials::SshKey { key: &key, known_hosts: &known_hosts };
    let into = world.folder.path().join("imported.git");
    let address = "git@127.0.0.1:owner/name.git";
    assert!(
        import(&git, &remote(address, Reach::Public, credentials), &into, ImportOptions::default()).is_err()
    );
    assert!(
        import(&git, &remote(address, Reach::Anywhere, Credentials::None), &into, ImportOptions::default())
            .is_err()
    );
    assert!(!seen.exists(), "ssh was started for an import that is not allowed");
    let imported =
        import(&git, &remote(address, Reach::Anywhere, credentials), &into, ImportOptions::default())
            .unwrap();
    assert_eq!(imported.repository.refs("refs/heads").unwrap().len(), 2);
    let seen = std::fs::read_to_string(seen).unwrap();
    for wanted in [
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/keys/known hosts",
        "HostKeyAlias=127.0.0.1",
        "-F /dev/null",
    ] {
        assert!(seen.contains(wanted), "{seen}");
    }
    assert!(seen.contains("git@127.0.0.1 git-upload-pack '/owner/name.git'"), "{seen}");
}
