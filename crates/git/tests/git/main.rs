//! Towpath's git against real git, in folders that end with each test.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod bundles;
mod candidates;
mod checkouts;
mod environment;
mod hard_set;
mod importing;
mod landing;
mod notes;
mod reading;
mod refs;
mod sample;
mod service;
mod support;
mod work_trees;
