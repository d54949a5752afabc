//! `--device cuda`, the program as it is, on the stand-in (tests/simt) or, with `HBT_REQUIRE_CUDA=1`, on a GPU.

mod bench;
mod contexts;
mod drivers;
mod errors;
mod launches;
mod memory;
mod products;
#[cfg(unix)]
mod ranks;
mod traffic;
mod waits;

use crate::common::{Done, Sandbox, assert_same_run, fixture, metrics, run_contents, train};
use crate::device;
use crate::tolerance::{BF16_STEPS, REGROUPED};
use serde_json::Value;
use std::process::Command;

/// `hbt` where the driver is the stand-in, which runs threads and streams in the order of `seed`.
fn command(sandbox: &Sandbox, args: &[&str], seed: u64) -> Command {
    let mut command = sandbox.command(args);
    if !device::is_real() {
        command.env("LD_LIBRARY_PATH", device::built()).env("SIMT_SEED", seed.to_string());
        // As where the device reads all memory by itself.
        command.env("SIMT_PAGEABLE", "late");
    }
    command.env_remove("CUDA_VISIBLE_DEVICES").env("HBT_CUDA_MEMORY", "separate");
    command
}

fn hbt(sandbox: &Sandbox, args: &[&str], seed: u64) -> Done {
    Done::new(command(sandbox, args, seed).output().unwrap())
}

/// Ten steps with dropout, in chunks, evaluated on the way.
const STEPS: [&str; 6] =
    ["steps=10", "dropout=0.1", "symmetric=true", "chunk_tokens=32", "query_max_len=16", "passage_max_len=16"];

fn trained(model: &str, device: &str, precision: &str, seed: u64) -> Sandbox {
    let (sandbox, model) = (Sandbox::with_groups(8), fixture(model));
    let args = train(&model, &STEPS);
    let args = [&args[..], &["--device", device, "--precision", precision]].concat();
    if device == "cuda" {
        hbt(&sandbox, &args, seed).ok()
    } else {
        sandbox.hbt(&args).ok()
    };
    sandbox
}

/// A run's lines about its ten steps; they must be about the batches of `expected`.
#[track_caller]
fn steps(run: &Sandbox, expected: &[Value]) -> Vec<Value> {
    let lines = metrics(run, "run");
    assert_eq!(lines.len(), 10);
    for (line, expected) in lines.iter().zip(expected) {
        for name in ["step", "mode", "lang", "tokens", "learning_rate"] {
            assert_eq!(line[name], expected[name], "{name}");
        }
    }
    lines
}

/// The largest relative difference of a number, over all steps.
fn largest_difference(name: &str, got: &[Value], expected: &[Value]) -> f64 {
    let number = |line: &Value| line[name].as_f64().unwrap();
    got.iter().zip(expected).map(|(got, expected)| (number(got) / number(expected) - 1.0).abs()).fold(0.0, f64::max)
}

/// Another order of threads and streams than that of seed 1 gives the same bytes.
#[track_caller]
fn assert_same_in_another_order(run: &Sandbox, model: &str, precision: &str) {
    let other = trained(model, "cuda", precision, 2);
    assert_same_run(&run_contents(run, "run"), &run_contents(&other, "run"), precision);
}

/// What a run saved is evaluated alike by the CPU.
#[track_caller]
fn assert_as_good_on_the_cpu(run: &Sandbox) {
    let after = &run.json("run/eval.json")["after"];
    let args = ["eval", "--model", "run/last", "--data", "data.jsonl", "--task", "parallel", "--json", "cpu.json"];
    run.hbt(&[&args[..], &["--device", "cpu", "--precision", "f32"]].concat()).ok();
    let on_cpu = run.json("cpu.json");
    assert_eq!(after["figures"].as_array().unwrap().len(), 4, "{after}");
    assert_eq!(after["figures"], on_cpu["figures"]);
}

