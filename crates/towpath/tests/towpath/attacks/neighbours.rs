//! Groups D and K: other jobs, the network, a machine that forbids sandboxes, and what a developer runs at home.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::canaries::PYTHON;
use super::definitions::land;
use super::fort::{Fort, PIPELINE};
use super::jobs::{has_python, with_jobs};
use crate::local_run::{a_hostile_branch_is_run, jobs_type_nothing};
use crate::support::{TOWPATH, World, ended, has_sandbox, processes_of, rest};

/// Two of them at once look for each other on every way that processes of one machine have.
pub const TWIN: &str = "import ctypes, glob, os, signal, socket, time
libc = ctypes.CDLL(None)
me = os.environ['TOWPATH_MATRIX_ME']; other = 'b' if me == 'a' else 'a'
s = socket.socket(socket.AF_UNIX); s.bind('\\0towpath-d12-' + me); s.listen()
files = [f'{folder}/towpath-d12-' for folder in ['/tmp', '/dev/shm']]
for file in files: open(file + me, 'w').write(me)
shm = libc.shmget(0x70770000 + ord(me), 64, 0o1666)
print('FROM', time.monotonic(), flush=True)
seen = set(); until = time.monotonic() + 4
while time.monotonic() < until:
    for file in files:
        if os.path.exists(file + other): seen.add(file)
    try: socket.socket(socket.AF_UNIX).connect('\\0towpath-d12-' + other); seen.add('abstract')
    except OSError: pass
    if libc.shmget(0x70770000 + ord(other), 64, 0o666) >= 0: seen.add('sysv')
    for path in glob.glob('/proc/[0-9]*/environ'):
        pid = int(path.split('/')[2])
        try:
            if ('TOWPATH_MATRIX_ME=' + other).encode() not in open(path, 'rb').read(): continue
            seen.add('list'); os.kill(pid, 0); seen.add('signal')
            if 'ptrace' not in seen and libc.ptrace(16, pid, 0, 0) == 0:
                seen.add('ptrace'); os.waitpid(pid, 0x40000000); libc.ptrace(17, pid, 0, 0)
        except OSError: pass
    time.sleep(0.05)
libc.shmctl(shm, 0, None)
for file in files: os.unlink(file + me)
print('UNTIL', time.monotonic())
print('SAW', *sorted(seen))
";

/// What each of the two saw of the other while both were there.
pub fn twins(fort: &Fort, branch: &str) -> [String; 2] {
    let job = format!("  twin: {{ run: {PYTHON} twin.py, on: [change], matrix: {{ me: [a, b] }} }}\n");
    let number = with_jobs(fort, branch, &job, &[("twin.py", TWIN)]);
    let run = fort.run(&fort.runs_of(number)[0]["run"]);
    let jobs = run["jobs"].as_array().unwrap().iter();
    let twins = jobs.filter(|job| job["name"].as_str().unwrap().starts_with("twin"));
    let logs: Vec<String> = twins.map(|job| fort.log(number, &job["index"].to_string())).collect();
    let [one, two] = &logs[..] else { panic!("two twins: {logs:?}") };
    let at = |log: &str, word: &str| -> f64 {
        let line = log.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{log}"));
        line.trim().parse().unwrap()
    };
    let both = at(one, "UNTIL").min(at(two, "UNTIL")) - at(one, "FROM").max(at(two, "FROM"));
    assert!(both > 1.0, "they were not there at once: {logs:?}");
    fort.act("ann", number, "close", &json!({})).ok();
    [one, two].map(|log| log.lines().find_map(|line| line.strip_prefix("SAW")).unwrap().to_owned())
}

fn d12_other_jobs(fort: &Fort) {
    assert_eq!(twins(fort, "d12"), ["", ""]);
}

