//! Data on disk: finds the files of a data set, their format, and their train and test parts.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::arrow::Arrow;
use super::beir::{self, Collection};
use super::columns::Columns;
use super::delimited::Delimited;
use super::files::{self, DataFile, Kind};
use super::lines::{self, Lines};
use super::notes::{Note, Notes};
use super::parquet::Parquet;
use super::part::{self, Purpose};
use super::row::{Layout, Row};
use super::tables::{TableFiles, refuse_ids};
use super::{DataFormat, Group, PassageUnit, SharedIds, Split, open, squad};
use crate::choices::Auto;
use crate::{Error, Result};

/// A data set as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSource {
    /// A file, or a directory of files of one format.
    pub path: PathBuf,
    /// Layout of the files.
    pub format: Auto<DataFormat>,
    /// Part of the data. Data has parts if its files, or the folders they are in, are called `train`, `validation` and
    /// `test` (`train.jsonl`, `train-00000.parquet`, `train/a.jsonl`); SQuAD also if there is a `split.json`.
    pub split: Auto<Split>,
    /// What the data is for, which decides on the part where none is named.
    pub purpose: Purpose,
    /// Unit of a passage, in SQuAD.
    pub passage_unit: PassageUnit,
    /// Names of columns, in flat rows.
    pub columns: Columns,
}

/// A data set whose files and format are known.
pub struct Resolved {
    format: DataFormat,
    split: Split,
    /// Files that rows are read from.
    files: Vec<Arc<DataFile>>,
    /// Languages of the files in SQuAD layout, and the file that divides them.
    languages: Vec<String>,
    split_file: Option<PathBuf>,
    /// Of BEIR's layout.
    collections: Vec<Collection>,
    /// Of rows that name their texts by ids.
    tables: Option<TableFiles>,
    n_bytes: u64,
    source: DataSource,
    notes: Notes,
}

/// The rows of a data set, in the order of its files; see [`Row`].
pub struct Rows {
    rows: Box<dyn Iterator<Item = Result<Row>> + Send>,
    layout: Arc<Layout>,
}

