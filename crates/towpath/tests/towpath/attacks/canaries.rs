//! Secrets that lie where a server has some, a different random one at each place, and the search for them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Starts a program with a session keyring and an open descriptor that hold a canary each, as careless ones have.
const LAUNCHER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
keyctl, add_key = {'x86_64': (250, 248), 'aarch64': (219, 217)}[os.uname().machine]
value = open(sys.argv[1], 'rb').read()
libc.syscall(keyctl, 1, b'towpath-attacked')
libc.syscall(add_key, b'user', b'towpath-canary', value, len(value), -3)
os.dup2(os.open(sys.argv[2], os.O_RDONLY), 9)
os.set_inheritable(9, True)
os.execv(sys.argv[3], sys.argv[3:])
";

/// The interpreter of the launcher, and of attacks that take a system call which no shell has.
pub const PYTHON: &str = "/usr/bin/python3";

/// One secret and where it lies.
#[derive(Debug, Clone)]
pub struct Canary {
    pub place: &'static str,
    pub value: Vec<u8>,
}

/// All of them, planted in a home.
pub struct Canaries {
    pub all: Vec<Canary>,
    home: PathBuf,
}

/// Characters that are written differently in each of the ways that a secret can come out.
fn random(place: &str) -> String {
    let mut bytes = [0; 12];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("tw/{place}+\"{digits}")
}

impl Canaries {
    /// Plants those that are files and sockets; the others are the server's to take.
    pub fn plant(home: &Path) -> Canaries {
        let places =
            ["environment", "cargo", "netrc", "pip", "agent", "keyring", "descriptor", "vault", "landed"];
        let all = places.map(|place| Canary { place, value: random(place).into_bytes() }).to_vec();
        let canaries = Canaries { all, home: home.to_owned() };
        let write = |path: &str, text: String| {
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let of = |place: &str| canaries.of(place).to_owned();
        write(".cargo/credentials.toml", format!("[registry]\ntoken = '{}'\n", of("cargo")));
        write(".netrc", format!("machine example.org login x password {}\n", of("netrc")));
        write(".config/pip/pip.conf", format!("[global]\nindex-url = https://{}@example.org\n", of("pip")));
        write("keyring", of("keyring"));
        write("descriptor", of("descriptor"));
        // A folder on the path is bound into sandboxes; what lies beside it must not be.
        write(".cargo/bin/tool", "#!/bin/sh\n".to_owned());
        canaries.agent();
        canaries
    }

    /// Somebody's ssh agent: it tells whoever connects.
    fn agent(&self) {
        let listener = UnixListener::bind(self.agent_socket()).unwrap();
        fs::set_permissions(self.agent_socket(), fs::Permissions::from_mode(0o777)).unwrap();
        let word = self.of("agent").to_owned();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                let _ = stream.write_all(word.as_bytes());
            }
        });
    }

    pub fn agent_socket(&self) -> PathBuf {
        self.home.join("agent.sock")
    }

    pub fn of(&self, place: &str) -> &str {
        std::str::from_utf8(&self.all.iter().find(|canary| canary.place == place).unwrap().value).unwrap()
    }

    /// The words before a program's own that give it keyring and descriptor; none where there is no interpreter.
    pub fn launcher(&self) -> Vec<String> {
        if !Path::new(PYTHON).exists() {
            return Vec::new();
        }
        let script = self.home.join("launcher.py");
        fs::write(&script, LAUNCHER).unwrap();
        let files = ["keyring", "descriptor"].map(|name| self.home.join(name).display().to_string());
        [PYTHON.to_owned(), script.display().to_string()].into_iter().chain(files).collect()
    }

    /// Adds a secret that the program made by itself.
    pub fn know(&mut self, place: &'static str, value: Vec<u8>) {
        self.all.push(Canary { place, value });
    }

    /// What finds them, in any of the forms that a secret is written in.
    pub fn search(&self) -> Search {
        let forms = self.all.iter().flat_map(|canary| forms(&canary.value).map(move |form| (canary, form)));
        let (names, needles): (Vec<_>, Vec<_>) =
            forms.map(|(canary, (how, form))| (format!("{} ({how})", canary.place), form)).unzip();
        Search { names, automaton: AhoCorasick::new(needles).unwrap() }
    }
}

pub struct Search {
    names: Vec<String>,
    automaton: AhoCorasick,
}

impl Search {
    pub fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        self.automaton.find_iter(bytes).map(|found| self.names[found.pattern()].clone()).collect()
    }
}

/// Raw, base64 at the three offsets that it can have, hex, URL, JSON and XML. Only what every writing of it has in common: the
/// ends of base64 depend on what stands beside it.
fn forms(value: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> + use<> {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let escaped = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    let url: String = value.iter().map(escaped).collect();
    // What is no text has neither JSON nor XML.
    let text = std::str::from_utf8(value).unwrap_or_default();
    let json = serde_json::to_string(text).unwrap();
    let base64 = (0..3).map(|offset| {
        let padded = [&b"\0\0"[..offset], value].concat();
        let text = STANDARD.encode(padded);
        // The first group holds what stands before, the last what stands behind.
        let text = text[if offset == 0 { 0 } else { 4 }..].trim_end_matches('=');
        ("base64", text.as_bytes()[..text.len() - text.len() % 4].to_vec())
    });
    let others = [
        ("raw", value.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("URL", url.into_bytes()),
        ("JSON", json.trim_matches('"').as_bytes().to_vec()),
        ("XML", text.replace('"', "&quot;").into_bytes()),
    ];
    let all = others.into_iter().chain(base64.collect::<Vec<_>>());
    all.filter(|(_, form)| !form.is_empty())
}

#[test]
fn the_search_finds_every_form() {
    let home = tempfile::TempDir::new().unwrap();
    let canaries = Canaries::plant(home.path());
    let (value, search) = (canaries.of("cargo"), canaries.search());
    for form in [
        value.to_owned(),
        STANDARD.encode(value),
        STANDARD.encode(format!("a{value}b")),
        STANDARD.encode(format!("ab{value}cd")),
        value.bytes().map(|byte| format!("{byte:02x}")).collect(),
        value.replace('/', "%2F").replace('+', "%2B").replace('"', "%22"),
        serde_json::json!({ "x": value }).to_string(),
        value.replace('"', "&quot;"),
    ] {
        assert!(!search.found_in(format!("before{form}after").as_bytes()).is_empty(), "{form}");
    }
    assert!(search.found_in(b"nothing of the kind").is_empty());
}
