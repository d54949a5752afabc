//! What hbt did not write is not replaced, whatever it is called; outputs are no inputs.

use crate::common::{EVENTS, Sandbox, files, fixture, train};

/// Runs `args`, which fails, and changes nothing.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], message: &str) {
    let before = sandbox.contents();
    let error = sandbox.hbt(args).error();
    assert!(error.starts_with(&format!("error: {message}")), "{error}");
    assert!(sandbox.contents() == before, "{error}");
}

/// A run of another directory, `first`.
fn first_run(sandbox: &Sandbox, model: &str) {
    let args = train(model, &["steps=1", "eval_task=none"]);
    sandbox.hbt(&args.iter().map(|&arg| if arg == "run" { "first" } else { arg }).collect::<Vec<_>>()).ok();
}

#[test]
fn files_of_others_in_a_run_directory_stay() {
    let bert = fixture("bert");
    for (name, text) in [
        ("config.toml", "# my notes: 1e-3 diverged\nsteps = 2\n"),
        ("config.toml", ""),
        ("metrics.jsonl", "{\"epoch\": 1, \"from\": \"another tool\"}\n"),
        ("metrics.jsonl", "{\"step\": 1, \"loss\": 2.5}\n"),
        (EVENTS, "another tool's"),
        ("eval.json", "{\"my\": \"results\"}\n"),
        ("last", "a file"),
        ("best", "a file"),
        ("last/config.json", "{\"name\": \"webapp\"}\n"),
        ("best/notes.txt", "years"),
    ] {
        let sandbox = Sandbox::with_groups(8);
        sandbox.write(&format!("run/{name}"), text);
        // Directories are whole, but for the one with a file of hbt's in it.
        let named = if name == EVENTS { name } else { name.split('/').next().unwrap() };
        refused(&sandbox, &train(&bert, &["steps=1"]), &format!("run/{named}: is "));
        // Beside a configuration that hbt wrote for another run, too.
        if !name.starts_with("config") {
            first_run(&sandbox, &bert);
            std::fs::copy(sandbox.path("first/config.toml"), sandbox.path("run/config.toml")).unwrap();
            refused(&sandbox, &train(&bert, &["steps=1"]), &format!("run/{named}: is "));
        }
    }
}

#[test]
fn a_configuration_beside_its_run_stays() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.write("config.toml", "# mine\nsteps = 2\nbatch_size = 4\ndata = 'data.jsonl'\nout = '.'\n");
    refused(&sandbox, &["train", "config.toml"], "./config.toml: is there already, and hbt did not write it");
    // Nor is one of hbt's that was edited before anything was saved.
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=1", "eval_task=none"])).ok();
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    sandbox.write("run/config.toml", sandbox.read("run/config.toml") + "# a note\n");
    refused(&sandbox, &train(&bert, &["steps=1"]), "run/config.toml: is there already");
}

/// A run that ended before its first save has left nothing but hbt's own.
#[test]
fn a_run_that_saved_nothing_is_begun_again() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=2"])).ok();
    let whole = files(&sandbox.path("run"));
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    // The last line of a killed run may be half.
    sandbox.write("run/metrics.jsonl", "{\"step\":1,\"lo");
    sandbox.hbt(&train(&bert, &["steps=2"])).ok();
    let again = files(&sandbox.path("run"));
    assert_eq!(again.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    assert_eq!(again["last/model.safetensors"], whole["last/model.safetensors"]);
}

#[cfg(unix)]
#[test]
fn what_links_lead_to_is_not_replaced() {
    use std::os::unix::fs::symlink;
    let bert = fixture("bert");
    let sandbox = Sandbox::with_groups(8);
    sandbox.write("outside/config.json", "{}");
    sandbox.write("outside/thesis.txt", "years");
    sandbox.write("run/x", "");
    symlink("../outside", sandbox.path("run/best")).unwrap();
    refused(&sandbox, &train(&bert, &["steps=1"]), "run/best: is not empty");
    std::fs::remove_file(sandbox.path("run/best")).unwrap();
    symlink("nowhere", sandbox.path("run/last")).unwrap();
    let error = sandbox.hbt(&train(&bert, &["steps=1"])).error();
    assert!(error.starts_with("error: run/last: is a link to nowhere"), "{error}");
    std::fs::remove_file(sandbox.path("run/last")).unwrap();
    // The configuration of another run, by a link.
    first_run(&sandbox, &bert);
    symlink("../first/config.toml", sandbox.path("run/config.toml")).unwrap();
    refused(&sandbox, &train(&bert, &["steps=1", "seed=7"]), "run/config.toml: is there already");
    std::fs::remove_file(sandbox.path("run/config.toml")).unwrap();
    // A place on another disk is what links are for.
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    symlink("../disk", sandbox.path("run/last")).unwrap();
    sandbox.hbt(&train(&bert, &["steps=2", "save_steps=1"])).ok();
    assert!(sandbox.path("run/last").is_symlink() && sandbox.path("disk/model.safetensors").is_file());
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
}

