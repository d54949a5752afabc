//! What a run says of its negatives, of texts that it trains and is evaluated on, and of languages.

use crate::common::{Sandbox, fixture, metrics, train};
use serde_json::json;

fn rows(rows: impl Iterator<Item = [String; 2]>) -> String {
    rows.map(|[query, positive]| json!({"query": query, "positive": positive, "lang": "en"}).to_string() + "\n")
        .collect()
}

/// Pairs of relevance: each query has two passages, and shares each of them with another query.
fn chain(n: usize) -> String {
    let row = |i: usize, gate: usize| [format!("river gate {i}"), format!("old bank {gate} long")];
    rows((0..n).flat_map(|i| [row(i, i), row(i, i + 1)]))
}

#[test]
fn pairs_of_many_to_many_relevance_are_learned_from() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", chain(40));
    let bert = fixture("bert");
    let done = sandbox.hbt(&train(&bert, &["batch_size=8", "steps=30", "eval_task=none"])).ok();
    let lines = metrics(&sandbox, "run");
    let left_out: Vec<u64> = lines.iter().map(|line| line["false_negatives"].as_u64().unwrap()).collect();
    assert!(lines.iter().all(|line| line["loss"].as_f64().unwrap() > 0.0 && line["grad_norm"].as_f64().unwrap() > 0.0));
    // A row answers no more than five others: that of its own query, and two of each neighbour. They meet in some batches.
    assert!(left_out.iter().all(|&n| n <= 8 * 5) && left_out.iter().any(|&n| n > 0), "{left_out:?}");
    let share = 100.0 * left_out.iter().sum::<u64>() as f64 / (30.0 * 8.0 * 7.0);
    let said = format!("{share:.1} % of the negatives were left out: they answer the query");
    assert!(done.stderr.contains(&said), "{said}: {}", done.stderr);
    assert!(done.stderr.contains("all of the data is in \"en\", with no pairs across languages"), "{}", done.stderr);
}

#[test]
fn a_run_with_nothing_to_learn_from_stops() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", rows((0..40).map(|i| [format!("river {i}"), "the old bank".to_owned()])));
    let bert = fixture("bert");
    let error = sandbox.hbt(&train(&bert, &["steps=200", "eval_task=none"])).error();
    let expected = "error: data: in the last 20 steps nearly all negatives were left out, so there is nothing to learn: their \
                    passages answer the query";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(metrics(&sandbox, "run").len(), 20);
    std::fs::remove_dir_all(sandbox.path("run")).unwrap();
    let short = sandbox.hbt(&train(&bert, &["steps=3", "eval_task=none"])).error();
    assert!(short.contains("in the last 3 steps"), "{short}");
}

#[test]
fn evaluation_queries_among_the_training_data_are_counted() {
    let sandbox = Sandbox::new();
    let pair = |i: usize| [format!("river {i}"), format!("old bank {i}")];
    sandbox.write("data.jsonl", rows((0..30).map(pair)));
    // Ten of the training data, of which four have another answer, and ten of its own that share a passage with it.
    let others = |i: usize| match i {
        0..6 => pair(i),
        6..10 => [format!("river {i}"), format!("new bank {i}")],
        _ => [format!("street {i}"), format!("old bank {i}")],
    };
    sandbox.write("test.jsonl", rows((0..20).map(others)));
    let bert = fixture("bert");
    let done = sandbox.hbt(&train(&bert, &["steps=2", "eval_data=test.jsonl"])).ok();
    let expected = "10 of 20 evaluation questions are training questions, too, 6 of them with their answer";
    assert!(done.stderr.contains(&format!("warning: {expected}")), "{}", done.stderr);
    assert!(sandbox.read("run/last/README.md").contains(expected));
    sandbox.write("test.jsonl", rows((10..20).map(others)));
    std::fs::remove_dir_all(sandbox.path("run")).unwrap();
    let done = sandbox.hbt(&train(&bert, &["steps=2", "eval_data=test.jsonl"])).ok();
    assert!(!done.stderr.contains("training questions"), "{}", done.stderr);
}

#[test]
fn small_languages_take_part_and_are_named_once() {
    let sandbox = Sandbox::new();
    let row = |lang: &str, i: usize| {
        json!({"query": format!("river {i} {lang}"), "positive": format!("bank {i} {lang}"), "lang": lang}).to_string()
            + "\n"
    };
    let of_lang = |(lang, n): (&'static str, usize)| (0..n).map(move |i| row(lang, i));
    sandbox.write("data.jsonl", [("de", 3), ("en", 30), ("sw", 2)].into_iter().flat_map(of_lang).collect::<String>());
    let done = sandbox.hbt(&train(&fixture("bert"), &["mode=monolingual", "steps=40", "eval_task=none"])).ok();
    let note =
        "2 languages with fewer groups than the 4 rows of a batch (de, sw): their monolingual batches are filled up";
    assert_eq!(done.stderr.matches(note).count(), 1, "{}", done.stderr);
    let modes: Vec<String> = metrics(&sandbox, "run").iter().map(|line| line["mode"].to_string()).collect();
    assert!(modes.contains(&"\"mixed_monolingual\"".to_owned()) && modes.contains(&"\"monolingual\"".to_owned()));
}
