//! The command line through the binary: wrong usage, exit codes, help, and what needs no model.

mod bad_input;
mod bench;
mod compare;
mod encode;
mod full_disk;
mod pipes;
mod precision;
mod prepare;
#[cfg(unix)]
mod ranks;
mod report;
mod retrieval;

use crate::common::program;
use std::process::{Command, Output};

fn hbt(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const COMMANDS: &[&str] =
    &["train", "eval", "compare", "report", "encode", "mine", "plan", "prepare", "config", "bench", "info"];

#[test]
fn without_a_command_it_prints_help_and_fails() {
    let output = hbt(&[]);
    assert_eq!(output.status.code(), Some(2));
    let help = text(&output.stderr);
    assert!(help.contains("Quick start"), "{help}");
    for command in COMMANDS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command}: {help}");
    }
}

#[test]
fn help_of_every_command_fits_a_terminal() {
    for command in COMMANDS {
        let output = hbt(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(help.contains(&format!("Usage: hbt {command}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let lines: [&[&str]; 7] = [
        &["trian"],
        &["train", "--bogus"],
        &["train", "--set"],
        &["train", "--set", "alpha"],
        &["eval", "--task", "none"],
        &["eval", "--split", "dev"],
        &["encode", "--format", "csv"],
    ];
    for line in lines {
        let output = hbt(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{line:?}");
    }
    assert!(text(&hbt(&["trian"]).stderr).contains("'train'"));
    assert!(text(&hbt(&["train", "--set", "alpha"]).stderr).contains("write it as key=value"));
}

#[test]
fn a_bad_configuration_is_one_line_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, "seed = 1\nlearning_rat = 2\n").unwrap();
    let path = path.to_str().unwrap();
    for command in ["train", "eval", "compare", "encode", "prepare", "config", "bench"] {
        let unknown = hbt(&[command, path]);
        let message = format!("error: {path}, line 2: unknown key \"learning_rat\"; did you mean learning_rate?\n");
        assert_eq!((unknown.status.code(), text(&unknown.stderr)), (Some(1), message), "{command}");

        let cold = hbt(&[command, "--set", "temperature=0"]);
        let message = "error: --set: temperature is 0; it must be a number of at least 0.0001\n".to_owned();
        assert_eq!((cold.status.code(), text(&cold.stderr)), (Some(1), message), "{command}");
    }
    let missing = hbt(&["train", "no/such.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    let message = text(&missing.stderr);
    assert!(message.starts_with("error: cannot read no/such.toml: ") && message.ends_with("; check the path\n"));
    assert_eq!(message.matches("No such file").count(), 1, "the cause is said once: {message}");
}

#[test]
fn config_prints_a_file_that_gives_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    let first = hbt(&["config", "--model", "m", "--out", "o", "--set", "mode=cross_lingual", "--set", "steps=7"]);
    assert_eq!(first.status.code(), Some(0));
    assert!(text(&first.stdout).contains("\nmode = \"cross_lingual\"\n"));
    std::fs::write(&path, &first.stdout).unwrap();
    let second = hbt(&["config", path.to_str().unwrap()]);
    assert_eq!(text(&second.stdout), text(&first.stdout));
    let counting = text(&first.stdout).lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    assert_eq!(counting, 4, "what was given, and no more");
}

#[test]
fn warnings_go_to_standard_error() {
    let output = hbt(&["config", "--set", "temperature=1"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("warning: temperature 1 "));
    assert!(!text(&output.stdout).contains("warning"));
}

/// Whether or not there is a GPU that would look at them.
#[test]
fn variables_of_hbt_are_checked_by_every_command() {
    for (variable, value, message) in [
        ("HBT_CUBLASLT_TUNE", "x", "HBT_CUBLASLT_TUNE is \"x\": set it to on or off, or unset it"),
        ("HBT_CUDA_MEMORY", "Separate", "HBT_CUDA_MEMORY is \"Separate\": set it to separate, or unset it"),
        ("HBT_CPU", "x", "HBT_CPU: unknown word \"x\"; use one of baseline, avx2, avx512, avx512_bf16"),
    ] {
        for &command in COMMANDS {
            // None of them gets as far as these.
            let args: &[&str] = match command {
                "info" => &[],
                "mine" => &["no/such.toml", "--output", "gone/no.jsonl"],
                "report" => &["gone"],
                _ => &["no/such.toml"],
            };
            let output = Command::new(program()).arg(command).args(args).env(variable, value).output().unwrap();
            let expected = (Some(1), format!("error: {message}\n"));
            assert_eq!((output.status.code(), text(&output.stderr)), expected, "{command}");
        }
    }
    for (variable, value) in [
        ("HBT_CUBLASLT_TUNE", "off"),
        ("HBT_CUBLASLT_TUNE", ""),
        ("HBT_CUDA_MEMORY", "separate"),
        ("HBT_CUDA_MEMORY", ""),
    ] {
        let output = Command::new(program()).arg("info").env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{variable}={value:?}: {}", text(&output.stderr));
    }
}

#[test]
fn info_says_what_a_bug_report_needs() {
    let output = hbt(&["info"]);
    assert_eq!(output.status.code(), Some(0));
    let info = text(&output.stdout);
    let value = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{info}"));
        line[name.len()..].trim().to_owned()
    };
    assert!(value("hbt").starts_with(env!("CARGO_PKG_VERSION")));
    assert!(value("target").starts_with(std::env::consts::ARCH));
    assert!(["auto is cpu", "auto is cuda"].contains(&value("device").as_str()));
    let threads = std::thread::available_parallelism().unwrap();
    assert!(value("threads").ends_with(&format!("{threads} available")));
    if let Ok(cpuinfo) = std::fs::read_to_string("/proc/cpuinfo") {
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or("");
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        let features = value("cpu features");
        let present = features.split(" (").next().unwrap();
        for flag in ["avx2", "fma", "avx512f", "avx512_bf16"].into_iter().filter(|_| !flags.is_empty()) {
            assert_eq!(present.split(' ').any(|word| word == flag), has(flag), "{flag} in {features}");
        }
    }
    if let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") {
        let kib: f64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(value("memory").starts_with(&format!("{:.1} GiB, ", kib / 1024.0 / 1024.0)));
    }
    assert!(!value("cuda").is_empty());
}
