//! Effects of configuration keys on a run.

use crate::common::{Done, Sandbox, figure, fixture, metrics, program, train};
use serde_json::Value;

fn trained(model: &str, more: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_groups(12);
    sandbox.hbt(&train(&fixture(model), more)).ok();
    sandbox
}

#[test]
fn modes_draw_their_kinds_of_batches() {
    for (mode, expected) in [
        ("mode=monolingual", vec!["monolingual"]),
        ("mode=mixed_monolingual", vec!["mixed_monolingual"]),
        ("mode=cross_lingual", vec!["cross_lingual"]),
        ("mode=hybrid", vec!["cross_lingual", "monolingual"]),
    ] {
        let sandbox = trained("bert", &[mode, "steps=12", "eval_task=none"]);
        let mut drawn: Vec<String> =
            metrics(&sandbox, "run").iter().map(|line| line["mode"].as_str().unwrap().to_owned()).collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn, expected);
    }
}

#[test]
fn without_evaluation_there_is_none() {
    let sandbox = trained("bert", &["steps=3", "eval_task=none"]);
    assert_eq!(sandbox.read("run/eval.json"), "{\n  \"before\": null,\n  \"after\": null\n}\n");
    assert!(sandbox.path("run/last/model.safetensors").exists() && !sandbox.path("run/best").exists());
}

#[test]
fn undivided_data_is_not_evaluated_on_unasked() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let args = ["train", "--model", &bert, "--data", "data.jsonl", "--set", "steps=2", "--set", "batch_size=4"];
    let done = sandbox.hbt(&args).ok();
    assert!(done.stderr.contains("no evaluation: set eval_data or eval_fraction, or split"), "{}", done.stderr);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    assert!(sandbox.json("runs/train/eval.json")["after"].is_null());
}

/// What needs an evaluation says so where there is none.
#[test]
fn settings_of_an_evaluation_that_is_not_there_are_named() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let args = ["train", "--model", &bert, "--data", "data.jsonl", "--set", "steps=2", "--set", "batch_size=4"];
    let more = ["--set", "eval_steps=1", "--set", "best_metric=rank_distance"];
    let done = sandbox.hbt(&[&args[..], &more].concat()).ok();
    for key in ["eval_steps", "best_metric"] {
        let warning = format!("warning: {key} has no effect, since there is no evaluation\n");
        assert!(done.stderr.contains(&warning), "{}", done.stderr);
    }
    let error = sandbox.hbt(&[&args[..], &more, &["--set", "patience=1"]].concat()).error();
    assert!(
        error.starts_with("error: patience: stopping early needs an evaluation, and there is none: set"),
        "{error}"
    );
}

#[test]
fn data_of_the_file_that_gives_way_is_named() {
    let sandbox = Sandbox::with_groups(12);
    sandbox.write("two.toml", "[[datasets]]\ndata = 'a.jsonl'\n[[datasets]]\ndata = 'b.jsonl'\n");
    let bert = fixture("bert");
    let done = sandbox.hbt(&["prepare", "two.toml", "--model", &bert, "--data", "data.jsonl"]).ok();
    let warning =
        "warning: [[datasets]] of the configuration file is not used, since data was given on the command line\n";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert!(!sandbox.hbt(&["prepare", "--model", &bert, "--data", "data.jsonl"]).ok().stderr.contains("warning"));
}

/// A number of chunks that no batch has takes no memory.
#[cfg(unix)]
#[test]
fn chunks_that_no_batch_has_take_no_memory() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    // So that both plans know all of the data.
    sandbox.hbt(&["prepare", "--model", &bert, "--data", "data.jsonl"]).ok();
    let memory = |kept: &str| {
        let set = format!("kept_chunks={kept}");
        let args =
            ["--model", &bert, "--data", "data.jsonl", "--set", "batch_size=4", "--set", "steps=2", "--set", &set];
        let plan = sandbox.hbt(&[&["plan"], &args[..], &["--json"]].concat()).ok().stdout;
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        let mut command = std::process::Command::new("sh");
        // Of address space; what a chunk in a list takes, ten million times, is more.
        command.args(["-c", "ulimit -v 4000000 && exec \"$@\"", "sh"]).arg(program());
        command.args(["train", "--out", kept]).args(args).args(["--set", "eval_task=none"]);
        command.current_dir(sandbox.path("")).env("HBT_CACHE", sandbox.path("cache")).env("CUDA_VISIBLE_DEVICES", "");
        Done::new(command.output().unwrap()).ok();
        plan["memory"].clone()
    };
    let one = memory("1");
    assert!(!one.is_null());
    assert_eq!(memory("10000000"), one);
}

