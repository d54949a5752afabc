//! Bad input through the binary: exit code 1, one line that names the place and the remedy, nothing half-written.

use crate::common::{Done, Sandbox, fixture, groups, jsonl, train};
use serde_json::{Value, json};

/// `hbt` with `args` fails with a message that has all of `parts`, and leaves the directory and the cache as they were.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], parts: &[&str]) -> String {
    let (before, cache) = (sandbox.contents(), cached(sandbox));
    let error = sandbox.hbt(args).error();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(before.keys().collect::<Vec<_>>(), sandbox.contents().keys().collect::<Vec<_>>(), "{error}");
    assert!(before == sandbox.contents(), "{error}");
    let left: Vec<_> = cached(sandbox).into_iter().filter(|name| !cache.contains(name)).collect();
    assert!(left.iter().all(|name| name.starts_with("tokens-") && name.ends_with(".cache")), "{error} left {left:?}");
    error
}

/// Contents of the cache: whole files of tokens may stay behind, they are no part of a run.
fn cached(sandbox: &Sandbox) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.path("cache"));
    entries.map_or(vec![], |all| all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
}

#[test]
fn missing_files() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let absent = "error: cannot read absent.jsonl: No such file or directory (os error 2); check the path";
    for args in [
        vec!["train", "--model", &bert, "--data", "absent.jsonl", "--out", "run"],
        vec!["prepare", "--model", &bert, "--data", "absent.jsonl"],
        vec!["eval", "--model", &bert, "--data", "absent.jsonl"],
        vec!["compare", "--model", &bert, "--data", "data.jsonl", "--set", "eval_data=absent.jsonl"],
        vec!["encode", "--model", &bert, "--input", "absent.jsonl", "--output", "out.npy"],
    ] {
        assert_eq!(refused(&sandbox, &args, &[]), absent);
    }
    let no_model = ["absent: no such directory, and HF_HUB_OFFLINE is set while the hub's cache "];
    refused(&sandbox, &train("absent", &[]), &no_model);
    refused(&sandbox, &["encode", "--model", "absent"], &no_model);
    refused(&sandbox, &["eval", "--model", "data.jsonl", "--data", "data.jsonl"], &["data.jsonl: is a file"]);
    refused(&sandbox, &["eval", "--model", "no/such", "--data", "data.jsonl"], &["no/such: no such directory, and "]);
    let json = ["eval", "--model", &bert, "--data", "data.jsonl", "--json", "absent/out.json"];
    let no_directory = |file| format!("error: {file}: there is no directory absent; create it first");
    assert_eq!(refused(&sandbox, &json, &[]), no_directory("absent/out.json"));
    let output = ["encode", "--model", &bert, "--input", "data.jsonl", "--output", "absent/out.npy"];
    refused(&sandbox, &output, &["data.jsonl, line 1: no text: expected a field text; the row has id, "]);
    sandbox.write("texts.txt", "old river\n");
    for out in ["absent/out.npy", "absent/out.jsonl"] {
        let output = ["encode", "--model", &bert, "--input", "texts.txt", "--output", out];
        assert_eq!(refused(&sandbox, &output, &[]), no_directory(out));
    }
}

#[test]
fn incomplete_model_directories() {
    for (file, message) in [
        ("config.json", "model: has no config.json"),
        ("tokenizer.json", "model: has no tokenizer.json; make it with transformers: AutoTokenizer"),
        ("model.safetensors", "model: has no weights; hbt reads model.safetensors"),
        ("1_Pooling/config.json", "model/1_Pooling: has no config.json"),
        (
            "modules.json",
            "pooling: neither model nor the configuration says how token vectors become one embedding; set",
        ),
    ] {
        let sandbox = Sandbox::with_groups(8);
        sandbox.copy_model("bert", "model");
        std::fs::remove_file(sandbox.path("model").join(file)).unwrap();
        for args in [
            train("model", &[]),
            vec!["eval", "--model", "model", "--data", "data.jsonl"],
            vec!["encode", "--model", "model", "--input", "data.jsonl", "--output", "out.npy"],
        ] {
            // The texts of data.jsonl are none; that is found out first.
            if args[0] == "encode" {
                sandbox.write("data.jsonl", "{\"text\": \"old river\"}\n");
            }
            refused(&sandbox, &args, &[&format!("error: {message}")]);
        }
    }
    // The remedy of the last one.
    let sandbox = Sandbox::with_groups(8);
    sandbox.copy_model("bert", "model");
    std::fs::remove_file(sandbox.path("model/modules.json")).unwrap();
    sandbox.hbt(&["eval", "--model", "model", "--data", "data.jsonl", "--set", "pooling=mean"]).ok();
}

