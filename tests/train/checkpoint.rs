//! What a run reads back is what it saved: damage, mixtures and edits are found, and named.

use super::resume::interrupted;
use crate::common::{Sandbox, assert_same_run, files, fixture, n_steps, run_contents, run_results, train};
use hbt::files::owned::Manifest;
use hbt::train::checkpoint::RunDir;
use serde_json::Value;

const SETS: [&str; 5] = ["steps=24", "eval_steps=1", "dropout=0.1", "save_steps=100", "learning_rate=1e-2"];

const RESUME: [&str; 4] = ["train", "--out", "run", "--resume"];

/// A run that was interrupted after a few steps.
#[cfg(unix)]
fn interrupted_run(sets: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let command = sandbox.command(&train(&bert, sets));
    interrupted(command, "-TERM", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    sandbox
}

/// The undisturbed run's contents but for `config.toml`.
fn undisturbed() -> std::collections::BTreeMap<String, Vec<u8>> {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&fixture("bert"), &SETS)).ok();
    run_contents(&sandbox, "run")
}

#[cfg(unix)]
#[test]
fn a_flipped_bit_in_any_file_is_found() {
    let sandbox = interrupted_run(&SETS);
    let saved = files(&sandbox.path("run/last"));
    assert!(["optimizer.safetensors", "training_state.json"].iter().all(|&name| saved.contains_key(name)));
    for (name, bytes) in saved.iter().filter(|(name, bytes)| *name != "README.md" && !bytes.is_empty()) {
        let path = format!("run/last/{name}");
        let flipped = [&bytes[..bytes.len() / 2], &[bytes[bytes.len() / 2] ^ 0x40], &bytes[bytes.len() / 2 + 1..]];
        sandbox.write(&path, flipped.concat());
        let before = sandbox.contents();
        let error = sandbox.hbt(&RESUME).error();
        assert!(error.starts_with(&format!("error: {path}: is ")) && error.contains("damaged"), "{error}");
        assert!(sandbox.contents() == before, "{name}");
        sandbox.write(&path, bytes);
    }
    // The card is for people to edit.
    sandbox.write("run/last/README.md", "mine");
    sandbox.hbt(&RESUME).ok();
    assert_same_run(&undisturbed(), &run_contents(&sandbox, "run"), "put right again");
}

#[test]
fn a_flipped_bit_in_a_complete_run_is_found() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&fixture("bert"), &["steps=3"])).ok();
    sandbox.write("texts.txt", "who wrote it\n");
    for (directory, command) in [
        ("run/last", RESUME.to_vec()),
        ("run/last", vec!["eval", "--model", "run/last", "--data", "data.jsonl"]),
        ("run/best", vec!["encode", "--model", "run/best", "--input", "texts.txt", "--output", "out.npy"]),
        (
            "run/best",
            vec!["train", "--model", "run/best", "--data", "data.jsonl", "--out", "other", "--set", "batch_size=2"],
        ),
    ] {
        for name in ["model.safetensors", "tokenizer.json"] {
            let path = format!("{directory}/{name}");
            let whole = sandbox.bytes(&path);
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            sandbox.write(&path, &bytes);
            let error = sandbox.hbt(&command).error();
            assert!(error.starts_with(&format!("error: {path}: is not what hbt saved here")), "{command:?}: {error}");
            sandbox.write(&path, &whole);
        }
    }
}

/// What a model directory says of itself is for people to change, and all of it where they say that they did.
#[test]
fn a_model_that_was_changed_on_purpose_is_used() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&fixture("bert"), &["steps=3"])).ok();
    sandbox.write("texts.txt", "who wrote it\n");
    let encode = |output: &str| {
        sandbox.hbt(&["encode", "--model", "run/best", "--input", "texts.txt", "--as", "query", "--output", output])
    };
    encode("plain.npy").ok();
    let prompts = sandbox.read("run/best/config_sentence_transformers.json");
    sandbox.write("run/best/config_sentence_transformers.json", prompts.replace("\"query: \"", "\"find: \""));
    encode("edited.npy").ok();
    assert_ne!(sandbox.bytes("plain.npy"), sandbox.bytes("edited.npy"), "the new prefix is used");

    std::fs::copy(sandbox.path("run/last/model.safetensors"), sandbox.path("other.safetensors")).unwrap();
    sandbox.copy_model("bert", "bert");
    std::fs::copy(sandbox.path("bert/model.safetensors"), sandbox.path("run/best/model.safetensors")).unwrap();
    let error = encode("new.npy").error();
    assert!(
        error.ends_with("copy the model again, or remove hbt_manifest.json if it was changed on purpose"),
        "{error}"
    );
    std::fs::remove_file(sandbox.path("run/best/hbt_manifest.json")).unwrap();
    encode("new.npy").ok();
}

