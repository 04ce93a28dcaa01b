//! Smart HTTP without a framework: three endpoints, and no file of a repository is ever handed out (trust S5, B17).
//!
//! The server authenticates, and calls one of the `answer_…` functions from a thread that may block. Its reader must give up
//! ([`std::io::ErrorKind::TimedOut`]) when the client stays silent for [`IDLE_SECONDS_MAX`]; its writer likewise.
//! Every answer is `Cache-Control: no-cache`.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;
use towpath_core::ids::{RepoName, UserId};
use towpath_core::policy::Role;
use towpath_git::{Exchange, GitError, Service, ServiceOptions, Serving, ServingInput};

use super::packet::line;
use super::rules::{Pusher, hidden};
use crate::builtin::BuiltIn;
use crate::error::{Done, Failure};

/// Seconds without a byte after which a connection is closed (B12).
pub const IDLE_SECONDS_MAX: u64 = 60;
/// Time for one whole request. A first clone of a large repository over a slow line takes minutes.
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_secs(3600);
/// Time for the list of refs.
const ADVERTISE_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of a fetch request after expansion: 600,000 wants and haves of 50 bytes.
const FETCH_REQUEST_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Git's setting for refs that a push neither hears of nor moves.
pub(super) const HIDE: &str = "receive.hideRefs=";
/// Bytes copied at once.
pub(super) const COPY_BYTES: usize = 64 * 1024;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET <repo>.git/info/refs?service=…`
    InfoRefs(Service),
    /// `POST <repo>.git/git-upload-pack`
    UploadPack,
    /// `POST <repo>.git/git-receive-pack`
    ReceivePack,
}

/// An endpoint of a repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The repo's name; it may not exist.
    pub repo: RepoName,
    /// Which endpoint.
    pub endpoint: Endpoint,
}

/// Reads a request line. `path` and `query` are as sent, not decoded: nothing that needs decoding is a repo's name.
///
/// `None` is "not found", for everything but the three endpoints.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Option<Route> {
    let (repo, rest) = path.strip_prefix('/')?.split_once('/')?;
    let repo: RepoName = repo.strip_suffix(".git")?.parse().ok()?;
    let endpoint = match (method, rest, query) {
        ("GET", "info/refs", Some("service=git-upload-pack")) => Endpoint::InfoRefs(Service::UploadPack),
        ("GET", "info/refs", Some("service=git-receive-pack")) => Endpoint::InfoRefs(Service::ReceivePack),
        ("POST", "git-upload-pack", None | Some("")) => Endpoint::UploadPack,
        ("POST", "git-receive-pack", None | Some("")) => Endpoint::ReceivePack,
        _ => return None,
    };
    Some(Route { repo, endpoint })
}

/// What stands in front of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
}

/// An answer in the making.
pub trait Reply: Write {
    /// Sends the head; called once, before the first byte.
    fn begin(&mut self, head: &Head) -> io::Result<()>;
}

/// The parts of a request that matter.
pub struct Request<'a> {
    /// The header `Git-Protocol`.
    pub protocol: Option<&'a str>,
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The header `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// The body, chunks joined.
    pub body: &'a mut (dyn Read + Send),
}

/// The versions of git's protocol that a client may ask for. Other words are not handed to git, as it would not know them.
pub(super) fn known_protocol(header: Option<&str>) -> Option<&'static str> {
    let known = ["version=2", "version=1", "version=0"];
    let words = header.unwrap_or_default();
    known.into_iter().find(|version| words.split(':').any(|word| word == *version))
}

/// Answers with a text. Git shows plain text of an error to the person.
pub(super) fn answer_text(reply: &mut dyn Reply, status: u16, text: &str) -> io::Result<()> {
    reply.begin(&Head { status, content_type: "text/plain; charset=utf-8" })?;
    reply.write_all(text.as_bytes())?;
    reply.write_all(b"\n")
}

