//! `hbt encode`: against sentence-transformers, and in all its forms.

use crate::common::{Done, Sandbox, fifo, fixture};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// Runs `hbt` with `input` on its standard input.
fn fed(sandbox: &Sandbox, args: &[&str], input: &[u8]) -> Done {
    let mut command = sandbox.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Done::new(child.wait_with_output().unwrap())
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    assert_eq!(a.len(), b.len());
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The lines that `hbt encode` writes.
fn embedded(jsonl: &str) -> Vec<(String, Vec<f64>)> {
    let parse = |line| {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row.as_object().unwrap().len(), 2, "{line}");
        (row["text"].as_str().unwrap().to_owned(), vector(&row["embedding"]))
    };
    jsonl.lines().map(parse).collect()
}

/// Rows of a file in NumPy's format, by its specification: magic, version, length of the header, a dictionary.
fn npy_rows(bytes: &[u8]) -> Vec<Vec<f64>> {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape: Vec<usize> =
        header.split(['(', ')']).nth(1).unwrap().split(',').map(|n| n.trim().parse().unwrap()).collect();
    let values: Vec<f64> =
        bytes[start..].chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    assert_eq!(values.len(), shape[0] * shape[1]);
    values.chunks(shape[1]).map(<[f64]>::to_vec).collect()
}

/// (text, embedding by sentence-transformers) of one model and role.
fn reference(model: &str, role: &str) -> Vec<(String, Vec<f64>)> {
    let text = std::fs::read_to_string(fixture("texts.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["model"] == model && row["role"] == role)
        .map(|row| (row["text"].as_str().unwrap().to_owned(), vector(&row["embedding"])))
        .collect()
}

#[test]
fn agrees_with_sentence_transformers() {
    let mut n_compared = 0;
    for model in ["bert", "xlmr", "labse", "st54"] {
        // bf16 keeps 8 bits of every activation.
        for (role, precision, at_least) in [
            ("query", "f32", 0.99999),
            ("passage", "f32", 0.99999),
            ("query", "bf16", 0.999),
            ("passage", "bf16", 0.999),
        ] {
            let sandbox = Sandbox::new();
            let expected = reference(model, role);
            let rows: String =
                expected.iter().map(|(text, _)| serde_json::json!({ "text": text }).to_string() + "\n").collect();
            sandbox.write("texts.jsonl", rows);
            let path = fixture(model);
            let args = ["encode", "--model", &path, "--input", "texts.jsonl", "--as", role, "--output", "out.npy"];
            sandbox.hbt(&[&args[..], &["--precision", precision]].concat()).ok();
            let rows = npy_rows(&sandbox.bytes("out.npy"));
            assert_eq!(rows.len(), expected.len(), "{model}, {role}");
            for ((text, expected), row) in expected.iter().zip(&rows) {
                let cosine = cosine(expected, row);
                assert!(cosine > at_least, "{model}, {role}, {precision}, {text:?}: {cosine}");
                n_compared += 1;
            }
        }
    }
    assert_eq!(n_compared, 64);
}

const TEXTS: [&str; 6] = ["old river", "", "the green book about the sea", "x", "Who wrote it?", "old river"];

#[test]
fn every_form_gives_the_same_embeddings() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let lines: String = TEXTS.iter().map(|text| format!("{text}\n")).collect();
    let rows: String =
        TEXTS.iter().map(|text| serde_json::json!({"url": 1, "text": text}).to_string() + "\n\n").collect();
    sandbox.write("texts.txt", &lines);
    sandbox.write("texts.jsonl", &rows);
    let encode =
        |more: &[&str]| sandbox.hbt(&[&["encode", "--model", &bert, "--precision", "f32"], more].concat()).ok();
    let fed = |input: &[u8]| fed(&sandbox, &["encode", "--model", &bert, "--precision", "f32"], input).ok().stdout;

    let stdout = encode(&["--input", "texts.txt"]).stdout;
    let expected = embedded(&stdout);
    assert_eq!(expected.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), TEXTS);
    for (_, row) in &expected {
        assert!((row.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5, "unit length");
    }
    assert_eq!(expected[0], expected[5]);
    assert_eq!(fed(lines.as_bytes()), stdout, "lines from standard input");
    assert_eq!(fed(rows.as_bytes()), stdout, "JSON Lines from standard input");
    assert_eq!(fed(lines.replace('\n', "\r\n").as_bytes()), stdout, "line ends of Windows");
    for (more, file) in [
        (vec!["--input", "texts.jsonl", "--output", "a.jsonl"], "a.jsonl"),
        (vec!["--input", "texts.txt", "--output", "b.npy", "--format", "jsonl"], "b.npy"),
    ] {
        let done = encode(&more);
        assert_eq!((done.stdout.as_str(), sandbox.read(file)), ("", stdout.clone()), "{more:?}");
        assert!(done.stderr.contains("\nembedded 6 texts in "), "{}", done.stderr);
        let is_warned = done.stderr.contains("warning: b.npy is written as jsonl, whatever its name says\n");
        assert_eq!(is_warned, file == "b.npy", "{}", done.stderr);
    }
    for more in [
        vec!["--input", "texts.txt", "--output", "c.npy"],
        vec!["--input", "texts.jsonl", "--output", "c", "--format", "npy"],
    ] {
        encode(&more);
        let rows = npy_rows(&sandbox.bytes(more[3]));
        assert_eq!(rows.len(), TEXTS.len());
        for (row, (text, expected)) in rows.iter().zip(&expected) {
            // JSON has the shortest decimals that give the same f32.
            assert!(row.iter().zip(expected).all(|(a, b)| *a as f32 == *b as f32), "{text}");
        }
    }
    #[cfg(unix)]
    for file in ["a.jsonl", "c.npy"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| sandbox.path(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode(file), mode("texts.txt"), "{file} can be read by whoever reads other files");
    }
}

#[test]
fn queries_and_passages_differ_by_their_prefix() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let encode = |more: &[&str], text: &str| {
        embedded(&fed(&sandbox, &[&["encode", "--model", &bert], more].concat(), text.as_bytes()).ok().stdout)[0]
            .1
            .clone()
    };
    let (query, passage) = (encode(&["--as", "query"], "old river"), encode(&["--as", "passage"], "old river"));
    assert!(cosine(&query, &passage) < 0.999);
    // Puts the prefixes of the model directory before the texts by hand.
    let bare = ["--set", "query_prefix=", "--set", "passage_prefix="];
    assert_eq!(encode(&bare, "query: old river"), query);
    assert_eq!(encode(&bare, "passage: old river"), passage);
    assert_eq!(encode(&["--set", "passage_prefix=query: "], "old river"), query);
}

