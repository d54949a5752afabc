//! How often a step asks the device for something: kernels, products, memsets and copies, as the stand-in counts them. Their
//! number depends on the layers and not on sizes, so a narrow model with XLM-R-base's layers shows that model's.
//! `cargo test --release cuda::launches -- --nocapture` prints the table.

use crate::common::{Done, Sandbox, train};
use crate::device;
use std::collections::BTreeMap;

/// Most that a step of one chunk may ask for, and the optimizer's part of it.
const MOST: u64 = 350;
const MOST_OF_OPTIMIZER: u64 = 10;
/// What nothing but the optimizer asks for; besides, it copies a history to the device and its results to the host.
const OF_OPTIMIZER: [&str; 6] = ["zero_all", "sum_of_squares", "add_squares", "adamw", "adamw_rows", "adamw_catch_up"];
const COPIES_OF_OPTIMIZER: u64 = 2;

/// XLM-R-base's 12 layers, with heads of its size and tables longer than a block of a sum.
fn narrow_xlmr_base(sandbox: &Sandbox) {
    sandbox.copy_model("xlmr", "model");
    let mut config = sandbox.json("model/config.json");
    for (key, value) in [
        ("num_hidden_layers", 12),
        ("hidden_size", 128),
        ("num_attention_heads", 2),
        ("intermediate_size", 256),
        ("max_position_embeddings", 200),
    ] {
        config[key] = value.into();
    }
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[key] = 0.1.into();
    }
    sandbox.write("model/config.json", config.to_string());
    let mut pooling = sandbox.json("model/1_Pooling/config.json");
    pooling["word_embedding_dimension"] = 128.into();
    sandbox.write("model/1_Pooling/config.json", pooling.to_string());
}

/// What a run of so many steps asks for.
fn launches(steps: usize) -> BTreeMap<String, u64> {
    let sandbox = Sandbox::with_groups(8);
    narrow_xlmr_base(&sandbox);
    let steps = format!("steps={steps}");
    let sets = [&steps, "eval_task=none", "query_max_len=16", "passage_max_len=16"];
    let args = [&train("model", &sets)[..], &["--from-scratch", "--device", "cuda", "--precision", "bf16"]].concat();
    let mut command = super::command(&sandbox, &args, 1);
    command.env("SIMT_REPORT", "1");
    let report = Done::new(command.output().unwrap()).ok().stderr;
    let counted = report.lines().filter_map(|line| {
        let mut words = line.strip_prefix("simt: ")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    counted.collect()
}

#[test]
fn of_a_step_of_xlmr_base() {
    if device::is_real() {
        return println!("launches: a real GPU counts nothing by itself; run this test on the stand-in");
    }
    let [two, three] = [2, 3].map(launches);
    let of_step: Vec<(&str, u64)> = three
        .iter()
        .map(|(name, n)| (name.as_str(), n - two.get(name).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let total: u64 = of_step.iter().map(|(_, n)| n).sum();
    let of_optimizer: u64 = of_step.iter().filter(|(name, _)| OF_OPTIMIZER.contains(name)).map(|(_, n)| n).sum::<u64>()
        + COPIES_OF_OPTIMIZER;
    let mut rows = of_step.clone();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    rows.iter().for_each(|(name, n)| println!("| `{name}` | {n} |"));
    println!("| all | {total} |\n| of them the optimizer's | {of_optimizer} |");
    assert!(of_step.contains(&("adamw_rows", 1)), "the report is read: {of_step:?}");
    assert!(of_optimizer <= MOST_OF_OPTIMIZER, "{of_optimizer} launches of the optimizer");
    assert!(total <= MOST, "{total} launches in a step");
}
