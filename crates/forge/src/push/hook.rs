//! What git starts as a hook: it carries git's question to the server and the answer back. It decides nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::packet::{Packet, line, text_line};

/// Where the hook finds the server.
pub(super) const SOCKET_VARIABLE: &str = "TOWPATH_HOOK_SOCKET";
/// What proves that it belongs to a push of ours.
pub(super) const TOKEN_VARIABLE: &str = "TOWPATH_HOOK_TOKEN";
/// Bytes of a question or an answer: fifty refs with names of the greatest length, and what is said about them.
pub(super) const MESSAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time for the server's answer. Looking at a large push takes seconds; each of the server's calls has its own deadline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HookName {
    /// Before anything is taken.
    PreReceive,
    /// In place of moving refs.
    ProcReceive,
}

/// One question of a hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HookCall {
    pub token: String,
    pub hook: HookName,
    pub updates: Vec<HookUpdate>,
    /// Git's folder of objects that are not accepted yet.
    pub quarantine: Option<String>,
}

/// One ref of a push, as git hands it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HookUpdate {
    pub old: String,
    pub new: String,
    pub name: String,
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct HookReply {
    pub accepted: bool,
    /// Lines for the person who pushes.
    pub say: Vec<String>,
    /// What became of each ref.
    #[serde(default)]
    pub results: Vec<HookResult>,
}

/// What became of one ref.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HookResult {
    /// It is where the push wants it.
    Moved { name: String },
    /// It became another ref.
    Became { name: String, refname: String, new: String },
    /// It did not happen.
    Refused { name: String, why: String },
}

/// Runs a hook: `name` as git calls it; streams and variables are the process's own. The exit code is git's answer.
pub fn run_hook(name: &str) -> ExitCode {
    let ran = match name {
        "pre-receive" => pre_receive(&mut io::stdin().lock()),
        "proc-receive" => proc_receive(&mut io::stdin().lock(), &mut io::stdout().lock()),
        _ => Err(io::Error::other(format!("there is no hook `{name}` here"))),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the server could not look at this push: {error}; nothing was taken, try again");
            ExitCode::FAILURE
        }
    }
}

fn pre_receive(input: &mut dyn Read) -> io::Result<bool> {
    let mut text = String::new();
    input.take(MESSAGE_BYTES_MAX).read_to_string(&mut text)?;
    let updates = text.lines().map(update).collect::<io::Result<Vec<_>>>()?;
    let quarantine = std::env::var("GIT_QUARANTINE_PATH").ok();
    let reply = ask(HookName::PreReceive, updates, quarantine)?;
    reply.say.iter().for_each(|line| eprintln!("{line}"));
    Ok(reply.accepted)
}

/// Source: "proc-receive" in git's Documentation/githooks.
fn proc_receive(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<bool> {
    while let Some(Packet::Data(_)) = Packet::read(input)? {}
    output.write_all(&line(b"version=1\n"))?;
    output.write_all(b"0000")?;
    output.flush()?;
    let mut updates = Vec::new();
    while let Some(Packet::Data(data)) = Packet::read(input)? {
        let text = String::from_utf8(data).map_err(|_| io::Error::other("a ref's name is not UTF-8"))?;
        updates.push(update(text.strip_suffix('\n').unwrap_or(&text))?);
    }
    let names: Vec<String> = updates.iter().map(|update| update.name.clone()).collect();
    let reply = ask(HookName::ProcReceive, updates, None)?;
    reply.say.iter().for_each(|line| eprintln!("{line}"));
    let results = match reply.accepted {
        true => reply.results,
        false => {
            let why = reply.say.first().cloned().unwrap_or_default();
            names.into_iter().map(|name| HookResult::Refused { name, why: why.clone() }).collect()
        }
    };
    results.iter().try_for_each(|result| output.write_all(&result_lines(result)))?;
    output.write_all(b"0000")?;
    output.flush()?;
    Ok(true)
}

fn result_lines(result: &HookResult) -> Vec<u8> {
    match result {
        HookResult::Moved { name } => text_line(&format!("ok {name}")),
        HookResult::Became { name, refname, new } => [
            text_line(&format!("ok {name}")),
            text_line(&format!("option refname {refname}")),
            text_line(&format!("option new-oid {new}")),
        ]
        .concat(),
        HookResult::Refused { name, why } => text_line(&format!("ng {name} {}", brief(why))),
    }
}

/// Characters of a reason in git's own line about a ref; the whole of it is said before.
const STATUS_CHARS_MAX: usize = 120;

/// As much of a reason as a line has room for, in whole words.
fn brief(why: &str) -> String {
    if why.chars().count() <= STATUS_CHARS_MAX {
        return why.to_owned();
    }
    let part: String = why.chars().take(STATUS_CHARS_MAX).collect();
    let words = part.rsplit_once(' ').map_or(part.as_str(), |(words, _)| words);
    format!("{}…", words.trim_end_matches(|end: char| !end.is_alphanumeric() && end != '`'))
}

fn update(line: &str) -> io::Result<HookUpdate> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(old), Some(new), Some(name)) => {
            Ok(HookUpdate { old: old.to_owned(), new: new.to_owned(), name: name.to_owned() })
        }
        _ => Err(io::Error::other("git's question has a form that is not known")),
    }
}

fn ask(hook: HookName, updates: Vec<HookUpdate>, quarantine: Option<String>) -> io::Result<HookReply> {
    let variable =
        |name: &str| std::env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")));
    let socket = PathBuf::from(variable(SOCKET_VARIABLE)?);
    let token = variable(TOKEN_VARIABLE)?.to_string_lossy().into_owned();
    exchange(&socket, &HookCall { token, hook, updates, quarantine })
}

fn exchange(socket: &Path, call: &HookCall) -> io::Result<HookReply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    send(&mut stream, call)?;
    receive(&stream)
}

/// One message is one line of JSON.
pub(super) fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// Reads one message, bounded.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<T> {
    let mut text = Vec::new();
    BufReader::new(stream.take(MESSAGE_BYTES_MAX)).read_until(b'\n', &mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_of_git_has_no_room_for_is_cut_between_words() {
        let short = "`main` is gated";
        assert_eq!(brief(short), short);
        let long = "this branch is gated, so nobody pushes to it directly: a change lands there once it is tested and approved. \
                    Propose the commit instead";
        let cut = "this branch is gated, so nobody pushes to it directly: a change lands there once it is tested and approved. Propose the…";
        assert_eq!(brief(long), cut);
        assert_eq!(brief(&"ä".repeat(200)), format!("{}…", "ä".repeat(120)));
    }
}
