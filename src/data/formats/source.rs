//! Data on disk: finds the files of a data set, their format, and their train and test parts.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::jsonl::{Lines, first_line};
use super::row::{DataFile, Row, parse_object};
use super::{DataFormat, Group, PassageUnit, Split, parallel, squad};
use crate::choices::Auto;
use crate::{Error, Result};

/// A data set as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSource {
    /// A JSONL file, a directory of them, or a directory of SQuAD files.
    pub path: PathBuf,
    /// Layout of the files.
    pub format: Auto<DataFormat>,
    /// Part of the data. JSONL has parts if its files, or the folders they are in, are called `train` and `test`
    /// (`train.jsonl`, `train-00000.jsonl`, `train/a.jsonl`); SQuAD if there is a `split.json`.
    pub split: Split,
    /// Unit of a passage, in SQuAD.
    pub passage_unit: PassageUnit,
}

/// A data set whose files and format are known.
pub struct Resolved {
    format: DataFormat,
    files: Vec<Arc<DataFile>>,
    n_bytes: u64,
    source: DataSource,
}

/// The rows of a data set, in the order of its files; see [`Row`].
pub struct Rows {
    rows: Box<dyn Iterator<Item = Result<Row>> + Send>,
    n_skipped: Arc<AtomicU64>,
}

impl DataSource {
    /// All data at `path`, with the format found out.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataSource { path: path.into(), format: Auto::Auto, split: Split::All, passage_unit: PassageUnit::Sentence }
    }

    /// Finds the files, and looks at the first one if the format is not given.
    ///
    /// # Errors
    /// If there is nothing at the path, or nothing that hbt can read, or the data has no such part.
    pub fn resolve(&self) -> Result<Resolved> {
        let metadata = fs::metadata(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        let jsonl = match self.format {
            Auto::Of(DataFormat::Squad) => vec![],
            _ => jsonl_files(&self.path, metadata.is_dir())?,
        };
        let format = match self.format {
            Auto::Auto => match jsonl.first() {
                Some(file) => sniff(file)?,
                None => DataFormat::Squad,
            },
            Auto::Of(given) => given,
        };
        let files = match format {
            DataFormat::Squad => self.squad_files()?,
            _ if jsonl.is_empty() => {
                return Err(Error::file(
                    &self.path,
                    format!("no .jsonl file here, which data_format = \"{format}\" needs"),
                ));
            }
            _ => self.part_of(jsonl)?,
        };
        let mut n_bytes = 0;
        for file in &files {
            n_bytes += fs::metadata(&file.path).map_err(|e| Error::io("read", &file.path, e))?.len();
        }
        let files = files.into_iter().map(Arc::new).collect();
        Ok(Resolved { format, files, n_bytes, source: self.clone() })
    }

    /// Reads all groups into memory, each whole and in the order of their first rows; for evaluation sets, which are
    /// small. A text that a group has twice in one role and language is kept once. A teacher's scores are left out.
    pub fn read_groups(&self) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for row in self.resolve()?.rows()? {
            let part = row?.parse()?;
            let at = *by_id.entry(part.id.clone()).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Group { id: part.id, ..Group::default() });
            }
            let group = &mut groups[at];
            for (whole, part) in [
                (&mut group.queries, part.queries),
                (&mut group.positives, part.positives),
                (&mut group.negatives, part.negatives),
            ] {
                for text in part {
                    if !whole.contains(&text) {
                        whole.push(text);
                    }
                }
            }
        }
        Ok(groups)
    }

    fn squad_files(&self) -> Result<Vec<DataFile>> {
        let mut files: Vec<PathBuf> = squad::languages(&self.path)?.into_iter().map(|(_, path)| path).collect();
        if squad::split_titles(&self.path, self.split)?.is_some() {
            files.push(squad::split_file(&self.path));
        }
        Ok(files.into_iter().map(|path| DataFile { name: file_name(&path), path }).collect())
    }

    /// The files of the part that `split` asks for.
    fn part_of(&self, mut files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        let wanted = match self.split {
            Split::All => return Ok(files),
            Split::Train => "train",
            Split::Test => "test",
        };
        files.retain(|file| file.name.split('/').any(|name| is_part(name, wanted)));
        if !files.is_empty() {
            return Ok(files);
        }
        Err(Error::file(
            &self.path,
            format!(
                "no {wanted} part here, that is {wanted}.jsonl or a folder {wanted}/ of .jsonl files; ask for split \"all\" \
                 (split for training, eval_split for evaluation) to read everything"
            ),
        ))
    }
}

