//! The choice among cuBLASLt's algorithms. The stand-in's add up in orders of their own, and their times on its clock are
//! set, so that what a run took shows in its bytes.

use super::command;
use crate::common::{Done, Sandbox, assert_same_run, fixture, run_contents, train};
use crate::device;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const SETS: [&str; 4] = ["steps=3", "eval_task=none", "symmetric=true", "batch_size=5"];

type Run = BTreeMap<String, Vec<u8>>;

/// Trains in `sandbox`, which may have run before, with algorithms timed or not, and number `fastest` of 8 the fastest.
fn run(sandbox: &Sandbox, timed: &str, fastest: u64) -> Run {
    let bert = fixture("bert");
    let args = [&train(&bert, &SETS)[..], &["--device", "cuda", "--precision", "bf16"]].concat();
    if sandbox.path("run").exists() {
        fs::remove_dir_all(sandbox.path("run")).unwrap();
    }
    let mut command = command(sandbox, &args, 0);
    command.env("HBT_CUBLASLT_TUNE", timed).env("SIMT_BLAS_SEED", fastest.to_string());
    Done::new(command.output().unwrap()).ok();
    run_contents(sandbox, "run")
}

/// The file with the choices, if there is one.
fn kept(sandbox: &Sandbox) -> Option<PathBuf> {
    let files = fs::read_dir(sandbox.path("cache/kernels")).ok()?.map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.into_iter().find(|path| name(path).starts_with("products-") && name(path).ends_with(".txt"))
}

/// The numbers of the algorithms that were chosen, without those that could not be timed.
fn chosen(sandbox: &Sandbox) -> Vec<u64> {
    let text = fs::read_to_string(kept(sandbox).expect("a file with choices")).unwrap();
    // The upper half of the first of the algorithm's words, in the stand-in.
    let number = |line: &str| u64::from_str_radix(&line.rsplit_once(' ').unwrap().1[..8], 16).unwrap();
    text.lines().skip(3).filter(|line| !line.contains(": 0.0 ")).map(number).collect()
}

/// True where the tests run on a real GPU, whose clock cannot be set.
fn is_skipped() -> bool {
    if device::is_real() {
        println!("products: a real GPU takes its own time; run this test on the stand-in");
    }
    device::is_real()
}

#[test]
fn the_fastest_algorithm_is_taken_and_stays() {
    if is_skipped() {
        return;
    }
    let (untimed, three, zero) = (Sandbox::with_groups(8), Sandbox::with_groups(8), Sandbox::with_groups(8));
    let first = run(&untimed, "off", 3);
    assert!(kept(&untimed).is_none(), "switched off");

    let by_three = run(&three, "on", 3);
    let numbers = chosen(&three);
    assert!(numbers.len() > 10 && numbers.iter().all(|&number| number == 3), "{numbers:?}");
    assert_ne!(first, by_three, "another algorithm adds up in another order");
    // Whatever is fastest now: the choice was made.
    let file = fs::read(kept(&three).unwrap()).unwrap();
    assert_same_run(&by_three, &run(&three, "on", 5), "the second run");
    assert_eq!(file, fs::read(kept(&three).unwrap()).unwrap());
    assert_same_run(&first, &run(&three, "off", 5), "switched off");

    // The heuristic's first is the fastest: nothing of the timing is left in what was computed.
    assert_same_run(&first, &run(&zero, "on", 0), "timed");
    assert!(chosen(&zero).iter().all(|&number| number == 0));
}

#[test]
fn a_damaged_file_is_made_anew_and_one_that_cannot_be_written_is_none() {
    if is_skipped() {
        return;
    }
    let sandbox = Sandbox::with_groups(8);
    let expected = run(&sandbox, "on", 3);
    let path = kept(&sandbox).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    // An algorithm that is none.
    fs::write(&path, good.replacen("00000003", "00000009", 1)).unwrap();
    assert_same_run(&expected, &run(&sandbox, "on", 3), "damaged");
    // The third line is a checksum of all others, with what timing has measured.
    let lines = |text: &str| {
        let kept = text.lines().enumerate().filter(|&(i, _)| i != 2);
        kept.map(|(_, line)| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let again = fs::read_to_string(&path).unwrap();
    assert_eq!((lines(&again), chosen(&sandbox).iter().all(|&n| n == 3)), (lines(&good), true), "{again}");

    let other = Sandbox::with_groups(8);
    let first = run(&other, "off", 3);
    let kernels = other.path("cache/kernels");
    let _ = fs::remove_dir_all(&kernels);
    fs::write(&kernels, "a file where the folder should be").unwrap();
    assert_same_run(&first, &run(&other, "on", 3), "a choice that cannot be kept is not made");
}

#[test]
fn a_word_that_the_switch_does_not_know() {
    let (sandbox, bert) = (Sandbox::with_groups(8), fixture("bert"));
    let mut command = command(&sandbox, &[&train(&bert, &SETS)[..], &["--device", "cuda"]].concat(), 0);
    command.env("HBT_CUBLASLT_TUNE", "of");
    let error = Done::new(command.output().unwrap()).error();
    assert!(error.contains("HBT_CUBLASLT_TUNE is \"of\": set it to on or off"), "{error}");
}
