//! Crowds that hold what everybody needs: connections, places of requests, and memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Ask;
use crate::world::World;

/// Answers that are asked for on one connection: more than the two systems' buffers hold of them.
const PIPELINED: usize = 150;
/// Requests that one person may have under way.
const REQUESTS_PER_USER_MAX: usize = 64;
/// No test waits so long for anything, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that asks for one thing again and again, and never reads.
fn deaf(world: &World, target: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).unwrap();
    let ask = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n{header}\r\n", world.address);
    stream.write_all(ask.repeat(PIPELINED).as_bytes()).unwrap();
    stream
}

#[test]
fn readers_that_do_not_read_keep_nobody_out() {
    let world = World::narrow(16);
    let held: Vec<TcpStream> = (0..24).map(|_| deaf(&world, "/openapi.json", "")).collect();
    assert_eq!(world.send(&Ask::get("/healthz")).status, 200);
    drop(held);
}

#[test]
fn an_address_that_has_its_share_of_connections_gets_no_more() {
    // One of sixteen is an address's share.
    let world = World::from_afar(16, &[[192, 0, 2, 1], [192, 0, 2, 1], [192, 0, 2, 2]]);
    let _held = TcpStream::connect(world.address).unwrap();
    let mut more = TcpStream::connect(world.address).unwrap();
    let ask = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", world.address);
    let mut answer = Vec::new();
    // It is closed, maybe before it was written to.
    let _ = more.write_all(ask.as_bytes());
    let _ = more.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "", "a second one of the same address is not taken");
    assert_eq!(world.send(&Ask::get("/healthz")).status, 200);
}

#[test]
fn senders_that_do_not_send_keep_nobody_out() {
    let world = World::narrow(16);
    let late = world.form("/login", "").header("content-length", "100");
    let held: Vec<TcpStream> = (0..24).map(|_| late.start(world.address)).collect();
    let change = Ask::put("/api/v1/me/password", json!(null)).body("").header("content-length", "100");
    let refused = world.by("mia", change);
    assert_eq!(
        (refused.status, &refused.error()["why"]),
        (429, &"the body came too slowly, and nothing has happened: send it again".into())
    );
    assert_eq!(world.send(&Ask::get("/healthz")).status, 200);
    drop(held);
}

/// What a person is answered is held until it is read: they get no more of it at once than they may have requests.
#[test]
fn unread_answers_of_one_person_are_bounded() {
    let world = World::new();
    let change = "/api/v1/repos/demo/changes/1";
    let edit = json!({ "body": "a long story ".repeat(4_000) });
    world.by("ann", Ask::post(&format!("{change}/edit"), edit)).ok();
    let token = format!("authorization: Bearer {}\r\n", world.token("rae"));
    let held: Vec<TcpStream> = (0..REQUESTS_PER_USER_MAX).map(|_| deaf(&world, change, &token)).collect();
    let until = |status: u16| {
        let began = Instant::now();
        loop {
            let got = world.by("rae", Ask::get(change));
            match got.status {
                same if same == status => return got,
                _ => assert!(began.elapsed() < PATIENCE, "it is answered with {}", got.status),
            }
        }
    };
    let refused = until(429);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.error()["why"], "as many requests of yours are under way as one person may have");
    assert_eq!(world.by("mia", Ask::get(change)).status, 200);
    drop(held);
    until(200);
}
