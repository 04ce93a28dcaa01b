//! What a person's commands remember: servers and the tokens for them, in one file that nobody else may read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command::file_failure;
use crate::failure::{Exit, Failure};

/// Former tokens in files of their own. Whoever has as many makes servers by a machine, which can clear up behind itself.
const FORMER_MAX: u32 = 100;

/// Known servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    /// The server that is meant where nothing else names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Address to token.
    #[serde(default)]
    pub tokens: BTreeMap<String, String>,
}

impl ClientSettings {
    /// What is remembered; nothing where there is no file.
    ///
    /// # Errors
    /// The file is damaged, or others may read it.
    pub fn load() -> Result<ClientSettings, Failure> {
        let path = path()?;
        let found = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ClientSettings::default()),
            other => other.map_err(|error| file_failure("read", &path, &error))?,
        };
        if found.mode() & 0o077 != 0 {
            return Err(Failure::new(Exit::Denied, format!("others may read `{}`", path.display()))
                .why("it holds tokens")
                .hint(format!("`chmod 600 {}`", path.display())));
        }
        let text = fs::read_to_string(&path).map_err(|error| file_failure("read", &path, &error))?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(Exit::Usage, format!("`{}` cannot be read", path.display()))
                .why(error.to_string())
                .hint("mend it, or remove it and log in again: `towpath token login`")
        })
    }

    /// Remembers. The file is replaced in one step.
    pub fn save(&self) -> Result<PathBuf, Failure> {
        let path = path()?;
        let folder = path.parent().expect("invariant: the path has a folder");
        let failed = |error: io::Error| file_failure("write", &path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let text = serde_json::to_string_pretty(self).expect("invariant: settings are plain data");
        replace(&path, &format!("{text}\n")).map_err(failed)?;
        Ok(path)
    }
}

/// Keeps a token that is remembered no longer in a file of its own, as `towpath token login` reads one.
///
/// # Errors
/// It cannot be written, or there are [`FORMER_MAX`] already.
pub fn keep_former(token: &str) -> Result<PathBuf, Failure> {
    let settings = path()?;
    for number in 1..=FORMER_MAX {
        let path = settings.with_file_name(format!("former-{number}.token"));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let failed = |error: io::Error| file_failure("write", &path, &error);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
            Ok(mut file) => {
                writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed)?;
                return Ok(path);
            }
        }
    }
    let folder = settings.parent().unwrap_or(&settings).display();
    Err(Failure::new(Exit::Conflict, format!("there are {FORMER_MAX} former tokens in `{folder}`"))
        .why("the token that is remembered now would be lost")
        .hint(format!("remove those that are of no use: `ls {folder}/former-*.token`")))
}

/// Replaces a file that only we may read.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config"))).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no folder for your settings")
            .why("neither XDG_CONFIG_HOME nor HOME is set")
            .hint("set TOWPATH_URL and TOWPATH_TOKEN, or XDG_CONFIG_HOME")
    })?;
    Ok(folder.join("towpath").join("servers.json"))
}
