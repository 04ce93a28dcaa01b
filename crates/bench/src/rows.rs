//! The rows, in the groups in which they are measured.

use crate::row::Row;
use crate::{Extent, Fault};

mod compiling;
mod demo;
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
    /// Whether they are measured where no row is named.
    pub asked: Asked,
    /// Measures them.
    pub measure: fn(Extent) -> Result<Vec<Row>, Fault>,
}

/// When rows are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Unless others are named.
    Always,
    /// Only by their names: they take minutes.
    ByName,
}

impl Group {
    const fn of(names: &'static [&'static str], measure: fn(Extent) -> Result<Vec<Row>, Fault>) -> Group {
        Group { names, asked: Asked::Always, measure }
    }

    const fn by_name(self) -> Group {
        Group { asked: Asked::ByName, ..self }
    }

    /// Whether one of its names begins so.
    pub fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|row| row.to_lowercase().starts_with(&name.to_lowercase()))
    }

    /// Whether it is among what these words ask for.
    pub fn is_asked(&self, names: &[&str]) -> bool {
        match names.is_empty() {
            true => self.asked == Asked::Always,
            false => names.iter().any(|name| self.is_named(name)),
        }
    }
}

/// Every row.
pub const ROWS: &[Group] = &[
    Group::of(&["P1-run-latency"], runs::latency),
    Group::of(&["P2-run-rate"], runs::rate),
    Group::of(&["P3-graph-plain"], graphs::plain),
    Group::of(&["P3-graph-sandboxed"], graphs::sandboxed),
    Group::of(&["P3-work-tree"], trees::overlay),
    Group::of(&["P4-merge", "P4-history-trees"], merges::history),
    Group::of(&["P4-hard-trees"], merges::hard_set),
    Group::of(&["P6-delivery-latency", "P6-delivery-rate"], hooks::deliveries),
    Group::of(&["P7-log"], logs::stream),
    Group::of(&["P8-memory", "P8-memory-all", "P8-start"], idle::idle),
    Group::of(&["demo"], demo::demo),
    Group::of(&["compile-dev"], compiling::dev).by_name(),
    Group::of(&["compile-release"], compiling::release).by_name(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_minutes_is_measured_only_by_name() {
        let asked = |names: &[&str]| {
            let groups = ROWS.iter().filter(|group| group.is_asked(names));
            groups.flat_map(|group| group.names).copied().collect::<Vec<_>>()
        };
        assert!(asked(&[]).contains(&"demo") && !asked(&[]).iter().any(|name| name.starts_with("compile")));
        assert_eq!(asked(&["compile"]), ["compile-dev", "compile-release"]);
        assert_eq!(asked(&["Compile-D", "p8"]), ["P8-memory", "P8-memory-all", "P8-start", "compile-dev"]);
    }
}
