//! A served repository with people, and clones that push to it with plain git.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use towpath_core::candidate::{CandidateSpec, Strategy};
use towpath_core::definition::GateSettings;
use towpath_core::gate::{Labels, Verdict};
use towpath_core::ids::{BranchName, ChangeNumber, CommitId, Timestamp, TreeId, UserId};
use towpath_core::policy::Role;
use towpath_forge::push::{HookDesk, HookSettings};
use towpath_forge::{
    BuiltIn, ChangeRecord, Definitions, Done, ForgeError, Member, Memory, Policy, PushedBranch, Records,
    Retarget, ReviewRequest, RowStep, SavedChange, Settings,
};
use towpath_git::{
    CandidateOutcome, Expected, FileAt, Git, GitOptions, Interrupt, Record, RefUpdate, Repository,
};

use crate::http::Server;

pub const ANN: UserId = UserId(1);
pub const BOB: UserId = UserId(2);
pub const OUTSIDER: UserId = UserId(3);
pub const MAINTAINER: UserId = UserId(4);
pub const ADMIN: UserId = UserId(5);
pub const READER: UserId = UserId(6);
pub const STRANGER: UserId = UserId(7);

const PEOPLE: [(&str, UserId, Option<Role>, bool); 7] = [
    ("ann", ANN, Some(Role::Author), true),
    ("bob", BOB, Some(Role::Author), true),
    ("outsider", OUTSIDER, Some(Role::Author), false),
    ("mia", MAINTAINER, Some(Role::Maintainer), true),
    ("ada", ADMIN, Some(Role::Admin), true),
    ("reader", READER, Some(Role::Reader), false),
    ("stranger", STRANGER, None, false),
];

/// The tests' definition: a file that says `broken` is.
pub struct Yaml;

impl Definitions for Yaml {
    fn settings(&self, repository: &Repository, tree: TreeId) -> Result<Settings, ForgeError> {
        match repository.file_at(tree, "towpath.yaml", 100_000)? {
            FileAt::Content(text) if text == b"broken" => Ok(Err(vec!["line 1: broken".to_owned()])),
            _ => Ok(Ok(GateSettings::default())),
        }
    }
}

pub struct World {
    pub folder: TempDir,
    pub forge: BuiltIn,
    pub memory: Arc<Memory>,
    pub server: Server,
    client: PathBuf,
}

/// Every git on this machine: what works with one version must work with the others.
pub fn every_git() -> Vec<Git> {
    let programs = ["/usr/bin/git", "/usr/local/bin/git", "/opt/homebrew/bin/git"].map(PathBuf::from);
    let found = programs.into_iter().filter(|program| program.is_file());
    let gits: Vec<Git> = found
        .map(|program| Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap())
        .collect();
    assert!(!gits.is_empty(), "no git in the usual places");
    gits
}

/// A git whose `update-ref` goes through `updates`, which has the real one in `$git`. It is a script of `folder`.
pub fn scripted(git: &Git, folder: &Path, updates: &str) -> Git {
    let [draft, program] = ["draft", "git"].map(|name| folder.join(name));
    let real = git.program().display();
    let script = format!(
        "#!/bin/sh\ngit={real}\ncase \" $* \" in\n*' update-ref '*) {updates};;\n*) exec $git \"$@\";;\nesac\n"
    );
    std::fs::write(&draft, script).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Not written by this process: it may have a file that it wrote still open in a child that another test just starts.
    assert!(Command::new("cp").arg(&draft).arg(&program).status().unwrap().success());
    Git::find(GitOptions { program: Some(program), ..GitOptions::default() }).unwrap()
}

pub fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

/// A branch that is there, whatever it is at.
pub fn pushed(name: &str) -> PushedBranch {
    PushedBranch { name: branch(name), seen: None }
}

pub fn policy() -> Policy {
    let mut policy = Policy::one_branch(branch("main"), &Labels::default());
    policy.watched.insert(branch("release"), Labels::default());
    policy
}