#[test]
fn divided_data_is_trained_on_one_part_and_evaluated_on_the_other() {
    let sandbox = Sandbox::new();
    let groups = crate::common::groups(20, &["de", "en"]);
    sandbox.write("data/train.jsonl", crate::common::jsonl(&groups[..14]));
    sandbox.write("data/test.jsonl", crate::common::jsonl(&groups[14..]));
    let bert = fixture("bert");
    let args = [
        &["train", "--model", &bert, "--data", "data", "--out", "run"][..],
        &["--set", "split=train", "--set", "eval_split=test", "--set", "batch_size=7", "--set", "epochs=2"],
    ];
    let done = sandbox.hbt(&args.concat()).ok();
    assert!(
        done.stderr.contains("of 14 groups") && done.stderr.contains("12 queries on 12 passages"),
        "{}",
        done.stderr
    );
    assert_eq!(metrics(&sandbox, "run").len(), 4, "two passes of two batches");
    assert_eq!(sandbox.json("run/eval.json")["after"]["split"], "test");
    // So they are without being asked for, too, which is said; everything is taken only where that is asked for.
    let alone =
        ["train", "--model", &bert, "--data", "data", "--out", "alone", "--set", "batch_size=7", "--set", "epochs=2"];
    let done = sandbox.hbt(&alone).ok();
    for said in ["train part: 1 of 2 files", "12 queries on 12 passages", "test part: 1 of 2 files"] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
    let model = |run: &str| std::fs::read(sandbox.path(&format!("{run}/last/model.safetensors"))).unwrap();
    assert!(model("alone") == model("run"));
    let all = sandbox.hbt(&["prepare", "--model", &bert, "--data", "data", "--set", "split=all"]).ok();
    assert!(all.stdout.starts_with("20 groups from 20 rows\n"), "{}", all.stdout);
}

/// Judged documents alone are no benchmark, and training on them needs none.
#[test]
fn a_beir_directory_trains_without_an_evaluation() {
    let sandbox = Sandbox::new();
    let rows =
        |word: &str| (0..8).map(|i| format!("{{\"_id\": \"{i}\", \"text\": \"{word} {i}\"}}\n")).collect::<String>();
    sandbox.write("data/corpus.jsonl", rows("a"));
    sandbox.write("data/queries.jsonl", rows("b"));
    for (part, ids) in [("train", 0..6), ("test", 6..8)] {
        sandbox.write(&format!("data/qrels/{part}.tsv"), ids.map(|i| format!("{i}\t{i}\t1\n")).collect::<String>());
    }
    let args = ["train", "--model", &fixture("bert"), "--data", "data", "--out", "run", "--set", "batch_size=3"];
    let done = sandbox.hbt(&args).ok();
    assert!(done.stderr.contains("no evaluation: set eval_data"), "{}", done.stderr);
    assert_eq!(metrics(&sandbox, "run").len(), 2);
    // Retrieval over its corpus.
    let eval = |split| sandbox.hbt(&["eval", "--model", &fixture("bert"), "--data", "data", "--split", split]);
    assert!(eval("auto").ok().stderr.contains("evaluated default (test), 2 queries on 8 documents"));
    let message = eval("validation").error();
    assert!(message.ends_with("data: subset default has no split validation; there is test, train"), "{message}");
}

#[test]
fn patience_stops_a_run_that_gains_nothing() {
    // A learning rate this small changes no rank: no evaluation gains on the first.
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let sets = ["steps=40", "eval_steps=2", "patience=3", "learning_rate=1e-12"];
    let done = sandbox.hbt(&train(&bert, &sets)).ok();
    assert!(done.stderr.contains("no gain in 3 evaluations: stopping early"), "{}", done.stderr);
    // Evaluated after steps 2 (the best), 4, 6 and 8.
    assert_eq!(metrics(&sandbox, "run").len(), 8);
    assert!(done.stderr.contains("run/best: step 2, multilingual_map 0."), "{}", done.stderr);
    assert!(done.stderr.contains("run/last: step 8\n"), "{}", done.stderr);
    assert!(!sandbox.json("run/eval.json")["after"].is_null());
    let again = sandbox.hbt(&train(&bert, &[&sets[..], &["--resume"]].concat())).ok();
    assert!(again.stderr.contains("the run in run is complete"), "{}", again.stderr);
}

