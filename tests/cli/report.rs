//! `hbt report`: the page as a whole, what goes into it and what is refused.

use crate::common::{Sandbox, fixture, train};

/// A run with evaluations on the way, a shorter one with other settings, and a result.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.hbt(&train(&bert, &["steps=6", "eval_steps=2"])).ok();
    sandbox.hbt(&train(&bert, &["steps=2", "out=runs/<b>&", "alpha=0.25"])).ok();
    sandbox.hbt(&["eval", "--model", "run/last", "--data", "data.jsonl", "--json", "result.json"]).ok();
    sandbox
}

#[test]
fn a_page_shows_runs_side_by_side() {
    let sandbox = sandbox();
    let done = sandbox.hbt(&["report", "run", "runs/<b>&", "result.json", "--output", "page.html"]).ok();
    assert_eq!(done.stdout, "page.html\n");
    let page = sandbox.read("page.html");
    // Nothing is asked of the network, nothing runs, and no name is markup.
    for word in ["http:", "https:", "src=", "<script", "@import", "url(", "<b>&"] {
        let word_at = page.replace("http://www.w3.org/2000/svg", "").find(word).map(|at| page[at..].to_owned());
        assert_eq!(word_at.map(|at| at.chars().take(80).collect::<String>()), None, "{word}");
    }
    assert!(page.contains("<h1>run, &lt;b&gt;&amp;, result</h1>"), "{page}");
    for title in ["Loss", "Learning rate", "multilingual mAP", "rank distance"] {
        assert!(page.contains(&format!("<figcaption>{title}")), "{title}: {page}");
    }
    // What the two runs differ in, but for where they are.
    let settings = page.split_once("Settings in which the runs differ").unwrap().1;
    for key in ["alpha", "steps", "eval_steps"] {
        assert!(settings.contains(&format!("<code>{key}</code>")), "{key}: {settings}");
    }
    assert!(!settings.contains("<code>out</code>") && !settings.contains("<code>seed</code>"), "{settings}");
    // The figures are those of the reports.
    let report = &sandbox.json("run/eval.json")["after"];
    let map = format!("{:.4}", crate::common::figure(report, "multilingual_map"));
    assert_eq!(map, format!("{:.4}", crate::common::figure(&sandbox.json("result.json"), "multilingual_map")));
    let row = page.split_once("<tr><td>multilingual mAP").unwrap().1.lines().next().unwrap();
    assert_eq!(row.matches(&map).count(), 2, "{row}");
    // The same files give the same page.
    sandbox.hbt(&["report", "run", "runs/<b>&", "result.json", "--output", "page.html"]).ok();
    assert!(sandbox.read("page.html") == page);
}

#[test]
fn a_run_leaves_its_page() {
    let sandbox = sandbox();
    let left = sandbox.read("run/report.html");
    sandbox.hbt(&["report", "run"]).ok();
    assert!(sandbox.read("report.html") == left);
    // A page of others stays, and is no reason to fail.
    sandbox.write("run/report.html", "<html>mine</html>");
    let done = sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
    let warning = "warning: no report was written: run/report.html: is not hbt's, and stays as it is\n";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert_eq!(sandbox.read("run/report.html"), "<html>mine</html>");
    std::fs::remove_file(sandbox.path("run/report.html")).unwrap();
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();
    assert!(sandbox.read("run/report.html") == left);
}

#[test]
fn what_cannot_be_shown_is_named_and_nothing_is_replaced() {
    let sandbox = sandbox();
    sandbox.write("notes.html", "<html>mine</html>");
    sandbox.write("broken.json", "{}");
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    for (args, message) in [
        (&["report", "gone"][..], "cannot read gone: "),
        (&["report", "empty"], "empty: is not a run directory: "),
        (&["report", "broken.json"], "broken.json: is not a result of hbt eval --json, nor a run's eval.json ("),
        (&["report", "run", "--output", "notes.html"], "--output: notes.html is there already, and does not look like"),
        (&["report", "result.json", "--output", "result.json", "--overwrite"], "--output: is a file of a run itself"),
        (&["report", "run", "--output", "empty"], "empty: is a directory; "),
    ] {
        let before = sandbox.contents();
        let error = sandbox.hbt(args).error();
        assert!(error.starts_with(&format!("error: {message}")), "{error}");
        assert!(sandbox.contents() == before, "{error}");
    }
    let lines = sandbox.read("run/metrics.jsonl");
    sandbox.write("run/metrics.jsonl", lines.replacen("{\"step\":2,\"l", "{\"step\":7,\"l", 1));
    let error = sandbox.hbt(&["report", "run"]).error();
    assert_eq!(error, "error: run/metrics.jsonl, line 3: is damaged; copy the run again, or take the file away");
    sandbox.write("run/metrics.jsonl", lines);
    sandbox.hbt(&["report", "run", "--output", "notes.html", "--overwrite"]).ok();
    assert!(sandbox.read("notes.html").contains("<h1>run</h1>"));
    // The command replaces its own.
    sandbox.hbt(&["report", "result.json", "--output", "notes.html"]).ok();
    assert!(sandbox.read("notes.html").contains("<h1>result</h1>"));
}
