//! Parquet files, as `datasets` and the hub write them.

use std::fs::File;
use std::sync::Arc;

use ::parquet::basic::ConvertedType;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row as Record};
use serde_json::{Map, Value};

use super::files::DataFile;
use super::row::Layout;
use super::table_rows::{RecordReader, TableRows, float};
use crate::{Error, Result};

/// What is read of a file. Holds a page of each column.
pub(super) struct Parquet {
    rows: RowIter<'static>,
    bytes_a_row: f64,
}

impl Parquet {
    /// The rows of a file.
    ///
    /// # Errors
    /// One that cannot be read, or is no Parquet, or has columns that the library cannot read.
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<TableRows<Self>> {
        let input = File::open(&file.path).map_err(|e| Error::io("read", &file.path, e))?;
        let n_bytes = input.metadata().map_err(|e| Error::io("read", &file.path, e))?.len();
        let mut types = Ok(());
        let rows = TableRows::open(file, layout, || {
            let reader = SerializedFileReader::new(input).map_err(|e| e.to_string())?;
            types = check_types(file, &reader);
            let n_rows = reader.metadata().file_metadata().num_rows().max(1);
            Ok(Parquet { rows: reader.into_iter(), bytes_a_row: n_bytes as f64 / n_rows as f64 })
        })?;
        types.map(|()| rows)
    }
}

impl RecordReader for Parquet {
    const FORMAT: &'static str = "Parquet";

    fn next_record(&mut self) -> std::result::Result<Option<Map<String, Value>>, String> {
        Ok(self.rows.next().transpose().map_err(|e| e.to_string())?.map(object))
    }

    fn n_bytes_done(&self, n: u64) -> u64 {
        (n as f64 * self.bytes_a_row) as u64
    }
}

/// The library has no value for intervals.
fn check_types(file: &DataFile, reader: &SerializedFileReader<File>) -> Result<()> {
    let schema = reader.metadata().file_metadata().schema_descr();
    match schema.columns().iter().find(|column| column.converted_type() == ConvertedType::INTERVAL) {
        Some(column) => Err(Error::file(&file.path, format!("column {} holds intervals; leave it out", column.name()))),
        None => Ok(()),
    }
}

fn object(record: Record) -> Map<String, Value> {
    record.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// A field as JSON has it.
fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(n) => n.into(),
        Field::Short(n) => n.into(),
        Field::Int(n) | Field::Date(n) | Field::TimeMillis(n) => n.into(),
        Field::Long(n) | Field::TimeMicros(n) | Field::TimestampMillis(n) | Field::TimestampMicros(n) => n.into(),
        Field::UByte(n) => n.into(),
        Field::UShort(n) => n.into(),
        Field::UInt(n) => n.into(),
        Field::ULong(n) => n.into(),
        Field::Float16(n) => float(f64::from(n)),
        Field::Float(n) => float(f64::from(n)),
        Field::Double(n) => float(n),
        Field::Str(text) => text.into(),
        Field::Group(record) => object(record).into(),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => Value::Object(
            map.entries().iter().map(|(key, entry)| (key_text(key.clone()), value(entry.clone()))).collect(),
        ),
        // Older programs do not mark texts as such. Other bytes are no text, and a list of nothing says so where one is
        // wanted.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => vec![Value::Null].into(),
        },
        other @ Field::Decimal(_) => other.to_string().into(),
    }
}

fn key_text(key: Field) -> String {
    match value(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
