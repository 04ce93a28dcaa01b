//! Which server and which repo a command is about.

use towpath_core::address::without_secrets;
use towpath_git::Checkout;
use towpath_server::http::origin::has_fit_port;

use super::Client;
use super::settings::ClientSettings;
use crate::command::{here, own_git};
use crate::failure::{Exit, Failure};
use crate::terminal::inline;

/// The remote that `towpath repo import` adds.
pub const REMOTE: &str = "towpath";
/// Names the server, before anything else.
const URL_VARIABLE: &str = "TOWPATH_URL";
/// The token for that server, and for no other.
const TOKEN_VARIABLE: &str = "TOWPATH_TOKEN";

/// Where a remote leads: a server and a repo of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePlace {
    /// The server, without a slash at its end.
    pub base: String,
    /// The repo.
    pub repo: String,
}

impl RemotePlace {
    /// Takes `http://host:port/repo.git` apart. A login in it is git's: it is neither used nor kept here.
    pub fn parse(url: &str) -> Option<RemotePlace> {
        let (scheme, rest) =
            url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let (host, name) = place.trim_end_matches('/').rsplit_once('/')?;
        let repo = name.strip_suffix(".git").unwrap_or(name);
        let base = format!("{scheme}://{host}");
        (!host.is_empty() && !repo.is_empty()).then(|| RemotePlace { base, repo: repo.into() })
    }
}

/// Says which repo a command is about
#[derive(Debug, Clone, clap::Args)]
pub struct RepoArg {
    /// The repo, where it is not that of the remote `towpath`
    #[arg(long, short = 'R', value_name = "REPO", global = true)]
    pub repo: Option<String>,
}

/// A server and a repo of it.
pub struct Place {
    /// Asks the server.
    pub client: Client,
    /// The repo.
    pub repo: String,
}

impl Place {
    /// The place that the words of a command, the environment, the clone, and what is remembered come to.
    pub fn find(argument: &RepoArg) -> Result<Place, Failure> {
        let remote = remote()?;
        let client = client_for(remote.as_ref())?;
        let repo = match (&argument.repo, remote) {
            (Some(named), _) => named.clone(),
            (None, Some(remote)) if remote.base == client.base() => remote.repo,
            (None, remote) => return Err(unknown_repo(remote.as_ref(), client.base())),
        };
        Ok(Place { client, repo })
    }

    /// The segments of a path below the repo.
    pub fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        ["repos", self.repo.as_str()].into_iter().chain(rest.iter().copied()).collect()
    }
}

/// A client of the server that is meant here.
pub fn client() -> Result<Client, Failure> {
    client_for(remote()?.as_ref())
}

/// What to do where the clone, if this is one, is of no repo of the server.
fn unknown_repo(remote: Option<&RemotePlace>, server: &str) -> Failure {
    let failure = Failure::new(Exit::Usage, "it is not known which repo is meant");
    match remote {
        None => failure
            .why(format!("this folder is in no clone with a remote `{REMOTE}`"))
            .hint("go into the clone, or name the repo: `--repo NAME`; `towpath repo list` lists them"),
        Some(remote) => failure
            .why(format!(
                "the clone's remote `{REMOTE}` leads to {}, and {URL_VARIABLE} names {server}",
                inline(&remote.base)
            ))
            .hint(format!(
                "`unset {URL_VARIABLE}`, or name the repo: `--repo NAME`; `towpath repo list` lists them"
            )),
    }
}

fn client_for(remote: Option<&RemotePlace>) -> Result<Client, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (url, token) = (variable(URL_VARIABLE), variable(TOKEN_VARIABLE));
    if let Some(url) = url {
        let base = checked(&url)?;
        let token = match token {
            Some(token) => Some(token),
            None => ClientSettings::load()?.tokens.remove(&base),
        };
        return Client::new(base, token);
    }
    if token.is_some() {
        // Else a clone's configuration would say who gets it.
        return Err(Failure::new(Exit::Usage, format!("{TOKEN_VARIABLE} is set, but {URL_VARIABLE} is not"))
            .why("a token is sent only to the server that it is for")
            .hint(format!("set {URL_VARIABLE} to that server's address")));
    }
    let mut settings = ClientSettings::load()?;
    let base = remote.map(|remote| remote.base.clone()).or(settings.default.take()).ok_or_else(|| {
        Failure::new(Exit::Usage, "it is not known which server is meant")
            .why("this folder is in no clone with a remote `towpath`, and no server is remembered")
            .hint(format!("`towpath init` makes one here; `towpath token login URL` remembers one; or set {URL_VARIABLE}"))
    })?;
    let base = checked(&base)?;
    let token = settings.tokens.remove(&base);
    Client::new(base, token)
}

