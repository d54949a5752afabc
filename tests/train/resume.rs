//! Stopping on purpose, going on, and what a run directory that is taken says.

use crate::common::{
    Done, Sandbox, assert_same_run, fixture, groups, jsonl, metrics, n_steps, run_contents, run_results, train,
};
use hbt::backend::cpu::Instructions;
use hbt::files::owned::Manifest;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Evaluates after every step, so that wherever it is interrupted, an evaluation is left to the resumed run.
const SETS: [&str; 5] = ["steps=24", "eval_steps=1", "dropout=0.1", "save_steps=100", "learning_rate=1e-2"];

/// Waits until `is_there`; fails the test after half a minute.
fn wait_until(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this process was started with SIGINT ignored, as shells start jobs in the background of a script; then its
/// children ignore it as well.
#[cfg(unix)]
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (2 - 1) != 0)
}

/// Starts a run, sends it `signal` when `metrics` has `at_least` steps, and waits for its end.
#[cfg(unix)]
pub fn interrupted(mut command: Command, signal: &str, metrics: &Path, at_least: usize) -> Done {
    let signal = if signal == "-INT" && ignores_interrupts() { "-TERM" } else { signal };
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a step", || n_steps(metrics) >= at_least);
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    Done::new(child.wait_with_output().unwrap())
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_exactly() {
    let bert = fixture("bert");
    let undisturbed = Sandbox::with_groups(8);
    undisturbed.hbt(&train(&bert, &SETS)).ok();

    let sandbox = Sandbox::with_groups(8);
    let mut command = sandbox.command(&train(&bert, &SETS));
    let metrics = sandbox.path("run").join("metrics.jsonl");
    let mut step = 0;
    for signal in ["-INT", "-TERM"] {
        // More steps than the run before left: this one is on its way, and minds signals.
        let done = interrupted(command, signal, &metrics, step + 3).interrupted();
        assert!(
            done.stderr.contains("stopping after this step; press Ctrl-C again to stop at once\n"),
            "{}",
            done.stderr
        );
        step = n_steps(&metrics);
        assert!(step < 24, "the run was over before {signal}");
        assert!(done.stderr.ends_with(&format!("saved step {step} of 24 in run; go on with:\n")), "{}", done.stderr);
        // It prints the command to type.
        assert_eq!(done.stdout, "hbt train --out run --resume\n");
        let words: Vec<&str> = done.stdout.split_whitespace().skip(1).collect();
        command = sandbox.command(&words);
    }
    let done = Done::new(command.output().unwrap()).ok();
    assert!(done.stderr.contains("resuming run at step "), "{}", done.stderr);
    assert_same_run(&run_contents(&undisturbed, "run"), &run_contents(&sandbox, "run"), "interrupted twice");
}

/// Without evaluations on the way: at a save, word embeddings of earlier batches still have momentum.
#[cfg(unix)]
#[test]
fn pending_momentum_survives_an_interrupt() {
    let bert = fixture("bert");
    for precision in ["precision=f32", "precision=bf16"] {
        let sets = ["steps=300", "eval_task=none", "dropout=0.1", "learning_rate=1e-2", "batch_size=2", precision];
        let undisturbed = Sandbox::with_groups(18);
        undisturbed.hbt(&train(&bert, &sets)).ok();

        let sandbox = Sandbox::with_groups(18);
        let mut command = sandbox.command(&train(&bert, &sets));
        let mut step = 0;
        for signal in ["-INT", "-TERM"] {
            let metrics = sandbox.path("run/metrics.jsonl");
            interrupted(command, signal, &metrics, step + 3).interrupted();
            step = n_steps(&metrics);
            assert!(step < 300, "the run was over before {signal}");
            let moments = sandbox.bytes("run/last/optimizer.safetensors");
            let updates =
                SafeTensors::deserialize(&moments).unwrap().tensor("touched.updates").unwrap().data().to_vec();
            let updates: Vec<i32> = updates.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
            assert!(updates.iter().any(|&update| (update as usize) < step), "no momentum is pending: {updates:?}");
            command = sandbox.command(&["train", "--out", "run", "--resume"]);
        }
        Done::new(command.output().unwrap()).ok();
        assert_same_run(&run_contents(&undisturbed, "run"), &run_contents(&sandbox, "run"), precision);
    }
}

/// State of a run besides weights and moments: a learned temperature, and the turns of datasets.
#[cfg(unix)]
#[test]
fn options_with_something_to_remember_go_on_exactly() {
    let bert = fixture("bert");
    for (tables, sets) in [
        (false, &["temperature_learning_rate=1e-2", "symmetric=true"][..]),
        (false, &["matryoshka_dims=[32, 16, 8]", "matryoshka_weights=[1, 0.5, 0.25]"]),
        (true, &["eval_data=data.jsonl", "temperature_learning_rate=1e-2"]),
        (true, &["eval_data=data.jsonl", "dataset_batches=mixed", "matryoshka_dims=[16, 32]"]),
    ] {
        let sandboxes = [Sandbox::with_groups(20), Sandbox::with_groups(20)];
        let mut args = train(&bert, &[&SETS[..], sets].concat());
        if tables {
            let groups = groups(20, &["ar", "de", "en"]);
            for sandbox in &sandboxes {
                sandbox.write("a.jsonl", jsonl(&groups[..8]));
                sandbox.write("b.jsonl", jsonl(&groups[8..]));
                sandbox.write("two.toml", "[[datasets]]\ndata = 'a.jsonl'\n[[datasets]]\ndata = 'b.jsonl'\n");
            }
            args.splice(3..5, ["two.toml"]);
        }
        let [undisturbed, sandbox] = &sandboxes;
        undisturbed.hbt(&args).ok();
        interrupted(sandbox.command(&args), "-INT", &sandbox.path("run/metrics.jsonl"), 3).interrupted();
        assert!(n_steps(&sandbox.path("run/metrics.jsonl")) < 24, "{sets:?}: the run was over");
        sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
        assert_same_run(&run_contents(undisturbed, "run"), &run_contents(sandbox, "run"), &format!("{sets:?}"));
    }
}

/// How many chunks are kept is a matter of memory: a run may go on where there is less of it.
#[cfg(unix)]
#[test]
fn a_run_goes_on_with_another_number_of_kept_chunks() {
    let bert = fixture("bert");
    let small = ["chunk_tokens=16", "query_max_len=16", "passage_max_len=16", "save_steps=100"];
    for precision in ["precision=f32", "precision=bf16"] {
        let sets = [&SETS[..], &small, &[precision]].concat();
        let run = |sandbox: &Sandbox| run_results(sandbox, "run");
        let undisturbed = Sandbox::with_groups(8);
        undisturbed.hbt(&train(&bert, &sets)).ok();
        let n_tokens = |line: &Value| line["tokens"].as_u64().unwrap();
        assert!(metrics(&undisturbed, "run").iter().all(|line| n_tokens(line) > 3 * 16), "more than three chunks");

        let sandbox = Sandbox::with_groups(8);
        let command = sandbox.command(&train(&bert, &[&sets[..], &["kept_chunks=3"]].concat()));
        interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), 3).interrupted();
        assert!(n_steps(&sandbox.path("run/metrics.jsonl")) < 24, "the run was over before it was interrupted");
        sandbox.hbt(&["train", "--out", "run", "--resume", "--set", "kept_chunks=2"]).ok();
        assert_same_run(&run(&undisturbed), &run(&sandbox), precision);
    }
}

