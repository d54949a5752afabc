//! Columns of Parquet files: some rows of each wanted one at a time, and nothing of the others.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::{ColumnDescriptor, Type};

use super::cell::{CONTENT, Cell, Column, Parsed, ROLE, check_columns, turn};
use super::table::Row;
use crate::data::guard::guarded;
use crate::{Error, Result};

/// Rows of a column that are taken at once.
const BATCH: usize = 256;

/// The rows of a file.
pub(super) struct Parquet {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// Of each wanted column, where the file has it: nowhere, in one column, or its roles and contents in two.
    leaves: Vec<Vec<Leaf>>,
    /// Row group that is read next.
    group: usize,
    columns: Vec<Vec<ColumnReader>>,
    cells: Vec<IntoIter<Cell>>,
    /// Rows of the group that are still to be read, and those that are in `cells`.
    n_in_group: usize,
    n_in_batch: usize,
    number: u64,
    bytes_a_row: f64,
}

/// A column of the file.
#[derive(Clone, Copy)]
struct Leaf {
    number: usize,
    max_definition: i16,
    /// Of a list, the definition level from which on there is an item.
    of_item: Option<i16>,
}

/// Number of rows of a file, by its footer.
///
/// # Errors
/// A file that is no Parquet.
pub(super) fn n_rows(path: &Path) -> Result<u64> {
    let reader = open(path)?;
    Ok(reader.metadata().file_metadata().num_rows().max(0) as u64)
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let input = File::open(path).map_err(|e| Error::io("read", path, e))?;
    guarded(|| SerializedFileReader::new(input).map_err(|e| e.to_string())).map_err(|e| damaged(path, &e))
}

impl Parquet {
    pub(super) fn open(path: &Path, wanted: &[Column]) -> Result<Parquet> {
        let reader = open(path)?;
        let n_bytes = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
        let n_rows = reader.metadata().file_metadata().num_rows().max(1);
        let leaves = guarded(|| leaves(&reader, wanted)).map_err(|e| Error::file(path, e))?;
        Ok(Parquet {
            path: path.to_owned(),
            reader,
            columns: leaves.iter().map(|_| Vec::new()).collect(),
            cells: leaves.iter().map(|_| vec![].into_iter()).collect(),
            leaves,
            group: 0,
            n_in_group: 0,
            n_in_batch: 0,
            number: 0,
            bytes_a_row: n_bytes as f64 / n_rows as f64,
        })
    }

    /// Bytes of the file that the rows read so far take up, as if all were of one length.
    pub(super) fn n_bytes_done(&self) -> u64 {
        (self.number as f64 * self.bytes_a_row) as u64
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>> {
        if self.n_in_batch == 0 {
            let filled = guarded(|| self.fill());
            let number = self.number + 1;
            let is_any = filled.map_err(|e| {
                let e = e.lines().next().unwrap_or_default();
                Error::file(&self.path, format!("row {number}: {e}; write or fetch the file again"))
            })?;
            if !is_any {
                return Ok(None);
            }
        }
        self.n_in_batch -= 1;
        self.number += 1;
        let cells = self.cells.iter_mut().map(|cells| cells.next().unwrap_or(Cell::Null)).collect();
        Ok(Some(Row { number: self.number, cells }))
    }

    /// Reads some rows of each column; says whether there are any.
    fn fill(&mut self) -> Parsed<bool> {
        while self.n_in_group == 0 {
            if self.group == self.reader.num_row_groups() {
                return Ok(false);
            }
            let group = self.reader.get_row_group(self.group).map_err(|e| e.to_string())?;
            for (columns, leaves) in self.columns.iter_mut().zip(&self.leaves) {
                let open = |leaf: &Leaf| group.get_column_reader(leaf.number).map_err(|e| e.to_string());
                *columns = leaves.iter().map(open).collect::<Parsed<_>>()?;
            }
            let n_rows = group.metadata().num_rows();
            self.n_in_group = usize::try_from(n_rows).map_err(|_| format!("a group of {n_rows} rows"))?;
            self.group += 1;
        }
        let n = self.n_in_group.min(BATCH);
        for ((cells, columns), leaves) in self.cells.iter_mut().zip(&mut self.columns).zip(&self.leaves) {
            let read = columns.iter_mut().zip(leaves).map(|(column, leaf)| read(column, *leaf, n));
            let mut read = read.collect::<Parsed<Vec<_>>>()?;
            if let Some(short) = read.iter().find(|read| read.len() != n) {
                return Err(format!("{} of {n} values", short.len()));
            }
            let last = read.pop().unwrap_or_default();
            *cells = match read.pop() {
                Some(roles) => roles.into_iter().zip(last).map(|(roles, contents)| turns(roles, contents)).collect(),
                None => last,
            }
            .into_iter();
        }
        (self.n_in_group, self.n_in_batch) = (self.n_in_group - n, n);
        Ok(true)
    }
}

fn damaged(path: &Path, e: &str) -> Error {
    let e = e.lines().next().unwrap_or_default();
    Error::file(path, format!("not Parquet that hbt can read ({e}); write or fetch it again"))
}

/// The wanted columns of a file.
fn leaves(reader: &SerializedFileReader<File>, wanted: &[Column]) -> Parsed<Vec<Vec<Leaf>>> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let top = |column: &ColumnDescriptor| column.path().parts().first().cloned().unwrap_or_default();
    let names: Vec<String> = schema.columns().iter().map(|column| top(column)).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.dedup();
    check_columns(wanted, |name| names.iter().any(|of| of == name), &all)?;
    let leaf = |number: usize| {
        let column = schema.column(number);
        let of_item = (column.max_rep_level() == 1).then(|| item_level(schema.root_schema(), column.path().parts()));
        Leaf { number, max_definition: column.max_def_level(), of_item }
    };
    let part = |number: usize| schema.column(number).path().parts().last().cloned().unwrap_or_default();
    let of_name = |name: &str| {
        let mut numbers: Vec<usize> = (0..names.len()).filter(|number| names[*number] == name).collect();
        let is_flat = numbers.iter().all(|number| schema.column(*number).max_rep_level() <= 1);
        let parts: Vec<String> = numbers.iter().map(|number| part(*number)).collect();
        match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [_] if is_flat => {}
            [ROLE, CONTENT] if is_flat => {}
            [CONTENT, ROLE] if is_flat => numbers.reverse(),
            _ => {
                let expected = "expected texts, numbers or lists of them";
                return Err(format!("the column {name} has parts of its own; {expected}"));
            }
        }
        Ok(numbers.into_iter().map(leaf).collect())
    };
    let names_of = wanted.iter().map(|column| column.names.iter().find(|name| names.iter().any(|of| of == *name)));
    names_of.map(|name| name.map_or(Ok(Vec::new()), |name| of_name(name))).collect()
}

