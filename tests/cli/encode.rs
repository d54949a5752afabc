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
        TEXTS.iter().map(|text| serde_json::json!({"id": 1, "text": text}).to_string() + "\n\n").collect();
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
        assert!(done.stderr.starts_with("embedded 6 texts in "), "{}", done.stderr);
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
            "error: standard input, line 3: no text: expected a field \"text\" that holds a string",
        ),
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
    assert_eq!(fed(&sandbox, &["encode", "--model", &bert], b"").ok().stdout, "");
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
