//! Asking a server: requests in, JSON or a failure out.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::{Method, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::failure::{Exit, Failure};

pub mod place;
pub mod settings;

/// Time to be connected.
const CONNECT: Duration = Duration::from_secs(10);
/// Time until an answer begins, and for each pause in it: a machine that vanishes ends no connection. An import takes longer.
const ANSWER: Duration = Duration::from_secs(60);
/// As [`ANSWER`], where a whole repository is read. The server gives up after an hour.
const ANSWER_LONG: Duration = Duration::from_secs(3700);
/// Bytes of one answer that are read: a run of 10,000 jobs has some 10 MB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of one event of a stream, with room for those of other versions: a piece of a log has 64 KiB, and JSON can make six of one
/// byte.
const EVENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A server and who asks it.
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// The body of an error, as the server writes it. What a newer server adds is not looked at.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    what: String,
    why: String,
    #[serde(default)]
    hint: String,
    exit_code: u8,
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    patience: Duration,
}

impl Request {
    fn new(method: Method, segments: &[&str]) -> Request {
        let path = segments.iter().map(|segment| format!("/{}", escaped(segment))).collect::<String>();
        let path = format!("/api/v1{path}");
        Request { method, path, query: Vec::new(), body: None, patience: ANSWER }
    }

    /// Reads; the path is given by its segments, in plain.
    pub fn get(segments: &[&str]) -> Request {
        Request::new(Method::GET, segments)
    }

    /// Does something.
    pub fn post(segments: &[&str], body: Value) -> Request {
        Request { body: Some(body), ..Request::new(Method::POST, segments) }
    }

    /// Makes something be so.
    pub fn put(segments: &[&str], body: Value) -> Request {
        Request { body: Some(body), ..Request::new(Method::PUT, segments) }
    }

    /// Takes something away.
    pub fn delete(segments: &[&str]) -> Request {
        Request::new(Method::DELETE, segments)
    }

    /// Narrows what is read; an absent value is left out.
    pub fn with(mut self, key: &'static str, value: Option<impl ToString>) -> Request {
        self.query.extend(value.map(|value| (key, value.to_string())));
        self
    }

    /// Waits as long as an import takes.
    pub fn long(self) -> Request {
        self.patient(ANSWER_LONG)
    }

    /// Lets the server be silent for so long.
    pub fn patient(self, patience: Duration) -> Request {
        Request { patience, ..self }
    }

