//! A small HTTP/1.1 server over plain sockets, as much as git's client needs, which calls the crate as a server would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use towpath_core::ids::{ChangeNumber, RepoName, Timestamp, UserId};
use towpath_forge::BuiltIn;
use towpath_forge::push::{
    Endpoint, Head, HookDesk, HookToken, Listener, PushContext, Reply, Request, answer_info_refs,
    answer_receive_pack, answer_upload_pack, route,
};

pub const START: i64 = 1_790_000_000_000;

/// What the server shares with its connections.
pub struct Shared {
    pub forge: BuiltIn,
    pub desk: HookDesk,
    pub users: Vec<(String, UserId)>,
    pub tokens_hold: AtomicBool,
    pub idle: Duration,
    /// Happens once, while the next push waits to be taken.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    clock: Mutex<i64>,
    pushes: AtomicU8,
    stopped: AtomicBool,
}

pub struct Server {
    pub shared: Arc<Shared>,
    pub address: String,
    waiter: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(forge: BuiltIn, desk: HookDesk, users: Vec<(String, UserId)>, idle: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            forge,
            desk,
            users,
            idle,
            meanwhile: Mutex::default(),
            tokens_hold: AtomicBool::new(true),
            clock: Mutex::new(START),
            pushes: AtomicU8::new(0),
            stopped: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let waiter = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if serving.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let serving = &serving;
                    scope.spawn(move || drop(serving.connection(stream.unwrap())));
                }
            });
        });
        Server { shared, address, waiter: Some(waiter) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        self.waiter.take().unwrap().join().unwrap();
    }
}

impl Shared {
    /// Each question is a second later than the one before.
    pub fn now(&self) -> Timestamp {
        let mut clock = self.clock.lock().unwrap();
        *clock += 1000;
        Timestamp(*clock)
    }

    fn connection(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(self.idle))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let mut answer = Answer { stream };
        self.request(&line, &headers, &mut reader, &mut answer)
    }

    fn request(
        self: &Arc<Self>,
        line: &str,
        headers: &[(String, String)],
        reader: &mut (dyn BufRead + Send),
        reply: &mut Answer,
    ) -> io::Result<()> {
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let Some(route) = route(method, path, query).filter(|route| route.repo == *self.forge.name()) else {
            return text(reply, 404, "not found");
        };
        let Some(by) = header("authorization").and_then(|value| self.user(value)) else {
            return text(reply, 401, "a token, please");
        };
        let mut body: Box<dyn Read + Send> = match header("content-length") {
            Some(length) => Box::new(reader.take(length.parse().unwrap())),
            None if header("transfer-encoding") == Some("chunked") => {
                Box::new(Chunks { reader, left: 0, over: false })
            }
            None => Box::new(io::empty()),
        };
        let (content_type, content_encoding) = (header("content-type"), header("content-encoding"));
        let protocol = header("git-protocol");
        let request = Request { protocol, content_type, content_encoding, body: &mut *body };
        match route.endpoint {
            Endpoint::InfoRefs(service) => answer_info_refs(&self.forge, by, (service, protocol), reply),
            Endpoint::UploadPack => answer_upload_pack(&self.forge, by, request, reply),
            Endpoint::ReceivePack => {
                let context = (self.context(by), self.token());
                answer_receive_pack(&self.forge, &self.desk, context, request, reply).map(drop)
            }
        }
    }

    fn context(self: &Arc<Self>, by: UserId) -> PushContext {
        let shared = self.clone();
        let asked = AtomicU8::new(0);
        let still_valid = Arc::new(move || {
            // The second question is the last one before anything is written.
            let meanwhile = match asked.fetch_add(1, Ordering::SeqCst) {
                1 => shared.meanwhile.lock().unwrap().take(),
                _ => None,
            };
            if let Some(happens) = meanwhile {
                happens();
            }
            shared.tokens_hold.load(Ordering::SeqCst)
        });
        PushContext { by, now: self.now(), still_valid, listener: Arc::new(Voice) }
    }

    fn token(&self) -> HookToken {
        HookToken::new([self.pushes.fetch_add(1, Ordering::SeqCst); 32])
    }

    /// The name in front of the colon; the tests' passwords are not secret.
    fn user(&self, value: &str) -> Option<UserId> {
        let text = base64(value.strip_prefix("Basic ")?);
        let name = text.split(':').next()?.to_owned();
        self.users.iter().find(|(known, _)| *known == name).map(|(_, user)| *user)
    }
}

struct Voice;

impl Listener for Voice {
    fn moved(&self, repo: &RepoName, change: ChangeNumber) -> String {
        format!("http://towpath.test/{repo}/changes/{change} waits for: run main/{change}")
    }
}

struct Answer {
    stream: TcpStream,
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Reply for Answer {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let Head { status, content_type } = head;
        let ask = if *status == 401 { "WWW-Authenticate: Basic realm=\"towpath\"\r\n" } else { "" };
        write!(
            self.stream,
            "HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nCache-Control: no-cache\r\n{ask}Connection: close\r\n\r\n"
        )
    }
}

fn text(reply: &mut Answer, status: u16, text: &str) -> io::Result<()> {
    reply.begin(&Head { status, content_type: "text/plain" })?;
    reply.write_all(text.as_bytes())
}

struct Chunks<'a> {
    reader: &'a mut (dyn BufRead + Send),
    left: usize,
    over: bool,
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.over {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let line = line.trim_end();
            self.left = usize::from_str_radix(line, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            self.over = self.left == 0;
        }
        if self.over {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let count = self.reader.read(&mut buffer[..most])?;
        self.left -= count;
        if self.left == 0 {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(count)
    }
}

fn base64(text: &str) -> String {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bytes: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let join = |four: &[u8]| {
        let bits =
            four.iter().fold(0u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    String::from_utf8(bytes.chunks(4).flat_map(join).collect()).unwrap()
}
