//! `hbt plan`, and `hbt train` as far as it plans.

use crate::common::{Sandbox, fixture, groups, jsonl, train};
use hbt::config::{Amount, Config};
use serde_json::Value;

const SETS: [&str; 6] = ["--set", "batch_size=8", "--set", "query_max_len=24", "--set", "passage_max_len=24"];

fn plan(sandbox: &Sandbox, more: &[&str]) -> String {
    let model = fixture("bert");
    let args = [&["plan", "--model", &model, "--data", "data.jsonl"], &SETS[..], more].concat();
    sandbox.hbt(&args).ok().stdout
}

#[test]
fn it_answers_before_and_after_the_data_is_tokenized() {
    let sandbox = Sandbox::with_groups(40);
    let before = plan(&sandbox, &["--precision", "f32"]);
    assert!(before.contains("40 groups of 40, tokenized; hbt prepare counts all"), "{before}");
    assert!(sandbox.contents().keys().eq(["data.jsonl"]), "a plan writes nothing");
    let model = fixture("bert");
    sandbox.hbt(&[&["prepare", "--model", &model, "--data", "data.jsonl"], &SETS[..]].concat()).ok();
    let after = plan(&sandbox, &["--precision", "f32"]);
    assert!(after.contains("all 40 groups, tokenized"), "{after}");
    for line in ["weights", "optimizer", "gradients", "activations", "loss", "batches", "total", "chunk_tokens = 8192"]
    {
        assert!(after.lines().any(|text| text.starts_with(line)), "{line}: {after}");
    }
    assert!(after.contains("fits") && after.contains("projected, not measured"), "{after}");
    assert!(after.lines().all(|line| line.chars().count() <= 120), "{after}");
}

#[test]
fn json_says_the_same() {
    let sandbox = Sandbox::with_groups(40);
    let text = plan(&sandbox, &["--json", "--for", "a100-80gb", "--set", "steps=10"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let bytes = |value: &Value| value.as_u64().unwrap();
    let items = json["memory"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| bytes(&item["bytes"])).sum::<u64>(), bytes(&json["total"]));
    assert_eq!(json["fits"], true);
    assert_eq!(json["precision"], "bf16", "auto is what the GPU is fast with");
    assert_eq!((bytes(&json["steps"]), bytes(&json["batch_size"])), (10, 8));
    let machine = &json["machine"];
    assert_eq!((machine["gpu"].as_bool(), machine["measured"].as_bool()), (Some(true), Some(false)));
    assert_eq!(machine["flops_per_second"], 312e12);
    let seconds = |key: &str| json[key].as_f64().unwrap();
    assert!((seconds("projected_seconds") - 10.0 * seconds("projected_seconds_per_step")).abs() < 1e-9);
    let [small, large] = ["rtx4090", "h200-141gb"].map(|name| {
        let json: Value = serde_json::from_str(&plan(&sandbox, &["--json", "--for", name])).unwrap();
        bytes(&json["machine"]["memory"])
    });
    assert!(small < large);
}

#[test]
fn what_cannot_be_planned_is_an_error() {
    let sandbox = Sandbox::with_groups(40);
    let done = sandbox.hbt(&["plan", "--for", "tpu"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("use one of this, a100-40gb"), "{}", done.stderr);
    let model = fixture("bert");
    let error = sandbox.hbt(&["plan", "--model", &model, "--data", "gone.jsonl"]).error();
    assert!(error.contains("gone.jsonl"), "{error}");
    let all =
        [&["plan", "--model", &model, "--data", "data.jsonl"], &SETS[..], &["--set", "kept_chunks=many"]].concat();
    let error = sandbox.hbt(&all).error();
    assert!(error.contains("a whole number of at least 1, or auto"), "{error}");
}

/// A plan says what the run would say, before the data is tokenized and after.
#[test]
fn what_train_refuses_is_no_plan() {
    let sandbox = Sandbox::with_groups(40);
    sandbox.write("en.jsonl", jsonl(&groups(40, &["en"])));
    let model = fixture("bert");
    let both = |data: &str, set: &str| {
        let args = |command| [&[command, "--model", &model, "--data", data], &SETS[..], &["--set", set]].concat();
        let [before, train, after] = ["plan", "train", "plan"].map(|command| sandbox.hbt(&args(command)).error());
        assert_eq!(before, train, "{set}");
        assert_eq!(after, train, "{set}");
        before
    };
    for (data, set, start) in [
        ("data.jsonl", "batch_size=41", "batch_size: 41 is more than the 40 groups"),
        ("en.jsonl", "mode=cross_lingual", "mode: cross_lingual: cross-lingual batches need two languages"),
        ("data.jsonl", "teacher_margin=0.1", "teacher_margin: the data has no scores of a teacher"),
        ("data.jsonl", "in_batch_negatives=false", "in_batch_negatives: is false, but the data has no hard negatives"),
        ("data.jsonl", "truncate_dim=33", "truncate_dim: is 33, but the model's embeddings have 32"),
    ] {
        let error = both(data, set);
        assert!(error.starts_with(&format!("error: {start}")), "{error}");
    }
}

#[test]
fn auto_is_a_number_in_the_run_directory_and_stays_it() {
    let sandbox = Sandbox::with_groups(40);
    let model = fixture("bert");
    let auto = ["chunk_tokens=auto", "kept_chunks=auto", "steps=3", "save_steps=1"];
    let done = sandbox.hbt(&train(&model, &auto)).ok();
    assert!(done.stderr.contains("chunk_tokens = 256, kept_chunks = 1 by plan"), "{}", done.stderr);
    let saved = Config::load(&sandbox.path("run/config.toml")).unwrap();
    assert_eq!((saved.chunk_tokens, saved.kept_chunks), (Amount::Of(256), Amount::Of(1)));
    // What the run is resumed with has a number by now.
    let done = sandbox.hbt(&train(&model, &[&auto[..], &["--resume"]].concat())).ok();
    assert!(done.stderr.contains("complete: nothing to resume"), "{}", done.stderr);
}

#[test]
fn a_run_that_cannot_fit_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::with_groups(40);
    sandbox.copy_model("bert", "model");
    let config =
        sandbox.read("model/config.json").replace("\"intermediate_size\": 64", "\"intermediate_size\": 2000000000");
    sandbox.write("model/config.json", config);
    let done = sandbox.hbt(&train("model", &["from_scratch=true", "precision=f32"]));
    let error = done.error();
    assert!(
        error.contains("the run needs ") && error.ends_with(": take a smaller model, or a machine with more memory"),
        "{error}"
    );
    assert!(!sandbox.path("run").exists());
}