#[test]
fn the_best_model_is_the_best_by_the_named_metric() {
    for metric in ["monolingual_map", "cross_lingual_map", "multilingual_map", "rank_distance"] {
        let best_metric = format!("best_metric={metric}");
        // Strides of this size make the metrics go up and down.
        let sets = ["steps=15", "eval_steps=3", "learning_rate=2e-2", &best_metric];
        let sandbox = Sandbox::with_groups(12);
        let done = sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
        let prefix = format!(": {metric} ");
        let values: Vec<f64> = done
            .stderr
            .lines()
            .filter_map(|line| {
                let (step, rest) = line.split_once(&prefix)?;
                assert!(step.starts_with("step "), "{line}");
                rest.split(' ').next().unwrap().parse().ok()
            })
            .collect();
        assert_eq!(values.len(), 5, "after steps 3, 6, 9, 12 and 15: {}", done.stderr);
        let best = match metric {
            "rank_distance" => values.iter().copied().fold(f64::INFINITY, f64::min),
            _ => values.iter().copied().fold(0.0, f64::max),
        };
        sandbox.hbt(&["eval", "--model", "run/best", "--data", "data.jsonl", "--json", "best.json"]).ok();
        let report = sandbox.json("best.json");
        let value = figure(&report, metric);
        // The line has four decimals of the value.
        assert!((value - best).abs() < 5.1e-5, "{metric}: {value} for {best} of {values:?}");
    }
}

#[test]
fn from_scratch_reads_no_weights() {
    let sandbox = Sandbox::with_groups(12);
    sandbox.copy_model("labse", "model");
    for file in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "2_Dense/model.safetensors",
    ] {
        std::fs::remove_file(sandbox.path("model").join(file)).unwrap();
    }
    let run = |seed, out| {
        let mut args = train("model", &["--from-scratch", "steps=3", seed]);
        args[6] = out;
        sandbox.hbt(&args).ok();
        sandbox.bytes(&format!("{out}/last/model.safetensors"))
    };
    let (a, b, c) = (run("seed=1", "a"), run("seed=1", "b"), run("seed=2", "c"));
    assert_eq!(a, b);
    assert_ne!(a, c);
    let refused = sandbox.hbt(&train("model", &["steps=3"])).error();
    assert!(refused.contains("error: model: has no weights"), "{refused}");
}

#[test]
fn symmetric_adds_the_other_direction() {
    let first_loss = |sets: &[&str]| {
        let sandbox = trained("bert", &[&["steps=1", "eval_task=none"], sets].concat());
        metrics(&sandbox, "run")[0]["loss"].as_f64().unwrap()
    };
    let (one, both) = (first_loss(&[]), first_loss(&["symmetric=true"]));
    assert!(one.is_finite() && both.is_finite() && (one - both).abs() > 1e-6, "{one} and {both}");
}

/// With weights that hardly move, every step sees the same four texts and their translations: only the temperature can
/// lower the loss.
#[test]
fn a_temperature_is_learned() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", crate::common::jsonl(&crate::common::groups(4, &["en"])));
    let bert = fixture("bert");
    let run = |out: &str, more: &[&str]| -> Vec<[Option<f64>; 2]> {
        let sets = ["mode=monolingual", "steps=6", "learning_rate=1e-12", "dropout=0", "eval_task=none"];
        let mut args = train(&bert, &[&sets, more].concat());
        args[6] = out;
        sandbox.hbt(&args).ok();
        metrics(&sandbox, out).iter().map(|line| [line["loss"].as_f64(), line["temperature"].as_f64()]).collect()
    };
    let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-5;
    let learned = run("learned", &["temperature_learning_rate=0.1"]);
    let (losses, temperatures): (Vec<f64>, Vec<f64>) =
        learned.iter().map(|[loss, temperature]| (loss.unwrap(), temperature.unwrap())).unzip();
    assert!(close(temperatures[0], 0.05));
    // Adam's first step is as long as the learning rate, which has a schedule only for the weights.
    assert!(close((temperatures[1] / temperatures[0]).ln().abs(), 0.1), "{temperatures:?}");
    assert!(losses.is_sorted_by(|a, b| b < a), "{losses:?}");
    // The temperature that a step reports is the one that it used.
    for (step, temperature) in temperatures.iter().enumerate() {
        let set = format!("temperature={temperature}");
        let fixed = run(&step.to_string(), &[&set]);
        assert!(close(fixed[step][0].unwrap(), losses[step]), "step {step}: {fixed:?} and {losses:?}");
        assert!(fixed[step][1].is_none(), "a temperature that stays is not reported");
    }
}

