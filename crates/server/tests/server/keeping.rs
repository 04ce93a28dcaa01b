//! Housekeeping where the disk has not kept everything.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::json;
use towpath_core::ids::{Digest, RepoName};
use towpath_git::{Git, GitOptions, Repository};
use towpath_server::backup::{self, SaveError};
use towpath_server::housekeeping::{Figures, Retention};
use towpath_server::keys::Missing;
use towpath_store::View;
use towpath_store::records::Alert;

use crate::client::Ask;
use crate::runs::after_a_run;
use crate::world::{World, git};

const DAY: Duration = Duration::from_secs(86_400);

pub fn keep(world: &World) -> Figures {
    world.runtime.block_on(world.shared.housekeeping.now()).unwrap()
}

/// A blob of the world as a file that was stored some days ago.
fn stored(world: &World, text: &str, days: u32) -> PathBuf {
    let info = world.shared.blobs.put_bytes(text.as_bytes()).unwrap();
    aged(&world.shared.blobs.path(&info.digest), days)
}

pub fn aged(path: &Path, days: u32) -> PathBuf {
    fs::File::open(path).unwrap().set_modified(SystemTime::now() - DAY * days).unwrap();
    path.to_owned()
}

/// The manifest of the run's one output, and the file that it names.
fn output(world: &World) -> (PathBuf, PathBuf) {
    let folder = world.folder.path().join("data/executor/blobs/sha256");
    let blobs: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .flat_map(|inner| fs::read_dir(inner.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    let holds = |wanted: &str| {
        let found = blobs.iter().find(|path| fs::read_to_string(path).unwrap().contains(wanted));
        found.unwrap().clone()
    };
    (holds("\"files\""), holds("alert(2)"))
}

#[test]
fn a_manifest_that_is_damaged_is_told_of_and_nothing_goes_that_it_may_name() {
    let world = after_a_run();
    let (manifest, file) = output(&world);
    let whole = fs::read(&manifest).unwrap();
    let digest = Digest::of(&whole);
    let retention = Retention { grace_days: 1, ..Retention::default() };
    world.shared.store.writer().write(move |tx| retention.write(tx)).unwrap();
    // An old file that no output can name, and one that is as young as the run.
    let old = || stored(&world, "nobody's and old", 9);
    let young = || stored(&world, "nobody's and young", 2);
    [&manifest, &file].iter().for_each(|path| drop(aged(path, 2)));
    let (gone, spared) = (old(), young());

    // Stored files are read-only: whoever damages one is not stopped by that.
    let write = |bytes: &[u8]| {
        fs::remove_file(&manifest).unwrap();
        fs::write(&manifest, bytes).unwrap();
    };
    write(&whole[..whole.len() / 2]);
    aged(&manifest, 2);
    let figures = keep(&world);
    assert_eq!((figures.files, figures.trouble.len()), (1, 1), "{figures:?}");
    assert_eq!([&gone, &spared, &file].map(|path| path.exists()), [false, true, true]);
    let name = digest.to_string();
    let name = format!("sha256/{}/{}", &name[..2], &name[2..]);
    let said = &figures.trouble[0];
    assert!(said.contains("demo/main/1") && said.contains(&name), "{said}");
    assert!(!said.contains(world.folder.path().to_str().unwrap()), "{said}");
    let alerts = || {
        let repo: RepoName = "demo".parse().unwrap();
        let view = world.shared.store.reader().snapshot().unwrap();
        view.alerts(&repo, 10).unwrap().into_iter().filter(|alert| alert.text == *said).count()
    };
    assert_eq!(alerts(), 1);
    keep(&world);
    assert_eq!(alerts(), 1, "it is told of once");

    // Put back from a backup it is what it was, and what it does not name goes.
    write(&whole);
    let figures = keep(&world);
    assert_eq!((figures.files, figures.trouble.len()), (1, 0), "{figures:?}");
    assert_eq!([&spared, &file, &manifest].map(|path| path.exists()), [false, true, true]);
    let artifact = "/api/v1/repos/demo/runs/main/1/jobs/unit/artifacts/site/x.html";
    assert_eq!(world.by("rae", Ask::get(artifact)).status, 200);

    // Where it is not known when the run was, any file may be named: nothing goes at all.
    write(b"no list");
    let run = "demo/main/1".parse().unwrap();
    world.shared.store.writer().write(move |tx| tx.remove_run(&run)).unwrap();
    let spared = old();
    let figures = keep(&world);
    assert_eq!((figures.files, figures.trouble.len()), (0, 1), "{figures:?}");
    assert!(spared.exists());
}

#[test]
fn one_repository_that_is_gone_keeps_neither_the_server_nor_the_others_from_going_on() {
    let demo = |folder: &Path| folder.join("data/repos/demo.git");
    let world = World::new();
    // The candidate of the change is made by then: no git of the first server works there any more.
    let runs = |world: &World| world.ada(Ask::get("/api/v1/repos/demo/runs")).ok();
    world.until(|world| !runs(world).as_array().unwrap().is_empty());
    let world = world.restart(|folder| fs::rename(demo(folder), folder.join("elsewhere")).unwrap());
    let other = "/api/v1/repos/other/branches/main";
    world.until(|world| world.ada(Ask::get(other)).ok()["tip"].is_object());
    let alerts = |world: &World, words: &'static str| {
        let view = world.shared.store.reader().snapshot().unwrap();
        let told = move |alert: &Alert| alert.text.contains(words);
        view.alerts(&world.demo(), 100).unwrap().into_iter().filter(told).collect::<Vec<_>>()
    };
    let way_back = "`towpath backup restore BACKUP --data FOLDER`";
    let told = alerts(&world, way_back);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains("the last server left") && !told[0].text.contains("elsewhere"), "{told:?}");

    // What comes after it in the list is looked after all the same.
    let retention = Retention { packs_max: 0, loose_objects_max: 0, ..Retention::default() };
    world.shared.store.writer().write(move |tx| retention.write(tx)).unwrap();
    let figures = keep(&world);
    assert_eq!(figures.repositories, 1, "{figures:?}");
    let of_demo = |trouble: &String| trouble.starts_with("repo demo: ");
    assert!(!figures.trouble.is_empty() && figures.trouble.iter().all(of_demo), "{figures:?}");
    // Nothing is restored for that: only what a start could not put right is lost.
    assert_eq!((alerts(&world, "housekeeping").len(), alerts(&world, way_back).len()), (1, 1));

    // Nothing is made where it was, and once it is back it is used only after a start has put it right.
    let folder = world.folder.path();
    assert!(!demo(folder).exists());
    fs::rename(folder.join("elsewhere"), demo(folder)).unwrap();
    assert_eq!(keep(&world).repositories, 1);
    let before = alerts(&world, "").len();
    let world = world.restart(|_| ());
    assert_eq!(world.change(1)["state"], "open");
    let figures = keep(&world);
    assert_eq!((figures.repositories, &figures.trouble[..]), (2, &[][..]), "{figures:?}");
    assert_eq!(alerts(&world, "").len(), before);
}

