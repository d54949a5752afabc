//! Contents of a run directory after training, and that the run has learnt something.

use crate::common::{EVENTS, Sandbox, all_metrics, figure, files, fixture, jsonl, run_contents, train};
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn holds_all_that_was_promised() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let done = sandbox.hbt(&train(&bert, &["steps=10", "eval_steps=5", "log_steps=5"])).ok();
    let names = files(&sandbox.path("run")).into_keys().collect::<Vec<_>>();
    let tops: std::collections::BTreeSet<&str> = names.iter().map(|name| name.split('/').next().unwrap()).collect();
    assert_eq!(
        tops.into_iter().collect::<Vec<_>>(),
        ["best", "config.toml", "eval.json", "last", "metrics.jsonl", "report.html", "tensorboard"]
    );
    for model in ["best", "last"] {
        for file in ["README.md", "config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"] {
            assert!(names.contains(&format!("{model}/{file}")), "{model}/{file} in {names:?}");
        }
        assert!(!names.contains(&format!("{model}/optimizer.safetensors")), "a complete run needs no optimizer");
    }
    // Both tables on standard output, all else on standard error.
    for line in ["monolingual mAP", "cross-lingual mAP", "multilingual mAP", "rank distance", "before", "after"] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    for line in ["step  5/10  loss ", "step 10/10  loss ", "run/best: step ", "run/last: step 10"] {
        assert!(done.stderr.contains(line), "{line}: {}", done.stderr);
    }
    let card = sandbox.read("run/last/README.md");
    assert!(
        card.contains("Trained for 10 of 10 steps of 4 queries") && card.contains("| multilingual_map | 0."),
        "{card}"
    );
    assert!(card.contains("# A multilingual retriever trained with hbt\n"), "{card}");
    assert!(card.contains("Training data: data.jsonl.\n"), "{card}");
    for name in ["monolingual_map", "cross_lingual_map", "multilingual_map", "rank_distance"] {
        let value = figure(&sandbox.json("run/eval.json")["after"], name);
        assert!(card.contains(&format!("    - type: \"{name}\"\n      value: {value}\n")), "{name} {value}: {card}");
    }
    // The saved configuration is one that gives itself, below the line that says whose it is.
    let config = sandbox.hbt(&["config", "run/config.toml"]).ok();
    assert_eq!(config.stdout, sandbox.read("run/config.toml").split_once('\n').unwrap().1);
}

#[test]
fn metrics_have_a_line_an_evaluation() {
    let sandbox = Sandbox::with_groups(12);
    sandbox.hbt(&train(&fixture("bert"), &["steps=5", "eval_steps=2"])).ok();
    let lines = all_metrics(&sandbox, "run");
    let is_evaluation = |line: &&Value| line.get("task").is_some();
    let order: Vec<String> =
        lines.iter().map(|line| format!("{}{}", line["step"], if is_evaluation(&line) { "+" } else { "" })).collect();
    // Before the first step, every two, and after the last.
    assert_eq!(order, ["0+", "1", "2", "2+", "3", "4", "4+", "5", "5+"]);
    let names = ["monolingual_map", "cross_lingual_map", "multilingual_map", "rank_distance"];
    let evaluations: Vec<&Value> = lines.iter().filter(is_evaluation).collect();
    for line in &evaluations {
        assert_eq!(keys(line)[..3], ["step", "task", "split"]);
        assert_eq!(keys(line)[3..], names);
        assert_eq!((&line["task"], &line["split"]), (&"parallel".into(), &"all".into()));
    }
    let reports = sandbox.json("run/eval.json");
    for (line, report) in [(evaluations[0], &reports["before"]), (evaluations[3], &reports["after"])] {
        for name in names {
            assert_eq!(number(&line[name]), figure(report, name), "{name}");
        }
    }
    // TensorBoard's file has the same points, in this order.
    let events = String::from_utf8(run_contents(&sandbox, "run").remove(EVENTS).unwrap()).unwrap();
    let mut expected = String::new();
    for line in &lines {
        let (step, group) = (&line["step"], line.get("task").map_or("train", |task| task.as_str().unwrap()));
        let numbers = line.as_object().unwrap().iter().filter(|(name, _)| *name != "step");
        for (name, value) in numbers.filter_map(|(name, value)| Some((name, value.as_f64()?))) {
            expected += &format!("{step} {group}/{name} {}\n", value as f32);
        }
        if group == "train" {
            expected += &format!("{step} train/tokens_per_second \n");
        }
    }
    assert_eq!(events, expected);
}