impl DataSource {
    /// The data at `path`, with format and part found out.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataSource {
            path: path.into(),
            format: Auto::Auto,
            split: Auto::Auto,
            purpose: Purpose::Training,
            passage_unit: PassageUnit::Sentence,
            columns: Columns::default(),
        }
    }

    /// Finds the files, and looks at the head of each.
    ///
    /// # Errors
    /// If there is nothing at the path, or nothing that hbt can read, or files of different formats, or the data has no
    /// such part.
    pub fn resolve(&self) -> Result<Resolved> {
        let found = files::find(&self.path)?;
        let mut notes = Notes::default();
        found.unused.iter().for_each(|name| notes.add(Note::UnusedFile(name.clone()), 1));
        let (dividing, mut files): (Vec<DataFile>, Vec<DataFile>) =
            found.files.into_iter().partition(|file| file.name == squad::SPLIT_FILE);
        if matches!(self.format, Auto::Auto | Auto::Of(DataFormat::Beir)) {
            let collections = beir::collections(&files::file_name(&self.path), &mut files);
            if !collections.is_empty() {
                files.extend(dividing);
                files.iter().for_each(|file| notes.add(Note::UnusedFile(file.name.clone()), 1));
                return self.resolve_collections(collections, notes);
            }
        }
        for file in &mut files {
            file.kind = self.settle(file)?;
        }
        let tables = TableFiles::take(&mut files);
        if tables.is_none() {
            refuse_ids(&files)?;
        }
        let is_squad = |file: &DataFile| file.kind == Kind::Squad;
        let format = match (self.format, files.iter().any(is_squad)) {
            (Auto::Of(DataFormat::Squad), _) | (Auto::Auto, true) => DataFormat::Squad,
            _ => self.format_of_rows(&mut files, &mut notes)?,
        };
        let split = part::meant(self.split, self.purpose, &files);
        let mut split_file = None;
        if format == DataFormat::Squad {
            self.check_squad(&files)?;
            split_file = self.dividing_file(&files, split)?;
        } else {
            dividing.iter().for_each(|file| notes.add(Note::UnusedFile(file.name.clone()), 1));
        }
        if split_file.is_none() {
            files = self.take_part(files, split, &mut notes)?;
        }
        let languages = match format {
            DataFormat::Squad => squad::languages_of(&self.path, &mut files)?,
            _ => vec![],
        };
        let files = files.into_iter().map(Arc::new).collect();
        let (collections, n_bytes, source) = (vec![], 0, self.clone());
        Resolved { format, split, files, languages, split_file, collections, tables, n_bytes, source, notes }.sized()
    }

    /// The part of BEIR's layout that is meant: its judgements are files of parts.
    fn resolve_collections(&self, mut collections: Vec<Collection>, mut notes: Notes) -> Result<Resolved> {
        let all: Vec<DataFile> =
            collections.iter().flat_map(|of| &of.judgements).map(|file| DataFile::clone(file)).collect();
        let split = part::meant(self.split, self.purpose, &all);
        self.take_part(all, split, &mut notes)?;
        collections.iter_mut().for_each(|of| of.judgements.retain(|file| part::is_of(file, split)));
        let files = collections.iter().flat_map(Collection::files).cloned().collect();
        let (format, languages, split_file, tables, source) = (DataFormat::Beir, vec![], None, None, self.clone());
        Resolved { format, split, files, languages, split_file, collections, tables, n_bytes: 0, source, notes }.sized()
    }

    /// Reads all groups into memory, each whole and in the order of their first rows, and what there is to say about
    /// them; for evaluation sets, which are small. A text that a group has twice in one role and language is kept once.
    /// A teacher's scores are left out.
    pub fn read_groups(&self) -> Result<(Vec<Group>, Notes)> {
        self.read_groups_of(|_| true)
    }

    /// [`Self::read_groups`], but only those that are `wanted`: asked of every row as it is, of which a group may have
    /// several.
    pub fn read_groups_of(&self, wanted: impl Fn(&Group) -> bool) -> Result<(Vec<Group>, Notes)> {
        let data = self.resolve()?;
        let mut rows = data.rows()?;
        let mut groups: Vec<Group> = Vec::new();
        let mut by_identity: HashMap<String, usize> = HashMap::new();
        let (mut n_joined, mut shared_ids) = (0, SharedIds::default());
        for row in &mut rows {
            let part = row?.parse()?;
            if !wanted(&part) {
                continue;
            }
            shared_ids.add_group(&part);
            let at = *by_identity.entry(part.identity().to_owned()).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Group { id: part.id, identity: part.identity, ..Group::default() });
            } else {
                n_joined += 1;
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
        if let Some(group) = groups.iter().find(|group| group.positives.is_empty()) {
            return Err(super::without_positive(&self.path, &group.id));
        }
        let mut notes = data.notes().clone();
        notes.extend(&rows.notes());
        notes.add(Note::JoinedRows, n_joined);
        notes.add(Note::SharedIds, shared_ids.count());
        let texts = groups.iter().flat_map(|group| [&group.queries, &group.positives, &group.negatives]).flatten();
        notes.add(Note::UnusedInstructions, texts.filter(|text| text.instruction.is_some()).count() as u64);
        Ok((groups, notes))
    }
}

impl Resolved {
    fn sized(self) -> Result<Self> {
        let mut n_bytes = 0;
        for (_, path) in self.files() {
            n_bytes += fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
        }
        Ok(Resolved { n_bytes, ..self })
    }

    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The format; never `Auto`.
    pub fn format(&self) -> DataFormat {
        self.format
    }

    /// The part that is read.
    pub fn split(&self) -> Split {
        self.split
    }

