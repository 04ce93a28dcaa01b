//! All decisions of Towpath, as pure functions over plain data.
//!
//! Deliberately absent: tokio, clocks, randomness, the environment, files, SQL, HTTP. Time and ids come in as
//! arguments; what the world is owed comes out as [`effect`]s.

pub mod act;
pub mod address;
pub mod candidate;
pub mod cell;
pub mod definition;
pub mod effect;
pub mod environment;
pub mod gate;
pub mod glob;
pub mod graph;
pub mod ids;
pub mod message;
pub mod outbox;
pub mod policy;
pub mod pool;
pub mod run;
pub mod turn;