#[test]
fn damaged_weights() {
    let sandbox = Sandbox::with_groups(8);
    sandbox.copy_model("bert", "model");
    let good = sandbox.bytes("model/model.safetensors");
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    // The first tensor's shape with another number, and the length of the header left as it was.
    let text = std::str::from_utf8(&good[8..header]).unwrap();
    let at = text.find("\"shape\":[").unwrap() + "\"shape\":[".len();
    let mut other_shape = good.clone();
    other_shape[8 + at] = if good[8 + at] == b'1' { b'2' } else { b'1' };
    for (bytes, part) in [
        (good[..5].to_vec(), "truncated: 5 bytes"),
        (good[..header - 9].to_vec(), "its header"),
        (good[..good.len() - 400].to_vec(), "is truncated: its header describes"),
        ([&u64::MAX.to_le_bytes()[..], &good[8..]].concat(), "its header 18446744073709551615"),
        ([&200u64.to_le_bytes()[..], &good[8..]].concat(), "invalid safetensors header"),
        (other_shape, "header"),
    ] {
        sandbox.write("model/model.safetensors", bytes);
        let parts = ["error: model/model.safetensors: ", part, "download or copy the file again"];
        refused(&sandbox, &train("model", &[]), &parts);
        refused(&sandbox, &["eval", "--model", "model", "--data", "data.jsonl"], &parts);
    }
    // A whole file that belongs to another configuration.
    sandbox.write("model/model.safetensors", good);
    let mut config: Value = sandbox.json("model/config.json");
    config["intermediate_size"] = json!(48);
    sandbox.write("model/config.json", config.to_string());
    let parts = ["error: model/model.safetensors: ", "intermediate", "[64, 32]", "[48, 32]"];
    refused(&sandbox, &train("model", &[]), &parts);
}

/// One bad row among good ones; what is said of it, by whatever reads the file.
fn bad_row(rows: &[u8], parts: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", rows);
    let bert = fixture("bert");
    refused(&sandbox, &train(&bert, &["eval_task=none"]), parts);
    refused(&sandbox, &["prepare", "--model", &bert, "--data", "data.jsonl"], parts);
    refused(&sandbox, &["eval", "--model", &bert, "--data", "data.jsonl"], parts);
}

#[test]
fn invalid_json_on_line_7341() {
    let mut lines: Vec<String> = groups(7400, &["en"]).iter().map(Value::to_string).collect();
    lines[7340].pop();
    bad_row(
        (lines.join("\n") + "\n").as_bytes(),
        &["error: data.jsonl, line 7341: invalid JSON: EOF while parsing an object at column"],
    );
}

#[test]
fn rows_that_say_too_little() {
    let rows = |row: Value| [jsonl(&groups(3, &["de", "en"])), format!("{row}\n")].concat().into_bytes();
    for (row, part) in [
        (json!({"positive": {"en": "x"}}), "no query: expected one of query, queries; the row has positive"),
        (json!({"query": {"en": "x"}}), "no positive: expected one of positive"),
        (json!({"query": {"en": ""}, "positive": {"en": "x"}}), "query.en is empty; give it a text or remove the row"),
        (json!({"query": {"en": "x"}, "positive": {"en": [" \n"]}}), "positive.en is empty; give it a text"),
        (
            json!({"query": {"english": "x"}, "positive": {"en": "x"}}),
            "query: unknown language \"english\"; write its ISO 639 code",
        ),
        (
            json!({"query": {"en": 7}, "positive": {"en": "x"}}),
            "query.en has to be a string or a list of strings, not a number",
        ),
        (json!([1]), "expected one JSON object a line, found a list"),
    ] {
        bad_row(&rows(row), &["error: data.jsonl, line 4: ", part]);
    }
    let flat = "{\"query\": \"a\", \"positive\": \"b\"}\n{\"positive\": \"b\", \"score\": 1}\n";
    bad_row(
        flat.as_bytes(),
        &[
            "error: data.jsonl, line 2: no query: expected one of query, anchor, question, sentence1; the row has positive, score",
        ],
    );
    let lang = "{\"query\": \"a\", \"positive\": \"b\", \"lang\": \"deutsch\"}\n";
    bad_row(lang.as_bytes(), &["error: data.jsonl, line 1: lang: unknown language \"deutsch\""]);
    let mut bytes = rows(json!({"query": {"en": "caf?"}, "positive": {"en": "x"}}));
    let at = bytes.iter().rposition(|&byte| byte == b'?').unwrap();
    bytes[at] = 0xe9;
    bad_row(&bytes, &["error: data.jsonl, line 4: invalid UTF-8 at byte 20 of the line; save the file as UTF-8"]);
    bad_row(b"", &["error: data.jsonl: the file is empty; expected one JSON object a line"]);
}

