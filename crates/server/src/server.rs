//! The server's life: open everything, serve, drain, close.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use towpath_blob::{BlobStore, LogStore};
use towpath_core::cell::CellId;
use towpath_core::gate::{Bell, GateConfig, GateEvent};
use towpath_core::ids::{GateId, RepoName};
use towpath_core::turn::Intake;
use towpath_git::{Git, GitOptions, UnsyncedListener};
use towpath_store::audit::AuditKey;
use towpath_store::{AuditOptions, OpenError, Options, ReadError, Store, View};

use crate::auth::revoked::{Revocations, RevokedError};
use crate::clock::system_time;
use crate::doorbells::Doorbells;
use crate::drivers::make_candidate::Slow;
use crate::drivers::run_job::{Jobs, Sources, open_bases};
use crate::drivers::{Drivers, Hands};
use crate::engine::{AnyIntake, Engine, EngineEnd, Holding, Running};
use crate::executor::{Executor, ExecutorTrouble, Standing};
use crate::forges::Forges;
use crate::halts;
use crate::housekeeping::{House, Housekeeper, Housekeeping};
use crate::keys::{KEY_OF_AUDIT, KEY_OF_SECRETS, Missing};
use crate::mend;
use crate::replace::Succession;
use crate::repos::Repos;
use crate::secrets::{SecretError, Secrets};
use crate::settings::{ExecutorLife, RepoSettings, ServerSettings};

/// Everything that handlers of requests work with.
pub struct Shared {
    /// How the server was started.
    pub settings: ServerSettings,
    /// The turn loop.
    pub engine: Engine,
    /// The rows.
    pub store: Arc<Store>,
    /// The repositories.
    pub repos: Arc<Repos>,
    /// The forges.
    pub forges: Arc<Forges>,
    /// What webhooks have rung.
    pub doorbells: Arc<Doorbells>,
    /// Jobs on the executor.
    pub jobs: Arc<Jobs>,
    /// Logs of jobs.
    pub logs: LogStore,
    /// Outputs of jobs.
    pub blobs: BlobStore,
    /// Secrets.
    pub secrets: Secrets,
    /// Tokens that a restore does not bring back.
    pub revoked: Revocations,
    /// What looks after what piles up.
    pub housekeeping: Housekeeping,
}

