//! A sender of webhooks, in a process of its own: signed bodies over connections that are kept open.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ring::hmac;
use rustix::net::sockopt::set_tcp_congestion;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::Fault;
use crate::sample::{millis, percentile};

/// Connections at once.
const CONNECTIONS: u32 = 32;
/// How the sender's kernel finds out what the network can carry. There is none here: another way, BBR say, which many
/// machines have by default, would send by a clock of its own, and the figure would be the clock's.
const CONGESTION: &str = "reno";
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The server.
    pub address: SocketAddr,
    /// The path of its hook.
    pub path: String,
    /// What the bodies are signed with.
    pub secret: String,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// How many.
    pub count: u32,
    /// So many a second, whatever the server does; 0: each connection sends when it was answered.
    pub rate: u32,
    /// The beginning of their ids, which no other order has.
    pub series: String,
}

/// How it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answered {
    /// Webhooks answered a second.
    pub rate: f64,
    /// Milliseconds from when one was due to its answer: the middle one.
    pub p50: f64,
    /// The same for the slowest of a hundred.
    pub p99: f64,
}

impl Order {
    /// Sends from a new process.
    ///
    /// # Errors
    /// That process failed: a webhook was not taken.
    pub fn run(&self) -> Result<Answered, Fault> {
        let order = serde_json::to_string(self)?;
        let output = std::process::Command::new(std::env::current_exe()?).args(["post", &order]).output()?;
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout)?),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
        }
    }

    /// The body of that process.
    ///
    /// # Errors
    /// A webhook was not taken.
    pub fn carry_out(&self) -> Result<Answered, Fault> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.send())
    }

    async fn send(&self) -> Result<Answered, Fault> {
        let request = std::sync::Arc::new(Request::new(self));
        let began = Instant::now();
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let (order, request) = (self.clone(), request.clone());
                tokio::spawn(async move { order.send_every(first, &request, began).await })
            })
            .collect();
        let mut latencies = Vec::new();
        for sender in senders {
            latencies.extend(sender.await??);
        }
        let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
        Ok(Answered { rate, p50: percentile(latencies.clone(), 50.0), p99: percentile(latencies, 99.0) })
    }

    /// One connection's share: every so many-th, from the `first` on.
    async fn send_every(&self, first: u32, request: &Request, began: Instant) -> Result<Vec<f64>, Fault> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        set_tcp_congestion(&stream, CONGESTION)?;
        let mut latencies = Vec::new();
        let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
        for number in (first..self.count).step_by(CONNECTIONS as usize) {
            let due = match Duration::from_secs(1).checked_div(self.rate) {
                Some(interval) => began + interval * number,
                None => Instant::now(),
            };
            tokio::time::sleep_until(due.into()).await;
            write_all(&stream, request.head(self, number).as_bytes(), &request.body).await?;
            read_answer(&stream, &mut answer).await?;
            // Counted from when it was due: that it could not be sent earlier is the server's fault too.
            latencies.push(millis(due.elapsed()));
        }
        Ok(latencies)
    }
}

/// A request but for its id.
struct Request {
    body: Vec<u8>,
    signature: String,
}

impl Request {
    fn new(order: &Order) -> Request {
        let mut body = br#"{"action":"synchronize","filling":""#.to_vec();
        body.resize(order.body_bytes.saturating_sub(2), b'x');
        body.extend_from_slice(br#""}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, order.secret.as_bytes());
        let tag = hmac::sign(&key, &body);
        let signature = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Request { body, signature }
    }

    fn head(&self, order: &Order, number: u32) -> String {
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nx-github-event: pull_request\r\n\
             x-github-delivery: {}-{number}\r\nx-hub-signature-256: sha256={}\r\ncontent-length: {}\r\n\r\n",
            order.path,
            order.address,
            order.series,
            self.signature,
            self.body.len()
        )
    }
}

async fn write_all(stream: &TcpStream, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
    while !(head.is_empty() && body.is_empty()) {
        stream.writable().await?;
        match stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(count) => {
                let of_head = count.min(head.len());
                (head, body) = (&head[of_head..], &body[count - of_head..]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one answer to its end; only success is one.
async fn read_answer(stream: &TcpStream, answer: &mut Vec<u8>) -> Result<(), Fault> {
    let mut part = [0; 4096];
    answer.clear();
    while !is_whole(answer) {
        stream.readable().await?;
        match stream.try_read(&mut part) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(count) if answer.len() + count <= ANSWER_BYTES_MAX => answer.extend_from_slice(&part[..count]),
            Ok(_) => return Err("the answer has no end".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    match answer.starts_with(b"HTTP/1.1 2") {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(answer).into()),
    }
}

/// Whether head and body are there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        assert!(is_whole(b"HTTP/1.1 204 No Content\r\n\r\n"));
    }
}
