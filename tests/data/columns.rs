//! Columns: what a label, an id, an instruction or an unknown name means, and that nothing is dropped in silence.

use hbt::data::formats::{Columns, DataSource, Group, Note, Notes, Text};
use tempfile::TempDir;

use super::{message, write};

fn read_with(columns: Columns, rows: &[&str]) -> hbt::Result<(Vec<Group>, Notes)> {
    let dir = TempDir::new().unwrap();
    DataSource { columns, ..DataSource::new(write(dir.path(), "rows.jsonl", rows.join("\n"))) }.read_groups()
}

fn read(rows: &[&str]) -> hbt::Result<(Vec<Group>, Notes)> {
    read_with(Columns::default(), rows)
}

/// Queries, positives and negatives of each group, as texts.
fn texts(groups: &[Group]) -> Vec<[Vec<&str>; 3]> {
    let texts = |of: &[Text]| of.iter().map(|text| text.text.as_str().to_owned().leak() as &str).collect();
    groups.iter().map(|group| [texts(&group.queries), texts(&group.positives), texts(&group.negatives)]).collect()
}

fn teacher_scores(row: &str) -> (Vec<f32>, Vec<f32>) {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", row));
    let group = source.resolve().unwrap().rows().unwrap().next().unwrap().unwrap().parse().unwrap();
    (group.positive_scores, group.negative_scores)
}

