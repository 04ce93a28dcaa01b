//! One measured figure beside its peer, and whether it is good enough.

use serde::Serialize;

/// What a figure has to be. A promise in milliseconds or a second is absolute: the peer's figure beside it tells how
/// fast the machine was, and excuses nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// At most this many times the peer's figure.
    RatioAtMost(f64),
    /// At least this many times the peer's figure.
    RatioAtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Goal {
    fn holds(self, value: f64, peer_value: f64) -> bool {
        match self {
            Goal::RatioAtMost(ratio) => value <= ratio * peer_value,
            Goal::RatioAtLeast(ratio) => value >= ratio * peer_value,
            Goal::AtMost(goal) => value <= goal,
            Goal::AtLeast(goal) => value >= goal,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Goal::RatioAtMost(ratio) => format!("at most {ratio} x peer"),
            Goal::RatioAtLeast(ratio) => format!("at least {ratio} x peer"),
            Goal::AtMost(goal) => format!("at most {goal} {unit}"),
            Goal::AtLeast(goal) => format!("at least {goal} {unit}"),
        }
    }
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which figure: the goal's number, and what it is about.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// What it was compared with in the same run: another program, or what the machine itself needs.
    pub peer: String,
    /// The peer's figure, in the same unit.
    pub peer_value: f64,
    /// `value / peer_value`.
    pub ratio: f64,
    /// What it has to be.
    pub goal: String,
    /// Whether it is.
    pub holds: bool,
}

/// A figure and its peer, before it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// See [`Row::name`].
    pub name: &'static str,
    /// See [`Row::unit`].
    pub unit: &'static str,
    /// See [`Row::value`].
    pub value: f64,
    /// See [`Row::peer`].
    pub peer: &'static str,
    /// See [`Row::peer_value`].
    pub peer_value: f64,
}

impl Figure {
    /// The row, judged.
    pub fn judged(self, goal: Goal) -> Row {
        Row {
            name: self.name,
            value: rounded(self.value),
            unit: self.unit,
            peer: self.peer.to_owned(),
            peer_value: rounded(self.peer_value),
            ratio: rounded(self.value / self.peer_value),
            goal: goal.text(self.unit),
            holds: goal.holds(self.value, self.peer_value),
        }
    }
}

/// Four digits: more is noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(goal: Goal, value: f64, peer_value: f64) -> bool {
        let figure = Figure { name: "x", unit: "ms", value, peer: "y", peer_value };
        figure.judged(goal).holds
    }

    #[test]
    fn a_promise_is_absolute_whatever_the_peer_took() {
        assert!(holds(Goal::AtMost(5.0), 5.0, 0.5) && !holds(Goal::AtMost(5.0), 5.1, 100.0));
        assert!(holds(Goal::AtLeast(600.0), 600.0, 1.0) && !holds(Goal::AtLeast(600.0), 599.0, 500.0));
    }

    #[test]
    fn ratios_are_to_the_peer_of_the_same_run() {
        assert!(holds(Goal::RatioAtMost(1.3), 1.3, 1.0) && !holds(Goal::RatioAtMost(1.3), 1.4, 1.0));
        assert!(holds(Goal::RatioAtLeast(0.65), 0.65, 1.0) && !holds(Goal::RatioAtLeast(0.65), 0.6, 1.0));
    }

    #[test]
    fn figures_have_four_digits() {
        assert_eq!([0.0, 1234.56, 0.0123456, 99999.0].map(rounded), [0.0, 1235.0, 0.01235, 100_000.0]);
    }
}
