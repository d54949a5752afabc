//! The data report against counts made by hand.

use hbt::data::catalog::Role;
use hbt::data::formats::DataSource;
use hbt::data::prepare::{DataReport, Duplicates, Lengths};
use std::collections::BTreeMap;
use tempfile::TempDir;

use super::{open, write};

/// Each length below is that of the words plus one word of prefix and two special tokens; queries are cut at 8.
const ROWS: &str = r#"{"id": "a", "query": {"en": "w1", "de": "w1 w2"}, "positive": {"en": "w5 w6 w7"}, "negatives": {"en": ["w9"]}}
{"id": "b", "query": {"en": "w1 w2 w3 w4 w5 w6"}, "positive": {"en": "w5 w6 w7", "de": "w8"}}
{"id": "c", "query": {"en": "w1 w2 w3"}, "positive": {"de": "w1"}}"#;

fn report(rows: &str) -> DataReport {
    let dir = TempDir::new().unwrap();
    DataReport::new(&open(&DataSource::new(write(dir.path(), "rows.jsonl", rows)), dir.path()).unwrap())
}

#[test]
fn counts_by_hand() {
    let report = report(ROWS);
    assert_eq!((report.n_groups, report.n_rows, report.notes.lines()), (3, 3, vec![]));
    assert_eq!([Role::Query, Role::Positive, Role::Negative].map(|role| report.n_texts(role)), [4, 4, 1]);
    let of = |role, lang: Option<&str>, n_texts, mean, [median, p95, max]: [u32; 3], n_truncated| Lengths {
        role,
        lang: lang.map(String::from),
        n_texts,
        mean,
        median,
        p95,
        max,
        n_truncated,
    };
    let expected = [
        of(Role::Query, Some("de"), 1, 5.0, [5, 5, 5], 0),
        of(Role::Query, Some("en"), 3, 19.0 / 3.0, [6, 9, 9], 1),
        of(Role::Query, None, 4, 6.0, [5, 9, 9], 1),
        of(Role::Positive, Some("de"), 2, 4.0, [4, 4, 4], 0),
        of(Role::Positive, Some("en"), 2, 6.0, [6, 6, 6], 0),
        of(Role::Positive, None, 4, 5.0, [4, 6, 6], 0),
        of(Role::Negative, Some("en"), 1, 4.0, [4, 4, 4], 0),
    ];
    assert_eq!(report.lengths, expected);
    assert_eq!(report.lengths[2].truncated_share(), 0.25);
    // Query language down: de has group a alone; en has all three.
    assert_eq!(report.directions.languages, ["de", "en"]);
    assert_eq!(report.directions.n_groups, BTreeMap::from([((0, 1), 1), ((1, 0), 2), ((1, 1), 2)]));
    // "w5 w6 w7" is a positive of a and b.
    let expected = [(Role::Query, 0, 0), (Role::Positive, 1, 2), (Role::Negative, 0, 0)];
    assert_eq!(report.duplicates, expected.map(|(role, n_texts, n_groups)| Duplicates { role, n_texts, n_groups }));
}

#[test]
fn the_printed_tables() {
    let printed = report(ROWS).to_string();
    let expected = "\
3 groups from 3 rows
4 queries, 4 positives, 1 negative

Lengths in tokens, with prefix and special tokens, before truncation
role      language  texts  mean  median  p95  max  truncated   share
query     de            1   5.0       5    5    5          0   0.0 %
query     en            3   6.3       6    9    9          1  33.3 %
query     all           4   6.0       5    9    9          1  25.0 %
positive  de            2   4.0       4    4    4          0   0.0 %
positive  en            2   6.0       6    6    6          0   0.0 %
positive  all           4   5.0       4    6    6          0   0.0 %
negative  en            1   4.0       4    4    4          0   0.0 %

Groups by direction: query language down, passage language across
    de  en
de   0   1
en   2   2

Texts that occur in more than one group
role      texts  groups
positive      1       2
";
    assert_eq!(printed, expected);
}

#[test]
fn many_languages_print_the_most_frequent_directions() {
    let langs = ["aa", "ab", "af", "am", "ar", "as", "az", "be", "bg", "bn", "bo", "bs", "ca", "cs", "cy", "da", "de"];
    let row = |lang: &str| format!("{{\"query\": {{\"{lang}\": \"w1\"}}, \"positive\": {{\"{lang}\": \"w2\"}}}}\n");
    let rows: String = langs.iter().map(|lang| row(lang)).collect::<String>() + &row("de");
    let printed = report(&rows).to_string();
    let directions = printed.split("Groups by direction: ").nth(1).unwrap();
    assert!(
        directions.starts_with("the 17 most frequent of 17\nquery  passage  groups\nde     de            2\naa "),
        "{printed}"
    );
}
