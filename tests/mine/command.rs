//! `hbt mine` through the binary.

use crate::common::{Sandbox, fixture, groups, jsonl};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

const MINE: [&str; 7] = ["mine", "--data", "data.jsonl", "--output", "mined.jsonl", "--range-min", "2"];

/// Negatives by language of a parallel row.
fn negatives(row: &Value) -> Vec<(&str, Vec<&str>)> {
    let by_lang = row["negatives"].as_object().unwrap().iter();
    by_lang
        .map(|(lang, of)| (lang.as_str(), of.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect()))
        .collect()
}

#[test]
fn what_it_writes_is_the_data_with_negatives_and_can_be_trained_on() {
    let sandbox = Sandbox::with_groups(30);
    let bert = fixture("bert");
    let margin = ["--model", &bert, "--relative-margin", "none", "--num-negatives", "3"];
    let done = sandbox.hbt(&[&MINE[..], &margin].concat()).ok();
    assert!(done.stdout.starts_with("270 negatives for 30 rows, from 90 passages in 3 languages\n"), "{}", done.stdout);
    let mined = sandbox.read("mined.jsonl");
    let data = groups(30, &["ar", "de", "en"]);
    assert_eq!(mined.lines().count(), 30);
    for (line, row) in mined.lines().zip(&data) {
        let mut mined: Value = serde_json::from_str(line).unwrap();
        for (lang, texts) in negatives(&mined) {
            let of_lang =
                |text: &&str| data.iter().filter(|other| *other != row).any(|other| other["positive"][lang] == **text);
            assert!(texts.len() == 3 && texts.iter().all(of_lang), "{line}");
        }
        assert_eq!(negatives(&mined).len(), 3);
        mined.as_object_mut().unwrap().remove("negatives");
        assert_eq!(mined, *row);
    }
    let args = [
        "train",
        "--model",
        &bert,
        "--data",
        "mined.jsonl",
        "--out",
        "run",
        "--set",
        "steps=2",
        "--set",
        "batch_size=4",
        "--set",
        "eval_task=none",
    ];
    sandbox.hbt(&args).ok();
}

/// Groups that are read whole come out with the negatives that they have.
#[test]
fn rows_that_name_their_texts_by_ids_keep_their_negatives() {
    let sandbox = Sandbox::new();
    let texts = ["the river", "the old book", "who wrote it", "the sea"];
    let documents = texts.iter().enumerate().map(|(id, text)| json!({"docid": id, "text": text}));
    sandbox.write("data/corpus.jsonl", jsonl(&documents.collect::<Vec<_>>()));
    let row = |query: &str, positive: usize, negative: usize| json!({"query": query, "positive_document_ids": [positive], "negative_document_ids": [negative]});
    sandbox.write("data/rows.jsonl", jsonl(&[row("a river", 0, 1), row("a book", 1, 3), row("a question", 2, 0)]));
    let args = ["mine", "--data", "data", "--model", &fixture("bert"), "--output", "mined.jsonl", "--overwrite"];
    let args = [&args[..], &["--range-min", "1", "--num-negatives", "1", "--relative-margin", "none"]].concat();
    let mined = |more: &[&str]| -> Vec<Vec<String>> {
        sandbox.hbt(&[&args[..], more].concat()).ok();
        let rows = sandbox.read("mined.jsonl");
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| negatives(&row)[0].1.iter().map(|text| (*text).to_owned()).collect()).collect()
    };
    let own = [1, 3, 0].map(|document| texts[document]);
    for (row, own) in mined(&[]).iter().zip(own) {
        assert!(row.len() == 2 && row[0] == own && row[1] != own, "{row:?}");
    }
    assert!(mined(&["--replace-negatives"]).iter().all(|row| row.len() == 1));
}

#[test]
fn threads_and_what_was_there_before_do_not_matter() {
    let sandbox = Sandbox::with_groups(40);
    let bert = fixture("bert");
    sandbox.write("mined.jsonl", "{\"query\": \"old\", \"negatives\": []}\n");
    for more in [&["--languages", "all"][..], &["--sampling-strategy", "random", "--precision", "bf16"]] {
        let mine = |threads: &str| {
            let margin = ["--model", &bert, "--relative-margin", "none", "--set", threads];
            sandbox.hbt(&[&MINE[..], &margin, more].concat()).ok();
            sandbox.bytes("mined.jsonl")
        };
        assert_eq!(mine("threads=1"), mine("threads=2"));
    }
}