#[test]
fn a_text_of_100_000_characters_is_cut() {
    let sandbox = Sandbox::new();
    let mut rows = groups(4, &["de", "en"]);
    rows[0]["positive"]["en"] = json!("old river ".repeat(10_000));
    rows[1]["query"]["en"] = json!("x".repeat(100_000));
    sandbox.write("data.jsonl", jsonl(&rows));
    let bert = fixture("bert");
    let prepared = sandbox.hbt(&["prepare", "--model", &bert, "--data", "data.jsonl"]).ok();
    let row = |what: &str| {
        prepared
            .stdout
            .lines()
            .find(|line| line.starts_with(what))
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // 20,000 words, "passage", a colon and two special tokens; and one text in four was cut.
    assert_eq!(row("positive  en")[6..], ["20004", "1", "25.0", "%"], "{}", prepared.stdout);
    sandbox.hbt(&train(&bert, &["steps=2"])).ok();
}

#[test]
fn settings_that_cannot_work() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    for (set, message) in [
        ("learning_rat=1", "--set: unknown key \"learning_rat\"; did you mean learning_rate?"),
        ("lr=1", "--set: unknown key \"lr\"; did you mean learning_rate?"),
        (
            "best_metric=multilingual",
            "--set: best_metric is \"multilingual\"; did you mean multilingual_map? It must be one of",
        ),
        ("best_metric=ndcg", "--set: best_metric is \"ndcg\"; it must be one of monolingual_map, cross_lingual_map"),
        ("mode=hybird", "--set: mode is \"hybird\"; did you mean hybrid? It must be one of monolingual,"),
        ("temperature=0", "--set: temperature is 0; it must be a number of at least 0.0001"),
        ("temperature=-1", "--set: temperature is -1; it must be a number of at least 0.0001"),
        ("batch_size=9", "batch_size: 9 is more than the 8 groups with query and positive in one language"),
        ("data_format=squad", "data.jsonl: "),
        (
            "data_format=flat",
            "data.jsonl, line 1: query is an object of texts by language; read such rows with data_format",
        ),
        ("query_max_len=40000", "chunk_tokens: 8192 is less than query_max_len = 40000"),
        ("device=cuda", "device: "),
        ("split=train", "data.jsonl: "),
    ] {
        let error = refused(&sandbox, &train(&bert, &[set]), &[]);
        assert!(error.starts_with(&format!("error: {message}")), "{set}: {error}");
    }
    sandbox.write("bad.toml", "seed = 1\n\nmode = \"hybird\"\n");
    let error = refused(&sandbox, &["train", "bad.toml"], &[]);
    assert!(error.starts_with("error: bad.toml, line 3: mode is \"hybird\"; did you mean hybrid?"), "{error}");
}

#[test]
fn data_that_cannot_serve() {
    let sandbox = Sandbox::new();
    sandbox.write("data.jsonl", jsonl(&groups(8, &["en"])));
    let bert = fixture("bert");
    let only = "cross-lingual batches need two languages, but all of the data is in \"en\"; give parallel data, or set";
    refused(
        &sandbox,
        &train(&bert, &["mode=cross_lingual"]),
        &["error: mode: cross_lingual: ", only, "mode = \"monolingual\""],
    );
    let cross = train(&bert, &["alpha=0"]);
    refused(&sandbox, &cross, &["error: mode: hybrid: ", only, "alpha = 1"]);
    for metric in ["cross_lingual_map", "rank_distance"] {
        let set = format!("best_metric={metric}");
        let message = format!("error: best_metric: the evaluation data gives no {metric}; choose another metric");
        refused(&sandbox, &train(&bert, &["alpha=1", &set]), &[&message]);
    }
    sandbox.hbt(&train(&bert, &["alpha=1", "steps=1"])).ok();
}

