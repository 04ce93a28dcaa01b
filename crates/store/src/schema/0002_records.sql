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
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    draft INTEGER NOT NULL,
    state TEXT NOT NULL,
    landed TEXT,
    labels TEXT NOT NULL,
    topic TEXT,
    change_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repo, number)
);
CREATE INDEX changes_by_target ON changes (repo, target, state, number);
CREATE INDEX changes_by_topic ON changes (repo, topic);
CREATE INDEX changes_by_change_id ON changes (repo, change_id);

CREATE TABLE revisions (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    uploader INTEGER NOT NULL,
    uploaded_at INTEGER NOT NULL,
    superseded_at INTEGER,
    PRIMARY KEY (repo, change, number),
    FOREIGN KEY (repo, change) REFERENCES changes (repo, number)
);
CREATE INDEX revisions_by_hash ON revisions (repo, hash);

CREATE TABLE reviews (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    number INTEGER NOT NULL,
    revision TEXT NOT NULL,
    definition BLOB,
    message BLOB,
    reviewer INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (repo, change, number),
    FOREIGN KEY (repo, change) REFERENCES changes (repo, number)
);

CREATE TABLE comments (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    number INTEGER NOT NULL,
    author INTEGER,
    key TEXT,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    edited_at INTEGER,
    PRIMARY KEY (repo, change, number),
    UNIQUE (repo, change, key),
    FOREIGN KEY (repo, change) REFERENCES changes (repo, number)
);

CREATE TABLE label_events (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    number INTEGER NOT NULL,
    label TEXT NOT NULL,
    added INTEGER NOT NULL,
    actor INTEGER,
    at INTEGER NOT NULL,
    PRIMARY KEY (repo, change, number),
    FOREIGN KEY (repo, change) REFERENCES changes (repo, number)
);

CREATE TABLE checks (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    revision TEXT NOT NULL,
    verdict TEXT NOT NULL,
    text TEXT NOT NULL,
    run TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (repo, change, revision)
);

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
