//! Rows that name their texts by ids, beside the tables that have these.

use super::write;
use hbt::data::formats::{DataSource, Group, Note, Split, Text};
use tempfile::TempDir;

fn read(files: &[(&str, &str)]) -> hbt::Result<Vec<Group>> {
    let dir = TempDir::new().unwrap();
    files.iter().for_each(|(name, text)| _ = write(dir.path(), name, text));
    DataSource::new(dir.path()).read_groups().map(|(groups, _)| groups)
}

fn texts(texts: &[&str]) -> Vec<Text> {
    texts.iter().map(|text| Text::new("und", *text)).collect()
}

fn group(id: &str, query: &str, positives: &[&str], negatives: &[&str]) -> Group {
    let identity = Some(format!("{id}\nund\n{query}"));
    let [queries, positives, negatives] = [&[query][..], positives, negatives].map(texts);
    Group { id: id.into(), identity, queries, positives, negatives, ..Group::default() }
}

const CORPUS: &str = r#"{"docid": "d1", "title": "Ulm", "text": "On the Danube."}
{"docid": 2, "title": "", "text": "On the Rhine."}
{"docid": "d3", "text": "Nowhere."}"#;

#[test]
fn tevatron_names_documents_of_a_corpus() {
    let rows = r#"{"query_id": "7", "query_text": "Where is Ulm?", "positive_document_ids": ["d1"], "negative_document_ids": ["d3", 2]}
{"query_id": "8", "query": "Where is Bonn?", "positive_document_ids": ["2"], "negative_document_ids": []}"#;
    let expected = [
        group("7", "Where is Ulm?", &["Ulm On the Danube."], &["Nowhere.", "On the Rhine."]),
        group("8", "Where is Bonn?", &["On the Rhine."], &[]),
    ];
    assert_eq!(read(&[("corpus.jsonl", CORPUS), ("rows.jsonl", rows)]).unwrap(), expected);
}

#[test]
fn ms_marco_names_queries_and_passages() {
    let files = [
        ("collection.tsv", "0\ta river\n1\ta \"hill\"\r\n2\ta town\n"),
        ("queries.train.tsv", "10\twhat is Ulm\n11\twhat is the Danube\n"),
        ("qidpidtriples.train.full.2.tsv", "10\t2\t0\n11\t0\t1\n10\t2\t1\n"),
    ];
    let expected = [
        group("10", "what is Ulm", &["a town"], &["a river", "a \"hill\""]),
        group("11", "what is the Danube", &["a river"], &["a \"hill\""]),
    ];
    assert_eq!(read(&files).unwrap(), expected);
}

