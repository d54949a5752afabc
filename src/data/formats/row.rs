//! A row of a data file, before and after it is parsed.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::columns::Columns;
use super::files::DataFile;
use super::notes::{Note, Notes};
use super::object::parse_object;
use super::tables::Tables;
use super::{Group, Text, flat, negatives, parallel};
use crate::{Error, Result};

/// A row that has been read but, unless it is of SQuAD layout, not yet parsed.
pub struct Row {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    place: Place,
    n_bytes: u64,
    body: Body,
}

/// Where a row is in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Line(u64),
    Row(u64),
}

impl Place {
    /// An error there.
    pub(super) fn error(self, path: &Path, message: impl std::fmt::Display) -> Error {
        match self {
            Place::Line(number) => Error::line(path, number, message.to_string()),
            Place::Row(number) => Error::file(path, format!("row {number}: {message}")),
        }
    }
}

pub(super) enum Body {
    /// JSON text.
    Json(Vec<u8>),
    /// Columns of another format.
    Record(Map<String, Value>),
    Group(Group),
}

/// How the rows of a data set become groups, and what there is to say about it.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) is_parallel: bool,
    pub(super) columns: Columns,
    /// What has the texts of rows that name them by ids.
    pub(super) tables: Option<Tables>,
    pub(super) notes: Mutex<Notes>,
}

impl Layout {
    /// Takes a note.
    pub(super) fn note(&self, note: Note, n: u64) {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(note, n);
    }

    /// Takes over notes.
    pub(super) fn note_all(&self, notes: &Notes) {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(notes);
    }

    fn parse(&self, mut row: Map<String, Value>, place: &dyn Fn() -> String) -> std::result::Result<Group, String> {
        let group = match self.is_parallel {
            true => parallel::parse(&mut row, place)?,
            false => flat::parse(&mut row, &self.columns, place)?,
        };
        // What is still in the row is of no use.
        row.retain(|_, value| !value.is_null());
        for (column, _) in row {
            self.note(Note::UnusedColumn(column), 1);
        }
        Ok(group)
    }
}

impl Row {
    pub(super) fn new(file: &Arc<DataFile>, layout: &Arc<Layout>, place: Place, n_bytes: u64, body: Body) -> Self {
        Row { file: Arc::clone(file), layout: Arc::clone(layout), place, n_bytes, body }
    }

    /// Bytes of the data files that this row takes up: the unit of progress.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The row as a group, or as a part of the group with its id.
    ///
    /// # Errors
    /// Invalid UTF-8 or JSON, or a row without a required field; the message names the line or row.
    pub fn parse(&self) -> Result<Group> {
        if let Body::Group(group) = &self.body {
            return Ok(group.clone());
        }
        let mut columns = self.columns()?;
        if let Some(tables) = &self.layout.tables {
            tables.fill(&mut columns, self)?;
        }
        self.layout.parse(columns, &|| self.place_name()).map_err(|message| self.error(message))
    }

    /// The row's columns.
    pub(super) fn columns(&self) -> Result<Map<String, Value>> {
        match &self.body {
            Body::Group(_) => Ok(Map::new()),
            Body::Json(text) => parse_object(text).map_err(|message| self.error(message)),
            Body::Record(record) => Ok(record.clone()),
        }
    }

    /// Whether `group`, which parsing has returned, has its id from the data, so that other rows may be parts of it,
    /// too, and not from this row's place.
    pub fn is_named(&self, group: &Group) -> bool {
        group.identity.is_some() || matches!(self.body, Body::Group(_)) || group.id != self.place_name()
    }

    /// Where the row is in its file.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Its file and place: the id of a row that has none.
    pub(super) fn place_name(&self) -> String {
        let (Place::Line(number) | Place::Row(number)) = self.place;
        format!("{}:{number}", self.file.name)
    }

    /// The row as JSON, with `negatives` after those that it has, or instead of them, where its dialect has them.
    ///
    /// # Errors
    /// A row that cannot be read, or that takes no negatives.
    pub fn with_negatives(&self, negatives: &[Text], replace: bool) -> Result<String> {
        let text = match &self.body {
            Body::Json(text) => Cow::Borrowed(text.as_slice()),
            Body::Record(record) => Cow::Owned(serde_json::to_vec(record).unwrap_or_default()),
            Body::Group(_) => return Err(self.error("whole groups are written as parallel rows")),
        };
        let layout = &self.layout;
        negatives::add(&text, layout.is_parallel, &layout.columns, negatives, replace).map_err(|e| self.error(e))
    }

    /// An error at this row's place.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        match &self.body {
            Body::Group(group) => Error::file(&self.file.path, format!("question {}: {message}", group.id)),
            _ => self.place.error(&self.file.path, message),
        }
    }
}
