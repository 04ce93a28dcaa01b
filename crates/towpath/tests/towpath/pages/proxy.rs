//! A proxy before a server, which answers by itself while there is none behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

pub struct Proxy {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    open: Vec<TcpStream>,
    /// What it answers by itself although there is a server.
    refuses: Option<String>,
    /// First lines of what it answered by itself.
    refused: Vec<String>,
}

impl Proxy {
    pub fn open() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                // A connection that broke is its client's to open again.
                std::thread::spawn(move || serve(client, &state).ok());
            }
        });
        Proxy { url, state }
    }

    pub fn lead_to(&self, server: SocketAddr) {
        self.state.lock().unwrap().server = Some(server);
    }

    /// The server is gone, and with it every connection.
    pub fn lose_server(&self) {
        let mut state = self.state.lock().unwrap();
        state.server = None;
        for stream in state.open.drain(..) {
            // One that is closed already is as it should be.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Requests for a path get no further from now on; `None`: all do.
    pub fn refuse(&self, path: Option<&str>) {
        self.state.lock().unwrap().refuses = path.map(str::to_owned);
    }

    pub fn has_refused(&self, path: &str) -> bool {
        self.state.lock().unwrap().refused.iter().any(|line| line.contains(path))
    }
}

/// One request for each connection, so that each is looked at.
fn serve(mut client: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let head = from.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let head: Vec<String> = head.filter(|line| !line.to_lowercase().starts_with("connection:")).collect();
    let Some(line) = head.first() else { return Ok(()) };
    let Some((mut up, mut down)) = connect(&client, line, state)? else {
        client.write_all(BAD_GATEWAY.as_bytes())?;
        state.lock().unwrap().refused.push(line.clone());
        return Ok(());
    };
    up.write_all(format!("{}\r\nconnection: close\r\n\r\n", head.join("\r\n")).as_bytes())?;
    std::thread::spawn(move || {
        std::io::copy(&mut from, &mut up).and_then(|_| up.shutdown(Shutdown::Write)).ok()
    });
    std::io::copy(&mut down, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// Two ends of a connection to the server for a request, if it gets that far. Under the lock, so that none outlives its loss.
fn connect(
    client: &TcpStream,
    line: &str,
    state: &Mutex<State>,
) -> std::io::Result<Option<(TcpStream, TcpStream)>> {
    let mut state = state.lock().unwrap();
    let is_refused = state.refuses.as_ref().is_some_and(|path| line.contains(path));
    let Some(server) = state.server.filter(|_| !is_refused) else { return Ok(None) };
    let stream = TcpStream::connect(server)?;
    state.open.extend([client.try_clone()?, stream.try_clone()?]);
    Ok(Some((stream.try_clone()?, stream)))
}