/// A planted near-copy: what answers another group's question in the words of this one's answer.
#[test]
fn parallel_versions_of_an_answer_that_groups_share_are_never_mined() {
    let sandbox = Sandbox::new();
    let mut rows = groups(12, &["de", "en"]);
    // Two questions, one English answer, two German versions of it.
    rows[1]["positive"]["en"] = rows[0]["positive"]["en"].clone();
    rows[1]["positive"]["de"] = json!(format!("{} .", rows[0]["positive"]["de"].as_str().unwrap()));
    sandbox.write("data.jsonl", jsonl(&rows));
    let bert = fixture("bert");
    let every = ["--model", &bert, "--relative-margin", "none", "--num-negatives", "100", "--languages", "all"];
    let args = [&MINE[..5], &every].concat();
    sandbox.hbt(&[&args[..], &["--range-min", "1"]].concat()).ok();
    let mined: Vec<Value> =
        sandbox.read("mined.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (i, row) in mined.iter().enumerate() {
        let found: Vec<&str> = negatives(row).into_iter().flat_map(|(_, texts)| texts).collect();
        // 12 groups have 23 passages, one of which two groups share.
        let expected: Vec<&str> = (0..12)
            .filter(|&j| j != i && (j > 1 || i > 1))
            .flat_map(|j| ["de", "en"].map(|lang| rows[j]["positive"][lang].as_str().unwrap()))
            .collect();
        let sorted = |mut texts: Vec<&str>| {
            texts.sort_unstable();
            texts.dedup();
            texts.iter().map(|text| text.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(found), sorted(expected), "row {i}");
    }
}

#[test]
fn errors_leave_nothing_behind() {
    let sandbox = Sandbox::with_groups(5);
    let bert = fixture("bert");
    sandbox.write("scored.jsonl", "{\"query\": \"q\", \"pos\": [\"p\"], \"neg\": [\"n\"], \"neg_scores\": [1]}\n");
    sandbox.write("blank.jsonl", "\n\n");
    let before = sandbox.contents();
    let cases: [(&[&str], &str); 6] = [
        (&["--data", "data.jsonl", "--output", "data.jsonl"], "error: --output: is a file of the data itself"),
        (
            &["--data", "data.jsonl", "--output", "m", "--range-max", "9"],
            "error: --range-min: 10 is behind --range-max 9",
        ),
        (
            &["--data", "data.jsonl", "--output", "m"],
            "error: no negative was found among 15 passages, so nothing was written: ",
        ),
        (
            &["--data", "data.jsonl", "--output", "m", "--languages", "fr"],
            "error: --languages: no passage is in fr; the data has ar, de, en",
        ),
        (&["--data", "scored.jsonl", "--output", "m"], "error: scored.jsonl, line 1: neg_scores has a score"),
        (&["--data", "blank.jsonl", "--output", "m"], "error: blank.jsonl: the file is empty"),
    ];
    for (args, expected) in cases {
        let error = sandbox.hbt(&[&["mine", "--model", &bert], args].concat()).error();
        assert!(error.starts_with(expected), "{error}");
        assert!(sandbox.contents() == before, "{args:?}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let sandbox = Sandbox::new();
    sandbox.write("folder/file", "");
    for (output, expected) in [
        ("no/mined.jsonl", "error: no/mined.jsonl: there is no directory no; create it first"),
        ("folder", "error: folder: is a directory; name a file in it"),
        (".", "error: .: is a directory; name a file in it"),
        ("folder/file/mined.jsonl", "error: cannot create folder/file/mined.jsonl: Not a directory"),
    ] {
        let error = sandbox.hbt(&["mine", "--model", "absent", "--data", "absent", "--output", output]).error();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn data_is_mined_one_by_one() {
    let sandbox = Sandbox::with_groups(30);
    let bert = fixture("bert");
    let twice = sandbox.hbt(&[&MINE[..], &["--data", "other.jsonl"]].concat());
    assert_eq!(twice.code, Some(2));
    assert!(
        twice.stderr.contains("the argument '--data <FILE|DIR>' cannot be used multiple times"),
        "{}",
        twice.stderr
    );
    let help = sandbox.hbt(&["mine", "--help"]).ok().stdout;
    assert!(help.contains("Data to mine: ") && !help.contains("Training data"), "{help}");
    sandbox.write("two.toml", "[[datasets]]\ndata = \"data.jsonl\"\n[[datasets]]\ndata = \"other.jsonl\"\n");
    let of_file = ["mine", "two.toml", "--model", &bert, "--relative-margin", "none", "--output", "mined.jsonl"];
    let error = sandbox.hbt(&of_file).error();
    assert_eq!(error, "error: datasets: there are 2; mine each by itself, with --data and an --output of its own");
    sandbox.hbt(&[&of_file[..], &["--data", "data.jsonl"]].concat()).ok();
}

#[test]
fn rows_on_standard_output() {
    let sandbox = Sandbox::with_groups(30);
    let bert = fixture("bert");
    let mine = |output| {
        let args = ["mine", "--model", &bert, "--data", "data.jsonl", "--relative-margin", "none", "--output", output];
        sandbox.hbt(&args).ok()
    };
    let (file, stream) = (mine("mined.jsonl"), mine("-"));
    assert_eq!(stream.stdout, sandbox.read("mined.jsonl"));
    assert!(stream.stderr.ends_with(&file.stdout), "the summary: {}", stream.stderr);
    assert_eq!(sandbox.contents().keys().collect::<Vec<_>>(), ["data.jsonl", "mined.jsonl"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let sandbox = Sandbox::with_groups(30);
    let bert = fixture("bert");
    sandbox.write("disk/rows", "{\"query\": \"old\", \"negatives\": []}\n");
    std::os::unix::fs::symlink("disk/rows", sandbox.path("mined.jsonl")).unwrap();
    sandbox.hbt(&[&MINE[..], &["--model", &bert, "--relative-margin", "none"]].concat()).ok();
    assert!(sandbox.path("mined.jsonl").is_symlink());
    assert_eq!(sandbox.read("disk/rows").lines().count(), 30);
    // The data, by another name.
    std::os::unix::fs::symlink("data.jsonl", sandbox.path("link")).unwrap();
    let error = sandbox.hbt(&["mine", "--model", &bert, "--data", "data.jsonl", "--output", "link"]).error();
    assert!(error.starts_with("error: --output: is a file of the data itself"), "{error}");
}

#[test]
fn a_killed_run_leaves_nothing() {
    let sandbox = Sandbox::with_groups(20_000);
    let bert = fixture("bert");
    let before = sandbox.contents();
    let mut command = sandbox.command(&[&MINE[..], &["--model", &bert]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was still at work");
    assert!(sandbox.contents() == before, "{:?}", sandbox.contents().keys());
}

#[test]
fn numbers_that_are_none_are_told_what_to_be() {
    let number = "write a number, such as 0.05, or none";
    let whole = "write a whole number from 1 on, in digits only";
    for (option, values, message) in [
        ("--relative-margin", &["5%", "inf", "NaN", "1e39", "off"][..], number),
        ("--absolute-margin", &["0,1"], number),
        ("--max-score", &["high"], number),
        ("--min-score", &["-"], number),
        ("--num-negatives", &["0", "all", "-1"], whole),
        ("--range-min", &["0", "1.5"], whole),
        ("--range-max", &["1e3", "1_000", "4294967296"], whole),
    ] {
        for value in values {
            let done = Sandbox::new().hbt(&["mine", "--output", "mined.jsonl", &format!("{option}={value}")]);
            assert_eq!(done.code, Some(2), "{}", done.stderr);
            let expected = format!("error: invalid value '{value}' for '{option} ");
            assert!(done.stderr.starts_with(&expected) && done.stderr.contains(message), "{}", done.stderr);
        }
    }
}

#[test]
fn limits_can_be_none() {
    let sandbox = Sandbox::with_groups(30);
    let bert = fixture("bert");
    let mut args = [&MINE[..], &["--model", &bert]].concat();
    for option in ["--relative-margin", "--absolute-margin", "--max-score", "--min-score"] {
        args.extend([option, "none"]);
    }
    // Each row, of 30, has ranks 2 to 29.
    let done = sandbox.hbt(&[&args[..], &["--num-negatives", "50"]].concat()).ok();
    assert!(done.stdout.starts_with("2520 negatives for 30 rows"), "{}", done.stdout);
}
