//! Rows as they come out: every layout with its own names, and everything else as it was.

use super::texts;
use hbt::data::formats::{DataSource, Group, Text, parallel_row};
use tempfile::TempDir;

/// Negatives that hbt reads from a row.
fn read(row: &str) -> Group {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, row).unwrap();
    Group { identity: None, ..DataSource::new(path).read_groups().unwrap().0.remove(0) }
}

/// The row as it is written with negatives.
fn add_negatives(row: &str, negatives: &[Text], replace: bool) -> Result<String, String> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, row).unwrap();
    let row = DataSource::new(path).resolve().unwrap().rows().unwrap().next().unwrap().unwrap();
    row.with_negatives(negatives, replace).map_err(|e| e.to_string())
}

#[test]
fn every_layout_gets_its_own_names() {
    // (row, with the negatives x and y added, with them in place of what was there)
    let same = |row, added| (row, added, added);
    let cases = [
        same(r#"{"query": "q", "positive": "p"}"#, r#"{"query": "q", "positive": "p", "negatives": ["x","y"]}"#),
        same(r#"{"query":"q","pos":["p"]}"#, r#"{"query":"q","pos":["p"], "neg": ["x","y"]}"#),
        same(
            r#"{"anchor": "q", "positive": "p"}"#,
            r#"{"anchor": "q", "positive": "p", "negative_1": "x", "negative_2": "y"}"#,
        ),
        same(
            r#"{"query": "q", "positive_passages": [{"docid": "1", "title": "", "text": "p"}], "negative_passages": []}"#,
            r#"{"query": "q", "positive_passages": [{"docid": "1", "title": "", "text": "p"}], "negative_passages": [{"text":"x"},{"text":"y"}]}"#,
        ),
        (
            r#"{"query": "q", "neg": ["n"], "pos": "p"}"#,
            r#"{"query": "q", "neg": ["n","x","y"], "pos": "p"}"#,
            r#"{"query": "q", "neg": ["x","y"], "pos": "p"}"#,
        ),
        (
            r#"{"anchor": "q", "positive": "p", "negative": "n"}"#,
            r#"{"anchor": "q", "positive": "p", "negative": ["n","x","y"]}"#,
            r#"{"anchor": "q", "positive": "p", "negative": ["x","y"]}"#,
        ),
        (
            r#"{"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "negative_5": "o"}"#,
            r#"{"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "negative_5": "o", "negative_6": "x", "negative_7": "y"}"#,
            r#"{"anchor": "q", "positive": "p", "negative_1": "x", "negative_2": "y", "negative_5": null}"#,
        ),
        // Whatever hbt does not know comes through byte for byte: numbers, escapes, spaces, order, nested lookalikes.
        same(
            r#" {"n":123456789012345678901234567890 , "x" : 1.50e+3,"query":"caf\u00e9 \"}, {","o":{"negatives":["z"], "a":[{}]}, "positive" :"p","negatives": null,  "l":[ ]} "#,
            r#"{"n":123456789012345678901234567890 , "x" : 1.50e+3,"query":"caf\u00e9 \"}, {","o":{"negatives":["z"], "a":[{}]}, "positive" :"p","negatives": ["x","y"],  "l":[ ]}"#,
        ),
    ];
    for (row, added, replaced) in cases {
        let negatives = texts(&[("und", "x"), ("und", "y")]);
        assert_eq!(add_negatives(row, &negatives, false).unwrap(), added);
        assert_eq!(add_negatives(row, &negatives, true).unwrap(), replaced);
        let (before, after) = (read(row), read(added));
        assert_eq!(after.negatives, [before.negatives, negatives.clone()].concat(), "{row}");
        assert_eq!(read(replaced).negatives, negatives, "{row}");
        assert_eq!((after.queries, after.positives), (before.queries, before.positives));
    }
}

#[test]
fn negatives_in_other_languages_are_named() {
    let row = r#"{"query": "q", "positive": "p", "lang": "en", "negatives": ["n"]}"#;
    let added = r#"{"query": "q", "positive": "p", "lang": "en", "negatives": ["n","x","y"], "negative_langs": ["en","de","en"]}"#;
    let negatives = texts(&[("de", "x"), ("en", "y")]);
    let line = add_negatives(row, &negatives, false).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&line).unwrap(),
        serde_json::from_str::<serde_json::Value>(added).unwrap()
    );
    assert_eq!(read(&line).negatives, texts(&[("en", "n"), ("de", "x"), ("en", "y")]));
    // And again.
    let twice = add_negatives(&line, &texts(&[("zh", "z")]), false).unwrap();
    assert_eq!(read(&twice).negatives, texts(&[("en", "n"), ("de", "x"), ("en", "y"), ("zh", "z")]));
    let replaced = add_negatives(&line, &texts(&[("en", "z")]), true).unwrap();
    assert_eq!(read(&replaced).negatives, texts(&[("en", "z")]));
    // In their own language nothing needs to be said.
    let own = add_negatives(row, &texts(&[("en", "y")]), false).unwrap();
    assert!(!own.contains("negative_langs"), "{own}");
}