#[test]
fn hard_negatives_join_the_passages() {
    let sandbox = Sandbox::new();
    let mut groups = crate::common::groups(12, &["de", "en"]);
    for group in &mut groups {
        group["negatives"] =
            serde_json::json!({"de": ["the green sea", "old river"], "en": ["a long sentence", "bank"]});
    }
    sandbox.write("data.jsonl", crate::common::jsonl(&groups));
    let bert = fixture("bert");
    let tokens = |out, n| {
        let mut args = train(&bert, &["steps=4", "eval_task=none", n]);
        args[6] = out;
        sandbox.hbt(&args).ok();
        metrics(&sandbox, out).iter().map(|line: &Value| line["tokens"].as_u64().unwrap()).sum::<u64>()
    };
    let (none, one, all) = (
        tokens("a", "negatives_per_query=0"),
        tokens("b", "negatives_per_query=1"),
        tokens("c", "negatives_per_query=\"none\""),
    );
    assert!(none < one && one < all, "{none}, {one}, {all}");
}

#[test]
fn without_in_batch_negatives_there_have_to_be_others() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let args = train(&bert, &["steps=12", "mode=monolingual", "eval_task=none", "in_batch_negatives=false"]);
    let refused = "error: in_batch_negatives: is false, but the data has no hard negatives in its positives' languages";
    assert!(sandbox.hbt(&args).error().starts_with(refused));
    assert!(!sandbox.path("run").exists());
    // The data is tokenized now, and a plan reads all of it.
    let plan = ["plan", "--model", &bert, "--data", "data.jsonl", "--set", "batch_size=4"];
    assert!(sandbox.hbt(&[&plan[..], &["--set", "in_batch_negatives=false"]].concat()).error().starts_with(refused));

    let mut groups = crate::common::groups(12, &["ar", "de", "en"]);
    groups[3]["negatives"] = serde_json::json!({"fr": ["rue"]});
    sandbox.write("data.jsonl", crate::common::jsonl(&groups));
    assert!(sandbox.hbt(&args).error().starts_with(refused), "a French passage joins no positive");
    groups.iter_mut().for_each(|group| group["negatives"] = serde_json::json!({"en": ["old river", "a bank"]}));
    sandbox.write("data.jsonl", crate::common::jsonl(&groups));
    let done = sandbox.hbt(&args).ok();
    assert!(
        done.stderr.contains("warning: data.jsonl has no hard negatives in ar, de: where in_batch"),
        "{}",
        done.stderr
    );
    for line in metrics(&sandbox, "run") {
        assert_eq!(line["loss"].as_f64().unwrap() > 0.0, line["lang"] == "en", "{line}");
    }
}

#[test]
fn quiet_prints_the_result_only() {
    let sandbox = Sandbox::with_groups(12);
    let done = sandbox.hbt(&train(&fixture("bert"), &["steps=2", "--quiet"])).ok();
    assert_eq!(done.stderr, "");
    assert!(done.stdout.contains("multilingual mAP"), "{}", done.stdout);
}

#[test]
fn several_datasets_take_turns_or_mix() {
    let sandbox = Sandbox::new();
    let groups = crate::common::groups(24, &["de", "en"]);
    sandbox.write("a.jsonl", crate::common::jsonl(&groups[..8]));
    sandbox.write("b.jsonl", crate::common::jsonl(&groups[8..]));
    sandbox.write("two.toml", "[[datasets]]\nname = 'first'\ndata = 'a.jsonl'\n[[datasets]]\ndata = 'b.jsonl'\n");
    let bert = fixture("bert");
    let drawn = |out: &str, more: &[&str]| -> Vec<String> {
        let all = ["--model", &bert, "--out", out, "--set", "batch_size=4", "--set", "dataset_sampling=round_robin"];
        sandbox.hbt(&[&["train"], more, all.as_slice()].concat()).ok();
        let name = |line: &Value| line["dataset"].as_str().unwrap_or("-").to_owned();
        metrics(&sandbox, out).iter().map(name).collect()
    };
    // 24 groups are six batches of four.
    assert_eq!(drawn("tables", &["two.toml"]), ["first", "b.jsonl", "first", "b.jsonl", "first", "b.jsonl"]);
    let typed = drawn("typed", &["--data", "a.jsonl", "--data", "b.jsonl"]);
    assert_eq!(typed, ["a.jsonl", "b.jsonl", "a.jsonl", "b.jsonl", "a.jsonl", "b.jsonl"]);
    assert_eq!(drawn("mixed", &["two.toml", "--set", "dataset_batches=mixed"]), ["-"; 6]);
    let weights = |run: &str| std::fs::read(sandbox.path(&format!("{run}/last/model.safetensors"))).unwrap();
    assert_eq!(weights("tables"), weights("typed"));
    assert_ne!(weights("tables"), weights("mixed"));
}

