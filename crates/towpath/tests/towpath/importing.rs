//! What comes from another server: a repository that it shows to whoever logs in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::private_git::{Behind, PrivateGit, certificates};
use crate::served::Served;
use crate::support::{Ended, TOWPATH, World, ended};

const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";
/// What a login has that no other text has.
const CANARY: &str = "c2VjcmV0LWNhbmFyeQ";

/// A server that knows the certificate of a private one.
fn serving() -> Served {
    let world = World::with(&[("towpath.yaml", PIPELINE)]);
    let certificates = certificates(world.folder());
    Served::in_world(world, &["--sandbox", "none"], &[("SSL_CERT_FILE", &certificates)])
}

/// A repository with two branches, a tag and a ref of the server's own, below a folder of the world's.
fn source(world: &World) -> PathBuf {
    world.git(&["branch", "topic"]);
    world.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    world.git(&["tag", "--annotate", "v1", "--message=one"]);
    let folder = world.folder().join("private");
    std::fs::create_dir(&folder).unwrap();
    world.git(&["clone", "--quiet", "--mirror", ".", folder.join("vault.git").to_str().unwrap()]);
    folder
}

fn import(served: &Served, (address, name): (&str, &str), login: Option<&str>) -> Ended {
    let mut command = served.world.command(TOWPATH);
    command.args(["repo", "import", address, "--name", name]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Some(login) = login else { return ended(command.output().unwrap()) };
    let mut child = command.arg("--authorization-stdin").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(login.as_bytes()).unwrap();
    ended(child.wait_with_output().unwrap())
}

/// Every branch and tag of a bare repository, and every object that they reach.
fn content(world: &World, repository: &Path) -> String {
    let git_dir = format!("--git-dir={}", repository.display());
    let refs = world.git(&[&git_dir, "for-each-ref", "refs/heads", "refs/tags"]);
    refs + &world.git(&[&git_dir, "rev-list", "--objects", "--branches", "--tags"])
}

/// Files below a folder with these words in them.
fn files_with(folder: &Path, words: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with(&path, words));
        } else if kind.is_file() {
            // What is gone meanwhile says nothing.
            let bytes = std::fs::read(&path).unwrap_or_default();
            if String::from_utf8_lossy(&bytes).contains(words) {
                found.push(path);
            }
        }
    }
    found
}

fn repos(served: &Served) -> Vec<String> {
    let folder = std::fs::read_dir(served.world.home().join("data/repos")).unwrap();
    let mut names: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_private_repository_comes_whole_by_its_login_which_stays_nowhere() {
    let served = serving();
    let world = &served.world;
    let folder = source(world);
    let has_not_kept_the_login = |server: &PrivateGit, said: &Ended| {
        let listed = server.listed();
        assert!(listed.contains(&server.address("vault.git")), "nobody who asks is seen: {listed}");
        assert!(!listed.contains(CANARY), "{listed}");
        assert!(!said.out.contains(CANARY) && !said.err.contains(CANARY), "{}{}", said.out, said.err);
        assert!(!served.has_said(CANARY));
        assert!(!files_with(&world.home().join("data"), "web").is_empty(), "files are not looked into");
        assert_eq!(files_with(world.folder(), CANARY), Vec::<PathBuf>::new());
    };
    for (scheme, name) in [("Basic", "basic"), ("Bearer", "bearer")] {
        let login = format!("{scheme} {CANARY}");
        let server = PrivateGit::serving(Behind::Folder(folder.clone(), login.clone()));
        let address = server.address("vault.git");
        let (from, before) = ((&*address, name), repos(&served));
        let wrong = format!("{scheme} {CANARY}x");
        for (login, why) in
            [(None, "asks for a login"), (Some(&*wrong), "does not take the login that it was given")]
        {
            let refused = import(&served, from, login);
            assert_eq!(refused.code, 2, "{}{}", refused.out, refused.err);
            assert!(refused.err.contains(&format!("why: `{address}` {why}\n")), "{}", refused.err);
            assert!(refused.err.contains("`--authorization-stdin`"), "{}", refused.err);
            assert_eq!(repos(&served), before);
            assert_eq!(world.towpath(&["repo", "show", "--repo", name]).code, 3);
            has_not_kept_the_login(&server, &refused);
        }
        let imported = import(&served, from, Some(&login));
        assert_eq!(imported.code, 0, "{}", imported.err);
        let place = world.home().join("data/repos").join(format!("{name}.git"));
        assert_eq!(content(world, &place), content(world, &folder.join("vault.git")));
        assert!(!std::fs::read_to_string(place.join("config")).unwrap().contains("127.0.0.1"));
        has_not_kept_the_login(&server, &imported);
    }
}

#[test]
fn a_repository_comes_from_another_towpath_by_a_token_of_there() {
    let (served, other) = (serving(), serving());
    let server = PrivateGit::serving(Behind::Towpath(other.url().trim_start_matches("http://").to_owned()));
    let from = (&*server.address("web.git"), "copy");
    other.push("topic", "new", "x\n");
    let token = other.record(&["token", "create"])["token"].as_str().unwrap().to_owned();
    let refused = import(&served, from, Some("Bearer towpath_wrong"));
    assert!(refused.err.contains("does not take the login"), "{}", refused.err);
    let imported = import(&served, from, Some(&format!("Bearer {token}")));
    assert_eq!(imported.code, 0, "{}", imported.err);
    let repos = |served: &Served| served.world.home().join("data/repos");
    let (copy, source) = (repos(&served).join("copy.git"), repos(&other).join("web.git"));
    assert_eq!(content(&served.world, &copy), content(&other.world, &source));
    // What the other server keeps beside branches and tags is its own.
    assert!(
        other
            .world
            .git(&["--git-dir", source.to_str().unwrap(), "for-each-ref"])
            .contains("refs/changes/1/1")
    );
    assert!(
        !served.world.git(&["--git-dir", copy.to_str().unwrap(), "for-each-ref"]).contains("refs/changes")
    );
}
