//! Towpath hosts and lands itself: this very repository with its history, a real change to it, tested in the sandbox.
//!
//! The pipeline is a reduced one, as the whole takes half an hour: the compiler, and the tests of every module that
//! stands alone. The whole `towpath.yaml` is checked to be one that the program takes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::served::{stop, until, until_landed};
use crate::support::{TOWPATH, World, ended, has_sandbox};

/// Modules that use nothing but the standard library. A job without network and crates compiles and tests each.
const MODULES: [&str; 5] = [
    "crates/pipeline/src/order.rs",
    "crates/executor/src/command.rs",
    "crates/server/src/drivers/pace.rs",
    "crates/sim/src/rng.rs",
    "crates/xtask/src/tidy/source.rs",
];

/// The file that the change edits.
const EDITED: &str = MODULES[0];

/// A test that says something true of the module, in the place of its last line.
const TEST: &str = "
    #[test]
    fn a_job_that_needs_itself_is_a_circle() {
        assert_eq!(topological(&[vec![0]]), Err(vec![vec![0]]));
    }
}
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Git as whoever runs the tests has it, in a repository that may be somebody else's.
fn git(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(words).current_dir(folder).env("GIT_CONFIG_COUNT", "1").stdin(Stdio::null());
    command.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    command
}

fn said(folder: &Path, words: &[&str]) -> Option<String> {
    let output = git(folder, words).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Brings all that the checked-out commit reaches to the world's `main`: from a clone, a linked work tree, a detached
/// commit. Where a clone is cut off, the cut is its beginning.
fn copy_history(world: &World, from: &Path) {
    if said(from, &["rev-parse", "--is-shallow-repository"]).as_deref() == Some("true") {
        return copy_cut_history(world, from);
    }
    let fetched = git(&world.work(), &["fetch", "--quiet", from.to_str().unwrap(), "HEAD"]).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    world.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
}

fn copy_cut_history(world: &World, from: &Path) {
    let mut export =
        git(from, &["fast-export", "--signed-tags=strip", "HEAD"]).stdout(Stdio::piped()).spawn().unwrap();
    let marks = world.folder().join("marks");
    let mut import = world.command("git");
    import.args(["fast-import", "--quiet", "--force", &format!("--export-marks={}", marks.display())]);
    assert!(import.stdin(export.stdout.take().unwrap()).status().unwrap().success());
    assert!(export.wait().unwrap().success());
    // Marks count up, and what is asked for comes last.
    let marks = std::fs::read_to_string(marks).unwrap();
    let number = |line: &&str| line[1..].split(' ').next().unwrap().parse::<u64>().unwrap();
    let tip = marks.lines().max_by_key(number).unwrap().split(' ').nth(1).unwrap();
    world.git(&["reset", "--quiet", "--hard", tip]);
}

/// The compiler's own folder, which a sandbox shows whole.
fn toolchain() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("bin");
    path.join("rustc").exists().then_some(path)
}

fn pipeline() -> String {
    let modules = MODULES.join(" ");
    format!(
        "gate: {{ strategy: merge, approvals: 0 }}\njobs:\n  units:\n    run: |\n      for module in {modules}; do\n        \
         rustc --edition 2024 --test -A dead_code -o /tmp/units $module\n        /tmp/units\n      done\n"
    )
}

/// A server that ends with the test.
struct Server<'a> {
    world: &'a World,
    process: Child,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        stop(&mut self.process, self.world);
    }
}

fn serve<'a>(world: &'a World, toolchain: &Path) -> Server<'a> {
    let data = world.home().join("data").display().to_string();
    assert_eq!(world.towpath(&["init", "--data", &data]).code, 0);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = world.command(TOWPATH);
    command.args(["serve", "--data", &data, "--listen", "127.0.0.1:0"]);
    command.env("PATH", format!("{}:{path}", toolchain.display())).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    let serving = lines.by_ref().find(|line| line.contains("serving at")).unwrap();
    // Somebody has to read it to its end, or the server waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let url = serving.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
    let token = std::fs::read_to_string(format!("{data}-keys/admin.token")).unwrap();
    let mut login = world.command(TOWPATH);
    let mut login =
        login.args(["token", "login", &url]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    login.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    assert!(login.wait().unwrap().success());
    Server { world, process }
}

/// Pushes what is edited as a change of a branch.
fn push(world: &World, branch: &str, message: &str) {
    world.git(&["commit", "--quiet", "--all", "--message", message]);
    let mut push = world.command("git");
    let pushed = ended(push.args(["push", "towpath", branch, "-o", "change"]).output().unwrap());
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    assert!(pushed.err.contains("remote: change "), "{}", pushed.err);
}

