//! `hbt bench`: what the table and the JSON hold. No time is tested, and only what takes little of it is run.

use super::{hbt, text};
use hbt::bench::Op;
use serde_json::Value;

#[test]
fn prints_the_ceilings_and_a_table() {
    let output = hbt(&["bench", "--op", "pooling,cast", "--precision", "bf16", "--set", "threads=1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].ends_with(", cpu (bf16, 1 thread)"), "{table}");
    assert!(lines[1].starts_with("ceilings: gemm ") && lines[1].contains(" GB/s"), "{table}");
    assert!(lines[2].starts_with("op ") && lines[2].contains(" share "), "{table}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{table}");
    let rows: Vec<Vec<&str>> = lines[3..].iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["pooling", "pooling", "cast"], "{table}");
    for row in rows {
        assert_eq!(row[1], "bf16", "{table}");
        assert_eq!(row[row.len() - 2..], ["%", "copy"], "a pass over memory is held against a copy: {table}");
    }
}

#[test]
fn prints_json_lines() {
    let output = hbt(&["bench", "--op", "pooling", "--json", "--precision", "f32"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dtypes: Vec<&str> = rows.iter().map(|row| row["dtype"].as_str().unwrap()).collect();
    assert_eq!(dtypes, ["f32", "f32"]);
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        // 64 x 128 tokens of 384 elements, and 64 vectors.
        let bytes = (64 * 128 * 384 * 4 + 64 * 384 * 4) as f64;
        let relative = number("gb_per_s") * number("seconds") * 1e9 / bytes;
        assert!((relative - 1.0).abs() < 1e-9, "{row}");
        assert!(number("share") > 0.0 && row["of"] == "copy" && row["tokens_per_s"].is_null(), "{row}");
    }
}

#[test]
fn an_unknown_operation_is_wrong_usage_and_lists_the_known_ones() {
    let output = hbt(&["bench", "--op", "gemm,atention"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
    let error = text(&output.stderr);
    assert!(error.contains("unknown word \"atention\"; use one of gemm, attention, "), "{error}");
}

#[test]
fn a_named_shape_without_ceilings_is_measured_alone_in_both_precisions() {
    let args = ["bench", "--op", "info_nce", "--shape", "64x64x32", "--no-ceilings"];
    let output = hbt(&[&args[..], &["--device", "cpu", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shapes: Vec<&str> = rows.iter().map(|row| row["shape"].as_str().unwrap()).collect();
    assert_eq!(shapes, ["one way/64x64x32", "symmetric/64x64x32"].repeat(2));
    assert!(rows.iter().map(|row| &row["dtype"]).eq(["f32", "f32", "bf16", "bf16"]), "{rows:?}");
    for row in &rows {
        assert!(row["seconds"].as_f64() > Some(0.0) && row["share"].is_null() && row["peak_bytes"].is_null(), "{row}");
    }
    let table = text(&hbt(&[&args[..], &["--device", "cpu"]].concat()).stdout);
    assert!(!table.contains("ceilings") && !table.contains('%') && table.lines().count() == 8, "{table}");
}

#[test]
fn an_unknown_shape_is_wrong_usage_and_lists_the_known_ones() {
    let error = |args: &[&str]| {
        let output = hbt(&[&["bench", "--device", "cpu"], args].concat());
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()), "{args:?}");
        let error = text(&output.stderr);
        assert!(error.lines().count() == 1 && error.len() < 500, "{error}");
        error
    };
    let one = error(&["--op", "train_step", "--shape", "xlm-r-bass"]);
    let start = "error: --shape: no size has \"xlm-r-bass\" in its name; they are minilm-l6 64 texts, multilingual-";
    assert!(one.starts_with(start) && one.contains(", xlm-r-base 64 texts dropout, "), "{one}");
    let two = error(&["--op", "sum_of_squares,cast", "--shape", "12"]);
    assert_eq!(two, "error: --shape: no size has \"12\" in its name; the only one is 11720448\n");
    let all = error(&["--shape", "minilm-l6 64,xlm-r-bass"]);
    let expected = "error: --shape: no size has \"xlm-r-bass\" in its name; name one operation, such as --op train_step, \
                    and its sizes are listed\n";
    assert_eq!(all, expected);
    for name in Op::ALL {
        let one = error(&["--op", &name.to_string(), "--shape", "nonsense"]);
        assert!(one.contains("; they are ") || one.contains("; the only one is "), "{one}");
    }
}

#[test]
fn an_empty_shape_is_wrong_usage() {
    for empty in ["", ",", "minilm-l6,", " "] {
        let output = hbt(&["bench", "--op", "pooling", "--shape", empty]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()), "{empty:?}");
        let error = text(&output.stderr);
        assert!(error.starts_with("error: ") && error.contains("'--shape <TEXT,...>': name a size"), "{error}");
    }
}
