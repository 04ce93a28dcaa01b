//! Webhooks: verified before anything is stored, each id once, and one bell for all that come together (F15).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::BodyExt;
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use towpath_core::cell::CellId;
use towpath_core::gate::{Bell, GateEvent};
use towpath_core::ids::{GateId, RepoName, is_unprintable};
use towpath_core::turn::Intake;
use towpath_store::records::HookDelivery;
use towpath_store::{Tx, WriteError};

use super::Edge;
use super::call::{Call, blocking};
use super::error::{Answer, ApiError, Class};
use super::route::{broken_body, json};
use crate::auth::{hex, same};
use crate::doorbells::Ring;
use crate::engine::AnyIntake;

/// Bytes of a webhook. Source: GitHub sends at most 25 MB.
pub const BODY_BYTES_MAX: usize = 25 * 1024 * 1024;
/// Time for a webhook to arrive and be stored. Source: GitHub waits 10 s.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Ids of webhooks that are remembered, over all repos. Source: GitHub sends one again for three days at most; a busy
/// repo has a few thousand a day.
const REMEMBERED: u64 = 50_000;
/// Webhooks stored in one unit.
const BATCH_MAX: usize = 512;
/// Characters of an id.
const ID_CHARS_MAX: usize = 100;
/// What a sender says about a webhook, for people who look at it later.
const KIND_CHARS_MAX: usize = 60;

const SIGNATURE: &str = "x-hub-signature-256";
const DELIVERY: &str = "x-github-delivery";
const KIND: &str = "x-github-event";

/// Keys of webhooks, opened once, and webhooks on their way into the store.
#[derive(Default)]
pub struct Keys {
    known: Mutex<Known>,
    waiting: Mutex<HashMap<RepoName, Line>>,
}

/// What was opened and still holds.
#[derive(Default)]
struct Known {
    by_repo: HashMap<RepoName, Arc<Opened>>,
    /// How often something was forgotten. What was read before the last time may be what had to be forgotten.
    forgotten: u64,
}

/// What it takes to accept webhooks for one repo.
struct Opened {
    key: hmac::Key,
    gates: Vec<GateId>,
}

/// Webhooks of one repo: those that wait while a unit is being committed go together in the next.
#[derive(Default)]
struct Line {
    waiting: Vec<Waiting>,
    committing: bool,
}

struct Waiting {
    /// As the repo was when this one came: one that came earlier may be in the line later.
    opened: Arc<Opened>,
    delivery: HookDelivery,
    answer: oneshot::Sender<Result<(), WriteError>>,
}

/// The answer to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// Whether it rang: not for what is no news, like `ping`.
    pub rung: bool,
}

impl Keys {
    /// Forgets a repo's key and gates, after its secrets or settings have changed.
    pub fn forget(&self, repo: &RepoName) {
        lock(&self.known).forget(|known| drop(known.remove(repo)));
    }

    /// Forgets all keys, after a secret of the whole server has changed.
    pub fn forget_all(&self) {
        lock(&self.known).forget(HashMap::clear);
    }
}

impl Known {
    fn forget(&mut self, forget: impl FnOnce(&mut HashMap<RepoName, Arc<Opened>>)) {
        forget(&mut self.by_repo);
        self.forgotten += 1;
    }