/// Whether a person may use a service. Answers, and is false, if not: 404 where the repo may not be known, 403 otherwise.
pub(super) fn admits(
    forge: &BuiltIn,
    by: UserId,
    service: Service,
    reply: &mut dyn Reply,
) -> io::Result<bool> {
    let (need, what) = match service {
        Service::UploadPack => (Role::Reader, "fetching"),
        Service::ReceivePack => (Role::Author, "pushing"),
    };
    match forge.require(by, need, what) {
        Ok(_) => return Ok(true),
        Err(Failure::Refused(refusal)) => {
            let found = forge.member(by).is_ok();
            answer_text(reply, if found { 403 } else { 404 }, &refusal.why)?;
        }
        Err(Failure::Failed(error)) => answer_text(reply, 503, &error.to_string())?,
    }
    Ok(false)
}

/// Answers `info/refs`.
///
/// # Errors
/// Only if the client went away.
pub fn answer_info_refs(
    forge: &BuiltIn,
    by: UserId,
    (service, protocol): (Service, Option<&str>),
    reply: &mut dyn Reply,
) -> io::Result<()> {
    if !admits(forge, by, service, reply)? {
        return Ok(());
    }
    let protocol = known_protocol(protocol);
    let config = match config_of_list(forge, by, service) {
        Ok(config) => config,
        Err(failure) => return answer_text(reply, 503, &failure.to_string()),
    };
    let options = ServiceOptions { protocol, config: &config, ..ServiceOptions::default() };
    let content_type = match service {
        Service::UploadPack => "application/x-git-upload-pack-advertisement",
        Service::ReceivePack => "application/x-git-receive-pack-advertisement",
    };
    let mut first = Vec::new();
    // Version 2 of the protocol says itself what it is.
    let version_2 = protocol == Some("version=2");
    if !(version_2 && service == Service::UploadPack) {
        first = line(format!("# service={}\n", service.name()).as_bytes());
        first.extend(b"0000");
    }
    let mut serving =
        match forge.repository().serve(service, Exchange::Advertise, &options, ADVERTISE_DEADLINE) {
            Ok(serving) => serving,
            Err(error) => return answer_text(reply, 503, &error.to_string()),
        };
    drop(serving.take_input());
    send(serving, reply, &Head { status: 200, content_type }, &first)
}

/// Settings of git for its list of refs, beside those of the repository.
fn config_of_list(forge: &BuiltIn, by: UserId, service: Service) -> Done<Vec<String>> {
    if service == Service::UploadPack {
        return Ok(Vec::new());
    }
    let (role, policy) = (forge.member(by)?.role, forge.records().policy()?);
    let hidden = hidden(Pusher { user: by, role, policy: &policy }, &forge.branches_of(by)?);
    Ok(hidden.iter().map(|name| format!("{HIDE}{name}")).collect())
}

/// Answers `git-upload-pack`.
///
/// # Errors
/// Only if the client went away.
pub fn answer_upload_pack(
    forge: &BuiltIn,
    by: UserId,
    request: Request<'_>,
    reply: &mut dyn Reply,
) -> io::Result<()> {
    if !admits(forge, by, Service::UploadPack, reply)? {
        return Ok(());
    }
    if request.content_type != Some("application/x-git-upload-pack-request") {
        return answer_text(reply, 415, "the content type is application/x-git-upload-pack-request");
    }
    let Some(mut body) = decoded(request.content_encoding, request.body, FETCH_REQUEST_BYTES_MAX) else {
        return answer_text(reply, 415, "a body is plain or gzip");
    };
    let options = ServiceOptions { protocol: known_protocol(request.protocol), ..ServiceOptions::default() };
    let serving = forge.repository().serve(Service::UploadPack, Exchange::Serve, &options, REQUEST_DEADLINE);
    let mut serving = match serving {
        Ok(serving) => serving,
        Err(error) => return answer_text(reply, 503, &error.to_string()),
    };
    let input = serving.take_input();
    let head = Head { status: 200, content_type: "application/x-git-upload-pack-result" };
    thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(input, &mut *body));
        let sent = send(serving, reply, &head, &[]);
        // A feeder that met the end of its client, or of its patience, has nothing more to say than the missing answer.
        let _ = feeder.join();
        sent
    })
}

fn feed(input: Option<ServingInput>, body: &mut dyn Read) -> io::Result<()> {
    let mut input = input.ok_or(io::ErrorKind::BrokenPipe)?;
    io::copy(body, &mut input)?;
    Ok(())
}