    /// What there is to say about the files; the rows have [notes](Rows::notes) of their own.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// All files that the rows depend on, with their names within the data set, in the order of reading.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let dividing = self.split_file.iter().map(|path| (squad::SPLIT_FILE, path.as_path()));
        let tables = self.tables.iter().flat_map(TableFiles::files);
        self.files.iter().chain(tables).map(|file| (file.name.as_str(), file.path.as_path())).chain(dividing)
    }

    /// Size of all files.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The languages of SQuAD layout with their files; of other formats none.
    pub fn languages(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.languages.iter().zip(&self.files).map(|(lang, file)| (lang.as_str(), file.path.as_path()))
    }

    /// Titles of the articles that are read, in SQuAD layout; `None` means all.
    pub fn titles(&self) -> Result<Option<std::collections::HashSet<String>>> {
        self.split_file.as_deref().map(|path| squad::split_titles(path, self.split)).transpose()
    }

    /// Whether rows are groups only together with others or with tables, so that they are read as whole groups.
    pub fn is_of_files(&self) -> bool {
        self.format.is_of_files() || self.tables.is_some()
    }

    /// Whether rows can be read from the middle on: whether all are lines of files that are not packed.
    pub fn is_seekable(&self) -> Result<bool> {
        for file in &self.files {
            if self.is_of_files() || file.kind != Kind::Lines || !open::is_plain(&file.path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Starts reading in the middle of [seekable](Self::is_seekable) data: at the first row that begins after byte
    /// `offset` of all files together. Errors in such rows name no real line.
    pub fn rows_behind(&self, mut offset: u64) -> Result<Rows> {
        let layout = self.layout()?;
        for (number, file) in self.files.iter().enumerate() {
            let len = fs::metadata(&file.path).map_err(|e| Error::io("read", &file.path, e))?.len();
            if offset < len {
                let first = Lines::open_behind(file, &layout, offset)?;
                let rest = self.read_files(self.files[number + 1..].to_vec(), &layout);
                return Ok(Rows { rows: Box::new(first.chain(rest)), layout });
            }
            offset -= len;
        }
        Ok(Rows { rows: Box::new(std::iter::empty()), layout })
    }

    /// Starts reading. It takes the memory of one row; of a file, where that is one JSON document.
    pub fn rows(&self) -> Result<Rows> {
        let layout = self.layout()?;
        let rows: Box<dyn Iterator<Item = Result<Row>> + Send> = match self.format {
            DataFormat::Squad => {
                let languages = self.languages.iter().cloned().zip(self.files.iter().cloned()).collect();
                let unit = self.source.passage_unit;
                Box::new(squad::Questions::new(languages, self.titles()?, unit, Arc::clone(&layout)))
            }
            DataFormat::Beir => Box::new(beir::Queries::new(self.collections.clone(), Arc::clone(&layout))),
            _ => Box::new(self.read_files(self.files.clone(), &layout)),
        };
        Ok(Rows { rows, layout })
    }

    fn layout(&self) -> Result<Arc<Layout>> {
        let mut notes = Notes::default();
        let tables = self.tables.as_ref().map(|files| files.read(&mut notes)).transpose()?;
        let is_parallel = self.format == DataFormat::Parallel;
        Ok(Arc::new(Layout { is_parallel, columns: self.source.columns.clone(), tables, notes: Mutex::new(notes) }))
    }

    fn read_files(
        &self,
        files: Vec<Arc<DataFile>>,
        layout: &Arc<Layout>,
    ) -> impl Iterator<Item = Result<Row>> + Send + 'static {
        let layout = Arc::clone(layout);
        files.into_iter().flat_map(move |file| read_file(&file, &layout))
    }
}

impl Rows {
    /// What there is to say about the rows read and parsed so far.
    pub fn notes(&self) -> Notes {
        self.layout.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

/// The rows of one file, or the one error that keeps them from being read.
pub(super) fn read_file(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Box<dyn Iterator<Item = Result<Row>> + Send> {
    let rows: Result<Box<dyn Iterator<Item = Result<Row>> + Send>> = match file.kind {
        Kind::Delimited(delimiter) => Delimited::open(file, layout, delimiter).map(|rows| Box::new(rows) as _),
        Kind::Parquet => Parquet::open(file, layout).map(|rows| Box::new(rows) as _),
        Kind::Arrow => Arrow::open(file, layout).map(|rows| Box::new(rows) as _),
        Kind::List => lines::of_list(file, layout).map(|rows| Box::new(rows.into_iter().map(Ok)) as _),
        Kind::Lines | Kind::Json | Kind::Squad | Kind::Empty => {
            Lines::open(file, layout).map(|rows| Box::new(rows) as _)
        }
    };
    rows.unwrap_or_else(|e| Box::new(std::iter::once(Err(e))))
}