/// Every way to the host's loopback, to the machine's own addresses, and to Towpath's port.
fn d07_network_on_loopback(fort: &Fort) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server: u16 = fort.host.rsplit_once(':').unwrap().1.parse().unwrap();
    let own = own_address();
    let program = format!(
        "import socket\nfor port in [{port}, {server}]:\n  for host in ['127.0.0.1', '0.0.0.0', '10.0.2.2', \
         '169.254.169.254', '{own}', '::1', '::ffff:127.0.0.1', '::ffff:{own}']:\n    \
         s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET); s.settimeout(3)\n    \
         try: s.connect((host, port)); print('OPEN', host, port)\n    \
         except OSError as error: print('refused', host, port, error)\n"
    );
    let start = format!("exec {PYTHON} reach.py\n");
    let files = [("reach", start.as_str()), ("reach.py", program.as_str())];
    let (_, number) = fort.push("ann", "d07", &files);
    assert_eq!(fort.tested(number), "passed", "{}", fort.log(number, "net"));
    let log = fort.log(number, "net");
    assert!(!log.contains("OPEN"), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("refused")).count(), 16, "{log}");
    fort.act("ann", number, "close", &json!({})).ok();
    // The control: on the host the same program reaches both.
    let control = Command::new(PYTHON).args(["-c", &program]).output().unwrap();
    let control = String::from_utf8_lossy(&control.stdout).into_owned();
    for open in
        [format!("OPEN 127.0.0.1 {port}"), format!("OPEN {own} {port}"), format!("OPEN 127.0.0.1 {server}")]
    {
        assert!(control.contains(&open), "{control}");
    }
}

/// An address of this machine that is not the loopback; the loopback if there is none.
fn own_address() -> String {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    let mut addresses = local.filter_map(|pair| pair[0].strip_prefix("|-- "));
    addresses.find(|address| !address.starts_with("127.")).unwrap_or("127.0.0.1").to_owned()
}

/// The control: what the target allows the network gets what a server outside the machine has.
fn k03_honest_network(fort: &Fort) {
    let outside = Outside::new().expect("root makes a network namespace with a server in it");
    let get = format!(
        "exec {PYTHON} -c \"import urllib.request; print(urllib.request.urlopen('http://{}:8000/', timeout=10).read().decode())\"\n",
        outside.address
    );
    let (_, number) = fort.push("ann", "k03", &[("reach", &get)]);
    assert_eq!(fort.tested(number), "passed", "{}", fort.log(number, "net"));
    assert!(fort.log(number, "net").contains("hello from outside"), "{}", fort.log(number, "net"));
    // The required job beside it has no such key in the target's file, and does not get there.
    let (_, without) = fort.push("ann", "k03-without", &[("attack", &get)]);
    assert_eq!(fort.tested(without), "failed");
    for number in [number, without] {
        fort.act("ann", number, "close", &json!({})).ok();
    }
}

