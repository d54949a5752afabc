//! The key `datasets`: a table for each dataset of a run that has more than one.

use std::path::PathBuf;

use toml::Value as Toml;

use super::choices::*;
use super::tables::{field, optional, read_all, table, written};
use super::value::{ANY, Bounds, KeyType, above};

/// One table of `datasets`. For fields that it leaves out, the keys of the same names hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Name in messages and `metrics.jsonl`; none: its `data`
    pub name: Option<String>,
    /// A file or a directory
    pub data: PathBuf,
    /// Layout of the data
    pub data_format: Option<Auto<DataFormat>>,
    /// Part of the data to train on
    pub split: Option<Auto<Split>>,
    /// Passage of SQuAD-layout data
    pub passage_unit: Option<PassageUnit>,
    /// Column of the queries
    pub query_column: Option<String>,
    /// Column of the positives
    pub positive_column: Option<String>,
    /// Column of the negatives
    pub negative_column: Option<String>,
    /// Whether flat rows with one id are versions of one question
    pub join_by_id: Option<bool>,
    /// Text put before every query
    pub query_prefix: Option<String>,
    /// Text put before every passage
    pub passage_prefix: Option<String>,
    /// Weight, above 0; see [`DatasetSampling`]
    pub weight: f64,
}

/// The fields of a table.
const FIELDS: [&str; 12] = [
    "name",
    "data",
    "data_format",
    "split",
    "passage_unit",
    "query_column",
    "positive_column",
    "negative_column",
    "join_by_id",
    "query_prefix",
    "passage_prefix",
    "weight",
];

impl Dataset {
    /// The dataset at `data`, with the other keys' values.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Dataset {
            name: None,
            data: data.into(),
            data_format: None,
            split: None,
            passage_unit: None,
            query_column: None,
            positive_column: None,
            negative_column: None,
            join_by_id: None,
            query_prefix: None,
            passage_prefix: None,
            weight: 1.0,
        }
    }

    /// The name, or the path if none is given.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.data.to_string_lossy().into_owned())
    }

    /// Reads a table; the error says what is wrong with it.
    fn read(value: &Toml) -> Result<Self, String> {
        let table = table(value, &FIELDS)?;
        let data = field::<PathBuf>(table, "data", &ANY)?;
        Ok(Dataset {
            name: optional(table, "name")?,
            data: data.ok_or("has no data; name a file or a directory")?,
            data_format: optional(table, "data_format")?,
            split: optional(table, "split")?,
            passage_unit: optional(table, "passage_unit")?,
            query_column: optional(table, "query_column")?,
            positive_column: optional(table, "positive_column")?,
            negative_column: optional(table, "negative_column")?,
            join_by_id: optional(table, "join_by_id")?,
            query_prefix: optional(table, "query_prefix")?,
            passage_prefix: optional(table, "passage_prefix")?,
            weight: field(table, "weight", &above(0.0))?.unwrap_or(1.0),
        })
    }

    fn write(&self) -> String {
        written([
            self.name.as_ref().map(|name| ("name", name.write())),
            Some(("data", self.data.write())),
            self.data_format.map(|format| ("data_format", format.write())),
            self.split.map(|split| ("split", split.write())),
            self.passage_unit.map(|unit| ("passage_unit", unit.write())),
            self.query_column.as_ref().map(|name| ("query_column", name.write())),
            self.positive_column.as_ref().map(|name| ("positive_column", name.write())),
            self.negative_column.as_ref().map(|name| ("negative_column", name.write())),
            self.join_by_id.map(|join| ("join_by_id", join.write())),
            self.query_prefix.as_ref().map(|prefix| ("query_prefix", prefix.write())),
            self.passage_prefix.as_ref().map(|prefix| ("passage_prefix", prefix.write())),
            Some(("weight", self.weight.write())),
        ])
    }
}

impl KeyType for Vec<Dataset> {
    fn expects(_: &Bounds) -> String {
        "a [[datasets]] table for each, with data and what differs from the other keys".to_owned()
    }
    fn complaint(value: &Toml) -> Option<String> {
        read_all(value, Dataset::read).err()
    }
    fn read(value: &Toml, _: &Bounds) -> Option<Self> {
        read_all(value, Dataset::read).ok()
    }
    fn write(&self) -> String {
        let tables: Vec<String> = self.iter().map(Dataset::write).collect();
        format!("[{}]", tables.join(", "))
    }
}