    fn address(&self, base: &str) -> String {
        let query: Vec<String> =
            self.query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        match query.is_empty() {
            true => format!("{base}{}", self.path),
            false => format!("{base}{}?{}", self.path, query.join("&")),
        }
    }
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: String, token: Option<String>) -> Result<Client, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the token to whatever it names.
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")));
        let config = match base.starts_with("https:") {
            true => config.tls_config(tls()?),
            false => config,
        };
        Ok(Client { agent: config.build().into(), base, token })
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token that it is asked with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether a server answers there at all.
    pub fn is_up(&self) -> bool {
        let answer = self.agent.get(format!("{}/healthz", self.base)).call();
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Asks and takes the answer as it is.
    pub fn ask(&self, request: &Request) -> Result<Value, Failure> {
        let bytes = self.bytes(request)?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(&error.to_string()))
    }

    /// Asks for something that is not JSON.
    pub fn bytes(&self, request: &Request) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let answer = self.send(request)?;
        let mut reader = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        reader.read_to_end(&mut body).map_err(|error| self.broken(&error.into()))?;
        Ok(body)
    }

    /// Follows a stream of server-sent events, until `each` has had enough or it ends. A server that is told to end lets
    /// all streams end in order: what `each` is told, and not the end, says whether that was all.
    pub fn follow(
        &self,
        request: &Request,
        mut each: impl FnMut(&str, &str) -> Result<Next, Failure>,
    ) -> Result<(), Failure> {
        let answer = self.send(request)?;
        let mut reader = BufReader::new(answer.into_body().into_reader());
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            let read = reader.by_ref().take(EVENT_BYTES_MAX).read_line(&mut line);
            if read.map_err(|error| self.broken(&error.into()))? == 0 {
                return Ok(());
            }
            match line.trim_end_matches(['\r', '\n']).split_once(':') {
                None if !data.is_empty() || !kind.is_empty() => {
                    if each(&kind, &data)? == Next::Enough {
                        return Ok(());
                    }
                    (kind, data) = (String::new(), String::new());
                }
                Some(("event", value)) => kind = value.trim_start().to_owned(),
                Some(("data", value)) => data.push_str(value.strip_prefix(' ').unwrap_or(value)),
                // Comments, which keep the line open, and fields that nobody asked for.
                _ => {}
            }
        }
    }

    fn send(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let mut builder =
            ureq::http::Request::builder().method(request.method.clone()).uri(request.address(&self.base));
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        if request.body.is_some() {
            builder = builder.header("content-type", "application/json");
        }
        let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
        let asked = builder.body(body).map_err(|error| {
            Failure::new(Exit::Usage, "the request cannot be made").why(error.to_string())
        })?;
        let patience = Some(request.patience);
        let configured = self.agent.configure_request(asked).timeout_recv_response(patience);
        let answer = self
            .agent
            .run(configured.timeout_per_read(patience).build())
            .map_err(|error| self.broken(&error))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.refused(answer)),
        }
    }

    fn refused(&self, answer: Response<Body>) -> Failure {
        let status = answer.status();
        let mut body = Vec::new();
        let read = answer.into_body().into_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body);
        let parsed = read.ok().and_then(|_| serde_json::from_slice::<ErrorBody>(&body).ok());
        let Some(error) = parsed else {
            return self.strange(&format!("HTTP {status}"));
        };
        let exit = Exit::of_code(error.exit_code).unwrap_or(Exit::Unavailable);
        let (what, why) = match error.what.is_empty() {
            true => (error.why, None),
            false => (error.what, Some(error.why)),
        };
        let failure = Failure::new(exit, what);
        let failure = why.into_iter().fold(failure, Failure::why);
        match (error.hint.is_empty(), exit) {
            (false, _) => failure.hint(error.hint),
            (true, Exit::Denied) if self.token.is_none() => failure
                .hint(format!("no token for {} is known here: `towpath token login` keeps one", self.base)),
            (true, _) => failure,
        }
    }

    fn broken(&self, error: &ureq::Error) -> Failure {
        let what = format!("the server at {} does not answer", self.base);
        let failure = match error {
            ureq::Error::Timeout(_) => return Failure::new(Exit::TimedOut, what).why(error.to_string()),
            _ => Failure::new(Exit::Unavailable, what).why(error.to_string()),
        };
        failure.hint("is `towpath serve` running there? TOWPATH_URL names another server")
    }

    fn strange(&self, why: &str) -> Failure {
        Failure::new(Exit::Unavailable, format!("{} does not answer as a Towpath server does", self.base))
            .why(why)
            .hint("look whether the address is right; a proxy may stand in between")
    }
}

/// Whether a stream is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is.
    More,
    /// It is not.
    Enough,
}

/// The machine's certificates, checked by ring.
fn tls() -> Result<TlsConfig, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<Certificate<'static>> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if roots.is_empty() {
        let why = found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
        return Err(Failure::new(Exit::Usage, "no certificates of this machine can be read")
            .why(why)
            .hint("install them (`apt install ca-certificates`), or set SSL_CERT_FILE"));
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build())
}

/// A text as one segment or value of an address (RFC 3986, unreserved characters).
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_segments_and_queries_leave_out_what_is_absent() {
        let request = Request::get(&["repos", "web", "runs", "release/1.0"])
            .with("below", None::<u32>)
            .with("label", Some("stacked PR"));
        let expected = "http://h/api/v1/repos/web/runs/release%2F1.0?label=stacked%20PR";
        assert_eq!(request.address("http://h"), expected);
    }
}