/// Both watched branches with one file.
fn seed(repository: &Repository) {
    let file = Some(("base", &b"base\n"[..]));
    let record =
        Record { previous: None, file, folder: None, message: "base", time: Timestamp(1_700_000_000_000) };
    let commit = repository.write_record(&record).unwrap();
    let update = |name: &str| RefUpdate {
        name: name.parse().unwrap(),
        expected: Expected::Absent,
        target: Some(commit.into()),
    };
    repository.ref_transaction(&[update("refs/heads/main"), update("refs/heads/release")]).unwrap();
}

impl World {
    pub fn new() -> World {
        let git = every_git().swap_remove(0);
        World::with(&git, git.program(), Duration::from_secs(20))
    }

    pub fn with(git: &Git, client: &Path, idle: Duration) -> World {
        let folder = TempDir::new().unwrap();
        let repository = Repository::create(git, &folder.path().join("demo.git")).unwrap();
        seed(&repository);
        let memory = Arc::new(Memory::new(policy()));
        for (name, user, role, authorised) in PEOPLE {
            if let Some(role) = role {
                memory.admit(user, Member { name: name.to_owned(), role }, authorised);
            }
        }
        let forge = BuiltIn::new("demo".parse().unwrap(), repository, memory.clone(), Arc::new(Yaml));
        let settings = HookSettings {
            folder: folder.path().join("push"),
            program: env!("CARGO_BIN_EXE_towpath-hook").into(),
            arguments: Vec::new(),
        };
        let desk = HookDesk::open(&settings).unwrap();
        let users = PEOPLE.iter().map(|(name, user, ..)| ((*name).to_owned(), *user)).collect();
        let server = Server::start(forge.clone(), desk, users, idle);
        World { folder, forge, memory, server, client: client.to_owned() }
    }

    pub fn now(&self) -> Timestamp {
        self.server.shared.now()
    }

    pub fn main(&self) -> CommitId {
        self.forge.repository().branch_tip(&branch("main")).unwrap().unwrap()
    }

    /// Puts one more commit on main, past all rules.
    pub fn advance_main(&self) -> CommitId {
        let file = Some(("more", &b"more\n"[..]));
        let previous = Some(self.main());
        let record =
            Record { previous, file, folder: None, message: "more", time: Timestamp(1_700_000_060_000) };
        let commit = self.forge.repository().write_record(&record).unwrap();
        assert!(self.in_store(&["update-ref", "refs/heads/main", &commit.to_string()]).status.success());
        commit
    }

    /// A new working tree of a person, with what is on main.
    pub fn clone_of(&self, person: &str) -> Clone {
        let folder = TempDir::new_in(self.folder.path()).unwrap().keep();
        let url = format!("http://{person}:x@{}/demo.git", self.server.address);
        let clone = Clone { folder, url, client: self.client.clone() };
        clone.run(&["init", "--quiet", "--initial-branch=work", "."]);
        if self.forge.repository().branch_tip(&branch("main")).unwrap().is_some() {
            clone.go_to("refs/heads/main");
        }
        clone
    }

    /// Pushes one commit of a person as a change from a branch, and returns its record.
    pub fn change(&self, person: &str, name: &str) -> (Clone, ChangeRecord) {
        let clone = self.clone_of(person);
        clone.commit_file(name, &format!("{name}\n"));
        clone.push(&["-o", "change", &format!("HEAD:refs/heads/{name}")]).unwrap();
        let number = self.newest();
        (clone, self.forge.change(number).unwrap())
    }

    /// Has a person open a change from a branch that is there, whatever it is at.
    pub fn open(&self, by: UserId, name: &str) -> Done<ChangeRecord> {
        self.forge.propose_branch(by, &pushed(name), &Default::default(), self.now())
    }

    /// Has a person who looked at a change just now approve it.
    pub fn approve(&self, by: UserId, change: &ChangeRecord) -> Done<ChangeRecord> {
        self.forge.review(by, change.number, &approval(change), self.now())
    }

    /// Has a person who looked at a change just now move it.
    pub fn retarget(&self, by: UserId, number: ChangeNumber, target: &str) -> Done<ChangeRecord> {
        let retarget = Retarget { target: branch(target), came: self.forge.change(number)?.came };
        self.forge.retarget(by, number, &retarget, self.now())
    }

    pub fn newest(&self) -> ChangeNumber {
        let refs = self.forge.repository().refs("refs/changes").unwrap();
        let numbers = refs.iter().filter_map(|found| found.name.as_str().split('/').nth(2)?.parse().ok());
        numbers.max().unwrap()
    }

