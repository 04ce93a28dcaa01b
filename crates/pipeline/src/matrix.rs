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
/// Combinations left out of one matrix. Each is compared with each cell.
const EXCLUSIONS_MAX: usize = 256;
/// The key that is none of the job's.
const EXCLUDE: &str = "exclude";

/// Keys with their values in the order of the file, and the combinations left out.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    keys: Vec<(MatrixKey, Vec<String>)>,
    exclude: Vec<Pairs>,
}

type Pairs = Vec<(String, String)>;
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
        let mut keys = Vec::new();
        for entry in entries.iter().filter(|entry| entry.key != EXCLUDE) {
            keys.extend(report.inside(&entry.key, |report| read_key(entry, report)));
        }
        let mut matrix = Matrix { keys, exclude: Vec::new() };
        if matrix.size().is_none_or(|size| size > CELLS_MAX) {
            let why = format!("a matrix has at most {CELLS_MAX} combinations, before `exclude`");
            report.error(node.place, fault("the matrix has too many cells", why, "use fewer keys or values"));
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

fn read_key(entry: &Entry, report: &mut Report) -> Option<(MatrixKey, Vec<String>)> {
    let key = MatrixKey::read(&entry.key_node(), report);
    let errors = report.error_count();
    let values = Many::<CellValue>::read(&entry.value, report)?;
    if values.0.is_empty() && report.error_count() == errors {
        let why = "a key without values leaves no cell";
        report.error(entry.value.place, fault("no values", why, "add a value, or delete the key"));
    }
    Some((key?, values.0.into_iter().map(|value| value.value.0).collect()))
}

impl Matrix {
    /// Cells before exclusion; `None` when they are beyond counting.
    fn size(&self) -> Option<usize> {
        self.keys.iter().try_fold(1usize, |size, (_, values)| size.checked_mul(values.len()))
    }

    /// How many cells are left.
    pub(crate) fn count(&self) -> usize {
        match self.exclude.is_empty() {
            true if self.keys.is_empty() => 0,
            true => self.size().unwrap_or(usize::MAX),
            false => self.cells().len(),
        }
    }

    /// Every cell that is not excluded, the last key changing fastest.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let mut cells = vec![Cell::default()];
        for (key, values) in &self.keys {
            cells = cells.iter().flat_map(|cell| values.iter().map(|value| cell.with(key, value))).collect();
        }
        cells.retain(|cell| !self.exclude.iter().any(|pairs| cell.has(pairs)));
        cells
    }

    fn read_exclude(&mut self, node: &Node, report: &mut Report) {
        let Some(Many(exclusions)) = Exclusions::read(node, report) else { return };
        if exclusions.len() > EXCLUSIONS_MAX {
            let why = format!("a matrix has at most {EXCLUSIONS_MAX} of them");
            report.error(
                node.place,
                fault("too many exclusions", why, "make two jobs, each with its own matrix"),
            );
            return;
        }
        for exclusion in exclusions {
            self.exclude(exclusion, report);
        }
    }

    fn exclude(&mut self, exclusion: At<Named<MatrixKey, CellValue>>, report: &mut Report) {
        let errors = report.error_count();
        let mut pairs = Pairs::new();
        for (key, value) in exclusion.value.0 {
            match self.keys.iter().find(|(known, _)| *known == key.value) {
                None => {
                    let names = self.keys.iter().map(|(name, _)| name.as_ref());
                    unknown(key.value.as_ref(), names, key.place, report);
                }
                Some((_, values)) if !values.contains(&value.value.0) => {
                    unknown(&value.value.0, values.iter().map(String::as_str), value.place, report);
                }
                Some(_) => pairs.push((key.value.to_string(), value.value.0)),
            }
        }
        if pairs.is_empty() && report.error_count() == errors {
            let why = "an empty combination would leave out every cell";
            report
                .error(exclusion.place, fault("nothing to exclude", why, "name a key and one of its values"));
        }
        if !pairs.is_empty() {
            self.exclude.push(pairs);
        }
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

impl Cell {
    fn with(&self, key: &MatrixKey, value: &str) -> Cell {
        let comma = if self.label.is_empty() { "" } else { "," };
        let mut values = self.values.clone();
        values.insert(key.to_string(), value.to_owned());
        Cell { label: format!("{}{comma}{key}={value}", self.label), values }
    }

    fn has(&self, pairs: &Pairs) -> bool {
        pairs.iter().all(|(key, value)| self.values.get(key) == Some(value))
    }
}