/// The file of an object that only the record of change 1 of `demo` has.
fn of_the_record(folder: &Path) -> PathBuf {
    let repository = folder.join("data/repos/demo.git");
    let tree = git(&repository, &["rev-parse", "refs/changes/1/meta^{tree}"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    let (folder, file) = tree.trim().split_at(2);
    repository.join("objects").join(folder).join(file)
}

#[test]
fn a_repository_that_lacks_an_object_keeps_nothing_else_out_of_a_backup() {
    let world = World::new();
    let [data, saved, back, keys] =
        ["data", "saved", "back", "keys"].map(|name| world.folder.path().join(name));
    let (object, aside) = (of_the_record(world.folder.path()), world.folder.path().join("object"));
    fs::rename(&object, &aside).unwrap();
    let made = backup::make(&data, &saved).unwrap();
    let names = |repos: &[RepoName]| repos.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&made.repos), ["other"]);
    let [unsaved] = &made.unsaved[..] else { panic!("{made:?}") };
    assert!(
        unsaved.repo == world.demo() && unsaved.why.contains("`refs/changes/1/meta` reaches"),
        "{unsaved:?}"
    );
    let there = |folder: &Path, names: [&str; 5]| names.map(|name| folder.join(name).exists());
    let parts = ["towpath.db", "repos/other", "repos/demo", "logs", "blobs"];
    assert_eq!(there(&saved, parts), [true, true, false, true, true]);

    let (restored, _) = backup::restore(&saved, &back, &keys).unwrap();
    assert_eq!(restored, made);
    let repos = ["towpath.db", "repos/other.git", "repos/demo.git", "executor/logs", "executor/blobs"];
    assert_eq!(there(&back, repos), [true, true, false, true, true]);
    assert_eq!(View::open_copy(&back.join("towpath.db")).unwrap().repos().unwrap().len(), 2);

    // Nothing is held any more that was held for the backup.
    let git = Git::find(GitOptions::default()).unwrap();
    let repository = Repository::open(&git, &data.join("repos/demo.git")).unwrap();
    assert_eq!(repository.refs("refs/towpath/backup").unwrap(), []);
    fs::rename(&aside, &object).unwrap();
    let made = backup::make(&data, &world.folder.path().join("again")).unwrap();
    assert_eq!(
        (names(&made.repos), &made.unsaved[..]),
        (vec!["demo".to_owned(), "other".to_owned()], &[][..])
    );
}

