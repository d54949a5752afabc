//! What the files of a data set hold: each by itself, all of one format, and those of the part that is meant.

use std::path::PathBuf;
use std::sync::Arc;

use super::files::{DataFile, Kind};
use super::lines::{first_line, first_of_list};
use super::notes::{Note, Notes};
use super::object::parse_object;
use super::part::{self, Names};
use super::source::{DataSource, read_file};
use super::{DataFormat, Split, parallel, squad};
use crate::choices::Auto;
use crate::{Error, Result};

impl DataSource {
    /// What a file holds, by its content where its name leaves that open.
    pub(super) fn settle(&self, file: &DataFile) -> Result<Kind> {
        if matches!(file.kind, Kind::Delimited(_) | Kind::Parquet | Kind::Arrow) {
            return Ok(file.kind);
        }
        let Some(line) = first_line(&file.path)? else { return Ok(Kind::Empty) };
        if line.trim_ascii_start().starts_with(b"[") {
            // Lists in lines are no objects in a list, and reported as such.
            let is_of_lists =
                file.kind == Kind::Lines && !line.contains(&b'{') && line.trim_ascii_end().ends_with(b"]");
            return Ok(if is_of_lists { Kind::Lines } else { Kind::List });
        }
        Ok(match parse_object(&line) {
            Ok(row) if row.get("data").is_some_and(serde_json::Value::is_array) => Kind::Squad,
            // A JSON document written over several lines; only SQuAD layout is one.
            Err(_) if file.kind == Kind::Json && !line.trim_ascii_end().ends_with(b"}") => Kind::Squad,
            // A line that does not parse is reported with its number when it is read.
            _ => Kind::Lines,
        })
    }

    /// Whether the rows are parallel or flat; all files have to agree. Empty files go.
    pub(super) fn format_of_rows(&self, files: &mut Vec<DataFile>, notes: &mut Notes) -> Result<DataFormat> {
        let (empty, full): (Vec<DataFile>, Vec<DataFile>) =
            std::mem::take(files).into_iter().partition(|file| file.kind == Kind::Empty);
        let Some(first) = full.first() else {
            return Err(match empty.first() {
                Some(file) => Error::file(&file.path, "the file is empty; expected one JSON object a line"),
                None => self.nothing(notes),
            });
        };
        empty.iter().for_each(|file| notes.add(Note::UnusedFile(format!("{} (empty)", file.name)), 1));
        if let (Auto::Of(asked), Some(file)) = (self.format, full.iter().find(|file| file.kind == Kind::Squad)) {
            let message = format!("is in SQuAD layout, not in rows as data_format = \"{asked}\" says; leave that out");
            return Err(Error::file(&file.path, message));
        }
        let format = match self.format {
            Auto::Of(given) => given,
            Auto::Auto => {
                let of_first = sniff(first)?;
                for file in &full[1..] {
                    if sniff(file)? != of_first {
                        let message = format!(
                            "{} has {of_first} rows and {} others; keep them apart as two datasets",
                            first.name, file.name
                        );
                        return Err(Error::file(&self.path, message));
                    }
                }
                of_first
            }
        };
        *files = full;
        Ok(format)
    }

    pub(super) fn nothing(&self, notes: &Notes) -> Error {
        let there = notes.lines();
        let there = there.first().map_or(String::new(), |files| format!("; {files}"));
        let message = match self.format {
            Auto::Of(format) => format!("no file here that data_format = \"{format}\" can be in{there}"),
            Auto::Auto => format!(
                "no data here that hbt knows; expected .jsonl, .csv, .tsv, .parquet or .arrow files, or one SQuAD file \
                 a language, named en.json, ar.json, ...{there}"
            ),
        };
        Error::file(&self.path, message)
    }

    pub(super) fn check_squad(&self, files: &[DataFile]) -> Result<()> {
        let squad = files.iter().find(|file| file.kind == Kind::Squad);
        match (squad, files.iter().find(|file| file.kind != Kind::Squad)) {
            (None, _) => Err(Error::file(
                &self.path,
                "no file in SQuAD layout here, as data_format = \"squad\" says; leave that out",
            )),
            (Some(squad), Some(other)) => Err(Error::file(
                &self.path,
                format!("{} is in SQuAD layout and {} is not; keep them apart", squad.name, other.name),
            )),
            _ => Ok(()),
        }
    }

    /// The `split.json` that has the articles of the part, where files and folders are not parts themselves.
    pub(super) fn dividing_file(&self, files: &[DataFile], split: Split) -> Result<Option<PathBuf>> {
        let by_files = files.iter().any(|file| part::is_of(file, split));
        if split == Split::All || by_files {
            return Ok(None);
        }
        let path = squad::split_file(&self.path);
        match path.exists() {
            true => Ok(Some(path)),
            false => Err(Error::file(
                path,
                format!(
                    "missing: split = \"{split}\" takes the titles of its articles from it; write it or use split = \
                     \"all\""
                ),
            )),
        }
    }

    /// The files of a part.
    pub(super) fn take_part(&self, files: Vec<DataFile>, split: Split, notes: &mut Notes) -> Result<Vec<DataFile>> {
        let n_files = files.len();
        let is_of_none = |file: &&DataFile| split != Split::All && part::is_of_none(file);
        let others: Vec<String> = files.iter().filter(is_of_none).map(|file| file.name.clone()).collect();
        let taken: Vec<DataFile> = files.into_iter().filter(|file| part::is_of(file, split)).collect();
        if taken.is_empty() {
            return Err(Error::file(
                &self.path,
                format!(
                    "no {split} part here, that is {}; ask for split \"all\" (split for training, eval_split for \
                     evaluation) to read everything",
                    Names(split)
                ),
            ));
        }
        others.iter().for_each(|name| notes.add(Note::UnusedFile(name.clone()), 1));
        if self.split == Auto::Auto && taken.len() < n_files {
            let line = format!("{split} part: {} of {n_files} files (split = \"all\" takes every file)", taken.len());
            notes.add(Note::Part(line), 1);
        }
        Ok(taken)
    }
}

/// Guesses the format of a file from its first row.
fn sniff(file: &DataFile) -> Result<DataFormat> {
    let first = match file.kind {
        Kind::List => first_of_list(file)?,
        // Not the run's own layout: nothing is noted of a row that will be read again. Nor are its errors reported yet.
        _ => read_file(&Arc::new(file.clone()), &Arc::default()).next().and_then(|row| row.ok()?.columns().ok()),
    };
    Ok(if first.is_some_and(|row| parallel::looks_parallel(&row)) { DataFormat::Parallel } else { DataFormat::Flat })
}