fn edited(world: &World) -> String {
    std::fs::read_to_string(world.work().join(EDITED)).unwrap()
}

#[test]
fn towpath_hosts_tests_and_lands_itself() {
    let test = "towpath_hosts_tests_and_lands_itself";
    let from = repository();
    if said(&from, &["rev-parse", "--verify", "HEAD"]).is_none() {
        println!("SKIP {test}: the sources are in no git repository");
        return;
    }
    let Some(toolchain) = toolchain() else {
        println!("SKIP {test}: there is no compiler to be shown to a job");
        return;
    };
    if !has_sandbox(test) {
        return;
    }
    let world = World::with(&[]);
    copy_history(&world, &from);
    // The whole pipeline is one that the program takes; the reduced one is a commit of its own on top of the history.
    assert!(world.work().join("towpath.yaml").exists());
    let check = world.towpath(&["config", "check"]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
    world.write("towpath.yaml", &pipeline());
    world.git(&["commit", "--quiet", "--all", "--message", "A reduced pipeline"]);
    let commits = world.git(&["rev-list", "--count", "HEAD"]);
    assert_eq!(
        said(&from, &["rev-list", "--count", "HEAD"]).map(|count| count.parse().unwrap_or(0) + 1),
        commits.trim().parse().ok()
    );

    let _server = serve(&world, &toolchain);
    let imported = world.towpath(&["repo", "import", ".", "--name", "towpath"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    lands(&world);
    is_refused(&world);
    let data = world.home().join("data").display().to_string();
    let verify = world.towpath(&["audit", "verify", "--data", &data]);
    assert_eq!(verify.code, 0, "{}{}", verify.out, verify.err);
}

#[test]
fn a_clone_that_is_cut_off_is_copied_from_its_cut_on() {
    let (from, world) = (repository(), World::with(&[]));
    if said(&from, &["rev-parse", "--verify", "HEAD"]).is_none() {
        println!(
            "SKIP a_clone_that_is_cut_off_is_copied_from_its_cut_on: the sources are in no git repository"
        );
        return;
    }
    let cut = world.folder().join("cut");
    let url = format!("file://{}", from.display());
    let clone = git(world.folder(), &["clone", "--quiet", "--depth=1", &url, cut.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(clone.success());
    copy_history(&world, &cut);
    assert_eq!(world.git(&["rev-list", "--count", "HEAD"]), "1\n");
    assert_eq!(
        Some(world.git(&["rev-parse", "HEAD^{tree}"]).trim().to_owned()),
        said(&from, &["rev-parse", "HEAD^{tree}"])
    );
    // What the server would not take: a history with a hole in it.
    assert_eq!(world.git(&["rev-parse", "--is-shallow-repository"]), "false\n");
}

/// A good change: tested in the sandbox, and landed as the very commit that was tested.
fn lands(world: &World) {
    world.git(&["switch", "--quiet", "--create", "more-tests"]);
    let text = edited(world);
    let text = text.trim_end().strip_suffix('}').expect("the module ends with its tests");
    world.write(EDITED, &format!("{text}{TEST}"));
    push(world, "more-tests", "pipeline: a job that needs itself is named");
    let change = until_landed(world, "1");
    let log = world.towpath(&["log", "1", "units"]).out;
    assert!(log.contains("test tests::a_job_that_needs_itself_is_a_circle ... ok"), "{log}");
    let run = &world.records(&["runs"])[0];
    let shown = &world.records(&["runs", run["run"].as_str().unwrap()])[0];
    assert_eq!(
        (&run["outcome"], &run["unsandboxed"]),
        (&Value::from("passed"), &Value::from(false)),
        "{shown}"
    );
    assert_eq!(run["commit"], change["landed"], "the landed commit is the tested one");
    world.git(&["fetch", "--quiet", "towpath"]);
    let tip = world.git(&["rev-parse", "towpath/main"]);
    assert_eq!(change["landed"], tip.trim());
    assert!(
        world
            .git(&["log", "--format=%s", "towpath/main"])
            .contains("pipeline: a job that needs itself is named")
    );
}

/// The control: a change that breaks a test stays out.
fn is_refused(world: &World) {
    world.git(&["switch", "--quiet", "--create", "broken", "towpath/main"]);
    world.write(EDITED, &edited(world).replace("open[dependant] -= 1;", "open[dependant] = 1;"));
    push(world, "broken", "pipeline: a mistake");
    let change = until(world, "2", |change| change["gate"]["tests"] == "failed");
    assert_eq!(change["state"], "open");
    let tip = world.git(&["ls-remote", "towpath", "refs/heads/main"]);
    assert!(tip.starts_with(world.git(&["rev-parse", "towpath/main"]).trim()), "{tip}");
}
