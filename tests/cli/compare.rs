//! `hbt compare`: the paper's comparison on tiny data.

use crate::common::{Sandbox, figure, fixture, train};

#[test]
fn prints_a_row_a_kind_of_batch_and_the_intervals() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let mut args = vec!["compare", "--model", &bert, "--data", "data.jsonl"];
    for set in ["batch_size=4", "steps=6", "learning_rate=3e-3", "eval_task=parallel"] {
        args.extend(["--set", set]);
    }
    let done = sandbox.hbt(&args).ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    for label in ["before", "monolingual", "cross_lingual", "hybrid"] {
        let row = lines
            .iter()
            .find(|line| line.starts_with(&format!("{label} ")))
            .unwrap_or_else(|| panic!("{label}: {}", done.stdout));
        let cells: Vec<f64> =
            row.split_whitespace().skip(1).map(|cell| cell.trim_end_matches('*').parse().unwrap()).collect();
        assert_eq!(cells.len(), 4, "{row}");
        assert!(cells[..3].iter().all(|map| (0.0..=1.0).contains(map)) && cells[3] >= 2.0, "{row}");
        if label != "before" {
            let report = sandbox.json(&format!("runs/compare/{label}/eval.json"));
            assert_eq!(format!("{:.4}", figure(&report["after"], "multilingual_map")), format!("{:.4}", cells[2]));
        }
    }
    for other in ["before", "monolingual", "cross_lingual"] {
        let row = lines
            .iter()
            .find(|line| line.starts_with(&format!("hybrid - {other} ")))
            .unwrap_or_else(|| panic!("{}", done.stdout));
        let numbers: Vec<f64> =
            row.split_whitespace().skip(3).map(|cell| cell.trim_matches(['[', ']', ',']).parse().unwrap()).collect();
        assert!(numbers[1] <= numbers[0] && numbers[0] <= numbers[2], "{row}");
    }
    // One mode a run, as its name says.
    for (run, modes) in [("monolingual", 1), ("cross_lingual", 1), ("hybrid", 2)] {
        let lines = crate::common::metrics(&sandbox, &format!("runs/compare/{run}"));
        let modes_drawn: std::collections::BTreeSet<_> = lines.iter().map(|line| line["mode"].to_string()).collect();
        assert_eq!((lines.len(), modes_drawn.len()), (6, modes), "{run}");
    }
    // The runs that are there give the same table, to the last digit, with the model that all of them began with.
    let runs = ["monolingual", "cross_lingual", "hybrid"].map(|run| format!("runs/compare/{run}"));
    let [monolingual, cross_lingual, hybrid] = runs.each_ref().map(String::as_str);
    let again = sandbox.hbt(&["compare", monolingual, cross_lingual, hybrid]).ok();
    assert_eq!(format!("\n{}", again.stdout), done.stdout);
    let page = sandbox.read("runs/compare/report.html");
    assert!(page.contains("<h1>monolingual, cross_lingual, hybrid</h1>"), "{page}");
    // What others have in the place of the last run is found before the first.
    sandbox.write("other/hybrid/last/notes.txt", "years");
    let before = sandbox.contents();
    let error = sandbox.hbt(&[&args[..], &["--out", "other"]].concat()).error();
    assert!(
        error.starts_with("error: other/hybrid/last: is not empty, and this version of hbt did not write it"),
        "{error}"
    );
    assert!(sandbox.contents() == before);
    let none = sandbox.hbt(&["compare", "--model", &bert, "--data", "data.jsonl", "--set", "eval_task=none"]).error();
    assert!(none.contains("a comparison needs an evaluation"), "{none}");
}

/// Results of one model on one benchmark, of files and runs alike, and what cannot be compared.
#[test]
fn runs_and_results_are_compared_as_they_are() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=4"])).ok();
    sandbox.hbt(&["eval", "--model", "run/last", "--data", "data.jsonl", "--json", "last.json"]).ok();
    let done = sandbox.hbt(&["compare", "last.json", "run"]).ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[1].starts_with("last ") && lines[2].starts_with("run "), "{}", done.stdout);
    assert_eq!(*lines.last().unwrap(), "run - last  +0.0000  [+0.0000, +0.0000]");
    // Without the values of queries there is the table, and a line that says why there is no more.
    let mut old = sandbox.json("last.json");
    old.as_object_mut().unwrap().remove("per_query");
    sandbox.write("old.json", old.to_string());
    let without = sandbox.hbt(&["compare", "old.json", "run"]).ok().stdout;
    let why = "\nno intervals: old and run: a report has no values of single queries, as an earlier hbt wrote it; evaluate again\n";
    assert!(without.ends_with(why) && without.contains("best of its column\n"), "{without}");
    // Nor are there intervals between questions of two sets.
    sandbox.write(
        "few.jsonl",
        sandbox.read("data.jsonl").lines().take(8).map(|line| line.to_owned() + "\n").collect::<String>(),
    );
    sandbox.hbt(&["eval", "--model", "run/last", "--data", "few.jsonl", "--json", "few.json"]).ok();
    let other = sandbox.hbt(&["compare", "few.json", "run"]).ok().stdout;
    assert!(
        other
            .ends_with("\nno intervals: few and run: only reports on the same queries can be compared by resampling\n")
    );

    sandbox.write("broken.json", "{\"model\": 1}");
    sandbox.hbt(&train(&bert, &["steps=1", "eval_task=none", "out=without"])).ok();
    for (args, message) in [
        (&["compare", "run", "gone"][..], "cannot read gone: "),
        (
            &["compare", "run", "broken.json"],
            "broken.json: is not a result of hbt eval --json, nor a run's eval.json (",
        ),
        (&["compare", "run", "without"], "without: has no report from after training: "),
    ] {
        let error = sandbox.hbt(args).error();
        assert!(error.starts_with(&format!("error: {message}")), "{error}");
    }
    for (args, message) in [
        (&["compare", "run"][..], "run alone cannot be compared; name another run or result, too"),
        (
            &["compare", "run", "last.json", "--set", "alpha=0.5"],
            "runs that are there are compared as they are; take alpha away",
        ),
    ] {
        let done = sandbox.hbt(args);
        assert_eq!((done.code, done.stderr), (Some(2), format!("error: {message}\n")));
    }
}
