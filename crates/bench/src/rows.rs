//! The rows, in the groups in which they are measured.

use crate::row::Row;
use crate::{Extent, Fault};

mod graphs;
mod hooks;
mod idle;
mod logs;
mod merges;
mod runs;
mod trees;

/// Rows that are measured together.
pub struct Group {
    /// Their names.
    pub names: &'static [&'static str],
    /// Measures them.
    pub measure: fn(Extent) -> Result<Vec<Row>, Fault>,
}

/// Every row.
pub const ROWS: &[Group] = &[
    Group { names: &["P1-run-latency"], measure: runs::latency },
    Group { names: &["P2-run-rate"], measure: runs::rate },
    Group { names: &["P3-graph-plain"], measure: graphs::plain },
    Group { names: &["P3-graph-sandboxed"], measure: graphs::sandboxed },
    Group { names: &["P3-work-tree"], measure: trees::overlay },
    Group { names: &["P4-merge", "P4-history-trees"], measure: merges::history },
    Group { names: &["P4-hard-trees"], measure: merges::hard_set },
    Group { names: &["P6-delivery-latency", "P6-delivery-rate"], measure: hooks::deliveries },
    Group { names: &["P7-log"], measure: logs::stream },
    Group { names: &["P8-memory", "P8-start"], measure: idle::idle },
];