#[test]
fn the_prefixes_of_an_only_dataset_are_the_models() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let table = |prefix: &str| format!("[[datasets]]\ndata = 'data.jsonl'\nquery_prefix = '{prefix}'\n");
    sandbox.write("one.toml", table("ask ") + "passage_prefix = 'a book '\n");
    sandbox.write("two.toml", table("ask ") + &table("who ").replace("data.jsonl", "./data.jsonl"));
    let run = |out: &str, more: &[&str]| {
        let sets = ["steps=6", "batch_size=4", "learning_rate=1e-2", "eval_task=parallel", "eval_data=data.jsonl"];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let args: Vec<&str> = ["train", "--model", &bert, "--out", out].into_iter().chain(sets).collect();
        sandbox.hbt(&[&args[..], more].concat()).ok().stderr
    };
    let of_table = run("table", &["one.toml"]);
    assert!(!of_table.contains("_prefix"), "{of_table}");
    run("keys", &["--data", "data.jsonl", "--set", "query_prefix=ask ", "--set", "passage_prefix=a book "]);
    run("plain", &["--data", "data.jsonl"]);
    for file in ["eval.json", "last/model.safetensors", "last/config_sentence_transformers.json"] {
        let bytes = |run: &str| sandbox.bytes(&format!("{run}/{file}"));
        assert!(bytes("table") == bytes("keys"), "{file}");
        assert!(bytes("table") != bytes("plain"), "{file}: the prefixes change nothing");
    }
    let prompts = &sandbox.json("table/last/config_sentence_transformers.json")["prompts"];
    assert_eq!(prompts["query"], "ask ");

    let of_two = run("two", &["two.toml", "--set", "query_prefix=who "]);
    let expected = "warning: dataset \"data.jsonl\" has query_prefix \"ask \", but the model is evaluated and saved with \
                    \"who \"; set query_prefix outside of the tables to change that\n";
    assert!(of_two.contains(expected) && of_two.matches("_prefix \"").count() == 1, "{of_two}");
}

#[test]
fn a_teachers_margin_needs_scores() {
    let sandbox = Sandbox::new();
    let mut groups = crate::common::groups(12, &["de", "en"]);
    sandbox.write("plain.jsonl", crate::common::jsonl(&groups));
    for group in &mut groups {
        group["negatives"] = serde_json::json!({"en": ["a long sentence", "bank"]});
        group["neg_scores"] = serde_json::json!({"en": [0.5, 0.25]});
        group["pos_scores"] = serde_json::json!({"de": [0.5], "en": [0.5]});
    }
    sandbox.write("scored.jsonl", crate::common::jsonl(&groups));
    let bert = fixture("bert");
    let with = |data: &str, margin: &str, out: &str| {
        let args = ["train", "--model", &bert, "--data", data, "--out", out, "--set", margin, "--set", "steps=8"];
        sandbox.hbt(&[&args[..], &["--set", "batch_size=4", "--set", "eval_task=none"]].concat())
    };
    // In a monolingual English batch, each row's negative with 0.5 is as good as its positive less a margin of 0.1.
    for (margin, of_row) in [("teacher_margin=0.1", 1), ("teacher_margin=0.3", 2), ("teacher_margin=none", 0)] {
        with("scored.jsonl", margin, margin).ok();
        let lines = metrics(&sandbox, margin);
        let rejected = |lang: &str| -> Vec<u64> {
            let of_lang = lines.iter().filter(|line| line["lang"] == lang);
            of_lang.map(|line| line["false_negatives"].as_u64().unwrap()).collect()
        };
        let (english, german) = (rejected("en"), rejected("de"));
        assert!(!english.is_empty() && english.iter().all(|&n| n == 4 * of_row), "{margin}: {english:?}");
        assert!(!german.is_empty() && german.iter().all(|&n| n == 0), "{margin}: no negatives, but {german:?}");
    }
    let refused = |data: &str| with(data, "teacher_margin=0.1", "refused").error();
    let expected = "error: teacher_margin: the data has no scores of a teacher (pos_scores, neg_scores); add them, or";
    assert!(refused("plain.jsonl").starts_with(expected));
    for (key, expected) in [("pos_scores", "scores of positives (pos_scores)"), ("neg_scores", "scores of negatives (")]
    {
        let mut groups = groups.clone();
        groups.iter_mut().for_each(|group| _ = group.as_object_mut().unwrap().remove(key));
        sandbox.write("half.jsonl", crate::common::jsonl(&groups));
        let error = refused("half.jsonl");
        assert!(error.starts_with(&format!("error: teacher_margin: the data has no {expected}")), "{error}");
    }
}
