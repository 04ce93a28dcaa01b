//! The server over real connections on loopback, with a data folder of its own.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod api;
mod approvals;
mod client;
mod crowds;
mod documented;
mod git;
mod hooks;
mod keeping;
mod logs;
mod merges;
mod pages;
mod readings;
mod record;
mod reports;
mod rights;
mod runs;
mod sessions;
mod starts;
mod stops;
mod units;
mod world;
