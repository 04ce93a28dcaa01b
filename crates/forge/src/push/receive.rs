//! A push over HTTP, from the first byte to the verdict that git's client prints.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use towpath_core::ids::ChangeNumber;
use towpath_git::{
    Exchange, GitError, ODD_MODES, Repository, Service, ServiceOptions, Serving, ServingInput,
};

use super::desk::{HookDesk, HookToken};
use super::http::{
    COPY_BYTES, HIDE, Head, REQUEST_DEADLINE, Reply, Request, admits, answer_text, decoded, known_protocol,
};
use super::packet::{Packet, band};
use super::report::{refusal, shown};
use super::request::PushHead;
use super::rules::OWN_REFS;
use super::scan::{PACK_LIMITS, PackScan};
use super::session::{PushContext, RefusedPush, Session};
use super::unpack::explained;
use crate::builtin::BuiltIn;
use crate::error::{Failure, ForgeError};

/// Bytes of git's answer: a line for each ref and what the hooks say.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a push did, for the server's bells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Changes that were opened or updated.
    pub changes: Vec<ChangeNumber>,
}

/// Answers `git-receive-pack`. `token` is made of fresh random bytes for this call.
///
/// # Errors
/// Only if the client went away; what it pushed may have been taken.
pub fn answer_receive_pack(
    forge: &BuiltIn,
    desk: &HookDesk,
    (context, token): (PushContext, HookToken),
    request: Request<'_>,
    reply: &mut dyn Reply,
) -> io::Result<Received> {
    if !admits(forge, context.by, Service::ReceivePack, reply)? {
        return Ok(Received::default());
    }
    if request.content_type != Some("application/x-git-receive-pack-request") {
        answer_text(reply, 415, "the content type is application/x-git-receive-pack-request")?;
        return Ok(Received::default());
    }
    let Some(body) = decoded(request.content_encoding, request.body, PACK_LIMITS.pack_bytes_max) else {
        answer_text(reply, 415, "a body is plain or gzip")?;
        return Ok(Received::default());
    };
    let mut body = Timed { reader: body, since: Instant::now(), taken: Arc::default() };
    let taken = body.taken.clone();
    let head = match PushHead::read(&mut body) {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
        Err(error) => {
            answer_text(reply, 400, &format!("this is no push: {error}"))?;
            return Ok(Received::default());
        }
    };
    if head.commands.is_empty() {
        // The client's way to ask whether its password is right before it sends much.
        reply.begin(&RESULT)?;
        return Ok(Received::default());
    }
    let session = match Session::open(forge, context, &head) {
        Ok(session) => Arc::new(session),
        Err(refused) => return refuse(&head, &refused, body, reply),
    };
    let registered = desk.register(token, session.clone());
    let variables = registered.variables();
    let config = match settings(forge.repository()) {
        Ok(config) => config,
        Err(error) => {
            let refused = RefusedPush { texts: vec![None; head.commands.len()], failure: error.into() };
            return refuse(&head, &refused, body, reply);
        }
    };
    let options = ServiceOptions {
        protocol: known_protocol(request.protocol),
        hooks: Some(registered.hooks()),
        config: &config,
        variables: &variables,
    };
    let serving = forge.repository().serve(Service::ReceivePack, Exchange::Serve, &options, REQUEST_DEADLINE);
    let answer = match serving {
        Ok(serving) => {
            let answer = exchange(serving, &head, body)
                .inspect_err(|_| session.count_upload(taken.load(Ordering::Relaxed)))?;
            without_places(answer, &head, (forge.repository(), registered.hooks()))
        }
        Err(error) => broken_answer(&head, &error.to_string()),
    };
    drop(registered);
    session.count_upload(taken.load(Ordering::Relaxed));
    reply.begin(&RESULT)?;
    reply.write_all(&answer)?;
    reply.flush()?;
    Ok(Received { changes: session.changes() })
}

/// Settings of a push, beside those of the repository.
fn settings(repository: &Repository) -> Result<Vec<String>, GitError> {
    let mut settings = vec![
        format!("receive.maxInputSize={}", PACK_LIMITS.pack_bytes_max),
        // Every push goes through index-pack, which streams; unpack-objects holds objects in memory.
        "receive.unpackLimit=1".to_owned(),
        "transfer.unpackLimit=1".to_owned(),
        // Every ref goes through the hook; it sends plain ones back.
        "receive.procReceiveRefs=refs".to_owned(),
        // What git wants to know to be whole it asks of branches and tags alone, here and in the quarantine, which has the
        // repository for its alternate: over a damaged record or revision of one change it would refuse every push.
        "core.alternateRefsPrefixes=refs/heads refs/tags".to_owned(),
    ];
    // Not the branches that are left out of the list of refs: of those, the judge says more than git would.
    settings.extend(OWN_REFS.map(|name| format!("{HIDE}{name}")));
    if !repository.tolerates(ODD_MODES)? {
        settings.push(format!("receive.fsck.{ODD_MODES}=error"));
    }
    Ok(settings)
}

const RESULT: Head = Head { status: 200, content_type: "application/x-git-receive-pack-result" };