#[test]
fn parallel_rows() {
    let row = r#"{"id": 7, "query": {"en": "q", "de": "f"}, "positive": {"en": "p"}, "neg": {"en": "n", "zh": ["m"]}, "more": {}}"#;
    let negatives = texts(&[("de", "x"), ("en", "y"), ("en", "z")]);
    let added = r#"{"id": 7, "query": {"en": "q", "de": "f"}, "positive": {"en": "p"}, "neg": {"en":["n","y","z"],"zh":["m"],"de":["x"]}, "more": {}}"#;
    assert_eq!(add_negatives(row, &negatives, false).unwrap(), added);
    assert_eq!(read(added).negatives, texts(&[("en", "n"), ("en", "y"), ("en", "z"), ("zh", "m"), ("de", "x")]));
    let replaced = add_negatives(row, &negatives, true).unwrap();
    assert_eq!(read(&replaced).negatives, negatives);
    let bare = r#"{"query": {"en": "q"}, "positive": {"en": "p"}}"#;
    let none = r#"{"query": {"en": "q"}, "positive": {"en": "p"}, "negatives": {}}"#;
    assert_eq!(add_negatives(bare, &[], false).unwrap(), none);
    assert_eq!(read(none).negatives, []);

    let group = super::group("1", &[("en", "q"), ("de", "f")], &[("en", "p"), ("en", "r")], &[("en", "n")]);
    let written = r#"{"id":"1","query":{"en":"q","de":"f"},"positive":{"en":["p","r"]},"negatives":{"en":["n"]}}"#;
    assert_eq!(parallel_row(&group), written);
    assert_eq!(read(written), group);
}

#[test]
fn a_row_whose_negatives_have_scores_is_refused() {
    let row = r#"{"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [0.1]}"#;
    let message = add_negatives(row, &[], false).unwrap_err();
    assert!(message.contains("line 1: neg_scores has a score for every negative"), "{message}");
}

#[test]
fn bad_languages_of_negatives_are_named() {
    for (langs, expected) in [
        (r#"["en"]"#, "negative_langs has 1 language for 2 negatives"),
        (r#"["en", "xx1"]"#, "negative_langs[1]: unknown language"),
        (r#"["en", 1]"#, "negative_langs[1] has to be a language code"),
        (r#""en""#, "negative_langs has to be a list of languages, not a string"),
    ] {
        let row = format!(r#"{{"query": "q", "positive": "p", "negatives": ["a", "b"], "negative_langs": {langs}}}"#);
        let message = add_negatives(&row, &[], false).unwrap_err();
        assert!(message.contains(&format!("line 1: {expected}")), "{message}");
    }
}
