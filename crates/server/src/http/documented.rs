//! What the document says of routes that take or answer no JSON of a type of ours: bytes, forms, headers.

use schemars::JsonSchema;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Bytes of this media type.
    Bytes(&'static str),
    /// A form of a page, with these fields beside the one that shows whose it is.
    Form(&'static [&'static str]),
}

/// A header that a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// Whether a request without it is refused.
    pub required: bool,
    /// What it says.
    pub says: &'static str,
}

/// What git asks of `info/refs`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
pub struct InfoRefs {
    /// What it is about to do.
    service: GitService,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
enum GitService {
    /// To fetch.
    #[schemars(rename = "git-upload-pack")]
    UploadPack,
    /// To push.
    #[schemars(rename = "git-receive-pack")]
    ReceivePack,
}

/// What whoever listens to changes hears.
pub const CHANGES: &str = "`gate` (`repo/branch`), `run` (`repo/branch/12`), `environment` (`repo/name`) and `pool`, where \
    something of it has changed; `all` after a gap: look at everything again; `alive` every 5 s";

/// What whoever follows a log hears.
pub const FOLLOWED: &str = "`log` with `{text, job, attempt, next}`: what is new, of which job and attempt, and where the \
    next bytes begin; `alive` every 5 s; at last `end`, or `error` with `{message}` where the log cannot be read. A stream \
    that ends without either was cut off: ask for that job's attempt from that byte on";

/// What git gets from `info/refs`.
pub const ADVERTISEMENTS: [&str; 2] =
    ["application/x-git-upload-pack-advertisement", "application/x-git-receive-pack-advertisement"];

/// What a webhook has.
pub const WEBHOOK: [Header; 3] = [
    Header {
        name: "X-Hub-Signature-256",
        required: true,
        says: "`sha256=` and the HMAC-SHA256 of the body with the repo's secret, in hex",
    },
    Header {
        name: "X-GitHub-Delivery",
        required: false,
        says: "its id; a second one of the same id rings nothing",
    },
    Header { name: "X-GitHub-Event", required: false, says: "what it is about; `ping` rings nothing" },
];
