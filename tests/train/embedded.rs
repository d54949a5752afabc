//! A newcomer's first commands: the built-in model and questions, without any file or network.

use crate::common::{Done, Sandbox, figure, fixture};

#[test]
fn the_built_in_model_learns_across_languages_in_a_few_steps() {
    let sandbox = Sandbox::new();
    sandbox.hbt(&["train", "--set", "steps=100", "--set", "eval_data=none"]).ok();
    let reports = sandbox.json("runs/train/eval.json");
    let cross = |when: &str| figure(&reports[when], "cross_lingual_map");
    assert_eq!(reports["before"]["languages"].as_array().unwrap().len(), 8);
    assert!(cross("after") > 2.0 * cross("before"), "{} to {}", cross("before"), cross("after"));
    // A second run takes a directory of its own.
    sandbox.hbt(&["train", "--set", "steps=2", "--set", "eval_task=none"]).ok();
    assert!(sandbox.path("runs/train-2/last/model.safetensors").exists());
}

#[test]
fn the_built_in_data_is_what_its_readme_says() {
    let sandbox = Sandbox::new();
    let report = sandbox.hbt(&["prepare"]).ok().stdout;
    assert!(report.contains("1,088") || report.contains("1088"), "{report}");
}

#[test]
fn the_built_in_questions_keep_their_parts_whatever_the_model() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&["train", "--set", "steps=2"]).ok();
    let after = &sandbox.json("runs/train/eval.json")["after"];
    sandbox.hbt(&["eval", "--model", "runs/train/last", "--json", "again.json"]).ok();
    let again = sandbox.json("again.json");
    assert_eq!(again["split"], "test");
    assert_eq!(again["by_direction"], after["by_direction"]);
    // Data of one's own has no parts unless it says so.
    sandbox.hbt(&["eval", "--data", "data.jsonl"]).ok();
}

/// A file to start from fixes only what its user gives: the built-in model keeps the settings that suit it.
#[test]
fn a_configuration_to_start_from_changes_nothing() {
    let sandbox = Sandbox::with_groups(8);
    let start = sandbox.hbt(&["config"]).ok().stdout;
    assert!(start.contains("\n#learning_rate = 0.002  # as suits what is built in; otherwise 3e-5\n"), "{start}");
    assert!(start.contains("\n#alpha = 0.5\n"), "{start}");
    sandbox.write("my.toml", &start);
    let config = |args: &[&str]| {
        let sets = ["--set", "steps=1", "--set", "eval_task=none", "--out", "run"];
        sandbox.hbt(&[&["train"], args, &sets].concat()).ok();
        let config = sandbox.read("run/config.toml");
        std::fs::remove_dir_all(sandbox.path("run")).unwrap();
        config
    };
    let by_default = config(&[]);
    assert!(by_default.contains("\nlearning_rate = 0.002\n") && by_default.contains("\nbatch_size = 64\n"));
    assert_eq!(config(&["my.toml"]), by_default);
    // Nor does it keep other data from what suits that.
    let own = ["--model", &fixture("bert"), "--data", "data.jsonl", "--set", "batch_size=4"];
    assert_eq!(config(&[&["my.toml"], &own[..]].concat()), config(&own));
    let start = sandbox.hbt(&["config", "--data", "data.jsonl"]).ok().stdout;
    assert!(start.contains("\n#learning_rate = 3e-5\n") && start.contains("\ndata = \"data.jsonl\"\n"), "{start}");
}

/// The files that the program keeps in the cache are its own again, whatever happened to them.
#[test]
fn the_built_in_model_is_verified_when_it_is_read() {
    let sandbox = Sandbox::new();
    sandbox.write("texts.txt", "old river\n");
    let encode = || sandbox.hbt(&["encode", "--input", "texts.txt"]).ok().stdout;
    let expected = encode();
    let dir = || {
        let entries = std::fs::read_dir(sandbox.path("cache")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_str().unwrap().contains("tiny-model")).collect::<Vec<_>>()
    };
    let [model] = &dir()[..] else { panic!("one directory: {:?}", dir()) };
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    let mut flipped = weights.clone();
    flipped[1_000_000] ^= 0x40;
    std::fs::write(model.join("model.safetensors"), flipped).unwrap();
    assert_eq!(encode(), expected);
    assert_eq!(std::fs::read(model.join("model.safetensors")).unwrap(), weights);
    for file in ["tokenizer.json", "1_Pooling/config.json", "config.json"] {
        std::fs::remove_file(model.join(file)).unwrap();
        assert_eq!(encode(), expected, "without {file}");
    }
    std::fs::remove_dir_all(model).unwrap();
    std::fs::create_dir(model).unwrap();
    assert_eq!(encode(), expected);
    assert_eq!(dir().len(), 1, "nothing is left beside it: {:?}", dir());
}

#[test]
fn first_runs_at_once_do_each_other_no_harm() {
    let sandbox = Sandbox::new();
    sandbox.write("texts.txt", "old river\n");
    for _ in 0..5 {
        let _ = std::fs::remove_dir_all(sandbox.path("cache"));
        let start = || {
            let mut command = sandbox.command(&["encode", "--input", "texts.txt"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let all: Vec<_> = (0..6).map(|_| start()).collect();
        let outputs: Vec<String> =
            all.into_iter().map(|one| Done::new(one.wait_with_output().unwrap()).ok().stdout).collect();
        assert!(outputs.iter().all(|output| *output == outputs[0]));
    }
}
