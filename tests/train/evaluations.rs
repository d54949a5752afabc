//! Runs with several evaluations.

#[cfg(unix)]
use super::resume::interrupted;
#[cfg(unix)]
use crate::common::{Done, assert_same_run, run_contents};
use crate::common::{Sandbox, all_metrics, fixture, groups, jsonl, metrics, run_results, train};
use serde_json::Value;

/// Two more evaluations: on other questions, and on those in German.
const TABLES: &str = "evaluations=[{ name = 'other', data = 'other.jsonl' }, \
                      { name = 'german', data = 'other.jsonl', languages = ['de'] }]";

/// Questions to train on, and other ones.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_groups(8);
    sandbox.write("other.jsonl", jsonl(&groups(16, &["de", "en", "sw"])[8..]));
    sandbox
}

/// The lines of evaluations.
fn evaluations(sandbox: &Sandbox, run: &str) -> Vec<Value> {
    all_metrics(sandbox, run).into_iter().filter(|line| line.get("task").is_some()).collect()
}

/// A figure of a report by setting, metric and cut-off.
fn value(report: &Value, setting: &str, metric: &str, cutoff: Option<u64>) -> f64 {
    let is_it = |figure: &&Value| {
        (&figure["setting"], &figure["metric"], figure["cutoff"].as_u64()) == (&setting.into(), &metric.into(), cutoff)
    };
    let figure = report["figures"].as_array().unwrap().iter().find(is_it);
    figure.unwrap_or_else(|| panic!("no {setting} {metric}: {report}"))["value"].as_f64().unwrap()
}

#[test]
fn every_evaluation_is_in_lines_reports_and_the_card() {
    let sandbox = sandbox();
    let done = sandbox.hbt(&train(&fixture("bert"), &["steps=4", "eval_steps=2", TABLES])).ok();
    let lines = evaluations(&sandbox, "run");
    let heads: Vec<(u64, &str)> =
        lines.iter().map(|line| (line["step"].as_u64().unwrap(), line["evaluation"].as_str().unwrap())).collect();
    let of_step = |step: u64| ["parallel", "other", "german"].map(|name| (step, name));
    assert_eq!(heads, [of_step(0), of_step(2), of_step(4)].concat());

    // Each is what the saved model gets by itself.
    let reports = sandbox.json("run/eval.json");
    assert_eq!(reports["evaluation"], "parallel");
    let [other, german] = reports["others"].as_array().unwrap().as_slice() else { panic!("{reports}") };
    assert_eq!((&other["evaluation"], &german["evaluation"]), (&"other".into(), &"german".into()));
    sandbox.hbt(&["eval", "--model", "run/last", "--data", "other.jsonl", "--json", "other.json"]).ok();
    let alone = sandbox.json("other.json");
    for figure in ["figures", "data", "languages", "by_direction"] {
        assert_eq!(other["after"][figure], alone[figure], "{figure}");
    }
    assert_eq!(lines[7]["multilingual_map"], value(&alone, "multilingual", "map", None));
    assert_ne!(reports["after"]["data"], other["after"]["data"]);

    // A pool of one language is that language's.
    assert_eq!(german["after"]["languages"], serde_json::json!(["de"]));
    let of_german = value(&german["after"], "monolingual", "map", None);
    assert_eq!(of_german, alone["by_direction"]["map"]["de"]["de"].as_f64().unwrap());
    assert_eq!(of_german, value(&german["after"], "multilingual", "map", None));

    let card = sandbox.read("run/last/README.md");
    for (name, report, languages, figure) in [
        ("parallel", &reports["after"], ", 3 languages", "monolingual_map"),
        ("other", &other["after"], ", 3 languages", "monolingual_map"),
        // In one language, all settings are the same.
        ("german", &german["after"], "", "map"),
    ] {
        let table = card.split(&format!("Measured on {name}: parallel (all){languages}:")).nth(1);
        let first = table.unwrap_or_else(|| panic!("{name}: {card}")).lines().nth(4).unwrap();
        let end = format!(" | {:.4} |", value(report, "monolingual", "map", None));
        assert!(first.starts_with(&format!("| {figure} | ")) && first.ends_with(&end), "{name}: {first}");
    }
    // The terminal and the page name them, too.
    assert!(done.stderr.contains("step 2: parallel multilingual_map "), "{}", done.stderr);
    assert!(done.stderr.contains("step 4: german multilingual_map "), "{}", done.stderr);
    assert!(done.stdout.contains("\nother\n") && done.stdout.contains("\ngerman\n"), "{}", done.stdout);
    let page = sandbox.read("run/report.html");
    assert!(page.contains("<h2>other, split all, 3 languages</h2>"));
    assert!(page.contains("<h2>german, split all, 1 language</h2>"));
}

