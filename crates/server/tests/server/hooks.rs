//! F15: webhooks are believed by their signature alone.

use std::sync::mpsc::channel;

use ring::hmac;
use serde_json::json;
use towpath_server::auth::hex;
use towpath_store::{Load, Tx};

use crate::client::{Ask, Got, hang_up};
use crate::world::World;

const SECRET: &str = "hook secret of demo";

fn signed(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body).as_ref()))
}

fn with_hooks() -> World {
    let world = World::new();
    for (repo, secret) in [("demo", SECRET), ("other", "hook secret of other")] {
        let value = json!({ "value": secret });
        world.ada(Ask::put(&format!("/api/v1/repos/{repo}/secrets/hook"), value)).ok();
        world.ada(Ask::put(&format!("/api/v1/repos/{repo}/hook"), json!({ "secret": "hook" }))).ok();
    }
    world
}

fn hook(world: &World, signature: Option<&str>, id: &str, body: &[u8]) -> Got {
    let ask = Ask::new("POST", "/hooks/demo")
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .header("content-type", "application/json")
        .body(body);
    let ask = signature.into_iter().fold(ask, |ask, signature| ask.header("x-hub-signature-256", signature));
    world.send(&ask)
}

fn stored(world: &World) -> usize {
    world.shared.store.reader().snapshot().unwrap().hook_deliveries(100).unwrap().len()
}

#[test]
fn f15_webhook_forged() {
    let world = with_hooks();
    let body = br#"{"ref":"refs/heads/main"}"#;
    let forged = [
        None,
        Some(signed("wrong", body)),
        Some(signed(SECRET, b"other bytes")),
        Some(signed("hook secret of other", body)),
        Some("sha256=".into()),
        Some("sha1=0000".into()),
    ];
    for signature in forged {
        assert_eq!(hook(&world, signature.as_deref(), "1", body).status, 401, "{signature:?}");
    }
    let absent =
        Ask::new("POST", "/hooks/absent").header("x-hub-signature-256", &signed(SECRET, body)).body(*body);
    assert_eq!(world.send(&absent).status, 401);
    let large = Ask::new("POST", "/hooks/demo")
        .header("x-hub-signature-256", &signed(SECRET, body))
        .header("content-length", &(25 * 1024 * 1024 + 1).to_string());
    assert_eq!(world.send(&large).status, 413);
    assert_eq!(stored(&world), 0);
}

#[test]
fn a_signed_webhook_rings_once_for_each_id() {
    let world = with_hooks();
    let body = br#"{"ref":"refs/heads/main"}"#;
    let branch = || world.ada(Ask::get("/api/v1/repos/demo/branches/main")).ok();
    let rung = || branch()["flags"]["forge"]["set_at"].as_i64();
    let before = rung();
    let right = signed(SECRET, body);
    assert_eq!(hook(&world, Some(&right), "a", body).ok(), json!({ "rung": true }));
    world.until(|_| rung() > before);
    assert_eq!(hook(&world, Some(&right), "a", body).status, 200);
    assert_eq!(hook(&world, Some(&right), "b", body).status, 200);
    assert_eq!(stored(&world), 2);
    // The secret is another one from now on.
    world.ada(Ask::put("/api/v1/repos/demo/secrets/hook", json!({ "value": "a new secret" }))).ok();
    assert_eq!(hook(&world, Some(&right), "c", body).status, 401);
    assert_eq!(hook(&world, Some(&signed("a new secret", body)), "c", body).status, 200);
}

/// Whoever replaces a leaked secret may hang up before the answer: it counts from the commit on nevertheless.
#[test]
fn a_replaced_secret_counts_although_its_sender_has_hung_up() {
    let world = with_hooks();
    let accepts = |secret: &str| hook(&world, Some(&signed(secret, b"{}")), secret, b"{}").status == 200;
    let cut_off = |number: usize| {
        assert!(accepts(SECRET), "and it is remembered from now on");
        let (next, leaves) = (format!("secret {number}"), world.leaves());
        let put = Ask::put("/api/v1/repos/demo/secrets/hook", json!({ "value": next }));
        // What it writes waits until nobody waits for it.
        let (go_on, held) = channel::<()>();
        let hold = move |_: &mut Tx<'_>| {
            let _ = held.recv();
            Ok(())
        };
        world.shared.store.writer().submit(Load::default(), hold, drop);
        let sent = put.token(world.token("ada")).start(world.address);
        world.leaves();
        hang_up(sent);
        drop(go_on);
        world.shared.store.writer().write(|_| Ok(())).unwrap();
        // It may have hung up before there was anything to write.
        let written = world.leaves() > leaves;
        assert!(!written || !accepts(SECRET) && accepts(&next));
        written
    };
    assert!((0..100).any(cut_off), "none got so far");
}

#[test]
fn many_webhooks_at_once_are_all_stored() {
    let world = with_hooks();
    let right = signed(SECRET, b"{}");
    let send = &|sender: usize| {
        for number in 0..5 {
            let got = hook(&world, Some(&right), &format!("{sender}-{number}"), b"{}");
            assert_eq!(got.status, 200);
        }
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8).map(|sender| scope.spawn(move || send(sender))).collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
    assert_eq!(stored(&world), 40);
}