/// What a user puts into a directory of hbt's outlasts the saves that replace it.
#[cfg(unix)]
#[test]
fn what_others_keep_in_a_saved_model_stays_there() {
    use super::resume::interrupted;
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let sets = ["steps=24", "eval_steps=1", "save_steps=3", "learning_rate=1e-2"];
    interrupted(sandbox.command(&train(&bert, &sets)), "-TERM", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
    for name in ["run/last/notes.txt", "run/last/onnx/model.onnx", "run/best/notes.txt", "run/best/1_Pooling/why.txt"] {
        sandbox.write(name, name);
    }
    std::os::unix::fs::symlink("nowhere", sandbox.path("run/last/link")).unwrap();
    let before = sandbox.bytes("run/last/model.safetensors");
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
    assert_ne!(sandbox.bytes("run/last/model.safetensors"), before, "the model was replaced");
    for name in ["run/last/notes.txt", "run/last/onnx/model.onnx", "run/best/notes.txt", "run/best/1_Pooling/why.txt"] {
        assert_eq!(sandbox.read(name), name);
    }
    assert_eq!(std::fs::read_link(sandbox.path("run/last/link")).unwrap().to_str(), Some("nowhere"));
    assert!(!sandbox.path("run/last/optimizer.safetensors").exists(), "hbt's own goes when it is of no more use");
}

#[test]
fn outputs_are_no_inputs() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.copy_model("bert", "model");
    sandbox.write("eval.jsonl", sandbox.read("data.jsonl"));
    sandbox.write("texts.txt", "who wrote it\n");
    sandbox.write(
        "some.toml",
        "model = 'model'\ndata = 'data.jsonl'\neval_data = 'eval.jsonl'\nbatch_size = 4\nsteps = 1\n",
    );
    let encode = ["encode", "some.toml", "--input", "texts.txt"];
    let is_of = |option: &str, what: &str| format!("{option}: is a file of {what} itself; name another one");
    for (args, option, output, what) in [
        (&encode[..], "--output", "texts.txt", "the input"),
        (&encode, "--output", "some.toml", "the configuration"),
        (&encode, "--output", "model/tokenizer.json", "the model"),
        (&encode, "--output", "model/1_Pooling/config.json", "the model"),
        (&encode, "--output", "data.jsonl", "the data"),
        (&encode, "--trace", "texts.txt", "the input"),
        (&["eval", "some.toml"], "--json", "eval.jsonl", "the evaluation data"),
        (&["eval", "some.toml"], "--json", "./some.toml", "the configuration"),
        (&["eval", "some.toml"], "--json", "model/model.safetensors", "the model"),
        (&["eval", "some.toml"], "--trace", "eval.jsonl", "the evaluation data"),
        (&["mine", "some.toml", "--output", "mined"], "--trace", "data.jsonl", "the data"),
        (&["mine", "some.toml"], "--output", "some.toml", "the configuration"),
        (&["bench", "some.toml", "--op", "bias_gelu"], "--trace", "some.toml", "the configuration"),
        (&["train", "some.toml"], "--trace", "data.jsonl", "the data"),
        (&["train", "some.toml"], "--trace", "some.toml", "the configuration"),
    ] {
        refused(&sandbox, &[args, &[option, output]].concat(), &is_of(option, what));
    }
    // A configuration that is wrong is not written over either.
    sandbox.write("wrong.toml", "stps = 1\n");
    refused(&sandbox, &["train", "wrong.toml", "--trace", "wrong.toml"], "wrong.toml, line 1: unknown key");
    // What stands in a model directory and is not of the model may be written again.
    for _ in 0..2 {
        sandbox.hbt(&["eval", "some.toml", "--json", "model/report.json"]).ok();
    }
}

#[test]
fn a_run_does_not_save_over_its_model() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=1"])).ok();
    std::fs::remove_dir_all(sandbox.path("run/last")).unwrap();
    let error = "out: the model is read from run/best, where the run would save; choose another";
    refused(&sandbox, &train("run/best", &["steps=1"]), error);
    sandbox.write("run/best/data.jsonl", sandbox.read("data.jsonl"));
    let error = "out: the data is read from run/best/data.jsonl, where the run would save; choose another";
    refused(&sandbox, &train(&bert, &["steps=1", "data=run/best/data.jsonl"]), error);
}