#[test]
fn many_texts_are_encoded_as_one_at_a_time() {
    let sandbox = Sandbox::new();
    for model in ["xlmr", "labse"] {
        let path = fixture(model);
        let texts: Vec<String> = (0..60)
            .map(|i| {
                ["old", "river", "green", "sea", "x?"]
                    .iter()
                    .cycle()
                    .skip(i)
                    .take(1 + i % 9)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let all = embedded(
            &fed(&sandbox, &["encode", "--model", &path, "--set", "chunk_tokens=256"], texts.join("\n").as_bytes())
                .ok()
                .stdout,
        );
        assert_eq!(all.len(), 60);
        for i in [0, 7, 8, 30, 59] {
            let alone = embedded(&fed(&sandbox, &["encode", "--model", &path], texts[i].as_bytes()).ok().stdout);
            let distance = all[i].1.iter().zip(&alone[0].1).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(alone[0].0 == texts[i] && distance < 1e-6, "{model}, text {i}: {distance}");
        }
    }
}

/// Without an unknown token, a character that the vocabulary lacks cannot be encoded.
#[test]
fn the_first_text_that_has_no_tokens_is_named() {
    let sandbox = Sandbox::new();
    sandbox.copy_model("bert", "model");
    let mut tokenizer = sandbox.json("model/tokenizer.json");
    tokenizer["model"]["unk_token"] = "[NONE]".into();
    sandbox.write("model/tokenizer.json", tokenizer.to_string());
    // In the first window of texts and in later ones, which are tokenized while others are embedded.
    for first in [1, 2048, 2049, 4500] {
        let text = |i| if i == first || i == 4700 { "old \u{6f22} river\n" } else { "old river\n" };
        sandbox.write("texts.txt", (1..=5000).map(text).collect::<String>());
        let error = sandbox.hbt(&["encode", "--model", "model", "--input", "texts.txt", "--output", "out.npy"]).error();
        let expected = format!("error: text {first} (\"old \u{6f22} river\"): the tokenizer cannot encode this text: ");
        assert!(error.starts_with(&expected), "{error}");
        assert!(!sandbox.path("out.npy").exists());
    }
}

#[test]
fn bad_texts_are_named() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    for (input, expected) in [
        (&b"a\nb\xff\n"[..], "error: standard input, line 2: invalid UTF-8; save the file as UTF-8"),
        (
            b"{\"text\": \"a\"}\n\n{\"texts\": \"b\"}\n",
            "error: standard input, line 3: no text: expected a field text; the row has texts; name the one to embed with --field",
        ),
        (b"{\"text\": 3}\n", "error: standard input, line 1: text has to be a string"),
        (
            b"{\"text\": \"a\"}\n{\"text\": \"b\n",
            "error: standard input, line 2: invalid JSON: EOF while parsing a string at column 11",
        ),
    ] {
        assert_eq!(fed(&sandbox, &["encode", "--model", &bert, "--output", "out.jsonl"], input).error(), expected);
    }
    let npy = fed(&sandbox, &["encode", "--model", &bert, "--format", "npy"], b"a\n").error();
    assert_eq!(npy, "error: --format: npy needs a file to go to; add --output FILE.npy");
    assert!(sandbox.contents().is_empty(), "{:?}", sandbox.contents().keys());
    let nothing = fed(&sandbox, &["encode", "--model", &bert], b"").ok();
    assert_eq!(nothing.stdout, "");
    assert!(nothing.stderr.contains("warning: there was no text in the input\n"), "{}", nothing.stderr);
    for (name, magic) in [("a.jsonl.gz", &b"\x1f\x8b\x08"[..]), ("a.zst", b"\x28\xb5\x2f\xfd")] {
        sandbox.write(name, magic);
        let error = sandbox.hbt(&["encode", "--model", &bert, "--input", name]).error();
        assert_eq!(error, format!("error: {name}: is compressed; decompress it first"));
    }
    sandbox.write("a.jsonl", "{\"text\": \"old\"}\n");
    let error = sandbox.hbt(&["encode", "--model", &bert, "--input", "a.jsonl", "--output", "./a.jsonl"]).error();
    assert_eq!(error, "error: --output: is a file of the input itself; name another one");
    assert_eq!(sandbox.read("a.jsonl"), "{\"text\": \"old\"}\n");
}

/// As training joins title and text; ids keep their names and values, and what is not used is said.
#[test]
fn rows_of_a_corpus_keep_their_titles_and_ids() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let encode = |more: &[&str]| sandbox.hbt(&[&["encode", "--model", &bert], more].concat()).ok();
    let lines =
        |done: &Done| -> Vec<Value> { done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    sandbox.write(
        "corpus.jsonl",
        "{\"_id\": \"d1\", \"title\": \"Old river\", \"text\": \"green sea\", \"url\": \"x\"}\n\
         {\"_id\": 12345678901234567890, \"docid\": \"7\", \"title\": \" \", \"text\": \"the book\", \"lang\": \"en\"}\n",
    );
    sandbox.write("joined.txt", "Old river green sea\nthe book\n");
    let (done, joined) = (encode(&["--input", "corpus.jsonl"]), encode(&["--input", "joined.txt"]));
    let (rows, joined) = (lines(&done), lines(&joined));
    for (row, joined) in rows.iter().zip(&joined) {
        assert_eq!((&row["text"], &row["embedding"]), (&joined["text"], &joined["embedding"]));
    }
    assert_eq!(rows[0]["_id"], "d1");
    assert_eq!((rows[1]["_id"].as_u64(), &rows[1]["docid"]), (Some(12345678901234567890), &Value::from("7")));
    assert_eq!(rows.iter().map(|row| row.as_object().unwrap().len()).collect::<Vec<_>>(), [3, 4]);
    let said = "corpus.jsonl: 2 texts from JSON Lines, field text (behind title in 1), ids kept: _id, docid, not used: lang, \
                url; as passages, each behind \"passage: \"\n";
    assert!(done.stderr.starts_with(said), "{}", done.stderr);
    // Told otherwise.
    let titles = encode(&["--input", "corpus.jsonl", "--field", "title"]);
    assert_eq!(lines(&titles)[0]["text"], "Old river");
    assert!(
        titles.stderr.contains("field title, ids kept: _id, docid, not used: lang, text, url;"),
        "{}",
        titles.stderr
    );
    let as_text = encode(&["--input", "corpus.jsonl", "--input-format", "text"]);
    assert!(lines(&as_text)[0]["text"].as_str().unwrap().starts_with("{\"_id\""));
    assert!(as_text.stderr.starts_with("corpus.jsonl: 2 texts, one on each line;"), "{}", as_text.stderr);
    // Ids have no place in an array.
    let npy = encode(&["--input", "corpus.jsonl", "--output", "out.npy"]);
    assert!(npy.stderr.contains("no place for ids"), "{}", npy.stderr);
    // Rows of queries, by the names that training knows.
    sandbox.write("queries.NDJSON", "{\"query\": \"who wrote it\", \"query_id\": 3}\n");
    let queries = encode(&["--input", "queries.NDJSON", "--as", "query"]);
    assert_eq!(
        (&lines(&queries)[0]["text"], lines(&queries)[0]["query_id"].as_u64()),
        (&"who wrote it".into(), Some(3))
    );
    assert!(queries.stderr.contains("field query, ids kept: query_id; as queries, each behind \"query: \"\n"));
    let error = sandbox.hbt(&["encode", "--model", &bert, "--input", "queries.NDJSON"]).error();
    assert!(error.contains("line 1: no text: expected a field text; the row has query, query_id; "), "{error}");
}

#[test]
fn texts_that_are_cut_are_counted() {
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    let long = "old river ".repeat(30);
    sandbox.write("texts.txt", format!("old\n{long}\n{long}on\nriver\n"));
    let encode = |more: &[&str]| sandbox.hbt(&[&["encode", "--model", &bert, "--input", "texts.txt"], more].concat());
    let done = encode(&["--set", "passage_max_len=16"]).ok();
    assert!(done.stderr.ends_with("\n2 of 4 texts (50.0 %) cut at 16 tokens\n"), "{}", done.stderr);
    let rows = embedded(&done.stdout);
    assert_eq!(rows[1].1, rows[2].1, "they differ behind the cut");
    // The directory's own length, to its last position.
    let positions = sandbox_positions(&bert);
    let whole = encode(&[]).ok();
    assert!(
        whole.stderr.ends_with(&format!("\n2 of 4 texts (50.0 %) cut at {positions} tokens\n")),
        "{}",
        whole.stderr
    );
    let error = encode(&["--set", &format!("passage_max_len={}", positions + 1)]).error();
    let expected = format!(
        "error: passage_max_len: is {}, but the model has positions for {positions} tokens; set",
        positions + 1
    );
    assert!(error.starts_with(&expected), "{error}");
    let error = encode(&["--set", "passage_max_len=8", "--set", "passage_prefix=old old old old old old "]).error();
    assert!(
        error.starts_with("error: passage_max_len: 8 leaves no room for text beside 2 special tokens and 6 of"),
        "{error}"
    );
}

fn sandbox_positions(model: &str) -> u64 {
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{model}/config.json")).unwrap()).unwrap();
    config["max_position_embeddings"].as_u64().unwrap()
}

/// A model whose embeddings are all alike, here by the bias of its last norm alone, and one whose weights overflow on the way.
#[test]
fn broken_models_do_not_pass() {
    let sandbox = Sandbox::new();
    sandbox.copy_model("bert", "model");
    sandbox.write("texts.txt", "old river\nthe green book\n");
    let good = sandbox.bytes("model/model.safetensors");
    let with = |tensor: &str, value: f32| {
        let mut bytes = good.clone();
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let names: Value = serde_json::from_slice(&good[8..header]).unwrap();
        let [start, end] = [0, 1].map(|i| header + names[tensor]["data_offsets"][i].as_u64().unwrap() as usize);
        bytes[start..end].chunks_mut(4).for_each(|chunk| chunk.copy_from_slice(&value.to_le_bytes()));
        bytes
    };
    let encode = || sandbox.hbt(&["encode", "--model", "model", "--input", "texts.txt", "--output", "out.jsonl"]);
    let warning = "\nwarning: all texts have the same embedding, so they cannot be told apart: ";
    sandbox.write("model/model.safetensors", with("encoder.layer.1.output.LayerNorm.weight", 0.0));
    let collapsed = encode().ok().stderr;
    assert!(collapsed.contains(warning), "{collapsed}");
    // In an evaluation too.
    sandbox.write(
        "data.jsonl",
        "{\"query\": \"old\", \"positive\": \"river\"}\n{\"query\": \"sea\", \"positive\": \"green\"}\n",
    );
    let collapsed = sandbox.hbt(&["eval", "--model", "model", "--data", "data.jsonl"]).ok().stderr;
    assert!(collapsed.contains(warning), "{collapsed}");
    std::fs::remove_file(sandbox.path("out.jsonl")).unwrap();

    sandbox.write("model/model.safetensors", with("encoder.layer.1.output.LayerNorm.weight", 3e38));
    let error = encode().error();
    assert!(error.starts_with("error: text 1 (\"old river\"): its embedding is not finite: "), "{error}");
    assert!(!sandbox.path("out.jsonl").exists());
    // Texts that are the same are no collapse.
    sandbox.write("texts.txt", "old river\nold  river\nold river?\n");
    sandbox.write("model/model.safetensors", with("encoder.layer.1.output.LayerNorm.weight", 0.0));
    assert!(!encode().ok().stderr.contains("warning"));
}

/// A terminal obeys these; they come from data, names and paths.
#[test]
fn control_characters_reach_no_terminal() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m";
    sandbox.write("rows.jsonl", serde_json::json!({ evil: "a" }).to_string());
    let error = sandbox.hbt(&["prepare", "--model", &bert, "--data", "rows.jsonl"]).error();
    assert!(error.contains("the row has \\u001b]0;owned\\u0007\\u009b31m;"), "{error}");
    let error = sandbox.hbt(&["encode", "--model", &bert, "--input", "rows.jsonl"]).error();
    assert!(error.contains("\\u001b]0;owned"), "{error}");
    sandbox.copy_model("bert", evil);
    sandbox.write("texts.txt", "old river\n");
    let named = sandbox.hbt(&["eval", "--model", evil, "--data", "data.jsonl"]).ok();
    let modules = sandbox.read(&format!("{evil}/modules.json")).replace("1_Pooling", "\\u001b[2J");
    sandbox.write(&format!("{evil}/modules.json"), modules);
    let error = sandbox.hbt(&["encode", "--model", evil, "--input", "texts.txt"]);
    for text in [named.stdout, named.stderr, error.error()] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("\\u001b") || text.starts_with("precision") || text.starts_with("evaluated"), "{text:?}");
    }
}

