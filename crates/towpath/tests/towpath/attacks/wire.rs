//! What goes over the wire to a server, kept for a look at it in the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time for any one answer, on a machine that compiles meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks while nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Everything that anybody was told: answers, logs, what commands printed.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Word>>>);

/// From where, and what.
type Word = (String, Vec<u8>);

impl Heard {
    pub fn keep(&self, from: &str, bytes: &[u8]) {
        self.0.lock().unwrap().push((from.to_owned(), bytes.to_vec()));
    }

    /// All but the first so many words.
    pub fn since(&self, count: usize) -> Vec<Word> {
        self.0.lock().unwrap()[count..].to_vec()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let of =
            |line: &'_ str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|line| of(line)).and_then(|line| Some(line.split_once(": ")?.1))
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status < 300, "{}\n{}", self.head, self.text());
        self.json()
    }
}

/// A request, to be sent byte for byte.
#[derive(Debug, Clone)]
pub struct Ask {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, path: &str) -> Ask {
        Ask { line: format!("{method} {path} HTTP/1.1"), headers: Vec::new(), body: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Ask {
        Ask { body: body.into(), ..self }
    }

    pub fn json(self, body: &Value) -> Ask {
        self.with("content-type", "application/json").body(body.to_string())
    }

    fn bytes(&self, host: &str) -> Vec<u8> {
        let named = self.headers.iter().find(|(name, _)| name == "host");
        let host = named.map_or(host, |(_, other)| other);
        let mut head = format!("{}\r\nhost: {host}\r\nconnection: close\r\n", self.line);
        let names_length = self.headers.iter().any(|(name, _)| name == "content-length");
        if !names_length && (!self.body.is_empty() || self.line.starts_with("P")) {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        let others = self.headers.iter().filter(|(name, _)| name != "host");
        others.for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it, and reads the answer's head; the rest is the reader's.
    pub fn open(&self, host: &str) -> (Reply, BufReader<TcpStream>) {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server that refuses early closes its side before all is sent.
        let _ = stream.write_all(&self.bytes(host));
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let reply = Reply { status: status.unwrap_or(0), head, body: Vec::new() };
        (reply, reader)
    }

    /// Sends it, and reads the whole answer.
    pub fn send(&self, host: &str, heard: &Heard) -> Reply {
        let (mut reply, mut reader) = self.open(host);
        let mut rest = Vec::new();
        // An answer that breaks off is looked at as far as it came.
        let _ = reader.read_to_end(&mut rest);
        let is_chunked = reply.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        reply.body = if is_chunked { unchunked(&rest) } else { rest };
        heard.keep(&format!("the answer to {}", self.line), &[reply.head.as_bytes(), &reply.body].concat());
        reply
    }
}

/// The body of an answer whose length was not known when it began.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size =
            std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && end + 2 + size <= rest.len()) else { break };
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

/// The server's word that something changed: whoever waits looks again when it comes.
pub struct Bell(BufReader<TcpStream>);

impl Bell {
    pub fn of(host: &str, token: &str) -> Bell {
        let ask = Ask::new("GET", "/api/v1/events").with("authorization", &format!("Bearer {token}"));
        let (reply, reader) = ask.open(host);
        assert_eq!(reply.status, 200, "{}", reply.head);
        reader.get_ref().set_read_timeout(Some(LOOK_EVERY)).unwrap();
        Bell(reader)
    }

    /// Looks whenever the server says something, until there is what is wanted, or too long; then what was seen last.
    pub fn until<T>(&mut self, mut look: impl FnMut() -> Result<T, Value>) -> Result<T, Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            match look() {
                Err(_) if Instant::now() < end => {}
                found => return found,
            }
            // Nothing within the time: then it is looked at again all the same.
            let _ = self.0.read(&mut [0; 4096]);
        }
    }
}
