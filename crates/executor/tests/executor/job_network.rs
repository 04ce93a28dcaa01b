//! A job's network. Not nested: inside a job of Towpath's own these are left out, by the name of this module.

use towpath_core::graph::Outcome;

use crate::support::{World, is_root, skip};

#[test]
fn d07_network_on_loopback() {
    let test = "d07_network_on_loopback";
    let Some(world) = World::sandboxed(test) else { return };
    if let Err(why) = &world.pool.capabilities().network {
        return skip(test, why);
    }
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = own_address();
    let program = format!(
        "import socket\n\
         hosts = ['127.0.0.1', '0.0.0.0', '10.0.2.2', '169.254.169.254', '{own}', '::1', '::ffff:127.0.0.1', '::ffff:{own}']\n\
         for host in hosts:\n\
         \x20   s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET); s.settimeout(3)\n\
         \x20   try: s.connect((host, {port})); print('OPEN', host)\n\
         \x20   except OSError as error: print('refused', host, error)\n"
    );
    let mut spec = world.python_spec(&program);
    spec.body.network = true;
    let done = world.run_spec(spec).passed();
    assert!(!done.log.contains("OPEN"), "{}", done.log);
    assert_eq!(done.log.lines().filter(|line| line.starts_with("refused")).count(), 8, "{}", done.log);
    let control = World::plain().python(&program).passed();
    assert!(
        control.log.contains("OPEN 127.0.0.1") && control.log.contains(&format!("OPEN {own}")),
        "{}",
        control.log
    );
}

/// An address of this machine that is not the loopback; the loopback if there is none.
fn own_address() -> String {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    let mut addresses = local.filter_map(|pair| pair[0].strip_prefix("|-- "));
    addresses.find(|address| !address.starts_with("127.")).unwrap_or("127.0.0.1").to_owned()
}

#[test]
fn k03_honest_network() {
    let test = "k03_honest_network";
    let Some(world) = World::sandboxed(test) else { return };
    if let Err(why) = &world.pool.capabilities().network {
        return skip(test, why);
    }
    let Some(server) = TestServer::new() else {
        return skip(test, "no network namespace with a server can be made");
    };
    let program = format!(
        "import urllib.request\nprint(urllib.request.urlopen('http://{}:8000/', timeout=10).read().decode())",
        server.address
    );
    let mut spec = world.python_spec(&program);
    spec.body.network = true;
    let done = world.run_spec(spec.clone()).passed();
    assert!(done.log.contains("hello from outside"), "{}", done.log);
    spec.lease.0[0] = 1;
    spec.body.network = false;
    assert_eq!(world.run_spec(spec).outcome(), Outcome::Failed, "without the key there is no network");
}

#[test]
fn a_job_with_network_finds_resolver_and_certificates() {
    let test = "a_job_with_network_finds_resolver_and_certificates";
    let Some(world) = World::sandboxed(test) else { return };
    if let Err(why) = &world.pool.capabilities().network {
        return skip(test, why);
    }
    let mut spec = world.spec("cat /etc/resolv.conf; test -s \"$SSL_CERT_FILE\"; test \"$PIP_CERT\" = \"$SSL_CERT_FILE\"; test \"$NODE_EXTRA_CA_CERTS\" = \"$SSL_CERT_FILE\"");
    spec.body.network = true;
    assert_eq!(world.run_spec(spec).passed().log, "nameserver 10.0.2.3\n");
}

/// A web server in a network namespace of its own, joined to the host's by a pair of interfaces.
struct TestServer {
    address: String,
    namespace: String,
    child: std::process::Child,
    _folder: tempfile::TempDir,
}

impl TestServer {
    fn new() -> Option<TestServer> {
        if !is_root() {
            return None;
        }
        let id = std::process::id();
        let namespace = format!("towpath-{id}");
        let (ours, theirs) = (format!("tw{id}a"), format!("tw{id}b"));
        let net = format!("10.213.{}", id % 250);
        let commands = [
            format!("ip netns add {namespace}"),
            format!("ip link add {ours} type veth peer name {theirs}"),
            format!("ip link set {theirs} netns {namespace}"),
            format!("ip addr add {net}.1/30 dev {ours}"),
            format!("ip link set {ours} up"),
            format!("ip -n {namespace} addr add {net}.2/30 dev {theirs}"),
            format!("ip -n {namespace} link set {theirs} up"),
            format!("ip -n {namespace} link set lo up"),
        ];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "hello from outside").unwrap();
        let run = |command: &String| {
            let mut words = command.split(' ');
            std::process::Command::new(words.next()?).args(words).status().ok()?.success().then_some(())
        };
        if commands.iter().try_for_each(run).is_none() {
            let _ = run(&format!("ip netns del {namespace}"));
            return None;
        }
        let address = format!("{net}.2");
        let mut child = std::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &namespace,
                "/usr/bin/python3",
                "-u",
                "-m",
                "http.server",
                "8000",
                "--bind",
                &address,
            ])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .ok()?;
        // It says a line once it listens.
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take()?), &mut line).ok()?;
        Some(TestServer { address, namespace, child, _folder: folder })
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}