/// E5 is trained with prefixes, and its directory on the hub names none.
#[test]
fn an_e5_model_without_prefixes_is_warned_of() {
    let sandbox = Sandbox::new();
    sandbox.write("texts.txt", "old river\n");
    for (name, original, prompts, sets, is_warned) in [
        ("multilingual-e5-small", "", false, &[][..], true),
        ("finetuned", "intfloat/multilingual-E5-base", false, &[], true),
        ("multilingual-e5-small", "", true, &[], false),
        (
            "multilingual-e5-small",
            "",
            false,
            &["--set", "query_prefix=query: ", "--set", "passage_prefix=passage: "],
            false,
        ),
        ("multilingual-e5-small", "", false, &["--set", "query_prefix="], false),
        ("code52-base5", "", false, &[], false),
    ] {
        sandbox.copy_model("bert", name);
        if !prompts {
            std::fs::remove_file(sandbox.path(&format!("{name}/config_sentence_transformers.json"))).unwrap();
        }
        let mut config = sandbox.json(&format!("{name}/config.json"));
        config["_name_or_path"] = original.into();
        sandbox.write(&format!("{name}/config.json"), config.to_string());
        let done = sandbox.hbt(&[&["encode", "--model", name, "--input", "texts.txt"], sets].concat()).ok();
        assert_eq!(done.stderr.contains("warning: "), is_warned, "{}", done.stderr);
        if is_warned {
            let expected = "looks like an E5 model, and those expect \"query: \" before a query and \"passage: \"";
            assert!(done.stderr.contains(expected), "{}", done.stderr);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_stays_a_pipe_and_a_link_a_link() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let sandbox = Sandbox::new();
    let bert = fixture("bert");
    fifo(&sandbox.path("pipe"));
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    symlink("disk/vectors", sandbox.path("link")).unwrap();
    for format in ["jsonl", "npy"] {
        let encode = |output| {
            fed(&sandbox, &["encode", "--model", &bert, "--format", format, "--output", output], b"old river\n")
        };
        let error = encode("pipe").error();
        assert!(error.starts_with("error: pipe: is a pipe or device, and only files are replaced; "), "{error}");
        assert!(sandbox.path("pipe").metadata().unwrap().file_type().is_fifo());
        encode("link").ok();
        assert!(sandbox.path("link").is_symlink() && sandbox.path("disk/vectors").is_file());
    }
}

/// Tables would be embedded line by line, header and half cells too.
#[test]
fn tables_and_lists_are_not_taken_for_texts() {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "query,positive\na,b\n");
    sandbox.write("a.json", "[\n {\"text\": \"a\"}\n]\n");
    for name in ["a.csv", "a.json"] {
        let encode = ["encode", "--model", &fixture("bert"), "--input", name];
        let error = sandbox.hbt(&encode).error();
        assert!(error.starts_with(&format!("error: {name}: holds no text on each line")), "{error}");
        let done = sandbox.hbt(&[&encode[..], &["--input-format", "text"]].concat()).ok();
        assert!(done.stderr.contains(&format!("{name}: ")), "{}", done.stderr);
        let both = sandbox.hbt(&[&encode[..], &["--input-format", "text", "--field", "text"]].concat());
        assert_eq!(both.code, Some(2), "{}", both.stderr);
    }
}
