//! Parquet files, as `datasets` and the hub write them.

use std::fs::File;
use std::sync::Arc;

use ::parquet::basic::ConvertedType;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row as Record};
use serde_json::{Map, Number, Value};

use super::files::DataFile;
use super::row::{Body, Layout, Place, Row};
use crate::data::guard::guarded;
use crate::{Error, Result};

/// The rows of a file. Holds a page of each column.
pub(super) struct Table {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    rows: RowIter<'static>,
    number: u64,
    bytes_a_row: f64,
    n_reported: u64,
    has_failed: bool,
}

impl Table {
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<Self> {
        let input = File::open(&file.path).map_err(|e| Error::io("read", &file.path, e))?;
        let n_bytes = input.metadata().map_err(|e| Error::io("read", &file.path, e))?.len();
        let open = || SerializedFileReader::new(input).map_err(|e| e.to_string());
        let reader = guarded(open).map_err(|e| fail(file, &e))?;
        let n_rows = reader.metadata().file_metadata().num_rows().max(1);
        check_types(file, &reader)?;
        Ok(Table {
            file: Arc::clone(file),
            layout: Arc::clone(layout),
            rows: reader.into_iter(),
            number: 0,
            bytes_a_row: n_bytes as f64 / n_rows as f64,
            n_reported: 0,
            has_failed: false,
        })
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

impl Iterator for Table {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let record = guarded(|| self.rows.next().transpose().map_err(|e| e.to_string())).transpose()?;
        self.number += 1;
        let done = (self.number as f64 * self.bytes_a_row) as u64;
        let n_bytes = done - std::mem::replace(&mut self.n_reported, done);
        Some(match record {
            Ok(record) => {
                let body = Body::Record(object(record));
                Ok(Row::new(&self.file, &self.layout, Place::Row(self.number), n_bytes, body))
            }
            Err(e) => {
                self.has_failed = true;
                let e = e.lines().next().unwrap_or_default();
                Err(Error::file(&self.file.path, format!("row {}: {e}; write the file again", self.number)))
            }
        })
    }
}

fn fail(file: &DataFile, e: &str) -> Error {
    let e = e.lines().next().unwrap_or_default();
    Error::file(&file.path, format!("not Parquet that hbt can read ({e}); write it again"))
}

fn object(record: Record) -> Map<String, Value> {
    record.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// A field as JSON has it.
fn value(field: Field) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
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
