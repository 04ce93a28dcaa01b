//! The record, backups and the data folder, by the real program: H07, H09, H11, E11 and what clones bear witness to.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use towpath_store::View;

use crate::served::{stop, until_landed};
use crate::support::{Ended, TOWPATH, World, ended, own_address, wait_until};

const PIPELINE: &str = "jobs:\n  unit: { run: 'true' }\n";

/// A server that is started and stopped, with its folders in the world's home.
pub struct Site {
    pub world: World,
    server: Option<Child>,
    url: String,
}

impl Site {
    /// A server with the world's repository as `web`. Its jobs are the world's own.
    pub fn new() -> Site {
        let mut site =
            Site { world: World::with(&[("towpath.yaml", PIPELINE)]), server: None, url: String::new() };
        site.ok(&["init", "--data", &site.data(), "--user", "ann"]);
        site.start();
        let token = std::fs::read_to_string(site.home("data-keys/admin.token")).unwrap();
        site.given(&["token", "login", &site.url], &token);
        site.ok(&["repo", "import", ".", "--name", "web"]);
        site
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.world.home().join(name)
    }

    pub fn data(&self) -> String {
        self.home("data").display().to_string()
    }

    fn serve(&self, data: &str) -> Command {
        let mut command = self.world.command(TOWPATH);
        let listen = self.url.strip_prefix("http://").map_or_else(own_address, str::to_owned);
        command.args(["serve", "--data", data, "--listen", &listen, "--sandbox", "none"]);
        command
    }

