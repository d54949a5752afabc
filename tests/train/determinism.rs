//! The same command gives the same bytes, whatever the number of threads.

use crate::common::{Sandbox, assert_same_run, fixture, run_contents, train};

/// The run directory of a run with dropout, clipping, chunks and an evaluation on the way.
fn run(model: &str, more: &[&str]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let sandbox = Sandbox::with_groups(18);
    let path = fixture(model);
    // 16 rows of about 20 tokens in chunks of 64: several chunks a step.
    let sets = ["steps=4", "batch_size=16", "dropout=0.1", "chunk_tokens=64", "query_max_len=24", "passage_max_len=24"];
    let mut args = train(&path, &sets);
    args.extend(["--set", "eval_steps=2"]);
    more.iter().for_each(|set| args.extend(["--set", set]));
    sandbox.hbt(&args).ok();
    let mut contents = run_contents(&sandbox, "run");
    contents.remove("config.toml");
    contents
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    for precision in ["precision=f32", "precision=bf16"] {
        assert_same_run(&run("bert", &[precision]), &run("bert", &[precision]), &format!("bert twice, {precision}"));
    }
    assert_same_run(&run("labse", &["symmetric=true"]), &run("labse", &["symmetric=true"]), "labse twice");
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for (model, precision) in [("bert", "precision=f32"), ("bert", "precision=bf16"), ("xlmr", "precision=f32")] {
        let one = run(model, &["threads=1", precision]);
        let others = if model == "bert" { &["threads=2", "threads=3"][..] } else { &["threads=2"] };
        for &threads in others {
            let other = run(model, &[threads, precision]);
            assert_same_run(&one, &other, &format!("{model}, {precision}, threads=1 and {threads}"));
        }
    }
}

#[test]
fn another_seed_gives_another_run() {
    let weights = "last/model.safetensors";
    assert_ne!(run("bert", &["seed=1"])[weights], run("bert", &["seed=2"])[weights]);
}
