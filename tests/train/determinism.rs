//! The same command gives the same bytes, whatever the number of threads.

use crate::common::{Done, Sandbox, assert_same_run, fixture, run_results, train};
use std::collections::BTreeMap;

/// The run directory of a run with dropout, clipping, chunks and an evaluation on the way.
fn run(model: &str, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    run_with(model, more, None)
}

/// [`run`] with the instructions that `HBT_CPU` names.
fn run_with(model: &str, more: &[&str], instructions: Option<&str>) -> BTreeMap<String, Vec<u8>> {
    let sandbox = Sandbox::with_groups(18);
    let path = fixture(model);
    // 16 rows of about 20 tokens in chunks of 64: several chunks a step.
    let sets = ["steps=4", "batch_size=16", "dropout=0.1", "chunk_tokens=64", "query_max_len=24", "passage_max_len=24"];
    let mut args = train(&path, &sets);
    args.extend(["--set", "eval_steps=2"]);
    more.iter().for_each(|set| args.extend(["--set", set]));
    let mut command = sandbox.command(&args);
    instructions.map(|set| command.env("HBT_CPU", set));
    Done::new(command.output().unwrap()).ok();
    run_results(&sandbox, "run")
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

/// AVX2 and AVX-512 give the same bytes: processors of both kinds train the same model.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_width_of_the_vectors_does_not_matter() {
    use hbt::backend::cpu::Instructions;
    if matches!(Instructions::of_processor(), Instructions::Baseline | Instructions::Avx2) {
        eprintln!("skipped: no AVX-512 on this processor");
        return;
    }
    for precision in ["precision=f32", "precision=bf16"] {
        let [narrow, wide] = ["avx2", "avx512"].map(|set| run_with("bert", &[precision], Some(set)));
        assert_same_run(&narrow, &wide, &format!("AVX2 and AVX-512, {precision}"));
    }
}

#[test]
fn another_seed_gives_another_run() {
    let weights = "last/model.safetensors";
    assert_ne!(run("bert", &["seed=1"])[weights], run("bert", &["seed=2"])[weights]);
}
