//! Loaders: XQuAD-R's published counts, and small data sets by hand.

use crate::common::XQUAD_R_SENTENCES;
use hbt::data::formats::{DataSource, Split};
use hbt::eval::figures::FigureKey;
use hbt::eval::tasks::{EvalSet, Query, Relevant, TASKS, named, parallel, recognised, xquad_r};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All data at a path.
fn all_of(path: &Path) -> DataSource {
    DataSource::new(path)
}

/// What holds of every evaluation set.
fn check_order(set: &EvalSet) {
    assert!(set.languages.is_sorted());
    assert!(set.passages.is_sorted_by_key(|p| p.lang) && set.queries.is_sorted_by_key(|q| q.lang));
    for query in &set.queries {
        assert!(!query.relevant.is_empty());
        assert!(query.relevant.is_sorted_by(|a, b| a < b));
        assert!(query.relevant.iter().all(|of| (of.passage as usize) < set.passages.len() && of.grade == 1));
    }
    let n_in_ranges: usize = (0..set.languages.len()).map(|lang| set.passage_range(lang as u16).len()).sum();
    assert_eq!(n_in_ranges, set.passages.len());
}

fn n_queries(set: &EvalSet, lang: usize) -> usize {
    set.queries.iter().filter(|q| usize::from(q.lang) == lang).count()
}

/// The sentences of a file's paragraphs, read without hbt.
fn sentences(path: &Path) -> Vec<String> {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let paragraphs = list(&file["data"]).into_iter().flat_map(|article| list(&article["paragraphs"]));
    let sentences = paragraphs.flat_map(|paragraph| list(&paragraph["sentences"]));
    sentences.map(|sentence| sentence.as_str().unwrap().to_owned()).collect()
}

#[test]
fn xquad_r_has_its_published_counts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/xquad-r");
    if !dir.exists() {
        eprintln!("skipped: {} is not there", dir.display());
        return;
    }
    let all = xquad_r::load(&all_of(&dir)).unwrap();
    check_order(&all);
    for (lang, (code, n_candidates)) in XQUAD_R_SENTENCES.into_iter().enumerate() {
        assert_eq!(all.languages[lang], code);
        // Some sentences stand twice, and are one candidate.
        let sentences = sentences(&dir.join(format!("{code}.json")));
        assert_eq!(sentences.len(), n_candidates, "{code}");
        let distinct: BTreeSet<&String> = sentences.iter().collect();
        let candidates: Vec<&String> = all.passages[all.passage_range(lang as u16)].iter().map(|of| &of.text).collect();
        assert_eq!((candidates.len(), candidates.into_iter().collect()), (distinct.len(), distinct), "{code}");
        assert_eq!(n_queries(&all, lang), 1190, "{code}");
    }
    for query in &all.queries {
        let langs: Vec<u16> = query.relevant.iter().map(|of| all.passages[of.passage as usize].lang).collect();
        assert_eq!(langs, (0..11).collect::<Vec<u16>>(), "one answer in every language");
    }
    // Offsets are code points: taken as bytes, the Thai answer would be sought in another sentence.
    let text = "ทีมรับของแพนเธอร์สยอมแพ้ที่คะแนนเท่าไร";
    let thai = all.queries.iter().find(|q| q.text == text).unwrap();
    assert!(all.passages[thai.relevant[7].passage as usize].text.contains("308"));

    let [train, test] = [Split::Train, Split::Test]
        .map(|split| xquad_r::load(&DataSource { split: split.into(), ..DataSource::new(&dir) }).unwrap());
    check_order(&train);
    check_order(&test);
    assert_eq!((train.split.as_str(), test.split.as_str()), ("train", "test"));
    assert_eq!(train.queries.len() + test.queries.len(), all.queries.len());
    let texts = |set: &EvalSet| -> BTreeSet<(u16, String)> {
        set.passages.iter().map(|passage| (passage.lang, passage.text.clone())).collect()
    };
    assert_eq!(&texts(&train) | &texts(&test), texts(&all));
}

/// Two languages; the second paragraph has no usable question, and the German answer starts after a character of two
/// bytes, at the very start of the second sentence.
#[test]
fn sentences_are_found_by_code_points() {
    let folder = tempfile::tempdir().unwrap();
    let file = |sentences: [&str; 2], answer_start: usize| {
        let [first, second] = sentences.map(|s| s.chars().count());
        let paragraph = serde_json::json!({
            "context": sentences.join(" "), "sentences": sentences,
            "sentence_breaks": [[0, first], [first + 1, first + 1 + second]],
            "qas": [
                {"id": "q1", "question": "Who?", "answers": [{"answer_start": answer_start, "text": "B"}]},
                {"id": "q2", "question": "In the gap?", "answers": [{"answer_start": first, "text": " "}]},
            ],
        });
        let mut unusable = paragraph.clone();
        unusable["qas"] = serde_json::json!([paragraph["qas"][1]]);
        serde_json::json!({"data": [{"title": "T", "paragraphs": [unusable, paragraph]}]}).to_string()
    };
    fs::write(folder.path().join("de.json"), file(["Ää üß.", "Bär da."], 7)).unwrap();
    fs::write(folder.path().join("en.json"), file(["Bear there.", "None."], 0)).unwrap();
    let set = xquad_r::load(&all_of(folder.path())).unwrap();
    check_order(&set);
    let texts: Vec<&str> = set.passages.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(texts, ["Ää üß.", "Bär da.", "Bear there.", "None."]);
    assert_eq!(set.queries.len(), 2);
    assert!(set.queries.iter().all(|q| q.relevant == [1, 2].map(Relevant::binary) && q.group == 0));
}