/// Why a server cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Git cannot be used.
    #[error(transparent)]
    Git(#[from] towpath_git::GitError),
    /// Secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// The folder of the keys lacks some that the data are bound to.
    #[error("`{}` lacks {missing}", keys.display())]
    MissingKeys {
        /// The folder of the keys.
        keys: PathBuf,
        /// What it lacks.
        missing: Missing,
    },
    /// The list of revoked tokens cannot be used.
    #[error(transparent)]
    Revoked(#[from] RevokedError),
    /// The audit key cannot be used.
    #[error("the audit key cannot be used: {0}")]
    AuditKey(String),
    /// The executor cannot be used.
    #[error(transparent)]
    Executor(#[from] ExecutorTrouble),
    /// The turn loop ended.
    #[error(transparent)]
    Engine(#[from] EngineEnd),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] crate::http::origin::UnfitUrl),
    /// The forge's part cannot be used.
    #[error(transparent)]
    Forge(#[from] towpath_forge::ForgeError),
    /// A folder or socket cannot be used.
    #[error("cannot {what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        why: std::io::Error,
    },
}

/// The audit log's name, which its checkpoints bear.
const AUDIT_LOG: &str = "towpath";

/// Folders below the data folder.
pub struct Folders {
    /// Repositories of the built-in forge.
    pub repos: PathBuf,
    bases: PathBuf,
    histories: PathBuf,
    /// The executor's, with what jobs left.
    pub executor: PathBuf,
}

impl Folders {
    /// Those of a data folder.
    pub fn below(data: &Path) -> Folders {
        Folders {
            repos: data.join("repos"),
            bases: data.join("bases"),
            histories: data.join("histories"),
            executor: data.join("executor"),
        }
    }

    fn make(&self) -> Result<(), ServerError> {
        for folder in [&self.repos, &self.bases, &self.histories, &self.executor] {
            let failed =
                |why| ServerError::Io { what: format!("make the folder `{}`", folder.display()), why };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        Ok(())
    }
}

/// A server that runs.
pub struct Server {
    /// For handlers.
    pub shared: Arc<Shared>,
    turns: Running,
    drivers: Arc<Drivers>,
    executor: Arc<Executor>,
    answered: tokio::sync::oneshot::Receiver<Result<Standing, ExecutorTrouble>>,
    succession: Arc<Succession>,
    housekeeper: Housekeeper,
}

impl Server {
    /// Opens the data folder, begins to start or find the executor, loads every open cell and hands out what is owed.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing was changed but what opening changes.
    pub async fn start(settings: ServerSettings) -> Result<Server, ServerError> {
        let server = Server::open(settings)?;
        server.begin().await;
        Ok(server)
    }

    /// The same but for the last step, which is [`Server::begin`]: nothing of what is owed is handed out.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing was changed but what opening changes.
    pub fn open(settings: ServerSettings) -> Result<Server, ServerError> {
        let store = Arc::new(open_store(&settings)?);
        let revoked = Revocations::open(&settings.keys, &store, system_time())?;
        let folders = Folders::below(store.path());
        folders.make()?;
        let repos = Arc::new(Repos::new(git_of(&store, &settings.git)?, folders.repos.clone()));
        let forges = Arc::new(Forges::new(repos.clone(), store.clone()));
        let secrets = open_secrets(&store, &settings.keys)?;
        let (logs, blobs) = Executor::stores(&folders.executor)?;
        let (bases, ample) = open_bases(&folders.bases)?;
        let sources = Sources {
            repos: repos.clone(),
            bases,
            ample,
            histories: folders.histories,
            blobs: blobs.clone(),
            secrets: secrets.clone(),
            store: store.clone(),
            limits: settings.limits,
        };
        let jobs = Jobs::new(sources, settings.slots);
        let succession = Succession::open(store.path(), blobs.clone(), settings.executor);
        let doorbells = Arc::new(Doorbells::default());
        let drivers = Drivers::new(Hands {
            repos: repos.clone(),
            forges: forges.clone(),
            doorbells: doorbells.clone(),
            jobs: jobs.clone(),
            store: store.clone(),
            notes: Mutex::default(),
            slow: Slow::default(),
            succession: succession.clone(),
        });
        mend::repositories(&forges, system_time()).map_err(OpenError::from)?;
        halts::tell_before_the_first_turn(&store, system_time()).map_err(OpenError::from)?;
        let (answer, answered) = tokio::sync::oneshot::channel();
        let executor = Executor::start((&settings, &folders.executor), store.epoch(), &jobs, |outcome| {
            let _ = answer.send(outcome);
        });
        let (engine, turns) = Engine::load(store.clone(), drivers.clone())?;
        jobs.connect(engine.clone(), executor.clone());
        let house = House {
            store: store.clone(),
            repos: repos.clone(),
            forges: forges.clone(),
            blobs: blobs.clone(),
            logs: logs.clone(),
            jobs: jobs.clone(),
        };
        let (housekeeping, housekeeper) = Housekeeping::start(house)
            .map_err(|why| ServerError::Io { what: "start housekeeping".into(), why })?;
        let shared = Arc::new(Shared {
            settings,
            engine,
            store,
            repos,
            forges,
            doorbells,
            jobs,
            logs,
            blobs,
            secrets,
            revoked,
            housekeeping,
        });
        shared.watch_the_disk();
        shared.jobs.tell_capacity(&shared.engine);
        shared.configure_all()?;
        Ok(Server { shared, turns, drivers, executor, answered, succession, housekeeper })
    }

    /// Hands out what is owed, and returns once every cell has had a try at its first turn.
    pub async fn begin(&self) {
        self.turns.begin();
        self.shared.engine.quiet().await;
        self.shared.drop_unclaimed_when_turned();
    }

    /// Waits until an executor has answered, and says whether it is given jobs. Requests may be answered before; jobs wait.
    /// Asked once.
    ///
    /// # Errors
    /// The executor does not come up: the sandbox does not work here, say.
    pub async fn executor_answered(&mut self) -> Result<Standing, ServerError> {
        match (&mut self.answered).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(ExecutorTrouble::Start(std::io::Error::other("nobody starts it")).into()),
        }
    }

    /// Returns once there has been an executor that is given jobs: the first one, or a successor.
    pub async fn executor_serves(&self) {
        self.executor.serves().await;
    }

    /// Where it is said that another program is to serve.
    pub fn succession(&self) -> Arc<Succession> {
        self.succession.clone()
    }

    /// Whether the turn loop has ended by itself, because another server took over.
    pub fn is_over(&self) -> bool {
        self.turns.is_over()
    }

    /// Ends: nothing new is begun, what is in flight is stored. Jobs live on in the executor, if that has a life of its
    /// own.
    ///
    /// # Errors
    /// The turn loop had ended by itself.
    pub fn stop(self) -> Result<(), ServerError> {
        self.housekeeper.stop();
        let ended = self.turns.stop();
        match self.shared.settings.executor {
            ExecutorLife::Own => self.executor.leave(),
            ExecutorLife::WithServer => self.executor.end(),
        }
        drop(self.drivers);
        Ok(ended?)
    }
}

/// The git of a data folder, which is ours alone: whatever git still runs for it is a dead server's, and is ended. What
/// the disk does not confirm in any repository stops all landing, whoever of us has asked it (trust S9).
fn git_of(store: &Store, options: &GitOptions) -> Result<Git, ServerError> {
    let data = store.path();
    let owner = Some(data.canonicalize().unwrap_or_else(|_| data.to_owned()).into_os_string());
    let writer = store.writer().clone();
    let unsynced = UnsyncedListener::new(move |why| writer.stop_landing(why));
    let certificates = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let git = Git::find(GitOptions { certificates, owner, unsynced, ..options.clone() })?;
    let orphans = git.end_orphans();
    if orphans > 0 {
        tracing::warn!(orphans, "ended {orphans} gits of a server that died");
    }
    Ok(git)
}

impl Shared {
    /// What the executor has and no run asks for is dropped once every run has said what it wants. Not awaited: on a full
    /// disk no turn is written, and the server is to serve all the same.
    fn drop_unclaimed_when_turned(&self) {
        let (engine, jobs) = (self.engine.clone(), Arc::clone(&self.jobs));
        tokio::spawn(async move {
            if engine.turned().await {
                jobs.all_claimed();
            }
        });
    }

    /// Tells every gate its settings, and to look at everything again: whatever happened while no server ran.
    fn configure_all(&self) -> Result<(), ServerError> {
        let repos = self.store.reader().snapshot().and_then(|view| view.repos()).map_err(OpenError::from)?;
        for repo in repos {
            match RepoSettings::parse(&repo.settings) {
                Ok(settings) => settings.gates(&repo.name).iter().for_each(|(gate, _)| self.configure(gate)),
                Err(error) => tracing::error!(repo = %repo.name, "settings of repo {}: {error}", repo.name),
            }
        }
        let view = self.store.reader().snapshot().map_err(OpenError::from)?;
        if let Some(environment) = crate::selves::marked(&view).map_err(OpenError::from)? {
            let (cell, holding) = crate::selves::holding(environment);
            self.engine.deliver_holding(cell, holding);
        }
        Ok(())
    }

    /// Tells a gate what holds on the server and its settings, and rings its bells.
    fn configure(&self, gate: &GateId) {
        self.tell_halts_to(gate);
        let of = gate.clone();
        let settings: Holding = Arc::new(move |tx| Ok(config_of(tx, &of)?.map(configured)));
        self.engine.deliver_holding(CellId::Gate(gate.clone()), settings);
        self.ring(gate);
    }

    /// What the gates of a repo are told when it is new and when its settings have changed, in the transaction that stores
    /// them. Reads the store, so not for the thread that writes.
    pub fn configuration(&self, repo: &RepoName, settings: &RepoSettings) -> Vec<(CellId, AnyIntake)> {
        let of_gate = |(gate, config)| {
            let told = self.halts_for(&gate).into_iter().chain([configured(config), all_bells()]);
            told.map(move |intake| (CellId::Gate(gate.clone()), intake)).collect::<Vec<_>>()
        };
        settings.gates(repo).into_iter().flat_map(of_gate).collect()
    }

    /// Rings all three bells of a gate. A bell that cannot be stored is made up for by the next poll.
    pub fn ring(&self, gate: &GateId) {
        self.engine.deliver_surely(CellId::Gate(gate.clone()), all_bells());
    }
}

fn configured(config: GateConfig) -> AnyIntake {
    AnyIntake::Gate(Intake::Event(GateEvent::Configured(Box::new(config))))
}

/// The settings of a gate as they are stored.
fn config_of(view: &View, gate: &GateId) -> Result<Option<GateConfig>, ReadError> {
    let Some(repo) = view.repo(&gate.repo)? else { return Ok(None) };
    Ok(RepoSettings::parse(&repo.settings)
        .ok()
        .and_then(|mut settings| settings.branches.remove(&gate.branch)))
}

fn all_bells() -> AnyIntake {
    let bell = Bell { forge_changed: true, runs_changed: true, state_changed: true };
    AnyIntake::Gate(Intake::Event(GateEvent::Bell(bell)))
}

pub(crate) fn open_store(settings: &ServerSettings) -> Result<Store, ServerError> {
    let failed =
        |why| ServerError::Io { what: format!("make the folder `{}`", settings.keys.display()), why };
    // Whoever is refused leaves nothing behind.
    towpath_store::check_free(&settings.data)?;
    if !settings.new_keys {
        check_keys(settings)?;
    }
    crate::files::make_private_folder(&settings.keys).map_err(failed)?;
    let path = settings.keys.join(KEY_OF_AUDIT);
    let key = AuditKey::load_or_create(&path, AUDIT_LOG)
        .map_err(|error| ServerError::AuditKey(error.to_string()))?;
    let sink = Some(settings.keys.join("checkpoints"));
    let audit = AuditOptions { key, succeeds: settings.new_keys, sink };
    let options = Options { audit: Some(audit), ..Options::new(&settings.data, system_time()) };
    let store = Store::open(options)?;
    if let Some(leaves) = store.taken_over() {
        tracing::warn!(
            leaves.from = leaves.start,
            leaves.count = leaves.end - leaves.start,
            "took over {} leaves of the record that no checkpoint covered, from leaf {} on: of the half second before the \
             last server was killed, or nothing tells who wrote them",
            leaves.end - leaves.start,
            leaves.start
        );
    }
    // With the data's lock held, nobody else writes a key of theirs.
    if let Err(error) = towpath_store::remove_drafts(&settings.keys) {
        tracing::warn!("drafts of keys in `{}` cannot be removed: {error}", settings.keys.display());
    }
    Ok(store)
}

fn open_secrets(store: &Arc<Store>, keys: &Path) -> Result<Secrets, ServerError> {
    let secrets = Secrets::open(store.clone(), &keys.join(KEY_OF_SECRETS))?;
    let view = store.reader().snapshot().map_err(OpenError::from)?;
    let sealed = secrets.sealed_otherwise(&view).map_err(OpenError::from)?;
    if !sealed.is_empty() {
        tracing::warn!(
            "secrets that the master key does not open, set them again: `{}`",
            sealed.join("`, `")
        );
    }
    Ok(secrets)
}

/// Whether the keys of the data are where they should be. Others are made by a person's word alone: nothing of what the
/// lost ones had signed or sealed is theirs.
fn check_keys(settings: &ServerSettings) -> Result<(), ServerError> {
    let missing = Missing::of_folder(&settings.data, &settings.keys)?;
    match missing.is_none() {
        true => Ok(()),
        false => Err(ServerError::MissingKeys { keys: settings.keys.clone(), missing }),
    }
}
