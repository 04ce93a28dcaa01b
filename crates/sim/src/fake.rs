//! The world around the core, in memory: git, definitions, a forge, a store, an executor.

pub mod definition;
pub mod executor;
pub mod forge;
pub mod git;
pub mod store;
