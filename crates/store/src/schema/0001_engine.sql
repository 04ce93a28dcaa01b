-- Cells, their boxes, the audit log. A database has one row of `meta`.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    inbox_seq INTEGER NOT NULL,
    time_high INTEGER NOT NULL,
    restored TEXT
);

CREATE TABLE cells (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    wake_at INTEGER,
    finished INTEGER NOT NULL
);
CREATE INDEX cells_unfinished ON cells (id) WHERE finished = 0;

CREATE TABLE cell_rows (
    cell TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (cell, key)
);

CREATE TABLE inbox (
    seq INTEGER PRIMARY KEY,
    cell TEXT NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX inbox_of_cell ON inbox (cell, seq);

CREATE TABLE outbox (
    cell TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (cell, key)
);

CREATE TABLE leaves (
    number INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    hash BLOB NOT NULL
);

-- Roots of complete subtrees at levels 8, 16, 24, ...: position p of level l covers leaves p * 2^l to (p + 1) * 2^l - 1.
CREATE TABLE tree_nodes (
    level INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, position)
);

CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
);

-- Whose signature the checkpoints bear, from which leaf on.
CREATE TABLE audit_keys (
    since INTEGER PRIMARY KEY,
    verifier TEXT NOT NULL
);
