//! What jobs read stays where it is for as long as they may read it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use towpath_core::outbox::TroubleClass;
use towpath_git::{BaseOptions, GitError, Repository, TREE_LIMITS};

use super::*;

/// More than half of what bases may take.
const FILE_BYTES: usize = BASES_BYTES as usize * 2 / 3;

fn git(folder: &Path, words: &[&str], input: &[u8]) -> String {
    let person = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(person).args(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {words:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository for the runs of these tests, with a commit of one file for each of these letters.
fn commits(folder: &Path, letters: [&str; 2]) -> [(CommitId, TreeId); 2] {
    let repos = Repos::new(Git::find(GitOptions::default()).unwrap(), folder.join("repos"));
    let path = repos.path(&run(1).gate.repo);
    std::fs::create_dir_all(folder.join("repos")).unwrap();
    Repository::create(repos.git(), &path).unwrap();
    letters.map(|letter| {
        let blob = git(&path, &["hash-object", "-w", "--stdin"], letter.repeat(FILE_BYTES).as_bytes());
        let tree = git(&path, &["mktree"], format!("100644 blob {blob}\tfile\n").as_bytes());
        let commit = git(&path, &["commit-tree", "-m", letter, &tree], b"");
        (commit.parse().unwrap(), tree.parse().unwrap())
    })
}

fn with_files(name: &str, history: bool) -> JobSpec {
    let body = JobBody { checkout: true, history, ..(*job(name).body).clone() };
    JobSpec { body: Arc::new(body), ..job(name) }
}

impl World {
    /// Everything that preparers were given until now is done, and whatever they had removed is gone.
    fn all_rest(&self) {
        for (workers, count) in [(&self.jobs.preparers, PREPARERS), (&self.jobs.removers, REMOVERS)] {
            let all = Arc::new(Barrier::new(count + 1));
            for _ in 0..count {
                let all = all.clone();
                workers.run(Box::new(move || {
                    all.wait();
                }));
            }
            all.wait();
        }
    }

    fn start_heard(&self) -> (LeaseId, PathBuf) {
        let spec = self.peer.heard_start();
        (spec.lease, spec.base.expect("it has files"))
    }
}

#[test]
fn the_base_of_a_job_that_an_executor_has_outlives_a_restart_of_the_server() {
    let folder = TempDir::new().unwrap();
    let [new, former] = commits(folder.path(), ["n", "f"]);
    let store = Arc::new(Store::open(Options::new(folder.path().join("of-before"), system_time())).unwrap());
    let before = sources(&folder, &store, bases(&folder, 0));
    let repository = before.repos.get(&run(1).gate.repo).unwrap();
    let base = before.bases.base(&repository, former.1).unwrap().path().to_owned();
    drop((before, store));

    let mut world = World::below(folder);
    let goes_on = world.run_of(former, 1, vec![with_files("a", false)]).remove(0);
    let begins = world.run_of(new, 2, vec![with_files("b", false)]).remove(0);
    let lease = world.lease(&goes_on);
    world.connect(active(lease));
    world.jobs.start(&world.engine, begins);
    let (_, new_base) = world.start_heard();
    assert!(new_base.is_dir() && base.is_dir(), "its run has not asked yet");
    world.jobs.start(&world.engine, goes_on);
    world.jobs.all_claimed();
    world.all_rest();
    assert!(new_base.is_dir() && base.is_dir(), "it may read it still");
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(1);
    world.jobs.sources.bases.evict().unwrap();
    assert!(new_base.is_dir() && !base.exists());
}

#[test]
fn the_repository_of_a_job_outlives_its_server_and_goes_when_its_end_is_durable() {
    let folder = TempDir::new().unwrap();
    let [commit, _] = commits(folder.path(), ["a", "b"]);
    let mut world = World::below(folder);
    let histories = world.jobs.sources.histories.clone();
    std::fs::create_dir(histories.join(OTHER.to_string())).unwrap();
    world.connect(Leases::default());
    let wanted = world.run_of(commit, 1, vec![with_files("a", true)]).remove(0);
    world.jobs.start(&world.engine, wanted.clone());
    let (lease, files) = world.start_heard();

    // Another server's memory knows nothing of it.
    world.jobs.lock().held.clear();
    world.connect(active(lease));
    world.jobs.start(&world.engine, wanted);
    world.jobs.all_claimed();
    world.all_rest();
    assert!(files.join(".git").is_dir() && !histories.join(OTHER.to_string()).exists());
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(1);
    assert_eq!(world.peer.heard(), ToExecutor::Ack { leases: vec![lease] });
    world.all_rest();
    assert_eq!(std::fs::read_dir(histories).unwrap().count(), 0);
}

#[test]
fn a_base_that_no_job_uses_makes_room_for_the_next_job_whatever_that_starts_from() {
    let folder = TempDir::new().unwrap();
    let [over, used] = commits(folder.path(), ["o", "u"]);
    let disk = rustix::fs::statvfs(folder.path()).unwrap();
    // There is room for a base, and half of what a disk is to have free at most.
    let kept = disk.f_bavail.saturating_sub(disk.f_blocks / 32) * disk.f_frsize;
    let mut world = World::beside(folder, kept);
    world.connect(Leases::default());
    let begin = |commit, number| {
        let wanted = world.run_of(commit, number, vec![with_files("a", false)]).remove(0);
        world.jobs.start(&world.engine, wanted);
        world.start_heard()
    };
    let ((lease, base), (_, used_base)) = (begin(over, 1), begin(used, 2));
    world.all_rest();
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(1);
    assert!(base.is_dir() && used_base.is_dir());

    let next = world.run(3, vec![job("without-files")]).remove(0);
    world.jobs.start(&world.engine, next);
    world.peer.heard_start();
    world.all_rest();
    assert!(!base.exists() && used_base.is_dir());
}

#[test]
fn no_job_waits_for_what_is_removed() {
    let folder = TempDir::new().unwrap();
    let removal = Arc::new(Mutex::new(()));
    let goes_on = removal.clone();
    // For a base there is room at once; for what a job may take, when the test lets it.
    let room = move |more: TreeMeasure| {
        if more.bytes > 10 * BASES_BYTES {
            drop(goes_on.lock());
        }
        Ok(())
    };
    let options =
        BaseOptions { owner: None, limits: TREE_LIMITS, bytes_max: BASES_BYTES, room: Arc::new(room) };
    let bases = BaseStore::open(&folder.path().join("bases"), options).unwrap();
    let mut world = World::with_bases(folder, bases);
    world.connect(Leases::default());
    let takes_long = removal.lock().unwrap();
    for number in 1..=2 * PREPARERS as u64 {
        let wanted = world.run(number, vec![job("a")]).remove(0);
        world.jobs.start(&world.engine, wanted);
        world.peer.heard_start();
    }
    drop(takes_long);
}

#[test]
fn before_a_job_is_handed_over_bases_give_way_until_it_has_ample_room() {
    let folder = TempDir::new().unwrap();
    let [unused, _] = commits(folder.path(), ["u", "x"]);
    let base = folder.path().join("bases").join(unused.1.to_string());
    let (removal, there) = (Arc::new(Mutex::new(())), base.clone());
    let goes_on = removal.clone();
    let room = move |needed: TreeMeasure| {
        if needed.bytes > 10 * BASES_BYTES {
            drop(goes_on.lock());
        }
        let why = "it is full".to_owned();
        if needed.bytes >= AMPLE.bytes && there.exists() {
            Err(GitError::NoRoom { needed, why })
        } else {
            Ok(())
        }
    };
    let options =
        BaseOptions { owner: None, limits: TREE_LIMITS, bytes_max: BASES_BYTES, room: Arc::new(room) };
    let bases = BaseStore::open(&folder.path().join("bases"), options).unwrap();
    let mut world = World::with_bases(folder, bases);
    world.connect(Leases::default());
    // Nobody else makes room meanwhile.
    let takes_long = removal.lock().unwrap();
    let wanted = world.run_of(unused, 1, vec![with_files("a", false)]).remove(0);
    world.jobs.start(&world.engine, wanted);
    let (lease, _) = world.start_heard();
    assert!(base.is_dir(), "a job has it");
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(1);
    let next = world.run(2, vec![job("without-files")]).remove(0);
    world.jobs.start(&world.engine, next);
    world.peer.heard_start();
    assert!(!base.exists());
    drop(takes_long);
}

#[test]
fn bases_that_are_too_many_go_once_no_job_uses_them() {
    let folder = TempDir::new().unwrap();
    let [over, used] = commits(folder.path(), ["o", "u"]);
    let mut world = World::below(folder);
    world.connect(Leases::default());
    let begin = |commit, number| {
        let wanted = world.run_of(commit, number, vec![with_files("a", false)]).remove(0);
        world.jobs.start(&world.engine, wanted);
        world.start_heard()
    };
    let (lease, base) = begin(over, 1);
    world.peer.say(&ended(lease, Outcome::Passed, "exit code 0"));
    world.ends(1);
    let (_, used_base) = begin(used, 2);
    world.all_rest();
    assert!(!base.exists() && used_base.is_dir());
}

#[test]
fn a_job_whose_files_have_no_room_is_tried_again_later() {
    for history in [false, true] {
        let folder = TempDir::new().unwrap();
        let [commit, _] = commits(folder.path(), ["a", "b"]);
        let mut world = World::beside(folder, u64::MAX);
        world.connect(Leases::default());
        let wanted = world.run_of(commit, 1, vec![with_files("a", history)]).remove(0);
        world.jobs.start(&world.engine, wanted.clone());
        let trouble = world.trouble(&wanted);
        assert_eq!((trouble.class, trouble.tries), (TroubleClass::Transient, 1));
        assert!(trouble.why.contains("this machine's disk is nearly full: "), "{}", trouble.why);
        assert_eq!(std::fs::read_dir(&world.jobs.sources.histories).unwrap().count(), 0);
        assert_eq!(world.jobs.sources.bases.usage(), (0, 0));
    }
}