#[test]
fn a_spoilt_copy_of_a_repository_keeps_nothing_else_from_being_restored() {
    let world = World::new();
    let [data, saved, back, keys] =
        ["data", "saved", "back", "keys"].map(|name| world.folder.path().join(name));
    backup::make(&data, &saved).unwrap();
    let bundle = fs::File::options().write(true).open(saved.join("repos/demo/objects.bundle")).unwrap();
    bundle.set_len(bundle.metadata().unwrap().len() - 1).unwrap();
    let (restored, _) = backup::restore(&saved, &back, &keys).unwrap();
    assert_eq!(restored.repos, ["other".parse().unwrap()]);
    let [unsaved] = &restored.unsaved[..] else { panic!("{restored:?}") };
    let why = "its file `objects.bundle` is not as it was saved";
    assert!(unsaved.repo == world.demo() && unsaved.why.starts_with(why), "{unsaved:?}");
    let there = ["towpath.db", "repos/other.git", "repos/demo.git"].map(|name| back.join(name).exists());
    assert_eq!(there, [true, true, false]);
}

/// Spoils the first page of a database's table, known by the columns of a row in it.
fn spoil_table(database: &Path, row: &[u8]) {
    let mut bytes = fs::read(database).unwrap();
    let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let has_it = |page: &&mut [u8]| page.windows(row.len()).any(|window| window == row);
    let page = bytes.chunks_mut(size).find(has_it).unwrap();
    page[0] = 0xff;
    fs::write(database, bytes).unwrap();
}

#[test]
fn keys_are_not_there_as_long_as_the_data_cannot_be_asked_for_them() {
    let world = World::new();
    let name = "unlike-any-other";
    let secret = json!({ "value": "hunter2" });
    world.ada(Ask::put(&format!("/api/v1/repos/demo/secrets/{name}"), secret)).ok();
    let [data, copy, keys, none, cut] =
        ["data", "copy", "keys", "none", "cut"].map(|name| world.folder.path().join(name));
    backup::make(&data, &copy).unwrap();
    assert_eq!(Missing::of_folder(&copy, &keys).unwrap(), Missing::default());
    let missing = Missing::of_folder(&copy, &none).unwrap();
    assert!(missing.audit_key && missing.sealed_secrets == 1, "{missing:?}");
    spoil_table(&copy.join("towpath.db"), format!("demo{name}").as_bytes());
    for keys in [&keys, &none] {
        Missing::of_folder(&copy, keys).unwrap_err();
    }
    // One that no start has come to fill.
    fs::create_dir(&cut).unwrap();
    fs::write(cut.join("towpath.db"), "").unwrap();
    assert_eq!(Missing::of_folder(&cut, &none).unwrap(), Missing::default());
}