#[test]
fn the_named_evaluation_decides() {
    let sandbox = sandbox();
    // Strides of this size make the metrics go up and down.
    let sets = ["steps=15", "eval_steps=3", "learning_rate=2e-2", "best_metric=other.cross_lingual_map", TABLES];
    let done = sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
    let lines = evaluations(&sandbox, "run");
    let of_other = lines.iter().filter(|line| line["evaluation"] == "other" && line["step"] != 0);
    let values: Vec<f64> = of_other.map(|line| line["cross_lingual_map"].as_f64().unwrap()).collect();
    assert_eq!(values.len(), 5, "after steps 3, 6, 9, 12 and 15");
    let best = values.iter().copied().fold(0.0, f64::max);
    assert!(done.stderr.contains(&format!(", other cross_lingual_map {best:.4}\n")), "{}", done.stderr);
    assert_eq!(sandbox.json("run/eval.json")["evaluation"], "other");
    sandbox.hbt(&["eval", "--model", "run/best", "--data", "other.jsonl", "--json", "best.json"]).ok();
    assert_eq!(value(&sandbox.json("best.json"), "cross_lingual", "map", None), best);
}

#[test]
fn one_table_is_as_the_single_keys() {
    let sandbox = sandbox();
    let bert = fixture("bert");
    let sets = ["steps=4", "eval_steps=2"];
    sandbox.hbt(&train(&bert, &[&sets[..], &["eval_data=other.jsonl", "out=keys"]].concat())).ok();
    let table = ["eval_task=none", "evaluations=[{ data = 'other.jsonl' }]", "out=table"];
    sandbox.hbt(&train(&bert, &[&sets[..], &table].concat())).ok();
    let [mut keys, mut of_table] = ["keys", "table"].map(|run| run_results(&sandbox, run));
    // The state and the manifest of its directory know the settings.
    for results in [&mut keys, &mut of_table] {
        results.retain(|name, _| !name.starts_with("last/") || name.ends_with(".safetensors") || name.ends_with(".md"));
    }
    assert_eq!(keys.keys().collect::<Vec<_>>(), of_table.keys().collect::<Vec<_>>());
    assert!(keys.iter().all(|(name, bytes)| of_table[name] == *bytes));
    assert!(evaluations(&sandbox, "table").iter().all(|line| line.get("evaluation").is_none()));
    let state = sandbox.json("table/last/training_state.json");
    assert!(state.get("others").is_none() && state.get("evaluation").is_none());
}

#[test]
fn a_figure_that_the_task_does_not_list_is_computed_on_demand() {
    let sandbox = sandbox();
    let sets = ["steps=4", "eval_steps=2", "best_metric=multilingual_ndcg@10", TABLES];
    let done = sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
    let lines = evaluations(&sandbox, "run");
    for line in &lines {
        assert_eq!(line.get("multilingual_ndcg@10").is_some(), line["evaluation"] == "parallel", "{line}");
    }
    let values = lines.iter().filter(|line| line["step"] != 0).filter_map(|line| line["multilingual_ndcg@10"].as_f64());
    let best = values.fold(0.0, f64::max);
    assert!(done.stderr.contains(&format!(", parallel multilingual_ndcg@10 {best:.4}\n")), "{}", done.stderr);
    // What was written is read back: by the page, and by a run that goes on.
    let after = &sandbox.json("run/eval.json")["after"];
    assert_eq!(value(after, "multilingual", "ndcg", Some(10)), lines[6]["multilingual_ndcg@10"]);
    let again = sandbox.hbt(&["train", "--out", "run", "--resume", "--set", "steps=6"]).ok();
    assert!(again.stderr.contains("extending run at step 4"), "{}", again.stderr);
    assert_eq!(metrics(&sandbox, "run").len(), 6);
}

/// What is held out is known when the data is tokenized, and comes before the tables for each of the runs.
#[test]
fn compared_runs_evaluate_on_tables_beside_what_they_hold_out() {
    let sandbox = sandbox();
    let bert = fixture("bert");
    let mut args = vec!["compare", "--model", &bert, "--data", "data.jsonl", "--out", "runs"];
    for set in ["batch_size=4", "steps=2", "eval_fraction=0.25", "best_metric=parallel.multilingual_map", TABLES] {
        args.extend(["--set", set]);
    }
    sandbox.hbt(&args).ok();
    for mode in ["monolingual", "cross_lingual", "hybrid"] {
        let reports = sandbox.json(&format!("runs/{mode}/eval.json"));
        assert_eq!((&reports["evaluation"], &reports["after"]["split"]), (&"parallel".into(), &"held_out".into()));
        let others: Vec<&Value> = reports["others"].as_array().unwrap().iter().map(|of| &of["evaluation"]).collect();
        assert_eq!(others, ["other", "german"], "{mode}");
        assert!(reports["others"][1]["before"].is_object(), "{mode}");
    }
    // `hbt eval` leaves tables to training.
    sandbox.write("run.toml", TABLES.replace("evaluations=", "evaluations = "));
    sandbox.hbt(&["eval", "run.toml", "--model", &bert, "--data", "data.jsonl", "--json", "one.json"]).ok();
    assert_eq!(sandbox.json("one.json")["task"], "parallel");
}

