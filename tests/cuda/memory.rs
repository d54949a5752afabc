//! A training run asks for all its memory before the first step, as the stand-in counts it.

use crate::common::{Done, Sandbox, fixture, jsonl, metrics, train};
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
    let sets = [&steps, "eval_task=none", "dropout=0.1", "chunk_tokens=100", "query_max_len=40", "passage_max_len=40"];
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
        let [one, many] = [1, 7].map(|steps| requests(precision, steps));
        println!("{precision}: {one:?} requests for memory of the device and pinned");
        assert!(one.iter().all(|&n| n > 0), "the stand-in counts them: {one:?}");
        assert_eq!(one, many, "{precision}");
    }
}

/// By default a GPU keeps as many chunks as its memory holds. It makes no difference to what is computed.
#[test]
fn a_run_keeps_the_chunks_that_fit() {
    if device::is_real() {
        return println!("memory: a real GPU has the memory that it has; run this test on the stand-in");
    }
    let (sandbox, bert) = (Sandbox::new(), fixture("bert"));
    sandbox.write("data.jsonl", jsonl(&uneven_groups()));
    let sets = ["steps=2", "eval_task=none", "dropout=0.1", "chunk_tokens=100", "query_max_len=40"];
    let sets = [&sets[..], &["passage_max_len=40", "precision=bf16"]].concat();
    let planned = |kept: &str| -> u64 {
        // The sets alone: a plan is for no run directory. What a GPU has makes no difference here.
        let of_run = train(&bert, &[&sets[..], &[kept]].concat());
        let sets = of_run.iter().skip_while(|arg| **arg != "--set");
        let args: Vec<&str> = ["plan", "--model", &bert, "--data", "data.jsonl", "--json", "--for", "l4"]
            .into_iter()
            .chain(sets.copied())
            .collect();
        let plan: Value = serde_json::from_str(&sandbox.hbt(&args).ok().stdout).unwrap();
        let overhead = plan["memory"].as_array().unwrap().iter().find(|item| item["item"] == "CUDA").unwrap();
        plan["total"].as_u64().unwrap() - overhead["bytes"].as_u64().unwrap()
    };
    let run = |out: &str, memory: u64| {
        let mut args = train(&bert, &[&sets[..], &["device=cuda"]].concat());
        *args.iter_mut().find(|arg| **arg == "run").unwrap() = out;
        let mut command = super::command(&sandbox, &args, 1);
        command.env("SIMT_MEMORY", memory.to_string());
        let said = Done::new(command.output().unwrap()).ok().stderr;
        let (_, kept) = said.split_once("kept_chunks = ").unwrap_or_else(|| panic!("{said}"));
        kept.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    // What hbt's own estimate of libraries and partial sums takes, and nine tenths are filled.
    let with_room_for = |bytes: u64| (hbt::plan::WORKSPACE_BYTES + bytes) * 10 / 9 + 4096;
    let large = run("large", 4 << 30);
    let [one, two] = ["kept_chunks=1", "kept_chunks=2"].map(planned);
    assert!(large > 2, "{large} chunks kept");
    assert_eq!(run("small", with_room_for(one + (two - one) / 2)), 1);
    assert_eq!(run("middle", with_room_for(two + (two - one) / 2)), 2);
    assert_eq!(metrics(&sandbox, "small"), metrics(&sandbox, "large"));
    assert_eq!(metrics(&sandbox, "middle"), metrics(&sandbox, "large"));
}
