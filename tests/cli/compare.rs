//! `hbt compare`: the paper's comparison on tiny data.

use crate::common::{Sandbox, figure, fixture};

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
