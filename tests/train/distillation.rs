//! Learning from a teacher's scores: that the student follows the teacher, what is told, and what is refused.

use crate::common::{Sandbox, assert_same_run, fixture, metrics, run_results, train};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Kinds of passages, by a word.
const GRADES: [&str; 4] = ["book", "green", "old", "sea"];

/// Questions about letters, each with a passage of every grade about the same letters. The first is the positive. The teacher
/// likes the others in their order, or in the opposite one.
fn graded(n: usize, in_order: bool) -> Vec<Value> {
    let letter = |x: usize| (b'a' + (x % 26) as u8) as char;
    let row = |i: usize| {
        let about = format!("{} {}", letter(i * 7), letter(i / 3 + 1));
        let passages: Vec<String> = GRADES.iter().map(|grade| format!("{grade} {about}")).collect();
        let scores = if in_order { [2.0, 0.0, -2.0] } else { [-2.0, 0.0, 2.0] };
        json!({"id": format!("q{i}"), "query": format!("who wrote {about}"), "pos": [passages[0]], "neg": passages[1..],
               "pos_scores": [4.0], "neg_scores": scores, "lang": "en"})
    };
    (0..n).map(row).collect()
}

fn jsonl(rows: &[Value]) -> String {
    crate::common::jsonl(rows)
}

/// Embedding of each text by the last model of a run.
fn embed(sandbox: &Sandbox, run: &str, texts: &[String], kind: &str) -> HashMap<String, Vec<f64>> {
    sandbox.write("texts.txt", texts.join("\n") + "\n");
    let last = format!("{run}/last");
    let done = sandbox.hbt(&["encode", "--model", &last, "--input", "texts.txt", "--as", kind]).ok();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let vector = row["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        (row["text"].as_str().unwrap().to_owned(), vector)
    };
    done.stdout.lines().map(row).collect()
}

/// Share of the pairs of a query's negatives that a run's model puts in the order of `GRADES`.
fn share_in_order(sandbox: &Sandbox, run: &str, rows: &[Value]) -> f64 {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let queries: Vec<String> = rows.iter().map(|row| text(&row["query"])).collect();
    let passages: Vec<String> = rows.iter().flat_map(|row| row["neg"].as_array().unwrap().iter().map(text)).collect();
    let (queries_at, passages_at) = (embed(sandbox, run, &queries, "query"), embed(sandbox, run, &passages, "passage"));
    let mut n_in_order = 0;
    for (query, of_query) in queries.iter().zip(passages.chunks(3)) {
        let cosine =
            |passage: &String| queries_at[query].iter().zip(&passages_at[passage]).map(|(a, b)| a * b).sum::<f64>();
        let [a, b, c] = [0, 1, 2].map(|i| cosine(&of_query[i]));
        n_in_order += [a > b, b > c, a > c].into_iter().filter(|is_in_order| *is_in_order).count();
    }
    n_in_order as f64 / (3 * rows.len()) as f64
}

/// One set of labels, and teachers of opposite opinions: each student takes its own teacher's.
#[test]
fn a_student_ranks_negatives_as_its_teacher_does() {
    let bert = fixture("bert");
    for kind in ["kl", "margin_mse"] {
        let [in_order, opposite] = [true, false].map(|in_order| {
            let (sandbox, rows) = (Sandbox::new(), graded(24, in_order));
            sandbox.write("data.jsonl", jsonl(&rows));
            let kind = format!("distillation={kind}");
            let sets =
                [&kind, "contrastive_weight=0", "steps=120", "temperature=0.2", "learning_rate=5e-3", "eval_task=none"];
            sandbox.hbt(&train(&bert, &sets)).ok();
            let lines = metrics(&sandbox, "run");
            let loss = |line: &Value| line["distillation_loss"].as_f64().unwrap();
            let mean = |lines: &[Value]| lines.iter().map(loss).sum::<f64>() / lines.len() as f64;
            let (before, after) = (mean(&lines[..10]), mean(&lines[110..]));
            assert!(after < 0.2 * before, "{kind}: {before} to {after}");
            // What the teacher is not asked about still counts for nothing.
            assert!(lines.iter().all(|line| line["loss"] == line["distillation_loss"]), "{kind}");
            share_in_order(&sandbox, "run", &rows)
        });
        assert!(in_order > 0.95 && opposite < 0.05, "{kind}: {in_order} and {opposite}");
    }
}