/// Other instructions may round otherwise. That is said, where it can be so and where it is known what the run began with.
#[cfg(unix)]
#[test]
fn a_run_that_goes_on_with_other_instructions_says_so() {
    use Instructions::{Avx2, Avx512, Avx512Bf16, Baseline};
    let bert = fixture("bert");
    let has = |set| set as u8 <= Instructions::of_processor() as u8;
    // Instructions that give the same bytes by `tests/train/determinism.rs` have one name.
    for (precision, before, after, is_said) in [
        ("f32", Baseline, Baseline, None),
        ("f32", Avx2, Baseline, Some((Avx2, Baseline))),
        ("f32", Baseline, Avx512, Some((Baseline, Avx512))),
        ("f32", Avx2, Avx512, None),
        ("f32", Avx512Bf16, Avx2, None),
        ("bf16", Avx2, Avx512, None),
        ("bf16", Avx512, Avx512Bf16, Some((Avx2, Avx512Bf16))),
    ] {
        if !has(before) || !has(after) {
            continue;
        }
        let (what, precision) = (format!("{precision}, {before} and {after}"), format!("precision={precision}"));
        let sandbox = Sandbox::with_groups(8);
        let mut command = sandbox.command(&train(&bert, &["steps=1000", "eval_task=none", &precision]));
        command.env("HBT_CPU", before.to_string());
        interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), 3).interrupted();
        let resume = || {
            let mut command = sandbox.command(&["train", "--out", "run", "--resume"]);
            command.env("HBT_CPU", after.to_string());
            let before = n_steps(&sandbox.path("run/metrics.jsonl"));
            interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), before + 2).interrupted().stderr
        };
        let said = resume();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("computed as with")).collect();
        let expected = is_said.map(|(before, after)| {
            format!(
                "warning: computed as with {before} up to here and with {after} from here on: the bytes may differ from those \
                 of a run that was never stopped; HBT_CPU={before} keeps them"
            )
        });
        assert_eq!(lines, Vec::from_iter(&expected), "{what}: {said}");
        let says_nothing = |why: &str| assert!(!resume().contains("computed as with"), "{what}: {why}");
        says_nothing("by now it is the same");
        if expected.is_some() {
            // The state as a GPU's run saves it.
            let mut state = sandbox.json("run/last/training_state.json");
            assert!(state["instructions"].take().is_string());
            sandbox.write("run/last/training_state.json", state.to_string());
            Manifest::write(&sandbox.path("run/last")).unwrap();
            says_nothing("nobody knows");
        }
    }
}

