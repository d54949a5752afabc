//! Flipped bits in the files that a run reads back: found, or without effect.

use super::{contents, difference, going_on, is_temporary, library, n_asked};
use crate::common::{EVENTS, Sandbox, files};
use hbt::files::owned::Manifest;

/// Files of the run that goes on, by the beginnings of their names, of which `cargo test` flips a bit.
const FEW: [&str; 6] = [
    "cache/tokens-",
    "run/best/model.",
    "run/config.toml",
    "run/eval.json",
    "run/last/optimizer.",
    "run/metrics.jsonl",
];

#[test]
fn in_what_a_run_reads_back() {
    if library().is_none() {
        return;
    }
    let scenario = going_on();
    let whole = scenario.undisturbed();
    let is_all = n_asked().is_some();
    let is_chosen = |name: &str| is_all || FEW.iter().any(|few| name.starts_with(few));
    // A run that goes on does not read the evaluation that is kept for the next one that begins.
    let is_unread = |name: &str| name.starts_with("cache/evaluation-");
    let foreign = ["data.jsonl", "run/last/onnx/model.onnx", "run/best/notes.txt"];
    let mut n_found = 0;
    for (number, (name, bytes)) in scenario.before.iter().enumerate() {
        if bytes.is_empty() || foreign.contains(&&**name) || is_temporary(name) || is_unread(name) || !is_chosen(name) {
            continue;
        }
        let n_flips = if is_all { 12 } else { 1 };
        for flip in 0..n_flips {
            let at = (2 * flip + 1) * bytes.len() / (2 * n_flips);
            let what = format!("{name}, bit {} of byte {at}", (number + flip) % 8);
            let sandbox = scenario.sandbox();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << ((number + flip) % 8);
            sandbox.write(name, &flipped);
            let before = files(&sandbox.path(""));
            let done = sandbox.hbt(&["train", "--out", "run", "--resume"]);
            if done.code != Some(0) {
                let error = done.error();
                assert!(error.contains(name.as_str()), "{what}: {error}");
                let mut after = files(&sandbox.path(""));
                // What the kill had left is gone.
                after.extend(before.iter().filter(|(name, _)| is_temporary(name)).map(|(k, v)| (k.clone(), v.clone())));
                assert_eq!(difference(&before, &after), None, "{what}");
                n_found += 1;
                continue;
            }
            let mut after = contents(&sandbox);
            // What people may edit, and figures that nothing is computed from, stay as they are, and are shown so.
            let may_stay = ["run/config.toml", "run/metrics.jsonl"].contains(&&**name);
            if may_stay {
                let shown = ["report.html", EVENTS].map(|shown| format!("run/{shown}"));
                after.extend(shown.map(|shown| (shown.clone(), whole.after[&shown].clone())));
            }
            if may_stay || (name.starts_with("run/best/") && after.get(name) == Some(&flipped)) {
                assert!(may_stay || is_refused(&sandbox) || name.ends_with("README.md"), "{what}: nobody says so");
                after.insert(name.clone(), whole.after[name].clone());
            }
            assert_eq!(difference(&whole.after, &after), None, "{what}");
        }
    }
    assert!(n_found > 0);
}

/// Whether whoever takes the best model for what hbt saved is told that it is not.
fn is_refused(sandbox: &Sandbox) -> bool {
    let manifest = Manifest::read(&sandbox.path("run/best"));
    manifest.is_err() || manifest.is_ok_and(|read| read.is_some_and(|read| read.verify("copy it").is_err()))
}
