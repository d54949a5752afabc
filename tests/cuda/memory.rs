//! A training run asks for all its memory before the first step, as the stand-in counts it.

use crate::common::{Done, Sandbox, fixture, jsonl, train};
use crate::device;
use serde_json::{Value, json};

/// Groups whose texts are from 1 to 60 words long, in no order, so that batches are of all sizes.
fn uneven_groups() -> Vec<Value> {
    let words = |n: usize| vec!["river"; n].join(" ");
    let length = |i: usize| 1 + i * 37 % 60;
    let texts = |i: usize| json!({"de": words(length(i)), "en": words(length(i + 5))});
    (0..40).map(|i| json!({"id": format!("g{i}"), "query": texts(i), "positive": texts(i + 11)})).collect()
}

/// How often a run of so many steps asks for memory of the device, and for pinned memory.
fn requests(precision: &str, steps: usize) -> [u64; 2] {
    let (sandbox, bert) = (Sandbox::new(), fixture("bert"));
    sandbox.write("data.jsonl", jsonl(&uneven_groups()));
    let steps = format!("steps={steps}");
    let sets = [&steps, "eval_task=none", "dropout=0.1", "chunk_tokens=100", "query_max_len=64", "passage_max_len=64"];
    let args = [&train(&bert, &sets)[..], &["--device", "cuda", "--precision", precision]].concat();
    let mut command = super::command(&sandbox, &args, 1);
    command.env("SIMT_REPORT", "1");
    let report = Done::new(command.output().unwrap()).ok().stderr;
    let line = report.lines().find_map(|line| line.strip_prefix("simt: memory requests: ")).unwrap();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn only_the_first_step_asks_for_memory() {
    if device::is_real() {
        return println!("memory: a real GPU counts nothing by itself; run this test on the stand-in");
    }
    for precision in ["f32", "bf16"] {
        let [one, many] = [1, 12].map(|steps| requests(precision, steps));
        println!("{precision}: {one:?} requests for memory of the device and pinned");
        assert!(one.iter().all(|&n| n > 0), "the stand-in counts them: {one:?}");
        assert_eq!(one, many, "{precision}");
    }
}
