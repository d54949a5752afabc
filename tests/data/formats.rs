//! Readers: each dialect against groups written by hand, and each kind of bad row against its message.

use hbt::data::formats::{DataFormat, DataSource, Group, Note, Notes, PassageUnit, Split, Text, squad};
use tempfile::TempDir;

use super::{message, write};

fn text(lang: &str, text: &str) -> Text {
    Text::new(lang, text)
}

fn group(id: &str, queries: &[(&str, &str)], positives: &[(&str, &str)], negatives: &[(&str, &str)]) -> Group {
    let texts = |of: &[(&str, &str)]| of.iter().map(|(lang, words)| text(lang, words)).collect();
    Group {
        id: id.into(),
        queries: texts(queries),
        positives: texts(positives),
        negatives: texts(negatives),
        ..Group::default()
    }
}

/// Groups of a file with this content, its format sniffed.
fn read(content: impl AsRef<[u8]>) -> hbt::Result<Vec<Group>> {
    let dir = TempDir::new().unwrap();
    groups_of(&DataSource::new(write(dir.path(), "rows.jsonl", content)))
}

/// Groups without what identifies them beside their ids.
fn groups_of(source: &DataSource) -> hbt::Result<Vec<Group>> {
    let (groups, _) = source.read_groups()?;
    Ok(groups.into_iter().map(|group| Group { identity: None, ..group }).collect())
}

fn read_as(format: DataFormat, content: &str) -> hbt::Result<Vec<Group>> {
    let dir = TempDir::new().unwrap();
    groups_of(&DataSource { format: format.into(), ..DataSource::new(write(dir.path(), "rows.jsonl", content)) })
}

#[test]
fn parallel_rows() {
    let rows = "\u{feff}{\"id\": \"a\", \"query\": {\"en\": \"q\", \"ar\": \"س\"}, \"positive\": {\"en\": [\"p1\", \"p2\"], \"zh-Hant\": \"答\"}, \
                \"negatives\": {\"en\": [\"n\"]}, \"note\": 1}\r\n\n   \n{\"query\": {\"de\": \"f\"}, \"positive\": {\"de\": \"a\"}}";
    let expected = [
        group("a", &[("en", "q"), ("ar", "س")], &[("en", "p1"), ("en", "p2"), ("zh-Hant", "答")], &[("en", "n")]),
        group("rows.jsonl:4", &[("de", "f")], &[("de", "a")], &[]),
    ];
    assert_eq!(read(rows).unwrap(), expected);
}