/// The turns of a conversation, whose roles and contents are lists.
fn turns(roles: Cell, contents: Cell) -> Cell {
    match (roles, contents) {
        (Cell::List(roles), Cell::List(contents)) if roles.len() == contents.len() => {
            Cell::List(roles.into_iter().zip(contents).map(|(role, content)| turn(role, content)).collect())
        }
        (Cell::Null, Cell::Null) => Cell::Null,
        (role, content) => turn(role, content),
    }
}

/// The definition level of the repeated part of a path.
fn item_level(root: &Type, path: &[String]) -> i16 {
    use ::parquet::basic::Repetition;
    let (mut level, mut at) = (0, root);
    for name in path {
        let Some(next) = at.get_fields().iter().find(|field| field.name() == name) else { break };
        match next.get_basic_info().has_repetition().then(|| next.get_basic_info().repetition()) {
            Some(Repetition::REPEATED) => return level + 1,
            Some(Repetition::OPTIONAL) => level += 1,
            _ => {}
        }
        at = next;
        if at.is_primitive() {
            break;
        }
    }
    level
}

/// Reads `n` rows of a column.
fn read(column: &mut ColumnReader, leaf: Leaf, n: usize) -> Parsed<Vec<Cell>> {
    match column {
        ColumnReader::BoolColumnReader(reader) => rows(reader, leaf, n, |value| Ok(Cell::Integer((*value).into()))),
        ColumnReader::Int32ColumnReader(reader) => rows(reader, leaf, n, |value| Ok(Cell::Integer((*value).into()))),
        ColumnReader::Int64ColumnReader(reader) => rows(reader, leaf, n, |value| Ok(Cell::Integer(*value))),
        ColumnReader::FloatColumnReader(reader) => rows(reader, leaf, n, |value| Ok(Cell::Float((*value).into()))),
        ColumnReader::DoubleColumnReader(reader) => rows(reader, leaf, n, |value| Ok(Cell::Float(*value))),
        ColumnReader::ByteArrayColumnReader(reader) => rows(reader, leaf, n, text),
        _ => Err("a value that is neither text nor number".to_owned()),
    }
}

fn text(bytes: &ByteArray) -> Parsed<Cell> {
    let text = std::str::from_utf8(bytes.data()).map_err(|_| "a text that is not UTF-8")?;
    Ok(Cell::Text(text.to_owned()))
}

fn rows<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    leaf: Leaf,
    n: usize,
    cell: impl Fn(&T::T) -> Parsed<Cell>,
) -> Parsed<Vec<Cell>> {
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut n_read = 0;
    while n_read < n {
        let read = reader.read_records(n - n_read, Some(&mut definitions), Some(&mut repetitions), &mut values);
        let (n_new, ..) = read.map_err(|e| e.to_string())?;
        if n_new == 0 {
            return Err("the file ends early".to_owned());
        }
        n_read += n_new;
    }
    if leaf.max_definition == 0 {
        return values.iter().map(cell).collect();
    }
    let mut values = values.iter();
    let mut next = || values.next().ok_or_else(|| "fewer values than there should be".to_owned()).and_then(&cell);
    let Some(of_item) = leaf.of_item else {
        let is_there = |level: &i16| *level == leaf.max_definition;
        return definitions.iter().map(|level| if is_there(level) { next() } else { Ok(Cell::Null) }).collect();
    };
    let mut lists = Vec::with_capacity(n);
    for (definition, repetition) in definitions.iter().zip(&repetitions) {
        if *repetition == 0 {
            // A list that is null is one level below an empty one.
            lists.push(if definition + 1 < of_item { Cell::Null } else { Cell::List(Vec::new()) });
        }
        if *definition >= of_item {
            let item = if *definition == leaf.max_definition { next()? } else { Cell::Null };
            match lists.last_mut() {
                Some(Cell::List(items)) => items.push(item),
                _ => return Err("a list that does not begin".to_owned()),
            }
        }
    }
    Ok(lists)
}