    /// Remembers what was read when things had been `forgotten` so often, unless that is no longer so: it may have been
    /// read before the change for which they were forgotten, and nobody would forget it again.
    fn remember(&mut self, repo: &RepoName, opened: &Arc<Opened>, forgotten: u64) {
        if self.forgotten == forgotten {
            self.by_repo.insert(repo.clone(), opened.clone());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `POST /hooks/{repo}`
pub async fn take(call: Call, request: Request) -> Answer<Response> {
    let signature = signature(request.headers()).ok_or_else(unsigned)?;
    let (id, kind) =
        (text(request.headers(), DELIVERY, ID_CHARS_MAX), text(request.headers(), KIND, KIND_CHARS_MAX));
    // A path that names no repo is answered like one whose signature is wrong: nobody learns which repos there are.
    let repo: RepoName = call.param("repo")?.parse().map_err(|_| unsigned())?;
    let opened = opened(&call, &repo).await?.ok_or_else(unsigned)?;
    let tag = tag_of(&opened.key, request.into_body()).await?;
    if !same(&tag, &signature) {
        return Err(unsigned());
    }
    let kind = kind.unwrap_or_default();
    if kind == "ping" {
        return Ok(json(&Taken { rung: false }));
    }
    // Without an id of its own, a webhook is known by its signature, and so by its bytes.
    let id = id.unwrap_or_else(|| hex(&tag));
    // The body is not kept: a webhook only rings, and the truth is read where it is (DESIGN 2).
    let delivery = HookDelivery { repo, id, at: call.now(), body: kind.into_bytes() };
    let (answer, answered) = oneshot::channel();
    line_up(&call.edge, Waiting { opened, delivery, answer });
    let stopped = |_| ApiError::new(Class::Unavailable, "the server stops; send it again");
    answered.await.map_err(stopped)??;
    Ok(json(&Taken { rung: true }))
}

/// The signature that a body should have. The body passes by and is never held.
async fn tag_of(key: &hmac::Key, mut body: Body) -> Answer<Vec<u8>> {
    let mut context = hmac::Context::with_key(key);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_body(&error))?;
        if let Some(bytes) = frame.data_ref() {
            context.update(bytes);
        }
    }
    Ok(context.sign().as_ref().to_vec())
}

fn unsigned() -> ApiError {
    ApiError::new(Class::Unauthenticated, "the webhook is not signed with the secret of this repo")
        .hint("`X-Hub-Signature-256` is the HMAC-SHA256 of the body with the secret that `repo hook` names")
}

fn signature(headers: &HeaderMap) -> Option<Vec<u8>> {
    let hex = headers.get(SIGNATURE)?.to_str().ok()?.strip_prefix("sha256=")?;
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == 32)
}

fn text(headers: &HeaderMap, name: &str, chars_max: usize) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    let fit = !text.is_empty() && text.len() <= chars_max && !text.chars().any(is_unprintable);
    fit.then(|| text.to_owned())
}

async fn opened(call: &Call, repo: &RepoName) -> Answer<Option<Arc<Opened>>> {
    let forgotten = {
        let known = lock(&call.edge.hooks.known);
        if let Some(opened) = known.by_repo.get(repo) {
            return Ok(Some(opened.clone()));
        }
        known.forgotten
    };
    let (edge, name) = (call.edge.clone(), repo.clone());
    let opened = blocking(move || open(&edge, &name)).await?.map(Arc::new);
    // Only repos that exist are remembered: names that strangers make up take no memory.
    if let Some(opened) = &opened {
        lock(&call.edge.hooks.known).remember(repo, opened, forgotten);
    }
    Ok(opened)
}

fn open(edge: &Edge, repo: &RepoName) -> Answer<Option<Opened>> {
    let view = edge.shared.store.reader().snapshot()?;
    let Some(name) = view.repo(repo)?.and_then(|row| row.hook_secret) else { return Ok(None) };
    let Some(secret) = view.secret(Some(repo), &name)? else { return Ok(None) };
    let value = edge.shared.secrets.unseal(Some(repo), &name, &secret.sealed).map_err(ApiError::internal)?;
    let gates =
        super::records::settings(&view, repo)?.gates(repo).into_iter().map(|(gate, _)| gate).collect();
    Ok(Some(Opened { key: hmac::Key::new(hmac::HMAC_SHA256, &value), gates }))
}

/// Puts a webhook into its repo's line, and has the line committed if nobody does yet.
fn line_up(edge: &Arc<Edge>, waiting: Waiting) {
    let repo = waiting.delivery.repo.clone();
    let mut lines = lock(&edge.hooks.waiting);
    let line = lines.entry(repo.clone()).or_default();
    line.waiting.push(waiting);
    if !line.committing {
        line.committing = true;
        drop(lines);
        commit(edge.clone(), repo);
    }
}

