//! What changes, as it changes: server-sent events that only ring. Whoever hears one looks again (DESIGN 2).

use std::collections::BTreeSet;

use axum::extract::Request;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use towpath_core::cell::CellId;
use towpath_core::ids::RepoName;

use crate::engine::Changed;
use crate::http::call::{Call, no_repo};
use crate::http::error::Answer;
use crate::http::route::from_query;
use crate::http::stream::{Gone, Outlet, RECHECK_EVERY, event, pipe, respond};

/// What to listen for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Only this repo; absent: all that one may read.
    #[serde(default)]
    pub repo: Option<String>,
}

/// `GET /api/v1/events`: `gate` (`repo/branch`), `run` (`repo/branch/12`), `pool`; `all` after a gap: look at everything
/// again; `alive` every 5 s.
pub async fn listen(call: Call, request: Request) -> Answer<Response> {
    let input: Listen = from_query(&request)?;
    let only = match &input.repo {
        None => None,
        Some(name) => Some(name.parse::<RepoName>().map_err(|_| no_repo(name))?),
    };
    let seen = readable(&call, only.as_ref()).await?;
    if let Some(only) = only.as_ref().filter(|only| !seen.contains(only)) {
        return Err(no_repo(only.as_str()));
    }
    let place = call.edge.streams.enter(call.person()?.user)?;
    let changes = call.shared().engine.changes();
    let (outlet, body) = pipe();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = outlet.closed() => {}
            () = call.edge.closed() => {}
            _ = tell(&call, &outlet, (only, seen), changes) => {}
        }
    });
    Ok(respond("text/event-stream", body))
}

/// The repos that the person may read now.
async fn readable(call: &Call, only: Option<&RepoName>) -> Answer<BTreeSet<RepoName>> {
    let person = call.person()?.clone();
    let only = only.cloned();
    call.read(move |view| match only {
        Some(repo) => Ok(person.role_on(view, &repo)?.map(|_| repo).into_iter().collect()),
        None => Ok(person.repos(view)?.into_iter().map(|(repo, _)| repo).collect()),
    })
    .await
}

async fn tell(
    call: &Call,
    outlet: &Outlet,
    (only, mut seen): (Option<RepoName>, BTreeSet<RepoName>),
    mut changes: Receiver<Changed>,
) -> Result<(), Gone> {
    let mut every = tokio::time::interval(RECHECK_EVERY);
    loop {
        tokio::select! {
            biased;
            // First, as token, login and rights may be gone by now: whoever has lost them hears nothing more (F11).
            _ = every.tick() => {
                if !call.still_allowed().await {
                    return Ok(());
                }
                seen = readable(call, only.as_ref()).await.map_err(|_| Gone)?;
                if only.is_some() && seen.is_empty() {
                    return Ok(());
                }
                outlet.send(event("alive", "")).await?;
            }
            changed = changes.recv() => match changed {
                Ok(changed) => {
                    if let Some(piece) = of_cell(&changed.cell, &seen) {
                        outlet.send(piece).await?;
                    }
                }
                Err(RecvError::Lagged(_)) => outlet.send(event("all", "")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

fn of_cell(cell: &CellId, seen: &BTreeSet<RepoName>) -> Option<axum::body::Bytes> {
    match cell {
        CellId::Gate(gate) => seen.contains(&gate.repo).then(|| event("gate", &gate.to_string())),
        CellId::Run(run) => seen.contains(&run.gate.repo).then(|| event("run", &run.to_string())),
        CellId::Pool => Some(event("pool", "")),
        CellId::Environment(environment) => {
            seen.contains(&environment.repo).then(|| event("environment", &environment.to_string()))
        }
    }
}