#[test]
fn saves_on_the_way_leave_no_trace() {
    let bert = fixture("bert");
    let run = |save_steps: &str, precision: &str| {
        let sandbox = Sandbox::with_groups(18);
        sandbox.hbt(&train(&bert, &["steps=12", "eval_task=none", "batch_size=2", save_steps, precision])).ok();
        run_results(&sandbox, "run")
    };
    for precision in ["precision=f32", "precision=bf16"] {
        assert_same_run(&run("save_steps=1", precision), &run("save_steps=100", precision), precision);
    }
}

#[cfg(unix)]
#[test]
fn moments_that_do_not_fit_are_refused() {
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    interrupted(sandbox.command(&train(&bert, &SETS)), "-INT", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    let (path, whole) = ("run/last/optimizer.safetensors", sandbox.bytes("run/last/optimizer.safetensors"));
    let renamed = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat()
    };
    // Place of the first tensor's first value: its first row number.
    let data = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let row_out_of_range = [&whole[..data], &[0, 0, 0, 0x80], &whole[data + 4..]].concat();
    for (bytes, message) in [
        (renamed("touched.rows", "touched.sown"), "has no tensor \"touched.rows\": another version of hbt wrote it"),
        (renamed("m.layer.1", "m.layer.7"), "has no tensor \"m.layer.1"),
        (row_out_of_range, "\"touched.rows\" or \"touched.updates\" does not fit the run"),
        (whole[..whole.len() - 1].to_vec(), "is truncated: its header describes "),
    ] {
        sandbox.write(path, bytes);
        // As if it had been saved so.
        Manifest::write(&sandbox.path("run/last")).unwrap();
        let error = sandbox.hbt(&["train", "--out", "run", "--resume"]).error();
        assert!(error.starts_with(&format!("error: {path}: {message}")), "{error}");
        assert!(error.ends_with("; start a new run"), "{error}");
    }
    sandbox.write(path, &whole);
    Manifest::write(&sandbox.path("run/last")).unwrap();
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
}

#[cfg(unix)]
#[test]
fn a_run_directory_can_be_moved() {
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&bert, &SETS)).ok();
    let undisturbed = run_results(&sandbox, "run");
    std::fs::rename(sandbox.path("run"), sandbox.path("first")).unwrap();
    let command = sandbox.command(&train(&bert, &SETS));
    interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    std::fs::rename(sandbox.path("run"), sandbox.path("moved")).unwrap();
    sandbox.hbt(&["train", "--out", "moved", "--resume"]).ok();
    let config = sandbox.read("moved/config.toml");
    assert!(config.contains("\nout = \"moved\"\n"), "{config}");
    assert_same_run(&undisturbed, &run_results(&sandbox, "moved"), "moved");
}

