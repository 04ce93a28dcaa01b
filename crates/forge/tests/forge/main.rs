//! The built-in forge over real git, real HTTP and real pushes.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod attacks;
mod contract;
mod http;
mod people;
mod pushes;
mod rows;
mod support;
