//! The schema as numbered appends. A step, once released, never changes; the next one is added below it.
//!
//! The SQL is the subset that SQLite and PostgreSQL share, with SQLite's names of types; a PostgreSQL implementation
//! reads `INTEGER` as `BIGINT` and `BLOB` as `BYTEA`. A test has a PostgreSQL prepare the statements of this crate.

use rusqlite::{Connection, params};
use towpath_core::ids::{Digest, Timestamp};

use crate::error::{OpenError, WriteError};

const STEPS: [&str; 8] = [
    include_str!("schema/0001_engine.sql"),
    include_str!("schema/0002_records.sql"),
    include_str!("schema/0003_proofs.sql"),
    include_str!("schema/0004_causes.sql"),
    include_str!("schema/0005_rows.sql"),
    include_str!("schema/0006_landings.sql"),
    include_str!("schema/0007_sessions.sql"),
    include_str!("schema/0008_makers.sql"),
];

/// Marks the file as ours: `towp` in ASCII.
const APPLICATION_ID: i32 = 0x746f_7770;

/// The schema of this binary: how many steps it knows.
pub const SCHEMA: u32 = STEPS.len() as u32;

/// Whether this binary knows every step that a database has. Later ones may be missing.
pub(crate) fn check(conn: &Connection) -> Result<(), OpenError> {
    match application_id(conn)? {
        APPLICATION_ID => check_steps(&steps_done(conn)?),
        _ => Err(OpenError::NotTowpath { file: conn.path().unwrap_or_default().into() }),
    }
}

fn application_id(conn: &Connection) -> Result<i32, WriteError> {
    Ok(conn.query_row("PRAGMA application_id", [], |row| row.get(0))?)
}

fn check_steps(done: &[String]) -> Result<(), OpenError> {
    let found = done.len() as u32;
    if found > SCHEMA {
        return Err(OpenError::NewerSchema { found, known: SCHEMA });
    }
    match (0..done.len()).find(|&at| done[at] != digest(STEPS[at])) {
        Some(step) => Err(OpenError::ForeignSchema { step: step as u32 + 1 }),
        None => Ok(()),
    }
}

/// Brings the database to [`SCHEMA`], or says why that cannot be.
pub(crate) fn migrate(conn: &mut Connection, now: Timestamp) -> Result<(), OpenError> {
    let id = application_id(conn)?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))
        .map_err(WriteError::from)?;
    if id != APPLICATION_ID && (id != 0 || tables != 0) {
        return Err(OpenError::NotTowpath { file: conn.path().unwrap_or_default().into() });
    }
    apply(conn, now)
}

fn apply(conn: &mut Connection, now: Timestamp) -> Result<(), OpenError> {
    let tx =
        conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(WriteError::from)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_steps (step INTEGER PRIMARY KEY, digest TEXT NOT NULL, at INTEGER NOT NULL) STRICT",
    )
    .map_err(WriteError::from)?;
    let done = steps_done(&tx)?;
    check_steps(&done)?;
    for (at, sql) in STEPS.iter().enumerate().skip(done.len()) {
        tx.execute_batch(&for_sqlite(sql)).map_err(WriteError::from)?;
        tx.execute(
            "INSERT INTO schema_steps VALUES (?1, ?2, ?3)",
            params![at as i64 + 1, digest(sql), now.0],
        )
        .map_err(WriteError::from)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(WriteError::from)?;
    tx.commit().map_err(WriteError::from)?;
    Ok(())
}

fn steps_done(conn: &Connection) -> Result<Vec<String>, WriteError> {
    let mut statement = conn.prepare("SELECT digest FROM schema_steps ORDER BY step")?;
    let digests = statement.query_map([], |row| row.get(0))?;
    Ok(digests.collect::<Result<_, _>>()?)
}

fn digest(sql: &str) -> String {
    Digest::of(sql.as_bytes()).to_string()
}