#[cfg(unix)]
#[test]
fn a_run_with_several_goes_on_exactly() {
    let bert = fixture("bert");
    let sets = ["steps=24", "eval_steps=1", "dropout=0.1", "save_steps=100", "patience=24", TABLES];
    let undisturbed = sandbox();
    undisturbed.hbt(&train(&bert, &sets)).ok();
    let sandbox = sandbox();
    let command = sandbox.command(&train(&bert, &sets));
    interrupted(command, "-INT", &sandbox.path("run/metrics.jsonl"), 3).interrupted();

    let resume = ["train", "--out", "run", "--resume"];
    let other = sandbox.read("other.jsonl");
    sandbox.write("other.jsonl", other.replace("book", "books"));
    let error = sandbox.hbt(&resume).error();
    assert!(error.starts_with("error: evaluations: have changed since the run began"), "{error}");
    sandbox.write("other.jsonl", other);
    let error = sandbox.hbt(&[&resume[..], &["--set", "evaluations=[]"]].concat()).error();
    assert!(error.starts_with("error: evaluations: was [{ name = \"other\", "), "{error}");
    Done::new(sandbox.command(&resume).output().unwrap()).ok();
    assert_same_run(&run_contents(&undisturbed, "run"), &run_contents(&sandbox, "run"), "interrupted");
}

#[test]
fn mistakes_in_evaluations_are_named() {
    let sandbox = sandbox();
    let bert = fixture("bert");
    for (sets, message) in [
        (
            &["best_metric=none.multilingual_map", TABLES][..],
            "best_metric: there is no evaluation \"none\"; there are ",
        ),
        (
            &["evaluations=[{ data = 'other.jsonl', task = 'parallel' }]"],
            "evaluations: what eval_data or eval_fraction gives is called \"parallel\"; give the table another name",
        ),
        (
            &["evaluations=[{ data = 'other.jsonl', languages = ['fr'] }]"],
            "evaluations: languages of \"other.jsonl\": there is no \"fr\"; the data has de, en, sw",
        ),
        (&["evaluations=[{ data = 'absent.jsonl' }]"], "absent.jsonl"),
    ] {
        let error = sandbox.hbt(&train(&bert, &[&["steps=1"], sets].concat())).error();
        assert!(error.contains(message), "{sets:?} gives: {error}");
        assert!(!sandbox.path("run").exists());
    }
}

/// Documents in two subsets and questions about them, in BEIR's layout. Every third document stands there twice, so that scores
/// tie; two questions have an answer that is not there, one of them none that is.
fn write_corpus(sandbox: &Sandbox) {
    let text = |i: usize| format!("{} {}", ["rivers", "bridges", "poems", "winters", "birds"][i % 5], i * 7 % 11);
    for (subset, shift) in [("ar", 0), ("bn", 3)] {
        let row = |id: &str, i: usize| serde_json::json!({"_id": format!("{id}{i}"), "text": text(i + shift)});
        let rows = |id: &str, n: usize| jsonl(&(0..n).map(|i| row(id, i)).collect::<Vec<_>>());
        let again = jsonl(&(0..40).step_by(3).map(|i| row("e", i)).collect::<Vec<_>>());
        sandbox.write(&format!("corpus/{subset}/corpus.jsonl"), rows("d", 40) + &again);
        sandbox.write(&format!("corpus/{subset}/queries.jsonl"), rows("q", 12));
        let judgements: String = (0..11).map(|i| format!("q{i}\td{}\t{}\n", (i * 3) % 40, 1 + i % 3)).collect();
        let head = "query-id\tcorpus-id\tscore\n".to_owned();
        sandbox.write(&format!("corpus/{subset}/qrels/dev.tsv"), head + &judgements + "q3\tgone\t2\nq11\tgone\t1\n");
    }
}

/// Arguments that are also the questions: each is judged for itself and for the next.
fn write_arguments(sandbox: &Sandbox) {
    let text = |i: usize| format!("{} {}", ["rivers", "bridges", "poems", "winters", "birds"][i % 5], i * 7 % 11);
    let rows: Vec<Value> = (0..40).map(|i| serde_json::json!({"_id": format!("a{i}"), "text": text(i)})).collect();
    sandbox.write("own/corpus.jsonl", jsonl(&rows));
    sandbox.write("own/queries.jsonl", jsonl(&rows[..12]));
    let judgements = (0..12).map(|i| format!("a{i}\ta{i}\t1\na{i}\ta{}\t1\n", i + 5));
    let head = "query-id\tcorpus-id\tscore\n".to_owned();
    sandbox.write("own/qrels/test.tsv", head + &judgements.collect::<String>());
}

