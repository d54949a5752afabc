//! Tables of pairs of texts: bitext, semantic similarity (STS) and pair classification.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DEFAULT_SUBSET;
use super::cell::{Cell, Column, Parsed, needed};
use super::layout::{self, Splits, split_or_only};
use super::table::{Row, Table};
use crate::data::formats::files::{self, DataFile, Kind};
use crate::error::listed;
use crate::{Error, Result};

/// The tables of a data set. A config is a folder, or none, and its files are splits; [`place`](Tables::place) knows of the
/// other way round.
#[derive(Debug)]
pub struct Tables {
    root: PathBuf,
    configs: BTreeMap<String, Splits>,
}

/// Names of the columns that make pairs; of several the first that is there.
#[derive(Clone, Copy, Debug)]
pub struct PairColumns<'a> {
    /// Of the first texts.
    pub first: &'a [&'a str],
    /// Of the second texts.
    pub second: &'a [&'a str],
    /// Of the numbers that belong to them; bitext has none.
    pub gold: Option<&'a [&'a str]>,
}

impl PairColumns<'_> {
    /// Bitext, of a config for each pair of languages.
    pub const BITEXT: PairColumns<'static> = PairColumns { first: &["sentence1"], second: &["sentence2"], gold: None };
    /// Semantic similarity.
    pub const SIMILARITY: PairColumns<'static> =
        PairColumns { first: &["sentence1"], second: &["sentence2"], gold: Some(&["score"]) };
    /// Pair classification. Some data sets have the names that mteb gives new ones.
    pub const CLASSIFICATION: PairColumns<'static> = PairColumns {
        first: &["sentence1", "sent1"],
        second: &["sentence2", "sent2"],
        gold: Some(&["labels", "label"]),
    };
}

/// Pairs of texts in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// The first of each, unchanged.
    pub first: Vec<String>,
    /// The second of each, unchanged.
    pub second: Vec<String>,
    /// The number of each, a score or a label; empty for bitext.
    pub gold: Vec<f64>,
}

impl Tables {
    /// The tables in a directory.
    ///
    /// # Errors
    /// No directory, or no table in it.
    pub fn open(path: &Path) -> Result<Tables> {
        Tables::new(path, files::walk(path)?.files)
    }

    /// The tables in files of these names below `root`, which need not be there before they are read.
    ///
    /// # Errors
    /// None of them is a table.
    pub fn of_names<'a>(root: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<Tables> {
        Tables::new(root, layout::of_names(root, names))
    }

    fn new(root: &Path, mut files: Vec<DataFile>) -> Result<Tables> {
        // The readers of text without names know nothing of pairs. Commas are for data sets that have nothing else: beside
        // other tables they hold figures or a list of files.
        files.retain(|file| file.kind != Kind::Delimited(b'\t'));
        if files.iter().any(|file| file.kind != Kind::Delimited(b',')) {
            files.retain(|file| file.kind != Kind::Delimited(b','));
        }
        match files.is_empty() {
            true => {
                let expected = "expected Parquet, JSON lines or CSV, a folder for each config";
                Err(Error::file(root, format!("no table here; {expected}")))
            }
            false => Ok(Tables { root: root.to_owned(), configs: layout::configs(files) }),
        }
    }

    /// The names of the configs, in alphabetical order.
    pub fn configs(&self) -> impl Iterator<Item = &str> {
        self.configs.keys().map(String::as_str)
    }

    /// The folder and the file, as configs and splits are named here, that a config's split is in: its own folder may hold its
    /// splits, the split's folder a file of each config (`test/de.parquet`), and one folder for all of them files that are
    /// their configs' only splits (`data/arabic.csv`). `None` without such a config.
    pub fn place<'a>(&self, config: &'a str, split: &'a str) -> Option<(&'a str, &'a str)> {
        let has = |folder: &str, file: &str| self.configs.get(folder).is_some_and(|files| files.contains_key(file));
        let places = [(split, config), (DEFAULT_SUBSET, config)];
        match self.configs.contains_key(config) {
            true => Some((config, split)),
            false => places.into_iter().find(|(folder, file)| has(folder, file)),
        }
    }

    /// The names of the files of a split, or of a config's only one.
    ///
    /// # Errors
    /// No such config or split.
    pub fn files(&self, config: &str, split: &str) -> Result<Vec<&str>> {
        Ok(self.of_split(config, split)?.iter().map(|file| file.name.as_str()).collect())
    }

    /// The pairs of a split, or of the config's only one. A file whose only row has lists holds a pair for each item.
    ///
    /// # Errors
    /// No such config or split; a file that cannot be read; a row without a text or a number.
    pub fn pairs(&self, config: &str, split: &str, columns: PairColumns) -> Result<Pairs> {
        let wanted = [Some(columns.first), Some(columns.second), columns.gold];
        let wanted: Vec<Column> = wanted.into_iter().flatten().map(needed).collect();
        let mut pairs = Pairs::default();
        self.each_row(config, split, &wanted, usize::MAX, |cells| add(cells, &columns, &mut pairs))?;
        match pairs.first.is_empty() {
            true => Err(Error::file(&self.root, format!("config {config} has no pair in split {split}"))),
            false => Ok(pairs),
        }
    }

    /// Columns of texts of one table, such as one for each language, in the order in which they are named.
    ///
    /// # Errors
    /// No such config or split; a file that cannot be read or lacks a column; a text that is null.
    pub fn texts(&self, config: &str, split: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
        self.first_texts(config, split, columns, usize::MAX)
    }

    /// As [`texts`](Tables::texts), of the first `n_most` rows.
    ///
    /// # Errors
    /// As [`texts`](Tables::texts); of rows behind these, none.
    pub fn first_texts(&self, config: &str, split: &str, columns: &[&str], n_most: usize) -> Result<Vec<Vec<String>>> {
        let names: Vec<[&str; 1]> = columns.iter().map(|name| [*name]).collect();
        let wanted: Vec<Column> = names.iter().map(|name| needed(name)).collect();
        let mut texts = vec![Vec::new(); columns.len()];
        self.each_row(config, split, &wanted, n_most, |cells| {
            for ((cell, name), texts) in cells.into_iter().zip(columns).zip(&mut texts) {
                texts.push(cell.into_text(name)?);
            }
            Ok(())
        })?;
        Ok(texts)
    }

    /// Goes through the first `n_most` rows of a split; an error of `of_row` is one at that row.
    pub(super) fn each_row(
        &self,
        config: &str,
        split: &str,
        columns: &[Column],
        n_most: usize,
        mut of_row: impl FnMut(Vec<Cell>) -> Parsed<()>,
    ) -> Result<()> {
        let mut n_left = n_most;
        for file in self.of_split(config, split)? {
            let mut table = Table::open(&Arc::new(file.clone()), columns)?;
            while n_left > 0 {
                let Some(Row { number, cells }) = table.next_row()? else { break };
                of_row(cells).map_err(|e| table.error(number, e))?;
                n_left -= 1;
            }
        }
        Ok(())
    }

    /// The names of a config's splits.
    pub(super) fn splits(&self, config: &str) -> impl Iterator<Item = &str> {
        self.configs.get(config).into_iter().flat_map(|splits| splits.keys().map(String::as_str))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn of_split(&self, config: &str, split: &str) -> Result<&[DataFile]> {
        let there = |names: Vec<&String>| listed(&names.into_iter().cloned().collect::<Vec<_>>());
        let splits = self.configs.get(config).ok_or_else(|| {
            let there = there(self.configs.keys().collect());
            Error::file(&self.root, format!("no config {config} here; there is {there}"))
        })?;
        split_or_only(splits, split).map(|(_, files)| files).ok_or_else(|| {
            let there = there(splits.keys().collect());
            Error::file(&self.root, format!("config {config} has no split {split}; there is {there}"))
        })
    }
}