#[test]
fn a_complete_run_is_left_as_it_is() {
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    let first = sandbox.hbt(&train(&bert, &["steps=4"])).ok();
    let times = || {
        let files = crate::common::files(&sandbox.path("run")).into_keys();
        files
            .map(|file| (sandbox.path("run").join(&file).metadata().unwrap().modified().unwrap(), file))
            .collect::<Vec<_>>()
    };
    let (before, times_before) = (sandbox.contents(), times());
    for args in [vec!["train", "--out", "run", "--resume"], train(&bert, &["steps=4", "threads=1", "--resume"])] {
        let again = sandbox.hbt(&args).ok();
        assert!(again.stderr.contains("the run in run is complete: nothing to resume\n"), "{}", again.stderr);
        assert_eq!(again.stdout, first.stdout, "it shows its result again");
    }
    assert_same_run(&before, &sandbox.contents(), "resumed when complete");
    assert_eq!(times_before, times());
}

#[test]
fn another_configuration_is_not_resumed() {
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&bert, &["steps=4"])).ok();
    let before = sandbox.contents();
    for (key, set, was, is) in [
        ("learning_rate", "learning_rate=1e-3", "0.003", "0.001"),
        ("seed", "seed=7", "42", "7"),
        ("mode", "mode=monolingual", "\"hybrid\"", "\"monolingual\""),
        ("best_metric", "best_metric=rank_distance", "\"auto\"", "\"rank_distance\""),
    ] {
        let error = sandbox.hbt(&train(&bert, &["steps=4", set, "--resume"])).error();
        let expected = format!(
            "error: {key}: was {was} when the run in run began, and is {is} now; take that back, or train on from what it \
             saved, in another directory: --model run/last --out ANOTHER"
        );
        assert_eq!(error, expected);
    }
    assert_same_run(&before, &sandbox.contents(), "refused");
}

#[cfg(unix)]
#[test]
fn other_data_is_not_resumed() {
    let sandbox = Sandbox::with_groups(8);
    let command = sandbox.command(&train("model", &SETS));
    sandbox.copy_model("bert", "model");
    interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    let data = sandbox.read("data.jsonl");
    sandbox.write("data.jsonl", data.replace("book", "books"));
    let error = sandbox.hbt(&["train", "--out", "run", "--resume"]).error();
    assert!(error.starts_with("error: data: has changed since the run began"), "{error}");
    sandbox.write("data.jsonl", data);
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
}

#[test]
fn a_taken_directory_is_refused_and_a_default_one_passed_over() {
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&bert, &["steps=1", "eval_task=none"])).ok();
    let before = sandbox.contents();
    let error = sandbox.hbt(&train(&bert, &["steps=1"])).error();
    let expected =
        "error: run: holds a run already; add --resume to go on with it, or choose another directory with --out";
    assert_eq!(error, expected);
    assert_same_run(&before, &sandbox.contents(), "refused");

    let by_default = ["train", "--model", &bert, "--data", "data.jsonl", "--set", "batch_size=4", "--set", "steps=1"];
    for out in ["runs/train", "runs/train-2", "runs/train-3"] {
        let done = sandbox.hbt(&by_default).ok();
        assert!(done.stderr.contains(&format!(", into {out}\n")), "{}", done.stderr);
        assert!(sandbox.path(out).join("last/model.safetensors").exists());
    }
    assert_eq!(std::fs::read_dir(sandbox.path("runs")).unwrap().count(), 3);
}

/// Left to hbt, the figure that picks the best model is the run's own.
#[test]
fn the_metric_of_the_run_is_kept() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=1", "best_metric=rank_distance"])).ok();
    let again = sandbox.hbt(&train(&bert, &["steps=1", "--resume"])).ok();
    assert!(again.stderr.contains("run/best: step 1, rank_distance "), "{}", again.stderr);
}

#[test]
fn reports_of_an_earlier_hbt_are_refused_in_one_line() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&fixture("bert"), &["steps=1"])).ok();
    let mut state = sandbox.json("run/last/training_state.json");
    for key in ["main", "figures"] {
        state["before"].as_object_mut().unwrap().remove(key).unwrap();
    }
    sandbox.write("run/last/training_state.json", state.to_string());
    Manifest::write(&sandbox.path("run/last")).unwrap();
    let error = sandbox.hbt(&["train", "--out", "run", "--resume"]).error();
    let expected = "error: run/last/training_state.json: is not a training state (its report lists no figures, so an earlier \
                    hbt wrote it";
    assert!(error.starts_with(expected) && error.ends_with("; start a new run"), "{error}");
}

