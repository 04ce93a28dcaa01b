//! The route table. Everything that can be asked of a server stands here, with who may ask it.

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use towpath_core::policy::Role;

use super::api::*;
use super::call::Call;
use super::error::Answer;
use super::route::{DEADLINE, DEADLINE_LONG, Face, Needs, Route, handler};
use super::stream::respond;
use super::{documented, git, hooks, login, openapi};
use crate::auth::token::TokenVerb;

const READER: Needs = Needs::Repo(Role::Reader);
const AUTHOR: Needs = Needs::Repo(Role::Author);
const MAINTAINER: Needs = Needs::Repo(Role::Maintainer);
const ADMIN: Needs = Needs::Repo(Role::Admin);
const OWNER: Needs = Needs::OwnerOr(Role::Maintainer);

const TEXT: &str = "text/plain";
const EVENTS: &str = "text/event-stream";

fn get(path: &'static str) -> (Method, &'static str) {
    (Method::GET, path)
}

fn post(path: &'static str) -> (Method, &'static str) {
    (Method::POST, path)
}

fn put(path: &'static str) -> (Method, &'static str) {
    (Method::PUT, path)
}

fn delete(path: &'static str) -> (Method, &'static str) {
    (Method::DELETE, path)
}

/// Every route.
pub fn table() -> Vec<Route> {
    let parts = [
        server(),
        retention_routes(),
        accounts(),
        secret_routes(),
        repo_routes(),
        branch_routes(),
        environment_routes(),
        change_routes(),
        change_act_routes(),
        run_routes(),
        audit_routes(),
        restore_routes(),
        git_routes(),
        session_routes(),
        crate::pages::routes(),
    ];
    parts.into_iter().flatten().collect()
}

fn server() -> Vec<Route> {
    vec![
        Route::raw(
            get("/healthz"),
            Needs::Public,
            "Say that the process answers",
            TEXT,
            handler(health::alive),
        ),
        Route::raw(
            get("/readyz"),
            Needs::Public,
            "Say whether it can do its work",
            TEXT,
            handler(health::ready),
        ),
        Route::raw(
            get("/metrics"),
            Needs::ServerAdmin,
            "Show metrics for Prometheus",
            TEXT,
            handler(health::metrics),
        ),
        Route::raw(
            get("/openapi.json"),
            Needs::Public,
            "Show this API as OpenAPI 3.1",
            "application/json",
            handler(openapi::show),
        ),
        Route::raw(
            get("/schema/pipeline.json"),
            Needs::Public,
            "Show the JSON Schema of towpath.yaml",
            "application/json",
            handler(pipeline_schema),
        ),
        Route::json(get("/api/v1/version"), Needs::User, "Show the server's version", health::version),
        Route::json(
            get("/api/v1/doctor"),
            Needs::ServerAdmin,
            "Look whether everything works",
            health::doctor,
        ),
        Route::raw(
            get("/api/v1/events"),
            Needs::User,
            "Listen to what changes",
            EVENTS,
            handler(events::listen),
        )
        .takes::<events::Listen>()
        .events(documented::CHANGES),
    ]
}

async fn pipeline_schema(_call: Call, _request: Request) -> Answer<Response> {
    Ok(respond("application/json", towpath_pipeline::schema().to_string().into()))
}

fn retention_routes() -> Vec<Route> {
    vec![
        Route::json(
            get("/api/v1/retention"),
            Needs::ServerAdmin,
            "Show how long everything is kept",
            retention::show,
        ),
        Route::json(
            put("/api/v1/retention"),
            Needs::ServerAdmin,
            "Say how long everything is kept",
            retention::set,
        ),
        Route::json(
            post("/api/v1/housekeeping"),
            Needs::ServerAdmin,
            "Remove now what need not be kept",
            retention::keep_now,
        )
        .bounds(super::route::JSON_BYTES_MAX, DEADLINE_LONG),
    ]
}