/// Beside InfoNCE, in all its forms, and in both types: the two losses are told apart, and make up the whole.
#[test]
fn both_losses_are_told_apart() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", jsonl(&graded(24, true)));
    let bert = fixture("bert");
    let usual = [
        "steps=4",
        "eval_task=none",
        "distillation_weight=0.5",
        "contrastive_weight=0.25",
        "distillation_temperature=0.5",
    ];
    let forms: [&[&str]; 5] = [
        &["distillation=kl"],
        &["distillation=margin_mse", "teacher_temperature=2", "negatives_per_query=2"],
        &["distillation=kl", "symmetric=true", "matryoshka_dims=[32, 8]", "chunk_tokens=16", "margin=0.1"],
        &["distillation=margin_mse", "query_negatives=true", "symmetric=true", "temperature_learning_rate=0.01"],
        &[
            "distillation=kl",
            "precision=bf16",
            "in_batch_negatives=false",
            "teacher_margin=1",
            "false_negative_margin=0.3",
        ],
    ];
    for form in forms {
        sandbox.hbt(&train(&bert, &[&usual[..], form].concat())).ok();
        for line in metrics(&sandbox, "run") {
            let of = |key: &str| line[key].as_f64().unwrap();
            let sum = 0.25 * of("contrastive_loss") + 0.5 * of("distillation_loss");
            assert!((of("loss") - sum).abs() < 1e-6 * sum && of("distillation_loss") > 0.0, "{form:?}: {line}");
        }
        let card = sandbox.read("run/last/README.md");
        assert!(card.contains("with a teacher's scores (") && card.contains("weight 0.5 to 0.25"), "{card}");
        std::fs::remove_dir_all(sandbox.path("run")).unwrap();
    }
    sandbox.hbt(&train(&bert, &["steps=2", "eval_task=none"])).ok();
    for line in metrics(&sandbox, "run") {
        assert!(line.get("contrastive_loss").is_none() && line.get("distillation_loss").is_none(), "{line}");
    }
}

/// The same bytes, whatever the number of threads and wherever the run stopped.
#[test]
fn runs_with_a_teacher_repeat_themselves() {
    let bert = fixture("bert");
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", jsonl(&graded(24, true)));
    let sets = ["distillation=kl", "temperature_learning_rate=0.01", "steps=12", "eval_task=none", "save_steps=5"];
    sandbox.hbt(&train(&bert, &[&sets[..], &["threads=1"]].concat())).ok();
    let first = run_results(&sandbox, "run");
    std::fs::remove_dir_all(sandbox.path("run")).unwrap();
    sandbox.hbt(&train(&bert, &[&sets[..], &["threads=3"]].concat())).ok();
    // The configuration has the number of threads itself.
    assert_same_run(&first, &run_results(&sandbox, "run"), "threads");
}

#[test]
fn what_distillation_lacks_is_named() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let refused = |rows: &[Value], sets: &[&str]| {
        sandbox.write("data.jsonl", jsonl(rows));
        sandbox.hbt(&train(&bert, &[&["steps=2", "eval_task=none"], sets].concat())).error()
    };
    let without = |keys: &[&str], rows: &mut [Value]| {
        for row in rows {
            keys.iter().for_each(|key| _ = row.as_object_mut().unwrap().remove(*key));
        }
    };
    let mut rows = graded(12, true);
    without(&["pos_scores", "neg_scores"], &mut rows);
    let error = refused(&rows, &["distillation=kl"]);
    let expected = "error: distillation: the data has no scores of a teacher (pos_scores, neg_scores); add them, or";
    assert!(error.starts_with(expected), "{error}");
    // One row of many.
    for keys in [&["neg_scores"][..], &["pos_scores"], &["pos_scores", "neg_scores"]] {
        let mut rows = graded(12, true);
        without(keys, &mut rows[7..8]);
        let error = refused(&rows, &["distillation=margin_mse"]);
        let expected = "error: distillation: data.jsonl has passages without a teacher's score in 1 of 12 groups, the first in \
                        \"q7\"; give each passage one (pos_scores, neg_scores), or leave such rows out";
        assert_eq!(error.trim_end(), expected);
    }
    // A row without an id is named by its place.
    let mut rows = graded(12, true);
    without(&["id"], &mut rows);
    without(&["neg_scores"], &mut rows[4..]);
    let error = refused(&rows, &["distillation=kl"]);
    assert!(error.contains("in 8 of 12 groups, the first in \"data.jsonl:5\""), "{error}");
    // Nothing to compare.
    let mut rows = graded(12, true);
    without(&["neg", "neg_scores"], &mut rows);
    let error = refused(&rows, &["distillation=kl"]);
    assert!(error.starts_with("error: distillation: the data has no scores of negatives (neg_scores)"), "{error}");
    let mut rows = graded(12, true);
    rows[3]["neg_scores"] = json!([0.5, 3e9, 1.0]);
    let error = refused(&rows, &["distillation=kl", "teacher_temperature=2"]);
    let expected =
        "error: teacher_temperature: 2 leaves scores of data.jsonl of up to 3e9 above 1e6; raise it, or mend";
    assert!(error.starts_with(expected), "{error}");
    rows[3]["neg_scores"] = json!([0.5, 1.0]);
    let error = refused(&rows, &["distillation=kl"]);
    assert!(error.contains("data.jsonl, line 4: neg_scores has 2 scores for 3 texts"), "{error}");
    assert!(!sandbox.path("run").exists(), "a run that cannot begin leaves nothing behind");
}