/// Stores what waits in a line and rings once for all of it, unless what was rung for an earlier one is still unheard;
/// goes on with what came meanwhile.
fn commit(edge: Arc<Edge>, repo: RepoName) {
    let batch: Vec<Waiting> = {
        let mut lines = lock(&edge.hooks.waiting);
        let Some(line) = lines.get_mut(&repo) else { return };
        let count = line.waiting.len().min(BATCH_MAX);
        if count == 0 {
            lines.remove(&repo);
            return;
        }
        line.waiting.drain(..count).collect()
    };
    let doorbells = edge.shared.doorbells.clone();
    let rings: Vec<Ring> = gates_of(&batch).into_iter().filter_map(|gate| doorbells.ring(gate)).collect();
    let (deliveries, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|one| (one.delivery, one.answer)).unzip();
    let bell = Bell { forge_changed: true, ..Bell::default() };
    let bell_of = |ring: &Ring| {
        let intake = AnyIntake::Gate(Intake::Event(GateEvent::Bell(bell)));
        (CellId::Gate(ring.gate.clone()), intake)
    };
    let bells = rings.iter().map(bell_of).collect();
    let again = edge.clone();
    edge.shared.engine.deliver_with(
        bells,
        move |tx| store(tx, &deliveries),
        move |outcome| {
            if outcome.is_ok() {
                rings.into_iter().for_each(|ring| doorbells.is_durable(ring));
            }
            // Nothing new among them is no failure: they are known.
            let outcome = match outcome {
                Err(WriteError::Exists { .. }) => Ok(()),
                outcome => outcome,
            };
            for answer in answers {
                let _ = answer.send(outcome.clone());
            }
            commit(again, repo);
        },
    );
}

/// The gates that webhooks ring, each once.
fn gates_of(batch: &[Waiting]) -> BTreeSet<&GateId> {
    batch.iter().flat_map(|one| &one.opened.gates).collect()
}

/// Remembers webhooks. If all of them are known, the whole unit is given up, and its bells with it.
fn store(tx: &mut Tx<'_>, deliveries: &[HookDelivery]) -> Result<(), WriteError> {
    let mut new = false;
    for delivery in deliveries {
        new |= tx.add_hook_delivery(delivery)?;
    }
    tx.prune_hook_deliveries(REMEMBERED)?;
    match new {
        true => Ok(()),
        false => Err(WriteError::Exists { what: "this webhook".into() }),
    }
}

#[cfg(test)]
mod tests {
    use towpath_core::ids::Timestamp;

    use super::*;

    #[test]
    fn a_signature_is_32_bytes_in_hex() {
        let found = |value: &str| {
            let headers = HeaderMap::from_iter([(SIGNATURE.parse().unwrap(), value.parse().unwrap())]);
            signature(&headers).is_some()
        };
        assert!(found(&format!("sha256={}", "0a".repeat(32))));
        for wrong in
            ["", "sha256=", "sha1=00", &"0a".repeat(32), &format!("sha256={}", "0a".repeat(31)), "sha256=zz"]
        {
            assert!(!found(wrong), "{wrong}");
        }
        assert_eq!(signature(&HeaderMap::new()), None);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let repo = |name: &str| name.parse::<RepoName>().unwrap();
        let (web, other) = (repo("web"), repo("other"));
        let opened = || {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
            Arc::new(Opened { key, gates: Vec::new() })
        };
        let keys = Keys::default();
        let forgets: [&dyn Fn(); 2] = [&|| keys.forget(&web), &|| keys.forget_all()];
        for forget in forgets {
            let read_at = lock(&keys.known).forgotten;
            // An admin replaces the secret while a request holds what it read before.
            forget();
            lock(&keys.known).remember(&web, &opened(), read_at);
            assert!(lock(&keys.known).by_repo.is_empty());
            // The next one reads anew, and that is remembered until the next change.
            let read_at = lock(&keys.known).forgotten;
            lock(&keys.known).remember(&web, &opened(), read_at);
            lock(&keys.known).remember(&other, &opened(), read_at);
            assert!(lock(&keys.known).by_repo.contains_key(&web));
            forget();
            assert!(!lock(&keys.known).by_repo.contains_key(&web));
        }
        assert!(lock(&keys.known).by_repo.is_empty(), "all of them were forgotten at last");
    }

    #[test]
    fn a_gate_that_one_of_them_came_too_early_for_is_rung_for_the_others() {
        let gate = |branch: &str| GateId { repo: "web".parse().unwrap(), branch: branch.parse().unwrap() };
        let waiting = |branches: &[&str]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
            let gates = branches.iter().map(|branch| gate(branch)).collect();
            let delivery = HookDelivery {
                repo: "web".parse().unwrap(),
                id: "1".into(),
                at: Timestamp(0),
                body: Vec::new(),
            };
            Waiting { opened: Arc::new(Opened { key, gates }), delivery, answer: oneshot::channel().0 }
        };
        // `next` was watched while the second one was still on its way.
        let batch = [waiting(&["main", "next"]), waiting(&["main"])];
        assert_eq!(gates_of(&batch), BTreeSet::from([&gate("main"), &gate("next")]));
    }
}