/// Answers a push that git never sees. The client sends all it has before it listens, so the rest is read and dropped.
fn refuse(
    head: &PushHead,
    refused: &RefusedPush,
    mut body: Timed<'_>,
    reply: &mut dyn Reply,
) -> io::Result<Received> {
    io::copy(&mut body, &mut io::sink())?;
    reply.begin(&RESULT)?;
    reply.write_all(&refusal(head, "ok", &[refusal_text(&refused.failure)], &refused.texts))?;
    reply.flush()?;
    Ok(Received::default())
}

/// A failure as a line for the person who pushes.
pub(super) fn refusal_text(failure: &Failure) -> String {
    match failure {
        Failure::Refused(refusal) => format!("refused: {}", shown(&refusal.why)),
        Failure::Failed(error @ ForgeError::Unsynced { .. }) => {
            format!("the disk did not confirm this push, so do not rely on it: {}", shown(&error.to_string()))
        }
        Failure::Failed(error) => {
            format!("the server could not look at this push: {}; try again", shown(&error.to_string()))
        }
    }
}

/// What became of the request's body.
enum Fed {
    /// All of it reached git.
    Whole,
    /// The pack is not taken; the rest was read and dropped.
    Refused(String),
    /// The client stopped in the middle.
    Gone(io::Error),
}

/// Feeds git with one hand and listens with the other.
fn exchange(mut serving: Serving, head: &PushHead, body: Timed<'_>) -> io::Result<Vec<u8>> {
    let input = serving.take_input();
    let (fed, answer) = thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(input, head, body));
        let answer = listen(serving);
        (feeder.join().unwrap_or_else(|_| Fed::Gone(io::Error::other("the copying thread broke"))), answer)
    });
    match (fed, answer) {
        (Fed::Gone(error), _) => Err(error),
        (Fed::Refused(why), _) => Ok(broken_answer(head, &why)),
        (Fed::Whole, Ok(answer)) => Ok(explained(answer)),
        (Fed::Whole, Err(error)) => Ok(broken_answer(head, &error.to_string())),
    }
}

fn broken_answer(head: &PushHead, why: &str) -> Vec<u8> {
    let said = [format!("refused: {why}; nothing was taken")];
    refusal(head, why, &said, &[])
}

/// Collects git's answer, which is small.
fn listen(mut serving: Serving) -> Result<Vec<u8>, GitError> {
    let mut answer = Vec::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match serving.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if answer.len() + count <= ANSWER_BYTES_MAX => {
                answer.extend_from_slice(&buffer[..count])
            }
            Ok(_) => {}
            Err(error) => {
                serving.stop();
                return Err(error);
            }
        }
    }
    serving.finish().map(|_| answer)
}

/// An answer without where the repository and the hooks are, in what git says to the person. Git cuts its words anywhere, so
/// they are put together first.
fn without_places(answer: Vec<u8>, head: &PushHead, (repository, hooks): (&Repository, &Path)) -> Vec<u8> {
    if !head.can("side-band-64k") {
        return answer;
    }
    let (mut report, mut said, mut fatal) = (Vec::new(), Vec::new(), Vec::new());
    let mut packets = &answer[..];
    // Nothing follows a packet that cannot be read.
    while let Ok(Some(Packet::Data(data))) = Packet::read(&mut packets) {
        match data.split_first() {
            Some((1, bytes)) => report.extend_from_slice(bytes),
            Some((2, bytes)) => said.extend_from_slice(bytes),
            Some((3, bytes)) => fatal.extend_from_slice(bytes),
            _ => {}
        }
    }
    let hooks = hooks.to_string_lossy();
    let words = |bytes: &[u8]| {
        let words = repository.without_place(&String::from_utf8_lossy(bytes));
        words.replace(&*hooks, "hooks").into_bytes()
    };
    let mut answer = [band(2, &words(&said)), band(1, &report), band(3, &words(&fatal))].concat();
    answer.extend(b"0000");
    answer
}

/// Copies the body to git, measuring the pack on its way. Dropping git's input in the middle makes git clear up.
fn feed(input: Option<ServingInput>, head: &PushHead, mut body: Timed<'_>) -> Fed {
    let Some(mut input) = input else { return Fed::Gone(io::ErrorKind::BrokenPipe.into()) };
    // A git that does not listen any more says why on its other side.
    let mut listens = input.write_all(&head.raw).is_ok();
    let mut scan = head.brings_pack().then(|| PackScan::new(PACK_LIMITS));
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return refused(input, body, error.to_string());
            }
            Err(error) => return Fed::Gone(error),
        };
        if let Some(Err(why)) = scan.as_mut().map(|scan| scan.take(&buffer[..count])) {
            return refused(input, body, why);
        }
        listens = listens && input.write_all(&buffer[..count]).is_ok();
    }
    match scan.map(|scan| scan.finish()) {
        Some(Err(why)) => refused(input, body, why),
        _ => Fed::Whole,
    }
}

fn refused(input: ServingInput, mut body: Timed<'_>, why: String) -> Fed {
    drop(input);
    match io::copy(&mut body, &mut io::sink()) {
        Ok(_) => Fed::Refused(why),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Fed::Refused(why),
        Err(error) => Fed::Gone(error),
    }
}

/// A body that is counted, and must have ended when the time of the request is over, however slowly it drips.
struct Timed<'a> {
    reader: Box<dyn Read + Send + 'a>,
    since: Instant,
    taken: Arc<AtomicU64>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.elapsed() > REQUEST_DEADLINE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let count = self.reader.read(buffer)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