    pub fn ref_of(&self, name: &str) -> Option<CommitId> {
        let target = self.forge.repository().ref_target(&name.parse().unwrap()).unwrap();
        target.map(|target| CommitId(target.0))
    }

    /// Every ref but the journal, which may remember a push that git refused after us.
    pub fn refs(&self) -> Vec<String> {
        let all = self.forge.repository().all_refs().unwrap();
        let shown = all.into_iter().map(|found| format!("{} {}", found.name, found.target));
        shown.filter(|text| !text.starts_with("refs/towpath/pushes")).collect()
    }

    /// Whether an object is in the repository.
    pub fn has(&self, object: &str) -> bool {
        self.in_store(&["cat-file", "-e", object]).status.success()
    }

    /// The id of an object, and the file in which it lies loose.
    pub fn loose(&self, object: &str) -> (String, PathBuf) {
        let id = String::from_utf8(self.in_store(&["rev-parse", object]).stdout).unwrap().trim().to_owned();
        let file = self.forge.repository().path().join("objects").join(&id[..2]).join(&id[2..]);
        (id, file)
    }

    /// Has every object lie loose.
    pub fn unpack(&self) {
        let each = "for pack in objects/pack/*.pack; do mv \"$pack\" taken && rm \"${pack%.pack}\".* && \"$0\" unpack-objects -q \
                    < taken && rm taken || exit 1; done";
        let mut unpacking = Command::new("sh");
        unpacking.args(["-c", each]).arg(&self.client).current_dir(self.forge.repository().path());
        assert!(unpacking.status().unwrap().success());
        self.forge.repository().close_processes();
    }

