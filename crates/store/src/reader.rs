//! Read connections, kept and lent out as consistent snapshots.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::error::ReadError;
use crate::view::View;

/// Read connections at most. Each takes up to 2 MiB of cache.
const CONNECTIONS_MAX: usize = 8;

/// How long somebody waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// Lends out snapshots. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

struct Pool {
    database: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<View>,
    lent: usize,
}

/// A consistent state of everything that was committed when it was taken. For one request: while it lives, the
/// database's log cannot be folded in beyond it.
pub struct Snapshot {
    view: Option<View>,
    pool: Arc<Pool>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Reader {
    pub(crate) fn new(database: PathBuf) -> Reader {
        let (state, returned) = (Mutex::default(), Condvar::new());
        Reader { pool: Arc::new(Pool { database, state, returned }) }
    }

    /// A snapshot of now.
    ///
    /// # Errors
    /// The database cannot be read, or no connection became free in time.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let view = match self.pool.take()? {
            Some(view) => Ok(view),
            None => View::open(&self.pool.database),
        };
        let begun = view.and_then(|view| {
            view.conn.prepare_cached("BEGIN")?.execute([])?;
            Ok(view)
        });
        match begun {
            Ok(view) => Ok(Snapshot { view: Some(view), pool: Arc::clone(&self.pool) }),
            Err(why) => {
                self.pool.give_back(None);
                Err(why)
            }
        }
    }
}

impl Pool {
    /// An idle connection, or the right to open one.
    fn take(&self) -> Result<Option<View>, ReadError> {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = self.returned.wait_timeout_while(state, WAIT, |state| state.lent >= CONNECTIONS_MAX);
        let (mut state, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if timeout.timed_out() {
            return Err(ReadError::Busy);
        }
        state.lent += 1;
        Ok(state.idle.pop())
    }

    fn give_back(&self, view: Option<View>) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.lent -= 1;
        state.idle.extend(view);
        drop(state);
        self.returned.notify_one();
    }
}

impl Deref for Snapshot {
    type Target = View;
    fn deref(&self) -> &View {
        self.view.as_ref().expect("invariant: a snapshot has its view until it is dropped")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Nothing was written, so COMMIT ends it as ROLLBACK would; only the former leaves kept statements as they are.
        let end = |view: &View| view.conn.prepare_cached("COMMIT")?.execute([]);
        let view = self.view.take().filter(|view| end(view).is_ok());
        self.pool.give_back(view);
    }
}
