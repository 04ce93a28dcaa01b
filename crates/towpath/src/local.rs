//! Runs on the developer's machine: the same cells and the same executor as on the server, and no server.

pub mod definition;
pub mod engine;
pub mod folder;
pub mod progress;
pub mod selection;