#[test]
fn what_the_tables_lack_is_named() {
    let rows = |ids: &str| format!(r#"{{"query_id": "7", "query_text": "q", "positive_document_ids": [{ids}]}}"#);
    let message = |files: &[(&str, &str)]| read(files).unwrap_err().to_string();
    let unknown = message(&[("corpus.jsonl", CORPUS), ("rows.jsonl", &rows("\"d1\", \"d9\""))]);
    assert!(
        unknown.ends_with("rows.jsonl, line 1: names the document \"d9\", which corpus.jsonl does not have; remove it"),
        "{unknown}"
    );
    let twice = format!("{CORPUS}\n{}", r#"{"docid": "d1", "text": "Again."}"#);
    let twice = message(&[("corpus.jsonl", &twice), ("rows.jsonl", &rows("\"d1\""))]);
    assert!(
        twice.ends_with("corpus.jsonl, line 4: the id \"d1\" stands twice, with different texts; remove one"),
        "{twice}"
    );
    let triples = [("collection.tsv", "0\ta\n1\tb\n"), ("qidpidtriples.tsv", "10\t0\t1\n")];
    let lacking = message(&triples);
    assert!(lacking.ends_with("qidpidtriples.tsv, line 1: no file of queries has the query \"10\""), "{lacking}");
    let broken = message(&[("collection.tsv", "0 a\n"), ("qidpidtriples.tsv", "10\t0\t1\n")]);
    assert!(broken.ends_with("collection.tsv, line 1: expected an id, a tab and a text"), "{broken}");
}

/// MS MARCO's files of queries are parts of one another: dev.small has some of dev's.
#[test]
fn an_id_may_stand_in_several_files_with_one_text() {
    let triples = ("qidpidtriples.train.tsv", "10\t0\t1\n11\t1\t0\n");
    let collection = ("collection.tsv", "0\ta\n1\tb\n0\ta\n");
    let queries = ("queries.dev.tsv", "10\twhat is Ulm\n12\twho\n");
    let dir = TempDir::new().unwrap();
    for (name, text) in [triples, collection, queries, ("queries.train.tsv", "11\twhere is it\n10\twhat is Ulm\n")] {
        write(dir.path(), name, text);
    }
    let (groups, notes) = DataSource { split: Split::All.into(), ..DataSource::new(dir.path()) }.read_groups().unwrap();
    assert_eq!(groups, [group("10", "what is Ulm", &["a"], &["b"]), group("11", "where is it", &["b"], &["a"])]);
    assert_eq!([Note::RepeatedQueries, Note::RepeatedDocuments].map(|note| notes.count(&note)), [1, 1]);
    // Two numberings of queries are no tables of one data set.
    let error = read(&[triples, collection, queries, ("queries.train.tsv", "11\twho\n10\twhere is it\n")]).unwrap_err();
    let expected = "queries.train.tsv, line 2: the id \"10\" has another text in queries.dev.tsv; remove one";
    assert!(error.to_string().ends_with(expected), "{error}");
}

/// The row that names it is sound.
#[test]
fn an_empty_text_is_an_error_where_it_stands_and_only_if_it_is_named() {
    let corpus = format!("{CORPUS}\n{}", r#"{"docid": "d4", "title": " ", "text": ""}"#);
    let rows = |id: &str| format!(r#"{{"query_id": "7", "query_text": "q", "positive_document_ids": ["{id}"]}}"#);
    assert_eq!(read(&[("corpus.jsonl", &corpus), ("rows.jsonl", &rows("d3"))]).unwrap().len(), 1);
    let message = |files: &[(&str, &str)]| read(files).unwrap_err().to_string();
    let of_lines = message(&[("corpus.jsonl", &corpus), ("rows.jsonl", &rows("d4"))]);
    let expected = "corpus.jsonl, line 4: the text of \"d4\" is empty, and rows.jsonl:1 names it; give it a text, or take \
                    it out there";
    assert!(of_lines.ends_with(expected), "{of_lines}");
    let of_list = message(&[("corpus.json", r#"[{"docid": "d4", "text": " "}]"#), ("rows.jsonl", &rows("d4"))]);
    assert!(
        of_list.contains("corpus.json: row 1: the text of \"d4\" is empty, and rows.jsonl:1 names it"),
        "{of_list}"
    );
    let triples = ("qidpidtriples.tsv", "10\t0\t1\n10\t0\t2\n");
    let (collection, queries) = (("collection.tsv", "0\ta\n1\tb\n2\t \r\n"), ("queries.tsv", "10\tq\n"));
    let of_document = message(&[triples, collection, queries]);
    assert!(
        of_document.contains("collection.tsv, line 3: the text of \"2\" is empty, and qidpidtriples.tsv:2 names it"),
        "{of_document}"
    );
    let of_query = message(&[triples, ("collection.tsv", "0\ta\n1\tb\n2\tc\n"), ("queries.tsv", "10\t\n")]);
    assert!(of_query.contains("queries.tsv, line 1: the text of \"10\" is empty"), "{of_query}");
}

#[test]
fn rows_of_ids_without_a_corpus_say_what_they_need() {
    let rows = r#"{"query_id": "7", "query": "q", "positive_passages": [{"text": "p"}], "positive_document_ids": ["d1"]}
{"query_id": "8", "query_text": "q", "positive_document_ids": ["d1"], "negative_document_ids": []}"#;
    let error = read(&[("rows.jsonl", rows)]).unwrap_err().to_string();
    let expected = "rows.jsonl, line 2: names its passages by ids (positive_document_ids); put the file that has their texts \
                    beside it as corpus.jsonl (docid, text), and give the directory of both";
    assert!(error.ends_with(expected), "{error}");
}

/// Without the tables, the ids would be trained on as texts.
#[test]
fn triples_of_ids_are_no_texts() {
    let triples = ("qidpidtriples.train.full.2.tsv", "10\t2\t0\n");
    for files in [&[triples][..], &[("queries.train.tsv", "10\twhat is Ulm\n"), triples]] {
        let error = read(files).unwrap_err().to_string();
        assert!(
            error.contains("qidpidtriples.train.full.2.tsv: names its texts by ids; give the directory"),
            "{error}"
        );
    }
}

/// A corpus beside rows that have their texts is data like any other, as before.
#[test]
fn tables_are_only_taken_where_rows_name_ids() {
    let row = r#"{"query": "q", "positive": "p"}"#;
    let groups = read(&[("collection.jsonl", row), ("rows.jsonl", row)]).unwrap();
    assert_eq!(groups.len(), 2);
}