#[cfg(unix)]
#[test]
fn a_mixture_of_two_saves_is_found() {
    let sandbox = interrupted_run(&SETS);
    let older = files(&sandbox.path("run/last"));
    let steps = n_steps(&sandbox.path("run/metrics.jsonl"));
    interrupted(sandbox.command(&RESUME), "-TERM", &sandbox.path("run/metrics.jsonl"), steps + 2).interrupted();
    let newer = files(&sandbox.path("run/last"));
    for name in ["optimizer.safetensors", "model.safetensors", "training_state.json", "hbt_manifest.json"] {
        assert_ne!(older[name], newer[name], "{name}");
        let path = format!("run/last/{name}");
        sandbox.write(&path, &older[name]);
        let error = sandbox.hbt(&RESUME).error();
        // An older manifest is whole in itself: what it lists is not what is there.
        let named = if name == "hbt_manifest.json" { "run/last/" } else { &path };
        assert!(error.starts_with(&format!("error: {named}")), "{error}");
        assert!(error.ends_with("; copy last/ again whole, or start a new run"), "{error}");
        sandbox.write(&path, &newer[name]);
    }
    std::fs::remove_file(sandbox.path("run/last/1_Pooling/config.json")).unwrap();
    let error = sandbox.hbt(&RESUME).error();
    assert!(error.starts_with("error: run/last/1_Pooling/config.json: is missing, and hbt saved it"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_save_of_another_version_is_refused() {
    let sandbox = interrupted_run(&SETS);
    let manifest = sandbox.read("run/last/hbt_manifest.json");
    sandbox.write("run/last/hbt_manifest.json", manifest.replace("\"format\": 1", "\"format\": 2"));
    let error = sandbox.hbt(&RESUME).error();
    let expected =
        "error: run/last/hbt_manifest.json: has layout 2, which another version of hbt wrote; this one reads 1";
    assert_eq!(error, expected);
    std::fs::remove_file(sandbox.path("run/last/hbt_manifest.json")).unwrap();
    let error = sandbox.hbt(&RESUME).error();
    let expected =
        "error: run/last: was written by another version of hbt, or not copied whole: it has no hbt_manifest.json";
    assert!(error.starts_with(expected) && error.contains("--model run/last --out ANOTHER"), "{error}");
    std::fs::remove_file(sandbox.path("run/last/training_state.json")).unwrap();
    let error = sandbox.hbt(&RESUME).error();
    let expected = "error: run/last/training_state.json: is missing, so nobody can say where the run stopped";
    assert!(error.starts_with(expected), "{error}");
}

#[cfg(unix)]
#[test]
fn an_edited_configuration_is_held_against_the_run() {
    let sandbox = interrupted_run(&SETS);
    let config = sandbox.read("run/config.toml");
    let line = 1 + config.lines().position(|line| line.starts_with("batch_size = ")).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        config.replace(from, to)
    };
    sandbox.write("run/config.toml", edited("\nbatch_size = 4\n", "\nbatch_size = 8\n"));
    let error = sandbox.hbt(&RESUME).error();
    let expected = format!(
        "error: run/config.toml, line {line}: batch_size: was 4 when the run in run began, and is 8 now; take that"
    );
    assert!(error.starts_with(&expected), "{error}");
    sandbox.write("run/config.toml", edited("\neval_data = \"none\"\n", "\neval_data = \"data.jsonl\"\n"));
    let error = sandbox.hbt(&RESUME).error();
    assert!(
        error.contains(": eval_data: was \"none\" when the run in run began, and is \"data.jsonl\" now"),
        "{error}"
    );

    // What the result does not depend on is for people to change, and their file stays as it is.
    let own = edited("\nsave_steps = 100\n", "\nsave_steps = 7 # more often\n");
    sandbox.write("run/config.toml", &own);
    let done = sandbox.hbt(&RESUME).ok();
    assert!(
        done.stderr.contains("run/config.toml was edited since hbt wrote it, and stays as it is\n"),
        "{}",
        done.stderr
    );
    assert_eq!(sandbox.read("run/config.toml"), own);
    let mut undisturbed = undisturbed();
    assert_eq!(undisturbed.remove("config.toml").unwrap(), config.into_bytes());
    undisturbed.remove("report.html");
    assert_same_run(&undisturbed, &run_results(&sandbox, "run"), "with an edited configuration");
}

#[cfg(unix)]
#[test]
fn a_run_without_its_configuration_goes_on() {
    let sandbox = interrupted_run(&SETS);
    sandbox.write("run/config.toml", "\n");
    let error = sandbox.hbt(&RESUME).error();
    let expected = "error: run/config.toml: is empty; remove it, and --resume takes the run's settings from last/training_state.json";
    assert_eq!(error, expected);
    std::fs::remove_file(sandbox.path("run/config.toml")).unwrap();
    let error = sandbox.hbt(&[&RESUME[..], &["--set", "seed=7"]].concat()).error();
    assert!(error.starts_with("error: seed: was 42 when the run in run began, and is 7 now"), "{error}");
    let done = sandbox.hbt(&[&RESUME[..], &["--set", "save_steps=100"]].concat()).ok();
    let said = "run/config.toml is missing: going on with the settings in run/last/training_state.json\n";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert_same_run(&undisturbed(), &run_contents(&sandbox, "run"), "without its configuration");
}

#[cfg(unix)]
#[test]
fn a_run_without_its_save_starts_again_or_says_that_it_is_lost() {
    // Saved at step 2, and the step after it was reported.
    let sandbox = interrupted_run(&["steps=24", "eval_steps=1", "save_steps=1", "learning_rate=1e-2"]);
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    let before = sandbox.contents();
    let error = sandbox.hbt(&RESUME).error();
    assert!(error.starts_with("error: run/last: is missing, and the run had saved there: it got to step "), "{error}");
    assert!(sandbox.contents() == before);

    let sandbox = interrupted_run(&SETS);
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    let done = sandbox.hbt(&RESUME).ok();
    assert!(
        done.stderr.contains("run/last is not there: nothing is left of the run, which got to step "),
        "{}",
        done.stderr
    );
    assert_same_run(&undisturbed(), &run_contents(&sandbox, "run"), "started again");

    // Now it is complete, and its reports say so.
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    let error = sandbox.hbt(&RESUME).error();
    assert!(
        error.starts_with("error: run/last: is missing, and the run had saved there: it got to step 24;"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn other_evaluation_data_is_not_resumed() {
    let sandbox = Sandbox::with_groups(8);
    let data = sandbox.read("data.jsonl");
    sandbox.write("eval.jsonl", &data);
    let bert = fixture("bert");
    let command = sandbox.command(&train(&bert, &[&SETS[..], &["eval_data=eval.jsonl"]].concat()));
    interrupted(command, "-TERM", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    sandbox.write("eval.jsonl", data.replace("book", "books"));
    let error = sandbox.hbt(&RESUME).error();
    assert!(error.starts_with("error: eval_data: has changed since the run began"), "{error}");
    sandbox.write("eval.jsonl", data);
    sandbox.hbt(&RESUME).ok();
}

/// A line that a kill has cut is written again; one in the middle that is none is not dropped with all that follow.
#[cfg(unix)]
#[test]
fn damaged_metrics_are_found() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let command = sandbox.command(&train(&bert, &SETS));
    interrupted(command, "-TERM", &sandbox.path("run/metrics.jsonl"), 4).interrupted();
    let lines = sandbox.read("run/metrics.jsonl");
    // The evaluation before training, the first step and its evaluation, the second step and its.
    let all: Vec<&str> = lines.lines().collect();
    let heads = ["{\"step\":0,\"task\"", "{\"step\":1,\"loss\"", "{\"step\":1,\"task\"", "{\"step\":2,\"loss\""];
    assert!(all.iter().zip(heads).all(|(line, head)| line.starts_with(head)), "{lines}");
    for (damaged, number) in [
        (lines.replacen(all[3], &all[3].replace("\"step\"", "\"stfp\""), 1), 4),
        (lines.replacen(all[2], &all[2].replace("\"step\"", "\"stfp\""), 1), 3),
        // A step that is none of the run's, or ends it: nothing behind it is dropped.
        (lines.replacen("{\"step\":2,\"l", "{\"step\":6,\"l", 1), 4),
        // An evaluation of another step than the one before it.
        (lines.replacen("{\"step\":1,\"t", "{\"step\":2,\"t", 1), 3),
        // Lines that are gone.
        (all[0].to_owned() + "\n", 2),
        (all[..2].join("\n") + "\n", 3),
    ] {
        sandbox.write("run/metrics.jsonl", damaged);
        let error = sandbox.hbt(&RESUME).error();
        let expected = format!(
            "error: run/metrics.jsonl, line {number}: is damaged; move the file away, and the run goes on with a new one"
        );
        assert_eq!(error, expected);
    }
    sandbox.write("run/metrics.jsonl", lines + "{\"step\":");
    sandbox.hbt(&RESUME).ok();
    assert_same_run(&undisturbed(), &run_contents(&sandbox, "run"), "with half a line more");
}

/// A kill after the last save leaves the reports of the beginning.
#[test]
fn a_complete_run_completes_its_reports() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&train(&fixture("bert"), &["steps=3"])).ok();
    let whole = sandbox.bytes("run/eval.json");
    let mut reports = sandbox.json("run/eval.json");
    reports["after"] = Value::Null;
    sandbox.write("run/eval.json", reports.to_string());
    sandbox.hbt(&RESUME).ok();
    assert_eq!(sandbox.bytes("run/eval.json"), whole);
    std::fs::remove_file(sandbox.path("run/eval.json")).unwrap();
    sandbox.hbt(&RESUME).ok();
    assert_eq!(sandbox.bytes("run/eval.json"), whole);
}

/// What a killed process left goes with the next command that goes on with the run or finds it complete.
#[test]
fn what_a_kill_left_is_removed() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let leave = || {
        for name in
            ["run/.last.hbt-tmp/model.safetensors", "run/.best.hbt-tmp/1_Pooling/config.json", "run/.eval.json.hbt-tmp"]
        {
            sandbox.write(name, "half");
        }
    };
    leave();
    sandbox.hbt(&train(&bert, &["steps=3"])).ok();
    let whole = files(&sandbox.path("run"));
    assert!(whole.keys().all(|name| !name.starts_with('.')), "{:?}", whole.keys());
    leave();
    sandbox.hbt(&RESUME).ok();
    assert!(files(&sandbox.path("run")) == whole);
}

/// Everything that later saves and evaluations take of the model's directory is read before the first step.
#[test]
fn a_model_directory_may_go_away() {
    let bert = fixture("bert");
    for end in ["", "eval_task=none"] {
        let sets: Vec<&str> =
            SETS.into_iter().chain(["save_steps=4"]).chain((!end.is_empty()).then_some(end)).collect();
        let run = |goes: bool| {
            let sandbox = Sandbox::with_groups(8);
            sandbox.copy_model("bert", "model");
            let mut child =
                sandbox.command(&train("model", &sets)).stderr(std::process::Stdio::null()).spawn().unwrap();
            while goes && std::fs::read(sandbox.path("run/metrics.jsonl")).map_or(0, |lines| lines.len()) == 0 {
                assert!(child.try_wait().unwrap().is_none());
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            if goes {
                std::fs::rename(sandbox.path("model"), sandbox.path("gone")).unwrap();
            }
            assert!(child.wait().unwrap().success(), "{end}");
            run_contents(&sandbox, "run")
        };
        assert_same_run(&run(false), &run(true), end);
    }
    assert!(std::path::Path::new(&bert).is_dir());
}

/// Under a manifest that fits, as whoever edits a state would write it.
#[test]
fn a_state_that_no_run_has_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::new(root.path());
    std::fs::create_dir(run.last()).unwrap();
    let state: Value = serde_json::from_str(&crate::mutated::state()).unwrap();
    let read = |edit: &dyn Fn(&mut Value)| {
        let mut edited = state.clone();
        edit(&mut edited);
        std::fs::write(run.state_file(), edited.to_string()).unwrap();
        Manifest::write(&run.last()).unwrap();
        run.state().map(|state| state.unwrap().step).map_err(|error| error.to_string())
    };
    assert_eq!(read(&|_| ()), Ok(3));
    let refused = |edit: &dyn Fn(&mut Value), what: &str| {
        assert_eq!(read(edit), Err(format!("{}: has {what}; start a new run", run.state_file().display())));
    };
    refused(&|state| state["step"] = 8.into(), "step 8 of 7");
    refused(&|state| state["best"][0] = 4.into(), "an evaluation of step 4 at step 3");
    // The logarithm of the inverse temperature, the moments, and the number of updates.
    let no_number = f64::NAN.to_bits();
    for (place, bits) in [(0, no_number), (0, 800f64.to_bits()), (1, no_number), (2, (-1f64).to_bits()), (3, 4)] {
        refused(&|state| state["temperature"][place] = bits.into(), "a learned temperature that no run has");
    }
}