    /// Packs everything and has each of two objects found where the other one is, as a bit that flips in the pack's index does.
    pub fn mistake(&self, one: &str, other: &str) {
        let repository = self.forge.repository();
        repository.collect_garbage(&Interrupt::new().unwrap()).unwrap();
        repository.close_processes();
        let mut files = std::fs::read_dir(repository.path().join("objects/pack")).unwrap();
        let is_index = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "idx");
        let path = files.find_map(|entry| Some(entry.unwrap().path()).filter(is_index)).unwrap();
        let mut index = std::fs::read(&path).unwrap();
        // Source: "Version 2 pack-*.idx" in git's Documentation/gitformat-pack.
        let count = u32::from_be_bytes(index[8 + 255 * 4..][..4].try_into().unwrap()) as usize;
        let names = 8 + 256 * 4;
        let place = |id: &str| {
            let id = id.parse::<CommitId>().unwrap().0;
            let at = (0..count).find(|at| index[names + at * 20..][..20] == id).unwrap();
            names + count * 24 + at * 4
        };
        let (one, other) = (place(one), place(other));
        (0..4).for_each(|byte| index.swap(one + byte, other + byte));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, index).unwrap();
    }

    /// Plain git in the bare repository, past all of our own code.
    pub fn in_store(&self, arguments: &[&str]) -> Output {
        plain_git(&self.client, self.forge.repository().path(), &[&["--git-dir=."], arguments].concat())
            .output()
            .unwrap()
    }

    /// After every case: the repository is sound, nothing of a push is left, and an honest change still opens.
    pub fn check_sound(&self) {
        let fsck = self.in_store(&["fsck", "--full", "--strict"]);
        assert!(fsck.status.success(), "{}", said(&fsck));
        assert!(!said(&fsck).contains("missing"), "{}", said(&fsck));
        self.check_no_quarantine();
        let (_, canary) = self.change("ann", "canary");
        assert!(canary.is_open());
        let mut listed = Command::new("sh");
        let mine = self.folder.path().to_str().unwrap().to_owned();
        let listed =
            listed.args(["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(!listed.contains(&format!("receive-pack --stateless-rpc {mine}")), "a receive-pack is left");
    }

    pub fn check_no_quarantine(&self) {
        let objects = self.forge.repository().path().join("objects");
        let left: Vec<_> = std::fs::read_dir(objects)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("tmp_") || name.starts_with("incoming"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Makes a row what it was, as if the server had died before it was saved.
pub fn put_row(world: &World, saved: &SavedChange) {
    let now = world.memory.change(saved.change.number).unwrap();
    let step = RowStep { from: now.map(|now| now.meta), to: saved.clone(), acts: vec![], untold: vec![] };
    world.memory.save(&step).unwrap();
}

/// The commit that the server makes of a change to test and land it. Everybody can work out which one that is, and fetch it.
pub fn candidate_of(world: &World, change: &ChangeRecord, strategy: Strategy) -> CommitId {
    let spec = CandidateSpec {
        parent: world.main(),
        revision: change.newest().commit,
        strategy,
        message: change.title.clone(),
        time: Timestamp(1_700_000_123_000),
    };
    match world.forge.repository().make_candidate(&spec).unwrap() {
        CandidateOutcome::Made { commit, .. } => commit,
        other => panic!("{other:?}"),
    }
}

/// A working tree of one person.
pub struct Clone {
    pub folder: PathBuf,
    pub url: String,
    client: PathBuf,
}

impl Clone {
    pub fn git(&self, arguments: &[&str]) -> Output {
        plain_git(&self.client, &self.folder, arguments).output().unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.git(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> String {
        use std::io::Write;
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        plain_git(&self.client, &self.folder, arguments)
    }

    /// Pushes; what git said, as `Ok` or `Err`.
    pub fn push(&self, arguments: &[&str]) -> Result<String, String> {
        let (options, refs): (Vec<&str>, Vec<&str>) = split(arguments);
        let output = self.git(&[&["push"], &options[..], &[&self.url], &refs[..]].concat());
        match output.status.success() {
            true => Ok(said(&output)),
            false => Err(said(&output)),
        }
    }

    /// Fetches what the served repository has by a name.
    pub fn fetch(&self, name: &str) {
        self.run(&["fetch", "--quiet", &self.url, name]);
    }

    /// The same, and has the working tree there.
    pub fn go_to(&self, name: &str) {
        self.fetch(name);
        self.run(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn commit(&self, message: &str) -> CommitId {
        self.run(&["add", "--all", "."]);
        self.run(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    pub fn commit_file(&self, path: &str, text: &str) -> CommitId {
        self.write(path, text);
        self.commit(&format!("Add {path}"))
    }

    /// Puts that many commits on top, each with the same files.
    pub fn commit_many(&self, count: usize) -> CommitId {
        let (base, tree) = (self.head(), self.run(&["rev-parse", "HEAD^{tree}"]));
        let mut stream = String::new();
        for at in 0..count {
            let from = if at == 0 { format!("from {base}\n") } else { String::new() };
            let person = "committer A <a@b> 1700000000 +0000";
            stream +=
                &format!("commit refs/heads/many\n{person}\ndata 1\n{}\n{from}M 040000 {tree} \n", at % 10);
        }
        self.run_with(&["fast-import", "--quiet"], stream.as_bytes());
        self.run(&["reset", "--quiet", "--hard", "refs/heads/many"]);
        self.head()
    }

    pub fn head(&self) -> CommitId {
        self.run(&["rev-parse", "HEAD"]).parse().unwrap()
    }
}

/// Options with their values, and refs.
fn split<'a>(arguments: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut options, mut refs) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "-o" => options.extend(["-o", words.next().unwrap()]),
            word if word.starts_with('-') => options.push(word),
            word => refs.push(word),
        }
    }
    (options, refs)
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn plain_git(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0100")
        .env("GIT_COMMITTER_DATE", "1700000000 +0100")
        .args(["-c", "gc.auto=0", "-c", "advice.detachedHead=false", "-c", "fsck.skipList=/dev/null"])
        .args(arguments)
        .current_dir(folder);
    command
}

/// The approval of somebody who looked at a change just now.
pub fn approval(change: &ChangeRecord) -> ReviewRequest {
    ReviewRequest {
        verdict: Verdict::Approve,
        revision: change.newest().commit,
        target: change.target.clone(),
        definition: None,
        message: change.message(),
        text: String::new(),
    }
}

pub fn why<T: std::fmt::Debug>(done: Done<T>) -> (towpath_core::cell::RefusalClass, String) {
    match done {
        Err(towpath_forge::Failure::Refused(refusal)) => (refusal.class, refusal.why),
        other => panic!("not refused: {other:?}"),
    }
}
