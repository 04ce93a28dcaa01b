//! The two programs behind `git fetch` and `git push`. They are prepared here and run by whoever has the connection.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::error::GitError;
use crate::repository::Repository;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// To fetch or clone.
    UploadPack,
    /// To push.
    ReceivePack,
}

/// Which half of a smart HTTP exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// `GET info/refs`: the list of refs, or of capabilities.
    Advertise,
    /// `POST`: one request on stdin, one answer on stdout.
    Serve,
}

/// How a service is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceOptions<'a> {
    /// The client's `Git-Protocol` header.
    pub protocol: Option<&'a str>,
    /// A folder with the hooks of a push; absent: no hooks.
    pub hooks: Option<&'a Path>,
    /// Further settings, as `name=value`.
    pub config: &'a [String],
    /// Variables that the hooks see.
    pub variables: &'a [(&'a str, OsString)],
}

/// Bytes of the `Git-Protocol` header; `version=2` has 9.
const PROTOCOL_BYTES_MAX: usize = 64;

impl Service {
    /// Its name in addresses and headers.
    pub fn name(self) -> &'static str {
        match self {
            Service::UploadPack => "git-upload-pack",
            Service::ReceivePack => "git-receive-pack",
        }
    }
}

impl Repository {
    /// The command for one exchange, with the cleared environment and no streams set. Its deadline is the caller's.
    ///
    /// # Errors
    /// `BadInput` for a protocol header of another form than `key=value:key=value`.
    pub fn service(
        &self,
        service: Service,
        exchange: Exchange,
        options: &ServiceOptions<'_>,
    ) -> Result<Command, GitError> {
        let mut call = self.call(match service {
            Service::UploadPack => "upload-pack",
            Service::ReceivePack => "receive-pack",
        });
        if let Some(hooks) = options.hooks {
            let mut setting = OsString::from("core.hooksPath=");
            setting.push(hooks);
            call = call.config(setting);
        }
        for setting in options.config {
            call = call.config(setting);
        }
        if let Some(protocol) = options.protocol {
            let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"=:-_".contains(&byte);
            if protocol.len() > PROTOCOL_BYTES_MAX || !protocol.bytes().all(ok) {
                let why = "it has other characters than letters, digits and `=:-_`".to_owned();
                return Err(GitError::BadInput { what: "the Git-Protocol header", why });
            }
            call = call.variable("GIT_PROTOCOL", protocol);
        }
        for (name, value) in options.variables {
            call = call.variable(name, value);
        }
        if service == Service::UploadPack {
            call = call.arg("--strict");
        }
        call = call.arg("--stateless-rpc");
        if exchange == Exchange::Advertise {
            call = call.arg("--http-backend-info-refs");
        }
        Ok(call.arg(self.path()).prepare().command)
    }
}