/// SQLite keeps to the types of columns only where it is told to, and keeps a table by its key only where it is told to:
/// otherwise each row of a table whose key is no number lies in two trees, and each write of it costs a page more. A table
/// with large rows says `UNIQUE` instead: in a tree of whole rows a search reads each that it passes.
fn for_sqlite(sql: &str) -> String {
    let is_by_key = |table: &str| {
        let by_number = table.rfind("INTEGER PRIMARY KEY");
        table.rfind("PRIMARY KEY").is_some() && by_number < table.rfind("CREATE TABLE")
    };
    let mut parts = sql.split("\n);").peekable();
    let mut whole = String::new();
    while let Some(part) = parts.next() {
        whole += part;
        if parts.peek().is_some() {
            whole += if is_by_key(part) { "\n) STRICT, WITHOUT ROWID;" } else { "\n) STRICT;" };
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use rusqlite::Row;

    use super::*;

    const NOW: Timestamp = Timestamp(1);

    fn fresh() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, NOW).unwrap();
        conn
    }

    /// The database of a binary that knew so many steps.
    fn before(steps: usize) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        STEPS[..steps].iter().for_each(|sql| conn.execute_batch(&for_sqlite(sql)).unwrap());
        conn.execute_batch(
            "CREATE TABLE schema_steps (step INTEGER PRIMARY KEY, digest TEXT NOT NULL, at INTEGER NOT NULL)",
        )
        .unwrap();
        for (at, sql) in STEPS[..steps].iter().enumerate() {
            conn.execute("INSERT INTO schema_steps VALUES (?1, ?2, 1)", params![at as i64 + 1, digest(sql)])
                .unwrap();
        }
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        conn
    }

    /// What was put into the database of such a binary, brought to all steps.
    fn brought_on(steps: usize, put: &str) -> Connection {
        let mut conn = before(steps);
        conn.execute_batch(put).unwrap();
        migrate(&mut conn, NOW).unwrap();
        conn
    }

    fn rows<T>(conn: &Connection, sql: &str, row: fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], row).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn number(conn: &Connection, sql: &str) -> i64 {
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn rows_of_cells_are_all_there_after_they_move() {
        let put = "INSERT INTO cell_rows VALUES ('run/a', 'start', 'x'), ('pool', 'slots', '2'), ('run/a', 'jobs/1', 'y')";
        let conn = brought_on(4, put);
        let put = "INSERT INTO cell_rows (cell, key, value) VALUES ('pool', 'slots', '3') \
             ON CONFLICT (cell, key) DO UPDATE SET value = excluded.value";
        assert_eq!(conn.execute(put, []).unwrap(), 1);
        let sql = "SELECT cell, key, value FROM cell_rows ORDER BY cell, key";
        let found: Vec<[String; 3]> = rows(&conn, sql, |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
        assert_eq!(found, [["pool", "slots", "3"], ["run/a", "jobs/1", "y"], ["run/a", "start", "x"]]);
    }

    #[test]
    fn sessions_of_which_nobody_knows_what_opened_them_end() {
        let put = "INSERT INTO users VALUES (1, 'ann', NULL, 0, 1);
             INSERT INTO sessions VALUES (x'01', 'c', 1, 1, 9);";
        assert_eq!(number(&brought_on(5, put), "SELECT count(token) + count(*) FROM sessions"), 0);
    }

    #[test]
    fn every_table_keeps_to_its_types() {
        let loose = "SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND strict = 0 AND name NOT LIKE 'sqlite_%'";
        assert_eq!(number(&fresh(), loose), 0);
    }

    #[test]
    fn a_table_is_kept_by_its_key() {
        let conn = fresh();
        let two_trees = "SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND wr = 0 AND name IN ('cells', 'outbox', 'runs', 'jobs', 'settings', 'tree_nodes')";
        assert_eq!(number(&conn, two_trees), 0);
        let by_number = "SELECT count(*) FROM pragma_table_list WHERE wr = 0 AND name IN ('meta', 'cell_rows', 'inbox', 'leaves', 'users', 'alerts')";
        assert_eq!(number(&conn, by_number), 6);
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let mut conn = fresh();
        migrate(&mut conn, Timestamp(2)).unwrap();
        assert_eq!(number(&conn, "SELECT max(at) FROM schema_steps"), NOW.0);
    }

    #[test]
    fn what_ran_for_landings_from_before_there_were_proofs_is_one() {
        let put = "INSERT INTO repos VALUES ('demo', '', NULL, 1);
             INSERT INTO changes VALUES ('demo', 1, 'main', 1, 'landed', NULL, NULL, 1, '', '');
             INSERT INTO changes VALUES ('demo', 2, 'main', 1, 'open', NULL, NULL, 1, '', '');
             INSERT INTO changes VALUES ('demo', 3, 'main', 1, 'closed', NULL, NULL, 1, '', '');
             INSERT INTO runs VALUES ('demo/main/1', 'demo', 'main', 1, 'change', 1, '', '', 'failed', 0, 1, 2);
             INSERT INTO runs VALUES ('demo/main/2', 'demo', 'main', 2, 'change', 2, '', '', 'passed', 0, 1, 2);
             INSERT INTO runs VALUES ('demo/main/3', 'demo', 'main', 3, 'land', NULL, '', '', 'passed', 0, 1, 2);
             INSERT INTO runs VALUES ('demo/main/4', 'demo', 'main', 4, 'change', 3, '', '', 'passed', 0, 1, 2);";
        let proofs: Vec<String> =
            rows(&brought_on(2, put), "SELECT run FROM proofs ORDER BY run", |row| row.get(0));
        assert_eq!(proofs, ["demo/main/1", "demo/main/2"], "what landed, and what may be landing now");
    }

    #[test]
    fn a_landing_from_before_they_were_noted_has_the_nearest_time_that_is_known() {
        let put = "INSERT INTO repos VALUES ('demo', '', NULL, 1);
             INSERT INTO changes VALUES ('demo', 1, 'main', 1, 'landed', NULL, NULL, 7, '', '');
             INSERT INTO changes VALUES ('demo', 2, 'main', 1, 'open', NULL, NULL, 8, '', '');";
        let conn = brought_on(5, put);
        let landings: Vec<[i64; 2]> =
            rows(&conn, "SELECT change, at FROM landings", |row| Ok([row.get(0)?, row.get(1)?]));
        assert_eq!(landings, [[1, 7]]);
    }

    #[test]
    fn a_newer_schema_is_refused_with_both_numbers() {
        let mut conn = fresh();
        conn.execute("INSERT INTO schema_steps VALUES (?1, 'x', 1)", [SCHEMA + 1]).unwrap();
        let error = migrate(&mut conn, NOW).unwrap_err();
        assert_eq!(error, OpenError::NewerSchema { found: SCHEMA + 1, known: SCHEMA });
        assert!(error.to_string().contains("newer version"));
    }

    #[test]
    fn another_programs_schema_and_database_are_refused() {
        let mut conn = fresh();
        conn.execute("UPDATE schema_steps SET digest = 'x' WHERE step = 2", []).unwrap();
        assert_eq!(migrate(&mut conn, NOW), Err(OpenError::ForeignSchema { step: 2 }));
        let mut other = Connection::open_in_memory().unwrap();
        other.execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(migrate(&mut other, NOW), Err(OpenError::NotTowpath { .. })));
    }
}
