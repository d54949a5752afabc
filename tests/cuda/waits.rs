//! What the host waits for, as the stand-in counts it: nothing in a step, and nothing between the chunks of an encoding.

use super::{STEPS, command};
use crate::common::{Done, Sandbox, assert_same_run, fixture, run_contents, train};
use crate::device;

/// What the host did in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waits {
    /// Copies between the device and memory that is not pinned, each of which may wait for the stream.
    pageable_to_device: u64,
    pageable_to_host: u64,
    /// Waits after which the device had nothing to do.
    idle: u64,
}

/// Runs `hbt` on a stand-in that waits for the stream at every copy of pageable memory.
fn waits(sandbox: &Sandbox, args: &[&str]) -> Waits {
    let mut command = command(sandbox, args, 1);
    command.env("SIMT_REPORT", "1").env("SIMT_PAGEABLE", "sync");
    let report = Done::new(command.output().unwrap()).ok().stderr;
    let numbers = |name: &str| -> Vec<u64> {
        let line = report.lines().find_map(|line| line.strip_prefix("simt: ")?.strip_prefix(name)).unwrap();
        line.split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    let copies = numbers("pageable copies: ");
    let [idle] = numbers("waits that left the device without work: ")[..] else { panic!("{report}") };
    Waits { pageable_to_device: copies[0], pageable_to_host: copies[1], idle }
}

fn of_training(steps: usize) -> Waits {
    let (sandbox, bert, steps) = (Sandbox::with_groups(8), fixture("bert"), format!("steps={steps}"));
    let sets = [&STEPS[1..], &[&steps, "eval_task=none"]].concat();
    waits(&sandbox, &[&train(&bert, &sets)[..], &["--device", "cuda", "--precision", "bf16"]].concat())
}

#[test]
fn a_step_waits_for_nothing() {
    if device::is_real() {
        return println!("waits: a real GPU counts nothing by itself; run this test on the stand-in");
    }
    let [few, many] = [2, 14].map(of_training);
    assert!(few.idle > 0 && few.pageable_to_host > 0, "the stand-in counts them: {few:?}");
    assert_eq!(many.pageable_to_device, 0, "uploads go through pinned memory");
    assert_eq!(many.pageable_to_host, few.pageable_to_host);
    // The last step's results are waited for, if they are not there by themselves.
    assert!(many.idle <= few.idle + 1, "steps wait: {few:?}, {many:?}");
}

/// Where the device reads pageable memory by itself, it does so when the copy's turn comes.
#[test]
fn training_is_the_same_where_the_device_reads_memory_late() {
    let [staged, late] = ["staged", "late"].map(|mode| {
        let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
        let args = [&train(&bert, &STEPS)[..], &["--device", "cuda", "--precision", "bf16"]].concat();
        let mut command = command(&sandbox, &args, 1);
        command.env("SIMT_PAGEABLE", mode);
        Done::new(command.output().unwrap()).ok();
        run_contents(&sandbox, "run")
    });
    assert_same_run(&staged, &late, "late");
}

/// `n_texts` texts of 1 to 4 words in chunks of 100 tokens.
fn of_encoding(n_texts: usize) -> Waits {
    let (sandbox, bert) = (Sandbox::new(), fixture("bert"));
    let text = |i: usize| ["river", "old", "sea", "x"][..1 + i % 4].join(" ") + "\n";
    sandbox.write("texts.txt", (0..n_texts).map(text).collect::<String>());
    let args = ["encode", "--model", &bert, "--input", "texts.txt", "--output", "out.npy", "--device", "cuda"];
    let sets = ["--set", "chunk_tokens=100", "--set", "query_max_len=40", "--set", "passage_max_len=40"];
    waits(&sandbox, &[&args[..], &sets[..]].concat())
}

/// However many chunks there are, and windows of texts: the device runs dry once, after the last.
#[test]
fn encoding_does_not_wait_between_chunks() {
    if device::is_real() {
        return println!("waits: a real GPU counts nothing by itself; run this test on the stand-in");
    }
    for n_texts in [60, 600, 2500] {
        let waits = of_encoding(n_texts);
        assert!(waits.idle <= 1, "{n_texts} texts: {waits:?}");
        assert_eq!((waits.pageable_to_device, waits.pageable_to_host), (0, 0), "{n_texts} texts");
    }
}
