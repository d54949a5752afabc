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
use serde_json::{Map, Value};

use super::files::DataFile;
use super::open::Counted;
use super::row::Layout;
use super::table_rows::{RecordReader, TableRows, float};
use crate::{Error, Result};

/// The first bytes of a file with a footer.
const MAGIC: [u8; 6] = *b"ARROW1";

type Batches = dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send;

/// What is read of a file. Holds one batch of rows, of 1,000 where `datasets` wrote it.
pub(super) struct Arrow {
    batches: Box<Batches>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    /// Bytes of the file that have been read.
    taken: Arc<AtomicU64>,
}

impl Arrow {
    /// The rows of a file.
    ///
    /// # Errors
    /// One that cannot be read, or is no Arrow.
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<TableRows<Self>> {
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
        TableRows::open(file, layout, || {
            let batches = open().map_err(|e| e.to_string())?;
            Ok(Arrow { batches, batch: None, next: 0, taken })
        })
    }
}

impl RecordReader for Arrow {
    const FORMAT: &'static str = "Arrow";

    fn next_record(&mut self) -> std::result::Result<Option<Map<String, Value>>, String> {
        while self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows()) {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            (self.batch, self.next) = (Some(batch.map_err(|e| e.to_string())?), 0);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let row = self.next;
        self.next += 1;
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        Ok(Some(columns.map(|(field, column)| (field.name().clone(), value(column, row))).collect()))
    }

    fn n_bytes_done(&self, _: u64) -> u64 {
        self.taken.load(Ordering::Relaxed)
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
