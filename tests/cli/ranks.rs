//! Commands beside training in several processes: the bytes of one.

use super::retrieval::{eval, n_embedded, without_times, write_texts};
use crate::common::{Sandbox, figure, files, fixture, jsonl};
use crate::train::ranks::{World, finish};
use serde_json::{Value, json};

#[test]
fn embeddings_and_mined_rows_are_those_of_one_process() {
    let bert = fixture("bert");
    // More than a window of texts, and not a whole number of them.
    let text = |i: usize| format!("{{\"text\": \"{} {}\"}}\n", ["rivers", "bridges", "poems"][i % 3], i * 31 % 97);
    for world in World::all() {
        let sandbox = Sandbox::with_groups(16);
        sandbox.write("texts.jsonl", (0..5000).map(text).collect::<String>());
        let encode = |output: &'static str| ["encode", "--model", &bert, "--input", "texts.jsonl", "--output", output];
        sandbox.hbt(&encode("one.npy")).ok();
        world.run(&sandbox, 3, &encode("three.npy")).ok();
        assert!(sandbox.bytes("one.npy") == sandbox.bytes("three.npy"));
        let mine = |output: &'static str| {
            let rules = ["--num-negatives", "2", "--range-min", "1", "--output", output];
            [&["mine", "--model", &bert, "--data", "data.jsonl"][..], &rules].concat()
        };
        sandbox.hbt(&mine("one.jsonl")).ok();
        world.run(&sandbox, 2, &mine("two.jsonl")).ok();
        assert!(sandbox.bytes("one.jsonl") == sandbox.bytes("two.jsonl"));
        let eval = |json: &'static str| ["eval", "--model", &bert, "--data", "data.jsonl", "--json", json];
        sandbox.hbt(&eval("one.json")).ok();
        let done = world.run(&sandbox, 2, &eval("two.json")).ok();
        assert!(sandbox.bytes("one.json") == sandbox.bytes("two.json"));
        assert_eq!(done.stdout.matches("multilingual mAP ").count(), 1, "{}", done.stdout);
    }
}

/// A value without the times in it.
fn parsed(bytes: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    Some(if value.get("evaluation_time").is_some() { without_times(value) } else { value })
}

/// Asserts that two directories have the same files, but for the times in results.
fn assert_same_files(sandbox: &Sandbox, one: &str, other: &str) {
    let [one, other] = [one, other].map(|directory| files(&sandbox.path(directory)));
    assert!(!one.is_empty() && one.keys().eq(other.keys()), "{:?} {:?}", one.keys(), other.keys());
    for (name, bytes) in one {
        let (of_other, is_json) = (&other[&name], name.ends_with(".json"));
        assert!(if is_json { parsed(&bytes) == parsed(of_other) } else { bytes == *of_other }, "{name}");
    }
}

/// All that an evaluation on a corpus writes, and what it keeps for the next.
#[test]
fn a_corpus_is_evaluated_on_as_by_one_process() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = Sandbox::new();
        write_texts(&sandbox, 50, &["de", "en"]);
        let args = |out: &'static str| {
            let directories = ["results", "runs", "predictions", "save-embeddings"];
            let options = directories.map(|name| [format!("--{name}"), format!("{out}/{name}")]).concat();
            let args = eval(&bert, &["--no-cache", "--json"]).into_iter().map(str::to_owned);
            args.chain([format!("{out}.json")]).chain(options).collect::<Vec<_>>()
        };
        let [one, three] = ["one", "three"].map(args);
        let borrowed = |args: &[String]| args.iter().map(|arg| arg.clone().leak() as &str).collect::<Vec<&str>>();
        let of_one = sandbox.hbt(&borrowed(&one)).ok();
        let of_three = world.run(&sandbox, 3, &borrowed(&three)).ok();
        assert_eq!(of_one.stdout, of_three.stdout);
        assert_eq!(n_embedded(&of_one.stderr), n_embedded(&of_three.stderr));
        assert_same_files(&sandbox, "one", "three");
        assert!(without_times(sandbox.json("one.json")) == without_times(sandbox.json("three.json")));
        // Subsets that are there are so for all, and what was kept is there for any number of processes.
        let again = world.run(&sandbox, 2, &eval(&bert, &["--results", "three/results"])).ok();
        assert_eq!(n_embedded(&again.stderr), (0, 0));
        let kept = world.run(&sandbox, 2, &eval(&bert, &["--json", "kept.json"])).ok();
        assert_eq!(n_embedded(&kept.stderr), (110, 60));
        for size in [1, 3] {
            let args = eval(&bert, &["--json", "again.json", "--overwrite"]);
            let done = if size == 1 { sandbox.hbt(&args) } else { world.run(&sandbox, size, &args) }.ok();
            assert_eq!(n_embedded(&done.stderr), (110, 0), "{size}");
            assert!(without_times(sandbox.json("again.json")) == without_times(sandbox.json("kept.json")));
        }
        // An error of all is one, and so is what one has otherwise; nothing is left of what was begun.
        let before = sandbox.contents();
        let error = world.run(&sandbox, 2, &eval(&bert, &["--results", "three.json"]));
        assert_ne!(error.code, Some(0));
        assert_eq!(error.stderr.matches("error: ").count(), 1, "{}", error.stderr);
        assert!(error.stderr.contains("--results: three.json is no directory"), "{}", error.stderr);
        let args = eval(&bert, &["--runs", "other"]);
        let error = finish(world.start(&sandbox, 2, &args, Some((1, &["--set", "passage_prefix=text: "]))));
        assert_ne!(error.code, Some(0));
        assert!(
            error.stderr.contains("rank 1 has other texts than rank 0; give all ranks the same data"),
            "{}",
            error.stderr
        );
        assert_eq!(error.stderr.matches("error: ").count(), 1, "{}", error.stderr);
        assert!(sandbox.contents() == before);
    }
}