/// In one language there is nothing across languages to speak of, and all settings are one.
#[test]
fn a_card_fits_a_model_of_one_language() {
    let sandbox = Sandbox::new();
    let row = |i: usize| json!({ "query": format!("river {i}"), "positive": format!("bank {i}"), "lang": "en" });
    let rows: Vec<Value> = (0..24).map(row).collect();
    sandbox.write("train.jsonl", jsonl(&rows[..16]));
    sandbox.write("test.jsonl", jsonl(&rows[16..]));
    let (bert, data) = (fixture("bert"), sandbox.path("train.jsonl").display().to_string());
    let mut args = train(&bert, &["steps=2", "eval_data=test.jsonl"]);
    *args.iter_mut().find(|arg| **arg == "data.jsonl").unwrap() = &data;
    sandbox.hbt(&args).ok();
    let card = sandbox.read("run/last/README.md");
    let after = &sandbox.json("run/eval.json")["after"];
    let value = figure(after, "monolingual_map");
    assert_eq!(value, figure(after, "multilingual_map"));
    let metrics = format!("    metrics:\n    - type: \"map\"\n      value: {value}\n      name: \"mAP\"\n---\n");
    assert!(card.contains(&metrics), "{card}");
    for text in ["language:\n- \"en\"\n", "\n# A retriever trained with hbt\n", "Training data: train.jsonl.\n"] {
        assert!(card.contains(text), "{text:?} is not in {card}");
    }
    let row = card.lines().find(|line| line.starts_with("| map | ")).unwrap();
    assert!(row.ends_with(&format!(" | {value:.4} |")), "{row}");
    for text in ["lingual", "rank_distance", "license", "base_model", data.as_str()] {
        assert!(!card.contains(text), "{text:?} is in {card}");
    }
}

#[test]
fn metrics_have_a_line_a_step() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=20", "warmup_ratio=0.1", "eval_task=none"])).ok();
    let text = sandbox.read("run/metrics.jsonl");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    for line in &lines {
        for key in ["loss", "grad_norm", "seconds"] {
            assert!(number(&line[key]) > 0.0, "{key}: {line}");
        }
        for key in ["positive_cosine", "negative_cosine"] {
            assert!(number(&line[key]).abs() <= 1.0, "{key}: {line}");
        }
        // A row is "[CLS] query : who wrote x y z [SEP]" and "[CLS] passage : book x y z [SEP]".
        assert_eq!(line["tokens"], 4 * (9 + 8), "{line}");
        let is_monolingual = line["mode"] == "monolingual";
        assert!(is_monolingual || line["mode"] == "cross_lingual", "{line}");
        assert_eq!(line.get("lang").is_some(), is_monolingual, "{line}");
    }
    let rates: Vec<f64> = lines.iter().map(|line| number(&line["learning_rate"])).collect();
    assert_eq!(rates[..3], [0.0, 0.0015, 0.003], "two of twenty steps warm up");
    assert!(rates[2..].windows(2).all(|pair| pair[1] < pair[0]), "then linear decay: {rates:?}");
    // With alpha = 0.5, half of the batches: the sampler gives each kind a fixed share of the turns.
    let n_monolingual = lines.iter().filter(|line| line["mode"] == "monolingual").count();
    assert!((8..=12).contains(&n_monolingual), "{n_monolingual} of 20");
}

