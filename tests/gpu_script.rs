//! `benches/gpu.sh run`: what it reports of a whole run in tiny sizes on the stand-in, and of programs that fail and hang.

use crate::common::{Sandbox, fixtures, program};
use crate::device;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `gpu.sh run` with the programs in `from`; results go to `results` beside it.
fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.arg(repository().join("benches/gpu.sh")).arg("run").stdin(Stdio::null());
    command.arg("--from").arg(sandbox.path("from")).arg("--out").arg(sandbox.path("results")).args(args);
    command
}

/// Name, result and what is said of each part.
fn parts(results: &Value) -> Vec<[&str; 3]> {
    let parts = results["parts"].as_array().unwrap().iter();
    parts.map(|part| ["part", "result", "says"].map(|name| part[name].as_str().unwrap())).collect()
}

/// Result and what is said of one part.
#[track_caller]
fn told<'a>(results: &'a Value, part: &str) -> [&'a str; 2] {
    let found = parts(results).into_iter().find(|[name, ..]| *name == part);
    let [_, result, says] = found.unwrap_or_else(|| panic!("no part {part}: {results}"));
    [result, says]
}

/// The best of what was measured several times, as the tables have it.
#[track_caller]
fn measured<'a>(results: &'a Value, op: &str, shape: &str) -> &'a Value {
    let rows = results["measurements"].as_array().unwrap();
    let of_kind = rows.iter().filter(|row| row["op"] == op && row["shape"] == shape && row["peer"].is_null());
    let found = of_kind.min_by(|a, b| a["seconds"].as_f64().unwrap().total_cmp(&b["seconds"].as_f64().unwrap()));
    found.unwrap_or_else(|| panic!("no {op} {shape}: {results}"))
}

#[test]
fn a_tiny_run_fills_both_files() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("from/tests")).unwrap();
    let links = [
        (program(), "hbt"),
        (std::env::current_exe().unwrap(), "integration"),
        (repository().join("benches/peer_gpu.py"), "peer_gpu.py"),
        (fixtures(), "tests/fixtures"),
    ];
    for (target, name) in links {
        symlink(target, sandbox.path("from").join(name)).unwrap();
    }
    let mut command = command(&sandbox, &["--tiny", "--python", "no-such-python"]);
    let output = command.env("LD_LIBRARY_PATH", device::built()).env_remove("CUDA_VISIBLE_DEVICES").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &sandbox.read("results/log.txt");
    assert_eq!(output.status.code(), Some(0), "{log}");
    let results = sandbox.json("results/results.json");
    assert!(results["info"].as_str().unwrap().contains("gpu "), "{results}");
    for [part, result, says] in parts(&results) {
        match part {
            "PyTorch" => assert_eq!((result, says), ("skipped", "there is no no-such-python")),
            "nvidia-smi" => assert!(["skipped", "ok"].contains(&result), "{says}"),
            _ => assert_eq!(result, "ok", "{part}: {says}\n{log}"),
        }
    }
    let [_, says] = told(&results, "device tests");
    assert!(says.starts_with("ok. 3 passed; 0 failed"), "{says}");
    let tables = sandbox.read("results/results.md");
    for shape in ["tiny 8 texts", "tiny 8 texts dropout"] {
        let row = measured(&results, "train_step", shape);
        let number = |name: &str| row[name].as_f64().unwrap();
        assert_eq!((row["dtype"].as_str(), &row["share"]), (Some("bf16"), &Value::Null));
        // 8 texts of 128 tokens.
        assert!((number("tokens_per_s") * number("seconds") / 1024.0 - 1.0).abs() < 1e-9, "{row}");
        // Besides what is counted, partial sums.
        let [peak, planned] = [number("peak_bytes"), number("planned_bytes")];
        assert!(planned > 1e6 && (planned..planned + f64::from(64 << 20)).contains(&peak), "{row}");
        assert!(number("reserved_bytes") >= peak && number("in_use_bytes") >= number("reserved_bytes"), "{row}");
        let line = format!("| {shape} | {:.0} |", number("tokens_per_s"));
        assert!(tables.contains(&line), "no {line} in {tables}");
    }
    for shape in ["one way/64x64x32", "symmetric/64x64x32"] {
        let row = measured(&results, "info_nce", shape);
        assert!(row["peak_bytes"].as_u64() > Some(0) && tables.contains(&format!("| {shape} | ")), "{tables}");
    }
}

/// A program that is not what its name says.
fn fake(sandbox: &Sandbox, name: &str, script: &str) {
    sandbox.write(&format!("from/{name}"), format!("#!/usr/bin/env bash\n{script}"));
    fs::set_permissions(sandbox.path("from").join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A loss that fails, one that hangs with a child, tests of which one fails before they hang; text that JSON and Markdown
/// have to escape.
#[test]
fn what_fails_or_hangs_is_told_and_the_rest_goes_on() {
    let sandbox = Sandbox::new();
    let row = r#"{"op":"train_step","dtype":"bf16","shape":"xlm-r-base 64 texts","seconds":1.6384e-2,"tokens_per_s":500000.4,
        "share":0.412,"of":"gemm","peak_bytes":5242880001,"planned_bytes":5242880000}"#;
    let row = row.replace("\n        ", "");
    fake(
        &sandbox,
        "hbt",
        &format!(
            r#"case "$*" in
                --version) echo "hbt 9.9" ;;
                info) printf 'a "quote", a \\ and a\ttab\n' ;;
                *16384*) echo said before >&2; echo "error: no memory; lower | this" >&2; exit 1 ;;
                *65536*) sleep 600; echo never ;;
                *xlm-r-base*) echo '{row}' ;;
            esac"#
        ),
    );
    fake(&sandbox, "integration", "echo 'test a ... ok'; echo 'test b::cuda_f32 ... FAILED'; sleep 600");
    let start = Instant::now();
    let output = command(&sandbox, &["--part-limit", "1", "--python", "no-such-python"]).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let results = sandbox.json("results/results.json");
    assert_eq!(results["info"], "a \"quote\", a \\ and a tab");
    for (part, result, says) in [
        ("hbt info_nce 16384x16384x768", "failed", "error: no memory; lower | this"),
        ("hbt info_nce 65536x65536x768", "timed out", "stopped after 1 s"),
        ("device tests", "timed out", "1 passed; 1 failed; stopped after 1 s: b::cuda_f32"),
        ("hbt bench, f32", "ok", ""),
    ] {
        assert_eq!(told(&results, part), [result, says], "{part}");
    }
    let tables = sandbox.read("results/results.md");
    assert!(tables.contains("\n| xlm-r-base 64 texts | 500000 | 41 % |  |  | 5001 | 5000 |  |  |\n"), "{tables}");
    assert!(tables.contains("| error: no memory; lower / this |\n"), "{tables}");
}

/// When the time for everything is over, what is left is said not to have been done.
#[test]
fn what_there_is_no_time_for_is_said() {
    let sandbox = Sandbox::new();
    fake(&sandbox, "hbt", r#"[ "$1" = --version ] || sleep 600"#);
    fake(&sandbox, "integration", "true");
    let start = Instant::now();
    let output = command(&sandbox, &["--limit", "10", "--python", "no-such-python"]).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let results = sandbox.json("results/results.json");
    assert_eq!(told(&results, "hbt info")[0], "timed out");
    assert_eq!(told(&results, "hbt bench, f32"), ["no time", "the 10 s for everything were over"]);
}