fn accounts() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/me"), Needs::User, "Show who you are", users::me),
        Route::json(put("/api/v1/me/password"), Needs::Account, "Change your password", users::own_password),
        Route::json(get("/api/v1/tokens"), Needs::User, "List your tokens", tokens::list),
        Route::json(post("/api/v1/tokens"), Needs::User, "Make a token for yourself", tokens::create)
            .verb(TokenVerb::Administer),
        Route::json(delete("/api/v1/tokens/{token}"), Needs::User, "Revoke a token", tokens::revoke)
            .verb(TokenVerb::Administer),
        Route::json(get("/api/v1/users"), Needs::ServerAdmin, "List users", users::list),
        Route::json(post("/api/v1/users"), Needs::ServerAdmin, "Add a user", users::create),
        Route::json(
            post("/api/v1/users/{user}/disable"),
            Needs::ServerAdmin,
            "Disable a user",
            users::disable,
        ),
        Route::json(post("/api/v1/users/{user}/enable"), Needs::ServerAdmin, "Enable a user", users::enable),
        Route::json(
            put("/api/v1/users/{user}/admin"),
            Needs::ServerAdmin,
            "Say who looks after the server",
            users::set_server_admin,
        ),
        Route::json(
            put("/api/v1/users/{user}/password"),
            Needs::ServerAdmin,
            "Set a user's password",
            users::others_password,
        ),
        Route::json(
            get("/api/v1/users/{user}/tokens"),
            Needs::ServerAdmin,
            "List a user's tokens",
            tokens::list_of,
        ),
        Route::json(
            post("/api/v1/users/{user}/tokens"),
            Needs::ServerAdmin,
            "Make a token for a user",
            tokens::create_for,
        ),
    ]
}

fn secret_routes() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/secrets"), Needs::ServerAdmin, "List secrets of the server", secrets::list),
        Route::json(
            put("/api/v1/secrets/{secret}"),
            Needs::ServerAdmin,
            "Set a secret of the server",
            secrets::put,
        ),
        Route::json(
            delete("/api/v1/secrets/{secret}"),
            Needs::ServerAdmin,
            "Remove a secret of the server",
            secrets::remove,
        ),
        Route::json(get("/api/v1/repos/{repo}/secrets"), ADMIN, "List secrets of a repo", secrets::list),
        Route::json(
            put("/api/v1/repos/{repo}/secrets/{secret}"),
            ADMIN,
            "Set a secret of a repo",
            secrets::put,
        ),
        Route::json(
            delete("/api/v1/repos/{repo}/secrets/{secret}"),
            ADMIN,
            "Remove a secret of a repo",
            secrets::remove,
        ),
    ]
}

fn repo_routes() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/repos"), Needs::User, "List repos", repos::list),
        Route::json(post("/api/v1/repos"), Needs::ServerAdmin, "Make an empty repo", repos::create),
        Route::json(post("/api/v1/import"), Needs::ServerAdmin, "Import a repo", repos::import_repo)
            .bounds(super::route::JSON_BYTES_MAX, DEADLINE_LONG),
        Route::json(get("/api/v1/repos/{repo}"), READER, "Show a repo", repos::show),
        Route::json(
            get("/api/v1/repos/{repo}/settings"),
            MAINTAINER,
            "Show a repo's settings",
            repo_settings::show,
        ),
        Route::json(put("/api/v1/repos/{repo}/settings"), ADMIN, "Set a repo's settings", repo_settings::set),
        Route::json(put("/api/v1/repos/{repo}/hook"), ADMIN, "Say how webhooks are signed", repos::set_hook),
        Route::json(get("/api/v1/repos/{repo}/people"), MAINTAINER, "List rights on a repo", people::list),
        Route::json(
            put("/api/v1/repos/{repo}/people/{user}"),
            ADMIN,
            "Give a right on a repo",
            people::grant,
        ),
        Route::json(
            delete("/api/v1/repos/{repo}/people/{user}"),
            ADMIN,
            "Take a right on a repo",
            people::revoke,
        ),
    ]
}

fn branch_routes() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/repos/{repo}/branches"), READER, "List watched branches", branches::list),
        Route::json(get("/api/v1/repos/{repo}/branches/{branch}"), READER, "Show a branch", branches::show),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/freeze"),
            MAINTAINER,
            "Freeze a branch",
            branches::freeze,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/unfreeze"),
            MAINTAINER,
            "Let changes land on a branch again",
            branches::unfreeze,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/accept"),
            ADMIN,
            "Accept a foreign push",
            branches::accept,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/deploy"),
            MAINTAINER,
            "Run the deploy jobs of a branch again",
            branches::deploy,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/run"),
            MAINTAINER,
            "Run manual jobs of a branch",
            branches::run,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/branches/{branch}/ring"),
            AUTHOR,
            "Have a branch looked at again",
            branches::ring,
        ),
    ]
}