#[test]
fn eval_json_has_both_reports_and_eval_agrees_with_them() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=10"])).ok();
    let reports = sandbox.json("run/eval.json");
    assert_eq!(keys(&reports), ["before", "after"]);
    let schema = [
        "model",
        "task",
        "split",
        "languages",
        "main",
        "figures",
        "by_direction",
        "by_query_language",
        "n_queries",
        "data",
        "hbt",
        "per_query",
    ];
    for (report, model) in [("before", bert.as_str()), ("after", "run/last"), ("after", "run/best")] {
        // What was named on the command line, then what came of it.
        assert_eq!(reports[report]["model"], if report == "before" { bert.as_str() } else { "last" });
        let report = &reports[report];
        assert_eq!(keys(report), schema);
        assert_eq!(report["task"], "parallel");
        assert_eq!(report["languages"], serde_json::json!(["ar", "de", "en"]));
        let evaluated = sandbox.hbt(&["eval", "--model", model, "--data", "data.jsonl", "--json", "out.json"]).ok();
        let mut same = sandbox.json("out.json");
        assert_eq!(same["model"], model);
        same["model"] = report["model"].clone();
        assert_eq!(same["hbt"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(same["hbt"]["settings"]["pooling"], "mean");
        assert_eq!(&same, report, "{model}");
        let map = figure(report, "multilingual_map");
        assert!(evaluated.stdout.contains(&format!("multilingual mAP    {map:.4}")), "{}", evaluated.stdout);
    }
}

/// All four kinds of model directory learn their training data by heart, and what they save is what they were.
#[test]
fn a_small_set_is_learnt_by_heart() {
    for model in ["bert", "xlmr", "labse", "st54"] {
        let sandbox = Sandbox::new();
        sandbox.write("data.jsonl", crate::common::jsonl(&crate::common::groups(4, &["de", "en"])));
        let path = fixture(model);
        let sets = ["steps=80", "batch_size=4", "learning_rate=2e-3", "dropout=0", "warmup_ratio=0"];
        sandbox.hbt(&train(&path, &sets)).ok();
        let reports = sandbox.json("run/eval.json");
        let of = |when: &str| figure(&reports[when], "multilingual_map");
        assert!(of("before") < 0.6 && of("after") > 0.97, "{model}: {} to {}", of("before"), of("after"));
        let losses: Vec<f64> =
            crate::common::metrics(&sandbox, "run").iter().map(|line| number(&line["loss"])).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[losses.len() - 5..]) < 0.2 * mean(&losses[..5]), "{model}: {losses:?}");

        let modules = sandbox.json("run/last/modules.json");
        let folders: Vec<&str> = modules.as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap()).collect();
        match model {
            "labse" => {
                assert_eq!(folders, ["", "1_Pooling", "2_Dense", "3_Normalize"]);
                let dense = "2_Dense/model.safetensors";
                let before = std::fs::read(std::path::Path::new(&path).join(dense)).unwrap();
                assert_ne!(sandbox.bytes(&format!("run/last/{dense}")), before, "the Dense layer was trained");
            }
            _ => assert_eq!(folders, ["", "1_Pooling", "2_Normalize"]),
        }
    }
}

/// sentence-transformers has one length for both, so with it evaluations are made, in training and after.
#[test]
fn a_saved_model_is_evaluated_alike_by_everyone() {
    let sandbox = Sandbox::with_groups(8);
    let sets = ["steps=2", "batch_size=4", "query_max_len=8", "passage_max_len=11", "eval_data=data.jsonl"];
    let done = sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
    let note = "\ntrained on queries of 8 tokens and passages of 11; evaluated and saved with 11 for both, since";
    assert!(done.stderr.contains(note), "{}", done.stderr);
    assert!(done.stderr.contains("(100.0 %) cut at 8 tokens\n"), "{}", done.stderr);
    let evaluate = |sets: &[&str]| {
        let args = ["eval", "--model", "run/last", "--data", "data.jsonl", "--json", "again.json"];
        sandbox.hbt(&[&args[..], sets].concat()).ok();
        sandbox.json("again.json")["by_direction"].clone()
    };
    let after = &sandbox.json("run/eval.json")["after"]["by_direction"];
    assert_eq!(&evaluate(&[]), after);
    assert_eq!(&evaluate(&["--set", "query_max_len=11", "--set", "passage_max_len=11"]), after);
    assert_ne!(&evaluate(&["--set", "query_max_len=8"]), after, "queries differ behind token 8");
    assert_eq!(sandbox.json("run/last/sentence_bert_config.json")["max_seq_length"], 11);
    let own = sandbox.json("run/last/hbt.json");
    assert_eq!((own["query_max_len"].as_u64(), own["passage_max_len"].as_u64()), (Some(8), Some(11)));
}

