//! The runs of a gate: rows by number, and found by change and by tree. A gate with a thousand open changes asks for them
//! some thousand times a turn.

use std::collections::{BTreeMap, BTreeSet};

use super::RunRecord;
use crate::cell::{Row, RowError, Rows, Table};
use crate::ids::{ChangeNumber, TreeId};

/// Runs with their indexes. What a run is about never changes, so only its coming and going does anything to these.
#[derive(Debug)]
pub(super) struct RunTable {
    rows: Table<u64, RunRecord>,
    of_change: BTreeMap<ChangeNumber, BTreeSet<u64>>,
    of_tree: BTreeMap<TreeId, BTreeSet<u64>>,
}

impl RunTable {
    pub fn new() -> RunTable {
        RunTable { rows: Table::new("run"), of_change: BTreeMap::new(), of_tree: BTreeMap::new() }
    }

    /// Every run, oldest first.
    pub fn map(&self) -> &BTreeMap<u64, RunRecord> {
        self.rows.map()
    }

    pub fn get(&self, number: u64) -> Option<&RunRecord> {
        self.rows.get(&number)
    }

    /// A run whose standing, cancel or phase is to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut RunRecord> {
        self.rows.get_mut(&number)
    }

    /// The runs of a change, oldest first.
    pub fn of_change(
        &self,
        change: ChangeNumber,
    ) -> impl DoubleEndedIterator<Item = (u64, &RunRecord)> + use<'_> {
        self.numbered(self.of_change.get(&change))
    }

    /// The runs whose commit has this tree, oldest first.
    pub fn of_tree(&self, tree: TreeId) -> impl DoubleEndedIterator<Item = (u64, &RunRecord)> + use<'_> {
        self.numbered(self.of_tree.get(&tree))
    }

    fn numbered<'a>(
        &'a self,
        numbers: Option<&'a BTreeSet<u64>>,
    ) -> impl DoubleEndedIterator<Item = (u64, &'a RunRecord)> {
        numbers.into_iter().flatten().filter_map(|number| self.rows.get(number).map(|run| (*number, run)))
    }

    pub fn insert(&mut self, number: u64, run: RunRecord) {
        self.index(number, &run);
        self.rows.insert(number, run);
    }

    pub fn remove(&mut self, number: u64) {
        let Some(run) = self.rows.remove(&number) else { return };
        if let Some((change, _)) = run.change {
            forget(&mut self.of_change, change, number);
        }
        forget(&mut self.of_tree, run.tree, number);
    }

    /// Makes the indexes from the rows.
    pub fn loaded(&mut self) {
        (self.of_change, self.of_tree) = Default::default();
        let rows: Vec<(u64, Option<ChangeNumber>, TreeId)> = self
            .rows
            .map()
            .iter()
            .map(|(number, run)| (*number, run.change.map(|(change, _)| change), run.tree))
            .collect();
        for (number, change, tree) in rows {
            self.note(number, change, tree);
        }
    }

    fn index(&mut self, number: u64, run: &RunRecord) {
        self.note(number, run.change.map(|(change, _)| change), run.tree);
    }

    fn note(&mut self, number: u64, change: Option<ChangeNumber>, tree: TreeId) {
        if let Some(change) = change {
            self.of_change.entry(change).or_default().insert(number);
        }
        self.of_tree.entry(tree).or_default().insert(number);
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: K, number: u64) {
    if let Some(numbers) = index.get_mut(&key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(&key);
        }
    }
}

impl Rows for RunTable {
    fn take(&mut self, out: &mut Vec<Row>) {
        self.rows.take(out);
    }

    fn put(&mut self, row: &Row) -> Result<bool, RowError> {
        self.rows.put(row)
    }
}
