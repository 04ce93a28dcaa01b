//! docs/guide/your-repository.md and docs/guide/more-people.md, run as they are written.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::served::{Running, Served, until_landed};
use crate::support::{Ended, TOWPATH, World, ended, has_sandbox, own_address};

/// The blocks of commands of a page of the guide, in its order.
fn blocks(page: &str) -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide").join(page);
    let text = std::fs::read_to_string(guide).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// A shell that knows the program by its name.
fn shell(world: &World, script: &str, folder: &Path) -> Command {
    let path = std::env::var("PATH").unwrap();
    let own = Path::new(TOWPATH).parent().unwrap().display();
    let mut command = world.command("sh");
    command.args(["-e", "-c", script]).current_dir(folder).env("PATH", format!("{own}:{path}"));
    command
}

#[test]
fn the_guide_leads_from_nothing_to_a_landed_change() {
    if !has_sandbox("the_guide_leads_from_nothing_to_a_landed_change") {
        return;
    }
    let blocks = blocks("your-repository.md");
    let commands: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    let [init, serve, import, push] = commands[..] else {
        panic!("the guide promises four commands: {commands:?}")
    };
    let world = World::with(&[("Makefile", "check:\n\ttest -e Makefile\n")]);
    world.git(&["switch", "--quiet", "--create", "my-branch"]);
    world.write("new", "x\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=my change"]);
    // The one thing that a test may not share with whoever else runs a server here.
    let address = own_address();
    let shell = |line: &str, folder: &Path| {
        let mut command = shell(&world, &format!("exec {line}"), folder);
        command.env("TOWPATH_LISTEN", &address);
        command
    };
    let ok = |line: &str, folder: &Path| {
        let ended = ended(shell(line, folder).output().unwrap());
        assert_eq!(ended.code, 0, "{line}: {}", ended.err);
    };
    ok(init, world.folder());
    let mut server = shell(serve, world.folder()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let serving = lines.by_ref().any(|line| line.contains("serving at"));
    let _running = Running { world: &world, server };
    assert!(serving);
    std::thread::spawn(move || lines.for_each(drop));
    ok(import, &world.work());
    ok(push, &world.work());
    until_landed(&world, "1");
}

/// Somebody else with a home of their own, who types their token where it is asked for.
struct Second {
    world: World,
    token: String,
}

impl Second {
    /// Runs a script in the folder beside their home.
    fn run(&self, script: &str) -> Ended {
        let asked = self.world.home().join("askpass");
        std::fs::write(&asked, format!("#!/bin/sh\necho {}\n", self.token)).unwrap();
        std::fs::set_permissions(&asked, PermissionsExt::from_mode(0o700)).unwrap();
        let mut command = shell(&self.world, script, self.world.folder());
        command.env("GIT_ASKPASS", asked).env("GIT_TERMINAL_PROMPT", "0");
        for (name, value) in [("NAME", "Ben"), ("EMAIL", "ben@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{}\n", self.token).as_bytes()).unwrap();
        ended(child.wait_with_output().unwrap())
    }

    fn ok(&self, script: &str) -> Ended {
        let done = self.run(script);
        assert_eq!(done.code, 0, "{script}: {}{}", done.out, done.err);
        done
    }

    /// What git in the clone logs in with.
    fn kept(&self) -> String {
        std::fs::read_to_string(self.world.folder().join("web/.git/towpath-credentials")).unwrap()
    }
}

/// A server with a repo, and somebody with a token that the admin has made.
fn two_people(token: &[&str]) -> (Served, Second, String) {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &["--sandbox", "none"], &[]);
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let base = url.strip_suffix("/web.git").unwrap().to_owned();
    served.ok(&["user", "add", "ben"]);
    served.ok(&["repo", "grant", "ben", "author", "--authorised", "true"]);
    let made = served.record(&[&["token", "create", "--user", "ben"], token].concat());
    let token = made["token"].as_str().unwrap().to_owned();
    (served, Second { world: World::with(&[]), token }, base)
}

#[test]
fn the_guide_gets_a_second_person_a_clone_and_a_first_change() {
    let pipeline = "jobs:\n  unit: { run: 'true' }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &["--sandbox", "none"], &[]);
    let url = served.record(&["repo", "show"])["clone_url"].as_str().unwrap().to_owned();
    let host = url.strip_prefix("http://").unwrap().strip_suffix("/web.git").unwrap().to_owned();
    let blocks = blocks("more-people.md");
    let [admin, clone, push, ..] = &blocks[..] else {
        panic!("what the admin does, and what Ben: {blocks:?}")
    };
    let let_in = ended(shell(&served.world, admin, &served.world.work()).output().unwrap());
    assert_eq!(let_in.code, 0, "{}", let_in.err);
    let token = let_in.out.lines().last().unwrap().to_owned();
    let ben = Second { world: World::with(&[]), token };
    let here = |script: &str| script.replace("https://", "http://").replace("towpath.example.org", &host);
    ben.ok(&here(clone));
    // Nobody is asked for anything any more.
    let pushed = ben.ok(&format!("unset GIT_ASKPASS; cd web; {}", here(push)));
    assert!(pushed.err.contains("remote: change 1: http://"), "{}", pushed.err);
    assert_eq!(until_landed(&served.world, "1")["owner"], "ben");
}

#[test]
fn a_clone_keeps_a_token_for_its_repo_that_ends_with_its_owners() {
    let (served, ben, base) = two_people(&["--days", "30"]);
    let connect =
        format!("towpath token login {base}; git init --quiet web; cd web; towpath repo connect web");
    let connected = ben.ok(&connect);
    assert!(connected.err.contains("for this repo alone (read, push), until 2"), "{}", connected.err);
    assert!(ben.kept().contains("Bearer twp_") && !ben.kept().contains(&ben.token), "{}", ben.kept());
    let listed = ben.ok("cd web; towpath token list --json").out;
    let tokens: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_clone = tokens.iter().find(|token| token["repos"] == serde_json::json!(["web"])).unwrap();
    let own = tokens.iter().find(|token| token["repos"].is_null()).unwrap();
    assert_eq!(of_clone["verbs"], serde_json::json!(["read", "push"]));
    assert_eq!(of_clone["expires_at"], own["expires_at"]);
    let longer = ben.run("cd web; towpath token create --days 31");
    assert!(longer.code == 4 && longer.err.contains("`--days 29` is the most"), "{}", longer.shown());
    drop(served);
}

#[test]
fn a_clone_keeps_the_token_of_its_owner_only_where_that_makes_no_other_and_says_so() {
    let (served, ben, base) = two_people(&["--verb", "read", "--verb", "push"]);
    let connect =
        format!("towpath token login {base}; git init --quiet web; cd web; towpath repo connect web");
    let connected = ben.ok(&connect);
    let said = "logs in with the token that your commands have: it may make none for this repo alone";
    assert!(connected.err.contains(said) && connected.err.contains("`administer`"), "{}", connected.err);
    assert!(ben.kept().contains(&ben.token));
    drop(served);
}