#[test]
fn a_start_removes_the_draft_of_a_key_that_a_killed_one_left() {
    let draft = "keys/.draft-killed";
    let world = World::new().restart(|folder| fs::write(folder.join(draft), "half a k").unwrap());
    let left = |name: &str| world.folder.path().join(name).exists();
    assert_eq!([draft, "keys/audit.key"].map(left), [false, true]);
}

/// Set where a test may mount.
const MAY_MOUNT: &str = "TOWPATH_TEST_MAY_MOUNT";

/// Runs this test again in namespaces that end with it, in which it may mount.
fn where_it_may_mount(test: &str, check: impl Fn()) {
    if std::env::var_os(MAY_MOUNT).is_some() {
        return check();
    }
    let mut own = Command::new("unshare");
    own.arg("-rm").arg(std::env::current_exe().unwrap()).env(MAY_MOUNT, "1");
    let output = own.args(["--exact", "--nocapture", &format!("keeping::{test}")]).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    match output.status.success() {
        true => assert!(text.contains("1 passed"), "{text}"),
        false if text.contains("running 1 test") => panic!("{text}"),
        false => println!("SKIP {test}: nothing can be mounted here: {text}"),
    }
}

#[test]
fn a_backup_that_has_no_room_for_a_repository_is_none() {
    where_it_may_mount("a_backup_that_has_no_room_for_a_repository_is_none", || {
        let world = World::new();
        let [data, disk] = ["data", "disk"].map(|name| world.folder.path().join(name));
        // What no packing makes smaller.
        let large = world.folder.path().join("large");
        let random = fs::File::open("/dev/urandom").unwrap();
        std::io::copy(&mut random.take(16 << 20), &mut fs::File::create(&large).unwrap()).unwrap();
        let stored = git(&data.join("repos/demo.git"), &["hash-object", "-w", large.to_str().unwrap()]);
        let blob = String::from_utf8(stored.stdout).unwrap();
        git(&data.join("repos/demo.git"), &["update-ref", "refs/tags/large", blob.trim()]);
        fs::create_dir(&disk).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=12M", "none"]).arg(&disk);
        assert!(mount.status().unwrap().success());
        let error = backup::make(&data, &disk.join("saved")).unwrap_err();
        let of_demo = matches!(&error, SaveError::Repo { repo, .. } if *repo == world.demo());
        assert!(of_demo, "{error}");
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
        let saved = backup::make(&data, &world.folder.path().join("saved")).unwrap();
        assert_eq!((saved.repos.len(), saved.unsaved.len()), (2, 0));
    });
}

#[test]
fn a_housekeeping_that_a_lost_object_is_in_the_way_of_says_how_it_is_found() {
    let world = World::new();
    let retention = Retention { packs_max: 0, loose_objects_max: 0, ..Retention::default() };
    world.shared.store.writer().write(move |tx| retention.write(tx)).unwrap();
    fs::remove_file(of_the_record(world.folder.path())).unwrap();
    let figures = keep(&world);
    let [trouble] = &figures.trouble[..] else { panic!("{figures:?}") };
    assert!(
        trouble.starts_with("repo demo: object ") && trouble.contains("`refs/changes/1/meta` reaches"),
        "{trouble}"
    );
    let alerts = world.shared.store.reader().snapshot().unwrap().alerts(&world.demo(), 10).unwrap();
    let told: Vec<_> =
        alerts.iter().filter(|alert| alert.text.starts_with("housekeeping of `demo`")).collect();
    let [Alert { text, .. }] = &told[..] else { panic!("{alerts:?}") };
    assert!(text.contains("`git fsck --name-objects`") && text.contains("put back from a copy"), "{text}");
}
