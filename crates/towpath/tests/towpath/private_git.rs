//! A git server on this machine that shows nothing to whoever does not log in: git's own `http-backend`, or a Towpath, behind
//! TLS.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Made for these tests, for 127.0.0.1, and good until 2120.
const CERTIFICATE: &str = include_str!("private_git/certificate.pem");
const KEY: &str = include_str!("private_git/key.pem");

/// What stands behind the TLS.
pub enum Behind {
    /// The repositories of a folder, for whoever gives this value of `Authorization`.
    Folder(PathBuf, String),
    /// A Towpath at this address, which knows by itself whom to let in.
    Towpath(String),
}

/// One that serves until the tests end.
pub struct PrivateGit {
    port: u16,
    listed: Arc<Mutex<Vec<String>>>,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// One request, with its header's names in small letters.
struct Request {
    first: String,
    header: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl PrivateGit {
    pub fn serving(behind: Behind) -> PrivateGit {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listed = Arc::<Mutex<Vec<String>>>::default();
        let (all, config) = (Arc::clone(&listed), tls());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                answer(StreamOwned::new(tls, connection.unwrap()), &behind, &all);
            }
        });
        PrivateGit { port, listed }
    }

    pub fn address(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.port)
    }

    /// The arguments of every process that there was while it was asked for something.
    pub fn listed(&self) -> String {
        self.listed.lock().unwrap().concat()
    }
}

/// The file of the certificates by which it is known.
pub fn certificates(folder: &Path) -> String {
    let path = folder.join("certificates.pem");
    std::fs::write(&path, CERTIFICATE).unwrap();
    path.display().to_string()
}

fn tls() -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// Answers one request. Whoever trusts no such certificate goes away before that.
fn answer(mut stream: Stream, behind: &Behind, listed: &Mutex<Vec<String>>) {
    let Some(request) = Request::read(&mut stream) else { return };
    // Whoever asks for it waits for the answer now.
    listed.lock().unwrap().push(processes());
    let answer = match behind {
        Behind::Folder(_, login) if request.header.get("authorization") != Some(login) => {
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\n\
              Connection: close\r\n\r\n"
                .to_vec()
        }
        Behind::Folder(folder, _) => request.by_http_backend(folder),
        Behind::Towpath(address) => request.by_towpath(address),
    };
    stream.write_all(&answer).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

fn processes() -> String {
    let arguments = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| arguments(entry.ok()?));
    all.map(|words| String::from_utf8_lossy(&words).replace('\0', " ") + "\n").collect()
}

impl Request {
    fn read(stream: &mut Stream) -> Option<Request> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let first = lines.next().unwrap().to_owned();
        let named =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let header: BTreeMap<String, String> = lines.filter_map(named).collect();
        assert!(!header.contains_key("transfer-encoding"), "git sends as much as that: {head}");
        let bytes = header.get("content-length").map_or(0, |bytes| bytes.parse().unwrap());
        let mut body = vec![0; bytes];
        stream.read_exact(&mut body).ok()?;
        Some(Request { first, header, body })
    }

    fn by_http_backend(&self, folder: &Path) -> Vec<u8> {
        let [method, target, _] = self.first.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{}", self.first)
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let said = |name: &str| self.header.get(name).map_or("", String::as_str);
        let mut command = Command::new("git");
        command.arg("http-backend").env("GIT_PROJECT_ROOT", folder).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
        command.env("CONTENT_TYPE", said("content-type")).env("CONTENT_LENGTH", self.body.len().to_string());
        command.env("HTTP_CONTENT_ENCODING", said("content-encoding"));
        command.env("GIT_PROTOCOL", said("git-protocol"));
        let mut git = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        git.stdin.take().unwrap().write_all(&self.body).unwrap();
        let said = git.wait_with_output().unwrap().stdout;
        let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&said[..end]).into_owned();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let length = said.len() - end - 4;
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{head}");
        [answer.as_bytes(), &said[end..]].concat()
    }

    fn by_towpath(&self, address: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut head = format!("{}\r\nHost: {address}\r\nConnection: close\r\n", self.first);
        let kept = self.header.iter().filter(|(name, _)| !["host", "connection"].contains(&name.as_str()));
        kept.for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(&[head.as_bytes(), b"\r\n", &self.body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}