#[test]
fn nothing_to_resume_is_a_start() {
    let sandbox = Sandbox::with_groups(8);
    let done = sandbox.hbt(&train(&fixture("bert"), &["steps=2", "--resume"])).ok();
    assert!(done.stderr.contains("nothing to resume in run: starting\n"), "{}", done.stderr);
    assert!(done.stderr.contains("run/last: step 2\n"), "{}", done.stderr);
}

/// One command for a loop that restarts a run until it is complete, with the built-in model and data as with any.
#[test]
fn resuming_begins_a_run_on_what_is_built_in() {
    let sandbox = Sandbox::new();
    let args = ["train", "--set", "steps=1", "--set", "eval_task=none", "--out", "run", "--resume"];
    let first = sandbox.hbt(&args).ok();
    assert!(first.stderr.contains("nothing to resume in run: starting\n"), "{}", first.stderr);
    let again = sandbox.hbt(&args).ok();
    assert!(again.stderr.contains("the run in run is complete: nothing to resume\n"), "{}", again.stderr);
}

#[test]
fn a_mistyped_directory_is_not_resumed_as_a_new_run() {
    let sandbox = Sandbox::with_groups(8);
    let error = sandbox.hbt(&["train", "--out", "rnu", "--resume"]).error();
    assert_eq!(
        error,
        "error: rnu: holds no run to resume; check --out, or name a model, data or a setting to start one there"
    );
    // Nor is it for somebody who would extend a run; beside a run that is called nearly so, that one is named.
    sandbox.write("run/last/training_state.json", "{}");
    let error = sandbox.hbt(&["train", "--out", "rnu", "--resume", "--set", "steps=9"]).error();
    assert!(error.starts_with("error: rnu: holds no run to resume; did you mean run?, or name a model"), "{error}");
    assert!(!sandbox.path("rnu").exists());
}

/// A run that was extended draws what one of that length would have drawn, under a schedule of the added steps alone, and
/// its extension may be stopped and resumed as any run.
#[cfg(unix)]
#[test]
fn a_complete_run_is_extended() {
    let bert = fixture("bert");
    let drawn = |line: &Value| ["step", "mode", "lang", "tokens"].map(|key| line[key].clone());
    let whole = Sandbox::with_groups(8);
    whole.hbt(&train(&bert, &["steps=20", "eval_task=none"])).ok();
    let [extended, stopped] = [0, 1].map(|_| {
        let sandbox = Sandbox::with_groups(8);
        sandbox.hbt(&train(&bert, &["steps=4", "eval_steps=2"])).ok();
        sandbox
    });
    let error = extended.hbt(&["train", "--out", "run", "--resume", "--set", "steps=4", "--set", "seed=1"]).error();
    assert!(
        error.starts_with("error: seed: was 42 when the run in run began, and is 1 now; take that back"),
        "{error}"
    );
    let error = extended.hbt(&["train", "--out", "run", "--resume", "--set", "steps=3"]).error();
    assert_eq!(error, "error: steps: come to 3, and the run has done 4; set more of them to extend it");

    let more = ["train", "--out", "run", "--resume", "--set", "steps=20"];
    let done = extended.hbt(&more).ok();
    assert!(done.stderr.contains("extending run at step 4: learning rate and moments begin anew\n"), "{}", done.stderr);
    let lines = metrics(&extended, "run");
    let expected: Vec<_> = metrics(&whole, "run").iter().map(drawn).collect();
    assert_eq!(lines.iter().map(drawn).collect::<Vec<_>>(), expected);
    // Two of 16 steps warm up, and the other 14 fall to 0.
    for (line, step) in lines[4..].iter().zip(0..) {
        let factor = if step < 2 { f64::from(step) / 2.0 } else { 1.0 - f64::from(step - 2) / 14.0 };
        let rate = line["learning_rate"].as_f64().unwrap();
        assert!((rate - 3e-3 * factor).abs() < 1e-12, "{line}");
    }

    let command = stopped.command(&more);
    interrupted(command, "-INT", &stopped.path("run/metrics.jsonl"), 7).interrupted();
    stopped.hbt(&["train", "--out", "run", "--resume"]).ok();
    assert_same_run(&run_contents(&extended, "run"), &run_contents(&stopped, "run"), "extended, stopped and resumed");
}