/// Copies git's answer to the client as it comes.
fn send(mut serving: Serving, reply: &mut dyn Reply, head: &Head, first: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut begun = false;
    loop {
        let count = match serving.read(&mut buffer) {
            Ok(count) => count,
            Err(error) => {
                serving.stop();
                return answer_broken(reply, begun, &error);
            }
        };
        if !begun && count > 0 {
            reply.begin(head)?;
            reply.write_all(first)?;
            begun = true;
        }
        if count == 0 {
            break;
        }
        if let Err(error) = reply.write_all(&buffer[..count]) {
            serving.stop();
            return Err(error);
        }
    }
    match serving.finish() {
        Ok((_, _)) if begun => reply.flush(),
        Ok((_, said)) => answer_text(reply, 400, &format!("git could not answer this request: {said}")),
        Err(error) => answer_broken(reply, begun, &error),
    }
}

fn answer_broken(reply: &mut dyn Reply, begun: bool, error: &GitError) -> io::Result<()> {
    match begun {
        true => Err(io::Error::other(error.to_string())),
        false => answer_text(reply, 503, &error.to_string()),
    }
}

/// The body without its encoding, bounded after expansion; `None` for an encoding that is not taken.
pub(super) fn decoded<'a>(
    encoding: Option<&str>,
    body: &'a mut (dyn Read + Send),
    bytes_max: u64,
) -> Option<Box<dyn Read + Send + 'a>> {
    match encoding {
        None | Some("identity" | "") => Some(Box::new(Bounded { reader: body, left: bytes_max })),
        Some("gzip" | "x-gzip") => Some(Box::new(Bounded { reader: GzDecoder::new(body), left: bytes_max })),
        Some(_) => None,
    }
}

/// A reader that ends in an error, not in silence, when there is more than allowed.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too large")),
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn b17_only_three_endpoints_exist() {
        let found = |method, path, query| route(method, path, query).map(|route| route.endpoint);
        let upload = Endpoint::InfoRefs(Service::UploadPack);
        assert_eq!(found("GET", "/demo.git/info/refs", Some("service=git-upload-pack")), Some(upload));
        assert_eq!(found("POST", "/demo.git/git-upload-pack", None), Some(Endpoint::UploadPack));
        assert_eq!(found("POST", "/demo.git/git-receive-pack", None), Some(Endpoint::ReceivePack));
        for path in [
            "/demo.git/config",
            "/demo.git/HEAD",
            "/demo.git/info/refs",
            "/demo.git/objects/info/packs",
            "/demo.git/objects/pack/pack-1.pack",
            "/demo.git/hooks/pre-receive",
            "/%2e%2e/x.git/info/refs",
            "/demo.git/../x.git",
            "/demo.git/../x.git/info/refs",
            "/../x.git/info/refs",
            "/demo.git//info/refs",
            "//demo.git/info/refs",
            "/demo.git/info%2frefs",
            "/demo/info/refs",
            "/.git/info/refs",
            "/Demo.git/info/refs",
            "/demo.git/git-upload-archive",
        ] {
            for method in ["GET", "POST", "PUT", "HEAD"] {
                assert_eq!(found(method, path, None), None, "{method} {path}");
            }
        }
        assert_eq!(found("GET", "/demo.git/info/refs", Some("service=git-upload-archive")), None);
        assert_eq!(found("GET", "/demo.git/../x.git/info/refs", Some("service=git-upload-pack")), None);
        assert_eq!(found("GET", "/%2e%2e/x.git/info/refs", Some("service=git-upload-pack")), None);
    }

    #[test]
    fn a_gzip_bomb_is_bounded_after_expansion() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 1_000_000]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 5_000);
        let mut body = &bomb[..];
        let mut reader = decoded(Some("gzip"), &mut body, 100_000).unwrap();
        let mut taken = Vec::new();
        assert_eq!(reader.read_to_end(&mut taken).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(taken.len() <= 100_000);
        assert!(decoded(Some("br"), &mut io::empty(), 1).is_none());
    }
}