impl Resolved {
    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The format; never `Auto`.
    pub fn format(&self) -> DataFormat {
        self.format
    }

    /// All files that the rows depend on, with their names within the data set, in the order of reading.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &Path)> {
        self.files.iter().map(|file| (file.name.as_str(), file.path.as_path()))
    }

    /// Size of all files.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Starts reading in the middle: JSONL at the first row that begins after byte `offset` of all files together,
    /// SQuAD, which cannot be read from the middle, at the end. Errors in such rows name no real line.
    pub fn rows_behind(&self, offset: u64) -> Result<Rows> {
        let n_skipped = Arc::default();
        if self.format == DataFormat::Squad {
            return Ok(Rows { rows: Box::new(std::iter::empty()), n_skipped });
        }
        let mut lines = Lines::new(self.files.clone(), self.format == DataFormat::Parallel);
        lines.skip_to(offset)?;
        Ok(Rows { rows: Box::new(lines), n_skipped })
    }

    /// Starts reading. JSONL takes the memory of one line, SQuAD that of one file.
    pub fn rows(&self) -> Result<Rows> {
        let n_skipped = Arc::default();
        let rows: Box<dyn Iterator<Item = Result<Row>> + Send> = match self.format {
            DataFormat::Squad => {
                let titles = squad::split_titles(&self.source.path, self.source.split)?;
                let languages = squad::languages(&self.source.path)?;
                Box::new(squad::Questions::new(languages, titles, self.source.passage_unit, Arc::clone(&n_skipped)))
            }
            format => Box::new(Lines::new(self.files.clone(), format == DataFormat::Parallel)),
        };
        Ok(Rows { rows, n_skipped })
    }
}

impl Rows {
    /// Number of questions left out so far because no sentence holds their answer.
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped.load(Ordering::Relaxed)
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

/// The file itself, or the .jsonl files of a directory and of the folders in it, in the order of their names.
fn jsonl_files(root: &Path, is_dir: bool) -> Result<Vec<DataFile>> {
    if !is_dir {
        return Ok(vec![DataFile { name: file_name(root), path: root.to_owned() }]);
    }
    let mut files = Vec::new();
    for path in entries(root)? {
        let name = file_name(&path);
        if path.is_dir() {
            for inner in entries(&path)?.into_iter().filter(|inner| is_jsonl(inner)) {
                files.push(DataFile { name: format!("{name}/{}", file_name(&inner)), path: inner });
            }
        } else if is_jsonl(&path) {
            files.push(DataFile { name, path });
        }
    }
    Ok(files)
}

/// Files and folders in a directory, without hidden ones, in the order of their names.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl") && path.is_file()
}

/// Whether a file or folder name is that of a part: `train`, `train.jsonl`, `train-00000-of-00004.jsonl`, `train_de.jsonl`.
fn is_part(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '_']))
}

/// Guesses the format of a file from its first row.
fn sniff(file: &DataFile) -> Result<DataFormat> {
    let Some(line) = first_line(&file.path)? else {
        return Err(Error::file(&file.path, "the file is empty; expected one JSON object a line"));
    };
    if line.trim_ascii_start().starts_with(b"[") {
        return Err(Error::line(
            &file.path,
            1,
            "the file is one JSON list; hbt reads one object a line: jq -c '.[]' FILE > FILE.jsonl",
        ));
    }
    let is_json = file.path.extension().is_some_and(|extension| extension == "json");
    Ok(match parse_object(&line) {
        Ok(row) if row.contains_key("data") => DataFormat::Squad,
        Ok(row) if parallel::looks_parallel(&row) => DataFormat::Parallel,
        // A JSON document written over several lines.
        Err(_) if is_json => DataFormat::Squad,
        // A line that does not parse is reported with its number when it is read.
        _ => DataFormat::Flat,
    })
}
