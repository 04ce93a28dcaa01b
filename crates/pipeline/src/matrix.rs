//! `matrix`: one job for each combination of values, less the excluded ones.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use towpath_core::ids::is_unprintable;

use crate::diagnostic::{Place, Report, fault, shown};
use crate::name::MatrixKey;
use crate::nearest::nearest;
use crate::value::{At, Many, Named, Value};
use crate::yaml::{Entry, Node};

/// Characters of one value. It becomes part of the job's name.
const VALUE_CHARS_MAX: usize = 40;
/// Cells of one matrix, before exclusion. Source: the limit of GitHub's matrices.
pub const CELLS_MAX: usize = 256;
/// Keys of one matrix. Each of two values doubles the cells.
pub const AXES_MAX: usize = 16;
/// Combinations left out of one matrix. Each is compared with each cell.
const EXCLUSIONS_MAX: usize = 256;
/// The key that is none of the job's.
const EXCLUDE: &str = "exclude";

/// Keys with their values in the order of the file, and the combinations left out.
///
/// Cells have numbers, the last key changing fastest, so that they can be counted without being made: 10,000 aliases of
/// one large matrix are refused by their count.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    axes: Vec<Axis>,
    exclude: Vec<Vec<Coordinate>>,
}

#[derive(Debug, Clone)]
struct Axis {
    key: MatrixKey,
    values: Vec<String>,
}

/// A key and one of its values, by their places.
#[derive(Debug, Clone, Copy)]
struct Coordinate {
    axis: usize,
    value: usize,
}

type Exclusions = Many<Named<MatrixKey, CellValue>>;

/// One combination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// `salt=git,python=3.12`; empty without a matrix.
    pub(crate) label: String,
    pub(crate) values: BTreeMap<String, String>,
}

/// One value, kept as it is written: `3.10` stays `3.10`.
#[derive(Debug, Clone)]
struct CellValue(String);

impl Value for CellValue {
    const TAKES: &'static str =
        "1 to 40 visible characters without spaces and `,=/[]`, as they become part of the job's name";
    const EXAMPLE: &'static str = "[stable, latest]";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Some(text) = node.text() else { return Self::refuse(node, report) };
        let hidden = text.chars().any(|c| is_unprintable(c) || c.is_whitespace() || ",=/[]".contains(c));
        if text.is_empty() || text.chars().count() > VALUE_CHARS_MAX || hidden || text.contains("..") {
            let what = format!("`{}` cannot be a matrix value", shown(text));
            let hint = "write a short word, and let the script make of it what it needs";
            report.error(node.place, fault(what, format!("it takes {}", Self::TAKES), hint));
            return None;
        }
        Some(CellValue(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"], "pattern": "^[^\\s,=/\\[\\]]{1,40}$" })
    }
}

impl Value for Matrix {
    const TAKES: &'static str =
        "keys, each with a list of values, and `exclude` with combinations to leave out";
    const EXAMPLE: &'static str = "{ python: [3.12, 3.13] }";

    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let entries = node.entries::<Self>(report)?;
        let errors = report.error_count();
        let mut axes = Vec::new();
        for entry in entries.iter().filter(|entry| entry.key != EXCLUDE) {
            axes.extend(report.inside(&entry.key, |report| read_axis(entry, report)));
        }
        let mut matrix = Matrix { axes, exclude: Vec::new() };
        if matrix.axes.len() > AXES_MAX || matrix.size().is_none_or(|size| size > CELLS_MAX) {
            let why = format!(
                "a matrix has at most {AXES_MAX} keys and {CELLS_MAX} combinations, before `exclude`"
            );
            report.error(node.place, fault("the matrix is too large", why, "use fewer keys or values"));
            return None;
        }
        if let Some(entry) = entries.iter().find(|entry| entry.key == EXCLUDE) {
            report.inside(EXCLUDE, |report| matrix.read_exclude(&entry.value, report));
        }
        if report.error_count() == errors && matrix.count() == 0 {
            let why = "a matrix without a single cell makes no job at all";
            report.error(
                node.place,
                fault("the matrix is empty", why, "add a key with values, or delete `matrix`"),
            );
        }
        Some(matrix)
    }

    fn schema() -> Json {
        let values = json!({ "anyOf": [CellValue::schema(), { "type": "array", "items": CellValue::schema(), "minItems": 1, "uniqueItems": true }] });
        json!({
            "type": "object",
            "properties": { EXCLUDE: Exclusions::schema() },
            "propertyNames": { "anyOf": [MatrixKey::schema(), { "const": EXCLUDE }] },
            "additionalProperties": values,
        })
    }
}