fn environment_routes() -> Vec<Route> {
    vec![
        Route::json(
            get("/api/v1/repos/{repo}/environments"),
            READER,
            "List environments and what runs there",
            environments::list,
        ),
        Route::json(
            get("/api/v1/repos/{repo}/environments/{environment}"),
            READER,
            "Show an environment with its deployments",
            environments::show,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/environments/{environment}/deploy"),
            MAINTAINER,
            "Deploy a landed commit to an environment",
            environments::deploy,
        ),
        Route::json(
            put("/api/v1/repos/{repo}/environments/{environment}/self"),
            Needs::ServerAdmin,
            "Say that an environment is this server itself",
            environments::mark_self,
        ),
        Route::json(
            delete("/api/v1/repos/{repo}/environments/{environment}/self"),
            Needs::ServerAdmin,
            "Say that an environment is not this server",
            environments::unmark_self,
        ),
    ]
}

fn change_routes() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/repos/{repo}/changes"), READER, "List changes", changes::list),
        Route::json(
            post("/api/v1/repos/{repo}/changes"),
            AUTHOR,
            "Open a change from a branch",
            change_acts::open,
        ),
        Route::json(get("/api/v1/repos/{repo}/changes/{change}"), READER, "Show a change", changes::show),
        Route::json(
            get("/api/v1/repos/{repo}/changes/{change}/why"),
            READER,
            "Say why a change has not landed",
            changes::why,
        ),
    ]
}

fn change_act_routes() -> Vec<Route> {
    macro_rules! act {
        ($verb:literal, $needs:expr, $summary:literal, $handler:expr) => {
            Route::json(
                post(concat!("/api/v1/repos/{repo}/changes/{change}/", $verb)),
                $needs,
                $summary,
                $handler,
            )
        };
    }
    vec![
        act!("approve", MAINTAINER, "Approve a revision of a change", change_acts::approve),
        act!("request-changes", MAINTAINER, "Ask for changes of a revision", change_acts::request_changes),
        act!("withdraw", MAINTAINER, "Withdraw your review of a change", change_acts::withdraw),
        act!("vouch", MAINTAINER, "Let a revision run that nobody authorised uploaded", change_acts::vouch),
        act!("comment", AUTHOR, "Comment on a change", change_acts::comment),
        act!("label", OWNER, "Set labels of a change", change_acts::label),
        act!("hold", OWNER, "Hold a change", holds::hold),
        act!("release", MAINTAINER, "Release a change that is held", holds::release),
        act!("close", OWNER, "Close a change", change_acts::close),
        act!("reopen", OWNER, "Reopen a change", change_acts::reopen),
        act!("draft", OWNER, "Make a change a draft", change_acts::draft),
        act!("ready", OWNER, "Make a change ready", change_acts::ready),
        act!("edit", OWNER, "Edit title or body of a change", change_acts::edit),
        act!("retarget", OWNER, "Move a change to another branch", change_acts::retarget),
        act!("retry", OWNER, "Run a change again", change_acts::retry),
    ]
}

fn run_routes() -> Vec<Route> {
    macro_rules! of_job {
        ($rest:literal) => {
            get(concat!("/api/v1/repos/{repo}/runs/{branch}/{run}/jobs/{job}/", $rest))
        };
    }
    vec![
        Route::json(get("/api/v1/repos/{repo}/runs"), READER, "List runs", runs::list),
        Route::json(get("/api/v1/repos/{repo}/runs/{branch}/{run}"), READER, "Show a run", runs::show),
        Route::json(
            get("/api/v1/repos/{repo}/tests"),
            READER,
            "Show how a test ended lately",
            test_results::history,
        ),
        Route::json(
            post("/api/v1/repos/{repo}/runs/{branch}/{run}/cancel"),
            OWNER,
            "Cancel a run",
            runs::cancel,
        ),
        Route::raw(of_job!("log"), READER, "Show a part of a job's log", TEXT, handler(logs::window))
            .takes::<logs::Window>(),
        Route::json(of_job!("first-error"), READER, "Find the first error in a job's log", logs::first_error),
        Route::raw(of_job!("follow"), READER, "Follow a job's log", EVENTS, handler(logs::follow))
            .takes::<logs::Follow>()
            .events(documented::FOLLOWED),
        Route::json(of_job!("artifacts"), READER, "List what a job left", artifacts::list),
        Route::json(of_job!("tests"), READER, "Show the tests that a job reported", test_results::of_job),
        Route::raw(
            of_job!("artifacts/{output}/{*path}"),
            READER,
            "Download a file that a job left",
            "application/octet-stream",
            handler(artifacts::download),
        )
        .takes::<logs::Attempt>(),
    ]
}

