//! `towpath secret ...`: values that jobs get, and which jobs those are. A value goes in and never comes out.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::command::answer::{self, done, text, time};
use crate::command::{file_failure, secret_input};
use crate::failure::{Exit, Failure};
use crate::remote::Request;
use crate::remote::place::{Place, RepoArg, client};
use crate::terminal::Terminal;
use crate::terminal::table::Cell;

/// Bytes of a secret. A key file with its chain has some 10 KB; a request has at most 1 MiB.
const SECRET_BYTES_MAX: u64 = 256 * 1024;

/// List, set and remove secrets
#[derive(Debug, clap::Args)]
pub struct SecretArgs {
    #[command(flatten)]
    repo: RepoArg,
    /// Of the whole server instead of one repo
    #[arg(long, global = true, conflicts_with = "repo")]
    server: bool,
    #[command(subcommand)]
    verb: SecretVerb,
}

#[derive(Debug, clap::Subcommand)]
enum SecretVerb {
    /// List secrets and who may have them; never their values
    List,
    /// Set a secret; the value is read from standard input. The line end after a value of one line is no part of it
    Set {
        /// The name that a job's `secrets:` asks for
        name: String,
        /// Read the value from this file, every byte as it is
        #[arg(long, conflicts_with = "keep")]
        file: Option<PathBuf>,
        /// Keep the value and only say who may have it
        #[arg(long, requires = "policy")]
        keep: bool,
        /// Who may have it, as JSON: {"level":"landed","branches":["main"],"jobs":["publish"]}. Left out: who has it by now,
        /// and with a new one every job of what has landed
        #[arg(long, value_name = "JSON")]
        policy: Option<String>,
    },
    /// Remove a secret
    Remove {
        /// Its name
        name: String,
    },
}

pub fn run(arguments: &SecretArgs, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let (client, repo) = match arguments.server {
        true => (client()?, None),
        false => {
            let place = Place::find(&arguments.repo)?;
            (place.client, Some(place.repo))
        }
    };
    let path = |name: Option<&'_ str>| -> Vec<String> {
        let place = repo.iter().flat_map(|repo| ["repos".to_owned(), repo.clone()]);
        place.chain(["secrets".to_owned()]).chain(name.map(str::to_owned)).collect()
    };
    let request = |make: &dyn Fn(&[&str]) -> Request, name: Option<&str>| {
        let path = path(name);
        make(&path.iter().map(String::as_str).collect::<Vec<_>>())
    };
    match &arguments.verb {
        SecretVerb::List => {
            answer::list(&client.ask(&request(&Request::get, None))?, "secrets", terminal, row)
        }
        SecretVerb::Remove { name } => done(&client, &request(&Request::delete, Some(name)), terminal),
        SecretVerb::Set { name, file, keep, policy } => {
            let policy = policy.as_deref().map(parse_policy).transpose()?;
            let value = if *keep { None } else { Some(value(file.as_ref())?) };
            let body = match value {
                None => json!({ "policy": policy }),
                Some(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => json!({ "value": text, "policy": policy }),
                    Err(error) => {
                        json!({ "value_base64": STANDARD.encode(error.as_bytes()), "policy": policy })
                    }
                },
            };
            done(&client, &request(&|path| Request::put(path, body.clone()), Some(name)), terminal)
        }
    }
}

fn parse_policy(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(Exit::Usage, "the policy is not JSON")
            .why(error.to_string())
            .hint(r#"write it as {"level":"landed","jobs":["publish"]}"#)
    })
}

fn value(file: Option<&PathBuf>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file {
        Some(path) => {
            let failed = |error: std::io::Error| file_failure("read", path, &error);
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?
        }
        None if std::io::stdin().is_terminal() => return Ok(secret_input("secret")?.into_bytes()),
        None => std::io::stdin().lock().take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?,
    };
    if read as u64 > SECRET_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("the secret has more than {SECRET_BYTES_MAX} bytes"))
            .hint("keep what is large as a file, encrypted, and its key as the secret"));
    }
    if file.is_none() {
        trim_line_end(&mut bytes);
    }
    match bytes.is_empty() {
        true => Err(Failure::new(Exit::Usage, "the secret is empty")
            .hint("give it on standard input, or by `--file`")),
        false => Ok(bytes),
    }
}

/// Leaves out the line end that `echo` adds, as `gh secret set` does. What has several lines keeps its last line end, as an
/// OpenSSH key is of no use without.
fn trim_line_end(bytes: &mut Vec<u8>) {
    let line = bytes.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if let Some(length) = line.filter(|line| !line.contains(&b'\n')).map(<[u8]>::len) {
        bytes.truncate(length);
    }
}

fn row(secret: &Value) -> Vec<Cell> {
    vec![
        text(secret, "secret").into(),
        secret["policy"].to_string().into(),
        text(secret, "updated_by").into(),
        time(secret, "updated_at").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_of_echo_is_no_part_of_a_secret_and_that_of_a_key_is() {
        let trimmed = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            trim_line_end(&mut bytes);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(trimmed("x\n"), "x");
        assert_eq!(trimmed("x\r\n"), "x");
        assert_eq!(trimmed("x"), "x");
        assert_eq!(trimmed(" x \r"), " x \r");
        assert_eq!(trimmed("\n"), "");
        assert_eq!(trimmed("-----BEGIN-----\nAAAA\n"), "-----BEGIN-----\nAAAA\n");
    }
}
