//! All decisions of Towpath, as pure functions over plain data.
//!
//! Deliberately absent: tokio, clocks, randomness, the environment, files, SQL, HTTP. Time and ids come in as
//! arguments; what the world is owed comes out as [`effect`]s.

pub mod candidate;
pub mod graph;
pub mod ids;