fn audit_routes() -> Vec<Route> {
    vec![
        Route::json(
            get("/api/v1/audit/leaves"),
            Needs::ServerAdmin,
            "Show leaves of the audit log",
            audit::leaves,
        ),
        Route::json(
            get("/api/v1/audit/checkpoint"),
            Needs::User,
            "Show the newest checkpoint",
            audit::checkpoint,
        ),
        Route::json(
            get("/api/v1/audit/inclusion"),
            Needs::User,
            "Prove that a leaf is in the log",
            audit::inclusion,
        ),
        Route::json(
            get("/api/v1/audit/consistency"),
            Needs::User,
            "Prove that the log only grew",
            audit::consistency,
        ),
    ]
}

fn restore_routes() -> Vec<Route> {
    vec![
        Route::json(get("/api/v1/restore"), Needs::ServerAdmin, "Show what a restore lost", restore::show),
        Route::json(
            post("/api/v1/restore/accept"),
            Needs::ServerAdmin,
            "Accept what a restore lost",
            restore::accept,
        ),
    ]
}

fn git_routes() -> Vec<Route> {
    vec![
        Route::raw(
            get("/{repo}.git/info/refs"),
            READER,
            "Begin a fetch or a push with git",
            TEXT,
            handler(git::info_refs),
        )
        .takes::<documented::InfoRefs>()
        .answers(&documented::ADVERTISEMENTS)
        .face(Face::Git),
        Route::raw(
            post("/{repo}.git/git-upload-pack"),
            READER,
            "Fetch with git",
            "application/x-git-upload-pack-result",
            handler(git::upload_pack),
        )
        .takes_bytes("application/x-git-upload-pack-request")
        .face(Face::Git)
        .verb(TokenVerb::Read)
        .bounds(git::BODY_BYTES_MAX, DEADLINE_LONG),
        Route::raw(
            post("/{repo}.git/git-receive-pack"),
            AUTHOR,
            "Push with git",
            "application/x-git-receive-pack-result",
            handler(git::receive_pack),
        )
        .takes_bytes("application/x-git-receive-pack-request")
        .face(Face::Git)
        .verb(TokenVerb::Push)
        .bounds(git::BODY_BYTES_MAX, DEADLINE_LONG),
        Route::raw(
            post("/hooks/{repo}"),
            Needs::Public,
            "Take a webhook, signed with the repo's secret",
            "application/json",
            handler(hooks::take),
        )
        .takes_bytes("application/json")
        .takes_headers(&documented::WEBHOOK)
        .bounds(hooks::BODY_BYTES_MAX, hooks::DEADLINE),
    ]
}

fn session_routes() -> Vec<Route> {
    macro_rules! of_page {
        ($rest:literal) => {
            get(concat!("/{repo}/runs/{branch}/{run}/jobs/{job}/", $rest))
        };
    }
    vec![
        Route::form(login::LOGIN_PATH, Needs::Public, "Log in", login::log_in)
            .fields(&["name", "password", "token", "next"])
            .bounds(login::LOGIN_BYTES_MAX, DEADLINE),
        Route::form("/logout", Needs::User, "Log out", login::log_out),
        // What scripts of pages fetch. The handlers are the API's; only who authenticates differs.
        Route::raw(get("/events"), Needs::User, "Listen to what changes", EVENTS, handler(events::listen))
            .takes::<events::Listen>()
            .events(documented::CHANGES)
            .face(Face::Page),
        Route::raw(of_page!("log"), READER, "Show a part of a job's log", TEXT, handler(logs::window))
            .takes::<logs::Window>()
            .face(Face::Page),
        Route::raw(of_page!("follow"), READER, "Follow a job's log", EVENTS, handler(logs::follow))
            .takes::<logs::Follow>()
            .events(documented::FOLLOWED)
            .face(Face::Page),
        Route::json(
            of_page!("first-error"),
            READER,
            "Find the first error in a job's log",
            logs::first_error,
        )
        .face(Face::Page),
        Route::raw(
            of_page!("artifacts/{output}/{*path}"),
            READER,
            "Download a file that a job left",
            "application/octet-stream",
            handler(artifacts::download),
        )
        .takes::<logs::Attempt>()
        .face(Face::Page),
    ]
}

#[cfg(test)]
mod tests;
