//! Pushes written by hand, for what git's client would not send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use towpath_core::ids::CommitId;

use crate::support::{Clone, World};

pub const NONE: &str = "0000000000000000000000000000000000000000";
const CAPABILITIES: &str = "report-status side-band-64k push-options object-format=sha1 agent=git/test";

/// A push in the making.
pub struct RawPush {
    head: Vec<u8>,
    pub pack: Vec<u8>,
}

fn line(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

impl RawPush {
    /// Commands that make refs at `commit`, with options.
    pub fn new(names: &[&[u8]], commit: CommitId, options: &[&str]) -> RawPush {
        let mut head = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let mut data = [format!("{NONE} {commit} ").as_bytes(), name].concat();
            if at == 0 {
                data.push(0);
                data.extend(CAPABILITIES.as_bytes());
            }
            head.extend(line(&data));
        }
        head.extend(b"0000");
        options.iter().for_each(|option| head.extend(line(option.as_bytes())));
        head.extend(b"0000");
        RawPush { head, pack: Vec::new() }
    }

    /// All that a clone has and main has not.
    pub fn with_pack_of(mut self, world: &World, clone: &Clone) -> RawPush {
        use std::io::Write;
        let mut command = clone.command(&["pack-objects", "--quiet", "--revs", "--stdout"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let wanted = format!("{}\n^{}\n", clone.head(), world.main());
        child.stdin.take().unwrap().write_all(wanted.as_bytes()).unwrap();
        self.pack = child.wait_with_output().unwrap().stdout;
        assert!(self.pack.starts_with(b"PACK"));
        self
    }

    /// Sends it as a person and returns the whole answer, HTTP included; whatever cannot be read as text is replaced.
    pub fn send(&self, world: &World, person: &str) -> String {
        let mut stream = self.begin(world, person, self.head.len() + self.pack.len());
        stream.write_all(&self.pack).unwrap();
        answer(&mut stream)
    }

    /// Sends the head and says that `length` bytes will come.
    pub fn begin(&self, world: &World, person: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(&world.server.address).unwrap();
        let authorization = base64(format!("{person}:x").as_bytes());
        write!(
            stream,
            "POST /demo.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {authorization}\r\n\
             Content-Type: application/x-git-receive-pack-request\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&self.head).unwrap();
        stream
    }

    pub fn length(&self) -> usize {
        self.head.len() + self.pack.len()
    }
}

pub fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The status of a plain request.
pub fn status(world: &World, method: &str, target: &str) -> u16 {
    let mut stream = TcpStream::connect(&world.server.address).unwrap();
    let authorization = base64(b"ada:x");
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {authorization}\r\n\r\n")
        .unwrap();
    answer(&mut stream).split(' ').nth(1).unwrap().parse().unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digit = |at: usize| match at <= three.len() {
            true => DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char,
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(four).collect()
}