/// The clone's remote of ours, if there is one.
fn remote() -> Result<Option<RemotePlace>, Failure> {
    let Ok(git) = own_git() else { return Ok(None) };
    let Some(checkout) = Checkout::find(&git, &here()?)? else { return Ok(None) };
    let remotes = checkout.remotes()?;
    Ok(remotes.iter().find(|remote| remote.name == REMOTE).and_then(|remote| RemotePlace::parse(&remote.url)))
}

/// A server's address without a slash at its end. A token goes in plain text only where nobody can listen.
pub fn checked(url: &str) -> Result<String, Failure> {
    let base = url.trim_end_matches('/').to_owned();
    let refuse = |why: &str, hint: &str| {
        Err(Failure::new(
            Exit::Usage,
            format!("`{}` cannot be used as a server's address", without_secrets(&base)),
        )
        .why(why)
        .hint(hint))
    };
    let Some((scheme, host)) = base.split_once("://") else {
        return refuse("it has no scheme", "write it as https://towpath.example.org");
    };
    if host.contains(['@', '?', '#']) || base.chars().any(|c| !c.is_ascii_graphic()) {
        return refuse(
            "it has more than a host and a path",
            "tokens are kept by `towpath token login`, never in an address",
        );
    }
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(['/', ':']).next().unwrap_or_default(),
    };
    if !has_fit_port(host.split('/').next().unwrap_or_default()) {
        return refuse("its port is no number from 1 to 65535", "write it as http://127.0.0.1:7700");
    }
    let loopback =
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" if !name.is_empty() => Ok(base),
        "http" if loopback => Ok(base),
        "http" => refuse(
            "without TLS anybody on the way reads the token",
            "use https, or a tunnel to a loopback address",
        ),
        _ => refuse("its scheme is neither https nor http", "write it as https://towpath.example.org"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_taken_apart() {
        let place = |url: &str| RemotePlace::parse(url).map(|place| (place.base, place.repo));
        let expected = Some(("http://127.0.0.1:7777".to_owned(), "web".to_owned()));
        assert_eq!(place("http://127.0.0.1:7777/web.git"), expected);
        assert_eq!(place("http://ann:tp_secret@127.0.0.1:7777/web.git"), expected);
        assert_eq!(place("git@example.org:web.git"), None);
        assert_eq!(place("http://web.git"), None);
    }

    #[test]
    fn a_clone_of_another_server_is_named_with_the_variable_that_goes_before_it() {
        let remote = RemotePlace { base: "http://127.0.0.1:1".into(), repo: "web".into() };
        let said = unknown_repo(Some(&remote), "http://127.0.0.1:2").to_string();
        assert!(
            said.contains("leads to http://127.0.0.1:1, and TOWPATH_URL names http://127.0.0.1:2"),
            "{said}"
        );
        assert!(unknown_repo(None, "http://127.0.0.1:2").to_string().contains("in no clone"));
    }

    #[test]
    fn tokens_never_travel_in_plain_text() {
        let ok = |url: &str| checked(url).is_ok();
        let good = ["https://t.example.org/", "http://127.0.0.1:7777", "http://[::1]:80", "http://localhost"];
        assert!(good.iter().all(|url| ok(url)));
        let bad = [
            "http://t.example.org",
            "http://127.0.0.1.example.org",
            "https://u:p@h",
            "ftp://h",
            "h",
            "https://",
            "http://localhost:y",
            "http://127.0.0.1:0",
            "https://h:70000/x",
        ];
        assert_eq!(bad.iter().filter(|url| ok(url)).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn an_address_that_is_refused_is_shown_without_its_login() {
        for url in
            ["https://u:tp_secret@h", "u:tp_secret@h", "https://h/?token=tp_secret", "ftp://tp_secret@h"]
        {
            let refused = checked(url).expect_err("it has no place for a login").to_string();
            assert!(refused.contains("…") && !refused.contains("tp_secret"), "{refused}");
        }
    }
}
