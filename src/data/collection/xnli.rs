//! XNLI: whether a premise entails a hypothesis or contradicts it.
//!
//! As in mteb's XNLI a split of more than 2,048 rows is first cut to a sample of so many, in which the three classes have their
//! shares. Then what is neutral is left out; what is entailed is positive.

use super::cell::Parsed;
use super::stratified;
use super::{PairColumns, Pairs, Tables};
use crate::{Error, Result};

const COLUMNS: PairColumns = PairColumns { first: &["premise"], second: &["hypothesis"], gold: Some(&["label"]) };
const ENTAILMENT: usize = 0;
const CONTRADICTION: usize = 2;
const N_CLASSES: usize = 3;
/// Rows of the sample: `n_samples` of mteb's `stratified_subsampling`.
const N_SAMPLE: usize = 2048;

/// The pairs of a table, of which the [place](Tables::place) is given. `gold` is 1 for what is entailed, 0 for what is
/// contradicted.
///
/// # Errors
/// No such table; a file that cannot be read; a row without a text or with another label than 0, 1 and 2.
pub fn xnli(tables: &Tables, [folder, file]: [&str; 2]) -> Result<Pairs> {
    let all = tables.pairs(folder, file, COLUMNS)?;
    let fail = |message: String| Error::file(tables.root(), format!("{folder}/{file}: {message}"));
    let classes = all.gold.iter().map(class).collect::<Parsed<Vec<usize>>>().map_err(fail)?;
    let mut pairs = Pairs::default();
    for row in stratified::sample(&classes, N_CLASSES, N_SAMPLE).map_err(fail)? {
        let label = match classes[row] {
            ENTAILMENT => 1.0,
            CONTRADICTION => 0.0,
            _ => continue,
        };
        pairs.first.push(all.first[row].clone());
        pairs.second.push(all.second[row].clone());
        pairs.gold.push(label);
    }
    Ok(pairs)
}

fn class(label: &f64) -> Parsed<usize> {
    let place = (0..N_CLASSES).find(|class| *class as f64 == *label);
    place.ok_or_else(|| format!("the label {label}; expected 0 (entailment), 1 (neutral) or 2 (contradiction)"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::Arc;

    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    use tempfile::TempDir;

    use super::*;

    /// Writes `p0`, `p1`, ... and `h0`, `h1`, ... with these labels.
    fn write(path: &Path, labels: &[i64]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = |name: &str| format!("REQUIRED BYTE_ARRAY {name} (UTF8);");
        let schema = format!("message rows {{ {} {} REQUIRED INT64 label; }}", text("premise"), text("hypothesis"));
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let properties = Arc::new(WriterProperties::default());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for side in ["p", "h"] {
            let texts: Vec<ByteArray> = (0..labels.len()).map(|row| format!("{side}{row}").as_str().into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(labels, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    /// The rows that are kept, and their labels.
    fn rows(pairs: &Pairs) -> Vec<(usize, f64)> {
        let row = |text: &String| text[1..].parse().unwrap();
        assert!(pairs.first.iter().map(row).eq(pairs.second.iter().map(row)));
        assert!(pairs.first.iter().all(|text| text.starts_with('p')));
        assert!(pairs.second.iter().all(|text| text.starts_with('h')));
        pairs.first.iter().map(row).zip(pairs.gold.iter().copied()).collect()
    }

    /// The hub's layout, a folder a split. The rows of the sample are those of mteb 2.26.24, `datasets` 5.2.0, NumPy 2.4.6.
    #[test]
    fn pairs_are_those_of_mteb() {
        let dir = TempDir::new().unwrap();
        let thirds = |n: i64| (0..n).map(|row| row % 3).collect::<Vec<_>>();
        write(&dir.path().join("test/de.parquet"), &thirds(2100));
        write(&dir.path().join("validation/de.parquet"), &[2, 1, 0, 0, 1]);
        write(&dir.path().join("test/en.parquet"), &[2, 3]);
        let tables = Tables::open(dir.path()).unwrap();
        let of = |language, split| {
            let (folder, file) = tables.place(language, split).unwrap();
            xnli(&tables, [folder, file])
        };
        assert_eq!(rows(&of("de", "validation").unwrap()), [(0, 0.0), (2, 1.0), (3, 1.0)]);
        let sample = rows(&of("de", "test").unwrap());
        let expected = [(612, 1.0), (2027, 0.0), (315, 1.0), (674, 0.0), (30, 1.0), (1413, 1.0)];
        assert_eq!((sample.len(), &sample[..6]), (1365, &expected[..]));
        assert_eq!(sample[1362..], [(1755, 1.0), (1605, 1.0), (135, 1.0)]);
        let sum: usize = (1..).zip(&sample).map(|(place, (row, _))| place * row).sum();
        assert_eq!(sum, 966_646_859);
        let label = of("en", "test").unwrap_err().to_string();
        assert!(
            label.ends_with("test/en: the label 3; expected 0 (entailment), 1 (neutral) or 2 (contradiction)"),
            "{label}"
        );
    }
}
