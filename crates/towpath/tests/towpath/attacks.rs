//! Attacks on the real program: its server, its executor, its sandbox, with real pushes. Each case bears the id of its
//! line in the list of attacks (`cargo xtask attacks`); what a case asserts is what that line expects.
//!
//! Several cases share one server, as most of a case's time is the server's start. [`Fort::hold`] runs each by itself,
//! goes on after one that fails, and names those in the end. Once a group is through, it looks at what has to hold after
//! every attack ([`aftermath`]): an honest change lands, every tip of the branch was tested, repository and audit log are
//! whole, no canary is anywhere, and nothing is left behind.

mod aftermath;
mod approvals;

mod canaries;
mod definitions;
mod fort;
mod jobs;
mod levels;
mod pushes;

mod web;
mod wire;