#[test]
fn a_label_of_0_makes_a_negative() {
    let expected = [[vec!["q"], vec!["p"], vec!["n", "m"]]];
    for rows in [
        &[r#"{"query": "q", "answer": ["p", "n", "m"], "labels": [1, 0, 0]}"#][..],
        &[r#"{"query": "q", "answer": ["p", "n", "m"], "label": [true, false, false]}"#],
        &[
            r#"{"query": "q", "passage": "p", "negatives": ["n"], "label": 1, "neg_scores": null}"#,
            r#"{"query": "q", "passage": "m", "label": 0}"#,
        ],
        // Negatives may come first, and stand rows apart.
        &[
            r#"{"sentence1": "q", "sentence2": "n", "label": 0}"#,
            r#"{"sentence1": "q", "sentence2": "p", "label": 1}"#,
            r#"{"sentence1": "q", "sentence2": "m", "label": 0.0}"#,
        ],
        &[
            r#"{"query": "q", "passage": "p", "score": 1.0}"#,
            r#"{"query": "q", "passage": "n", "score": 0}"#,
            r#"{"query": "q", "passage": "m", "score": 0.0}"#,
        ],
    ] {
        let (groups, _) = read(rows).unwrap_or_else(|e| panic!("{rows:?}: {e}"));
        assert_eq!(texts(&groups), expected, "{rows:?}");
    }
}

#[test]
fn labels_keep_languages_and_questions_apart() {
    let (groups, _) = read(&[
        r#"{"query": "q", "passage": "p", "label": 1, "lang": "en"}"#,
        r#"{"query": "q", "passage": "f", "label": 1, "lang": "fr"}"#,
        r#"{"query": "q", "passage": "n", "label": 0, "lang": "fr"}"#,
        r#"{"query": "r", "passage": "p", "label": 1, "lang": "fr"}"#,
    ])
    .unwrap();
    let expected = [[vec!["q"], vec!["p"], vec![]], [vec!["q"], vec!["f"], vec!["n"]], [vec!["r"], vec!["p"], vec![]]];
    assert_eq!(texts(&groups), expected);
}

#[test]
fn labels_that_say_nothing_are_refused() {
    for (row, expected) in [
        (r#"{"query": "q", "passage": "p", "label": 2}"#, "line 2: label is 2; a label is 1 for a positive or 0"),
        (r#"{"query": "q", "passage": "p", "label": "entailment"}"#, "line 2: label is \"entailment\"; a label is 1"),
        (r#"{"query": "q", "passage": "p", "score": 0.83}"#, "line 2: score is 0.83: from which score on"),
        (r#"{"query": "q", "passage": ["p", "n"], "labels": [1]}"#, "line 2: labels has 1 label for 2 passages"),
        (
            r#"{"query": "q", "positive": "p", "negative": "n", "scores": [1, 2, 3]}"#,
            "scores has 3 numbers; expected one for",
        ),
        (r#"{"query": "q", "positive": "p", "scores": []}"#, "scores has 0 numbers; expected one for"),
        (
            r#"{"query": "q", "positive": "p", "negatives": ["n", "m"], "score": 0.83}"#,
            "score is 0.83: from which score on",
        ),
        (
            r#"{"query": "q", "positive": "p", "negative": "n", "label": 3.25}"#,
            "or call a teacher's scores or margins scores",
        ),
        (
            r#"{"query": "q", "positive": "p", "negative": "n", "scores": [null]}"#,
            "line 2: scores[0] has to be a number",
        ),
        (r#"{"query": "q", "passage": "p", "label": 0}"#, "rows.jsonl:2: every passage of this query is labelled 0"),
        (r#"{"query": {"en": "q"}, "positive": {"en": "p"}, "label": 1}"#, "is an object of texts by language"),
    ] {
        let message = message(read(&[r#"{"query": "first", "passage": "p"}"#, row]));
        assert!(message.contains("rows.jsonl") && message.contains(expected), "{row}: {message}");
    }
}

#[test]
fn the_scores_of_miners_are_a_teachers() {
    let tuple = r#"{"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "scores": [0.5, 0.25, 0]}"#;
    assert_eq!(teacher_scores(tuple), (vec![0.5], vec![0.25, 0.0]));
    let list = r#"{"query": "q", "answer": ["n", "p", "m"], "labels": [0, 1, 0], "scores": [0.25, 0.5, 0]}"#;
    assert_eq!(teacher_scores(list), (vec![0.5], vec![0.25, 0.0]));
    let pair = r#"{"query": "q", "answer": "p", "label": 0, "score": 0.125}"#;
    assert_eq!(teacher_scores(pair), (vec![], vec![0.125]));
}

/// MarginMSE's data: by how much the positive is above each negative.
#[test]
fn margins_are_a_teachers_scores_from_the_positives_on() {
    for row in [
        r#"{"query": "q", "positive": "p", "negative": "n", "score": 3.25}"#,
        r#"{"query": "q", "positive": "p", "negative": "n", "scores": [3.25]}"#,
    ] {
        assert_eq!(teacher_scores(row), (vec![0.0], vec![-3.25]), "{row}");
    }
    let list = r#"{"query": "q", "positive": "p", "negatives": ["n", "m"], "scores": [1, 0]}"#;
    assert_eq!(teacher_scores(list), (vec![0.0], vec![-1.0, 0.0]));
    // 1 and 0 by themselves are labels, as they are without negatives.
    let label = r#"{"query": "q", "positive": "p", "negative": "n", "score": 1}"#;
    assert_eq!(teacher_scores(label), (vec![], vec![]));
}

#[test]
fn rows_with_margins_are_joined_only_below_one_positive() {
    let rows = [
        r#"{"qid": 7, "query": "q", "positive": "p", "negative": "n", "score": 3.25}"#,
        r#"{"qid": 7, "query": "q", "positive": "p", "negative": "m", "score": -0.5}"#,
        r#"{"qid": 7, "query": "q", "positive": "other", "negative": "n", "score": 2.5}"#,
    ];
    let (groups, _) = read(&rows).unwrap();
    assert_eq!(texts(&groups), [[vec!["q"], vec!["p"], vec!["n", "m"]], [vec!["q"], vec!["other"], vec!["n"]]]);
    let message = message(read_with(Columns { join_by_id: true, ..Columns::default() }, &rows));
    assert!(message.contains("line 1: margins are below the row's own positive"), "{message}");
}

#[test]
fn an_id_joins_only_rows_that_ask_the_same() {
    let rows = [
        r#"{"query_id": "0", "query": "q", "positive": "p", "lang": "en"}"#,
        r#"{"query_id": "0", "query": "f", "positive": "a", "lang": "de"}"#,
        r#"{"query_id": "0", "query": "q", "positive": "p2", "lang": "en"}"#,
        r#"{"query_id": "0", "query": "other", "positive": "p3", "lang": "en"}"#,
        r#"{"query_id": "1", "query": "q", "positive": "p4", "lang": "en"}"#,
    ];
    let (groups, notes) = read(&rows).unwrap();
    assert_eq!(groups.iter().map(|group| group.positives.len()).collect::<Vec<_>>(), [2, 1, 1, 1]);
    assert_eq!((notes.count(&Note::JoinedRows), notes.count(&Note::SharedIds)), (1, 1));
    let (groups, notes) = read_with(Columns { join_by_id: true, ..Columns::default() }, &rows).unwrap();
    assert_eq!(groups.iter().map(|group| group.positives.len()).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(notes.lines(), ["3 rows joined to others that are about the same question"]);
}

#[test]
fn ids_keep_every_digit() {
    let ids =
        ["123456789012345678901234567890", "123456789012345678901234567891", "18446744073709551615", "-7", "1.50"];
    for id in ids {
        let (groups, _) =
            read(&[&format!(r#"{{"x": {{"id": 1}}, "id": {id}, "query": "q", "positive": "p"}}"#)]).unwrap();
        assert_eq!(groups[0].id, id);
    }
}

#[test]
fn names_in_use_elsewhere_mean_what_they_mean_there() {
    for (row, langs) in [
        (r#"{"query": "q", "positive": "p", "language": "deu"}"#, ["de", "de"]),
        (r#"{"query": "q", "positive": "p", "locale": "pt_br"}"#, ["pt-BR", "pt-BR"]),
        (r#"{"query": "q", "positive": "p", "query_language": "sw", "passage_locale": "EN"}"#, ["sw", "en"]),
    ] {
        let (groups, notes) = read(&[row]).unwrap();
        assert_eq!([&groups[0].queries[0].lang, &groups[0].positives[0].lang], langs);
        assert_eq!(notes.lines(), [""; 0]);
    }
    for row in [
        r#"{"query": "q", "positive": "p", "hard_negatives": ["n", "m", "o"]}"#,
        r#"{"query": "q", "positive": "p", "negative": "n", "negative_2": "m", "negative_3": "o"}"#,
        r#"{"anchor": "q", "positive": "p", "negative_1": "n", "negative_3": "o", "negative_2": "m"}"#,
        r#"{"question": "q", "context": "p", "answer": "short", "neg": ["n", "m", "o"]}"#,
    ] {
        assert_eq!(texts(&read(&[row]).unwrap().0), [[vec!["q"], vec!["p"], vec!["n", "m", "o"]]], "{row}");
    }
}

#[test]
fn instructions_stand_before_their_texts_only() {
    let instructions = |groups: &[Group]| {
        let group = &groups[0];
        let texts = [&group.queries, &group.positives, &group.negatives].into_iter().flatten();
        texts.map(|text| (text.instruction.clone().unwrap_or_default(), text.text.clone())).collect::<Vec<_>>()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let (groups, notes) = read(&[r#"{"query": "q", "pos": ["p"], "neg": ["n"], "prompt": "Find: "}"#]).unwrap();
    assert_eq!(instructions(&groups), [pair("Find: ", "q"), pair("", "p"), pair("", "n")]);
    assert_eq!(notes.count(&Note::UnusedInstructions), 1);
    let medi = r#"{"query": ["Ask: ", "q"], "pos": ["Say: ", "p"], "neg": ["Say: ", "n"], "task_name": "x"}"#;
    assert_eq!(instructions(&read(&[medi]).unwrap().0), [pair("Ask: ", "q"), pair("Say: ", "p"), pair("Say: ", "n")]);
    let refused = message(read(&[&medi.replace(r#"["Say: ", "n"]"#, r#""n""#)]));
    assert!(refused.contains("neg has to be an [instruction, text], as the row's task_name says"), "{refused}");
    // Two texts by themselves are two texts.
    let two = r#"{"query": "q", "pos": ["a", "b"]}"#;
    assert_eq!(texts(&read(&[two]).unwrap().0), [[vec!["q"], vec!["a", "b"], vec![]]]);
}

#[test]
fn columns_without_use_are_listed_and_slips_refused() {
    let rows = [
        r#"{"query": "q", "positive": "p", "url": "u", "n": null}"#,
        r#"{"query": "r", "positive": "p", "url": 1, "n": 2}"#,
    ];
    assert_eq!(read(&rows).unwrap().1.lines(), ["columns not used: n (1 row), url (2 rows)"]);
    for (column, meant) in
        [("negativs", "negative"), ("lables", "labels"), ("langauge", "language"), ("neg_score", "neg_scores")]
    {
        let row = format!(r#"{{"query": "q", "positive": "p", "{column}": "x"}}"#);
        let message = message(read(&[&row]));
        assert!(message.contains(&format!("unknown column \"{column}\"; did you mean \"{meant}\"?")), "{message}");
    }
    // A row that has its negatives cannot have meant others.
    let (_, notes) = read(&[r#"{"query": "q", "positive": "p", "neg": ["n"], "negativs": ["x"]}"#]).unwrap();
    assert_eq!(notes.lines(), ["columns not used: negativs (1 row)"]);
}

#[test]
fn columns_can_be_named() {
    let named = Columns {
        query: Some("frage".into()),
        positive: Some("antwort".into()),
        negative: Some("falsch".into()),
        join_by_id: false,
    };
    let row = r#"{"frage": "q", "antwort": "p", "falsch": ["n"], "query": "not this"}"#;
    let (groups, notes) = read_with(named.clone(), &[row]).unwrap();
    assert_eq!(texts(&groups), [[vec!["q"], vec!["p"], vec!["n"]]]);
    assert_eq!(notes.lines(), ["columns not used: query (1 row)"]);
    let message = message(read_with(named, &[r#"{"query": "q", "positive": "p"}"#]));
    assert!(message.contains("no query: expected one of frage; the row has query, positive"), "{message}");
}