#[test]
fn flat_dialects() {
    let plain = |id: &str| group(id, &[("und", "q")], &[("und", "p")], &[("und", "n")]);
    let cases = [
        (r#"{"query": "q", "positive": "p", "negative": "n"}"#, plain("rows.jsonl:1")),
        (r#"{"anchor": "q", "positive": "p", "negative_1": "n"}"#, plain("rows.jsonl:1")),
        (r#"{"question": "q", "answer": "p", "negatives": ["n"], "id": 12}"#, plain("12")),
        (r#"{"query": "q", "passage": "p", "neg": "n", "id": null, "lang": null}"#, plain("rows.jsonl:1")),
        // A short answer beside the passage that holds it.
        (r#"{"question": "q", "answer": "42", "positive": "p", "negatives": ["n"]}"#, plain("rows.jsonl:1")),
        // FlagEmbedding.
        (
            r#"{"query": "q", "pos": ["p", "p2"], "neg": ["n"], "pos_scores": [0.9, 1], "neg_scores": [0.1], "prompt": "Find", "type": "normal"}"#,
            Group {
                queries: vec![Text { instruction: Some("Find".into()), ..text("und", "q") }],
                ..group("rows.jsonl:1", &[], &[("und", "p"), ("und", "p2")], &[("und", "n")])
            },
        ),
        // tevatron.
        (
            r#"{"query_id": "7", "query": "q", "positive_passages": [{"docid": "1", "title": "T", "text": "p"}], "negative_passages": [{"docid": "2", "title": "", "text": "n"}, {"docid": "3", "text": "n2"}]}"#,
            group("7", &[("und", "q")], &[("und", "T p")], &[("und", "n"), ("und", "n2")]),
        ),
        (
            r#"{"query": "q", "positive": "p", "query_lang": "en", "passage_lang": "de", "negatives": []}"#,
            group("rows.jsonl:1", &[("en", "q")], &[("de", "p")], &[]),
        ),
        (
            r#"{"query": "q", "positive": "p", "lang": "sw", "query_lang": "en", "negatives": ["n"]}"#,
            group("rows.jsonl:1", &[("en", "q")], &[("sw", "p")], &[("sw", "n")]),
        ),
        (
            r#"{"query": "q", "positive": "p", "lang": "sw"}"#,
            group("rows.jsonl:1", &[("sw", "q")], &[("sw", "p")], &[]),
        ),
    ];
    for (row, expected) in cases {
        assert_eq!(read(row).unwrap_or_else(|e| panic!("{row}: {e}")), [expected], "{row}");
    }
}

#[test]
fn rows_with_one_id_are_versions_of_one_group() {
    let rows = [
        r#"{"id": "x", "query": "q", "positive": "p", "query_lang": "en", "passage_lang": "en"}"#,
        r#"{"id": "y", "query": "other", "positive": "p", "lang": "en"}"#,
        r#"{"id": "x", "query": "q", "positive": "P", "query_lang": "en", "passage_lang": "de"}"#,
    ];
    let expected = [
        group("x", &[("en", "q")], &[("en", "p"), ("de", "P")], &[]),
        group("y", &[("en", "other")], &[("en", "p")], &[]),
    ];
    assert_eq!(read(rows.join("\n")).unwrap(), expected);
}

#[test]
fn bad_rows_name_their_line() {
    let good = r#"{"query": "q", "positive": "p"}"#;
    let cases = [
        (
            r#"{"positive": "p", "qurey": "q"}"#,
            "no query: expected one of query, anchor, question, sentence1; the row has positive, qurey; rename a column",
        ),
        (
            r#"{"query": "q", "poss": ["p"]}"#,
            "no positive: expected one of positive, positives, pos, positive_passages, passage, context, answer, \
             sentence2; the row has query, poss; rename a column, or set positive_column",
        ),
        (r#"{"query": null}"#, "no query"),
        (r#"{"query": "", "positive": "p"}"#, "query is empty"),
        (r#"{"query": " \t\u00a0", "positive": "p"}"#, "query is empty"),
        (r#"{"query": "q", "pos": ["p", "\n"]}"#, "pos[1] is empty"),
        (r#"{"query": "q", "pos": []}"#, "pos is an empty list"),
        (r#"{"query": 3, "pos": "p"}"#, "query has to be a string or a list of strings, not a number"),
        (r#"{"query": "q", "pos": [["p"]]}"#, "pos[0] has to be a string or a list of strings, not a list"),
        (r#"{"query": "q", "pos": {"en": "p"}}"#, "pos has no \"text\""),
        (r#"{"query": "q", "pos": "p", "pos": "p2"}"#, "invalid JSON: the key \"pos\" stands twice at column 32"),
        (
            r#"{"query": "q", "pos": "p", "query_lang": "de"}"#,
            "the row has query_lang and no passage_lang, so query and passage would count as in two languages; add passage_lang",
        ),
        (r#"{"query": "q", "pos": "p", "passage_language": "de"}"#, "the row has passage_lang and no query_lang, so"),
        (r#"{"query": "q", "pos": "p", "neg": ["n", ""]}"#, "neg[1] is empty"),
        (
            r#"{"query": "q", "pos": "p", "lang": "english"}"#,
            "lang: unknown language \"english\"; write its ISO 639 code",
        ),
        (
            r#"{"query": "q", "pos": "p", "query_lang": 1}"#,
            "query_lang has to be a language code such as \"en\", not a number",
        ),
        (r#"{"query": "q", "pos": "p", "id": ["a"]}"#, "id has to be a number or a string"),
        (r#"{"query": {"en": "q"}, "positive": {"en": "p"}}"#, "read such rows with data_format = \"parallel\""),
        (r#"["q", "p"]"#, "expected one JSON object a line, found a list"),
        (r#"{"query": "q", "pos": "p""#, "invalid JSON: EOF while parsing an object at column 25"),
        (r#"{"query": "\ud800", "pos": "p"}"#, "invalid JSON: "),
    ];
    for (row, expected) in cases {
        let message = message(read(format!("{good}\n\n{row}\n{good}")));
        assert!(message.contains("rows.jsonl, line 3: ") && message.contains(expected), "{row}: {message}");
    }
}

#[test]
fn scores_stand_beside_their_texts() {
    let dir = TempDir::new().unwrap();
    let scores = |row: &str| {
        let source = DataSource::new(write(dir.path(), "rows.jsonl", row));
        let group = source.resolve().unwrap().rows().unwrap().next().unwrap().unwrap().parse().unwrap();
        (group.positive_scores, group.negative_scores)
    };
    let none = (vec![], vec![]);
    assert_eq!(scores(r#"{"query": "q", "pos": "p", "neg": ["n"]}"#), none);
    assert_eq!(scores(r#"{"query": "q", "pos": ["p"], "pos_scores": null, "neg": ["n"], "neg_scores": null}"#), none);
    let flat = r#"{"query": "q", "pos": ["p", "p2"], "neg": ["n"], "pos_scores": [0.5, 1], "neg_scores": [-3e-2]}"#;
    assert_eq!(scores(flat), (vec![0.5, 1.0], vec![-0.03]));
    let columns = r#"{"anchor": "q", "positive": "p", "positive_scores": 7, "negative_1": "n", "negative_2": "m",
        "negative_scores": [1, 2]}"#;
    assert_eq!(scores(&columns.replace('\n', " ")), (vec![7.0], vec![1.0, 2.0]));
    let parallel = r#"{"query": {"en": "q"}, "positive": {"en": ["p", "p2"], "de": "p"}, "negatives": {"de": ["n"]},
        "pos_scores": {"en": [0.25, 0.5], "de": 0.75}, "neg_scores": {"de": [1]}}"#;
    let (positives, negatives) = scores(&parallel.replace('\n', " "));
    let groups = read(parallel.replace('\n', " ")).unwrap();
    let langs = groups[0].positives.iter().map(|text| text.lang.as_str());
    let by_lang: Vec<(&str, f32)> = langs.zip(positives).collect();
    assert_eq!(by_lang.iter().filter(|(lang, _)| *lang == "en").map(|of| of.1).collect::<Vec<_>>(), [0.25, 0.5]);
    assert!(by_lang.contains(&("de", 0.75)) && by_lang.len() == 3);
    assert_eq!(negatives, [1.0]);
}

#[test]
fn bad_scores_name_their_line() {
    let flat = |scores: &str| format!(r#"{{"query": "q", "pos": ["p"], "neg": ["n", "m"], {scores}}}"#);
    let parallel = |scores: &str| format!(r#"{{"query": {{"en": "q"}}, "positive": {{"en": "p"}}, {scores}}}"#);
    let cases = [
        (flat(r#""neg_scores": [1]"#), "neg_scores has 1 score for 2 texts; give each text one"),
        (flat(r#""pos_scores": [1, 2]"#), "pos_scores has 2 scores for 1 text"),
        (flat(r#""neg_scores": [1, "2"]"#), "neg_scores[1] has to be a number, not a string"),
        (flat(r#""neg_scores": [1, null]"#), "neg_scores[1] has to be a number, not null"),
        (flat(r#""neg_scores": {"en": 1}"#), "neg_scores has 1 score for 2 texts"),
        (flat(r#""pos_scores": [1e300]"#), "pos_scores[0] is 1e300, too large for a score"),
        (
            parallel(r#""pos_scores": [1]"#),
            "pos_scores has to be an object of lists of numbers by language, not a list",
        ),
        (parallel(r#""pos_scores": {"de": [1]}"#), "pos_scores.en has 0 scores for 1 text"),
        (
            parallel(r#""pos_scores": {"en": [1], "de": 1}"#),
            "pos_scores has scores in \"de\", a language without texts",
        ),
    ];
    for (row, expected) in cases {
        let first = if row.contains("{\"en\": \"q\"}") { parallel("\"x\": 0") } else { flat("\"x\": 0") };
        let message = message(read(format!("{first}\n{row}\n")));
        assert!(message.contains("rows.jsonl, line 2: ") && message.contains(expected), "{row}: {message}");
    }
}

#[test]
fn bad_parallel_rows_name_their_line() {
    let good = r#"{"query": {"en": "q"}, "positive": {"en": "p"}}"#;
    let cases = [
        (r#"{"positive": {"en": "p"}}"#, "no query: expected one of query, queries; the row has positive"),
        (r#"{"query": {"en": "q"}}"#, "no positive"),
        (r#"{"query": {}, "positive": {"en": "p"}}"#, "query holds no text"),
        (
            r#"{"query": "q", "positive": "p"}"#,
            "query has to be an object of texts by language such as {\"en\": \"...\"}, not a string",
        ),
        (r#"{"query": {"English": "q"}, "positive": {"en": "p"}}"#, "query: unknown language \"English\""),
        (r#"{"query": {"en": "q"}, "positive": {"en": ["p", "  "]}}"#, "positive.en is empty"),
        (
            r#"{"query": {"en": "q"}, "positive": {"en": 5}}"#,
            "positive.en has to be a string or a list of strings, not a number",
        ),
    ];
    for (row, expected) in cases {
        let message = message(read(format!("{good}\n{row}")));
        assert!(message.contains("rows.jsonl, line 2: ") && message.contains(expected), "{row}: {message}");
    }
    let other = message(read_as(DataFormat::Parallel, r#"{"query": "q", "positive": "p"}"#));
    assert!(other.contains("line 1") && other.contains("data_format = \"flat\""), "{other}");
}

#[test]
fn invalid_utf8_names_its_line_and_byte() {
    let message = message(read(b"{\"query\": \"q\", \"pos\": \"p\"}\n{\"query\": \"\xff\", \"pos\": \"p\"}\n"));
    assert!(message.contains("rows.jsonl, line 2: invalid UTF-8 at byte 12 of the line"), "{message}");
}

#[test]
fn parts_of_a_directory() {
    let row = |word: &str| format!(r#"{{"query": "{word}", "positive": "p"}}"#);
    let dir = TempDir::new().unwrap();
    write(dir.path(), "train.jsonl", row("a"));
    write(dir.path(), "train-00001-of-00002.jsonl", row("b"));
    write(dir.path(), "test/de.jsonl", row("c"));
    write(dir.path(), "training_notes.jsonl", row("d"));
    write(dir.path(), "README.md", "not data");
    write(dir.path(), ".hidden.jsonl", "not data");
    let queries = |split| {
        let source = DataSource { split: Split::into(split), ..DataSource::new(dir.path()) };
        let (groups, _) = source.read_groups().unwrap();
        groups.iter().map(|group| format!("{} {}", group.id, group.queries[0].text)).collect::<Vec<_>>()
    };
    let (train, test) = (["train-00001-of-00002.jsonl:1 b", "train.jsonl:1 a"], ["test/de.jsonl:1 c"]);
    assert_eq!(queries(Split::Train), train);
    assert_eq!(queries(Split::Test), test);
    assert_eq!(queries(Split::All), [&test[..], &train[..], &["training_notes.jsonl:1 d"]].concat());

    let plain = write(dir.path(), "plain.jsonl", row("a"));
    let no_part = message(DataSource { split: Split::Test.into(), ..DataSource::new(&plain) }.read_groups());
    assert!(
        no_part.contains("plain.jsonl: no test part here") && no_part.contains("eval_split for evaluation"),
        "{no_part}"
    );
    let only_train = DataSource { split: Split::Train.into(), ..DataSource::new(dir.path().join("train.jsonl")) };
    assert_eq!(only_train.read_groups().unwrap().0.len(), 1);
}

#[test]
fn paths_without_data() {
    let dir = TempDir::new().unwrap();
    let missing = message(DataSource::new(dir.path().join("nowhere.jsonl")).read_groups());
    assert!(missing.contains("cannot read") && missing.contains("nowhere.jsonl"), "{missing}");
    let empty_dir = message(DataSource::new(dir.path()).read_groups());
    assert!(empty_dir.contains("no data here that hbt knows"), "{empty_dir}");
    let no_rows = message(DataSource { format: DataFormat::Flat.into(), ..DataSource::new(dir.path()) }.read_groups());
    assert!(no_rows.contains("no file here that data_format = \"flat\" can be in"), "{no_rows}");
    let empty_file = message(read("\n \n"));
    assert!(empty_file.contains("rows.jsonl: the file is empty"), "{empty_file}");
    let list = message(read("[\n{\"query\": \"q\"}\n]"));
    assert!(list.contains("rows.jsonl: row 1: no positive"), "{list}");
}

/// A paragraph whose code points, UTF-16 units and bytes all differ: "😀 é. Zwei." with sentences [0, 4) and [5, 10).
const SQUAD: &str = r#"{"data": [{"title": "T", "paragraphs": [{"context": "😀 é. Zwei.", "sentences": ["😀 é.", "Zwei."],
    "sentence_breaks": [[0, 4], [5, 10]], "qas": [
        {"id": "1", "question": "first?", "answers": [{"answer_start": 2, "text": "é"}]},
        {"id": "2", "question": "second?", "answers": [{"answer_start": 5, "text": "Zwei"}]},
        {"id": "3", "question": "between?", "answers": [{"answer_start": 4, "text": " "}]},
        {"id": "4", "question": "none?", "answers": []}]}]}]}"#;

fn squad_dir() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "de.json", SQUAD);
    let english = SQUAD.replace("first?", "first in English?").replace("Zwei.", "Two!!").replace("Zwei", "Two");
    write(dir.path(), "en.json", english.replace("\"title\": \"T\"", "\"title\": \"T\", \"extra\": 0"));
    dir
}

#[test]
fn squad_offsets_are_code_points() {
    let dir = squad_dir();
    let languages = squad::languages(dir.path()).unwrap();
    assert_eq!(languages.iter().map(|(lang, _)| lang.as_str()).collect::<Vec<_>>(), ["de", "en"]);
    let articles = squad::read_language(&languages[0].1, &mut Notes::default()).unwrap();
    let questions = &articles[0].paragraphs[0].questions;
    let found: Vec<_> = questions.iter().map(|q| (q.answer_start, q.sentence)).collect();
    assert_eq!(found, [(Some(2), Some(0)), (Some(5), Some(1)), (Some(4), None), (None, None)]);
}

#[test]
fn squad_groups_join_languages() {
    let dir = squad_dir();
    let expected = [
        group("1", &[("de", "first?"), ("en", "first in English?")], &[("de", "😀 é."), ("en", "😀 é.")], &[]),
        group("2", &[("de", "second?"), ("en", "second?")], &[("de", "Zwei."), ("en", "Two!!")], &[]),
    ];
    let source = DataSource::new(dir.path());
    assert_eq!(groups_of(&source).unwrap(), expected);
    let mut rows = source.resolve().unwrap().rows().unwrap();
    assert_eq!(rows.by_ref().count(), 4);
    assert_eq!([Note::Unanswered, Note::NoSentence].map(|note| rows.notes().count(&note)), [2, 2]);

    let paragraphs = DataSource { passage_unit: PassageUnit::Paragraph, ..source.clone() };
    let mut rows = paragraphs.resolve().unwrap().rows().unwrap();
    assert_eq!((rows.by_ref().count(), rows.notes().count(&Note::Unanswered)), (6, 2));
    assert_eq!(groups_of(&paragraphs).unwrap()[2].positives[0], text("de", "😀 é. Zwei."));

    let one_file = groups_of(&DataSource::new(dir.path().join("en.json"))).unwrap();
    assert_eq!(one_file[0].queries, [text("en", "first in English?")]);
}

#[test]
fn squad_parts() {
    let dir = squad_dir();
    let test = DataSource { split: Split::Test.into(), ..DataSource::new(dir.path()) };
    let missing = message(test.read_groups());
    assert!(missing.contains("split.json: missing") && missing.contains("split = \"all\""), "{missing}");
    write(dir.path(), "split.json", r#"{"about": "parts", "train": ["Other"], "test": ["T"]}"#);
    assert_eq!(groups_of(&test).unwrap().len(), 2);
    let train = message(DataSource { split: Split::Train.into(), ..test }.read_groups());
    assert!(train.contains("de.json: none of its articles is in this part"), "{train}");
}

#[test]
fn bad_squad_names_article_and_question() {
    let cases = [
        (
            SQUAD.replace("[5, 10]", "[5, 11]"),
            "article \"T\", sentence_breaks [5, 11] do not fit a paragraph of 10 code points",
        ),
        (SQUAD.replace(", [5, 10]", ""), "article \"T\", a paragraph has 2 sentences but 1 sentence_breaks"),
        (
            SQUAD.replace("\"answer_start\": 5", "\"answer_start\": 10"),
            "article \"T\", question 2: its answer \"Zwei\" is not at answer_start 10, and 1 of 3 answers are not where",
        ),
        (
            SQUAD.replace("5, \"text\": \"Zwei\"", "10"),
            "article \"T\", question 2: answer_start 10 lies outside its paragraph of 10 code points",
        ),
        (SQUAD.replace("second?", " "), "article \"T\", question 2 is empty"),
        (SQUAD.replace("\"😀 é.\", ", "\" \", "), "article \"T\", question 1: its passage is empty"),
        (SQUAD.replace("\"question\"", "\"frage\""), "line 3: not the SQuAD layout: missing field `question`"),
        (SQUAD[..SQUAD.len() - 3].to_string(), "line 6: not the SQuAD layout: EOF"),
    ];
    for (content, expected) in cases {
        let dir = TempDir::new().unwrap();
        write(dir.path(), "de.json", content);
        let message = message(DataSource::new(dir.path()).read_groups());
        assert!(message.contains("de.json") && message.contains(expected), "{message}");
    }
    let dir = TempDir::new().unwrap();
    let plain = SQUAD.replace("\"sentences\"", "\"no\"").replace("\"sentence_breaks\"", "\"no_breaks\"");
    write(dir.path(), "de.json", plain);
    let uncut = message(DataSource::new(dir.path()).read_groups());
    assert!(uncut.contains("article \"T\", question 1: its paragraph is not cut into sentences"), "{uncut}");
}