    /// Starts a server at the address of the one before, if there was one.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    fn start_with(&mut self, options: &[&str]) {
        let mut serve = self.serve(&self.data());
        let mut server = serve.args(options).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
        let serving = lines.by_ref().find(|line| line.contains("serving at")).unwrap();
        self.url = serving.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
        // Somebody has to read it to its end, or the server waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        self.server = Some(server);
    }

    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            stop(&mut server, &self.world);
        }
    }

    pub fn ok(&self, arguments: &[&str]) -> Ended {
        let ended = self.world.towpath(arguments);
        assert_eq!(ended.code, 0, "towpath {arguments:?}: {}{}", ended.out, ended.err);
        ended
    }

    fn given(&self, arguments: &[&str], input: &str) {
        let mut command = self.world.command(TOWPATH);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    /// A branch with one commit, pushed as a change.
    fn push(&self, branch: &str) {
        self.world.git(&["switch", "--quiet", "--create", branch, "main"]);
        self.world.write(branch, "x\n");
        self.world.git(&["add", "--all"]);
        self.world.git(&["commit", "--quiet", "--message", branch]);
        let mut command = self.world.command("git");
        let pushed = ended(command.args(["push", "towpath", branch, "-o", "change"]).output().unwrap());
        assert_eq!(pushed.code, 0, "{}", pushed.err);
    }

    pub fn land(&self, number: &str, branch: &str) {
        self.push(branch);
        until_landed(&self.world, number);
    }

    fn main_log(&self) -> Vec<String> {
        let repository = self.home("data/repos/web.git");
        let mut command = self.world.command("git");
        command.arg("--git-dir").arg(repository).args(["log", "--first-parent", "--format=%s", "main"]);
        ended(command.output().unwrap()).out.lines().map(str::to_owned).collect()
    }

    /// Fetches as everybody does, until so many notes are there.
    pub fn fetch_notes(&self, wanted: usize) {
        wait_until(&format!("{wanted} notes"), || {
            self.world.git(&["fetch", "--quiet", "towpath"]);
            let mut command = self.world.command("git");
            let listed = command.args(["notes", &self.notes(), "list"]).output().unwrap();
            ended(listed).out.lines().count() == wanted
        });
    }

    /// How `git notes` is told where the clone keeps them.
    fn notes(&self) -> String {
        let refspecs = self.world.git(&["config", "--get-all", "remote.towpath.fetch"]);
        let place = refspecs.lines().find_map(|line| line.strip_prefix("refs/notes/towpath*:refs/notes/"));
        format!("--ref={}", place.unwrap().strip_suffix('*').unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn h07_restore_old() {
    let mut site = Site::new();
    site.land("1", "one");
    let saved = site.home("saved").display().to_string();
    let made = site.ok(&["backup", "make", &saved, "--data", &site.data()]);
    assert!(made.out.contains("1 repo") && made.err.contains("data-keys safe"), "{}{}", made.out, made.err);
    assert_eq!(site.world.towpath(&["backup", "make", &saved, "--data", &site.data()]).code, 5);
    let data = site.data();
    let below = format!("{saved}/backup.json/x");
    for (arguments, said) in [
        (["make", &below, "--data", &data], format!("cannot make the folder `{below}`: ")),
        (["make", &saved, "--data", &saved], "exists already".to_owned()),
        (["restore", &data, "--data", &below], "is no backup of Towpath".to_owned()),
        (["restore", &saved, "--data", &data], "exists already".to_owned()),
    ] {
        let refused = site.world.towpath(&[&["backup"], &arguments[..]].concat()).err;
        assert!(refused.contains(&said) && refused.contains("\n hint: "), "{refused}");
    }
    for (number, branch) in [("2", "two"), ("3", "three"), ("4", "four")] {
        site.land(number, branch);
    }
    let in_use = site.world.towpath(&["backup", "restore", &saved, "--data", &site.data()]);
    assert_eq!(in_use.code, 5, "{}", in_use.err);
    site.stop();
    std::fs::rename(site.home("data"), site.home("lost")).unwrap();
    // As the guide has it: where the person stands, by relative names.
    let mut restore = site.world.command(TOWPATH);
    restore.current_dir(site.world.home()).args(["backup", "restore", "saved", "--data", "data"]);
    let restored = ended(restore.output().unwrap());
    assert_eq!(restored.code, 0, "{}", restored.err);
    assert!(!restored.out.contains("missing"), "{}", restored.out);
    assert!(restored.err.contains("`towpath user list`, `towpath repo people REPO`"), "{}", restored.err);

    site.start();
    let shown = &site.world.records(&["backup", "show"])[0]["restored"];
    let lost = shown["leaves_lost"].as_u64().unwrap();
    // A landing, its two runs and its pushes have some leaves each.
    assert!(lost >= 6, "{shown}");
    site.push("five");
    wait_until("halt", || {
        let why = site.world.towpath(&["change", "why", "2"]).out;
        why.contains(&format!("nothing lands on this server: the data were restored, {lost} of"))
    });
    let branch = site.ok(&["branch", "show"]).out;
    assert!(branch.contains("halted") && branch.contains("towpath backup show"), "{branch}");
    assert!(site.ok(&["branch", "list"]).out.trim_end().ends_with("halted"));
    assert_eq!(site.main_log(), ["Merge change 1: one", "first"]);

    let doctor = || site.world.towpath(&["doctor", "--quick", "--data", &site.data()]);
    let said = [format!("nothing lands in {}", site.data()), format!("towpath backup accept --lost {lost}")];
    let waits = doctor();
    assert!(waits.code == 2 && said.iter().all(|said| waits.out.contains(said)), "{}", waits.out);
    let wrong = site.world.towpath(&["backup", "accept", "--lost", "0"]);
    assert_eq!(wrong.code, 5, "{}", wrong.err);
    assert!(wrong.err.contains(&format!("{lost} leaves of the record are lost, not 0")), "{}", wrong.err);
    let accepted = site.ok(&["backup", "accept", "--lost", &lost.to_string()]).out;
    assert!(accepted.contains("landing goes on"), "{accepted}");
    let none = doctor().out;
    assert!(none.contains(&format!("none waits in {}", site.data())), "{none}");
    assert_eq!(site.world.towpath(&["backup", "accept", "--lost", &lost.to_string()]).code, 5);
    until_landed(&site.world, "2");
    assert_eq!(site.main_log(), ["Merge change 2: five", "Merge change 1: one", "first"]);
    let record = site.ok(&["audit", "show", "--count", "500"]).out;
    assert!(record.contains("  restored  ") && record.contains("accepted a restore"), "{record}");
    let verified = site.ok(&["audit", "verify", "--data", &site.data()]).out;
    assert!(verified.contains(&format!("a restore lost {lost} leaves")), "{verified}");
    assert!(verified.contains("excused checkpoints: "), "{verified}");
}

/// The repositories are what they were, only the rows are of yesterday: what landed since is not landed again.
#[test]
fn h07_restore_of_the_database_alone_lands_nothing_twice() {
    let mut site = Site::new();
    site.land("1", "one");
    let saved = site.home("saved");
    site.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    site.land("2", "two");
    site.land("3", "three");
    let before = site.main_log();
    assert_eq!(before.len(), 4);
    site.stop();
    for name in ["towpath.db-wal", "towpath.db-shm"] {
        let _ = std::fs::remove_file(site.home("data").join(name));
    }
    std::fs::copy(saved.join("towpath.db"), site.home("data/towpath.db")).unwrap();

    site.start();
    let shown = &site.world.records(&["backup", "show"])[0]["restored"];
    let lost = shown["leaves_lost"].as_u64().unwrap().to_string();
    for number in ["2", "3"] {
        assert_eq!(site.world.records(&["change", "show", number])[0]["state"], "landed");
    }
    site.ok(&["backup", "accept", "--lost", &lost]);
    site.land("4", "four");
    let mut after = before;
    after.insert(0, "Merge change 4: four".to_owned());
    assert_eq!(site.main_log(), after);
    let record = site.ok(&["audit", "show", "--count", "500"]).out;
    assert!(record.contains("foreign push"), "{record}");
    let repository = site.home("data/repos/web.git").display().to_string();
    let verified = site.ok(&["audit", "verify", "--data", &site.data(), "--repo", &repository]).out;
    assert!(verified.contains("1 step by somebody else"), "{verified}");
}

#[test]
fn a_repository_that_the_disk_has_lost_comes_back_as_its_alert_says() {
    let mut site = Site::new();
    site.land("1", "one");
    let saved = site.home("saved").display().to_string();
    site.ok(&["backup", "make", &saved, "--data", &site.data()]);
    site.stop();
    std::fs::remove_dir_all(site.home("data/repos/web.git")).unwrap();
    site.start();
    let refused = site.world.towpath(&["change", "comment", "1", "Well?"]);
    assert_eq!(refused.code, 7, "{}", refused.err);
    let partial = site.home("partial").display().to_string();
    let made = site.world.towpath(&["backup", "make", &partial, "--data", &site.data()]);
    assert_eq!((made.code, made.out.contains("0 repos and a record")), (1, true), "{}", made.out);
    let said = ["1 repo could not be saved", "web: repository", "repos/web.git fsck --name-objects"];
    assert!(said.iter().all(|said| made.err.contains(said)), "{}", made.err);
    let elsewhere = site.home("elsewhere/data").display().to_string();
    let restored = site.ok(&["backup", "restore", &partial, "--data", &elsewhere]).out;
    assert!(restored.contains("repos/web.git, of which the backup has no whole copy ("), "{restored}");

    site.stop();
    let view = View::open_copy(&site.home("data/towpath.db")).unwrap();
    let alert = view.alerts(&"web".parse().unwrap(), 1).unwrap().remove(0).text;
    drop(view);
    let commands = alert.split('`').filter_map(|quoted| quoted.strip_prefix("towpath "));
    let [restore, show, accept] = commands.collect::<Vec<_>>()[..] else { panic!("{alert}") };
    std::fs::rename(site.home("data"), site.home("lost")).unwrap();
    let restore = restore.replace("BACKUP", &saved).replace("FOLDER", &site.data());
    site.ok(&restore.split(' ').collect::<Vec<_>>());
    site.start();
    let shown = site.world.records(&show.split(' ').collect::<Vec<_>>());
    let lost = shown[0]["restored"]["leaves_lost"].as_u64().unwrap();
    site.ok(&accept.replace("LEAVES", &lost.to_string()).split(' ').collect::<Vec<_>>());
    site.land("2", "two");
    assert_eq!(site.main_log(), ["Merge change 2: two", "Merge change 1: one", "first"]);
}

#[test]
fn a_damaged_record_of_one_change_keeps_no_other_from_landing() {
    let mut site = Site::new();
    site.land("1", "one");
    // Its record says by then that it has landed, and is not written again.
    site.ok(&["change", "comment", "1", "Well?"]);
    let repository = site.home("data/repos/web.git");
    let mut command = site.world.command("git");
    command.arg("--git-dir").arg(&repository).args(["rev-parse", "refs/changes/1/meta"]);
    let id = ended(command.output().unwrap()).out.trim().to_owned();
    let file = repository.join("objects").join(&id[..2]).join(&id[2..]);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    site.land("2", "two");
    site.stop();
    site.start();
    site.land("3", "three");
    let make = |name: &str| {
        let to = site.home(name).display().to_string();
        site.world.towpath(&["backup", "make", &to, "--data", &site.data()])
    };
    let partial = make("partial");
    assert_eq!((partial.code, partial.err.contains("`refs/changes/1/meta`")), (1, true), "{}", partial.err);
    site.ok(&["change", "comment", "1", "Go on."]);
    let whole = make("whole");
    assert!(!whole.err.contains("could not be saved"), "{}", whole.err);
}

#[test]
fn h09_backup_has_no_key() {
    let site = Site::new();
    site.given(&["secret", "set", "deploy-key"], "canary-hunter-22");
    site.land("1", "one");
    let saved = site.home("saved");
    site.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    let keys = site.home("data-keys");
    let audit = std::fs::read_to_string(keys.join("audit.key")).unwrap();
    let token = std::fs::read_to_string(keys.join("admin.token")).unwrap();
    let absent: [(&str, &[u8]); 4] = [
        ("the master key", &std::fs::read(keys.join("secrets.key")).unwrap()),
        ("the audit key", audit.trim_end().splitn(5, '+').last().unwrap().as_bytes()),
        ("a token", token.trim_end().as_bytes()),
        ("a secret", b"canary-hunter-22"),
    ];
    let holds = |needle: &[u8]| files_below(&saved).iter().any(|path| holds(path, needle));
    for (what, needle) in absent {
        assert!(!holds(needle), "{what} is in the backup");
    }
    // The search can find something.
    assert!(holds(b"deploy-key") && files_below(&saved).len() > 4);
}

/// Without any key data are restored, and what is missing is said; they are served once a person has given the keys up.
#[test]
fn data_without_their_keys_wait_for_a_persons_word() {
    let mut site = Site::new();
    site.given(&["secret", "set", "deploy-key"], "canary-hunter-22");
    site.land("1", "one");
    let saved = site.home("saved");
    site.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    site.stop();
    let (data, keys) = (site.home("elsewhere").display().to_string(), site.home("no-keys"));
    let keys = keys.to_str().unwrap();
    let restored =
        site.ok(&["backup", "restore", saved.to_str().unwrap(), "--data", &data, "--keys", keys]).out;
    for missing in ["audit.key, the key that signs the record", "1 secret cannot be opened"] {
        assert!(restored.contains(missing), "{restored}");
    }
    std::fs::rename(site.home("data"), site.home("lost")).unwrap();
    std::fs::rename(&data, site.home("data")).unwrap();
    std::fs::rename(site.home("data-keys"), site.home("lost-keys")).unwrap();
    // No server makes others of itself, here or in a folder whose name was mistyped.
    for folder in ["data-keys", "mistyped"] {
        let mut serve = site.serve(&site.data());
        let refused = serve.args(["--keys", site.home(folder).to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(5), "{said}");
        for told in
            ["lacks the key that signs the record", "the key that opens the 1 secret in them", "--new-keys"]
        {
            assert!(said.contains(told), "{said}");
        }
        assert!(!site.home(folder).exists());
    }
    let doctor = site.world.towpath(&["doctor", "--quick", "--data", &site.data()]);
    assert!(doctor.out.contains("data-keys lacks the key that signs the record"), "{}", doctor.out);
    site.start_with(&["--new-keys"]);
    let keys = |verdict: &str, said: &str| {
        let out = site.world.towpath(&["doctor", "--quick", "--data", &site.data()]).out;
        assert!(out.lines().any(|line| line.starts_with(verdict) && line.contains(said)), "{out}");
    };
    for key in ["audit.key", "secrets.key"].map(|name| site.home("data-keys").join(name)) {
        let whole = std::fs::read(&key).unwrap();
        keys("ok", "those of");
        std::fs::write(&key, "").unwrap();
        keys("broken", "nobody can tell whether those of");
        std::fs::write(&key, whole).unwrap();
    }
    // Rows and repositories are there: the same token opens the same server.
    assert!(site.ok(&["change", "list", "--state", "all"]).out.contains("landed"));
    let lost = site.ok(&["backup", "show"]).out;
    assert!(lost.contains("a restore lost") && !lost.contains("no checkpoint covered"), "{lost}");
    site.stop();
    let (data, repo) = (site.data(), site.home("data/repos/web.git").display().to_string());
    let verified = site.ok(&["audit", "verify", "--data", &data, "--repo", &repo]).out;
    for said in ["sound: ", "was given up as lost"] {
        assert!(verified.contains(said), "{verified}");
    }
    assert!(!verified.contains("nothing tells who wrote the last"), "{verified}");
    // The secret stays closed, and every look says so until it is set again.
    site.start();
    let secrets = |site: &Site| {
        let token = std::fs::read_to_string(site.home("lost-keys/admin.token")).unwrap();
        let mut asked = ureq::get(format!("{}/api/v1/doctor", site.url));
        asked = asked.header("authorization", format!("Bearer {}", token.trim()));
        let told: Value =
            serde_json::from_str(&asked.call().unwrap().body_mut().read_to_string().unwrap()).unwrap();
        told["checks"].as_array().unwrap().iter().find(|one| one["check"] == "secrets").unwrap()["ok"] == true
    };
    assert!(!secrets(&site));
    site.given(&["secret", "set", "deploy-key"], "canary-hunter-23");
    assert!(secrets(&site));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

fn holds(path: &Path, needle: &[u8]) -> bool {
    std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}

#[test]
fn h11_second_server() {
    let site = Site::new();
    let link = site.home("link").display().to_string();
    std::os::unix::fs::symlink(site.data(), &link).unwrap();
    let keys = site.home("data-keys").display().to_string();
    const ANY: &str = "127.0.0.1:0";
    let second = |data: &str, listen: &str| {
        let mut command = site.world.command(TOWPATH);
        command.args(["serve", "--data", data, "--keys", &keys, "--listen", listen]);
        command
    };
    // A process namespace of its own, as another container has: where the machine lets us make one.
    let direct = second(&site.data(), ANY);
    let mut apart = site.world.command("unshare");
    apart.args(["-r", "--fork", "--pid", "--mount-proc"]).arg(direct.get_program()).args(direct.get_args());
    let can_unshare = site
        .world
        .command("unshare")
        .args(["-r", "--fork", "--pid", "--mount-proc", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    // The same command again, which meets the first one's port before its folder.
    let same = second(&site.data(), site.url.strip_prefix("http://").unwrap());
    let mut attempts = vec![direct, second(&link, ANY), same];
    attempts.extend(can_unshare.then_some(apart));
    for mut attempt in attempts {
        let refused = ended(attempt.output().unwrap());
        assert_eq!(refused.code, 5, "{}", refused.err);
        assert!(refused.err.contains("is in use by another server (process "), "{}", refused.err);
    }
    // The first one is unharmed.
    site.land("1", "one");
    site.ok(&["audit", "verify", "--data", &site.data()]);
}

#[test]
fn h03_every_clone_bears_witness() {
    let mut site = Site::new();
    site.land("1", "one");
    let saved = site.home("saved");
    site.ok(&["backup", "make", saved.to_str().unwrap(), "--data", &site.data()]);
    site.land("2", "two");
    site.fetch_notes(2);
    let key = site.ok(&["audit", "key", "--data", &site.data()]).out.trim_end().to_owned();
    let nowhere = site.home("nowhere").display().to_string();
    let asked = |repo: &str, data: &str| {
        ["audit", "verify", "--repo", repo, "--data", data, "--key", &key].map(str::to_owned)
    };
    let verify = |site: &Site, repo: &str, data: &str| {
        site.world.towpath(&asked(repo, data).each_ref().map(String::as_str))
    };
    // Offline, from nothing but the clone and the key.
    let alone = verify(&site, ".", &nowhere);
    assert_eq!(alone.code, 0, "{}{}", alone.out, alone.err);
    let whole = "web/main at refs/remotes/towpath/main: 2 explained landings, 2 with a note\n";
    assert_eq!(alone.out, whole);
    let record = verify(&site, ".", &site.data());
    assert!(record.code == 0 && record.out.starts_with(whole), "{}{}", record.out, record.err);
    let unkeyed = site.world.towpath(&["audit", "verify", "--repo", ".", "--data", &nowhere]);
    assert_eq!((unkeyed.code, unkeyed.err.contains("--key")), (2, true), "{}", unkeyed.err);

    // A record whose tail was cut off: of yesterday, here.
    let cut = verify(&site, ".", saved.join("towpath.db").to_str().unwrap());
    assert_eq!(cut.code, 1);
    assert!(cut.out.contains("no leaf explains the tip"), "{}", cut.out);
    assert!(cut.out.contains("the log ends here, but the note of"), "{}", cut.out);

    // The same by a later checkpoint that was kept elsewhere.
    let later = site.home("data-keys/checkpoints").display().to_string();
    let yesterday = saved.join("towpath.db").display().to_string();
    let kept = ["audit", "verify", "--data", &yesterday, "--checkpoint", &later, "--key", &key];
    let cut = site.world.towpath(&kept);
    assert!(cut.code == 1 && cut.out.contains("the log ends here"), "{}{}", cut.out, cut.err);

    // A clone that lacks what is below its tip is looked at as far as it goes.
    let store = site.home("data/repos/web.git").display().to_string();
    let shallow = site.home("shallow").display().to_string();
    site.world.git(&["clone", "--quiet", "--depth=1", &format!("file://{store}"), &shallow]);
    let part = verify(&site, &shallow, &site.data());
    assert_eq!(part.code, 1, "{}{}", part.out, part.err);
    assert!(part.out.contains(": 1 explained landing, "), "{}", part.out);
    assert_eq!(part.out.matches("`git fetch --unshallow`").count(), 1, "{}", part.out);

    // A tip that no leaf explains, and a note that proves nothing.
    assert_eq!(verify(&site, &store, &site.data()).code, 0);
    let main = site.world.git(&["--git-dir", &store, "rev-parse", "refs/heads/main"]).trim_end().to_owned();
    let tree = format!("{main}^{{tree}}");
    let foreign = site.world.git(&["--git-dir", &store, "commit-tree", &tree, "-p", &main, "-m", "mine"]);
    site.stop();
    site.world.git(&["--git-dir", &store, "update-ref", "refs/heads/main", foreign.trim_end()]);
    let found = verify(&site, &store, &site.data());
    assert_eq!(found.code, 1);
    assert!(found.out.contains(&format!("no leaf explains the tip {}", foreign.trim_end())), "{}", found.out);
    site.world.git(&["notes", &site.notes(), "add", "--force", "--message", "forged", &main]);
    let forged = verify(&site, ".", &nowhere);
    assert_eq!(forged.code, 1);
    assert!(forged.out.contains(&format!("the note of {main} proves nothing")), "{}", forged.out);
}

#[test]
fn a_record_of_findings_is_data_too() {
    let site = Site::new();
    site.land("1", "one");
    site.fetch_notes(1);
    let seen = site.world.records(&["audit", "verify", "--repo", ".", "--data", &site.data()]);
    let [seen] = &seen[..] else { panic!("one object") };
    assert_eq!(
        (&seen["ok"], &seen["notes"], &seen["branches"][0]["landings"]),
        (&Value::from(true), &Value::from(1), &Value::from(1))
    );
    assert_eq!(seen["own_key"], false);
    let keyed = site.ok(&["audit", "verify", "--repo", ".", "--data", &site.data()]);
    assert!(!keyed.err.contains("warning"), "{}", keyed.err);
    // With no key but the record's own, that is said: whoever wrote all of it anew has signed it anew, too.
    let nowhere = site.home("nowhere").display().to_string();
    let own = ["audit", "verify", "--repo", ".", "--data", &site.data(), "--keys", &nowhere];
    let own_key = site.ok(&own).err;
    assert!(own_key.contains("warning: verified with the key that the database itself names"), "{own_key}");
    assert_eq!(site.world.records(&own)[0]["own_key"], true);
}

/// A server whose data folder is a small disk of its own, in namespaces that end with it.
fn on_a_small_disk() -> Option<(Site, PathBuf)> {
    let mut site =
        Site { world: World::with(&[("towpath.yaml", PIPELINE)]), server: None, url: String::new() };
    let data = site.data();
    std::fs::create_dir(&data).unwrap();
    let mount = "mount -t tmpfs -o size=128m,mode=700 none \"$0\" || exit 77; ";
    let init = "\"$1\" init --data \"$0\" --user ann >&2 || exit 78; ";
    let serve = "exec \"$1\" serve --data \"$0\" --listen 127.0.0.1:0 --sandbox none";
    let mut command = site.world.command("unshare");
    command.args(["-rm", "sh", "-c", &[mount, init, serve].concat(), &data, TOWPATH]);
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let Some(serving) = lines.by_ref().find(|line| line.contains("serving at")) else {
        let code = server.wait().unwrap().code();
        assert!(matches!(code, Some(1 | 77)), "no server, and not for lack of namespaces: {code:?}");
        return None;
    };
    std::thread::spawn(move || lines.for_each(drop));
    site.url = serving.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
    // The disk as the server sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{data}", server.id()));
    site.server = Some(server);
    let token = std::fs::read_to_string(site.home("data-keys/admin.token")).unwrap();
    site.given(&["token", "login", &site.url], &token);
    site.ok(&["repo", "import", ".", "--name", "web"]);
    Some((site, disk))
}

#[test]
fn e11_a_full_disk_is_said_and_loses_nothing() {
    let Some((site, disk)) = on_a_small_disk() else {
        println!("SKIP e11_a_full_disk_is_said_and_loses_nothing: no mount namespace can be made here");
        return;
    };
    site.land("1", "one");
    // Somebody else's file takes all of the disk.
    let fill = disk.join("somebody-elses");
    let mut file = std::fs::File::create(&fill).unwrap();
    let block = vec![1; 1 << 16];
    while file.write_all(&block).is_ok() {}
    drop(file);
    let answered = std::cell::Cell::new(0);
    let comment = || {
        let ended = site.world.towpath(&["change", "comment", "1", &"word ".repeat(2_000)]);
        answered.set(answered.get() + usize::from(ended.code == 0));
        ended
    };
    let mut refused = comment();
    wait_until("refusal", || {
        refused = comment();
        refused.code != 0
    });
    assert_eq!(refused.code, 7, "{}", refused.err);
    let said = ["No space left on device", "the disk of the data folder is full"];
    assert!(said.iter().any(|said| refused.err.contains(said)), "{}", refused.err);
    assert_eq!(site.world.towpath(&["change", "show", "1"]).code, 0, "what was answered can be read");

    // Once the database has no room either, the reserve is given back: git finds room in it, and a row does not.
    let mint = || site.world.towpath(&["token", "create", "--label", "x"]);
    wait_until("full database", || mint().err.contains(said[1]));
    assert!(comment().err.contains(said[1]));

    std::fs::remove_file(&fill).unwrap();
    wait_until("room", || comment().code == 0);
    // What was answered counts and is in the record, and what was refused is in neither.
    let shown = site.world.records(&["change", "show", "1"])[0]["comments"].as_array().unwrap().len();
    let leaves = site.world.records(&["audit", "show", "--count", "500"]);
    let told = |leaf: &&Value| leaf["entry"]["act"]["what"] == "commented (web change 1)";
    assert_eq!((shown, leaves.iter().filter(told).count()), (answered.get(), answered.get()));
    site.land("2", "two");
    // From inside of the namespaces: SQLite follows a path to its end, and this one ends in them.
    let server = site.server.as_ref().unwrap().id().to_string();
    let mut inside = site.world.command("nsenter");
    inside.args(["--target", &server, "--user", "--mount", "--preserve-credentials", TOWPATH]);
    inside.args(["audit", "verify", "--data", &site.data()]);
    let verified = ended(inside.output().unwrap());
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}
