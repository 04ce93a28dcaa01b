//! Time for decisions: the system's clock, never before anything that is already durable (trust T10).

use std::time::{SystemTime, UNIX_EPOCH};

use towpath_core::ids::Timestamp;
use towpath_store::Writer;

/// The server's clock.
#[derive(Debug, Clone)]
pub struct Clock {
    writer: Writer,
}

impl Clock {
    /// A clock that never falls behind what `writer` has made durable.
    pub fn new(writer: Writer) -> Clock {
        Clock { writer }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.writer.time(system_time())
    }
}

/// The system's reading, in milliseconds since 1970.
pub fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