/// Translations, and similarities.
#[test]
fn pairs_are_evaluated_on_as_by_one_process() {
    let bert = fixture("bert");
    let text = |i: usize| format!("{} {i}", ["rivers", "bridges", "poems", "winters"][i % 4]);
    for world in World::all() {
        let sandbox = Sandbox::new();
        let row = |i: usize| json!({"sentence1": text(i), "sentence2": text(i + i % 3), "score": i % 6});
        sandbox.write("pairs/test.jsonl", jsonl(&(0..700).map(row).collect::<Vec<_>>()));
        for task in ["BornholmBitextMining", "STSBenchmark"] {
            let eval =
                |json| ["eval", "--task", task, "--data", "pairs", "--model", &bert, "--json", json, "--overwrite"];
            let of_one = sandbox.hbt(&eval("one.json")).ok();
            let of_two = world.run(&sandbox, 2, &eval("two.json")).ok();
            assert_eq!(of_one.stdout, of_two.stdout, "{task}");
            assert!(without_times(sandbox.json("one.json")) == without_times(sandbox.json("two.json")), "{task}");
        }
    }
}

/// Three runs of all ranks, one after the other: the same figures but for rounding, and one table.
#[test]
fn runs_are_compared_as_by_one_process() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = Sandbox::with_groups(12);
        let args = |out: &'static str| {
            let mut args = vec!["compare", "--model", &bert, "--data", "data.jsonl", "--out", out];
            for set in ["batch_size=4", "steps=4", "learning_rate=3e-3", "eval_task=parallel"] {
                args.extend(["--set", set]);
            }
            args
        };
        sandbox.hbt(&args("one")).ok();
        let done = world.run(&sandbox, 2, &args("two")).ok();
        assert_eq!(done.stdout.matches("multilingual mAP, difference and").count(), 1, "{}", done.stdout);
        assert!(sandbox.path("two/report.html").exists());
        for mode in ["monolingual", "cross_lingual", "hybrid"] {
            let [one, two] = ["one", "two"].map(|run| sandbox.json(&format!("{run}/{mode}/eval.json")));
            assert_eq!(one["before"], two["before"]);
            let [of_one, of_two] = [one, two].map(|report| figure(&report["after"], "multilingual_map"));
            assert!((of_one - of_two).abs() <= 1e-3, "{mode}: {of_one} {of_two}");
        }
        // Runs that are there are compared once.
        let runs = ["compare", "two/monolingual", "two/hybrid"];
        assert_eq!(world.run(&sandbox, 2, &runs).ok().stdout, sandbox.hbt(&runs).ok().stdout);
        let taken = world.run(&sandbox, 2, &args("two"));
        assert_ne!(taken.code, Some(0));
        assert_eq!(taken.stderr.matches("error: ").count(), 1, "{}", taken.stderr);
        assert!(taken.stderr.contains("two: holds runs already; remove them"), "{}", taken.stderr);
    }
}

/// What is done once, the first process does.
#[test]
fn what_is_done_once_is_said_once() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = Sandbox::with_groups(12);
        let data = ["--model", &bert, "--data", "data.jsonl"];
        let prepare = [&["prepare"][..], &data].concat();
        let done = world.run(&sandbox, 2, &prepare).ok();
        assert_eq!(done.stderr.matches("tokenized 72 texts").count(), 1, "{}", done.stderr);
        assert_eq!(sandbox.hbt(&prepare).ok().stdout, done.stdout);
        for args in [&["eval", "--list"][..], &[&["config"][..], &data].concat()] {
            assert_eq!(world.run(&sandbox, 2, args).ok().stdout, sandbox.hbt(args).ok().stdout);
        }
        let info = world.run(&sandbox, 2, &["info"]).ok();
        assert_eq!(info.stdout.matches("rank 0 of 2").count(), 1, "{}", info.stdout);
        // A trace of each.
        let eval = [&["eval"][..], &data, &["--trace", "trace.json"]].concat();
        world.run(&sandbox, 2, &eval).ok();
        assert!(["trace.json", "trace.rank1.json"].iter().all(|name| sandbox.json(name)["traceEvents"].is_array()));
    }
}
