//! What evaluations write beside their result: nothing of others is replaced, and what cannot be written is known at once.

use super::{eval, write_texts};
use crate::common::{Done, Sandbox, fixture};
#[cfg(unix)]
use std::process::{Command, Stdio};
#[cfg(unix)]
use std::time::{Duration, Instant};

#[test]
fn files_that_are_there_stay() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de"]);
    let model = fixture("bert");
    let options = [
        ("--runs", "out", "out/data/de.test.trec"),
        ("--predictions", "out", "out/data_predictions.json"),
        ("--save-embeddings", "out", "out/de.corpus.npy"),
        ("--save-embeddings", "out", "out/de.queries.npy"),
    ];
    for (option, directory, file) in options {
        sandbox.write(file, "somebody's");
        let error = sandbox.hbt(&eval(&model, &[option, directory])).error();
        assert!(error.contains(&format!("{option}: {file} is there already; ")), "{error}");
        assert_eq!(sandbox.read(file), "somebody's");
        sandbox.hbt(&eval(&model, &[option, directory, "--overwrite"])).ok();
        assert_ne!(sandbox.bytes(file), b"somebody's");
        std::fs::remove_dir_all(sandbox.path(directory)).unwrap();
    }
}

#[test]
fn what_cannot_be_written_is_known_before_the_work() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de"]);
    sandbox.write("file", "somebody's");
    for option in ["--results", "--runs", "--predictions", "--save-embeddings"] {
        for directory in ["file", "file/below"] {
            // The model is not even looked at.
            let error = sandbox.hbt(&eval("nowhere", &[option, directory])).error();
            assert_eq!(error, format!("error: {option}: file is no directory; name another one"));
        }
    }
    // A description of the model appears with the first result.
    sandbox.write("data/de/corpus.jsonl", "");
    let error = sandbox.hbt(&eval(&fixture("bert"), &["--results", "out"])).error();
    assert!(error.contains("data: has no document to rank for subset de (test)"), "{error}");
    assert!(!sandbox.path("out").exists());
}

#[test]
fn what_is_asked_for_is_plain() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de", "en"]);
    let refused = |args: &[&str], code: i32, part: &str| {
        let done = sandbox.hbt(&[&["eval"], args].concat());
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    };
    refused(&["--task", ""], 2, "names no task");
    refused(&["--task", " , "], 2, "names no task");
    refused(&["--task", "retrieval,retrieval", "--data", "data"], 2, "--task names retrieval twice");
    refused(&["--list", "--task", "STS17"], 2, "cannot be used with");
    for size in ["nan", "-1", "inf", "many"] {
        refused(&["--data", "data", &format!("--cache-limit={size}")], 2, "--cache-limit");
    }
    refused(&["--data", "data", "--languages", "klingon"], 1, "data: none of its subsets is in klingon alone");
    refused(&["--data", "data/de", "--languages", "de"], 1, "is one set, which does not say its language");
    refused(&["--task", "parallel", "--data", "data"], 1, "the task retrieval searches the whole corpus");
    // All that is lacking is said at once.
    refused(&["--task", "ArguAna,STS17,SCIDOCS"], 1, "error: 3 of 3 tasks have no data, as said above");
    refused(&["--task", "ArguAna,STS17,SCIDOCS"], 1, "hf download --repo-type dataset mteb/scidocs");
}

#[test]
fn splits_are_said_and_chosen() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de"]);
    let rows = "query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td1\t1\n";
    sandbox.write("data/de/qrels/dev.tsv", rows);
    let model = fixture("bert");
    let splits = |done: Done| {
        let scores = sandbox.json("out.json")["scores"].clone();
        (scores.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" "), done.stderr)
    };
    let (measured, said) = splits(sandbox.hbt(&eval(&model, &["--json", "out.json"])).ok());
    assert_eq!(measured, "test");
    assert!(said.contains("data: split test is measured; choose with --split"), "{said}");
    let (measured, said) = splits(sandbox.hbt(&eval(&model, &["--json", "out.json", "--split", "all"])).ok());
    assert_eq!(measured, "dev test");
    assert!(!said.contains("is measured; choose"), "{said}");
}

#[test]
fn embeddings_that_are_all_alike_are_warned_of() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 20, &["de"]);
    sandbox.hbt(&eval(&fixture("bert"), &["--save-embeddings", "emb"])).ok();
    let given = ["eval", "--task", "retrieval", "--data", "data", "--embeddings", "emb"];
    let stderr = sandbox.hbt(&given).ok().stderr;
    assert!(!stderr.contains("warning"), "{stderr}");
    let mut corpus = sandbox.bytes("emb/de.corpus.npy");
    let (head, row) = (128, (corpus.len() - 128) / 20);
    for i in 1..20 {
        corpus.copy_within(head..head + row, head + i * row);
    }
    sandbox.write("emb/de.corpus.npy", corpus);
    let stderr = sandbox.hbt(&given).ok().stderr;
    assert!(stderr.contains("warning: all texts have the same embedding"), "{stderr}");
}

/// Ended by a request, an evaluation takes what it had not completed with it.
#[cfg(unix)]
#[test]
fn a_terminated_evaluation_leaves_nothing_half_written() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 12_000, &["de"]);
    let model = fixture("bert");
    let args = eval(&model, &["--save-embeddings", "emb", "--no-cache"]);
    let mut child = sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let half = sandbox.path("emb/.de.corpus.npy.hbt-tmp");
    let start = Instant::now();
    while !half.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(half.exists() && child.try_wait().unwrap().is_none());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!half.exists());
}

/// As mteb: a prompt that a model has for a task goes before the usual one, and what was set goes before both.
#[test]
fn a_models_prompts_for_a_task_are_used() {
    let sandbox = Sandbox::new();
    write_texts(&sandbox, 30, &["de"]);
    sandbox.copy_model("bert", "model");
    let prompts = "{\"prompts\": {\"query\": \"find: \", \"SCIDOCS-query\": \"cite: \", \"Retrieval\": \"text: \"}}";
    sandbox.write("model/config_sentence_transformers.json", prompts);
    let of = |task: &str, more: &[&str]| {
        let args = ["eval", "--task", task, "--data", "data/de", "--model", "model", "--set", "pooling=mean"];
        let output = ["--precision", "f32", "--json", "out.json", "--overwrite"];
        sandbox.hbt(&[&args[..], &output, more].concat()).ok();
        let result = sandbox.json("out.json");
        let settings = &result["hbt"]["settings"];
        let [queries, documents] = ["queries", "documents"].map(|name| settings[name].as_str().unwrap().to_owned());
        (queries, documents, result["scores"]["test"][0].clone())
    };
    let (queries, documents, for_task) = of("SCIDOCS", &[]);
    assert!(queries.starts_with("\"cite: \" and") && documents.starts_with("\"text: \" and"), "{queries}, {documents}");
    let given = ["--set", "query_prefix=cite: ", "--set", "passage_prefix=text: "];
    let (_, _, set) = of("retrieval", &given);
    for number in ["ndcg_at_10", "map_at_100", "nauc_ndcg_at_10_max"] {
        assert_eq!(for_task[number], set[number], "{number}");
    }
    let (queries, documents, _) = of("retrieval", &[]);
    assert!(queries.starts_with("\"find: \" and") && documents.starts_with("\"\" and"), "{queries}, {documents}");
    let (queries, _, _) = of("SCIDOCS", &["--set", "query_prefix=mine: "]);
    assert!(queries.starts_with("\"mine: \" and"), "{queries}");
}
