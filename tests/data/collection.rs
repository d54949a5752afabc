//! Retrieval tasks on disk: every layout, what is left out of each, and what is said of those that cannot be read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hbt::data::collection::{self, Collection, Document, JudgedQuery};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::io::Write;
use tempfile::TempDir;

use super::{message, write};

const CORPUS: &str = r#"{"_id": "d1", "title": "T", "text": "one", "url": "x"}
{"_id": 2, "title": "", "text": " two "}

{"_id": "d3", "title": null, "text": ""}
"#;
const QUERIES: &str = r#"{"_id": "q1", "text": " first?"}
{"_id": "q2", "text": "not judged?"}
{"_id": 3, "text": "third?", "metadata": {}}
"#;
const JUDGEMENTS: &str = "query-id\tcorpus-id\tscore\nq1\td1\t2\n3\t2\t0\nq1\t2\t-1\n";

/// The documents of a collection, as (id, text).
fn documents(collection: &Collection) -> hbt::Result<Vec<(String, String)>> {
    let pair = |Document { id, text }| (id, text);
    collection.documents().map(|document| document.map(pair)).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn query(row: usize, id: &str, text: &str, judgements: &[(&str, i32)]) -> JudgedQuery {
    let judgements = judgements.iter().map(|(id, grade)| ((*id).to_owned(), *grade)).collect();
    JudgedQuery { row, id: id.into(), text: text.into(), judgements, candidates: None }
}

fn load(dir: &Path, subset: &str, split: &str) -> hbt::Result<Collection> {
    collection::open(dir)?.load(subset, split)
}

/// Notes of queries and judgements, then those of documents.
fn notes(collection: &Collection) -> Vec<String> {
    let mut documents = collection.documents();
    documents.by_ref().for_each(|document| drop(document.unwrap()));
    [collection.notes.lines(), documents.notes().lines()].concat()
}

/// What [`CORPUS`], [`QUERIES`] and [`JUDGEMENTS`] hold.
fn check(collection: &Collection) {
    let expected = [query(0, "q1", " first?", &[("d1", 2), ("2", -1)]), query(2, "3", "third?", &[("2", 0)])];
    assert_eq!(collection.queries, expected);
    assert_eq!(collection.n_query_rows, 3);
    for _ in 0..2 {
        assert_eq!(documents(collection).unwrap(), pairs(&[("d1", "T one"), ("2", "two"), ("d3", "")]));
    }
    let mut documents = collection.documents();
    assert_eq!(documents.n_bytes_done(), 0);
    assert_eq!(documents.by_ref().count(), 3);
    assert_eq!(documents.n_bytes_done(), collection.n_bytes().unwrap());
    assert_eq!(notes(collection), [""; 0]);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// BEIR's layout in `folder` of `dir`.
fn write_beir(dir: &Path, folder: &str) {
    write(dir, &format!("{folder}corpus.jsonl"), CORPUS);
    write(dir, &format!("{folder}queries.jsonl"), QUERIES);
    write(dir, &format!("{folder}qrels/test.tsv"), JUDGEMENTS);
}

#[test]
fn beir_directories() {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    write(dir.path(), "qrels/dev.tsv", "q2 0 d3 1\n");
    let all = collection::open(dir.path()).unwrap();
    assert_eq!(all.subsets().collect::<Vec<_>>(), ["default"]);
    assert_eq!(all.splits("default").unwrap(), ["dev", "test"]);
    assert_eq!(all.files("default", "test").unwrap(), ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"]);
    check(&all.load("default", "test").unwrap());
    // TREC's four columns, without a header.
    assert_eq!(all.load("default", "dev").unwrap().queries, [query(1, "q2", "not judged?", &[("d3", 1)])]);
    let none = message(all.load("default", "train"));
    assert!(
        none.ends_with("subset default has no split train of its judgements (qrels); there is dev, test"),
        "{none}"
    );
}

#[test]
fn packed_beir_directories_one_a_language() {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "zho_Hans/");
    write(dir.path(), "de/corpus.jsonl.gz", gzip(CORPUS));
    write(dir.path(), "de/queries.jsonl.zst", zstd::encode_all(QUERIES.as_bytes(), 1).unwrap());
    write(dir.path(), "de/qrels/test.tsv.gz", gzip(JUDGEMENTS));
    write(dir.path(), "README.md", "words");
    let all = collection::open(dir.path()).unwrap();
    assert_eq!(all.subsets().collect::<Vec<_>>(), ["de", "zho_Hans"]);
    assert_eq!(all.notes().lines(), [""; 0]);
    for subset in ["de", "zho_Hans"] {
        check(&all.load(subset, "test").unwrap());
    }
    let none = message(all.load("fr", "test"));
    assert!(none.ends_with("no subset fr here; there is de, zho_Hans"), "{none}");
}

/// BEIR's sets as mteb has put them on the hub: judgements as JSON lines, with grades that are fractions by type.
#[test]
fn beir_sets_of_the_hub() {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    std::fs::remove_file(dir.path().join("qrels/test.tsv")).unwrap();
    let rows = r#"{"query-id": "q1", "corpus-id": "d1", "score": 2.0}
{"query-id": 3, "corpus-id": "2", "score": "0"}
{"score": -1, "corpus-id": 2, "query-id": "q1"}
"#;
    write(dir.path(), "qrels/test.jsonl", rows);
    check(&load(dir.path(), "default", "test").unwrap());
}
