//! `hbt prepare`: the report, the cache, and the real data where it is at hand.

use crate::common::{Sandbox, fixture};

#[test]
fn prints_the_report_and_is_served_from_the_cache_the_second_time() {
    let sandbox = Sandbox::with_groups(12);
    let bert = fixture("bert");
    let args = ["prepare", "--model", &bert, "--data", "data.jsonl"];
    let first = sandbox.hbt(&args).ok();
    for line in ["12 groups from 12 rows\n", "36 queries, 36 positives, 0 negatives\n", "\nen  12  12  12\n"] {
        assert!(first.stdout.contains(line), "{line:?}: {}", first.stdout);
    }
    assert!(first.stderr.starts_with("tokenized 72 texts of 12 groups in "), "{}", first.stderr);
    let second = sandbox.hbt(&args).ok();
    assert_eq!((second.stderr.as_str(), &second.stdout), ("", &first.stdout));
    // Training reads what it has prepared.
    let train = ["train", "--model", &bert, "--data", "data.jsonl", "--set", "batch_size=4", "--set", "steps=1"];
    assert!(!sandbox.hbt(&train).ok().stderr.contains("tokenized"));
    // Other prefixes, lengths, data or tokenizer are other tokens.
    for set in ["query_prefix=q ", "passage_max_len=9"] {
        let other = sandbox.hbt(&[&args[..], &["--set", set]].concat()).ok();
        assert!(other.stderr.starts_with("tokenized 72 texts"), "{set}: {}", other.stderr);
    }
    let xlmr = sandbox.hbt(&["prepare", "--model", &fixture("xlmr"), "--data", "data.jsonl"]).ok();
    assert!(xlmr.stderr.starts_with("tokenized 72 texts"), "{}", xlmr.stderr);
}

#[test]
fn reads_the_real_xquad_r() {
    let Some(data) = crate::data::xquad_r::xquad_r() else { return };
    let sandbox = Sandbox::new();
    let xlmr = fixture("xlmr");
    let done = sandbox.hbt(&["prepare", "--model", &xlmr, "--data", data.to_str().unwrap()]).ok();
    // 1,190 questions in 11 languages, each with the sentence that holds the answer.
    assert!(
        done.stdout.contains("1190 groups from 13090 rows\n") || done.stdout.contains("1190 groups"),
        "{}",
        done.stdout
    );
    assert!(done.stdout.contains("13090 queries, 13090 positives, 0 negatives\n"), "{}", done.stdout);
}
