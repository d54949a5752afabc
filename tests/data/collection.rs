//! Retrieval tasks on disk: every layout, what is left out of each, and what is said of those that cannot be read.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use hbt::data::collection::{self, Collection, Document, JudgedQuery};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
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
fn tables_of_commas() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "corpus.csv", "text,_id,title\n\"one, two\n\",d1,T\n two ,2,\n");
    write(dir.path(), "queries.csv", "\u{feff}_id,text\nq1,\" \"\"first\"\"?\"\nq2,not judged?\n");
    write(dir.path(), "qrels/test.csv", "query-id,corpus-id,score\nq1,d1,2\nq1,2,0\n");
    let task = load(dir.path(), "default", "test").unwrap();
    assert_eq!(task.queries, [query(0, "q1", " \"first\"?", &[("d1", 2), ("2", 0)])]);
    assert_eq!(documents(&task).unwrap(), pairs(&[("d1", "T one, two"), ("2", "two")]));
    // What stands for nothing is nothing.
    write(dir.path(), "corpus.csv", "_id,text\nd1,NaN\n");
    let null = message(documents(&load(dir.path(), "default", "test").unwrap()));
    assert!(null.contains("corpus.csv, line 2: text has to be a text, not null"), "{null}");
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
    // The only split there is, as in mteb.
    let other = all.load("de", "dev").unwrap();
    assert_eq!(other.notes.lines(), ["judgements of split test for dev: there are no others"]);
}

/// BEIR's sets as mteb has put them on the hub: judgements as JSON lines, with grades that are fractions by type.
#[test]
fn beir_sets_of_the_hub() {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    fs::remove_file(dir.path().join("qrels/test.tsv")).unwrap();
    let rows = r#"{"query-id": "q1", "corpus-id": "d1", "score": 2.0}
{"query-id": 3, "corpus-id": "2", "score": "0"}
{"score": -1, "corpus-id": 2, "query-id": "q1"}
"#;
    write(dir.path(), "qrels/test.jsonl", rows);
    check(&load(dir.path(), "default", "test").unwrap());
}