fn read_axis(entry: &Entry, report: &mut Report) -> Option<Axis> {
    let key = MatrixKey::read(&entry.key_node(), report);
    let errors = report.error_count();
    let values = Many::<CellValue>::read(&entry.value, report)?;
    if values.0.is_empty() && report.error_count() == errors {
        let why = "a key without values leaves no cell";
        report.error(entry.value.place, fault("no values", why, "add a value, or delete the key"));
    }
    Some(Axis { key: key?, values: values.0.into_iter().map(|value| value.value.0).collect() })
}

impl Matrix {
    /// Cells before exclusion; `None` when they are beyond counting.
    fn size(&self) -> Option<usize> {
        match self.axes.is_empty() {
            true => Some(0),
            false => self.axes.iter().try_fold(1usize, |size, axis| size.checked_mul(axis.values.len())),
        }
    }

    /// The numbers of the cells that are not excluded.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        let excluded = |cell: usize, corner: &[Coordinate]| {
            corner.iter().all(|coordinate| self.value(coordinate.axis, cell) == coordinate.value)
        };
        let left = move |cell: &usize| !self.exclude.iter().any(|corner| excluded(*cell, corner));
        (0..self.size().unwrap_or(0)).filter(left)
    }

    /// Which value of an axis a cell has.
    fn value(&self, axis: usize, cell: usize) -> usize {
        let stride: usize = self.axes[axis + 1..].iter().map(|axis| axis.values.len()).product();
        cell / stride % self.axes[axis].values.len()
    }

    /// How many cells are left.
    pub(crate) fn count(&self) -> usize {
        if self.exclude.is_empty() { self.size().unwrap_or(0) } else { self.numbers().count() }
    }

    /// Bytes of the longest label that a cell can have.
    pub(crate) fn label_bytes_max(&self) -> usize {
        let longest = |axis: &Axis| axis.values.iter().map(String::len).max().unwrap_or(0);
        let pairs: usize = self.axes.iter().map(|axis| axis.key.as_ref().len() + 1 + longest(axis)).sum();
        pairs + self.axes.len().saturating_sub(1)
    }

    /// Every cell that is not excluded.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.numbers().map(|cell| self.cell(cell)).collect()
    }

    fn cell(&self, number: usize) -> Cell {
        let pair =
            |(at, axis): (usize, &Axis)| (axis.key.to_string(), axis.values[self.value(at, number)].clone());
        let pairs: Vec<(String, String)> = self.axes.iter().enumerate().map(pair).collect();
        let label: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Cell { label: label.join(","), values: pairs.into_iter().collect() }
    }

    fn read_exclude(&mut self, node: &Node, report: &mut Report) {
        let Some(Many(exclusions)) = Exclusions::read(node, report) else { return };
        if exclusions.len() > EXCLUSIONS_MAX {
            let why = format!("a matrix has at most {EXCLUSIONS_MAX} of them");
            let hint = "make two jobs, each with its own matrix";
            report.error(node.place, fault("too many exclusions", why, hint));
            return;
        }
        for exclusion in exclusions {
            let corner = self.corner(&exclusion, report);
            self.exclude.extend(corner);
        }
    }

    /// The cells that an exclusion names, if it names any.
    fn corner(
        &self,
        exclusion: &At<Named<MatrixKey, CellValue>>,
        report: &mut Report,
    ) -> Option<Vec<Coordinate>> {
        let errors = report.error_count();
        let mut corner = Vec::new();
        for (key, value) in &exclusion.value.0 {
            let Some(axis) = self.axes.iter().position(|axis| axis.key == key.value) else {
                unknown(
                    key.value.as_ref(),
                    self.axes.iter().map(|axis| axis.key.as_ref()),
                    key.place,
                    report,
                );
                continue;
            };
            let values = &self.axes[axis].values;
            match values.iter().position(|known| *known == value.value.0) {
                Some(value) => corner.push(Coordinate { axis, value }),
                None => unknown(&value.value.0, values.iter().map(String::as_str), value.place, report),
            }
        }
        if corner.is_empty() && report.error_count() == errors {
            let why = "an empty combination would leave out every cell";
            let hint = "name a key and one of its values";
            report.error(exclusion.place, fault("nothing to exclude", why, hint));
        }
        (!corner.is_empty()).then_some(corner)
    }
}

fn unknown<'a>(word: &str, known: impl Iterator<Item = &'a str>, place: Place, report: &mut Report) {
    let hint = match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name a key of this matrix and one of its values".to_owned(),
    };
    let what = format!("`{}` is not in the matrix", shown(word));
    report.error(place, fault(what, "an exclusion of what is not there would leave out nothing", hint));
}
