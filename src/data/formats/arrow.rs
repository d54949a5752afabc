//! Arrow files: what `Dataset.save_to_disk` of `datasets` writes and its cache holds (streams), and files with a footer.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType};
use serde_json::{Map, Number, Value};

use super::files::DataFile;
use super::open::Counted;
use super::row::{Body, Layout, Place, Row};
use crate::data::guard::guarded;
use crate::{Error, Result};

/// The first bytes of a file with a footer.
const MAGIC: [u8; 6] = *b"ARROW1";

type Batches = dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send;

/// The rows of a file. Holds one batch of them, of 1,000 rows where `datasets` wrote it.
pub(super) struct ArrowRows {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    batches: Box<Batches>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    /// Rows so far.
    number: u64,
    /// Bytes of the file that have been read, and how many of them rows have reported.
    taken: Arc<AtomicU64>,
    n_reported: u64,
    has_failed: bool,
}

impl ArrowRows {
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<Self> {
        let fail = |e| Error::io("read", &file.path, e);
        let mut input = File::open(&file.path).map_err(fail)?;
        let mut head = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head).map_err(fail)?;
        input.rewind().map_err(fail)?;
        let taken = Arc::new(AtomicU64::new(0));
        let input = BufReader::new(Counted { file: input, taken: Arc::clone(&taken) });
        let open = || -> std::result::Result<Box<Batches>, ArrowError> {
            Ok(match head == MAGIC {
                true => Box::new(FileReader::try_new(input, None)?),
                false => Box::new(StreamReader::try_new(input, None)?),
            })
        };
        let batches = guarded(|| open().map_err(|e| e.to_string())).map_err(|e| {
            let e = e.lines().next().unwrap_or_default();
            Error::file(&file.path, format!("not Arrow that hbt can read ({e}); write it again"))
        })?;
        Ok(ArrowRows {
            file: Arc::clone(file),
            layout: Arc::clone(layout),
            batches,
            batch: None,
            next: 0,
            number: 0,
            taken,
            n_reported: 0,
            has_failed: false,
        })
    }

    /// The next row's columns; `None` behind the last one.
    fn next_record(&mut self) -> std::result::Result<Option<Map<String, Value>>, String> {
        while self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows()) {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            (self.batch, self.next) = (Some(batch.map_err(|e| e.to_string())?), 0);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let row = self.next;
        self.next += 1;
        let schema = batch.schema_ref();
        let columns = schema.fields().iter().zip(batch.columns());
        Ok(Some(columns.map(|(field, column)| (field.name().clone(), value(column, row))).collect()))
    }
}

impl Iterator for ArrowRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let record = guarded(|| self.next_record()).transpose()?;
        self.number += 1;
        let taken = self.taken.load(Ordering::Relaxed);
        let n_bytes = taken - std::mem::replace(&mut self.n_reported, taken);
        Some(match record {
            Ok(record) => {
                Ok(Row::new(&self.file, &self.layout, Place::Row(self.number), n_bytes, Body::Record(record)))
            }
            Err(e) => {
                self.has_failed = true;
                let e = e.lines().next().unwrap_or_default();
                Err(Error::file(&self.file.path, format!("row {}: {e}; write the file again", self.number)))
            }
        })
    }
}

/// What a column has in a row, as JSON has it.
fn value(column: &dyn Array, row: usize) -> Value {
    macro_rules! number {
        ($type:ty) => {
            column.as_primitive::<$type>().value(row).into()
        };
    }
    if column.is_null(row) {
        return Value::Null;
    }
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(column.as_primitive::<Float16Type>().value(row).into()),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::List(_) => list(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(&column.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            Value::Object(columns.map(|(field, column)| (field.name().clone(), value(column, row))).collect())
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let entry = value(dictionary.keys(), row).as_u64().map_or(usize::MAX, |entry| entry as usize);
            if entry < dictionary.values().len() { value(dictionary.values(), entry) } else { Value::Null }
        }
        // No text; a list of nothing says so where one is wanted.
        _ => vec![Value::Null].into(),
    }
}

fn list(entries: &dyn Array) -> Value {
    (0..entries.len()).map(|entry| value(entries, entry)).collect()
}
