//! The overview: every repo that one may read, with its branches.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use towpath_core::ids::GateId;

use super::{Frame, render, text};
use crate::http::api::alerts::{self, Alerts};
use crate::http::api::branches::{self, BranchView};
use crate::http::api::{Nothing, repos};
use crate::http::call::Call;
use crate::http::error::{Answer, ApiError, Class};
use crate::http::links;

/// Alerts of a branch that are shown at once.
pub const ALERTS_SHOWN: usize = 5;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    repos: Vec<RepoPart>,
}

struct RepoPart {
    repo: String,
    role: String,
    clone_url: String,
    branches: Vec<BranchPart>,
}

struct BranchPart {
    name: String,
    url: String,
    /// What has to be known now.
    alerts: Alerts,
    /// Absent before the branch's gate was read for the first time.
    view: Option<BranchView>,
}

impl BranchPart {
    /// Flags that are up.
    fn flags(view: &BranchView) -> Vec<&'static str> {
        let flags = &view.flags;
        let all = [(flags.forge.set, "forge"), (flags.runs.set, "runs"), (flags.state.set, "state")];
        all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
    }
}

/// `GET /`
pub async fn show(call: Call, _request: Request) -> Answer<Response> {
    let mut parts = Vec::new();
    for repo in repos::list(call.clone(), Nothing {}).await? {
        let mut branches = Vec::new();
        for branch in repo.branches {
            branches.push(branch_part(&call, &repo.repo, branch).await?);
        }
        parts.push(RepoPart { repo: repo.repo, role: repo.role, clone_url: repo.clone_url, branches });
    }
    render(StatusCode::OK, &Overview { frame: Frame::of(&call), repos: parts })
}

async fn branch_part(call: &Call, repo: &str, branch: String) -> Answer<BranchPart> {
    let id = GateId { repo: repo.parse()?, branch: branch.parse()? };
    let there = call.with_param("repo", repo).with_param("branch", &branch);
    let view = match branches::show(there, Nothing {}).await {
        Ok(view) => Some(view),
        Err(ApiError { class: Class::NotFound, .. }) => None,
        Err(error) => return Err(error),
    };
    let told = match &view {
        Some(view) => view.told(),
        None => alerts::of(call, &id, BTreeSet::new()).await?,
    };
    let alerts = told.news(ALERTS_SHOWN);
    Ok(BranchPart { name: branch, url: links::branch(&id), alerts, view })
}
