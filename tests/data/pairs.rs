//! Tables of pairs, and Belebele: what a task's subsets hold, and what is said of rows that lack something.

use hbt::data::collection::{Belebele, Document, PairColumns, Pairs, Tables, clsd, clsd_config};
use tempfile::TempDir;

use super::{message, write};

fn pairs(first: &[&str], second: &[&str], gold: &[f64]) -> Pairs {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Pairs { first: owned(first), second: owned(second), gold: gold.to_vec() }
}

#[test]
fn pairs_of_configs_and_splits() {
    let dir = TempDir::new().unwrap();
    let bitext = "{\"sentence2\": \"Haus\", \"sentence1\": \" house\", \"lang\": \"x\"}\n{\"sentence1\": \"\", \"sentence2\": \"b\"}\n";
    write(dir.path(), "eng-deu/test.jsonl", bitext);
    write(dir.path(), "eng-fra/validation.jsonl", bitext);
    let scores = "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 2.5}\n{\"sentence1\": \"c\", \"sentence2\": \"d\", \"score\": 3}\n\
                  {\"sentence1\": \"e\", \"sentence2\": \"f\", \"score\": \"0.25\"}\n";
    write(dir.path(), "test.jsonl", scores);
    write(dir.path(), "data/train-00000-of-00001.jsonl", scores);
    let all = Tables::open(dir.path()).unwrap();
    assert_eq!(all.configs().collect::<Vec<_>>(), ["default", "eng-deu", "eng-fra"]);
    let expected = pairs(&[" house", ""], &["Haus", "b"], &[]);
    assert_eq!(all.pairs("eng-deu", "test", PairColumns::BITEXT).unwrap(), expected);
    // The only split is taken whatever its name.
    assert_eq!(all.pairs("eng-fra", "test", PairColumns::BITEXT).unwrap(), expected);
    let expected = pairs(&["a", "c", "e"], &["b", "d", "f"], &[2.5, 3.0, 0.25]);
    for split in ["test", "train"] {
        assert_eq!(all.pairs("default", split, PairColumns::SIMILARITY).unwrap(), expected);
    }
    assert_eq!(all.files("default", "train").unwrap(), ["data/train-00000-of-00001.jsonl"]);
    let listed = Tables::of_names(dir.path(), ["README.md", "eng-deu/test.jsonl"]).unwrap();
    assert_eq!(listed.configs().collect::<Vec<_>>(), ["eng-deu"]);
    assert!(
        message(all.pairs("deu-eng", "test", PairColumns::BITEXT))
            .ends_with("no config deu-eng here; there is default, eng-deu, eng-fra")
    );
    assert!(message(all.files("default", "dev")).ends_with("config default has no split dev; there is test, train"));
    let lacking = message(all.pairs("eng-deu", "test", PairColumns::SIMILARITY));
    assert!(lacking.ends_with("test.jsonl, line 1: no score; there is sentence2, sentence1, lang"), "{lacking}");
}

/// Older data sets keep all pairs in one row.
#[test]
fn labels_in_rows_or_in_lists() {
    let expected = pairs(&["a", "c"], &["b", "d"], &[1.0, 0.0]);
    let rows = "{\"sent1\": \"a\", \"sent2\": \"b\", \"labels\": 1}\n{\"sent1\": \"c\", \"sent2\": \"d\", \"labels\": false}\n";
    let lists = "{\"sentence1\": [\"a\", \"c\"], \"sentence2\": [\"b\", \"d\"], \"labels\": [1, 0]}\n";
    let load = |text: &str| {
        let dir = TempDir::new().unwrap();
        write(dir.path(), "test.jsonl", text);
        Tables::open(dir.path()).and_then(|all| all.pairs("default", "test", PairColumns::CLASSIFICATION))
    };
    for text in [rows, lists] {
        assert_eq!(load(text).unwrap(), expected);
    }
    let row = |labels: &str| format!("{{\"sentence1\": [\"a\"], \"sentence2\": [\"b\"], \"labels\": {labels}}}\n");
    for (labels, expected) in [
        ("[1, 0]", "lists of 1, 1 and 2 items; expected as many of each"),
        ("[null]", "labels has to be a number, not null"),
        ("1", "sentence1 has to be a text, not a list"),
        ("[\"NaN\"]", "labels has to be a number, not a text"),
    ] {
        let error = message(load(&row(labels)));
        assert!(error.contains(&format!("test.jsonl, line 1: {expected}")), "{error}");
    }
    assert!(message(load("\n")).ends_with("config default has no pair in split test"));
    assert!(message(Tables::open(TempDir::new().unwrap().path())).contains("no table here"));
}

#[test]
fn a_column_for_each_language() {
    let dir = TempDir::new().unwrap();
    let rows =
        "{\"eng_Latn\": \"a\", \"deu_Latn\": \"A\", \"fra_Latn\": null}\n{\"deu_Latn\": \"B\", \"eng_Latn\": \"b\"}\n";
    write(dir.path(), "data/devtest-00000-of-00001.jsonl", rows);
    let all = Tables::open(dir.path()).unwrap();
    assert_eq!(all.texts("default", "devtest", &["deu_Latn", "eng_Latn"]).unwrap(), [["A", "B"], ["a", "b"]]);
    let null = message(all.texts("default", "devtest", &["fra_Latn"]));
    assert!(null.contains("line 1: fra_Latn has to be a text, not null"), "{null}");
    let none = message(all.texts("default", "devtest", &["spa_Latn"]));
    assert!(none.contains("line 1: no spa_Latn; there is eng_Latn, deu_Latn, fra_Latn"), "{none}");
}

