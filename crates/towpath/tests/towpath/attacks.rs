//! Attacks on the real program: its server, its executor, its sandbox, with real pushes. Each case bears the id of its
//! line in the list of attacks (`cargo xtask attacks`); what a case asserts is what that line expects.
//!
//! Several cases share one server, as most of a case's time is the server's start. [`fort::Fort::hold`] runs each by
//! itself, looks at what has to hold after every attack ([`aftermath`]), goes on after one that fails, and names those in
//! the end. After each case nothing of it is left 2 s after its last run, an honest change lands, every tip of the branch
//! was tested, repository and audit log are whole, and no canary is anywhere.

mod aftermath;
mod approvals;
mod asked;
mod canaries;
mod definitions;
mod fort;
mod holding;
mod jobs;
mod kept;
mod leftovers;
mod levels;
mod limits;
mod neighbours;
mod pushes;
mod web;
mod wire;
