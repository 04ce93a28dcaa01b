-- Records of the server and of the built-in forge. Lists and settings are JSON; times are milliseconds since 1970.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);

CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    owner INTEGER NOT NULL REFERENCES users (number),
    label TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    used_at INTEGER,
    revoked_at INTEGER
);
CREATE INDEX tokens_of_user ON tokens (owner);

CREATE TABLE sessions (
    hash BLOB PRIMARY KEY,
    csrf TEXT NOT NULL,
    owner INTEGER NOT NULL REFERENCES users (number),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX sessions_of_user ON sessions (owner);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE repos (
    name TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    hook_secret TEXT,
    created_at INTEGER NOT NULL
);

CREATE TABLE rights (
    repo TEXT NOT NULL REFERENCES repos (name),
    holder INTEGER NOT NULL REFERENCES users (number),
    role TEXT NOT NULL,
    authorised INTEGER NOT NULL,
    PRIMARY KEY (repo, holder)
);
CREATE INDEX rights_of_user ON rights (holder);

CREATE TABLE changes (
    repo TEXT NOT NULL REFERENCES repos (name),
    number INTEGER NOT NULL,
    target TEXT NOT NULL,
    owner INTEGER NOT NULL,
    state TEXT NOT NULL,
    source TEXT,
    change_id TEXT,
    updated_at INTEGER NOT NULL,
    meta TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (repo, number)
);
CREATE INDEX changes_by_target ON changes (repo, target, state, number);
CREATE INDEX changes_by_owner ON changes (repo, owner, state, number);
CREATE INDEX changes_by_change_id ON changes (repo, change_id);

CREATE TABLE checks (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    branch TEXT NOT NULL,
    revision TEXT NOT NULL,
    verdict TEXT NOT NULL,
    text TEXT NOT NULL,
    run TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (repo, change, branch, revision)
);

CREATE TABLE alerts (
    number INTEGER PRIMARY KEY,
    repo TEXT NOT NULL,
    branch TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX alerts_of_branch ON alerts (repo, branch, number);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    repo TEXT NOT NULL,
    branch TEXT NOT NULL,
    number INTEGER NOT NULL,
    cause TEXT NOT NULL,
    change INTEGER,
    hash TEXT NOT NULL,
    reason TEXT NOT NULL,
    outcome TEXT,
    unsandboxed INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE INDEX runs_by_time ON runs (started_at, id);
CREATE INDEX runs_by_gate ON runs (repo, branch, started_at, id);
CREATE INDEX runs_by_change ON runs (repo, change, started_at, id);
CREATE INDEX runs_unended ON runs (started_at, id) WHERE outcome IS NULL;

CREATE TABLE jobs (
    run TEXT NOT NULL,
    job INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    lease TEXT,
    outcome TEXT,
    why TEXT NOT NULL,
    unsandboxed INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    log BLOB,
    PRIMARY KEY (run, job, attempt)
);
CREATE INDEX jobs_by_lease ON jobs (lease);

CREATE TABLE tests (
    run TEXT NOT NULL,
    job INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    position INTEGER NOT NULL,
    repo TEXT NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    message TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (run, job, attempt, position)
);
CREATE INDEX tests_by_name ON tests (repo, name, at);

CREATE TABLE deployments (
    repo TEXT NOT NULL,
    environment TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    run TEXT,
    job TEXT,
    actor INTEGER,
    outcome TEXT,
    why TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    PRIMARY KEY (repo, environment, number)
);

CREATE TABLE secrets (
    repo TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,
    policy TEXT NOT NULL,
    updated_by INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repo, name)
);

CREATE TABLE hook_deliveries (
    seq INTEGER PRIMARY KEY,
    repo TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX hook_deliveries_by_id ON hook_deliveries (id, repo);
