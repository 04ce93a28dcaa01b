//! A client that sends exactly what it is told to, headers of hostile browsers included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Time for any answer, with a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Ask {
        Ask { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Ask {
        Ask::new("GET", target)
    }

    pub fn post(target: &str, body: Value) -> Ask {
        Ask::new("POST", target).json(body)
    }

    pub fn put(target: &str, body: Value) -> Ask {
        Ask::new("PUT", target).json(body)
    }

    pub fn json(self, body: Value) -> Ask {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Ask {
        Ask { body: body.into(), ..self }
    }

    pub fn token(self, token: &str) -> Ask {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sends it, and returns the connection for what is to be read slowly.
    pub fn open(&self, address: SocketAddr) -> (Got, BufReader<TcpStream>) {
        let mut reader = BufReader::new(self.start(address));
        let got = read_head(&mut reader);
        (got, reader)
    }

    /// Sends it, and waits for nothing.
    pub fn start(&self, address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.target);
        let named = |name: &str| self.headers.iter().any(|(key, _)| key == name);
        if !named("host") {
            head.push_str(&format!("host: {address}\r\n"));
        }
        if !named("content-length") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses early closes its side before all is sent.
        let _ = stream.write_all(&self.body);
        stream
    }

    pub fn send(&self, address: SocketAddr) -> Got {
        let (mut got, mut reader) = self.open(address);
        if got.is_stream() {
            return got;
        }
        let mut body = Vec::new();
        let _ = reader.read_to_end(&mut body);
        got.body = if got.header("transfer-encoding") == Some("chunked") { unchunked(&body) } else { body };
        got
    }
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// An error with all of its words: what was not done, why, and what to do next.
    #[track_caller]
    pub fn error(&self) -> Value {
        let body = self.json();
        for part in ["what", "why", "hint"] {
            let is_said = body[part].as_str().is_some_and(|text| !text.is_empty());
            assert!(is_said, "without `{part}`: {} {body}", self.status);
        }
        body
    }

    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }
}

/// Wants no answer any more, and returns once the server knows: it closes its side, too.
pub fn hang_up(mut sent: TcpStream) {
    sent.shutdown(Shutdown::Write).unwrap();
    let answer = sent.read_to_end(&mut Vec::new());
    assert!(matches!(answer, Ok(0)), "it was answered: {answer:?}");
}

fn read_head(reader: &mut impl BufRead) -> Got {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {line:?}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return Got { status, headers, body: Vec::new() },
        }
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}
