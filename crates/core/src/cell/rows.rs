//! State as rows: maps and fields that remember which parts a turn changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One row of a cell: a key within the cell, and JSON or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `table` or `table/key`.
    pub key: String,
    /// The value; `None` removes the row.
    pub value: Option<String>,
}

/// A stored row that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("row `{key}` cannot be read: {why}; it was written by another version or is damaged")]
pub struct RowError {
    /// The row's key.
    pub key: String,
    /// What the decoder said.
    pub why: String,
}

impl RowError {
    /// An error about one row.
    pub fn new(key: &str, why: impl Display) -> RowError {
        RowError { key: key.to_owned(), why: why.to_string() }
    }
}

/// The parts that a state is made of.
pub trait Rows {
    /// Appends the changed rows and forgets that they were changed.
    fn take(&mut self, out: &mut Vec<Row>);
    /// Puts a stored row back, if its key is of this part.
    ///
    /// # Errors
    /// The value does not decode.
    fn put(&mut self, row: &Row) -> Result<bool, RowError>;
}

/// A map that is stored as one row per entry.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    name: &'static str,
    map: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Ord + Clone + Display + FromStr, V: Serialize + DeserializeOwned> Table<K, V> {
    /// An empty table. `name` is part of the stored keys and never changes.
    pub fn new(name: &'static str) -> Self {
        Table { name, map: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// Every entry, in the order of the keys.
    pub fn map(&self) -> &BTreeMap<K, V> {
        &self.map
    }

    /// One entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// One entry to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let value = self.map.get_mut(key)?;
        self.changed.insert(key.clone());
        Some(value)
    }

    /// Sets one entry; returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.changed.insert(key.clone());
        self.map.insert(key, value)
    }

    /// Removes one entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.map.remove(key)?;
        self.changed.insert(key.clone());
        Some(value)
    }

    /// Removes what `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let gone: Vec<K> =
            self.map.iter().filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.remove(key)));
    }
}

impl<K: Ord + Clone + Display + FromStr, V: Serialize + DeserializeOwned> Rows for Table<K, V> {
    fn take(&mut self, out: &mut Vec<Row>) {
        for key in std::mem::take(&mut self.changed) {
            let value = self.map.get(&key).map(encode);
            out.push(Row { key: format!("{}/{key}", self.name), value });
        }
    }

    fn put(&mut self, row: &Row) -> Result<bool, RowError> {
        let Some(key) = row.key.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('/')) else {
            return Ok(false);
        };
        let key = key.parse().map_err(|_| RowError::new(&row.key, "its key is malformed"))?;
        if let Some(value) = &row.value {
            self.map.insert(key, decode(&row.key, value)?);
        }
        Ok(true)
    }
}

/// One value that is stored as one row.
#[derive(Debug, Clone)]
pub struct Field<T> {
    name: &'static str,
    value: T,
    changed: bool,
}

impl<T: Serialize + DeserializeOwned> Field<T> {
    /// A field with its first value, stored at the next [`Rows::take`]. `name` is the stored key and never changes.
    pub fn new(name: &'static str, value: T) -> Self {
        Field { name, value, changed: true }
    }

    /// The value to be changed.
    pub fn edit(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

impl<T> std::ops::Deref for Field<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize + DeserializeOwned> Rows for Field<T> {
    fn take(&mut self, out: &mut Vec<Row>) {
        if std::mem::take(&mut self.changed) {
            out.push(Row { key: self.name.to_owned(), value: Some(encode(&self.value)) });
        }
    }

    fn put(&mut self, row: &Row) -> Result<bool, RowError> {
        if row.key != self.name {
            return Ok(false);
        }
        if let Some(value) = &row.value {
            self.value = decode(&row.key, value)?;
            self.changed = false;
        }
        Ok(true)
    }
}

fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: cell state has only types that JSON can hold")
}

fn decode<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, RowError> {
    serde_json::from_str(text).map_err(|why| RowError::new(key, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_hands_out_only_what_changed() {
        let mut table: Table<u64, String> = Table::new("t");
        table.insert(1, "a".into());
        table.insert(2, "b".into());
        let mut rows = vec![];
        table.take(&mut rows);
        assert_eq!(rows.len(), 2);

        rows.clear();
        table.get_mut(&2).unwrap().push('!');
        table.remove(&1);
        table.take(&mut rows);
        let expect =
            [Row { key: "t/1".into(), value: None }, Row { key: "t/2".into(), value: Some("\"b!\"".into()) }];
        assert_eq!(rows, expect);
    }

    #[test]
    fn a_damaged_row_is_named() {
        let mut table: Table<u64, u32> = Table::new("t");
        let row = Row { key: "t/1".into(), value: Some("x".into()) };
        assert!(table.put(&row).unwrap_err().to_string().contains("`t/1`"));
    }
}