#[test]
fn ten_steps_in_f32_are_those_of_the_cpu_to_the_same_bits_in_any_order() {
    for model in ["bert", "xlmr"] {
        let cpu = steps(&trained(model, "cpu", "f32", 0), &[]);
        let run = trained(model, "cuda", "f32", 1);
        let cuda = steps(&run, &cpu);
        for name in ["loss", "grad_norm"] {
            let difference = largest_difference(name, &cuda, &cpu);
            assert!(difference < REGROUPED, "{model}: {name} is off by {difference:e}");
        }
        match model {
            "xlmr" => assert_same_in_another_order(&run, model, "f32"),
            _ => assert_as_good_on_the_cpu(&run),
        }
    }
}

/// Two devices round in different places, and ten steps go different ways from there. So each is compared with f32: the
/// GPU may be as far from it as the processor's bf16 is, as far as the largest of ten differences tells.
#[test]
fn ten_steps_in_bf16_are_as_near_f32_as_the_cpus_to_the_same_bits_in_any_order() {
    for model in ["bert", "xlmr"] {
        let exact = steps(&trained(model, "cpu", "f32", 0), &[]);
        let runs = ["cpu", "cuda"].map(|device| trained(model, device, "bf16", 1));
        let [cpu, cuda] = runs.each_ref().map(|run| steps(run, &exact));
        for name in ["loss", "grad_norm"] {
            let [cpu, cuda] = [&cpu, &cuda].map(|run| largest_difference(name, run, &exact));
            assert!(
                cuda < 1.5 * cpu && cuda < 2.0 * BF16_STEPS,
                "{model}: {name} is off by {cuda}, the CPU's by {cpu}"
            );
        }
        if model == "xlmr" {
            assert_same_in_another_order(&runs[1], model, "bf16");
        }
    }
}

/// An interrupted run goes on to the same bytes: moments and weights come back from the device and return to it.
#[test]
fn a_resumed_run_ends_like_an_undisturbed_one() {
    let sets = ["steps=12", "save_steps=5", "dropout=0.1", "eval_task=none"];
    let (undisturbed, sandbox, bert) = (Sandbox::with_groups(8), Sandbox::with_groups(8), fixture("bert"));
    let args = [&train(&bert, &sets)[..], &["--device", "cuda", "--precision", "bf16"]].concat();
    hbt(&undisturbed, &args, 1).ok();
    let metrics = sandbox.path("run").join("metrics.jsonl");
    let cut = crate::train::resume::interrupted(command(&sandbox, &args, 1), "-INT", &metrics, 3).interrupted();
    assert!(cut.stderr.contains("saved step "), "{}", cut.stderr);
    hbt(&sandbox, &["train", "--out", "run", "--resume"], 2).ok();
    assert_same_run(&run_contents(&undisturbed, "run"), &run_contents(&sandbox, "run"), "resumed");
}

#[test]
fn embeddings_are_those_of_the_cpu() {
    let (sandbox, bert) = (Sandbox::new(), fixture("bert"));
    sandbox.write("texts.txt", "old river\nwho wrote it?\na\nthe book of the old river and who wrote it\n");
    let args = |out, device| {
        let args = ["encode", "--model", &bert, "--input", "texts.txt", "--output", out];
        [&args[..], &["--device", device, "--precision", "f32"]].concat()
    };
    sandbox.hbt(&args("cpu.npy", "cpu")).ok();
    hbt(&sandbox, &args("cuda.npy", "cuda"), 1).ok();
    let floats = |name: &str| -> Vec<f32> {
        let bytes = sandbox.bytes(name);
        // An npy file's header is a multiple of 64 bytes; its length is at byte 8.
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (cpu, cuda) = (floats("cpu.npy"), floats("cuda.npy"));
    assert_eq!((cpu.len(), cuda.len()), (4 * 32, 4 * 32));
    for (cpu, cuda) in cpu.iter().zip(&cuda) {
        assert!(f64::from((cpu - cuda).abs()) < crate::tolerance::EMBEDDINGS, "{cuda} for {cpu}");
    }
}
