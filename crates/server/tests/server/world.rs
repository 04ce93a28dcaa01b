//! A server with people of every kind, a repo that has a change, and one that a stranger reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use towpath_core::ids::{Epoch, RepoName, UserId};
use towpath_executor::protocol::StopMode;
use towpath_executor::{ExecutorClient, Limits, SandboxKind};
use towpath_git::GitOptions;
use towpath_server::auth::accounts::{NewToken, add_user, issue_token};
use towpath_server::auth::rights::set_admin;
use towpath_server::http::connections::Connections;
use towpath_server::http::serve::Arrivals;
use towpath_server::http::{Edge, serve, site};
use towpath_server::server::{Server, Shared};
use towpath_server::settings::{ExecutorLife, ServerSettings};
use towpath_store::records::Scope;

use crate::client::{Ask, Got};

/// Everybody: name and role on `demo`. The stranger reads `other`.
pub const PEOPLE: [(&str, &str); 8] = [
    ("ada", "admin"),
    ("mia", "maintainer"),
    ("ann", "author"),
    ("bob", "author"),
    ("rae", "reader"),
    ("stranger", ""),
    ("extra", "reader"),
    ("revoked", "maintainer"),
];

/// One job that says and leaves what a hostile one would.
const DEFINITION: &str = r#"jobs:
  unit:
    run: |
      echo "<script>alert(1)</script>"
      echo "error: it broke"
      mkdir dist
      echo "<script>alert(2)</script>" > dist/x.html
    outputs: { site: dist/* }
"#;

pub struct World {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    pub edge: Arc<Edge>,
    pub folder: TempDir,
    tokens: BTreeMap<String, String>,
    users: BTreeMap<String, UserId>,
    pub runtime: Runtime,
    server: Option<Server>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl World {
    /// A server that runs no job.
    pub fn new() -> World {
        World::with_slots(0)
    }

    /// A server with an executor of its own.
    pub fn with_jobs() -> World {
        World::with_slots(1)
    }

    /// The same, where the repo has another pipeline.
    pub fn with_pipeline(definition: &str) -> World {
        World::make((1, GitOptions::default()), definition)
    }

    /// A server that runs no job, where the repo has another pipeline.
    pub fn without_jobs(definition: &str) -> World {
        World::make((0, GitOptions::default()), definition)
    }

    /// A server without a repo that others reach by another address than this machine's own.
    pub fn behind(url: &str) -> World {
        World::behind_named(url, &[])
    }

    /// The same with proxies that say where a request comes from.
    pub fn behind_named(url: &str, proxies: &[IpAddr]) -> World {
        let connections = Connections::of_this_process();
        let mut world = World::serve(
            TempDir::new().unwrap(),
            (0, GitOptions::default()),
            (Some(url), proxies),
            (connections, &[]),
        );
        world.admit();
        world
    }

    /// A server without a repo that takes so many connections.
    pub fn narrow(connections: usize) -> World {
        World::from_afar(connections, &[])
    }

    /// The same, whose first connections come from these addresses instead of this machine.
    pub fn from_afar(connections: usize, addresses: &'static [[u8; 4]]) -> World {
        let connections = (Connections::at_most(connections), addresses);
        let mut world =
            World::serve(TempDir::new().unwrap(), (0, GitOptions::default()), (None, &[]), connections);
        world.admit();
        world
    }

    /// The same, where the server has another git.
    pub fn with_git(git: GitOptions, definition: &str) -> World {
        World::make((0, git), definition)
    }

    /// A server without a repo that has another git.
    pub fn bare_with_git(git: GitOptions) -> World {
        let connections = (Connections::of_this_process(), &[][..]);
        let mut world = World::serve(TempDir::new().unwrap(), (0, git), (None, &[]), connections);
        world.admit();
        world
    }

    fn with_slots(slots: u32) -> World {
        World::make((slots, GitOptions::default()), DEFINITION)
    }

    fn make((slots, git): (u32, GitOptions), definition: &str) -> World {
        let connections = (Connections::of_this_process(), &[][..]);
        let mut world = World::serve(TempDir::new().unwrap(), (slots, git), (None, &[]), connections);
        world.admit();
        world.fill(definition);
        world
    }

    /// The next server on what this one, which runs no job, leaves behind, after something has happened to that.
    pub fn restart(mut self, meanwhile: impl FnOnce(&Path)) -> World {
        assert_eq!(self.shared.settings.slots, 0);
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        let (tokens, users) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.users));
        drop(self);
        meanwhile(folder.path());
        let mut world = World::serve(
            folder,
            (0, GitOptions::default()),
            (None, &[]),
            (Connections::of_this_process(), &[]),
        );
        (world.tokens, world.users) = (tokens, users);
        world
    }

    fn serve(
        folder: TempDir,
        (slots, git): (u32, GitOptions),
        (url, proxies): (Option<&str>, &[IpAddr]),
        (connections, addresses): (Connections, &'static [[u8; 4]]),
    ) -> World {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let settings = ServerSettings {
            data: folder.path().join("data"),
            keys: folder.path().join("keys"),
            new_keys: false,
            listen: address,
            url: url.map(str::to_owned),
            trusted_proxies: proxies.to_vec(),
            slots,
            sandbox: SandboxKind::None,
            limits: Limits::default(),
            program: env!("CARGO_BIN_EXE_towpath-server-program").into(),
            git,
            executor: ExecutorLife::Own,
        };
        let server = runtime.block_on(Server::start(settings)).unwrap();
        let shared = server.shared.clone();
        let site = site(url, address).unwrap().behind(proxies);
        let edge = Edge::with(connections, shared.clone(), site).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let served = runtime.spawn(serve::serve(edge.clone(), Afar::new(listener, addresses), stopped));
        World {
            address,
            shared,
            edge,
            folder,
            tokens: BTreeMap::new(),
            users: BTreeMap::new(),
            runtime,
            server: Some(server),
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Users and tokens, as `towpath init` makes the first ones.
    fn admit(&mut self) {
        let now = self.shared.engine.clock().now();
        for (name, _) in PEOPLE {
            let made = self.shared.store.writer().write(move |tx| {
                let user = add_user(tx, name, None, (None, now))?;
                if name == "ada" {
                    set_admin(tx, user, true)?;
                }
                let new = NewToken {
                    owner: user,
                    label: "test".into(),
                    scope: Scope::default(),
                    made_by: None,
                    expires_at: None,
                };
                let token = issue_token(tx, new, (None, now))?;
                Ok((user, token.text, token.number))
            });
            let (user, token, number) = made.unwrap();
            if name == "revoked" {
                self.shared.store.writer().write(move |tx| tx.revoke_token(number, now)).unwrap();
            }
            self.tokens.insert(name.into(), token);
            self.users.insert(name.into(), user);
        }
    }

    /// `demo` with change 1 of ann's, and `other`, which the stranger reads.
    fn fill(&mut self, definition: &str) {
        let source = self.source(definition);
        for repo in ["demo", "other"] {
            let path = source.to_str().unwrap();
            self.ada(Ask::post("/api/v1/import", json!({ "repo": repo, "path": path }))).ok();
        }
        for (name, role) in PEOPLE.iter().filter(|(_, role)| !role.is_empty()) {
            let right = json!({ "role": role, "authorised": *role != "reader" });
            self.ada(Ask::put(&format!("/api/v1/repos/demo/people/{name}"), right)).ok();
        }
        self.ada(Ask::put("/api/v1/repos/other/people/stranger", json!({ "role": "reader" }))).ok();
        let open = Ask::post("/api/v1/repos/demo/changes", json!({ "source": "feature" }));
        assert_eq!(self.by("ann", open).ok()["change"], 1);
        self.until(|world| world.why(1).iter().any(|reason| reason == "approvals"));
    }

    /// A repository to import: main, and one commit on `feature`.
    pub fn source(&self, definition: &str) -> PathBuf {
        let source = self.folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let git = |arguments: &[&str]| {
            let done = git(&source, arguments);
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        git(&["init", "--quiet", "--initial-branch=main", "."]);
        std::fs::write(source.join("towpath.yaml"), definition).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "Begin"]);
        git(&["checkout", "--quiet", "-b", "feature"]);
        std::fs::write(source.join("feature"), "feature\n").unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "Add a feature"]);
        git(&["checkout", "--quiet", "main"]);
        source
    }

    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    pub fn user(&self, name: &str) -> UserId {
        self.users[name]
    }

    pub fn by(&self, name: &str, ask: Ask) -> Got {
        ask.token(self.token(name)).send(self.address)
    }

    pub fn ada(&self, ask: Ask) -> Got {
        self.by("ada", ask)
    }

    pub fn send(&self, ask: &Ask) -> Got {
        ask.send(self.address)
    }

    pub fn demo(&self) -> RepoName {
        "demo".parse().unwrap()
    }

    pub fn change(&self, number: u64) -> Value {
        self.ada(Ask::get(&format!("/api/v1/repos/demo/changes/{number}"))).ok()
    }

    /// Kinds of the reasons why a change has not landed.
    pub fn why(&self, number: u64) -> Vec<String> {
        let why = self.ada(Ask::get(&format!("/api/v1/repos/demo/changes/{number}/why"))).ok();
        let reasons = why["reasons"].as_array().unwrap().iter();
        reasons.map(|reason| reason["reason"].as_str().unwrap().to_owned()).collect()
    }

    pub fn leaves(&self) -> u64 {
        self.ada(Ask::get("/api/v1/audit/leaves?count=0")).ok()["size"].as_u64().unwrap()
    }

    /// Waits for cells to change until something is so.
    pub fn until(&self, is_so: impl Fn(&World) -> bool) {
        let mut changes = self.shared.engine.changes();
        let patience = Duration::from_secs(30);
        while !is_so(self) {
            let changed =
                self.runtime.block_on(async { tokio::time::timeout(patience, changes.recv()).await });
            assert!(changed.is_ok(), "nothing moved for {patience:?}");
        }
    }

    /// Opens a session by password, and returns its cookie.
    pub fn log_in(&self, name: &str) -> String {
        let set = json!({ "new": "correct horse" });
        self.ada(Ask::put(&format!("/api/v1/users/{name}/password"), set)).ok();
        let got = self.send(&self.form("/login", &format!("name={name}&password=correct+horse&next=/x")));
        assert_eq!((got.status, got.header("location")), (303, Some("/x")));
        got.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    /// A form as a page of this server sends it.
    pub fn form(&self, path: &str, fields: &str) -> Ask {
        Ask::new("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", &format!("http://{}", self.address))
            .header("sec-fetch-site", "same-origin")
            .body(fields)
    }
}

/// Connections of this machine, the first of which are said to come from elsewhere.
struct Afar {
    listener: TcpListener,
    addresses: Mutex<std::slice::Iter<'static, [u8; 4]>>,
}

impl Afar {
    fn new(listener: TcpListener, addresses: &'static [[u8; 4]]) -> Afar {
        Afar { listener, addresses: Mutex::new(addresses.iter()) }
    }
}

impl Arrivals for Afar {
    async fn next(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let (stream, mut peer) = self.listener.accept().await?;
        if let Some(address) = self.addresses.lock().unwrap().next() {
            peer.set_ip((*address).into());
        }
        Ok((stream, peer))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(served) = self.served.take() {
            let ended =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), served).await });
            assert!(ended.is_ok() || std::thread::panicking(), "the edge did not stop");
        }
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
        // The executor outlives its server, and must not outlive the test.
        let socket = self.folder.path().join("data/executor/socket");
        if self.shared.settings.slots > 0 {
            let epoch = Epoch(self.shared.store.epoch().0 + 1);
            let client =
                ExecutorClient::connect(&socket, (epoch, Some(Vec::new())), Duration::from_secs(60), |_| {});
            client.unwrap().stop(StopMode::Now).unwrap();
        }
    }
}

/// Plain git with nobody's settings.
pub fn git(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_NAME", "A")
        .env("GIT_COMMITTER_EMAIL", "a@example.org")
        .output()
        .unwrap()
}