/// A web server in a network namespace that lasts as long as it does, joined to the host's by a pair of interfaces.
struct Outside {
    address: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Outside {
    fn new() -> Option<Outside> {
        let id = std::process::id();
        let (ours, theirs, net) = (format!("tx{id}a"), format!("tx{id}b"), format!("10.214.{}", id % 250));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "hello from outside").unwrap();
        let inside = format!(
            "read go && ip addr add {net}.2/30 dev {theirs} && ip link set {theirs} up && ip link set lo up && \
             exec {PYTHON} -u -m http.server 8000 --bind {net}.2"
        );
        let mut serve = Command::new("unshare");
        serve.args(["--net", "sh", "-c", &inside]).current_dir(folder.path());
        let child = serve.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let pid = child.id();
        // It is in its namespace once it is the shell.
        while !std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.starts_with("sh") {
            rest();
        }
        let commands = [
            format!("ip link add {ours} type veth peer name {theirs}"),
            format!("ip link set {theirs} netns {pid}"),
            format!("ip addr add {net}.1/30 dev {ours}"),
            format!("ip link set {ours} up"),
        ];
        let run = |command: &String| {
            let mut words = command.split(' ');
            Command::new(words.next()?).args(words).status().ok()?.success().then_some(())
        };
        let joined = commands.iter().try_for_each(run);
        let mut outside = Outside { address: format!("{net}.2"), child, _folder: folder };
        joined?;
        outside.child.stdin.take()?.write_all(b"go\n").ok()?;
        // It says a line once it listens.
        let mut line = String::new();
        BufReader::new(outside.child.stdout.take()?).read_line(&mut line).ok()?;
        Some(outside)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The pair of interfaces goes with its namespace, and that with its last process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The control: what a job needs arrives as it was.
fn k04_honest_inputs(fort: &Fort) {
    let make = "mkdir -p dist/sub; printf one > dist/a.whl; printf two > dist/sub/run.sh; chmod 755 dist/sub/run.sh\n\
                printf lat > \"$(printf 'dist/caf\\351.whl')\"; printf utf > dist/café.whl; printf no > dist/c.txt\n";
    let look = "test \"$(cat link)\" = base && test -L link && test \"$(cat \"$(printf 'caf\\351')\")\" = latin\n\
                cd \"$TOWPATH_INPUTS/make\"; find . -type f | sort | od -An -c | head -n 40\n\
                cat $(find . -name a.whl) $(find . -name run.sh) \"$(find . -name \"$(printf 'caf\\351.whl')\")\" \"$(find . -name café.whl)\"\n\
                test -x $(find . -name run.sh) && test ! -x $(find . -name a.whl) && test -z \"$(find . -name c.txt)\" && echo ' arrived'\n";
    let jobs = "  make: { run: sh ./make, on: [change], outputs: { wheel: dist/*.whl, tools: dist/sub } }\n  \
                use: { run: sh -e ./look, on: [change], needs: [make] }\n";
    let ann = fort.clone_of("ann");
    for (path, text) in [("make", make), ("look", look), ("towpath.yaml", &format!("{PIPELINE}{jobs}"))] {
        ann.write(path, text);
    }
    std::os::unix::fs::symlink("real", ann.folder.join("link")).unwrap();
    ann.write("real", "base");
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(ann.folder.join(latin), "latin").unwrap();
    ann.commit("Honest inputs");
    let number = ann.propose("k04");
    fort.tested(number);
    let log = fort.log(number, "use");
    assert_eq!(fort.job(number, "use")["outcome"], "passed", "{log}");
    assert!(log.ends_with("onetwolatutf arrived\n"), "{log}");
    fort.act("ann", number, "close", &json!({})).ok();
}

/// A machine that forbids user namespaces: no server serves there, and nothing of it runs.
fn d20_no_userns(fort: &Fort) {
    let data = fort.marker("forbidden").display().to_string();
    assert_eq!(fort.world.towpath(&["init", "--data", &data, "--user", "ada"]).code, 0);
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut apart = fort.world.command("unshare");
    apart.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh", TOWPATH]);
    apart.args(["serve", "--data", &data, "--listen", "127.0.0.1:0"]);
    let refused = ended(apart.output().unwrap());
    fort.heard.keep("a server without user namespaces", refused.err.as_bytes());
    assert!(refused.code != 0, "{}", refused.err);
    assert!(refused.err.contains("no sandbox can start on this machine"), "{}", refused.err);
    assert!(refused.err.contains("sysctl user.max_user_namespaces="), "it says the mend: {}", refused.err);
    assert!(!refused.err.contains("jobs can run"), "{}", refused.err);
    assert_eq!(processes_of(std::path::Path::new(&data)), []);
    // Nor does a developer's run there fall back to none.
    let home = World::below(fort.world.folder(), &[("towpath.yaml", "jobs:\n  unit: { run: touch ran }\n")]);
    let mut apart = home.command("unshare");
    apart.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh", TOWPATH, "run"]);
    let refused = ended(apart.output().unwrap());
    assert!(refused.code != 0 && refused.err.contains("no sandbox can start"), "{}", refused.err);
    assert!(!home.work().join("ran").exists());
}

fn c17_local_run_escape(fort: &Fort) {
    a_hostile_branch_is_run(fort.world.folder());
}

fn d10_tiocsti(fort: &Fort) {
    jobs_type_nothing(fort.world.folder());
}

#[test]
fn c17_d07_d10_d12_d20_k03_k04_a_job_keeps_to_itself_and_gets_what_is_its_own() {
    let test = "c17_d07_d10_d12_d20_k03_k04_a_job_keeps_to_itself_and_gets_what_is_its_own";
    if !has_sandbox(test) || !has_python(test) {
        return;
    }
    let fort = Fort::with_sandbox(&["--slots", "3"]);
    fort.hold("C17 local-run-escape", c17_local_run_escape);
    fort.hold("D10 tiocsti", d10_tiocsti);
    fort.hold("D12 other-jobs", d12_other_jobs);
    fort.hold("D20 no-userns", d20_no_userns);
    fort.hold("K04 honest-inputs", k04_honest_inputs);
    if has_network(&fort) {
        let net = "  net: { run: 'if test -e reach; then . ./reach; fi', network: true }\n";
        land(&fort, "d07-net", &[("towpath.yaml", &format!("{PIPELINE}{net}"))]);
        fort.hold("D07 network-on-loopback", d07_network_on_loopback);
        fort.hold("K03 honest-network", k03_honest_network);
    }
    fort.end();
}

fn has_network(fort: &Fort) -> bool {
    let found = fort.world.records(&["doctor", "--quick"]);
    let network = found.iter().find(|finding| finding["check"] == "job network").expect("doctor looks at it");
    let works = network["verdict"] == "ok";
    if !works {
        println!("SKIP d07_k03_network: {}", network["what"]);
    }
    works
}