/// What the base model's directory says stays, unless it is asked for otherwise, in both directions; and a run that is
/// resumed goes on with the lengths it began with, though the saved model says another.
#[test]
fn training_changes_no_length_unless_asked() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.copy_model("bert", "short");
    sandbox.write("short/sentence_bert_config.json", "{\"max_seq_length\": 9}");
    let length = |run: &str| sandbox.json(&format!("{run}/last/sentence_bert_config.json"))["max_seq_length"].as_u64();
    let steps = ["steps=2", "batch_size=4", "eval_task=none"];
    sandbox.hbt(&train("short", &steps)).ok();
    assert_eq!(length("run"), Some(9));
    let longer = [&steps[..], &["passage_max_len=12", "out=longer"]].concat();
    sandbox.hbt(&train("run/last", &longer)).ok();
    assert_eq!(length("longer"), Some(12));
    let own = sandbox.json("longer/last/hbt.json");
    assert_eq!((own["query_max_len"].as_u64(), own["passage_max_len"].as_u64()), (Some(9), Some(12)));

    let sets = ["steps=24", "save_steps=100", "eval_steps=1", "batch_size=4", "passage_max_len=12"];
    sandbox.hbt(&train("short", &[&sets[..], &["out=whole"]].concat())).ok();
    #[cfg(unix)]
    {
        use super::resume::interrupted;
        let parts = [&sets[..], &["out=parts"]].concat();
        let (command, metrics) = (sandbox.command(&train("short", &parts)), sandbox.path("parts/metrics.jsonl"));
        interrupted(command, "-INT", &metrics, 3).interrupted();
        sandbox.hbt(&train("short", &[&parts[..], &["--resume"]].concat())).ok();
        let figures =
            |run: &str| [all_metrics(&sandbox, run), vec![sandbox.json(&format!("{run}/eval.json"))]].concat();
        assert_eq!(figures("parts"), figures("whole"));
        assert_eq!(sandbox.bytes("parts/last/model.safetensors"), sandbox.bytes("whole/last/model.safetensors"));
    }
}

#[cfg(unix)]
#[test]
fn a_directory_in_use_is_refused() {
    let sandbox = Sandbox::with_groups(8);
    std::fs::create_dir(sandbox.path("run")).unwrap();
    let directory = std::fs::File::open(sandbox.path("run")).unwrap();
    directory.lock().unwrap();
    let error = sandbox.hbt(&train(&fixture("bert"), &["steps=2", "batch_size=4"])).error();
    assert!(error.starts_with("error: run: is in use by another hbt"), "{error}");
    directory.unlock().unwrap();
    sandbox.hbt(&train(&fixture("bert"), &["steps=2", "batch_size=4"])).ok();
}

