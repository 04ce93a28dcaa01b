//! The turn loop, effect drivers, HTTP API and pages of Towpath.
//!
//! Deliberately absent: rules of the gate (they are `core`'s) and SQL (it is `store`'s).

pub mod auth;
pub mod backup;
pub mod clock;
pub mod definitions;
pub mod doorbells;
pub mod drivers;
pub mod engine;
pub mod executor;
pub mod faults;
mod files;
pub mod forges;
pub mod halts;
pub mod housekeeping;
pub mod http;
pub mod keys;
mod mend;
pub mod pages;
pub mod ports;
pub mod program;
mod projection;
pub mod random;
pub mod readings;
pub mod replace;
pub mod reports;
pub mod repos;
pub mod secrets;
pub mod selves;
pub mod server;
pub mod service;
pub mod settings;
pub mod setup;
pub mod witness;