/// Rows of one language: link, number, passage, question.
fn belebele(rows: &[(&str, u8, &str, &str)]) -> String {
    let row = |(link, number, passage, question): &(&str, u8, &str, &str)| {
        format!(
            "{{\"link\": \"{link}\", \"question_number\": {number}, \"flores_passage\": \"{passage}\", \"question\": \
             \"{question}\", \"mc_answer1\": \"x\"}}\n"
        )
    };
    rows.iter().map(row).collect()
}

#[test]
fn belebele_is_that_of_mteb() {
    let english =
        belebele(&[("l1", 1, "one ", "a?"), ("l2", 1, "two", "b?"), ("l1", 2, "one ", "c?"), ("l2", 2, "two", "a?")]);
    let german = belebele(&[
        ("l2", 1, "zwei", "wb?"),
        ("l1", 1, "eins", "wa?"),
        ("l1", 2, "eins", "wa?"),
        ("l2", 2, "zwei", "wc?"),
    ]);
    for [one, two] in [["eng_Latn/test.jsonl", "deu_Latn/test.jsonl"], ["data/eng_Latn.jsonl", "data/deu_Latn.jsonl"]] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), one, &english);
        write(dir.path(), two, &german);
        let all = Belebele::open(dir.path()).unwrap();
        assert_eq!(all.languages(), ["deu_Latn", "eng_Latn"]);
        assert_eq!(all.files("eng_Latn").unwrap(), [one]);
        let task = all.load("deu_Latn", "eng_Latn").unwrap();
        assert_eq!((&*task.subset, &*task.split, task.n_query_rows), ("deu_Latn-eng_Latn", "test", 4));
        let queries: Vec<_> = task
            .queries
            .iter()
            .map(|query| (query.row, &*query.id, &*query.text, query.judgements.as_slice()))
            .collect();
        let judged = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), 1)).collect::<Vec<_>>();
        let [first, second, third] = [judged(&["C1", "C0"]), judged(&["C0"]), judged(&["C1"])];
        assert_eq!(queries, [(0, "Q0", "a?", &*first), (1, "Q1", "b?", &*second), (2, "Q2", "c?", &*third)]);
        let documents: Vec<Document> = task.documents().map(Result::unwrap).collect();
        let document = |id: &str, text: &str| Document { id: id.into(), text: text.into() };
        assert_eq!(documents, [document("C0", "zwei"), document("C1", "eins")]);
        assert_eq!(task.n_documents_hint().unwrap(), Some(2));
        let within = all.load("eng_Latn", "eng_Latn").unwrap();
        assert_eq!(within.documents().next().unwrap().unwrap(), document("C0", "one"));
        // Questions of two languages are told apart by link and number, and the passage is as it stands.
        let rows = all.questions("eng_Latn").unwrap();
        assert_eq!((&*rows[2].link, rows[2].number, &*rows[2].passage, &*rows[2].question), ("l1", 2, "one ", "c?"));
        let none = message(all.load("fra_Latn", "eng_Latn"));
        assert!(none.ends_with("no language fra_Latn here; there is deu_Latn, eng_Latn"), "{none}");
        write(dir.path(), two, belebele(&[("l3", 1, "drei", "w?")]));
        let lacking = message(all.load("eng_Latn", "deu_Latn"));
        assert!(lacking.ends_with("deu_Latn: no passage of eng_Latn has the link l3"), "{lacking}");
    }
}

#[test]
fn clsd_is_that_of_mteb() {
    let dir = TempDir::new().unwrap();
    let row = |source: &str, targets: [&str; 5]| {
        let [target, one, two, three, four] = targets;
        format!(
            "{{\"Source\": \"{source}\", \"Target\": \"{target}\", \"TargetAdv1\": \"{one}\", \"TargetAdv2\": \"{two}\", \
             \"TargetAdv3\": \"{three}\", \"TargetAdv4\": \"{four}\"}}\n"
        )
    };
    let rows = [row(" eins", ["un ", "uno", "un", "unes", "une"]), row("zwei", ["deux", "deus", "dix", "deux", "du"])];
    write(dir.path(), "wmt21.de.fr/test.jsonl", rows.concat());
    let task =
        clsd(&Tables::open(dir.path()).unwrap(), [&clsd_config("deu", "fra"), "test"], "deu-fra", "test").unwrap();
    let judged = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), 1)).collect::<Vec<_>>();
    let queries: Vec<_> = task.queries.iter().map(|of| (&*of.id, &*of.text, of.judgements.clone())).collect();
    assert_eq!(queries, [("Q1", " eins", judged(&["D1"])), ("Q2", "zwei", judged(&["D6", "D9"]))]);
    let documents: Vec<String> =
        task.documents().map(|of| of.map(|of| format!("{} {}", of.id, of.text)).unwrap()).collect();
    let expected =
        ["D1 un", "D2 uno", "D3 un", "D4 unes", "D5 une", "D6 deux", "D7 deus", "D8 dix", "D9 deux", "D10 du"];
    assert_eq!(documents, expected);
    assert_eq!((&*task.subset, &*task.split, task.n_query_rows), ("deu-fra", "test", 2));
}