/// Of one model on one data, the evaluation before training is made once; a cache that was touched is as good as none.
#[test]
fn the_evaluation_before_training_is_kept() {
    let sandbox = Sandbox::with_groups(20);
    let bert = fixture("bert");
    let said = "evaluated before training by an earlier run: the same figures\n";
    let run = |out: &str, more: &[&str]| {
        let out_is = format!("out={out}");
        let sets = ["steps=1", "warmup_ratio=0", "eval_task=auto", "eval_fraction=0.2", &out_is];
        let done = sandbox.hbt(&train(&bert, &[&sets[..], more].concat())).ok();
        (done.stderr.contains(said), sandbox.bytes(&format!("{out}/eval.json")))
    };
    let (was_kept, first) = run("a", &[]);
    assert!(!was_kept);
    assert_eq!(run("b", &[]), (true, first.clone()));
    let kept = || {
        let mut names = files(&sandbox.path("cache")).into_keys();
        names.find(|name| name.starts_with("evaluation-")).expect("it is in the cache")
    };
    let name = format!("cache/{}", kept());
    let mut bytes = sandbox.bytes(&name);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    sandbox.write(&name, &bytes);
    assert_eq!(run("c", &[]), (false, first.clone()));
    // Another length, prefix or seed of what is held out is another evaluation.
    for other in ["query_max_len=12", "query_prefix=q", "seed=7"] {
        assert!(!run(&other.replace('=', "-"), &[other]).0, "{other}");
    }
    let (was_kept, without) = run("d", &["eval_on_start=false"]);
    assert!(!was_kept);
    let report = |bytes: &[u8], key: &str| serde_json::from_slice::<Value>(bytes).unwrap()[key].clone();
    assert_eq!((report(&without, "before"), report(&without, "after")), (Value::Null, report(&first, "after")));
    assert_eq!(report(&first, "after")["split"], "held_out");
}

/// Kept checkpoints are whole saves, and what two directories share is not touched where one of them is replaced.
#[test]
fn old_checkpoints_are_kept_on_request() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=4", "save_steps=1", "eval_task=none"])).ok();
    assert!(!sandbox.path("run/checkpoints").exists());
    let saved = files(&sandbox.path("run/last"));
    let args = train(&bert, &["steps=4", "save_steps=1", "keep_checkpoints=2", "eval_steps=4", "out=kept"]);
    sandbox.hbt(&args).ok();
    let names: Vec<String> =
        files(&sandbox.path("kept/checkpoints")).into_keys().filter(|name| name.ends_with(".json")).collect();
    let folders: std::collections::BTreeSet<&str> = names.iter().map(|name| name.split('/').next().unwrap()).collect();
    assert_eq!(folders.into_iter().collect::<Vec<_>>(), ["step-000002", "step-000003"]);
    let weights = |path: &str| sandbox.bytes(&format!("kept/{path}/model.safetensors"));
    assert_eq!(saved["model.safetensors"], weights("last"));
    assert_eq!(weights("best"), weights("last"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let number = |path: &str| sandbox.path(&format!("kept/{path}/model.safetensors")).metadata().unwrap().ino();
        assert_eq!(number("best"), number("last"), "equal weights are there once");
    }
    // A run goes on from one of them, put in the place of the last, to the same end.
    let end = files(&sandbox.path("kept/last"));
    std::fs::rename(sandbox.path("kept/last"), sandbox.path("kept/checkpoints/end")).unwrap();
    std::fs::rename(sandbox.path("kept/checkpoints/step-000002"), sandbox.path("kept/last")).unwrap();
    let best = weights("best");
    let step_3 = weights("checkpoints/step-000003");
    sandbox.hbt(&["train", "--out", "kept", "--resume"]).ok();
    assert!(files(&sandbox.path("kept/last")) == end);
    assert!(weights("best") == best && weights("checkpoints/step-000003") == step_3);
    assert!(weights("checkpoints/step-000002") != weights("checkpoints/step-000003"));
    // Old ones go, but for those in which others keep something.
    sandbox.write("kept/checkpoints/step-000002/notes.txt", "mine");
    let done = sandbox.hbt(&["train", "--out", "kept", "--resume", "--set", "steps=7"]).ok();
    assert!(done.stderr.contains("kept/checkpoints/step-000002 stays: "), "{}", done.stderr);
    assert_eq!(sandbox.read("kept/checkpoints/step-000002/notes.txt"), "mine");
    assert!(!sandbox.path("kept/checkpoints/step-000003").exists());
}