#[test]
fn places_that_cannot_be_written() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.write("run", "a file");
    let is_file = "error: run: is a file, or lies below one; choose a directory with --out";
    assert_eq!(refused(&sandbox, &train(&bert, &["steps=1"]), &[]), is_file);
    std::fs::remove_file(sandbox.path("run")).unwrap();
    // Something of the user's where the model would go.
    sandbox.write("run/last/thesis.txt", "years of work");
    let foreign =
        ["error: run/last: is not empty, and this version of hbt did not write it; move it away, or choose another"];
    refused(&sandbox, &train(&bert, &["steps=1"]), &foreign);
}

#[test]
fn wrong_usage_is_told_from_errors() {
    let sandbox = Sandbox::new();
    for args in [vec!["train", "--steps", "3"], vec!["eval", "--device", "tpu"], vec!["encode", "--as", "document"]] {
        let Done { code, stderr, .. } = sandbox.hbt(&args);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains("--help"), "{stderr}");
    }
}

/// Outputs replace what hbt wrote there, nothing that others did; found out before any work.
#[test]
fn outputs_do_not_replace_files_of_others() {
    let sandbox = Sandbox::new();
    let row = r#"{"query": "who", "positive": "he"}"#;
    sandbox.write("data.jsonl", row);
    sandbox.write("mine.csv", "a,b\n");
    let model = fixture("bert");
    let commands: [(&str, &[&str]); 3] = [
        ("--json", &["eval", "--model", &model, "--data", "data.jsonl", "--json"]),
        ("--output", &["mine", "--model", &model, "--data", "data.jsonl", "--output"]),
        ("--output", &["encode", "--model", &model, "--input", "data.jsonl", "--output"]),
    ];
    for (option, command) in commands {
        for content in ["my notes\n", "{\"a\": 1}\n", "[1]", "{\"step\": 1, \"negative_cosine\": 0.5}\n", row] {
            sandbox.write("theirs", content);
            let error = sandbox.hbt(&[command, &["theirs"]].concat()).error();
            let expected = format!(
                "error: {option}: theirs is there already, and does not look like an output of this command; name another \
                 file, or add --overwrite"
            );
            assert_eq!(error, expected, "{command:?}");
            assert_eq!(sandbox.read("theirs"), content);
        }
    }
    for (_, command) in &commands[1..] {
        let error = sandbox.hbt(&[command, &["out.csv"][..]].concat()).error();
        assert_eq!(error, "error: --output: what is written is JSON Lines, not .csv; call it out.jsonl");
    }
    // Once it is hbt's, or was asked for, it is replaced; so is an empty file.
    let encode = commands[2].1;
    sandbox.write("texts.txt", "a");
    let encode: Vec<&str> = encode.iter().map(|arg| if *arg == "data.jsonl" { "texts.txt" } else { arg }).collect();
    sandbox.hbt(&[&encode[..], &["theirs", "--overwrite"]].concat()).ok();
    let own = sandbox.read("theirs");
    assert!(own.starts_with("{\"text\":\"a\",\"embedding\":["), "{own}");
    sandbox.hbt(&[&encode[..], &["theirs"]].concat()).ok();
    assert_eq!(sandbox.read("theirs"), own);

    sandbox.write("man/hbt-eval.1", "my page");
    let error = sandbox.hbt(&["completions", "--man", "man"]).error();
    assert!(error.starts_with("error: man/hbt-eval.1: is there already, and is no page of hbt's"), "{error}");
    std::fs::remove_file(sandbox.path("man/hbt-eval.1")).unwrap();
    sandbox.hbt(&["completions", "--man", "man"]).ok();
    sandbox.hbt(&["completions", "--man", "man"]).ok();
}

#[test]
fn advice_for_what_is_nearly_right() {
    let sandbox = Sandbox::new();
    sandbox.write("rows.json", r#"{"data": [{"query": "who", "positive": "he"}]}"#);
    let error = sandbox.hbt(&["mine", "--data", "rows.json", "--output", "out.jsonl"]).error();
    assert!(error.contains("if \"data\" is a list of rows, write the list alone (jq .data)"), "{error}");

    sandbox.write("texts.txt", "{a} is a set\nb\n");
    let error = sandbox.hbt(&["encode", "--input", "texts.txt"]).error();
    assert!(error.ends_with("(if it has a text on each line, say --input-format text)"), "{error}");
    sandbox.write("texts.jsonl", "{a}");
    let error = sandbox.hbt(&["encode", "--input", "texts.jsonl"]).error();
    assert!(!error.contains("--input-format"), "{error}");

    let done = sandbox.hbt(&["eval", "--data", "missing", "--set", "split=test"]);
    assert!(done.stderr.starts_with("warning: split has no effect here"), "{}", done.stderr);
}
