//! The real program in real repositories, as a person would use it.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod attacks;
mod bad_input;
mod clones;
mod demo;
mod deploying;
mod executors;
mod forged;
mod guide;
mod handover;
mod importing;
mod keeping;
mod local_run;
mod moves;
mod newcomer;
mod pages;
mod polling;
mod private_git;
mod record;
mod refusals;
mod reporting;
mod repository_words;
mod retries;
mod self_hosting;
mod served;
mod support;
