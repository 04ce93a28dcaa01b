//! The page of a branch.

use askama::Template;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use towpath_core::ids::GateId;
use towpath_core::policy::Role;

use super::overview::ALERTS_SHOWN;
use super::{Frame, crumb, render, text};
use crate::http::api::Nothing;
use crate::http::api::alerts::Alerts;
use crate::http::api::branches::{self, BranchView, FlagView};
use crate::http::api::change_views::ChangeLine;
use crate::http::api::changes;
use crate::http::api::environments::{self, EnvironmentView};
use crate::http::api::repos;
use crate::http::call::Call;
use crate::http::error::Answer;
use crate::http::links;
use crate::http::login::redirect;

/// Landed changes that are shown.
const LANDED_SHOWN: usize = 10;

#[derive(Template)]
#[template(path = "branch.html")]
struct BranchPage {
    frame: Frame,
    branch: BranchView,
    url: String,
    /// Changes, each with when it landed; the newest landing first.
    landed: Vec<(ChangeLine, i64)>,
    environments: Vec<EnvironmentView>,
    /// May freeze.
    maintains: bool,
    /// May accept a foreign push.
    administers: bool,
    /// May have it looked at again.
    writes: bool,
}

impl BranchPage {
    fn flags(&self) -> [(&'static str, &'static str, &FlagView); 3] {
        let flags = &self.branch.flags;
        [
            ("forge", "read the forge again", &flags.forge),
            ("runs", "look at the runs again", &flags.runs),
            ("state", "decide again", &flags.state),
        ]
    }

    fn change_url(&self, number: &u64) -> String {
        format!("/{}/changes/{number}", self.branch.repo)
    }

    fn deploys(&self) -> bool {
        let deploy = &self.branch.deploy;
        deploy.wanted.is_some() || deploy.running.is_some() || deploy.newest.is_some()
    }

    /// What the people who look after the branch have to know now.
    fn news(&self) -> Alerts {
        self.branch.told().news(ALERTS_SHOWN)
    }
}

/// `GET /{repo}`: what a person types who knows the repo's name and no more.
pub async fn go(call: Call, _request: Request) -> Answer<Response> {
    let (repo, settings) = (call.repo()?, repos::show(call.clone(), Nothing {}).await?);
    Ok(redirect(&links::branch(&GateId { repo, branch: settings.default_branch.parse()? })))
}

/// `GET /{repo}/branches/{branch}`
pub async fn show(call: Call, _request: Request) -> Answer<Response> {
    let branch = branches::show(call.clone(), Nothing {}).await?;
    let landed = changes::landed(&call, call.gate()?, LANDED_SHOWN).await?;
    let environments = environments::list(call.clone(), Nothing {}).await?;
    let url = links::branch(&call.gate()?);
    let crumbs = vec![crumb(format!("{} / {}", branch.repo, branch.branch), url.clone())];
    let role = call.role.unwrap_or(Role::Reader);
    let page = BranchPage {
        frame: Frame::within(&call, crumbs)?,
        url,
        landed,
        environments,
        branch,
        maintains: role >= Role::Maintainer,
        administers: role >= Role::Admin,
        writes: role >= Role::Author,
    };
    render(StatusCode::OK, &page)
}