/// A corpus that is searched while training, as a directory and as one of mteb's tasks: what `hbt eval` gets of the saved model.
#[test]
fn a_corpus_is_searched_while_training() {
    let sandbox = sandbox();
    write_corpus(&sandbox);
    let tables = "evaluations=[{ name = 'dir', data = 'corpus' }, { task = 'MIRACLRetrieval', data = 'corpus', \
                  languages = ['bn'] }]";
    let sets = ["steps=4", "eval_steps=2", "eval_task=none", "best_metric=dir.ndcg@10", "precision=f32", tables];
    let done = sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
    assert!(done.stderr.contains("step 2: dir ndcg@10 "), "{}", done.stderr);
    let reports = sandbox.json("run/eval.json");
    let figure = |report: &Value, metric: &str, cutoff: u64| {
        let is_it = |figure: &&Value| figure["metric"] == metric && figure["cutoff"].as_u64() == Some(cutoff);
        report["figures"].as_array().unwrap().iter().find(is_it).unwrap()["value"].as_f64().unwrap()
    };
    let args = ["eval", "--model", "run/last", "--data", "corpus", "--precision", "f32", "--json", "out.json"];
    sandbox.hbt(&args).ok();
    let result = sandbox.json("out.json");
    let numbers = |name: &str| -> Vec<f64> {
        result["scores"]["dev"].as_array().unwrap().iter().map(|entry| entry[name].as_f64().unwrap()).collect()
    };
    let [other] = reports["others"].as_array().unwrap().as_slice() else { panic!("{reports}") };
    assert_eq!(other["evaluation"], "MIRACLRetrieval");
    for (metric, cutoff, name) in
        [("ndcg", 10, "ndcg_at_10"), ("recall", 100, "recall_at_100"), ("mrr", 10, "mrr_at_10")]
    {
        let [arabic, bengali] = numbers(name)[..] else { panic!("{result}") };
        // mteb's numbers have five digits.
        let mean = figure(&reports["after"], metric, cutoff);
        assert!((mean - (arabic + bengali) / 2.0).abs() < 1e-5, "{name}: {mean}, {arabic}, {bengali}");
        let of_bengali = figure(&other["after"], metric, cutoff);
        assert!((of_bengali - bengali).abs() < 1e-5, "{name}: {of_bengali}, {bengali}");
    }
    assert!(sandbox.read("run/last/README.md").contains("ndcg@10"));
    let set = |tables: &str| {
        sandbox.hbt(&train(&fixture("bert"), &["steps=1", "out=other", "eval_task=none", tables])).error()
    };
    let pairs = set("evaluations=[{ task = 'STS17' }]");
    assert!(pairs.contains("or one of mteb's retrieval tasks (hbt eval --list)"), "{pairs}");
}

/// A task whose queries are documents themselves, each of which its own ranking is without.
#[test]
fn a_querys_own_document_is_left_out_as_by_eval() {
    let sandbox = Sandbox::with_groups(16);
    write_arguments(&sandbox);
    let sets = ["steps=2", "precision=f32", "eval_task=none", "evaluations=[{ task = 'ArguAna', data = 'own' }]"];
    sandbox.hbt(&train(&fixture("bert"), &sets)).ok();
    let after = &sandbox.json("run/eval.json")["after"];
    let eval = |task: &str| {
        let args = ["eval", "--model", "run/last", "--task", task, "--data", "own", "--precision", "f32"];
        sandbox.hbt(&[&args[..], &["--json", "out.json", "--overwrite"]].concat()).ok();
        let result = sandbox.json("out.json");
        let number = |name: &str| result["scores"]["test"][0][name].as_f64().unwrap();
        ["ndcg_at_10", "recall_at_100", "mrr_at_10", "map_at_1000"].map(number)
    };
    let keys = [("ndcg", Some(10)), ("recall", Some(100)), ("mrr", Some(10)), ("map", None)];
    let of_training = keys.map(|(metric, cutoff)| {
        let is_it = |figure: &&Value| figure["metric"] == metric && figure["cutoff"].as_u64() == cutoff;
        after["figures"].as_array().unwrap().iter().find(is_it).unwrap()["value"].as_f64().unwrap()
    });
    let close = |of: [f64; 4]| of_training.iter().zip(of).all(|(a, b)| (a - b).abs() < 1e-5);
    let of_eval = eval("ArguAna");
    assert!(close(of_eval), "{of_training:?} {of_eval:?}");
    assert!(!close(eval("retrieval")), "with their own documents, queries have other figures");
}
