//! The built-in forge over real git, real HTTP and real pushes.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod attacks;
mod clocks;
mod contract;
mod damage;
mod hostile;
mod http;
mod landings;
mod people;
mod pushes;
mod raw;
mod rows;
mod support;
mod talk;
mod uploaders;