/// A column of a Parquet file.
enum Values<'a> {
    Text(&'a [Option<&'a str>]),
    Whole(&'a [i64]),
    Float(&'a [f64]),
    Lists(&'a [&'a [&'a str]]),
}

/// Writes a Parquet file as `datasets` does: every column may be null, lists are `list.element`; `n` rows a group.
fn write_parquet(path: &Path, codec: Codec, n: usize, columns: &[(&str, Values)]) {
    let column = |(name, values): &(&str, Values)| match values {
        Values::Text(_) => format!("optional binary {name} (UTF8);"),
        Values::Whole(_) => format!("optional int64 {name};"),
        Values::Float(_) => format!("optional double {name};"),
        Values::Lists(_) => {
            format!("optional group {name} (LIST) {{ repeated group list {{ optional binary element (UTF8); }} }}")
        }
    };
    let schema = format!("message m {{ {} }}", columns.iter().map(column).collect::<String>());
    let schema = parse_message_type(&schema).unwrap();
    let properties = WriterProperties::builder().set_compression(codec).set_data_page_row_count_limit(2).build();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema.into(), properties.into()).unwrap();
    let n_rows = match columns[0].1 {
        Values::Text(values) => values.len(),
        Values::Whole(values) => values.len(),
        Values::Float(values) => values.len(),
        Values::Lists(values) => values.len(),
    };
    for start in (0..n_rows).step_by(n) {
        let rows = start..n_rows.min(start + n);
        let mut group = writer.next_row_group().unwrap();
        for (_, values) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let all = vec![1; rows.len()];
            match (column.untyped(), values) {
                (ColumnWriter::ByteArrayColumnWriter(writer), Values::Text(values)) => {
                    let levels: Vec<i16> = values[rows.clone()].iter().map(|text| text.is_some().into()).collect();
                    let texts: Vec<ByteArray> =
                        values[rows.clone()].iter().flatten().map(|text| (*text).into()).collect();
                    writer.write_batch(&texts, Some(&levels), None).unwrap();
                }
                (ColumnWriter::ByteArrayColumnWriter(writer), Values::Lists(values)) => {
                    let (mut texts, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
                    for list in &values[rows.clone()] {
                        definition.extend(if list.is_empty() { vec![1] } else { vec![3; list.len()] });
                        repetition.extend((0..list.len().max(1)).map(|i| i16::from(i > 0)));
                        texts.extend(list.iter().map(|text| ByteArray::from(*text)));
                    }
                    writer.write_batch(&texts, Some(&definition), Some(&repetition)).unwrap();
                }
                (ColumnWriter::Int64ColumnWriter(writer), Values::Whole(values)) => {
                    writer.write_batch(&values[rows.clone()], Some(&all), None).unwrap();
                }
                (ColumnWriter::DoubleColumnWriter(writer), Values::Float(values)) => {
                    writer.write_batch(&values[rows.clone()], Some(&all), None).unwrap();
                }
                _ => unreachable!(),
            };
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// [`CORPUS`], [`QUERIES`] and [`JUDGEMENTS`] as the hub has them, with configs of these names, the corpus in two shards.
fn write_hub(dir: &Path, [corpus, queries, judgements]: [&str; 3]) {
    use Values::{Float, Text, Whole};
    let zstd = Codec::ZSTD(ZstdLevel::default());
    let of = |config: &str, file: &str| dir.join(config).join(file);
    let columns = |ids, titles, texts| [("title", Text(titles)), ("_id", Text(ids)), ("text", Text(texts))];
    let first = columns(&[Some("d1"), Some("2")], &[Some("T"), Some("")], &[Some("one"), Some(" two ")]);
    write_parquet(&of(corpus, "test-00000-of-00002.parquet"), Codec::SNAPPY, 1, &first);
    let second = columns(&[Some("d3")], &[None], &[Some("")]);
    write_parquet(&of(corpus, "test-00001-of-00002.parquet"), zstd, 10, &second);
    let texts = [Some(" first?"), Some("not judged?"), Some("third?")];
    let ids = [Some("q1"), Some("q2"), Some("3")];
    let only = [("id", Text(&ids)), ("text", Text(&texts)), ("url", Text(&[None; 3]))];
    write_parquet(&of(queries, "queries-00000-of-00001.parquet"), Codec::SNAPPY, 2, &only);
    let (ids, documents) = ([Some("q1"), Some("3"), Some("q1")], [Some("d1"), Some("2"), Some("2")]);
    let judged = [("corpus-id", Text(&documents)), ("score", Whole(&[2, 0, -1])), ("query-id", Text(&ids))];
    write_parquet(&of(judgements, "test-00000-of-00001.parquet"), Codec::GZIP(Default::default()), 2, &judged);
    // Ids as numbers, grades as fractions.
    let judged = [("query-id", Whole(&[3])), ("corpus-id", Whole(&[2])), ("score", Float(&[1.0]))];
    write_parquet(&of(judgements, "dev-00000-of-00001.parquet"), Codec::UNCOMPRESSED, 2, &judged);
}

#[test]
fn parquet_configs_of_the_hub() {
    for (names, subset) in [
        (["corpus", "queries", "qrels"], "default"),
        (["corpus", "query", "data"], "default"),
        (["corpus", "queries", "default"], "default"),
        (["ara-deu-corpus", "ara-deu-queries", "ara-deu-qrels"], "ara-deu"),
    ] {
        let dir = TempDir::new().unwrap();
        write_hub(dir.path(), names);
        write(dir.path(), "README.md", "---\n");
        let all = collection::open(dir.path()).unwrap();
        assert_eq!(all.subsets().collect::<Vec<_>>(), [subset]);
        assert_eq!(all.splits(subset).unwrap(), ["dev", "test"]);
        let one = all.load(subset, "test").unwrap();
        check(&one);
        assert_eq!(one.n_documents_hint().unwrap(), Some(3));
        assert_eq!(all.load(subset, "dev").unwrap().queries, [query(2, "3", "third?", &[("2", 1)])]);
        // What a listing of the hub says is the same.
        let files = all.files(subset, "test").unwrap();
        let listed = collection::Collections::of_names(dir.path(), files.iter().copied()).unwrap();
        assert_eq!(listed.files(subset, "test").unwrap(), files);
        check(&listed.load(subset, "test").unwrap());
    }
}

/// Judgements of the config `default` go before those of `qrels`, as in mteb.
#[test]
fn json_configs_of_the_hub() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "corpus/corpus.jsonl", CORPUS);
    write(dir.path(), "queries/test.jsonl.gz", gzip(QUERIES));
    write(dir.path(), "data/test.jsonl", "{\"query-id\": \"q1\", \"corpus-id\": \"d1\", \"score\": 1}\n");
    write(dir.path(), "qrels/test.jsonl", "{\"query-id\": \"q2\", \"corpus-id\": \"d1\", \"score\": 1}\n");
    let one = load(dir.path(), "default", "test").unwrap();
    assert_eq!(one.queries, [query(0, "q1", " first?", &[("d1", 1)])]);
    assert_eq!(documents(&one).unwrap().len(), 3);
}

#[test]
fn candidates_and_instructions() {
    let dir = TempDir::new().unwrap();
    write_hub(dir.path(), ["en-corpus", "en-queries", "en-qrels"]);
    write_hub(dir.path(), ["de-corpus", "de-queries", "de-qrels"]);
    use Values::{Lists, Text};
    let at = |config: &str| dir.path().join(config).join("top-00000-of-00001.parquet");
    let lists: [&[&str]; 3] = [&["d3", "d1"], &[], &["unknown"]];
    let ranked = [("query-id", Text(&[Some("q1"), Some("3"), Some("q2")])), ("corpus-ids", Lists(&lists))];
    write_parquet(&at("en-top_ranked"), Codec::SNAPPY, 2, &ranked);
    let rows = "{\"query-id\": \"q1\", \"instruction\": \"Find \"}\n{\"query-id\": 3, \"instruction\": null}\n";
    write(dir.path(), "en-instruction/test.jsonl", rows);
    let all = collection::open(dir.path()).unwrap();
    let of = |query: JudgedQuery, ids: &[&str]| JudgedQuery {
        candidates: Some(ids.iter().map(|id| (*id).to_owned()).collect()),
        ..query
    };
    let expected = [
        of(query(0, "q1", " first? Find ", &[("d1", 2), ("2", -1)]), &["d3", "d1"]),
        of(query(2, "3", "third?", &[("2", 0)]), &[]),
    ];
    let one = all.load("en", "test").unwrap();
    assert_eq!((one.queries, one.changes), (expected.into(), None));
    check(&all.load("de", "test").unwrap());
    // What an instruction that was changed turns.
    let rows = "{\"query-id\": \"q1\", \"corpus-ids\": [\"d1\", 2]}\n";
    write(dir.path(), "de-qrel_diff/qrel_diff.jsonl", rows);
    let changes = load(dir.path(), "de", "test").unwrap().changes.unwrap();
    assert_eq!(changes.into_iter().collect::<Vec<_>>(), [("q1".to_owned(), vec!["d1".to_owned(), "2".to_owned()])]);
    // Each query needs its own.
    write(dir.path(), "en-instruction/test.jsonl", "{\"query-id\": \"q1\", \"instruction\": \"Find\"}\n");
    let none = message(all.load("en", "test"));
    assert!(none.ends_with("queries-00000-of-00001.parquet: row 3: no instruction for query \"3\""), "{none}");
    write(dir.path(), "de-top_ranked/test.jsonl", "{\"query-id\": \"q1\", \"corpus-ids\": [\"d1\", 2]}\n");
    let none = message(load(dir.path(), "de", "test"));
    assert!(none.ends_with("row 3: no candidates for query \"3\""), "{none}");
}

/// More rows than are read at once, of lists that do not end where pages do.
#[test]
fn long_parquet_files_are_read_to_the_end() {
    let dir = TempDir::new().unwrap();
    let ids: Vec<String> = (0..1000).map(|i| format!("d{i}")).collect();
    let texts: Vec<String> = (0..1000).map(|i| format!("text {}", i % 7)).collect();
    let (of_ids, of_texts): (Vec<_>, Vec<_>) = ids.iter().zip(&texts).map(|(a, b)| (Some(&**a), Some(&**b))).unzip();
    let lists: Vec<Vec<&str>> =
        (0..1000).map(|i| of_ids[i..1000.min(i + i % 4)].iter().flatten().copied().collect()).collect();
    let of_lists: Vec<&[&str]> = lists.iter().map(Vec::as_slice).collect();
    let at = |config: &str| dir.path().join(config).join("test-00000-of-00001.parquet");
    use Values::{Lists, Text, Whole};
    write_parquet(&at("corpus"), Codec::SNAPPY, 300, &[("id", Text(&of_ids)), ("text", Text(&of_texts))]);
    write_parquet(&at("queries"), Codec::SNAPPY, 300, &[("id", Text(&of_ids)), ("text", Text(&of_texts))]);
    let judged = [("query-id", Text(&of_ids)), ("corpus-id", Text(&of_ids)), ("score", Whole(&vec![1; 1000]))];
    write_parquet(&at("qrels"), Codec::SNAPPY, 700, &judged);
    let ranked = [("query-id", Text(&of_ids)), ("corpus-ids", Lists(&of_lists))];
    write_parquet(&at("top_ranked"), Codec::SNAPPY, 999, &ranked);
    let one = load(dir.path(), "default", "test").unwrap();
    let expected: Vec<(String, String)> = ids.iter().cloned().zip(texts.iter().cloned()).collect();
    assert_eq!(documents(&one).unwrap(), expected);
    for (i, query) in one.queries.iter().enumerate() {
        assert_eq!((query.row, &query.id, &query.text), (i, &ids[i], &texts[i]));
        assert_eq!(query.judgements, [(ids[i].clone(), 1)]);
        assert_eq!(query.candidates.as_deref().unwrap(), lists[i]);
    }
}

/// MIRACL's two data sets: topics and judgements, and the corpus, as one directory or side by side.
#[test]
fn miracls_own_files() {
    let dir = TempDir::new().unwrap();
    for lang in ["sw", "yo"] {
        for split in ["dev", "train"] {
            let name = |what: &str| format!("miracl/miracl-v1.0-{lang}/{what}/{what}.miracl-v1.0-{lang}-{split}.tsv");
            write(dir.path(), &name("topics"), format!("7#1\tNani, \"{lang}\" {split}?\n8\tunjudged\n"));
            write(dir.path(), &name("qrels"), "7#1\tQ0\t39#10\t1\n7#1\tQ0\t39#0\t0\n");
        }
        let docs = |number: usize| format!("miracl-corpus/miracl-corpus-v1.0-{lang}/docs-{number}.jsonl.gz");
        for number in 0..11 {
            let row = format!("{{\"docid\": \"39#{number}\", \"title\": \"T\", \"text\": \"{lang}\"}}\n");
            write(dir.path(), &docs(number), gzip(&row));
        }
    }
    let expected: Vec<(String, String)> = (0..11).map(|number| (format!("39#{number}"), "T sw".to_owned())).collect();
    for (folder, subsets) in [
        ("", vec!["sw", "yo"]),
        ("miracl", vec!["sw", "yo"]),
        ("miracl-corpus", vec!["sw", "yo"]),
        ("miracl/miracl-v1.0-sw", vec!["sw"]),
        ("miracl-corpus/miracl-corpus-v1.0-sw", vec!["sw"]),
    ] {
        let all = collection::open(&dir.path().join(folder)).unwrap();
        assert_eq!(all.subsets().collect::<Vec<_>>(), subsets, "{folder}");
        assert_eq!(all.splits("sw").unwrap(), ["dev", "train"]);
        let one = all.load("sw", "dev").unwrap();
        assert_eq!(one.queries, [query(0, "7#1", "Nani, \"sw\" dev?", &[("39#10", 1), ("39#0", 0)])]);
        assert_eq!(one.n_query_rows, 2);
        assert_eq!(documents(&one).unwrap(), expected, "{folder}");
        let none = message(all.load("sw", "test-a"));
        assert!(none.contains("has no split test-a of its"), "{none}");
    }
    // Without the corpus of one language the others are there.
    fs::remove_dir_all(dir.path().join("miracl-corpus/miracl-corpus-v1.0-yo")).unwrap();
    let all = collection::open(dir.path()).unwrap();
    assert_eq!(all.subsets().collect::<Vec<_>>(), ["sw"]);
    assert_eq!(all.notes().lines(), ["subset yo left out: it has no corpus"]);
}

/// BEIR's layout with one file changed.
fn changed(name: &str, content: impl AsRef<[u8]>) -> TempDir {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    write(dir.path(), name, content);
    dir
}

/// The error of loading, or that of the first document that has one.
fn failure(dir: &Path) -> String {
    message(load(dir, "default", "test").and_then(|one| documents(&one)))
}

#[test]
fn judgements_of_what_is_not_there_are_noted() {
    let rows = "q1\td1\t1\nq1\tnone\t1\nq1\td1\t3\ngone\td1\t1\nq2\tnone\t1\nq2\tnever\t0\n";
    let dir = changed("qrels/test.tsv", rows);
    let one = load(dir.path(), "default", "test").unwrap();
    let expected = [
        query(0, "q1", " first?", &[("d1", 3), ("none", 1)]),
        query(1, "q2", "not judged?", &[("none", 1), ("never", 0)]),
    ];
    assert_eq!(one.queries, expected);
    let said = [
        "1 query judged and not among the queries: left out",
        "1 judgement left out: one below is of the same query and document",
        "2 documents judged or to be ranked, and not in the corpus: never found",
    ];
    assert_eq!(notes(&one), said);
}

#[test]
fn scores_are_whole_numbers() {
    for (name, good) in [
        ("qrels/test.tsv", "score\tquery-id\tcorpus-id\n2\tq1\td1\n-1\tq1\t2\n0\t3\t2\n"),
        ("qrels/test.tsv", "q1 0 d1 2\nq1 0 2 -1\n\n3 0 2 0\n"),
        ("qrels/test.tsv", "qid\tdocid\trel\nq1\td1\t2.0\nq1\t2\t-1\r\n3\t2\t0"),
        (
            "qrels/test.jsonl",
            "{\"query-id\": \"q1\", \"corpus-id\": \"d1\", \"score\": \"2\"}\n\
            {\"query-id\": \"q1\", \"corpus-id\": \"2\", \"score\": -1.0}\n\
            {\"query-id\": \"3\", \"corpus-id\": \"2\", \"score\": false}\n",
        ),
    ] {
        check(&load(changed(name, good).path(), "default", "test").unwrap());
    }
    let row = |score: &str| format!("\n{{\"query-id\": \"q1\", \"corpus-id\": \"d1\", \"score\": {score}}}\n");
    for (score, said) in [
        ("0.5", "0.5"),
        ("\"0.5\"", "\"0.5\""),
        ("\"good\"", "\"good\""),
        ("null", "null"),
        ("[1]", "a list"),
        ("{}", "an object"),
        ("3000000000", "3000000000"),
        ("1e300", "1000"),
    ] {
        let error = failure(changed("qrels/test.jsonl", row(score)).path());
        let expected = format!("qrels/test.jsonl, line 2: score has to be a whole number, not {said}");
        assert!(error.contains(&expected), "{error}");
    }
    let error = failure(changed("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.5\n").path());
    assert!(error.ends_with("qrels/test.tsv, line 2: score has to be a whole number, not \"0.5\""), "{error}");
    let dir = TempDir::new().unwrap();
    write_hub(dir.path(), ["corpus", "queries", "qrels"]);
    use Values::{Float, Text};
    let judged = [
        ("query-id", Text(&[Some("q1"), Some("q1")])),
        ("corpus-id", Text(&[Some("2"), Some("d1")])),
        ("score", Float(&[1.0, 0.5])),
    ];
    write_parquet(&dir.path().join("qrels/test-00000-of-00001.parquet"), Codec::SNAPPY, 1, &judged);
    let error = failure(dir.path());
    assert!(error.ends_with("test-00000-of-00001.parquet: row 2: score has to be a whole number, not 0.5"), "{error}");
}

#[test]
fn documents_with_one_id_have_one_text() {
    let row = |id: &str, title: &str, text: &str| {
        format!("{{\"_id\": \"{id}\", \"title\": \"{title}\", \"text\": \"{text}\"}}\n")
    };
    let same = [row("d1", "T", "one"), row("2", "", "two"), row("d1", "", "T one "), row("d1", "T", "one")].concat();
    let one = load(changed("corpus.jsonl", &same).path(), "default", "test").map(|one| (documents(&one), notes(&one)));
    let (found, said) = one.unwrap();
    assert_eq!(found.unwrap(), pairs(&[("d1", "T one"), ("2", "two")]));
    assert_eq!(said, ["2 documents left out: id and text are those of one above"]);
    let other = [row("2", "", "two"), row("d1", "T", "one"), row("2", "", "two"), row("d1", "", "one")].concat();
    let error = failure(changed("corpus.jsonl", &other).path());
    let expected = "corpus.jsonl, line 4: the id \"d1\" is that of another document, in line 2 of corpus.jsonl, with another text; \
                    give one of them another id, or remove it";
    assert!(error.ends_with(expected), "{error}");
    // In two files.
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    fs::remove_file(dir.path().join("corpus.jsonl")).unwrap();
    write(dir.path(), "corpus/test-00000-of-00002.jsonl", row("d1", "", "one"));
    write(dir.path(), "corpus/test-00001-of-00002.jsonl", row("d1", "", "two"));
    let error = failure(dir.path());
    assert!(
        error.contains("corpus/test-00001-of-00002.jsonl, line 1: the id \"d1\" is that of another document"),
        "{error}"
    );
    assert!(error.contains("in line 1 of corpus/test-00000-of-00002.jsonl, with another text"), "{error}");
}

#[test]
fn queries_with_one_id_have_one_text() {
    let row = |text: &str| format!("{{\"_id\": \"q1\", \"text\": \"{text}\"}}\n");
    let dir = changed("queries.jsonl", [row("a?"), row("a?")].concat());
    let one = load(dir.path(), "default", "test").unwrap();
    assert_eq!((one.queries.len(), one.n_query_rows), (1, 2));
    let said =
        ["1 query judged and not among the queries: left out", "1 query left out: id and text are those of one above"];
    assert_eq!(one.notes.lines(), said);
    let error = failure(changed("queries.jsonl", [row("a?"), row("b?")].concat()).path());
    assert!(
        error.ends_with("queries.jsonl, line 2: the id \"q1\" stands twice, with different texts; remove one"),
        "{error}"
    );
}

#[test]
fn rows_without_what_they_need_are_errors() {
    for (name, row, expected) in [
        (
            "corpus.jsonl",
            "{\"_id\": \"d1\", \"text\": null}",
            "text has to be a text, not null; give it one, or remove the row",
        ),
        ("corpus.jsonl", "{\"_id\": \"d1\", \"text\": [\"a\"]}", "text has to be a text, not a list"),
        ("corpus.jsonl", "{\"_id\": \"d1\", \"title\": \"a\"}", "no text; there is _id, title"),
        ("corpus.jsonl", "{\"_id\": \"d1\", \"title\": 1, \"text\": \"a\"}", "title has to be a text, not a number"),
        ("corpus.jsonl", "{\"text\": \"a\"}", "no _id or id or docid; there is text"),
        (
            "corpus.jsonl",
            "{\"_id\": 0.5, \"text\": \"a\"}",
            "the id is a number that is not whole, or too long; write it as a text",
        ),
        ("corpus.jsonl", "{\"_id\": \"\", \"text\": \"a\"}", "the id is empty"),
        (
            "corpus.jsonl",
            "{\"_id\": \"a\", \"_id\": \"b\", \"text\": \"a\"}",
            "invalid JSON: the key \"_id\" stands twice",
        ),
        ("corpus.jsonl", "{\"_id\": \"a\", \"text\": \"a\"", "invalid JSON: EOF"),
        ("corpus.jsonl", "[\"a\"]", "invalid JSON: invalid type: sequence, expected one JSON object a line"),
        ("corpus.jsonl", "{\"_id\": \"a\", \"text\": \"a\"} {}", "invalid JSON: trailing characters"),
        ("queries.jsonl", "{\"_id\": \"q1\", \"text\": null}", "text has to be a text, not null"),
        ("queries.jsonl", "{\"id\": null, \"text\": \"a\"}", "the id has to be a text or a whole number, not null"),
        ("qrels/test.tsv", "q1\td1", "2 columns; expected query-id, corpus-id and score"),
        ("qrels/test.tsv", "\td1\t1", "query-id is empty"),
        ("qrels/test.jsonl", "{\"query-id\": \"q1\", \"score\": 1}", "no corpus-id; there is query-id, score"),
    ] {
        let good = if name.ends_with(".tsv") { "q1\td1\t1\n" } else { "\n" };
        let error = failure(changed(name, format!("{good}{row}\n")).path());
        assert!(error.contains(&format!("{name}, line 2: {expected}")), "{error}");
    }
    let error = failure(changed("corpus.jsonl", b"{\"_id\": \"a\", \"text\": \"\xff\"}\n").path());
    assert!(
        error.ends_with("corpus.jsonl, line 1: invalid UTF-8 at byte 23 of the line; save the file as UTF-8"),
        "{error}"
    );
    for (name, content, expected) in [
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\n",
            "no judgement here; expected rows of query-id, corpus-id and score",
        ),
        (
            "queries.jsonl",
            "{\"_id\": \"q9\", \"text\": \"a\"}\n",
            "none of its 1 queries has a judgement in split test of subset default",
        ),
    ] {
        let error = failure(changed(name, content).path());
        assert!(error.contains(&format!("{name}: {expected}")), "{error}");
    }
    // Null in a column of Parquet; what lies beside it is never read.
    let dir = TempDir::new().unwrap();
    write_hub(dir.path(), ["corpus", "queries", "qrels"]);
    let corpus = dir.path().join("corpus/test-00000-of-00002.parquet");
    use Values::{Lists, Text};
    let rows = [("id", Text(&[Some("a"), Some("b")])), ("text", Text(&[Some("a"), None]))];
    write_parquet(&corpus, Codec::SNAPPY, 5, &rows);
    let error = failure(dir.path());
    assert!(error.contains("test-00000-of-00002.parquet: row 2: text has to be a text, not null"), "{error}");
    write_parquet(&corpus, Codec::SNAPPY, 5, &[("id", Text(&[Some("a")])), ("body", Text(&[Some("a")]))]);
    let error = failure(dir.path());
    assert!(error.ends_with("test-00000-of-00002.parquet: no text; there is id, body"), "{error}");
    write_parquet(&corpus, Codec::SNAPPY, 5, &[("id", Text(&[Some("a")])), ("text", Lists(&[&["a"]]))]);
    let error = failure(dir.path());
    assert!(error.contains("test-00000-of-00002.parquet: row 1: text has to be a text, not a list"), "{error}");
}

#[test]
fn damaged_parquet_is_an_error() {
    let dir = TempDir::new().unwrap();
    write_hub(dir.path(), ["corpus", "queries", "qrels"]);
    let path = dir.path().join("corpus/test-00000-of-00002.parquet");
    let good = fs::read(&path).unwrap();
    let undamaged = documents(&load(dir.path(), "default", "test").unwrap()).unwrap();
    for damage in [good[..good.len() - 9].to_vec(), good[..4].to_vec(), Vec::new(), b"PAR1\0\0\0\0PAR1".to_vec()] {
        fs::write(&path, damage).unwrap();
        let error = failure(dir.path());
        let expected = "test-00000-of-00002.parquet: not Parquet that hbt can read (";
        assert!(error.contains(expected) && error.ends_with("; write or fetch it again"), "{error}");
        assert!(load(dir.path(), "default", "test").unwrap().n_documents_hint().is_err());
    }
    // Bytes of the pages and of the footer: an error that names the file, or documents (a bit of a text is any bit).
    let mut n_errors = 0;
    for at in (0..good.len()).step_by(3) {
        let mut damage = good.clone();
        damage[at] ^= 0x55;
        fs::write(&path, damage).unwrap();
        match load(dir.path(), "default", "test").and_then(|one| documents(&one)) {
            Ok(found) => assert!(found.len() <= undamaged.len() + 1, "byte {at}: {found:?}"),
            Err(e) => {
                n_errors += 1;
                let said = e.to_string();
                assert!(said.contains("test-00000-of-00002.parquet") && !said.contains('\n'), "byte {at}: {said}");
            }
        }
    }
    assert!(n_errors > good.len() / 12, "{n_errors} errors of {} bytes", good.len());
}

#[test]
fn directories_without_a_task() {
    let dir = TempDir::new().unwrap();
    let no_task = format!("{}: no retrieval task here", dir.path().display());
    assert!(message(collection::open(dir.path())).starts_with(&format!("{no_task}; expected corpus.jsonl")));
    write_beir(dir.path(), "de/");
    fs::remove_file(dir.path().join("de/queries.jsonl")).unwrap();
    let error = message(collection::open(dir.path()));
    assert!(error.starts_with(&format!("{no_task} (subset de left out: it has no queries); expected")), "{error}");
    write_beir(dir.path(), "fr/");
    let all = collection::open(dir.path()).unwrap();
    assert_eq!(all.subsets().collect::<Vec<_>>(), ["fr"]);
    assert_eq!(all.notes().lines(), ["subset de left out: it has no queries"]);
    let gone = message(collection::open(&dir.path().join("gone")));
    assert!(gone.contains("cannot read") && gone.contains("gone"), "{gone}");
    let file = message(collection::open(&dir.path().join("fr/corpus.jsonl")));
    assert!(file.contains("corpus.jsonl: no retrieval task here"), "{file}");
}

/// Queries that are conversations: their turns in one text, behind the instruction where there is one.
#[test]
fn conversations() {
    let dir = TempDir::new().unwrap();
    write_beir(dir.path(), "");
    let rows = r#"{"_id": "q1", "text": [{"role": "user", "content": "a?"}, {"content": "b", "role": "agent", "time": 1}]}
{"_id": 3, "text": ["c?", "d"]}
"#;
    let expected = [query(0, "q1", "user: a?; agent: b", &[("d1", 2), ("2", -1)]), query(1, "3", "c?; d", &[("2", 0)])];
    write(dir.path(), "queries.jsonl", rows);
    assert_eq!(load(dir.path(), "default", "test").unwrap().queries, expected);
    let row = r#"{"_id": "q1", "instruction": "Find", "text": [{"role": "user", "content": "a?"}]}"#;
    write(dir.path(), "queries.jsonl", row);
    assert_eq!(load(dir.path(), "default", "test").unwrap().queries[0].text, "Find user: a?");
    for (text, said) in [("[{\"role\": \"user\"}]", "an object"), ("{}", "an object"), ("[null]", "null")] {
        write(dir.path(), "queries.jsonl", format!("{{\"_id\": \"q1\", \"text\": {text}}}"));
        let error = failure(dir.path());
        assert!(error.contains(&format!("line 1: text has to be a text, not {said}")), "{error}");
    }
    // As Parquet has them.
    let schema = "message m { optional binary id (UTF8); optional group text (LIST) { repeated group list { optional group element {
        optional binary content (UTF8); optional binary role (UTF8); } } } }";
    fs::remove_file(dir.path().join("queries.jsonl")).unwrap();
    let path = dir.path().join("queries/test-00000-of-00001.parquet");
    let columns: [(&[&str], &[i16], &[i16]); 3] = [
        (&["q1", "3", "q2"], &[1, 1, 1], &[0, 0, 0]),
        (&["a?", "b", "c?"], &[4, 4, 4, 1], &[0, 1, 0, 0]),
        (&["user", "agent", "user"], &[4, 4, 4, 1], &[0, 1, 0, 0]),
    ];
    super::files::parquet_file(&path, schema, &columns);
    let queries = load(dir.path(), "default", "test").unwrap().queries;
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    assert_eq!(texts, ["user: a?; agent: b", "user: c?"]);
}