#[test]
fn data_without_sentences_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let answer = r#"{"answer_start": 0, "text": "A"}"#;
    let paragraph =
        format!(r#"{{"context": "A b.", "qas": [{{"id": "1", "question": "Q?", "answers": [{answer}]}}]}}"#);
    let text = format!(r#"{{"data": [{{"title": "T", "paragraphs": [{paragraph}]}}]}}"#);
    fs::write(folder.path().join("en.json"), text).unwrap();
    let message = xquad_r::load(&all_of(folder.path())).unwrap_err().to_string();
    assert!(
        message.contains("en.json: article \"T\", question 1: its paragraph is not cut into sentences")
            && message.contains("set passage_unit = \"paragraph\""),
        "{message}"
    );
}

fn load_parallel(lines: &[&str]) -> hbt::Result<EvalSet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("questions.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    parallel::load(&all_of(&path))
}

#[test]
fn parallel_groups_share_candidates_with_equal_texts() {
    let set = load_parallel(&[
        r#"{"id": "1", "query": {"en": "capital of France?", "de": "Hauptstadt?"}, "positive": {"en": "Paris", "de": "Paris"}}"#,
        r#"{"id": "2", "query": {"en": "seat of Louvre?"}, "positive": {"en": ["The Louvre", "Paris"]}, "negatives": {"en": ["Rome"]}}"#,
        r#"{"id": "3", "query": {"fr": "capitale de l'Italie ?"}, "positive": {"en": "Rome"}, "negatives": {"en": ["Paris"]}}"#,
    ])
    .unwrap();
    check_order(&set);
    assert_eq!(set.languages, ["de", "en", "fr"]);
    let passages: Vec<_> = set.passages.iter().map(|p| (p.lang, p.text.as_str())).collect();
    assert_eq!(passages, [(0, "Paris"), (1, "Paris"), (1, "The Louvre"), (1, "Rome")]);
    let of = |query: &Query| (query.lang, query.group, query.relevant.iter().map(|of| of.passage).collect::<Vec<_>>());
    let queries: Vec<_> = set.queries.iter().map(of).collect();
    assert_eq!(queries, [(0, 0, vec![0, 1]), (1, 0, vec![0, 1]), (1, 1, vec![1, 2]), (2, 2, vec![3])]);
    assert!(set.passage_range(2).is_empty());
}

#[test]
fn an_empty_or_broken_parallel_file_is_an_error_that_names_the_place() {
    assert!(load_parallel(&[]).unwrap_err().to_string().contains("questions.jsonl"));
    let good = r#"{"id": "1", "query": {"en": "q"}, "positive": {"en": "p"}}"#;
    let message = load_parallel(&[good, "{"]).unwrap_err().to_string();
    assert!(message.contains("questions.jsonl, line 2:"), "{message}");
}

#[test]
fn rows_of_the_table_have_names_of_their_own_and_figures_that_names_tell_apart() {
    for (i, &task) in TASKS.iter().enumerate() {
        assert_eq!(named(task.name), Some(task));
        assert!(TASKS[..i].iter().all(|other| other.name != task.name), "two tasks are called {task}");
        assert!(!["auto", "none"].contains(&task.name));
        assert!(task.figures.contains(&task.main), "{task} lists its main figure");
        assert!((1..task.figures.len()).all(|i| !task.figures[..i].contains(&task.figures[i])), "{task}");
    }
    let known = FigureKey::known();
    let names: std::collections::BTreeSet<String> = known.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), known.len(), "a name is of one figure: {known:?}");
    assert_eq!(named("Parallel"), None);
}

#[test]
fn data_is_recognised_by_its_layout() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, file: &str, text: &str| {
        let dir = folder.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(file), text).unwrap();
        recognised(&all_of(&dir)).map(|task| task.name)
    };
    let parallel = r#"{"id": "1", "query": {"en": "q"}, "positive": {"en": "p"}}"#;
    assert_eq!(of("parallel", "data.jsonl", parallel).unwrap(), "parallel");
    assert_eq!(of("flat", "data.jsonl", r#"{"query": "q", "positive": "p"}"#).unwrap(), "parallel");
    assert_eq!(of("squad", "de.json", r#"{"data": []}"#).unwrap(), "xquad-r");
    let file = folder.path().join("parallel/data.jsonl");
    assert_eq!(recognised(&all_of(&file)).unwrap().name, "parallel");
    let message = of("empty", "notes.txt", "nothing").unwrap_err().to_string();
    assert!(message.contains("empty"), "{message}");
    assert!(recognised(&all_of(&folder.path().join("gone"))).is_err());
}