/// A row has the negatives in its positive's language, so these have none.
#[test]
fn negatives_in_other_languages_are_none() {
    let sandbox = Sandbox::new();
    let row = |i: usize| {
        json!({"query": {"en": format!("who {i}")}, "positive": {"en": format!("he {i}")}, "pos_scores": {"en": [2]},
               "negatives": {"de": ["the book"]}, "neg_scores": {"de": [1]}})
    };
    sandbox.write("data.jsonl", jsonl(&(0..8).map(row).collect::<Vec<_>>()));
    let error = sandbox.hbt(&train(&fixture("bert"), &["steps=2", "eval_task=none", "distillation=kl"])).error();
    let expected = "error: distillation: compares negatives with the positive, but the data has none; add negatives with \
                    their scores";
    assert_eq!(error, expected);
}

#[test]
fn rows_without_negatives_and_scores_without_use_are_counted() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let mut rows = graded(12, true);
    for row in &mut rows[9..] {
        ["neg", "neg_scores"].iter().for_each(|key| _ = row.as_object_mut().unwrap().remove(*key));
    }
    sandbox.write("data.jsonl", jsonl(&rows));
    let said = |sets: &[&str]| {
        let done = sandbox.hbt(&train(&bert, &[&["steps=2", "eval_task=none"], sets].concat())).ok();
        std::fs::remove_dir_all(sandbox.path("run")).unwrap();
        done.stderr
    };
    let stderr = said(&["distillation=kl"]);
    assert!(stderr.contains("data.jsonl has no negatives in 3 of 12 groups: nothing is distilled there\n"), "{stderr}");
    let unused =
        "data.jsonl has a teacher's scores of 39 passages: not used; distillation or teacher_margin would use them\n";
    assert!(!stderr.contains("not used"), "{stderr}");
    let stderr = said(&[]);
    assert_eq!(stderr.matches(unused).count(), 1, "{stderr}");
    assert!(!said(&["teacher_margin=0.1"]).contains("not used"));
    // MarginMSE's own layout, a margin for each negative, teaches the same as the scores that it is the difference of.
    let with_margins = |row: &Value| {
        let scores = row["neg_scores"].as_array().unwrap().iter().map(|score| 4.0 - score.as_f64().unwrap());
        json!({"qid": row["id"], "query": row["query"], "positive": row["pos"], "negatives": row["neg"],
               "scores": scores.collect::<Vec<_>>(), "lang": "en"})
    };
    let [by_scores, by_margins] =
        [graded(12, true), graded(12, true).iter().map(with_margins).collect()].map(|rows: Vec<_>| {
            sandbox.write("data.jsonl", jsonl(&rows));
            sandbox.hbt(&train(&bert, &["steps=5", "eval_task=none", "distillation=margin_mse"])).ok();
            let lines = metrics(&sandbox, "run");
            std::fs::remove_dir_all(sandbox.path("run")).unwrap();
            lines
        });
    assert_eq!(by_scores, by_margins);
}

/// The plan's memory is the run's: it knows of the teacher's scores.
#[test]
fn a_run_with_a_teacher_is_planned() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", jsonl(&graded(12, true)));
    let bert = fixture("bert");
    let plan = |set: &str| {
        let args = ["plan", "--model", &bert, "--data", "data.jsonl", "--json", "--set", "batch_size=4", "--set", set];
        serde_json::from_str::<Value>(&sandbox.hbt(&args).ok().stdout).unwrap()
    };
    assert!(plan("distillation=kl")["memory"].is_array() || plan("distillation=kl")["memory"].is_object());
    let error =
        sandbox.hbt(&["plan", "--model", &bert, "--data", "data.jsonl", "--set", "distillation_weight=2"]).error();
    assert!(error.contains("distillation_weight: belongs to distillation, which is none"), "{error}");
}