/// Adds the pair of a row, or the pairs of its lists.
fn add(cells: Vec<Cell>, columns: &PairColumns, pairs: &mut Pairs) -> Parsed<()> {
    let is_of_lists = cells.iter().all(|cell| matches!(cell, Cell::List(_)));
    let of_cell = |cell| match cell {
        Cell::List(items) if is_of_lists => items,
        other => vec![other],
    };
    let mut lists = cells.into_iter().map(of_cell);
    let mut list = || lists.next().unwrap_or_default();
    let (first, second, gold) = (list(), list(), list());
    if first.len() != second.len() || (columns.gold.is_some() && first.len() != gold.len()) {
        return Err(format!(
            "lists of {}, {} and {} items; expected as many of each",
            first.len(),
            second.len(),
            gold.len()
        ));
    }
    for (cells, names, texts) in [(first, columns.first, &mut pairs.first), (second, columns.second, &mut pairs.second)]
    {
        for cell in cells {
            texts.push(cell.into_text(names[0])?);
        }
    }
    for cell in gold {
        pairs.gold.push(number(&cell).ok_or_else(|| {
            format!("{} has to be a number, not {}", columns.gold.unwrap_or_default()[0], cell.kind())
        })?);
    }
    Ok(())
}

/// A finite number.
fn number(cell: &Cell) -> Option<f64> {
    let number = match cell {
        Cell::Integer(number) => *number as f64,
        Cell::Float(number) => *number,
        Cell::Text(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_folders_or_files() {
        let of = |names: &[&str]| Tables::of_names(Path::new("x"), names.iter().copied()).unwrap();
        let splits = of(&["en-de/test.jsonl", "en-de/train.jsonl", "data/fr.csv"]);
        assert_eq!(splits.place("en-de", "test"), Some(("en-de", "test")));
        // Not there, and an error when it is read.
        assert_eq!(splits.place("en-de", "dev"), Some(("en-de", "dev")));
        assert_eq!(splits.place("en-fr", "test"), None);
        // Commas count where there is nothing else.
        assert_eq!(splits.configs().collect::<Vec<_>>(), ["en-de"]);
        let files = of(&["test/en-de.jsonl.gz", "validation/en-de.jsonl.gz", "test/en-fr.parquet"]);
        assert_eq!(files.place("en-de", "validation"), Some(("validation", "en-de")));
        assert_eq!(files.files("validation", "en-de").unwrap(), ["validation/en-de.jsonl.gz"]);
        assert_eq!(files.place("en-fr", "validation"), None);
        let languages = of(&["data/french.csv", "data/korean.csv", "README.md", "qrels.tsv"]);
        assert_eq!(languages.place("korean", "test"), Some((DEFAULT_SUBSET, "korean")));
        assert_eq!(languages.place("arabic", "test"), None);
    }
}
