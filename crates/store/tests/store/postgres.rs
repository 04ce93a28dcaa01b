//! That PostgreSQL takes the store's SQL: every statement in the sources is prepared by a real one, over the same schema.
//! What only SQLite has is left out: the files that [`OF_SQLITE`] names, pragmas, and how a transaction begins.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which step of the schema the database has, and its settings: each kind of database has its own way for that.
const OF_SQLITE: [&str; 1] = ["schema.rs"];
/// PostgreSQL refuses root.
const NOBODY: u32 = 65534;
/// How long the server may take to answer, and between two looks.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// Statements that there are at least: a reader that finds none finds no fault either.
const STATEMENTS_MIN: usize = 120;

#[test]
fn postgresql_takes_the_schema_and_every_statement() {
    let Some(programs) = programs() else {
        println!("SKIP postgresql_takes_the_schema_and_every_statement: there is no PostgreSQL here");
        return;
    };
    let database = Database::start(&programs);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut steps: Vec<PathBuf> =
        fs::read_dir(source.join("schema")).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    for step in steps {
        assert_eq!(database.complaint(&in_postgres(&fs::read_to_string(&step).unwrap())), "", "{step:?}");
    }
    let mut statements = Vec::new();
    collect(&source, &mut statements);
    assert!(statements.len() >= STATEMENTS_MIN, "only {} statements are found", statements.len());
    let lines = statements.iter().enumerate().map(|(at, (place, sql))| {
        format!("PREPARE s{at} AS {}; -- {place}\n", in_postgres(sql).replace('\n', " "))
    });
    assert_eq!(database.complaint(&lines.collect::<String>()), "");
    // The control: it does complain.
    assert!(database.complaint("PREPARE one AS SELECT instr(body, $1) FROM leaves;").contains("instr"));
}

/// Names of types, and of parameters.
fn in_postgres(sql: &str) -> String {
    sql.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA").replace('?', "$")
}

/// Every statement below a folder, with its place.
fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(&path, found);
        } else if name.ends_with(".rs") && !OF_SQLITE.contains(&name.as_str()) {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            found.extend(statements(text).into_iter().map(|sql| (name.clone(), sql)));
        }
    }
}

/// The statements of one file: texts, the parts of one `concat!`, and what `push_str` adds to one, in both its cases.
fn statements(text: &str) -> Vec<String> {
    let columns = text.split_once("macro_rules! columns").map(|(_, rest)| literals(rest).remove(0).1);
    let text = text.replace("columns!()", &format!("\"{}\"", columns.unwrap_or_default()));
    let mut found: Vec<String> = Vec::new();
    // Whether the text before is a part of the statement that was found last.
    let mut goes_on = false;
    for (gap, part) in literals(&text) {
        let is_statement =
            ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "].iter().any(|verb| part.starts_with(verb));
        let is_first_of_two = gap.contains("push_str(if ") && gap.ends_with("{ ");
        let is_part = goes_on && gap.trim() == ","
            || ["push_str(", " } else { "].iter().any(|end| gap.ends_with(end))
            || is_first_of_two;
        goes_on = is_statement || is_part;
        match found.len() {
            _ if is_statement => found.push(part),
            last if is_part && last > 0 => {
                let so_far = found[last - 1].clone();
                found[last - 1] += &part;
                found.extend(is_first_of_two.then_some(so_far));
            }
            _ => {}
        }
    }
    found
}

/// Every text of a file, with what stands between it and the one before.
fn literals(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let (mut rest, mut gap) = (text, 0);
    loop {
        let Some(next) = rest[gap..].find(['"', '\'', '/']).map(|at| gap + at) else { return found };
        if rest[next..].starts_with("//") {
            let end = rest[next..].find('\n').map_or(rest.len(), |at| next + at);
            gap = end;
        } else if rest[next..].starts_with("'\"'") {
            gap = next + 3;
        } else if rest[next..].starts_with('"') {
            let (value, len) = literal(&rest[next..]);
            found.push((&rest[..next], value));
            (rest, gap) = (&rest[next + len..], 0);
        } else {
            gap = next + 1;
        }
    }
}

/// The text at the beginning, as Rust reads it, and its length in the source.
fn literal(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, at + 1),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('\n') => while characters.next_if(|(_, space)| space.is_whitespace()).is_some() {},
                Some('n') => value.push('\n'),
                Some(other) => value.push(other),
                None => break,
            },
            _ => value.push(character),
        }
    }
    panic!("a text without an end: {text:.60}")
}

/// Where the programs of PostgreSQL are; Debian does not put the server on `PATH`.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let places = std::env::split_paths(&path).chain(debian.map(|version| version.path().join("bin")));
    places.into_iter().find(|place| place.join("initdb").exists() && place.join("postgres").exists())
}

/// A server of its own, on a socket in a folder of its own.
struct Database {
    folder: tempfile::TempDir,
    server: Child,
}

impl Database {
    fn start(programs: &Path) -> Database {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("db");
        fs::create_dir(&data).unwrap();
        let owned = |path: &Path| std::os::unix::fs::chown(path, owner(), owner()).unwrap();
        [folder.path(), &data].into_iter().for_each(owned);
        let mut make = Command::new(programs.join("initdb"));
        make.args(["--auth=trust", "--no-sync", "--username=towpath", "-D"]).arg(&data);
        let made = as_owner(&mut make).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut serve = Command::new(programs.join("postgres"));
        serve.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-c", "listen_addresses="]);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let server = as_owner(&mut serve).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut database = Database { folder, server };
        let begun = Instant::now();
        while !database.answers() {
            let ended = database.server.try_wait().unwrap();
            let log = fs::read_to_string(database.folder.path().join("log")).unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "the server does not answer: {log}");
            std::thread::park_timeout(LOOK);
        }
        database
    }

    fn answers(&self) -> bool {
        self.complaint("SELECT 1;").is_empty()
    }

    /// What it says against some SQL; nothing if it takes it.
    fn complaint(&self, sql: &str) -> String {
        let mut client = Command::new("psql");
        client.args(["-X", "-q", "-U", "towpath", "-d", "postgres", "-h"]).arg(self.folder.path());
        let mut client =
            client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // A client that cannot connect ends before it has read.
        let _ = client.stdin.take().unwrap().write_all(sql.as_bytes());
        let said = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&said.stderr).trim().to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Who the server runs as.
fn owner() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

fn as_owner(command: &mut Command) -> &mut Command {
    match owner() {
        Some(user) => command.uid(user).gid(user).current_dir("/"),
        None => command,
    }
}
