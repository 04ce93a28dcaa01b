//! The Git side of the built-in forge: Smart HTTP, and what a push may do.
//!
//! Three walls, each before anything of a push can be seen. The head of the request (ref names, options) is judged before
//! git is started ([`judge`]). The pack is measured as it streams by. Git then takes it into a quarantine, where
//! `pre-receive` asks this server about the objects; what is refused there never enters the store (trust S4, B14). Only
//! `proc-receive`, after it, moves refs: git itself moves none.

mod desk;
mod hook;
mod http;
mod inspect;
mod options;
mod packet;
mod receive;
mod report;
mod request;
mod rules;
mod scan;
mod session;
mod turns;
mod unpack;

pub use desk::{HookDesk, HookSettings, HookToken};
pub use hook::run_hook;
pub use http::{Endpoint, Head, IDLE_SECONDS_MAX, Reply, Request, Route, route};
pub use http::{answer_info_refs, answer_upload_pack};
pub use options::PushOptions;
pub use receive::{Received, answer_receive_pack};
pub use request::Command;
pub use rules::{Known, Move, Pusher, judge};
pub use session::{Listener, PushContext};
